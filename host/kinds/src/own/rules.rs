//! Rules and columns of the kinds of oarlock.dev.

use jiff::Timestamp;
use oarlock_model::time::{human_duration, parse_time};
use oarlock_model::{Cause, LabelSelector, meta};
use serde_json::{Value, json};

use super::MAX_CHUNK_BYTES;
use crate::{Column, Columns, Hooks};

const DIGEST_PREFIX: &str = "sha256:";
const DIGEST_HEX_DIGITS: usize = 64;
const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MODES: [&str; 2] = ["Enforce", "Monitor"];
const OPERATIONS: [&str; 5] = ["*", "CREATE", "UPDATE", "DELETE", "CONNECT"];
/// A guest below one MiB cannot start; beyond 4 GiB it cannot address memory.
const MEMORY_MIB: (i64, i64) = (1, 4096);

pub(super) fn hooks(kind: &str) -> Hooks {
    let validate = match kind {
        "Component" => component,
        "ComponentChunk" => component_chunk,
        "SchedulerProfile" => scheduler_profile,
        "AdmissionPolicy" => admission_policy,
        _ => controller,
    };
    Hooks {
        validate,
        ..Hooks::default()
    }
}

fn digest(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    let Some(text) = value.as_str().filter(|t| !t.is_empty()) else {
        causes.push(Cause::required(field, ""));
        return;
    };
    let hex = text.strip_prefix(DIGEST_PREFIX).unwrap_or("");
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if hex.len() != DIGEST_HEX_DIGITS || !hex.bytes().all(is_hex) {
        causes.push(Cause::invalid(
            field,
            value,
            "must be sha256: and 64 lower-case hex digits",
        ));
    }
}

fn not_negative(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|n| n < 0) {
        causes.push(Cause::invalid(
            field,
            value,
            "must be greater than or equal to 0",
        ));
    }
}

fn between(field: &str, value: &Value, (low, high): (i64, i64), causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|n| !(low..=high).contains(&n)) {
        causes.push(Cause::invalid(
            field,
            value,
            &format!("must be between {low} and {high}, inclusive"),
        ));
    }
}

fn required_text(field: &str, value: &Value, causes: &mut Vec<Cause>) {
    if value.as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required(field, ""));
    }
}

fn one_of(field: &str, value: &Value, supported: &[&str], causes: &mut Vec<Cause>) {
    if value
        .as_str()
        .is_some_and(|text| !text.is_empty() && !supported.contains(&text))
    {
        causes.push(Cause::not_supported(field, value, supported));
    }
}

fn limits(limits: &Value, causes: &mut Vec<Cause>) {
    between(
        "spec.limits.memoryMiB",
        &limits["memoryMiB"],
        MEMORY_MIB,
        causes,
    );
    between(
        "spec.limits.deadlineMilliseconds",
        &limits["deadlineMilliseconds"],
        (1, 600_000),
        causes,
    );
    not_negative("spec.limits.maxTraps", &limits["maxTraps"], causes);
}

fn component(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let (spec, mut causes) = (&new["spec"], Vec::new());
    digest("spec.digest", &spec["digest"], &mut causes);
    not_negative("spec.size", &spec["size"], &mut causes);
    not_negative("spec.chunks", &spec["chunks"], &mut causes);
    causes
}

/// Chunks are named by their content, so they never change.
fn component_chunk(new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    digest("digest", &new["digest"], &mut causes);
    not_negative("index", &new["index"], &mut causes);
    let data = new["data"].as_str().unwrap_or_default();
    if data.is_empty() {
        causes.push(Cause::required("data", ""));
    } else if data.len() > MAX_CHUNK_BYTES.div_ceil(3) * 4 {
        causes.push(Cause::too_long("data", MAX_CHUNK_BYTES));
    }
    for field in ["digest", "index", "data"] {
        if old.is_some_and(|old| old[field] != new[field]) {
            causes.push(Cause::forbidden(field, "field is immutable"));
        }
    }
    causes
}

