//! Pruning what a schema does not know, filling in defaults, and dropping nulls that may not be.

use serde_json::{Map, Value};

use super::node::{Additional, Node};

/// What every object has, whatever its schema says.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops every field of an object that its schema does not know; their paths, sorted. The object's own apiVersion, kind and
/// metadata stay.
pub fn prune_unknown(node: &Node, object: &mut Value) -> Vec<String> {
    let mut walk = Walk::default();
    walk.prune(Some(node), object, true);
    walk.dropped.sort();
    walk.dropped
}

#[derive(Default)]
struct Walk {
    path: String,
    dropped: Vec<String>,
}

impl Walk {
    /// Does something below a field or an item.
    fn below(&mut self, step: &str, act: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !length.eq(&0) && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        act(self);
        self.path.truncate(length);
    }

    /// `node`: `None` where the schema says nothing, and so knows no field.
    fn prune(&mut self, node: Option<&Node>, value: &mut Value, root: bool) {
        let keeps = node.is_some_and(|n| n.preserve_unknown);
        let embedded = root || node.is_some_and(|n| n.embedded_resource);
        match value {
            Value::Object(map) => {
                let known = |name: &str| match node {
                    Some(n) => n.properties.contains_key(name) || n.additional.is_some(),
                    None => false,
                };
                if !keeps {
                    self.drop_fields(map, |name| {
                        known(name) || (embedded && OBJECT_FIELDS.contains(&name))
                    });
                }
                for (name, field) in map.iter_mut() {
                    if (embedded && OBJECT_FIELDS.contains(&name.as_str())) || !known(name) {
                        continue;
                    }
                    let below = node.and_then(|n| n.field(name));
                    self.below(name, |walk| walk.prune(below, field, false));
                }
            }
            Value::Array(items) => {
                let below = node.and_then(|n| n.items.as_deref());
                // In a list that keeps what it does not know, only what is known is looked into.
                if keeps && below.is_none() {
                    return;
                }
                for (at, item) in items.iter_mut().enumerate() {
                    self.below(&format!("[{at}]"), |walk| walk.prune(below, item, false));
                }
            }
            _ => {}
        }
    }

    fn drop_fields(&mut self, map: &mut Map<String, Value>, keep: impl Fn(&str) -> bool) {
        let gone: Vec<String> = map.keys().filter(|name| !keep(name)).cloned().collect();
        for name in gone {
            map.remove(&name);
            if !self.path.is_empty() || !OBJECT_FIELDS.contains(&name.as_str()) {
                self.below(&name, |walk| walk.dropped.push(walk.path.clone()));
            }
        }
    }
}

/// Fills in defaults, also for nulls that may not be. Idempotent.
pub fn fill_defaults(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                if let Some(default) = &property.default
                    && map
                        .get(name)
                        .is_none_or(|v| v.is_null() && !property.nullable)
                {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, field) in map.iter_mut() {
                if let Some(property) = node.properties.get(name) {
                    fill_defaults(property, field);
                } else if let Some(Additional::Of(values)) = &node.additional {
                    fill_null(values, field);
                    fill_defaults(values, field);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &node.items {
                for item in items {
                    fill_null(of, item);
                    fill_defaults(of, item);
                }
            }
        }
        _ => {}
    }
}

fn fill_null(node: &Node, value: &mut Value) {
    if let (true, false, Some(default)) = (value.is_null(), node.nullable, &node.default) {
        *value = default.clone();
    }
}

/// Drops nulls where null is no value and no default stands in for it.
pub fn drop_nulls(node: &Node, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, field| {
                let Some(below) = node.field(name) else {
                    return true;
                };
                if field.is_null() {
                    return below.nullable || below.default.is_some();
                }
                drop_nulls(below, field);
                true
            });
        }
        Value::Array(items) => {
            if let Some(of) = &node.items {
                items.iter_mut().for_each(|item| drop_nulls(of, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pruning() {
        let check = |schema: Value, mut value: Value, expect: Value, dropped: &[&str]| {
            let got = prune_unknown(&Node::parse(&schema), &mut value);
            assert_eq!(
                (value, got),
                (expect, dropped.iter().map(|&d| d.to_owned()).collect())
            );
        };
        let spec = json!({"type": "object", "properties": {"a": {"type": "integer"},
            "l": {"type": "array", "items": {"type": "object", "properties": {"b": {}}}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}},
            "e": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"q": {"type": "object"}}}}});
        check(
            json!({"type": "object", "properties": {"spec": spec}}),
            json!({"kind": "K", "metadata": {"x": 1}, "top": 1, "spec": {"x": 1, "a": 2, "l": [{"b": 1, "c": 2}],
                "m": {"k": "v"}, "e": {"kind": "P", "metadata": {}, "data": 1, "spec": {"n": 1}}, "p": {"any": 1, "q": {"r": 1}}}}),
            json!({"kind": "K", "metadata": {"x": 1}, "spec": {"a": 2, "l": [{"b": 1}], "m": {"k": "v"},
                "e": {"kind": "P", "metadata": {}, "spec": {}}, "p": {"any": 1, "q": {}}}}),
            &[
                "spec.e.data",
                "spec.e.spec.n",
                "spec.l[0].c",
                "spec.p.q.r",
                "spec.x",
                "top",
            ],
        );
    }

    #[test]
    fn defaults_and_nulls() {
        let node = Node::parse(
            &json!({"properties": {"spec": {"default": {"a": 5}, "properties": {
            "a": {"default": 1}, "n": {"default": {}, "properties": {"b": {"default": "x"}}},
            "l": {"items": {"properties": {"c": {"default": true}}}}, "nu": {"nullable": true, "default": "q"},
            "nn": {"default": "w"}, "no": {"type": "string"}}}}}),
        );
        let check = |mut value: Value, expect: Value| {
            drop_nulls(&node, &mut value);
            fill_defaults(&node, &mut value);
            assert_eq!(value, expect);
        };
        check(
            json!({}),
            json!({"spec": {"a": 5, "n": {"b": "x"}, "nu": "q", "nn": "w"}}),
        );
        check(
            json!({"spec": {"a": 0, "l": [{}], "nu": null, "nn": null, "no": null}}),
            json!({"spec": {"a": 0, "l": [{"c": true}], "n": {"b": "x"}, "nu": null, "nn": "w"}}),
        );
    }
}
