//! The stored form: a 4-byte little-endian hole offset, then canonical JSON without `metadata.resourceVersion`.
//! Canonical: no white space; `apiVersion`, `kind`, `metadata` first; in metadata `name`, `namespace`, `labels` first and
//! `managedFields` last, so that selectors find what they look for near the front. A read is a copy, never a parse.

use bytes::Bytes;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason, deep};
use oarlock_store::{Record, Revision};
use serde_json::{Map, Value};

use crate::{Stored, scan};

/// Bytes in front of the JSON text.
const HEAD: usize = 4;
/// A stored object is not larger than that (etcd's default request limit).
pub const MAX_OBJECT_BYTES: usize = 1_572_864;

const METADATA_FIRST: [&str; 3] = ["name", "namespace", "labels"];
const MANAGED_FIELDS: &str = "managedFields";

/// What is put into the store. Costs about 5 µs for a pod of 2.4 KB.
pub fn encode(object: &Value) -> ApiResult<Bytes> {
    encode_over(object, &[])
}

/// The same, with top-level members that are taken over as text (name, raw value; sorted by name).
fn encode_over(object: &Value, kept: &[(&[u8], &[u8])]) -> ApiResult<Bytes> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(&[0; HEAD]);
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    out.push(b'{');
    for field in ["apiVersion", "kind"] {
        if let Some(value) = map.get(field) {
            member(&mut out, field, value)?;
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"metadata\":{");
    let hole = out.len() - HEAD;
    if let Some(Value::Object(metadata)) = map.get("metadata") {
        write_metadata(&mut out, metadata)?;
    }
    out.push(b'}');
    let mut kept = kept.iter().peekable();
    let mut keep = |out: &mut Vec<u8>, before: Option<&str>| {
        while let Some((name, value)) =
            kept.next_if(|(name, _)| before.is_none_or(|b| *name < b.as_bytes()))
        {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(name);
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value);
        }
    };
    for (field, value) in map {
        if !matches!(field.as_str(), "apiVersion" | "kind" | "metadata") {
            keep(&mut out, Some(field));
            out.push(b',');
            member(&mut out, field, value)?;
        }
    }
    keep(&mut out, None);
    out.push(b'}');
    if out.len() > MAX_OBJECT_BYTES {
        let message = format!(
            "the object takes {} bytes, at most {MAX_OBJECT_BYTES} can be stored",
            out.len()
        );
        return Err(ApiError::new(Reason::RequestEntityTooLarge, message));
    }
    let hole = u32::try_from(hole).map_err(ApiError::internal)?;
    out[..HEAD].copy_from_slice(&hole.to_le_bytes());
    Ok(Bytes::from(out))
}

fn write_metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>) -> ApiResult<()> {
    let mut first = true;
    let mut put = |field: &str, value: &Value| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        member(out, field, value)
    };
    for field in METADATA_FIRST {
        if let Some(value) = metadata.get(field) {
            put(field, value)?;
        }
    }
    for (field, value) in metadata {
        if !METADATA_FIRST.contains(&field.as_str())
            && !matches!(
                field.as_str(),
                MANAGED_FIELDS | "resourceVersion" | "selfLink"
            )
        {
            put(field, value)?;
        }
    }
    match metadata.get(MANAGED_FIELDS) {
        Some(value) => put(MANAGED_FIELDS, value),
        None => Ok(()),
    }
}

fn member(out: &mut Vec<u8>, field: &str, value: &Value) -> ApiResult<()> {
    serde_json::to_writer(&mut *out, field).map_err(ApiError::internal)?;
    out.push(b':');
    serde_json::to_writer(out, value).map_err(ApiError::internal)
}