fn scheduler_profile(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let (spec, mut causes) = (&new["spec"], Vec::new());
    required_text("spec.schedulerName", &spec["schedulerName"], &mut causes);
    one_of(
        "spec.failurePolicy",
        &spec["failurePolicy"],
        &FAILURE_POLICIES,
        &mut causes,
    );
    between(
        "spec.percentageOfNodesToScore",
        &spec["percentageOfNodesToScore"],
        (0, 100),
        &mut causes,
    );
    limits(&spec["limits"], &mut causes);
    for (point, set) in spec["plugins"].as_object().into_iter().flatten() {
        for list in ["enabled", "disabled"] {
            for (at, plugin) in set[list].as_array().into_iter().flatten().enumerate() {
                let field = format!("spec.plugins.{point}.{list}[{at}]");
                required_text(&format!("{field}.name"), &plugin["name"], &mut causes);
                not_negative(&format!("{field}.weight"), &plugin["weight"], &mut causes);
            }
        }
    }
    for (at, config) in spec["pluginConfig"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        required_text(
            &format!("spec.pluginConfig[{at}].name"),
            &config["name"],
            &mut causes,
        );
    }
    causes
}

fn controller(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let (spec, mut causes) = (&new["spec"], Vec::new());
    required_text("spec.component", &spec["component"], &mut causes);
    not_negative("spec.replicas", &spec["replicas"], &mut causes);
    not_negative("spec.workers", &spec["workers"], &mut causes);
    limits(&spec["limits"], &mut causes);
    causes
}

fn admission_policy(new: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let (spec, mut causes) = (&new["spec"], Vec::new());
    required_text("spec.component", &spec["component"], &mut causes);
    let (policy, mode) = (&spec["failurePolicy"], &spec["mode"]);
    one_of("spec.failurePolicy", policy, &FAILURE_POLICIES, &mut causes);
    one_of("spec.mode", mode, &MODES, &mut causes);
    limits(&spec["limits"], &mut causes);
    let matching = &spec["match"];
    let rules = matching["rules"].as_array();
    for (at, rule) in rules.into_iter().flatten().enumerate() {
        let field = |name: &str| format!("spec.match.rules[{at}].{name}");
        for (index, operation) in rule["operations"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let field = format!("{}[{index}]", field("operations"));
            one_of(&field, operation, &OPERATIONS, &mut causes);
        }
        if rule["resources"].as_array().is_none_or(Vec::is_empty) {
            causes.push(Cause::required(field("resources"), ""));
        }
    }
    for name in ["namespaceSelector", "objectSelector"] {
        let selector = &matching[name];
        if let Err(error) = LabelSelector::from_object(selector)
            && !selector.is_null()
        {
            let field = format!("spec.match.{name}");
            causes.push(Cause::invalid(field, selector, &error.0));
        }
    }
    causes
}

const fn column(
    name: &'static str,
    ty: &'static str,
    priority: i32,
    description: &'static str,
) -> Column {
    Column {
        name,
        ty,
        format: "",
        description,
        priority,
    }
}

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    description: "Name of the object.",
    priority: 0,
};
const READY: Column = column("Ready", "string", 0, "Whether what is wanted is what runs.");
const AGE: Column = column("Age", "string", 0, "Time since the object was created.");

type Cells = fn(&Value, Timestamp) -> Vec<Value>;

