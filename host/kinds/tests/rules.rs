//! Recorded creates and updates of kube-apiserver against the rules: what it stored, what it refused, and in which words.
//! Reads API_ORACLE_DIR (default `/work/shared/api-oracle`); without that folder nothing is tried here.
//!
//! Only decoding, defaulting, preparing and validating are run: what admission and allocation add is left out on both sides.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::sync::Arc;

use oarlock_kinds::{Kinds, Row};
use oarlock_model::{Cause, meta};
use oarlock_schema::patch::{json_patch, merge_patch, strategic_merge_patch};
use oarlock_schema::{apply_defaults, canonicalize, decode_value};
use serde_json::{Value, json};

fn steps(theme: &str) -> Vec<Value> {
    let folder =
        std::env::var("API_ORACLE_DIR").unwrap_or_else(|_| "/work/shared/api-oracle".to_owned());
    let Ok(file) = std::fs::File::open(format!("{folder}/{theme}.jsonl.gz")) else {
        return Vec::new();
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("gzip");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a step is JSON"))
        .collect()
}

struct Address {
    row: Arc<Row>,
    namespace: String,
    name: String,
    subresource: String,
}

/// `/apis/GROUP/VERSION/namespaces/NS/RESOURCE/NAME/SUBRESOURCE`
fn address(kinds: &Kinds, path: &str) -> Option<Address> {
    let path = path.split('?').next()?;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..]
            if !rest.is_empty() && !matches!(rest[0], "status" | "finalize") =>
        {
            (*namespace, rest)
        }
        rest => ("", rest),
    };
    let row = kinds.rows().iter().find(|r| {
        r.group == group && r.version == version && Some(&r.resource.as_str()) == rest.first()
    })?;
    let at = |i: usize| rest.get(i).copied().unwrap_or("").to_owned();
    Some(Address {
        row: Arc::clone(row),
        namespace: namespace.to_owned(),
        name: at(1),
        subresource: at(2),
    })
}

/// Times and ports that the recorder replaced.
fn sample(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains("$uid:") || text.contains("$gen:") => {
            json!(text.replace("$uid:", "uid-").replace("$gen:", "gen-"))
        }
        Value::String(text) if text == "$time" => json!("2026-01-02T03:04:05Z"),
        Value::String(text) if text == "$mtime" => json!("2026-01-02T03:04:05.123456Z"),
        Value::String(text) if text.starts_with("$port:") => json!(30000),
        Value::String(text) if text.starts_with("$ip:") => json!("10.0.0.9"),
        Value::Array(items) => items.iter().map(sample).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (k.replace("$uid:", "uid-"), sample(v)))
            .collect(),
        other => other.clone(),
    }
}

enum Outcome {
    Stored(Box<Value>),
    Refused(Vec<Cause>),
    /// Not for the rules: the body does not decode.
    Undecided,
}

fn default(row: &Row, object: &mut Value) {
    apply_defaults(&row.schema, object);
    (row.hooks.default)(object);
}

