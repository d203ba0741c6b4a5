//! Access to an object's envelope (`apiVersion`, `kind`, `metadata`) in a JSON tree, without a typed struct.
//! Getters treat a missing or ill-typed field as absent.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

fn str_at<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get("metadata")?.get(field)?.as_str()
}

pub fn api_version(object: &Value) -> &str {
    object
        .get("apiVersion")
        .and_then(Value::as_str)
        .unwrap_or("")
}

pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or("")
}

pub fn name(object: &Value) -> &str {
    str_at(object, "name").unwrap_or("")
}

pub fn generate_name(object: &Value) -> &str {
    str_at(object, "generateName").unwrap_or("")
}

pub fn namespace(object: &Value) -> &str {
    str_at(object, "namespace").unwrap_or("")
}

pub fn uid(object: &Value) -> &str {
    str_at(object, "uid").unwrap_or("")
}

pub fn resource_version(object: &Value) -> &str {
    str_at(object, "resourceVersion").unwrap_or("")
}

/// `metadata.generation`, 0 if absent.
pub fn generation(object: &Value) -> i64 {
    object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64)
        .unwrap_or(0)
}

pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    str_at(object, "deletionTimestamp")
}

pub fn is_terminating(object: &Value) -> bool {
    deletion_timestamp(object).is_some()
}

pub fn labels(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}

pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    labels(object)?.get(key)?.as_str()
}

pub fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata")?.get("annotations")?.as_object()
}

pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    annotations(object)?.get(key)?.as_str()
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// The metadata map, made if it is absent or not a map. `object` must be a JSON map; otherwise it becomes one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_map_mut(as_map_mut(object), "metadata")
}

/// `value` as a map; anything else is replaced by an empty map.
pub fn as_map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("just made a map"),
    }
}

/// The map below `field`, made if it is absent or not a map.
pub fn child_map_mut<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> &'a mut Map<String, Value> {
    as_map_mut(
        map.entry(field)
            .or_insert_with(|| Value::Object(Map::new())),
    )
}

/// Sets `metadata.FIELD` to a text.
pub fn set(object: &mut Value, field: &str, value: impl Into<String>) {
    metadata_mut(object).insert(field.to_owned(), Value::String(value.into()));
}

pub fn set_type(object: &mut Value, api_version: impl Into<String>, kind: impl Into<String>) {
    let map = as_map_mut(object);
    map.insert("apiVersion".to_owned(), Value::String(api_version.into()));
    map.insert("kind".to_owned(), Value::String(kind.into()));
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// The owner references that can be read; ill-formed ones are left out.
pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .map(|list| {
            list.iter()
                .filter_map(|r| OwnerReference::deserialize(r).ok())
                .collect()
        })
        .unwrap_or_default()
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<OwnerReference> {
    owner_references(object)
        .into_iter()
        .find(|r| r.controller == Some(true))
}
