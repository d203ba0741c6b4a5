//! Definitions of custom resources: what their authors wrote, with what every object has put in.
//!
//! OpenAPI v2 has fewer words than a definition's schema may use; what it cannot say is left open.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::schemas::Schemas;
use crate::Row;
use crate::custom::Custom;

/// `com.example.v1.Kind`
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

/// Puts a custom kind's definition in, if the row is one.
pub(super) fn add(schemas: &mut Schemas, dialect: Dialect, row: &Row) {
    let Some(custom) = &row.custom else {
        return;
    };
    let metadata = schemas.meta("ObjectMeta");
    let mut definition = match dialect {
        Dialect::V3 => custom.document.clone(),
        Dialect::V2 => swagger(&custom.document),
    };
    let keeps = custom.node.preserve_unknown && dialect == Dialect::V2;
    if let Some(map) = definition.as_object_mut() {
        map.entry("type").or_insert_with(|| json!("object"));
        if keeps {
            // kubectl would take named properties for all that there may be.
            map.remove("properties");
        } else {
            own_fields(schemas, map, &metadata);
        }
        map.remove("x-kubernetes-group-version-kind");
        selectable(custom, row, map);
    }
    schemas.put(&row.schema.definition, definition);
}

fn own_fields(schemas: &Schemas, map: &mut Map<String, Value>, metadata: &Value) {
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    let Some(properties) = properties.as_object_mut() else {
        return;
    };
    for name in ["apiVersion", "kind"] {
        let mut property = json!({"type": "string"});
        schemas.describe_object_field(&mut property, name);
        properties.insert(name.to_owned(), property);
    }
    let mut property = metadata.clone();
    schemas.describe_object_field(&mut property, "metadata");
    properties.insert("metadata".to_owned(), property);
}

fn selectable(custom: &Custom, row: &Row, map: &mut Map<String, Value>) {
    if custom.node.preserve_unknown || row.selectable_fields.is_empty() {
        return;
    }
    let fields = row
        .selectable_fields
        .iter()
        .map(|field| json!({"fieldPath": field}));
    map.insert(
        "x-kubernetes-selectable-fields".to_owned(),
        fields.collect(),
    );
}

/// The part of a schema that OpenAPI v2 can say.
fn swagger(schema: &Value) -> Value {
    let mut map = schema.as_object().cloned().unwrap_or_default();
    for name in ["allOf", "anyOf", "oneOf", "not"] {
        map.remove(name);
    }
    let flag = |map: &Map<String, Value>, name: &str| map.get(name) == Some(&Value::Bool(true));
    let nullable = flag(&map, "nullable");
    map.remove("nullable");
    let keeps = flag(&map, "x-kubernetes-preserve-unknown-fields");
    if nullable || keeps {
        map.remove("items");
        map.remove("properties");
    }
    let ty = map.get("type").and_then(Value::as_str).unwrap_or_default();
    let untyped =
        nullable || (ty == "array" && !map.contains_key("items")) || (keeps && ty == "object");
    if untyped {
        map.remove("type");
    }
    drop_nullable_requirements(&mut map);
    for name in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(name).filter(|b| b.is_object()) {
            *below = swagger(below);
        }
    }
    for property in map
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|p| p.values_mut())
    {
        *property = swagger(property);
    }
    Value::Object(map)
}

/// A field that may be null cannot be required where null cannot be said.
fn drop_nullable_requirements(map: &mut Map<String, Value>) {
    let nullable = |name: &str| {
        let property = map.get("properties").and_then(|p| p.get(name));
        property.and_then(|p| p.get("nullable")) == Some(&Value::Bool(true))
    };
    let Some(required) = map.get("required").and_then(Value::as_array) else {
        return;
    };
    let kept: Vec<Value> = required
        .iter()
        .filter(|name| !nullable(name.as_str().unwrap_or_default()))
        .cloned()
        .collect();
    if kept.is_empty() {
        map.remove("required");
    } else {
        map.insert("required".to_owned(), Value::Array(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v2_cannot_say_is_left_open() {
        let schema = json!({"type": "object", "required": ["n"], "oneOf": [{}], "properties": {
            "n": {"type": "string", "nullable": true}, "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"a": {"type": "string"}}}, "l": {"type": "array", "items": {"type": "integer", "anyOf": []}}}});
        assert_eq!(
            swagger(&schema),
            json!({"type": "object", "properties": {"n": {}, "p": {"x-kubernetes-preserve-unknown-fields": true},
                "l": {"type": "array", "items": {"type": "integer"}}}})
        );
        assert_eq!(
            definition_name("stable.example.com", "v1", "X"),
            "com.example.stable.v1.X"
        );
    }
}
