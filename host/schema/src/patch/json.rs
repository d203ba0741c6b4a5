//! JSON patch (RFC 6902) as Kubernetes applies it, which is more lenient than the RFC: `replace` of an absent field adds
//! it, `copy` from an absent field copies null, negative indices count from the end, and the text before a path's first
//! slash is ignored.

use oarlock_model::meta::as_map_mut;
use serde_json::Value;

use super::{MAX_DEPTH, PatchError, go_kind};

/// Operations in one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Bytes that all `copy` operations of a patch may add up to.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// Values that all operations of a patch may look at or move up and down a list. (An object has a million at the most; a
/// patch that goes over all of them ten thousand times would take minutes.)
const MAX_STEPS: usize = 50_000_000;

/// What the operations of one patch have used up together.
#[derive(Default)]
struct Used {
    copied: usize,
    steps: usize,
}

impl Used {
    fn step(&mut self, steps: usize) -> Option<()> {
        self.steps += steps;
        (self.steps <= MAX_STEPS).then_some(())
    }
}

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
    let mut used = Used::default();
    for operation in operations {
        run(target, operation, &mut used).ok_or(PatchError::DoesNotApply)?;
    }
    Ok(())
}

fn unmarshal(kind: &str, go_type: &str) -> PatchError {
    PatchError::Malformed(format!(
        "json: cannot unmarshal {kind} into Go value of type {go_type}"
    ))
}

/// `None`: the operation does not apply.
fn run(target: &mut Value, operation: &Value, used: &mut Used) -> Option<()> {
    let path = operation.get("path")?.as_str()?;
    let value = || operation.get("value").cloned().unwrap_or(Value::Null);
    match operation.get("op")?.as_str()? {
        "add" => add(target, path, value(), used),
        "remove" => remove(target, path, used).map(|_| ()),
        "replace" if path.is_empty() => {
            *target = value();
            (target.is_object() || target.is_array()).then_some(())
        }
        "replace" => replace(target, path, value(), used),
        "test" => test(target, path, operation.get("value").unwrap_or(&Value::Null)),
        "move" => {
            let moved = remove(target, operation.get("from")?.as_str()?, used)?;
            add(target, path, moved, used)
        }
        "copy" => {
            let from = operation.get("from")?.as_str()?;
            let (parent, key) = parent_of(target, from)?;
            let value = child(parent, &key)?.cloned().unwrap_or(Value::Null);
            used.copied += weight(&value);
            (used.copied <= MAX_COPIED_BYTES).then_some(())?;
            add(target, path, value, used)
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

/// Whether a value may be put at a path: a patch may not build what is deeper than any body could be, since whoever reads it
/// goes down it by recursion.
fn fits(path: &str, value: &Value, used: &mut Used) -> Option<()> {
    fn depth(value: &Value, steps: &mut usize) -> usize {
        *steps += 1;
        let below = match value {
            Value::Array(items) => items.iter().map(|v| depth(v, steps)).max(),
            Value::Object(map) => map.values().map(|v| depth(v, steps)).max(),
            _ => return 0,
        };
        1 + below.unwrap_or(0)
    }
    let mut steps = 0;
    let depth = depth(value, &mut steps);
    used.step(steps)?;
    (path.split('/').count() + depth <= MAX_DEPTH).then_some(())
}

fn add(target: &mut Value, path: &str, value: Value, used: &mut Used) -> Option<()> {
    fits(path, &value, used)?;
    let (parent, key) = parent_of(target, path)?;
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&key, items.len() + 1)?;
            used.step(items.len() - at)?;
            items.insert(at, value);
        }
        other => {
            as_map_mut(other).insert(key, value);
        }
    }
    Some(())
}

fn remove(target: &mut Value, path: &str, used: &mut Used) -> Option<Value> {
    let (parent, key) = parent_of(target, path)?;
    match parent {
        Value::Object(map) => map.remove(&key),
        Value::Array(items) => {
            let at = index(&key, items.len())?;
            used.step(items.len() - at)?;
            Some(items.remove(at))
        }
        _ => None,
    }
}

fn replace(target: &mut Value, path: &str, value: Value, used: &mut Used) -> Option<()> {
    fits(path, &value, used)?;
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

    #[test]
    fn no_patch_builds_what_nobody_can_read() {
        let inner: Value = (0..100).fold(json!(1), |inner, _| json!({ "a": inner }));
        let step = "/a".repeat(100);
        let add = |levels: usize| json!({"op": "add", "path": step.repeat(levels) + "/a", "value": inner});
        let mut object = json!({"a": {}});
        assert_eq!(json_patch(&mut object, &json!([add(0), add(1)])), Ok(()));
        let deeper = json_patch(&mut object, &json!([add(2)]));
        assert_eq!(deeper, Err(PatchError::DoesNotApply));
        let wrap = [
            json!({"op": "add", "path": "/w", "value": {}}),
            json!({"op": "move", "from": "/a", "path": "/w/a"}),
            json!({"op": "move", "from": "/w", "path": "/a"}),
        ];
        let often = Value::Array(wrap.iter().cycle().take(3000).cloned().collect());
        let wrapped = json_patch(&mut json!({"a": {}}), &often);
        assert_eq!(wrapped, Err(PatchError::DoesNotApply));
    }

    #[test]
    fn a_patch_of_a_long_list_ends() {
        let mut object = json!({"a": vec![1; 100_000]});
        let front = json!({"op": "add", "path": "/a/0", "value": 1});
        let result = json_patch(&mut object, &json!(vec![front; 10_000]));
        assert_eq!(result, Err(PatchError::DoesNotApply));
    }
}
