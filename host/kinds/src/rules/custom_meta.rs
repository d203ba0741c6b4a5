//! Metadata of custom resources, of their definitions, and of the objects inside them.

use oarlock_model::Cause;
use serde_json::{Value, json};

use super::metadata::{STANDARD_FINALIZERS, embedded_meta, meta_of};
use super::names::{dns1035_label, qualified_name};
use super::path::Causes;

/// Metadata of the object itself.
pub fn object(out: &mut Causes, new: &Value, old: Option<&Value>) {
    let mut found = Causes::new();
    meta_of(&mut found, new, old, "apiextensions", "custom");
    // What the finalizers are called is a warning only.
    found.retain(|c| {
        !c.message
            .ends_with("name is neither a standard finalizer name nor is it fully qualified")
    });
    out.extend(found);
}

/// An object inside an object, at this place.
pub fn embedded(out: &mut Causes, value: &Value, path: &str) {
    let at = |field: &str| {
        if path.is_empty() {
            field.to_owned()
        } else {
            format!("{path}.{field}")
        }
    };
    for field in ["apiVersion", "kind"] {
        let Some(found) = value.get(field) else {
            out.push(Cause::required(at(field), ""));
            continue;
        };
        let why = match found.as_str() {
            None => Some("must be a string".to_owned()),
            Some("") => Some("must not be empty".to_owned()),
            Some(text) if field == "apiVersion" => (text.matches('/').count() > 1)
                .then(|| format!("unexpected GroupVersion string: {text}")),
            Some(text) => {
                let faults = dns1035_label(&text.to_lowercase());
                (!faults.is_empty()).then(|| {
                    format!(
                        "may have mixed case, but should otherwise match: {}",
                        faults.join(",")
                    )
                })
            }
        };
        if let Some(why) = why {
            out.push(Cause::invalid(at(field), found, &why));
        }
    }
    if let Some(metadata) = value.get("metadata") {
        let mut metadata = metadata.clone();
        if metadata
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .is_empty()
            && let Some(map) = metadata.as_object_mut()
        {
            // It need not have a name.
            map.insert("name".to_owned(), json!("fakename"));
        }
        embedded_meta(out, &json!({"metadata": metadata}), path);
    }
}

/// What is said of a finalizer that does not name whom it waits for.
pub fn finalizer_warnings(name: &str) -> Vec<String> {
    let mut out: Vec<String> = qualified_name(name)
        .into_iter()
        .map(|why| format!("metadata.finalizers: {name:?}: {why}"))
        .collect();
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let which = if name.contains('.') {
            " including a path (/)"
        } else {
            ""
        };
        out.push(format!(
            "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name{which} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    out
}