fn write(address: &Address, body: &Value, old: Option<&Value>, uid: &str) -> Outcome {
    let row = &address.row;
    let Ok(decoded) = decode_value(&row.schema, body) else {
        return Outcome::Undecided;
    };
    let mut object = decoded.value;
    if row.namespaced && meta::namespace(&object).is_empty() {
        meta::set(&mut object, "namespace", address.namespace.clone());
    }
    default(row, &mut object);
    let status = |object: &Value| object.get("status").cloned();
    let put = |object: &mut Value, status: Option<Value>| {
        let map = object.as_object_mut().expect("an object");
        match status {
            Some(status) => map.insert("status".to_owned(), status),
            None => map.remove("status"),
        };
    };
    match old {
        None => {
            meta::set(&mut object, "uid", uid);
            if row.status_subresource && row.kind != "Node" {
                put(&mut object, None);
            }
            (row.hooks.prepare_create)(&mut object);
        }
        Some(old) => {
            for field in ["uid", "creationTimestamp"] {
                if let (Some(value), true) = (
                    old["metadata"].get(field),
                    object["metadata"].get(field).is_none(),
                ) {
                    object["metadata"][field] = value.clone();
                }
            }
            if address.subresource == "status" {
                let new = status(&object);
                let metadata = object["metadata"].clone();
                object = old.clone();
                object["metadata"] = metadata;
                put(&mut object, new);
            } else if row.status_subresource {
                put(&mut object, status(old));
            }
            (row.hooks.prepare_update)(&mut object, old);
        }
    }
    canonicalize(&row.schema, &mut object);
    if row.generation && old.is_none() {
        object["metadata"]["generation"] = json!(1);
    }
    // Admission gives pods an account, tolerations and a token.
    if row.kind == "Pod" && object["spec"]["serviceAccountName"].is_null() && old.is_none() {
        object["spec"]["serviceAccountName"] = json!("default");
    }
    if row.kind == "Pod"
        && let Some(old) = old
    {
        let added = |t: &&Value| {
            t["key"]
                .as_str()
                .is_some_and(|k| k.starts_with("node.kubernetes.io/"))
        };
        let mut tolerations = object["spec"]["tolerations"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let theirs: Vec<Value> = old["spec"]["tolerations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(added)
            .cloned()
            .collect();
        tolerations.extend(
            theirs
                .into_iter()
                .filter(|t| !tolerations.iter().any(|o| o["key"] == t["key"]))
                .collect::<Vec<_>>(),
        );
        if !tolerations.is_empty() {
            object["spec"]["tolerations"] = Value::Array(tolerations);
        }
    }
    let causes = (row.hooks.validate)(&object, old);
    if causes.is_empty() {
        Outcome::Stored(Box::new(object))
    } else {
        Outcome::Refused(causes)
    }
}

/// Without what the server, admission and allocation add.
fn comparable(row: &Row, object: &Value) -> Value {
    let mut object = object.clone();
    let metadata = meta::metadata_mut(&mut object);
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "generation",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        metadata.remove(field);
    }
    if row.kind == "Pod"
        && let Some(spec) = object["spec"].as_object_mut()
    {
        for field in [
            "priority",
            "preemptionPolicy",
            "serviceAccount",
            "serviceAccountName",
            "tolerations",
        ] {
            spec.remove(field);
        }
        let token = |v: &Value| {
            v["name"]
                .as_str()
                .is_some_and(|n| n.starts_with("kube-api-access-"))
        };
        let drop_from = |list: Option<&mut Value>| {
            if let Some(Value::Array(items)) = list {
                items.retain(|v| !token(v));
            }
        };
        drop_from(spec.get_mut("volumes"));
        if spec.get("volumes").is_some_and(|v| v == &json!([])) {
            spec.remove("volumes");
        }
        for list in ["containers", "initContainers"] {
            for container in spec
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                drop_from(container.get_mut("volumeMounts"));
                if container["volumeMounts"] == json!([]) || container["volumeMounts"].is_null() {
                    container
                        .as_object_mut()
                        .expect("a container")
                        .remove("volumeMounts");
                }
            }
        }
    }
    if row.kind == "Service"
        && let Some(spec) = object["spec"].as_object_mut()
    {
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "healthCheckNodePort",
        ] {
            spec.remove(field);
        }
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            port.as_object_mut().expect("a port").remove("nodePort");
        }
    }
    if row.kind == "Node"
        && let Some(spec) = object["spec"].as_object_mut()
    {
        spec.remove("taints");
    }
    if row.kind == "PersistentVolumeClaim" {
        meta::metadata_mut(&mut object).remove("finalizers");
    }
    object
}

fn difference(path: &str, want: &Value, got: &Value) -> Option<String> {
    match (want, got) {
        (Value::Object(w), Value::Object(g)) => {
            let names: std::collections::BTreeSet<&String> = w.keys().chain(g.keys()).collect();
            names
                .into_iter()
                .find_map(|name| match (w.get(name), g.get(name)) {
                    (Some(w), Some(g)) => difference(&format!("{path}.{name}"), w, g),
                    (Some(w), None) => Some(format!("{path}.{name} lacks {w}")),
                    (_, g) => Some(format!("{path}.{name} has {}", g.unwrap_or(&Value::Null))),
                })
        }
        (Value::Array(w), Value::Array(g)) if w.len() == g.len() => w
            .iter()
            .zip(g)
            .find_map(|(w, g)| difference(&format!("{path}[]"), w, g)),
        (w, g) if w == g => None,
        (w, g) => Some(format!("{path} wants {w} has {g}")),
    }
}

fn causes_text(causes: &[Value]) -> Vec<String> {
    causes
        .iter()
        .map(|c| {
            format!(
                "{}: {}",
                c["field"].as_str().unwrap_or(""),
                c["message"].as_str().unwrap_or("")
            )
        })
        .collect()
}

