//! JSON patch (RFC 6902) as Kubernetes applies it, which is more lenient than the RFC: `replace` of an absent field adds
//! it, `copy` from an absent field copies null, negative indices count from the end, and the text before a path's first
//! slash is ignored.

use oarlock_model::meta::as_map_mut;
use serde_json::Value;

use super::{PatchError, go_kind};

/// Operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of a patch may add up to.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Applies `patch`, a list of operations, in place. On an error `target` is in an undefined state.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Array(operations) = patch else {
        return Err(unmarshal(go_kind(patch), "jsonpatch.Patch"));
    };
    for operation in operations {
        if !operation.is_object() {
            return Err(unmarshal(go_kind(operation), "jsonpatch.Operation"));
        }
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    let mut copied = 0;
    for operation in operations {
        run(target, operation, &mut copied).ok_or(PatchError::DoesNotApply)?;
    }
    Ok(())
}

fn unmarshal(kind: &str, go_type: &str) -> PatchError {
    PatchError::Malformed(format!(
        "json: cannot unmarshal {kind} into Go value of type {go_type}"
    ))
}

/// `None`: the operation does not apply.
fn run(target: &mut Value, operation: &Value, copied: &mut usize) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match operation.get("op")?.as_str()? {
        "add" => add(target, path, value()),
        "remove" => remove(target, path).map(|_| ()),
        "replace" if path.is_empty() => {
            *target = value();
            (target.is_object() || target.is_array()).then_some(())
        }
        "replace" => replace(target, path, value()),
        "test" => test(target, path, operation.get("value").unwrap_or(&Value::Null)),
        "move" => {
            let moved = remove(target, operation.get("from")?.as_str()?)?;
            add(target, path, moved)
        }
        "copy" => {
            let from = operation.get("from")?.as_str()?;
            let (parent, key) = parent_of(target, from)?;
            let value = child(parent, &key)?.cloned().unwrap_or(Value::Null);
            *copied += weight(&value);
            (*copied <= MAX_COPIED_BYTES).then_some(())?;
            add(target, path, value)
        }
        _ => None,
    }
}

/// A cheap bound of the JSON text's size.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|v| weight(v) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(k, v)| k.len() + 4 + weight(v))
                .sum::<usize>()
        }
        _ => 8,
    }
}

fn decode(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The container that the path's last part is in, and that part.
fn parent_of<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut parts = path.split('/');
    parts.next();
    let mut at = target;
    let mut last = decode(parts.next()?);
    for part in parts {
        at = child_mut(at, &last)?;
        if !at.is_object() && !at.is_array() {
            return None;
        }
        last = decode(part);
    }
    Some((at, last))
}

/// An existing index of a list; negative ones count from the end.
fn index(key: &str, len: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    let len = i64::try_from(len).ok()?;
    let at = if at < 0 { at + len } else { at };
    (0..len).contains(&at).then_some(at as usize)
}

/// `Some(None)`: an absent field of a map. `None`: no such index, or no container.
fn child<'a>(parent: &'a Value, key: &str) -> Option<Option<&'a Value>> {
    match parent {
        Value::Object(map) => Some(map.get(key)),
        Value::Array(items) => Some(items.get(index(key, items.len())?)),
        _ => None,
    }
}

fn child_mut<'a>(parent: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match parent {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let at = index(key, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    let (parent, key) = parent_of(target, path)?;
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1)?;
            items.insert(at, value);
        }
        other => {
            as_map_mut(other).insert(key, value);
        }
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = parent_of(target, path)?;
    match parent {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

fn replace(target: &mut Value, path: &str, value: Value) -> Option<()> {
    let (parent, key) = parent_of(target, path)?;
    match parent {
        Value::Object(map) => {
            map.insert(key, value);
        }
        other => *child_mut(other, &key)? = value,
    }
    Some(())
}

fn test(target: &mut Value, path: &str, expect: &Value) -> Option<()> {
    if path.is_empty() {
        return (target == expect).then_some(());
    }
    let (parent, key) = parent_of(target, path)?;
    let actual = child(parent, &key)?.unwrap_or(&Value::Null);
    (actual == expect).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations() {
        let check = |patch: Value, expect: Result<Value, PatchError>| {
            let mut target =
                json!({"data": {"a": "1", "b": "2"}, "list": [1, 2, 3], "x/y": {"~": 1}});
            let result = json_patch(&mut target, &patch).map(|()| target);
            assert_eq!(result, expect, "{patch}");
        };
        let with = |edit: fn(&mut Value)| {
            let mut value =
                json!({"data": {"a": "1", "b": "2"}, "list": [1, 2, 3], "x/y": {"~": 1}});
            edit(&mut value);
            Ok(value)
        };
        let refused = || Err(PatchError::DoesNotApply);
        check(json!([]), with(|_| ()));
        check(
            json!([{"op": "add", "path": "/data/n", "value": "v"}]),
            with(|v| v["data"]["n"] = json!("v")),
        );
        check(
            json!([{"op": "replace", "path": "/data/n", "value": "v"}]),
            with(|v| v["data"]["n"] = json!("v")),
        );
        check(
            json!([{"op": "copy", "from": "/nope", "path": "/data/n"}]),
            with(|v| v["data"]["n"] = json!(null)),
        );
        check(
            json!([{"op": "add", "path": "data/n", "value": "v"}]),
            with(|v| v["n"] = json!("v")),
        );
        check(
            json!([{"op": "add", "path": "/list/-", "value": 4}]),
            with(|v| v["list"] = json!([1, 2, 3, 4])),
        );
        check(
            json!([{"op": "add", "path": "/list/-1", "value": 4}]),
            with(|v| v["list"] = json!([1, 2, 3, 4])),
        );
        check(
            json!([{"op": "replace", "path": "/list/-1", "value": 4}]),
            with(|v| v["list"] = json!([1, 2, 4])),
        );
        check(
            json!([{"op": "remove", "path": "/x~1y/~0"}]),
            with(|v| v["x/y"] = json!({})),
        );
        check(
            json!([{"op": "move", "from": "/data/a", "path": "/data/c"}]),
            with(|v| v["data"] = json!({"b": "2", "c": "1"})),
        );
        check(
            json!([{"op": "test", "path": "/data/a", "value": "1"}]),
            with(|_| ()),
        );
        check(
            json!([{"op": "test", "path": "/data/z", "value": null}]),
            with(|_| ()),
        );
        check(
            json!([{"op": "test", "path": "/data/a", "value": "2"}]),
            refused(),
        );
        check(json!([{"op": "remove", "path": "/data/z"}]), refused());
        check(json!([{"op": "remove", "path": "/list/9"}]), refused());
        check(
            json!([{"op": "add", "path": "/list/5", "value": 1}]),
            refused(),
        );
        check(
            json!([{"op": "add", "path": "/no/where", "value": 1}]),
            refused(),
        );
        check(json!([{"path": "/data/a", "value": "x"}]), refused());
        check(json!([{"op": "nope", "path": "/data/a"}]), refused());
        let many: Vec<Value> =
            vec![json!({"op": "test", "path": "/data/a", "value": "1"}); MAX_OPERATIONS + 1];
        check(
            Value::Array(many),
            Err(PatchError::TooManyOperations(MAX_OPERATIONS + 1)),
        );
        check(
            json!({}),
            Err(PatchError::Malformed(
                "json: cannot unmarshal object into Go value of type jsonpatch.Patch".into(),
            )),
        );
    }
}