/// What is put into the store, of text that is canonical already.
pub fn from_text(json: &[u8], hole: usize) -> Bytes {
    let mut out = Vec::with_capacity(HEAD + json.len());
    out.extend_from_slice(&u32::try_from(hole).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(json);
    Bytes::from(out)
}

/// A stored value as an object of a revision.
pub fn stored(value: &Bytes, revision: Revision) -> Stored {
    let hole = match value.first_chunk::<HEAD>() {
        Some(head) => u32::from_le_bytes(*head) as usize,
        None => 0,
    };
    let json = value.slice(HEAD.min(value.len())..);
    let hole = hole.min(json.len());
    Stored {
        json,
        hole,
        revision,
    }
}

pub fn stored_record(record: &Record) -> Stored {
    stored(&record.value, record.modified)
}

/// The tree of a stored value, without resourceVersion.
pub fn tree(value: &Bytes) -> ApiResult<Value> {
    deep::from_stored(value.get(HEAD..).unwrap_or_default())
        .map_err(|e| ApiError::internal(format!("a stored object cannot be read: {e}")))
}

/// A stored value as this kind shows it, as a tree without resourceVersion.
pub fn load(row: &Row, value: &Bytes) -> ApiResult<Value> {
    let mut object = tree(value)?;
    row.show(&mut object);
    Ok(object)
}

/// An object of this kind as it is stored.
pub fn save(row: &Row, object: &Value) -> ApiResult<Bytes> {
    if !row.converts() {
        return encode(object);
    }
    let mut object = object.clone();
    row.store(&mut object);
    encode(&object)
}

/// What a write through `/status` sees of an object: everything but the rest of it.
const STATUS_PART: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Only the part of a stored value that a status write sees, as a tree. `None`: the text is not plain enough.
pub fn load_status_part(value: &Bytes) -> ApiResult<Option<Value>> {
    let Some(members) = scan::all_members(value.get(HEAD..).unwrap_or_default()) else {
        return Ok(None);
    };
    let mut part = Map::new();
    for (name, raw) in members {
        if let Some(field) = STATUS_PART.iter().find(|field| field.as_bytes() == name) {
            let value = deep::from_stored(raw)
                .map_err(|e| ApiError::internal(format!("a stored object cannot be read: {e}")))?;
            part.insert((*field).to_owned(), value);
        }
    }
    Ok(Some(Value::Object(part)))
}

/// A stored value whose status part is replaced; the rest is copied as text.
pub fn save_status_part(value: &Bytes, part: &Value) -> ApiResult<Bytes> {
    let mut kept = scan::all_members(value.get(HEAD..).unwrap_or_default()).unwrap_or_default();
    kept.retain(|(name, _)| !STATUS_PART.iter().any(|field| field.as_bytes() == *name));
    encode_over(part, &kept)
}

/// A stored value as an object that this kind shows; only a kind that is stored as another one pays for a parse.
pub fn shown(row: &Row, value: &Bytes, revision: Revision) -> ApiResult<Stored> {
    if !row.converts() {
        return Ok(stored(value, revision));
    }
    stored_value(&load(row, value)?, revision)
}

/// The same for what [`stored`] made of a stored value.
pub fn shown_stored(row: &Row, object: &Stored) -> ApiResult<Stored> {
    if !row.converts() {
        return Ok(object.clone());
    }
    let mut value = deep::from_stored(&object.json).map_err(ApiError::internal)?;
    row.show(&mut value);
    stored_value(&value, object.revision)
}

/// An object that was never stored (`Scale`, a bookmark).
pub fn stored_value(object: &Value, revision: Revision) -> ApiResult<Stored> {
    Ok(stored(&encode(object)?, revision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hole_is_where_the_version_goes() {
        let check = |object: Value, expect: &str| {
            let stored = stored_value(&object, 7).unwrap();
            assert_eq!(String::from_utf8(stored.to_json()).unwrap(), expect);
            let mut back = stored.to_value().unwrap();
            assert_eq!(back["metadata"]["resourceVersion"], "7");
            back["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("resourceVersion");
            assert_eq!(tree(&encode(&object).unwrap()).unwrap(), back);
        };
        check(
            json!({"kind": "X", "metadata": {}}),
            r#"{"kind":"X","metadata":{"resourceVersion":"7"}}"#,
        );
        check(
            json!({"metadata": {"a": 1, "name": "n", "managedFields": [], "uid": "u", "resourceVersion": "3"}, "data": {"k": "\"}"}, "apiVersion": "v1"}),
            r#"{"apiVersion":"v1","metadata":{"resourceVersion":"7","name":"n","a":1,"uid":"u","managedFields":[]},"data":{"k":"\"}"}}"#,
        );
        let no_revision = stored_value(&json!({"metadata": {"name": "n"}}), 0).unwrap();
        assert_eq!(no_revision.to_json(), br#"{"metadata":{"name":"n"}}"#);
    }

    #[test]
    fn a_status_part_is_replaced_in_place() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "uid": "u"},
            "aaa": 1, "spec": {"nodeName": "x"}, "status": {"phase": "Pending"}, "zzz": [2]});
        let check = |change: fn(&mut Value)| {
            let value = encode(&object).unwrap();
            let mut part = load_status_part(&value).unwrap().unwrap();
            assert_eq!(part.get("spec"), None);
            change(&mut part);
            let mut whole = object.clone();
            change(&mut whole);
            assert_eq!(
                save_status_part(&value, &part).unwrap(),
                encode(&whole).unwrap()
            );
        };
        check(|_| {});
        check(|o| o["status"] = json!({"phase": "Running", "a": "}"}));
        check(|o| o["metadata"]["labels"] = json!({"a": "b"}));
        check(|o| {
            o.as_object_mut().unwrap().remove("status");
        });
        let bare = encode(&json!({"metadata": {}, "spec": {}})).unwrap();
        let mut part = load_status_part(&bare).unwrap().unwrap();
        part["status"] = json!({"a": 1});
        let expect = encode(&json!({"metadata": {}, "spec": {}, "status": {"a": 1}})).unwrap();
        assert_eq!(save_status_part(&bare, &part).unwrap(), expect);
    }

    #[test]
    fn damaged_values_are_errors() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\xff\xff\xff\xff{}",
            b"\x00\x00\x00\x00nonsense",
        ] {
            let value = Bytes::copy_from_slice(bytes);
            let _no_panic = stored(&value, 1).to_json();
            assert!(tree(&value).is_err() || bytes.ends_with(b"{}"));
        }
        let large = json!({"metadata": {}, "data": "x".repeat(MAX_OBJECT_BYTES)});
        assert_eq!(encode(&large).unwrap_err().code(), 413);
    }
}
