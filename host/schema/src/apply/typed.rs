//! An applied configuration seen through the schema: is it well-typed, and which fields does it own.

use serde_json::Value;

use super::set::{Set, node, put};
use super::shape::{
    Shape, field_element, field_schema, item_elements, item_schema, key_element, shape, shape_items,
};
use crate::patch::go_text;
use crate::types::{ListType, Schema, Type};

/// Deeper nesting than any object may have.
const MAX_DEPTH: usize = 256;
/// Errors that are listed for one configuration.
const MAX_ERRORS: usize = 64;

/// The fields that a configuration owns: leaves, items of keyed lists and sets, keys of maps, empty maps.
pub fn field_set(schema: &Schema, config: &Value) -> Set {
    parts(Some(schema), config)
}

fn parts(schema: Option<&Schema>, value: &Value) -> Set {
    let kind = shape(schema, value);
    let mut children = Set::new();
    match (kind, value) {
        (Shape::Fields(_) | Shape::Untyped, Value::Object(map)) => {
            for (name, below) in map {
                let field = field_schema(schema, name);
                let named = schema.is_some_and(|s| s.property(name).is_some());
                let leaf = matches!(shape(field, below), Shape::Leaf) || below.is_null();
                let empty = below.as_object().is_some_and(serde_json::Map::is_empty);
                put(
                    &mut children,
                    field_element(name),
                    node(leaf || empty || !named, parts(field, below)),
                );
            }
        }
        (_, Value::Array(items)) => {
            for (element, item) in item_elements(kind, items).into_iter().zip(items) {
                put(
                    &mut children,
                    element,
                    node(true, parts(shape_items(kind), item)),
                );
            }
        }
        _ => {}
    }
    children
}

/// `None`: well-typed. The text is what follows `failed to create typed patch object (…): `.
pub fn check(schema: &Schema, config: &Value) -> Option<String> {
    let mut errors = Vec::new();
    walk(schema, config, &mut String::new(), 0, &mut errors);
    match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(
            errors
                .iter()
                .fold("errors:".to_owned(), |all, e| all + "\n  " + e),
        ),
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => format!("&{{{}}}", go_text(value)),
        Value::String(text) => format!("&value.valueUnstructured{{Value:{text:?}}}"),
        other => format!("&value.valueUnstructured{{Value:{other}}}"),
    }
}

fn walk(schema: &Schema, value: &Value, path: &mut String, depth: usize, errors: &mut Vec<String>) {
    if value.is_null() || errors.len() >= MAX_ERRORS {
        return;
    }
    let mut report = |text: String| {
        let at = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        errors.push(format!("{at}{text}"));
    };
    if depth > MAX_DEPTH {
        report("nested too deeply".to_owned());
        return;
    }
    match (schema.ty, value) {
        (Type::Object | Type::Map, Value::Object(map)) => {
            for (name, below) in map {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                match schema.field(name) {
                    Some(field) => walk(field, below, path, depth + 1, errors),
                    None if schema.preserve_unknown => {}
                    None => errors.push(format!("{path}: field not declared in schema")),
                }
                path.truncate(length);
            }
        }
        (Type::Object | Type::Map, other) => {
            report(format!("expected map, got {}", go_value(other)));
        }
        (Type::Array, Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                let length = path.len();
                let named = match schema.list_type {
                    ListType::Atomic => Ok(format!("[{at}]")),
                    ListType::Set => Ok(format!("[={item}]")),
                    ListType::Map => keyed_item(schema, item),
                };
                match named {
                    Ok(element) => {
                        let twice =
                            schema.list_type != ListType::Atomic && is_duplicate(schema, items, at);
                        if twice {
                            errors.push(format!("{path}: duplicate entries for key {element}"));
                        }
                        path.push_str(&element);
                        if let Some(below) = item_schema(schema) {
                            walk(below, item, path, depth + 1, errors);
                        }
                        path.truncate(length);
                    }
                    Err(text) => errors.push(format!("{path}: element {at}: {text}")),
                }
            }
        }
        (Type::Array, other) => report(format!("expected list, got {}", go_value(other))),
        (Type::String | Type::Bytes, other) if !other.is_string() => {
            report(format!("expected string, got {}", go_value(other)));
        }
        (Type::Boolean, other) if !other.is_boolean() => {
            report(format!("expected boolean, got {}", go_value(other)));
        }
        (Type::Int32 | Type::Int64 | Type::Double, other) if !other.is_number() => {
            report(format!(
                "expected numeric (int or float), got {}",
                go_type(other)
            ));
        }
        (ty, Value::Object(_) | Value::Array(_)) if ty.is_scalar() => report(format!(
            "expected untyped (string, int, float or boolean), got {}",
            go_value(value)
        )),
        _ => {}
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
        Value::Number(_) => "int64",
    }
}

fn keyed_item(schema: &Schema, item: &Value) -> Result<String, String> {
    if !item.is_object() {
        return Err(format!(
            "associative list with keys may not have non-map elements (got {})",
            go_value(item)
        ));
    }
    match key_element(schema, item) {
        Some(element) => {
            let keys: serde_json::Map<String, Value> =
                serde_json::from_str(&element[2..]).unwrap_or_default();
            let texts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            Ok(format!("[{}]", texts.join(",")))
        }
        None => {
            let absent = schema
                .list_map_keys
                .iter()
                .find(|k| item.get(&***k).is_none_or(Value::is_null));
            let key = absent.map(|k| &**k).unwrap_or_default();
            Err(format!(
                "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
            ))
        }
    }
}

/// Lists beyond this are not searched for duplicates pair by pair.
const MAX_SEARCHED: usize = 2_000;

fn is_duplicate(schema: &Schema, items: &[Value], at: usize) -> bool {
    if at > MAX_SEARCHED {
        return false;
    }
    match schema.list_type {
        ListType::Map => {
            let own = key_element(schema, &items[at]);
            items[..at].iter().any(|i| key_element(schema, i) == own)
        }
        _ => items[..at].contains(&items[at]),
    }
}
