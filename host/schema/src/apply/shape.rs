//! How a value is taken apart for ownership: which lists and maps have parts of their own, and how parts are named.

use serde_json::{Map, Value};

use crate::types::{ListType, MapType, Schema, Type};

#[derive(Clone, Copy)]
pub enum Shape<'a> {
    /// Owned as a whole.
    Leaf,
    /// A struct or a map: fields have owners.
    Fields(&'a Schema),
    /// Items are named by some of their fields.
    Keyed(&'a Schema),
    /// Items are named by their value.
    Set,
    /// No schema: maps have parts, lists do not.
    Untyped,
}

/// What `value` is under `schema`; a value of the wrong type is a leaf.
pub fn shape<'a>(schema: Option<&'a Schema>, value: &Value) -> Shape<'a> {
    let Some(schema) = schema else {
        return if value.is_object() {
            Shape::Untyped
        } else {
            Shape::Leaf
        };
    };
    match (schema.ty, value) {
        (Type::Object | Type::Map, Value::Object(_) | Value::Null)
            if schema.map_type == MapType::Granular =>
        {
            Shape::Fields(schema)
        }
        (Type::Array, Value::Array(_) | Value::Null) => match schema.list_type {
            ListType::Map => Shape::Keyed(schema),
            ListType::Set => Shape::Set,
            ListType::Atomic => Shape::Leaf,
        },
        _ => Shape::Leaf,
    }
}

/// The schema of a field of a `Fields` shape.
pub fn field_schema<'a>(schema: Option<&'a Schema>, name: &str) -> Option<&'a Schema> {
    schema.and_then(|s| s.field(name)).map(|s| &**s)
}

pub fn item_schema(schema: &Schema) -> Option<&Schema> {
    schema.items.as_deref()
}

pub fn field_element(name: &str) -> String {
    let mut element = String::with_capacity(name.len() + 2);
    element.push_str("f:");
    element.push_str(name);
    element
}

pub fn value_element(item: &Value) -> String {
    format!("v:{item}")
}

/// `k:{"name":"a"}`; `None` if a key is absent and has no default.
pub fn key_element(schema: &Schema, item: &Value) -> Option<String> {
    let items = item_schema(schema);
    let mut keys = Map::new();
    for key in &schema.list_map_keys {
        let default = || {
            items
                .and_then(|s| s.property(key))
                .and_then(|p| p.default.as_ref())
        };
        let value = item.get(&**key).filter(|v| !v.is_null()).or_else(default)?;
        keys.insert(key.to_string(), value.clone());
    }
    Some(format!("k:{}", Value::Object(keys)))
}

/// As [`key_element`], where an absent key reads as the empty text: for objects that are already stored.
pub fn lenient_key_element(schema: &Schema, item: &Value) -> String {
    key_element(schema, item).unwrap_or_else(|| {
        let key = |k: &str| item.get(k).cloned().unwrap_or_else(|| Value::from(""));
        let keys: Map<String, Value> = schema
            .list_map_keys
            .iter()
            .map(|k| (k.to_string(), key(k)))
            .collect();
        format!("k:{}", Value::Object(keys))
    })
}

/// The element names of a list's items, in order; empty for lists without named items.
pub fn item_elements(shape: Shape<'_>, items: &[Value]) -> Vec<String> {
    match shape {
        Shape::Keyed(schema) => items
            .iter()
            .map(|i| lenient_key_element(schema, i))
            .collect(),
        Shape::Set => items.iter().map(value_element).collect(),
        _ => Vec::new(),
    }
}

pub fn shape_items<'a>(shape: Shape<'a>) -> Option<&'a Schema> {
    match shape {
        Shape::Keyed(schema) => item_schema(schema),
        _ => None,
    }
}

pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
