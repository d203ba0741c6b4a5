//! What storage drivers say of themselves and of nodes, attachments of volumes, and classes of volume attributes.

use oarlock_model::{Cause, Quantity};
use serde_json::Value;

use super::go_value::{self, Field, Go};
use super::metadata::{label_selector, meta_of, object_meta};
use super::names::{dns_subdomain, driver_name, qualified_name};
use super::path::{Causes, Path, fields, items, list, some, text};

const GROUP: &str = "storage.k8s.io";
const MAX_NODE_ID: usize = 256;
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
const MAX_STATUS_BYTES: usize = 256 * 1024;
const LEAST_TOKEN_SECONDS: i64 = 600;
const MOST_TOKEN_SECONDS: i64 = 1 << 32;
const LEAST_UPDATE_SECONDS: i64 = 10;

pub fn driver(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, GROUP, "CSIDriver");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if let Some(policy) = some(spec, "fsGroupPolicy").and_then(Value::as_str) {
        at.field("fsGroupPolicy")
            .one_of(out, policy, &["File", "None", "ReadWriteOnceWithFSType"]);
    }
    token_requests(out, spec, &at.field("tokenRequests"));
    let modes_at = at.field("volumeLifecycleModes");
    for mode in list(spec, "volumeLifecycleModes") {
        modes_at.one_of(
            out,
            mode.as_str().unwrap_or(""),
            &["Persistent", "Ephemeral"],
        );
    }
    let seconds = spec
        .get("nodeAllocatableUpdatePeriodSeconds")
        .and_then(Value::as_i64);
    if let Some(seconds) = seconds.filter(|s| *s < LEAST_UPDATE_SECONDS) {
        at.field("nodeAllocatableUpdatePeriodSeconds").invalid(
            out,
            &Value::from(seconds),
            "must be greater than or equal to 10 seconds",
        );
    }
    if spec["serviceAccountTokenInSecrets"] == true && list(spec, "tokenRequests").is_empty() {
        at.field("serviceAccountTokenInSecrets").invalid(
            out,
            &Value::Bool(true),
            "must not be set to true when tokenRequests is not configured",
        );
    }
    if let Some(old) = old {
        let before = &old["spec"];
        at.field("attachedRequired").same(
            out,
            spec.get("attachRequired"),
            before.get("attachRequired"),
        );
        modes_at.same(
            out,
            spec.get("volumeLifecycleModes"),
            before.get("volumeLifecycleModes"),
        );
    }
    std::mem::take(out)
}

fn token_requests(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, request) in items(spec, "tokenRequests") {
        let at = at.index(i);
        let audience = text(request, "audience");
        if seen.contains(&audience) {
            at.field("audience").duplicate(out, audience);
            continue;
        }
        seen.push(audience);
        let Some(seconds) = request.get("expirationSeconds").and_then(Value::as_i64) else {
            continue;
        };
        let at = at.field("expirationSeconds");
        if seconds < LEAST_TOKEN_SECONDS {
            at.invalid(
                out,
                &Value::from(seconds),
                "may not specify a duration less than 10 minutes",
            );
        }
        if seconds > MOST_TOKEN_SECONDS {
            at.invalid(
                out,
                &Value::from(seconds),
                "may not specify a duration larger than 2^32 seconds",
            );
        }
    }
}

/// Tokens belong in secrets, not in volume attributes.
pub fn driver_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let spec = &new["spec"];
    if old.is_some()
        || list(spec, "tokenRequests").is_empty()
        || some(spec, "serviceAccountTokenInSecrets").is_some()
    {
        return Vec::new();
    }
    vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned()]
}

const NODE_DRIVER: &[Field] = &[
    ("Name", "name", Go::Zero("\"\"")),
    ("NodeID", "nodeID", Go::Zero("\"\"")),
    ("TopologyKeys", "topologyKeys", Go::Nil),
    (
        "Allocatable",
        "allocatable",
        Go::Pointer(&[("Count", "count", Go::Nil)]),
    ),
];

