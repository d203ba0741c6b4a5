//! Admission policies, flow control, and what hands out devices.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, UNSET, age, int, labels, list, name, or, text};
use super::{AGE, Cells, NAME, col};
use crate::Column;

const PARAM_KIND: Column = col(
    "ParamKind",
    "string",
    "ParamKind specifies the kind of resources used to parameterize this policy",
);
const VALIDATING: &[Column] = &[
    NAME,
    col(
        "Validations",
        "integer",
        "Validations indicates the number of validation rules defined in this configuration",
    ),
    PARAM_KIND,
    AGE,
];
const MUTATING: &[Column] = &[
    NAME,
    col(
        "Mutations",
        "integer",
        "Mutations indicates the number of mutation rules defined in this configuration",
    ),
    PARAM_KIND,
    AGE,
];
const BINDING: &[Column] = &[
    NAME,
    col(
        "PolicyName",
        "string",
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    col(
        "ParamRef",
        "string",
        "ParamRef indicates the param resource which sets the configuration param",
    ),
    AGE,
];
const FLOW_SCHEMA: &[Column] = &[
    NAME,
    col("PriorityLevel", "string", ""),
    col("MatchingPrecedence", "string", ""),
    col("DistinguisherMethod", "string", ""),
    AGE,
    col(
        "MissingPL",
        "string",
        "references a broken or non-existent PriorityLevelConfiguration",
    ),
];
const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    col("Type", "string", ""),
    col("NominalConcurrencyShares", "string", ""),
    col("Queues", "string", ""),
    col("HandSize", "string", ""),
    col("QueueLengthLimit", "string", ""),
    AGE,
];
const SLICE: &[Column] = &[
    NAME,
    col("Node", "string", ""),
    col("Driver", "string", ""),
    col("Pool", "string", ""),
    AGE,
];
const CLAIM: &[Column] = &[
    NAME,
    col(
        "State",
        "string",
        "A summary of the current state (allocated, pending, reserved, etc.).",
    ),
    AGE,
];

pub fn find(group: &str, kind: &str) -> Option<(&'static [Column], Cells)> {
    Some(match (group, kind) {
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => (VALIDATING, |o, now| {
            policy(o, now, list(o, "/spec/validations").len())
        }),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => (MUTATING, |o, now| {
            policy(o, now, list(o, "/spec/mutations").len())
        }),
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => (BINDING, |o, now| {
            vec![
                name(o),
                json!(text(o, "/spec/policyName")),
                json!(param(&o["spec"]["paramRef"])),
                age(o, now),
            ]
        }),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => (FLOW_SCHEMA, flow_schema),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            (PRIORITY_LEVEL, priority_level)
        }
        ("resource.k8s.io", "ResourceSlice") => (SLICE, |o, now| {
            vec![
                name(o),
                json!(text(o, "/spec/nodeName")),
                json!(text(o, "/spec/driver")),
                json!(text(o, "/spec/pool/name")),
                age(o, now),
            ]
        }),
        ("resource.k8s.io", "ResourceClaim") => {
            (CLAIM, |o, now| vec![name(o), json!(state(o)), age(o, now)])
        }
        _ => return None,
    })
}

fn policy(o: &Value, now: Timestamp, rules: usize) -> Vec<Value> {
    let kind = &o["spec"]["paramKind"];
    let kind = if kind.is_object() {
        format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind"))
    } else {
        UNSET.to_owned()
    };
    vec![name(o), json!(rules), json!(kind), age(o, now)]
}

/// `NAMESPACE/NAME`, or a selector as Go prints one.
fn param(reference: &Value) -> String {
    let (namespace, name) = (text(reference, "/namespace"), text(reference, "/name"));
    if !name.is_empty() {
        let namespace = or(namespace, "*");
        return format!("{namespace}/{name}");
    }
    let selector = &reference["selector"];
    if !selector.is_object() {
        return UNSET.to_owned();
    }
    let pairs = labels(selector["matchLabels"].as_object());
    let pairs: String = pairs
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    let requirements: String = list(selector, "/matchExpressions")
        .iter()
        .map(|r| {
            let values: Vec<&str> = list(r, "/values")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text(r, "/key"),
                text(r, "/operator"),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

fn flow_schema(o: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = list(o, "/status/conditions")
        .iter()
        .find(|c| text(c, "/type") == "Dangling")
        .map_or("?", |c| text(c, "/status"));
    vec![
        name(o),
        json!(text(o, "/spec/priorityLevelConfiguration/name")),
        json!(int(o, "/spec/matchingPrecedence")),
        json!(or(text(o, "/spec/distinguisherMethod/type"), NONE)),
        age(o, now),
        json!(dangling),
    ]
}

fn priority_level(o: &Value, now: Timestamp) -> Vec<Value> {
    let number = |pointer: &str| {
        o.pointer(pointer)
            .filter(|value| value.is_number())
            .cloned()
            .unwrap_or_else(|| json!(NONE))
    };
    let part = if o.pointer("/spec/limited").is_some() {
        "limited"
    } else {
        "exempt"
    };
    let queuing = |field: &str| number(&format!("/spec/limited/limitResponse/queuing/{field}"));
    vec![
        name(o),
        json!(text(o, "/spec/type")),
        number(&format!("/spec/{part}/nominalConcurrencyShares")),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(o, now),
    ]
}

/// `pending`, or `allocated,reserved` and the like.
fn state(o: &Value) -> String {
    let mut states = Vec::new();
    if oarlock_model::meta::is_terminating(o) {
        states.push("deleted");
    }
    if !o["status"]["allocation"].is_object() {
        if states.is_empty() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !list(o, "/status/reservedFor").is_empty() {
            states.push("reserved");
        }
    }
    states.join(",")
}
