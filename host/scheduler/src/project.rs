//! Projection: the parts of an object that a guest wants, at their own places in an otherwise empty object.

use serde_json::{Map, Value};

/// The JSON text of the parts at these pointers; of the whole object if there are none.
pub fn project(object: &Value, pointers: &[String]) -> String {
    if pointers.is_empty() {
        return object.to_string();
    }
    let mut out = Value::Object(Map::new());
    for pointer in pointers {
        if let Some(part) = object.pointer(pointer) {
            put(&mut out, pointer, part.clone());
        }
    }
    out.to_string()
}

/// Sets `value` at the pointer, making objects on the way. Pointers into arrays are not split: their parts are names.
fn put(at: &mut Value, pointer: &str, value: Value) {
    let mut at = at;
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(name).or_insert(Value::Null);
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn projects() {
        let node = json!({"metadata": {"name": "a", "labels": {"x/y": "1"}}, "spec": {"taints": [1]}, "status": {}});
        let check = |pointers: &[&str], expect: Value| {
            let pointers: Vec<String> = pointers.iter().map(|p| (*p).to_owned()).collect();
            let got: Value = serde_json::from_str(&project(&node, &pointers)).unwrap();
            assert_eq!(got, expect);
        };
        check(&[], node.clone());
        check(
            &["/metadata/labels", "/spec/none"],
            json!({"metadata": {"labels": {"x/y": "1"}}}),
        );
        check(
            &["/metadata/labels/x~1y", "/spec/taints"],
            json!({"metadata": {"labels": {"x/y": "1"}}, "spec": {"taints": [1]}}),
        );
    }
}
