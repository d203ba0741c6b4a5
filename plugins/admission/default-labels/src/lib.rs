//! An example of a mutating policy: labels that an object lacks, and an annotation that says who made it.
//!
//! `args`: `{"labels": {"team": "none"}, "ownerAnnotation": "oarlock.dev/created-by"}`; an empty annotation is not set.
//! Which objects: what the `AdmissionPolicy`'s match rules say.

use std::collections::BTreeMap;

use oarlock_sdk::admission::{Denial, Description, Operation, Patch, Policy, Request, Rule};
use serde::{Deserialize, Serialize};

/// The policy's arguments.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Args {
    labels: BTreeMap<String, String>,
    owner_annotation: String,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            owner_annotation: "oarlock.dev/created-by".to_owned(),
        }
    }
}

/// The policy.
#[derive(Debug, Default)]
pub struct DefaultLabels {
    args: Args,
}

/// What is read, and what is written, of an object.
#[derive(Default, Deserialize, Serialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Metadata {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Policy for DefaultLabels {
    fn describe(&self) -> Description {
        let rule = Rule {
            operations: vec![Operation::Create, Operation::Update],
            groups: Vec::new(),
            versions: Vec::new(),
            resources: vec!["*".to_owned()],
        };
        Description::mutating("default-labels", vec![rule])
    }

    fn configure(&mut self, args: &str) -> Result<(), String> {
        self.args = serde_json::from_str(args).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn mutate(&self, request: &Request) -> Result<Option<Patch>, Denial> {
        let metadata = request.object_as::<Object>()?.metadata;
        let mut missing = Metadata::default();
        for (key, value) in &self.args.labels {
            if !metadata.labels.contains_key(key) {
                missing.labels.insert(key.clone(), value.clone());
            }
        }
        let owner = &self.args.owner_annotation;
        if !owner.is_empty() {
            let was = request
                .old_as::<Object>()?
                .metadata
                .annotations
                .remove(owner);
            // Whoever made it is who made it: nobody writes that himself, or takes it away.
            let maker = match request.operation {
                Operation::Create => Some(request.user.name.clone()),
                _ => was,
            };
            if let Some(maker) = maker.filter(|m| metadata.annotations.get(owner) != Some(m)) {
                missing.annotations.insert(owner.clone(), maker);
            }
        }
        if missing.labels.is_empty() && missing.annotations.is_empty() {
            return Ok(None);
        }
        Ok(Some(Patch::merging(&Object { metadata: missing })))
    }
}

oarlock_sdk::export_policy!(DefaultLabels);

#[cfg(test)]
mod tests {
    use oarlock_sdk::admission::testing::{change, configured, creation};
    use serde_json::{Value, json};

    use super::*;

    fn patch(args: Value, request: &Request) -> Option<Value> {
        let policy: DefaultLabels = configured(&args);
        match policy.mutate(request).expect("not refused")? {
            Patch::Merge(text) => Some(serde_json::from_str(&text).expect("JSON")),
            Patch::Json(_) => None,
        }
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let check = |metadata: Value, expect: Option<Value>| {
            let request = creation("configmaps", &json!({"metadata": metadata}));
            let args = json!({"labels": {"team": "none"}, "ownerAnnotation": ""});
            assert_eq!(patch(args, &request), expect);
        };
        check(
            json!({}),
            Some(json!({"metadata": {"labels": {"team": "none"}}})),
        );
        check(json!({"labels": {"team": "a"}}), None);
        check(
            json!({"labels": {"app": "a"}}),
            Some(json!({"metadata": {"labels": {"team": "none"}}})),
        );
    }

    #[test]
    fn the_maker_is_written_once_and_for_all() {
        let by = |who: &str| json!({"metadata": {"annotations": {"oarlock.dev/created-by": who}}});
        let nobody = json!({"metadata": {}});
        let check = |request: Request, expect: Option<Value>| {
            assert_eq!(patch(json!({}), &request), expect);
        };
        check(creation("pods", &nobody), Some(by("tester")));
        check(creation("pods", &by("another")), Some(by("tester")));
        check(creation("pods", &by("tester")), None);
        check(change("pods", &by("ada"), &by("ada")), None);
        check(change("pods", &by("ada"), &by("tester")), Some(by("ada")));
        check(change("pods", &by("ada"), &nobody), Some(by("ada")));
        check(change("pods", &nobody, &nobody), None);
    }

    #[test]
    fn unknown_arguments_are_refused() {
        assert!(
            DefaultLabels::default()
                .configure(r#"{"label": {}}"#)
                .is_err()
        );
    }
}
