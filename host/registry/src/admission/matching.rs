//! Which writes a policy or webhook is about: rules by group, version, resource and operation; selectors by labels.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/> (matchConstraints).

use std::sync::Arc;

use oarlock_kinds::Row;
use oarlock_model::{LabelSelector, meta};
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::codec::tree;
use crate::{Registry, Target, keys, strategy};

/// `matchConstraints`, `matchResources`, or what a webhook says in their place.
#[derive(Debug)]
pub struct Matching {
    /// `None`: there are no rules, and every write fits.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
    namespaces: LabelSelector,
    objects: LabelSelector,
    /// Other versions of a kind that the rules name mean it, too.
    equivalent: bool,
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    scope: String,
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().into_iter().flatten();
    texts
        .filter_map(|t| t.as_str().map(str::to_owned))
        .collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|t| t == "*" || t == wanted)
}

impl Rule {
    fn of(rule: &Value) -> Self {
        Self {
            operations: texts(&rule["operations"]),
            groups: texts(&rule["apiGroups"]),
            versions: texts(&rule["apiVersions"]),
            resources: texts(&rule["resources"]),
            names: texts(&rule["resourceNames"]),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn fits(&self, row: &Row, target: &Target, operation: Operation) -> bool {
        has(&self.groups, &row.group)
            && has(&self.versions, &row.version)
            && self.fits_elsewhere(target, operation)
            && match self.scope.as_str() {
                "Namespaced" => row.namespaced,
                "Cluster" => !row.namespaced,
                _ => true,
            }
    }

    /// Whether it is about such requests, if they come in another group or version.
    fn fits_elsewhere(&self, target: &Target, operation: Operation) -> bool {
        let resource = |pattern: &String| {
            let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
            let whole = resource == "*" || resource == target.row.resource;
            // `*` alone is every resource, and no subresource.
            whole && (sub == "*" || sub == target.subresource)
        };
        has(&self.operations, operation.as_str())
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.contains(&target.name))
    }
}

impl Matching {
    /// Of a `matchConstraints`, or of a webhook (which calls its rules `rules`). A selector that cannot be read fits nothing
    /// that has passed validation, so the error says so.
    pub fn of(from: &Value) -> Result<Self, String> {
        let rules = |field: &str| {
            let rules = from[field].as_array();
            rules.map(|rules| rules.iter().map(Rule::of).collect::<Vec<_>>())
        };
        let selector = |field: &str| match &from[field] {
            Value::Null => Ok(LabelSelector::everything()),
            selector => LabelSelector::from_object(selector).map_err(|e| e.to_string()),
        };
        Ok(Self {
            rules: rules("resourceRules").or_else(|| rules("rules")),
            excluded: rules("excludeResourceRules").unwrap_or_default(),
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
            equivalent: from["matchPolicy"] == "Equivalent",
        })
    }

    /// Fits no write.
    pub fn nothing() -> Self {
        Self {
            rules: Some(Vec::new()),
            excluded: Vec::new(),
            namespaces: LabelSelector::everything(),
            objects: LabelSelector::everything(),
            equivalent: false,
        }
    }

    /// By kind and operation alone; cheap.
    pub fn fits_kind(&self, target: &Target, operation: Operation) -> bool {
        self.fits_row(&target.row, target, operation)
    }

    fn fits_row(&self, row: &Row, target: &Target, operation: Operation) -> bool {
        let some = |rules: &[Rule]| rules.iter().any(|rule| rule.fits(row, target, operation));
        self.rules.as_deref().is_none_or(some) && !some(&self.excluded)
    }

    /// False only if [`Self::row`] finds nothing; cheap.
    pub fn may_fit(&self, target: &Target, operation: Operation) -> bool {
        let elsewhere = |rules: &Vec<Rule>| {
            rules
                .iter()
                .any(|rule| rule.fits_elsewhere(target, operation))
        };
        self.fits_kind(target, operation)
            || (self.equivalent && self.rules.as_ref().is_some_and(elsewhere))
    }

    /// [`Self::row`], if the request is about what the selectors choose, too.
    pub fn fitting(
        &self,
        registry: &Registry,
        request: &AdmissionRequest<'_>,
    ) -> Result<Option<Arc<Row>>, String> {
        let Some(row) = self.row(registry, request.target, request.operation) else {
            return Ok(None);
        };
        let chosen = self.fits_namespace(registry, request)? && self.fits_object(request);
        Ok(chosen.then_some(row))
    }

    /// The kind that the rules mean by such a request: its own, or (if equivalent ones count) another version of it.
    pub fn row(
        &self,
        registry: &Registry,
        target: &Target,
        operation: Operation,
    ) -> Option<Arc<Row>> {
        let own = &target.row;
        if self.fits_kind(target, operation) {
            return Some(Arc::clone(own));
        }
        if !self.may_fit(target, operation) {
            return None;
        }
        let kinds = registry.kinds();
        let mut others = kinds.rows().iter().filter(|row| {
            row.storage_prefix == own.storage_prefix && row.stored && row.gvr() != own.gvr()
        });
        others
            .find(|row| self.fits_row(row, target, operation))
            .map(Arc::clone)
    }

    pub fn fits_object(&self, request: &AdmissionRequest<'_>) -> bool {
        if self.objects.is_everything() {
            return true;
        }
        let fits = |object: &Value| self.objects.matches(meta::labels(object));
        request.object.as_deref().is_some_and(fits) || request.old.is_some_and(fits)
    }

    pub fn fits_namespace(
        &self,
        registry: &Registry,
        request: &AdmissionRequest<'_>,
    ) -> Result<bool, String> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        let target = request.target;
        if strategy::is(&target.row, "", "Namespace") {
            // A namespace is chosen by its own labels.
            let object = request.object.as_deref().or(request.old);
            return Ok(self.namespaces.matches(object.and_then(meta::labels)));
        }
        if target.namespace.is_empty() {
            return Ok(true);
        }
        let namespace = namespace(registry, &target.namespace)
            .ok_or_else(|| format!("namespaces \"{}\" not found", target.namespace))?;
        Ok(self.namespaces.matches(meta::labels(&namespace)))
    }
}

/// A namespace's object.
pub fn namespace(registry: &Registry, name: &str) -> Option<Value> {
    let row = registry.row("", "namespaces")?;
    let record = registry.store().get(&keys::key(&row, "", name))?;
    tree(&record.value).ok()
}

/// Kinds that policies never look at: what decides about requests must not decide about itself.
pub fn is_exempt(target: &Target) -> bool {
    let row = &target.row;
    match row.group.as_str() {
        "admissionregistration.k8s.io" => {
            row.resource.starts_with("validatingadmissionpolic")
                || row.resource.starts_with("mutatingadmissionpolic")
        }
        "authentication.k8s.io" | "authorization.k8s.io" => !row.stored,
        _ => false,
    }
}
