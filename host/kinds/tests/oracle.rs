//! Recorded answers of kube-apiserver against the schemas: what it answers must decode to itself, and what it refuses to
//! decode must be refused in the same words. Reads API_ORACLE_DIR (default `/work/shared/api-oracle`); the folder is not
//! part of the repository, so without it only the cases in `cases` are tried.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use oarlock_kinds::{Kinds, Row};
use oarlock_schema::{decode, decode_value};
use serde_json::{Value, json};

fn lines(theme: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(theme).expect("theme file");
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("gzip");
    text
}

fn step(line: &str) -> Value {
    serde_json::from_str(line).expect("a step is JSON")
}

fn themes() -> Vec<PathBuf> {
    let folder =
        std::env::var("API_ORACLE_DIR").unwrap_or_else(|_| "/work/shared/api-oracle".to_owned());
    let Ok(entries) = std::fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.to_string_lossy().ends_with(".jsonl.gz"));
    files.sort();
    files
}

/// The request's body as it was sent: the order of fields matters for the order of errors.
fn raw_body(line: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Step {
        request: Request,
    }
    #[derive(serde::Deserialize)]
    struct Request {
        #[serde(default)]
        body: Option<Box<serde_json::value::RawValue>>,
    }
    let step: Step = serde_json::from_str(line).expect("a step is JSON");
    let raw = step
        .request
        .body
        .map_or(String::new(), |b| b.get().to_owned());
    serde_json::from_str::<String>(&raw).unwrap_or(raw)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

/// The recorder replaced what differs between runs by texts such as `$time`.
fn without_placeholders(value: &Value) -> Option<Value> {
    let sample = value
        .to_string()
        .replace("\"$time\"", "\"2026-01-02T03:04:05Z\"")
        .replace("\"$mtime\"", "\"2026-01-02T03:04:05.123456Z\"");
    let sample = replace_ports(&sample);
    serde_json::from_str(&sample).ok()
}

fn replace_ports(sample: &str) -> String {
    let mut out = String::new();
    let mut rest = sample;
    while let Some(at) = rest.find("\"$port:") {
        out.push_str(&rest[..at]);
        out.push_str("30000");
        rest = rest[at + 1..]
            .split_once('"')
            .map_or("", |(_, after)| after);
    }
    out.push_str(rest);
    out
}

fn row_of(kinds: &Kinds, object: &Value) -> Option<std::sync::Arc<Row>> {
    let api_version = text(object, "apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    kinds.kind(group, version, text(object, "kind"))
}

fn objects(body: &Value) -> Vec<&Value> {
    match body {
        Value::Object(map) => match map.get("items") {
            Some(Value::Array(items)) => items.iter().collect(),
            _ => vec![body],
        },
        Value::Array(events) => events.iter().map(|e| &e["object"]).collect(),
        _ => Vec::new(),
    }
}

/// Answers of features that are newer than the recording, or that the recorder cut.
fn is_known_difference(object: &Value) -> bool {
    object.to_string().contains("$any")
}

#[test]
fn answers_decode_to_themselves() {
    let kinds = Kinds::builtin();
    let (mut tried, mut differing) = (0, BTreeMap::new());
    for theme in themes() {
        for line in lines(&theme).lines() {
            let step = step(line);
            for object in objects(&step["response"]["body"]) {
                let Some(row) = row_of(&kinds, object) else {
                    continue;
                };
                if is_known_difference(object) {
                    continue;
                }
                let Some(object) = without_placeholders(object) else {
                    continue;
                };
                tried += 1;
                let got = decode_value(&row.schema, &object);
                let same = got
                    .as_ref()
                    .is_ok_and(|d| d.value == object && d.strict.is_empty());
                if !same {
                    let what = match got {
                        Ok(d) => format!("{:?} {}", d.strict, difference("", &object, &d.value)),
                        Err(error) => error.to_string(),
                    };
                    differing
                        .entry(format!("{} {what}", row.kind))
                        .or_insert_with(|| text(&step, "scenario").to_owned());
                }
            }
        }
    }
    assert!(
        differing.is_empty(),
        "{} of {tried} kinds of difference: {differing:#?}",
        differing.len()
    );
}

/// The first place where two trees differ.
fn difference(path: &str, want: &Value, got: &Value) -> String {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            let names: std::collections::BTreeSet<&String> =
                want.keys().chain(got.keys()).collect();
            for name in names {
                let below = format!("{path}.{name}");
                match (want.get(name), got.get(name)) {
                    (Some(w), Some(g)) if w != g => return difference(&below, w, g),
                    (Some(w), None) => return format!("{below} lost: {w}"),
                    (None, Some(g)) => return format!("{below} added: {g}"),
                    _ => {}
                }
            }
            String::new()
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => want
            .iter()
            .zip(got)
            .find(|(w, g)| w != g)
            .map(|(w, g)| difference(&format!("{path}[]"), w, g))
            .unwrap_or_default(),
        _ => format!("{path}: want {want}, got {got}"),
    }
}

#[test]
fn refusals_are_in_the_same_words() {
    let kinds = Kinds::builtin();
    let (mut tried, mut differing) = (0, Vec::new());
    for theme in themes() {
        for line in lines(&theme).lines() {
            let step = step(line);
            let (request, message) = (&step["request"], text(&step["response"]["body"], "message"));
            let method = text(request, "method");
            let Some((head, expect)) = message
                .split_once(": ")
                .filter(|(h, _)| h.contains("cannot be handled as"))
            else {
                continue;
            };
            if !matches!(method, "POST" | "PUT") || expect.contains("no kind") {
                continue;
            }
            let body = raw_body(line).replace("\"$time\"", "\"2026-01-02T03:04:05Z\"");
            let Ok(sent) = serde_json::from_str::<Value>(&body) else {
                continue;
            };
            let Some(row) = row_of(&kinds, &sent) else {
                continue;
            };
            if !head.ends_with(&row.kind) {
                continue;
            }
            tried += 1;
            let got = match decode(&row.schema, body.as_bytes()) {
                Err(error) => error.to_string(),
                Ok(decoded) => format!("strict decoding error: {}", decoded.strict.join(", ")),
            };
            if got != expect {
                differing.push(format!(
                    "{}: want {expect}\n   got {got}",
                    text(&step, "scenario")
                ));
            }
        }
    }
    assert!(
        differing.is_empty(),
        "{} of {tried} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );
}

#[test]
fn cases() {
    let kinds = Kinds::builtin();
    let check = |sent: Value, expect: Result<Value, &str>| {
        let row = row_of(&kinds, &sent).expect("a known kind");
        let got = decode_value(&row.schema, &sent)
            .map(|d| d.value)
            .map_err(|e| e.to_string());
        assert_eq!(
            got.as_ref().map_err(String::as_str),
            expect.as_ref().map_err(|e| *e),
            "{sent}"
        );
    };
    check(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "protocol": ""}]}}),
        Ok(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "targetPort": 0}]},
            "status": {"loadBalancer": {}}}),
        ),
    );
    check(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": "3"}}),
        Err(
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
    );
    check(
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"initContainers": [{"name": {}}]}}),
        Err(
            "json: cannot unmarshal object into Go struct field Container.spec.initContainers.name of type string",
        ),
    );
    check(
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"resources": {"limits": {"storage": "x"}}}}),
        Err(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    );
    check(
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "a", "labels": {}}}),
        Ok(
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "a"}, "rules": null}),
        ),
    );
}