pub fn node(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    object_meta(out, new, GROUP, "CSINode");
    let at = Path::new("spec");
    let list_at = at.field("drivers");
    let drivers = list(&new["spec"], "drivers");
    for (i, driver) in drivers.iter().enumerate() {
        let at = list_at.index(i);
        driver_name(out, text(driver, "name"), &at.field("name"));
        let id = text(driver, "nodeID");
        if id.is_empty() {
            at.field("nodeID").required(out, "");
        }
        if id.len() > MAX_NODE_ID {
            at.field("nodeID").invalid_text(
                out,
                id,
                &format!("must be {MAX_NODE_ID} characters or less"),
            );
        }
        let allocatable_at = at.field("allocatable");
        allocatable_at
            .field("count")
            .not_negative(out, driver["allocatable"].get("count"));
        let name = text(driver, "name");
        if drivers[..i].iter().any(|d| text(d, "name") == name) {
            at.field("name").duplicate(out, name);
        }
        let keys = list(driver, "topologyKeys");
        for (j, key) in keys.iter().enumerate() {
            let text = key.as_str().unwrap_or("");
            if text.is_empty() {
                at.required(out, "");
            }
            if keys[..j].contains(key) {
                at.duplicate(out, text);
            }
            at.all_invalid(out, text, qualified_name(text));
        }
    }
    if let Some(old) = old {
        node_update(out, drivers, list(&old["spec"], "drivers"), &list_at);
    }
    std::mem::take(out)
}

/// A driver that is there stays as it is, but for what it can allocate.
fn node_update(out: &mut Causes, new: &[Value], old: &[Value], at: &Path<'_>) {
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        if let Some(map) = driver.as_object_mut() {
            map.remove("allocatable");
        }
        driver
    };
    for before in old {
        for now in new.iter().filter(|d| d["name"] == before["name"]) {
            let now = fixed(now);
            if now != fixed(before) {
                out.push(Cause::new(
                    "FieldValueInvalid",
                    at.to_string(),
                    format!(
                        "Invalid value: {}: field is immutable",
                        go_value::show(&now, NODE_DRIVER)
                    ),
                ));
            }
        }
    }
}

pub fn capacity(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, GROUP, "CSIStorageCapacity");
    let class = text(new, "storageClassName");
    match old {
        None => {
            label_selector(
                &mut out,
                new.get("nodeTopology"),
                &Path::new("nodeTopology"),
            );
            Path::new("storageClassName").all_invalid(&mut out, class, dns_subdomain(class));
            if let Some(amount) = some(new, "capacity")
                && Quantity::from_json(amount).is_ok_and(Quantity::is_negative)
            {
                Path::new("capacity").invalid(
                    &mut out,
                    amount,
                    "must be greater than or equal to 0",
                );
            }
        }
        Some(old) => {
            for field in ["nodeTopology", "storageClassName"] {
                Path::new(field).same(&mut out, new.get(field), old.get(field));
            }
        }
    }
    out
}

const ATTACHMENT: &[Field] = &[
    ("Attacher", "attacher", Go::Zero("\"\"")),
    (
        "Source",
        "source",
        Go::Struct(&[
            ("PersistentVolumeName", "persistentVolumeName", Go::Nil),
            ("InlineVolumeSpec", "inlineVolumeSpec", Go::Nil),
        ]),
    ),
    ("NodeName", "nodeName", Go::Zero("\"\"")),
];

pub fn attachment(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    object_meta(out, new, GROUP, "VolumeAttachment");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let attacher = text(spec, "attacher");
    if attacher.is_empty() {
        at.field("attacher").required(out, "");
    }
    let source_at = at.field("source");
    let name = some(&spec["source"], "persistentVolumeName");
    match (name, some(&spec["source"], "inlineVolumeSpec")) {
        (None, None) => source_at.required(
            out,
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
        (Some(_), Some(_)) => source_at.forbidden(
            out,
            "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
        ),
        (Some(name), None) => {
            if name == "" {
                source_at
                    .field("persistentVolumeName")
                    .required(out, "must specify non empty persistentVolumeName");
            }
        }
        (None, Some(volume)) => {
            inline_volume(out, volume, &source_at.field("inlineVolumeSpec"));
        }
    }
    let node = text(spec, "nodeName");
    at.field("nodeName")
        .all_invalid(out, node, dns_subdomain(node));
    attachment_status(out, &new["status"]);
    match old {
        None => {
            driver_name(out, attacher, &at.field("attacher"));
            if let Some(name) = name.and_then(Value::as_str) {
                source_at
                    .field("persistentVolumeName")
                    .all_invalid(out, name, dns_subdomain(name));
            }
        }
        Some(old) => {
            if old["spec"] != *spec {
                out.push(Cause::new(
                    "FieldValueInvalid",
                    "spec",
                    format!(
                        "Invalid value: {}: field is immutable",
                        go_value::show(spec, ATTACHMENT)
                    ),
                ));
            }
        }
    }
    std::mem::take(out)
}

/// A volume that exists in an attachment only.
fn inline_volume(out: &mut Causes, volume: &Value, at: &Path<'_>) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if some(volume, "claimRef").is_some() {
        at.field("claimRef").forbidden(out, INLINE);
    }
    if fields(volume, "capacity").next().is_some() {
        at.field("capacity").forbidden(out, INLINE);
    }
    if some(volume, "csi").is_none() {
        at.field("csi")
            .required(out, "has to be specified in the context of inline volumes");
    }
    if list(volume, "accessModes").is_empty() {
        at.field("accessModes").required(out, "");
    }
    for field in [
        "persistentVolumeReclaimPolicy",
        "nodeAffinity",
        "storageClassName",
        "volumeMode",
    ] {
        if some(volume, field).is_some_and(|v| v != "") {
            at.field(field).forbidden(out, INLINE);
        }
    }
    if let Some(csi) = some(volume, "csi") {
        let at = at.field("csi");
        driver_name(out, text(csi, "driver"), &at.field("driver"));
        if text(csi, "volumeHandle").is_empty() {
            at.field("volumeHandle").required(out, "");
        }
    }
}