fn same_but_cut(want: &str, got: &str) -> bool {
    let mut rest = got;
    want.split("$any").all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Recorded writes that must end as recorded. The rest are refusals that print Go structs or textual diffs, and kinds whose
/// rules are not written yet.
const MUST_AGREE: usize = 2_940;

#[test]
fn writes_end_as_recorded() {
    let kinds = Kinds::builtin();
    let only = std::env::var("RULES_ONLY").unwrap_or_default();
    let (mut tried, mut agreed, mut found) = (0, 0, BTreeMap::<String, (usize, String)>::new());
    for theme in ["defaulting", "validation", "patches", "subresources"] {
        let mut stored: HashMap<String, Value> = HashMap::new();
        for step in steps(theme) {
            let request = &step["request"];
            let (method, path) = (
                request["method"].as_str().unwrap_or(""),
                request["path"].as_str().unwrap_or(""),
            );
            let Some(address) = address(&kinds, path) else {
                continue;
            };
            let row = &address.row;
            let response = &step["response"];
            let status = response["status"].as_u64().unwrap_or(0);
            let scenario = step["scenario"].as_str().unwrap_or("");
            let answer = sample(&response["body"]);
            let name = if address.name.is_empty() {
                meta::name(&answer)
            } else {
                &address.name
            };
            let key = format!("{scenario} {} {}/{name}", row.kind, address.namespace);
            let old = stored.get(&key).cloned();
            let mut keep = |value: &Value| {
                if status < 300 && value["kind"] == row.kind.as_str() && !path.contains("dryRun") {
                    stored.insert(key.clone(), value.clone());
                }
            };
            let tested = (only.is_empty() || only == row.kind)
                && matches!(address.subresource.as_str(), "" | "status");
            let content = request["headers"]["content-type"].as_str().unwrap_or("");
            let body = match method {
                "POST" if address.name.is_empty() => request.get("body").cloned(),
                "PUT" => request.get("body").cloned(),
                "PATCH" => old.clone().and_then(|mut object| {
                    let patch = request.get("body")?;
                    let result = match content {
                        "application/json-patch+json" => json_patch(&mut object, patch),
                        "application/merge-patch+json" => merge_patch(&mut object, patch),
                        "application/strategic-merge-patch+json" => {
                            strategic_merge_patch(&row.schema, &mut object, patch)
                        }
                        _ => return None,
                    };
                    result.ok().map(|()| object)
                }),
                _ => None,
            };
            let mut body = body.map(|b| sample(&b)).filter(Value::is_object);
            if let Some(body) = &mut body
                && method == "POST"
                && meta::name(body).is_empty()
                && !meta::generate_name(body).is_empty()
                && status == 201
            {
                let name = meta::name(&answer).to_owned();
                meta::set(body, "name", name);
            }
            let (Some(body), true, true) = (body, tested, matches!(status, 200 | 201 | 422)) else {
                keep(&answer);
                continue;
            };
            if status == 422 && answer["details"]["kind"] != row.kind.as_str() {
                continue;
            }
            let against = if method == "POST" || status == 201 {
                None
            } else {
                old.as_ref()
            };
            if method != "POST" && status == 200 && against.is_none() {
                keep(&answer);
                continue;
            }
            let uid = answer["metadata"]["uid"]
                .as_str()
                .unwrap_or("uid-2")
                .to_owned();
            let verdict = match (write(&address, &body, against, &uid), status) {
                (Outcome::Undecided, _) => {
                    keep(&answer);
                    continue;
                }
                (Outcome::Stored(object), 200 | 201) => {
                    difference("", &comparable(row, &answer), &comparable(row, &object))
                        .map(|d| format!("STORED {d}"))
                }
                (Outcome::Stored(_), _) => {
                    let want = causes_text(
                        answer["details"]["causes"]
                            .as_array()
                            .map(Vec::as_slice)
                            .unwrap_or_default(),
                    );
                    Some(format!("ACCEPTED {}", want.join(" | ")))
                }
                (Outcome::Refused(causes), code) => {
                    let want = causes_text(
                        answer["details"]["causes"]
                            .as_array()
                            .map(Vec::as_slice)
                            .unwrap_or_default(),
                    );
                    let got: Vec<String> = causes
                        .iter()
                        .map(|c| format!("{}: {}", c.field, c.message))
                        .collect();
                    let same = code == 422
                        && want.len() == got.len()
                        && want
                            .iter()
                            .zip(&got)
                            .all(|(w, g)| w == g || same_but_cut(w, g));
                    (!same).then(|| {
                        format!(
                            "REFUSED want [{}] got [{}]",
                            want.join(" | "),
                            got.join(" | ")
                        )
                    })
                }
            };
            tried += 1;
            match verdict {
                None => agreed += 1,
                Some(text) => {
                    let entry = found
                        .entry(format!("{} {text}", row.kind))
                        .or_insert_with(|| (0, format!("{theme} {scenario} {}", step["step"])));
                    entry.0 += 1;
                }
            }
            keep(&answer);
        }
    }
    println!("{agreed} of {tried} agree");
    for (what, (times, place)) in &found {
        println!("{times} x {what}  ({place})");
    }
    if tried > 0 && only.is_empty() {
        assert!(agreed >= MUST_AGREE, "{agreed} of {tried} agree");
    }
}
