//! A policy's patch: applied to a copy, and believed only if it leaves alone what is not the policy's.

use oarlock_registry::{Target, readmit};
use oarlock_schema::patch::{json_patch, merge_patch};
use oarlock_wasm::admission::Patch;
use serde_json::Value;

/// The longest text of a patch: what an object may have at most.
const MAX_PATCH_BYTES: usize = oarlock_registry::MAX_OBJECT_BYTES;

/// Fields of metadata that no policy changes.
const KEPT: [&str; 9] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];
const MANAGED_FIELDS: &str = "managedFields";

/// What the patch makes of the object; `None`: nothing changes. The error says why the patch cannot be what the policy means.
pub fn patched(
    target: &Target,
    object: &Value,
    old: Option<&Value>,
    patch: &Patch,
) -> Result<Option<Value>, String> {
    let (Patch::Json(text) | Patch::Merge(text)) = patch;
    if text.len() > MAX_PATCH_BYTES {
        return Err(format!("a patch of {} bytes", text.len()));
    }
    let parsed: Value =
        serde_json::from_str(text).map_err(|error| format!("the patch is no JSON: {error}"))?;
    let mut changed = object.clone();
    match patch {
        Patch::Json(_) => json_patch(&mut changed, &parsed),
        Patch::Merge(_) => merge_patch(&mut changed, &parsed),
    }
    .map_err(|error| format!("the patch does not apply: {error}"))?;
    for field in ["apiVersion", "kind"] {
        if changed.get(field) != object.get(field) {
            return Err(format!("the patch changes {field}"));
        }
    }
    let metadata = |tree: &Value, field: &str| tree.get("metadata")?.get(field).cloned();
    for field in KEPT {
        if metadata(&changed, field) != metadata(object, field) {
            return Err(format!("the patch changes metadata.{field}"));
        }
    }
    // Policies do not see managedFields: one that replaces metadata as a whole does not mean them.
    if let Some(map) = changed.get_mut("metadata").and_then(Value::as_object_mut) {
        match metadata(object, MANAGED_FIELDS) {
            Some(managed) => map.insert(MANAGED_FIELDS.to_owned(), managed),
            None => map.remove(MANAGED_FIELDS),
        };
    }
    if changed == *object {
        return Ok(None);
    }
    readmit(target, &changed, old)
        .map(Some)
        .map_err(|why| format!("the patched object does not fit its kind: {why}"))
}

#[cfg(test)]
mod tests {
    use oarlock_kinds::Kinds;
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_change_what_they_may_and_nothing_else() {
        let row = Kinds::builtin().resource("", "v1", "configmaps").unwrap();
        let target = Target::new(&row, "default", "a");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"},
            "metadata": {"name": "a", "namespace": "default", "uid": "u", "managedFields": [{"manager": "m"}]}});
        let check = |patch: Patch, expect: Result<Option<(&str, Value)>, &str>| {
            let got = patched(&target, &object, None, &patch);
            match (got, expect) {
                (Ok(None), Ok(None)) => {}
                (Ok(Some(tree)), Ok(Some((pointer, value)))) => {
                    assert_eq!(tree.pointer(pointer), Some(&value), "{patch:?}");
                    assert_eq!(
                        tree.pointer("/metadata/managedFields/0/manager"),
                        Some(&json!("m"))
                    );
                }
                (Err(why), Err(expect)) => assert!(why.contains(expect), "{why}"),
                (got, expect) => panic!("{patch:?}: {got:?}, not {expect:?}"),
            }
        };
        let merge = |patch: Value| Patch::Merge(patch.to_string());
        let json = |patch: Value| Patch::Json(patch.to_string());
        check(
            merge(json!({"metadata": {"labels": {"a": "b"}}})),
            Ok(Some(("/metadata/labels/a", json!("b")))),
        );
        check(
            json(json!([{"op": "add", "path": "/data/n", "value": "x"}])),
            Ok(Some(("/data/n", json!("x")))),
        );
        check(
            json(
                json!([{"op": "add", "path": "/metadata/managedFields", "value": []},
                        {"op": "remove", "path": "/data"}]),
            ),
            Ok(Some(("/metadata/name", json!("a")))),
        );
        check(merge(json!({"data": {"k": "v"}})), Ok(None));
        check(json(json!([])), Ok(None));
        check(merge(json!({"kind": "Secret"})), Err("changes kind"));
        check(
            merge(json!({"metadata": {"name": "b"}})),
            Err("changes metadata.name"),
        );
        check(
            merge(json!({"metadata": {"namespace": "kube-system"}})),
            Err("changes metadata.namespace"),
        );
        check(merge(json!({"metadata": null})), Err("changes metadata."));
        check(merge(json!({"data": 5})), Err("does not fit its kind"));
        check(merge(json!([])), Err("does not apply"));
        check(
            json(json!([{"op": "test", "path": "/data/k", "value": "w"}])),
            Err("does not apply"),
        );
        check(Patch::Json("[".to_owned()), Err("is no JSON"));
    }
}
