//! Lists that are sets or keyed: no item comes twice. And which item of an old list a new item was.

use std::collections::HashMap;

use oarlock_model::Cause;
use serde_json::{Map, Value};

use super::node::Node;

/// Duplicates below `value`.
pub fn check_lists(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            for (name, field) in map {
                let Some(below) = node.field(name) else {
                    continue;
                };
                let path = match (node.properties.contains_key(name), path.is_empty()) {
                    (true, true) => name.clone(),
                    (true, false) => format!("{path}.{name}"),
                    (false, _) => format!("{path}[{name}]"),
                };
                check_lists(below, field, &path, out);
            }
        }
        Value::Array(items) => {
            match node.list_type.as_str() {
                "set" => tell_twice(items.iter().cloned(), path, out),
                "map" => check_keys(node, items, path, out),
                _ => {}
            }
            if let Some(of) = &node.items {
                for (at, item) in items.iter().enumerate() {
                    check_lists(of, item, &format!("{path}[{at}]"), out);
                }
            }
        }
        _ => {}
    }
}

/// Tells each value that comes more than once, once.
fn tell_twice(values: impl Iterator<Item = Value>, path: &str, out: &mut Vec<Cause>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (at, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            out.push(Cause::duplicate(format!("{path}[{at}]"), &value));
        }
    }
}

fn key_of(node: &Node, item: &Value) -> Value {
    let keys = node.list_map_keys.iter();
    Value::Object(
        keys.filter_map(|k| Some((k.clone(), item.get(k)?.clone())))
            .collect::<Map<_, _>>(),
    )
}

fn check_keys(node: &Node, items: &[Value], path: &str, out: &mut Vec<Cause>) {
    let odd = items
        .iter()
        .enumerate()
        .find(|(_, i)| !i.is_object() && !i.is_null());
    if let Some((at, item)) = odd {
        let why = "must be an object for an array of list-type map";
        out.push(Cause::invalid(format!("{path}[{at}]"), item, why));
        return;
    }
    tell_twice(items.iter().map(|item| key_of(node, item)), path, out);
}

/// The item of the old list that `item` of the new one is a version of, if lists of this kind say so.
pub fn correlated<'a>(node: &Node, old: &'a Value, item: &Value) -> Option<&'a Value> {
    if node.list_type != "map" {
        return None;
    }
    let key = key_of(node, item);
    old.as_array()?.iter().find(|o| key_of(node, o) == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates() {
        let check = |schema: Value, value: Value, expect: &[&str]| {
            let mut out = Vec::new();
            check_lists(&Node::parse(&schema), &value, "", &mut out);
            let got: Vec<String> = out
                .iter()
                .map(|c| format!("{}: {}", c.field, c.message))
                .collect();
            assert_eq!(got, expect);
        };
        let of = |list: Value| json!({"properties": {"l": list}});
        check(
            of(json!({"x-kubernetes-list-type": "set"})),
            json!({"l": ["a", "b", "a", "a"]}),
            &["l[2]: Duplicate value: \"a\""],
        );
        check(
            of(json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]})),
            json!({"l": [{"k": 1}, {"k": 1, "v": 2}, {}, {}]}),
            &[
                "l[1]: Duplicate value: {\"k\":1}",
                "l[3]: Duplicate value: {}",
            ],
        );
        check(
            json!({"additionalProperties": {"x-kubernetes-list-type": "set"}}),
            json!({"m": [1, 1]}),
            &["[m][1]: Duplicate value: 1"],
        );
    }
}
