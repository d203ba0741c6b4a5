//! What every object's metadata goes through, whatever its kind.
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/> and the conventions of `meta/v1.ObjectMeta`.

use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Cause, meta, time};
use rand::Rng as _;
use serde_json::{Map, Value, json};

use crate::{Context, Target, strategy};

/// Letters and digits that spell no words.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const MAX_GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;

/// Fields that only the system sets.
const SYSTEM_FIELDS: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "resourceVersion",
];

/// Five random letters for a generated name.
pub fn random_suffix() -> String {
    let mut random = rand::rng();
    (0..SUFFIX_LENGTH)
        .map(|_| char::from(SUFFIX_LETTERS[random.random_range(0..SUFFIX_LETTERS.len())]))
        .collect()
}

pub fn generated_name(base: &str) -> String {
    let end = base
        .char_indices()
        .map(|(at, _)| at)
        .nth(MAX_GENERATED_BASE)
        .unwrap_or(base.len());
    format!("{}{}", &base[..end], random_suffix())
}

/// The body's namespace must be the request's, or is filled in.
pub fn match_namespace(target: &Target, object: &mut Value) -> ApiResult<()> {
    if !target.row.namespaced {
        meta::metadata_mut(object).remove("namespace");
        return Ok(());
    }
    let found = meta::namespace(object);
    if found.is_empty() {
        meta::set(object, "namespace", target.namespace.clone());
        return Ok(());
    }
    if found == target.namespace {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// The body's name must be the request's.
pub fn match_name(target: &Target, object: &Value) -> ApiResult<()> {
    let found = meta::name(object);
    if found == target.name {
        return Ok(());
    }
    let url = &target.name;
    Err(ApiError::bad_request(if found.is_empty() {
        format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        )
    } else {
        format!("the name of the object ({found}) does not match the name on the URL ({url})")
    }))
}

/// Makes the system's part of a new object's metadata.
pub fn begin(ctx: &Context, row: &Row, object: &mut Value) {
    let metadata = meta::metadata_mut(object);
    for field in SYSTEM_FIELDS {
        metadata.remove(field);
    }
    metadata.insert(
        "uid".to_owned(),
        Value::String(uuid::Uuid::new_v4().to_string()),
    );
    metadata.insert(
        "creationTimestamp".to_owned(),
        Value::String(time::format_time(ctx.now)),
    );
    // Kinds that do not count it keep what the caller says.
    if row.generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
}

/// Takes over what an update may not change. `generation` is counted by [`count_generation`].
pub fn keep(object: &mut Value, old: &Value) {
    let empty = Map::new();
    let old = old
        .get("metadata")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let metadata = meta::metadata_mut(object);
    let mut keep = |field: &str, always: bool| match old.get(field) {
        Some(value) if always || !metadata.contains_key(field) => {
            metadata.insert(field.to_owned(), value.clone());
        }
        None if always => {
            metadata.remove(field);
        }
        _ => {}
    };
    keep("uid", false);
    keep("creationTimestamp", true);
    keep("generation", true);
    keep("deletionTimestamp", true);
    keep("deletionGracePeriodSeconds", true);
    keep("selfLink", true);
}

/// `metadata.generation` goes up by one if what it counts has changed.
pub fn count_generation(row: &Row, object: &mut Value, old: &Value) {
    if !row.generation {
        return;
    }
    let changed = match (&row.custom, row.hooks.generation_changed) {
        (Some(custom), _) => custom.generation_changed(object, old),
        (None, Some(changed)) => changed(object, old),
        (None, None) => strategy::generation_changed(row, object, old),
    };
    if changed {
        bump_generation(object);
    }
}

/// One more, if there is one at all.
pub fn bump_generation(object: &mut Value) {
    let generation = meta::generation(object);
    if generation > 0 {
        meta::metadata_mut(object).insert("generation".to_owned(), json!(generation + 1));
    }
}

/// True if the two differ in a top-level field other than these.
pub fn differ_beyond(a: &Value, b: &Value, ignored: &[&str]) -> bool {
    let empty = Map::new();
    let (a, b) = (
        a.as_object().unwrap_or(&empty),
        b.as_object().unwrap_or(&empty),
    );
    let counted = |name: &String| !ignored.contains(&name.as_str());
    a.iter()
        .any(|(name, value)| counted(name) && b.get(name) != Some(value))
        || b.keys().any(|name| counted(name) && !a.contains_key(name))
}

/// What must hold of metadata whatever the kind says; the kind's own rules check names and labels in full.
pub fn check(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = meta::name(object);
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = bad_path_segment(name) {
        causes.push(Cause::invalid(
            "metadata.name",
            &Value::String(name.to_owned()),
            why,
        ));
    }
    let Some(old) = old else { return causes };
    for field in ["name", "namespace", "uid"] {
        let text = |object: &Value| {
            object
                .pointer(&format!("/metadata/{field}"))
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let (now, before) = (text(object), text(old));
        if now != before {
            let value = now.map_or(Value::Null, Value::String);
            causes.push(Cause::invalid(
                format!("metadata.{field}"),
                &value,
                "field is immutable",
            ));
        }
    }
    if meta::is_terminating(old) {
        let before = meta::finalizers(old);
        let new: Vec<_> = meta::finalizers(object)
            .into_iter()
            .filter(|f| !before.contains(f))
            .collect();
        if !new.is_empty() {
            let list = new
                .iter()
                .map(|f| format!("{f:?}"))
                .collect::<Vec<_>>()
                .join(", ");
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
            );
            // Upstream checks metadata twice on an update (but for those of core events), and so tells this twice.
            causes.push(Cause::forbidden("metadata.finalizers", &detail));
            if meta::kind(object) != "Event" || meta::api_version(object) != "v1" {
                causes.push(Cause::forbidden("metadata.finalizers", &detail));
            }
        }
    }
    causes
}

/// Names become parts of storage keys and URLs.
fn bad_path_segment(name: &str) -> Option<&'static str> {
    match name {
        "." => Some("may not be '.'"),
        ".." => Some("may not be '..'"),
        _ if name.contains('/') => Some("may not contain '/'"),
        _ if name.contains('%') => Some("may not contain '%'"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = generated_name("web-");
        assert_eq!(name.len(), 9);
        assert!(
            name.bytes().skip(4).all(|b| SUFFIX_LETTERS.contains(&b)),
            "{name}"
        );
        assert_eq!(generated_name(&"x".repeat(100)).len(), 63);
        assert_ne!(generated_name("a"), generated_name("a"));
    }

    #[test]
    fn what_an_update_keeps() {
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "t", "generation": 3, "deletionTimestamp": "d", "labels": {"a": "b"}}});
        let mut new = json!({"metadata": {"creationTimestamp": "x", "generation": 9, "deletionTimestamp": null, "deletionGracePeriodSeconds": 5}});
        keep(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"uid": "u", "creationTimestamp": "t", "generation": 3, "deletionTimestamp": "d"}})
        );
        let causes = check(&json!({"metadata": {"name": "a/b"}}), None);
        assert_eq!(
            causes[0].message,
            "Invalid value: \"a/b\": may not contain '/'"
        );
    }
}