pub(super) fn columns(kind: &str) -> Columns {
    let (columns, cells): (&[Column], Cells) = match kind {
        "Component" => (
            &[
                NAME,
                column("Digest", "string", 0, "SHA-256 of the bytes."),
                column("Size", "integer", 0, "Length of the bytes."),
                column("Points", "string", 1, "Extension points that it offers."),
                AGE,
            ],
            |o, now| {
                let spec = &o["spec"];
                vec![
                    name(o),
                    short_digest(&spec["digest"]),
                    spec["size"].clone(),
                    list(&o["status"]["points"]),
                    age(o, now),
                ]
            },
        ),
        "ComponentChunk" => (
            &[
                NAME,
                column(
                    "Digest",
                    "string",
                    0,
                    "The component that the piece belongs to.",
                ),
                column("Index", "integer", 0, "Place of the piece."),
                AGE,
            ],
            |o, now| {
                let index = o["index"].as_i64().unwrap_or(0);
                vec![
                    name(o),
                    short_digest(&o["digest"]),
                    json!(index),
                    age(o, now),
                ]
            },
        ),
        "SchedulerProfile" => (
            &[
                NAME,
                column(
                    "Scheduler",
                    "string",
                    0,
                    "The spec.schedulerName of its pods.",
                ),
                column("Component", "string", 0, "The component that is wanted."),
                READY,
                column("Active", "string", 1, "The component that decides."),
                column("Traps", "integer", 1, "Traps since the last swap."),
                AGE,
            ],
            |o, now| {
                let (spec, status) = (&o["spec"], &o["status"]);
                vec![
                    name(o),
                    text(&spec["schedulerName"], ""),
                    text(&spec["component"], "<built-in>"),
                    ready(o),
                    text(&status["activeComponent"], "<none>"),
                    json!(status["traps"].as_i64().unwrap_or(0)),
                    age(o, now),
                ]
            },
        ),
        "AdmissionPolicy" => (
            &[
                NAME,
                column("Component", "string", 0, "The component that is wanted."),
                column("Mode", "string", 0, "Whether it decides or only reports."),
                READY,
                column(
                    "Denials",
                    "integer",
                    0,
                    "Writes refused since the last swap.",
                ),
                column("Active", "string", 1, "The component that decides."),
                column("Traps", "integer", 1, "Traps since the last swap."),
                AGE,
            ],
            |o, now| {
                let (spec, status) = (&o["spec"], &o["status"]);
                vec![
                    name(o),
                    text(&spec["component"], "<none>"),
                    text(&spec["mode"], "Enforce"),
                    ready(o),
                    json!(status["counts"]["denials"].as_i64().unwrap_or(0)),
                    text(&status["activeComponent"], "<none>"),
                    json!(status["traps"].as_i64().unwrap_or(0)),
                    age(o, now),
                ]
            },
        ),
        _ => (
            &[
                NAME,
                column("Component", "string", 0, "The component that is wanted."),
                READY,
                column("Active", "string", 1, "The component that reconciles."),
                column("Traps", "integer", 1, "Traps since the last swap."),
                AGE,
            ],
            |o, now| {
                let status = &o["status"];
                vec![
                    name(o),
                    text(&o["spec"]["component"], "<none>"),
                    ready(o),
                    text(&status["activeComponent"], "<none>"),
                    json!(status["traps"].as_i64().unwrap_or(0)),
                    age(o, now),
                ]
            },
        ),
    };
    Columns {
        columns: columns.to_vec(),
        cells,
    }
}

fn name(object: &Value) -> Value {
    json!(meta::name(object))
}

fn text(value: &Value, absent: &str) -> Value {
    json!(value.as_str().filter(|t| !t.is_empty()).unwrap_or(absent))
}

fn list(value: &Value) -> Value {
    let items: Vec<&str> = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    json!(if items.is_empty() {
        "<none>".to_owned()
    } else {
        items.join(",")
    })
}

/// Enough of a digest to tell it from others.
fn short_digest(value: &Value) -> Value {
    const SHOWN: usize = DIGEST_PREFIX.len() + 12;
    let digest = value.as_str().unwrap_or_default();
    json!(digest.get(..SHOWN).unwrap_or(digest))
}

/// The status of the condition Ready or Active, whichever the kind has.
fn ready(object: &Value) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    let condition = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Ready" || c["type"] == "Active");
    json!(
        condition
            .and_then(|c| c["status"].as_str())
            .unwrap_or("Unknown")
    )
}