fn attachment_status(out: &mut Causes, status: &Value) {
    let at = Path::new("status");
    let size: usize = fields(status, "attachmentMetadata")
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > MAX_STATUS_BYTES {
        out.push(Cause::too_long(
            at.field("attachmentMetadata").to_string(),
            MAX_STATUS_BYTES,
        ));
    }
    for field in ["attachError", "detachError"] {
        let (error, at) = (&status[field], at.field(field));
        if text(error, "message").len() > MAX_STATUS_BYTES {
            out.push(Cause::too_long(
                at.field("message").to_string(),
                MAX_STATUS_BYTES,
            ));
        }
        at.field("errorCode")
            .between(out, error.get("errorCode"), 0, i64::from(i32::MAX));
    }
}

pub fn attributes_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    if let Some(old) = old {
        meta_of(&mut out, new, Some(old), GROUP, "VolumeAttributesClass");
        for field in ["driverName", "parameters"] {
            if old.get(field) != new.get(field) {
                Path::new(field).forbidden(&mut out, &format!("updates to {field} are forbidden."));
            }
        }
    } else {
        object_meta(&mut out, new, GROUP, "VolumeAttributesClass");
    }
    provisioner(&mut out, text(new, "driverName"), &Path::new("driverName"));
    parameters(&mut out, new, false);
    out
}

/// The name of what makes volumes.
pub fn provisioner(out: &mut Causes, name: &str, at: &Path<'_>) {
    if name.is_empty() {
        at.required(out, "");
    } else {
        let lower = name.to_lowercase();
        at.all_invalid(out, &lower, qualified_name(&lower));
    }
}

/// Texts for whatever makes volumes.
pub fn parameters(out: &mut Causes, class: &Value, may_be_empty: bool) {
    let at = Path::new("parameters");
    let count = fields(class, "parameters").count();
    if count > MAX_PARAMETERS {
        out.push(Cause::too_long(at.to_string(), MAX_PARAMETERS));
        return;
    }
    let mut size = 0;
    for (key, value) in fields(class, "parameters") {
        if key.is_empty() {
            at.invalid_text(out, key, "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_PARAMETER_BYTES {
        out.push(Cause::too_long(at.to_string(), MAX_PARAMETER_BYTES));
    }
    if !may_be_empty && count == 0 {
        at.required(out, "must contain at least one key/value pair");
    }
}

/// The topologies that a storage class allows.
pub fn allowed_topologies(out: &mut Causes, class: &Value) {
    let list_at = Path::new("allowedTopologies");
    let terms = list(class, "allowedTopologies");
    let mut known: Vec<Vec<(String, Vec<String>)>> = vec![Vec::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let at = list_at.index(i);
        let map = topology_term(out, term, &at);
        for other in &known {
            if *other == map {
                at.field("matchLabelExpressions").duplicate(out, "");
            }
        }
        known.push(map);
    }
}

/// What a term asks for: sorted keys with sorted values.
fn topology_term(out: &mut Causes, term: &Value, at: &Path<'_>) -> Vec<(String, Vec<String>)> {
    let mut map: Vec<(String, Vec<String>)> = Vec::new();
    let list_at = at.field("matchLabelExpressions");
    for (i, expression) in items(term, "matchLabelExpressions") {
        let at = list_at.index(i);
        let key = text(expression, "key");
        let values = list(expression, "values");
        let values_at = at.field("values");
        if values.is_empty() {
            values_at.required(out, "");
        }
        let mut set: Vec<String> = Vec::new();
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("").to_owned();
            if set.contains(&value) {
                values_at.index(j).duplicate(out, &value);
            }
            set.push(value);
        }
        at.field("key").all_invalid(out, key, qualified_name(key));
        if map.iter().any(|(k, _)| k == key) {
            at.field("key").duplicate(out, key);
        }
        set.sort();
        set.dedup();
        map.push((key.to_owned(), set));
    }
    map.sort();
    map
}
