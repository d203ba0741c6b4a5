//! Kubernetes' protobuf against every built-in kind: each has a message, and recorded objects come back as they went in.
//! Reads API_ORACLE_DIR (default `/work/shared/api-oracle`); without that folder only the first is tried.

use std::collections::BTreeSet;
use std::io::Read as _;

use oarlock_kinds::{Kinds, protobuf};
use serde_json::Value;

/// Kinds whose messages are of other projects, and our own, which upstream would not have.
const WITHOUT: [&str; 2] = ["APIService", "CustomResourceDefinition"];

#[test]
fn every_built_in_kind_has_a_message() {
    let kinds = Kinds::builtin();
    let missing: Vec<&str> = kinds
        .rows()
        .iter()
        .filter(|row| row.group != "oarlock.dev")
        .filter(|row| !protobuf::is_known(&row.api_version(), &row.kind))
        .map(|row| row.kind.as_str())
        .collect();
    assert_eq!(BTreeSet::from_iter(missing), BTreeSet::from(WITHOUT));
}

/// The first place where two trees differ.
fn difference(path: &str, a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a.keys().chain(b.keys()).find_map(|key| {
            let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
            let (a, b) = (side(a).unwrap_or_default(), side(b).unwrap_or_default());
            difference(&format!("{path}.{key}"), &a, &b)
        }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b);
            pairs.find_map(|(a, b)| difference(&format!("{path}[]"), a, b))
        }
        _ => (a != b).then(|| format!("{path}: {a} and {b}")),
    }
}

/// Without what protobuf cannot tell from nothing: null, lists and maps that are empty, and the type of claims in a template.
fn tidied(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match (key.as_str(), value) {
                ("volumeClaimTemplates", Value::Array(claims)) => {
                    let mut claims = claims.clone();
                    for claim in claims.iter_mut().filter_map(Value::as_object_mut) {
                        claim.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
                    }
                    (key.clone(), tidied(&Value::Array(claims)))
                }
                _ => (key.clone(), tidied(value)),
            })
            .filter(|(_, value)| !empty(value))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(tidied).collect(),
        other => other.clone(),
    }
}

/// Placeholders of recordings stand where times and ports do.
fn filled(text: &str) -> String {
    let mut text = text.to_owned();
    for n in 1..20 {
        text = text.replace(&format!("\"$port:{n}\""), "30000");
    }
    text.replace("\"$time\"", "\"2026-01-02T03:04:05Z\"")
        .replace("\"$mtime\"", "\"2026-01-02T03:04:05.678901Z\"")
}

#[test]
fn recorded_objects_come_back() {
    let folder =
        std::env::var("API_ORACLE_DIR").unwrap_or_else(|_| "/work/shared/api-oracle".to_owned());
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return;
    };
    let (mut seen, mut differences) = (BTreeSet::new(), BTreeSet::new());
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().ends_with(".jsonl.gz") {
            continue;
        }
        let mut text = String::new();
        let file = std::fs::File::open(entry.path()).expect("theme file");
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .expect("gzip");
        for line in text.lines() {
            let step: Value = serde_json::from_str(&filled(line)).expect("a step is JSON");
            let body = &step["response"]["body"];
            let Some(bytes) = protobuf::encode(body) else {
                continue;
            };
            let back = protobuf::decode(&bytes).expect("what was written can be read");
            differences.extend(difference(
                &body["kind"].to_string(),
                &tidied(&back),
                &tidied(body),
            ));
            seen.insert(body["kind"].to_string());
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(seen.len() > 30, "kinds seen: {seen:?}");
}