fn age(object: &Value, now: Timestamp) -> Value {
    let created = object["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(parse_time);
    json!(created.map_or_else(
        || "<unknown>".to_owned(),
        |at| human_duration(now.as_second() - at.as_second())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_text() -> String {
        format!("{DIGEST_PREFIX}{}", "0a".repeat(32))
    }

    #[test]
    fn what_is_refused() {
        let check = |kind: &str, new: Value, old: Option<Value>, expect: &[&str]| {
            let causes = (hooks(kind).validate)(&new, old.as_ref());
            let got: Vec<String> = causes
                .iter()
                .map(|c| format!("{}: {}", c.field, c.message))
                .collect();
            assert_eq!(got, expect, "{kind} {new}");
        };
        let digest = digest_text();
        check(
            "Component",
            json!({"spec": {"digest": digest, "size": 4}}),
            None,
            &[],
        );
        check(
            "Component",
            json!({}),
            None,
            &["spec.digest: Required value"],
        );
        check(
            "Component",
            json!({"spec": {"digest": "md5:1", "chunks": -1}}),
            None,
            &[
                r#"spec.digest: Invalid value: "md5:1": must be sha256: and 64 lower-case hex digits"#,
                "spec.chunks: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        let chunk = |data: &str| json!({"digest": digest, "index": 0, "data": data});
        check("ComponentChunk", chunk("YWJj"), Some(chunk("YWJj")), &[]);
        check(
            "ComponentChunk",
            chunk("YWJj"),
            Some(chunk("YWJk")),
            &["data: Forbidden: field is immutable"],
        );
        check(
            "SchedulerProfile",
            json!({"spec": {"schedulerName": "a", "failurePolicy": "Ignore"}}),
            None,
            &[],
        );
        check(
            "SchedulerProfile",
            json!({"spec": {"schedulerName": "a", "failurePolicy": "Shrug", "percentageOfNodesToScore": 101,
                "plugins": {"score": {"enabled": [{"weight": -1}]}}, "limits": {"memoryMiB": 0}}}),
            None,
            &[
                r#"spec.failurePolicy: Unsupported value: "Shrug": supported values: "Fail", "Ignore""#,
                "spec.percentageOfNodesToScore: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limits.memoryMiB: Invalid value: 0: must be between 1 and 4096, inclusive",
                "spec.plugins.score.enabled[0].name: Required value",
                "spec.plugins.score.enabled[0].weight: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        check(
            "Controller",
            json!({"spec": {}}),
            None,
            &["spec.component: Required value"],
        );
        check(
            "AdmissionPolicy",
            json!({"spec": {"component": "a", "failurePolicy": "Fail", "mode": "Monitor",
                "match": {"rules": [{"operations": ["CREATE"], "resources": ["pods"]}], "objectSelector": {}}}}),
            None,
            &[],
        );
        check(
            "AdmissionPolicy",
            json!({"spec": {"mode": "Watch", "match": {"rules": [{"operations": ["READ"]}],
                "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}}}),
            None,
            &[
                "spec.component: Required value",
                r#"spec.mode: Unsupported value: "Watch": supported values: "Enforce", "Monitor""#,
                r#"spec.match.rules[0].operations[0]: Unsupported value: "READ": supported values: "*", "CREATE", "UPDATE", "DELETE", "CONNECT""#,
                "spec.match.rules[0].resources: Required value",
                r#"spec.match.namespaceSelector: Invalid value: {"matchExpressions":[{"key":"a","operator":"Like"}]}: "Like" is not a valid label selector operator"#,
            ],
        );
    }

    #[test]
    fn a_cell_a_column() {
        let now: Timestamp = "2026-11-23T20:45:00Z".parse().expect("a time");
        for kind in [
            "Component",
            "ComponentChunk",
            "SchedulerProfile",
            "Controller",
            "AdmissionPolicy",
        ] {
            let columns = columns(kind);
            for object in [
                json!({}),
                json!({"metadata": {"name": "a"}, "spec": 1, "status": []}),
            ] {
                assert_eq!(
                    (columns.cells)(&object, now).len(),
                    columns.columns.len(),
                    "{kind}"
                );
            }
        }
    }
}
