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

/// Without what protobuf cannot tell from nothing: null, and lists and maps that are empty.
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
            .map(|(key, value)| (key.clone(), tidied(value)))
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
    let mut seen = BTreeSet::new();
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
            assert_eq!(tidied(&back), tidied(body), "{}", step["request"]);
            seen.insert(body["kind"].to_string());
        }
    }
    assert!(seen.len() > 30, "kinds seen: {seen:?}");
}
