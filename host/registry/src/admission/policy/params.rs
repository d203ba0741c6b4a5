//! Finds the parameters that a binding refers to.

use oarlock_model::meta;
use oarlock_store::RangeQuery;
use serde_json::Value;

use super::compiled::{ParamRef, Policy};
use crate::codec::load;
use crate::{Registry, keys};

pub(super) fn find(
    registry: &Registry,
    version: &str,
    kind: &str,
    reference: &ParamRef,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let row = registry
        .kinds()
        .kind(group, number, kind)
        .ok_or_else(|| format!("paramKind kind `{version}, Kind={kind}` not known"))?;
    let namespace = match (row.namespaced, reference.namespace.as_str()) {
        (true, "") if namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned());
        }
        (true, "") => namespace,
        (false, "") => "",
        (true, named) => named,
        (false, _) => {
            return Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
                    .to_owned(),
            );
        }
    };
    let mut found = Vec::new();
    if let Some(selector) = &reference.selector {
        let query = RangeQuery {
            prefix: keys::prefix(&row, namespace),
            ..RangeQuery::default()
        };
        let page = registry.store().range(&query).map_err(|e| e.to_string())?;
        for record in page.records {
            let object = load(&row, &record.value).map_err(|e| e.message)?;
            if selector.matches(meta::labels(&object)) {
                found.push(Some(object));
            }
        }
    } else if let Some(record) = registry
        .store()
        .get(&keys::key(&row, namespace, &reference.name))
    {
        found.push(Some(load(&row, &record.value).map_err(|e| e.message)?));
    }
    if found.is_empty() && reference.required {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".to_owned(),
        );
    }
    Ok(found)
}

impl Policy {
    /// Why the kind of its parameters is of no use.
    pub fn lacks_params(&self, registry: &Registry) -> Option<String> {
        let (version, kind) = self.param_kind.as_ref()?;
        let (group, number) = version.split_once('/').unwrap_or(("", version));
        registry.kinds().kind(group, number, kind).is_none().then(|| {
            format!("failed to find resource referenced by paramKind: '{group}/{number}, Kind={kind}'")
        })
    }
}
