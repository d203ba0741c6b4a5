//! Claims, volumes and storage classes.

use oarlock_model::{Cause, Quantity};
use serde_json::Value;

use super::affinity::node_selector;
use super::metadata::{label_selector, meta_of};
use super::names::dns_subdomain;
use super::path::{Causes, Path, fields, list, some, text};
use super::volume::SOURCES;

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

fn access_modes(out: &mut Causes, spec: &Value, at: &Path<'_>, detail: &str) {
    let modes: Vec<&str> = list(spec, "accessModes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let at = at.field("accessModes");
    if modes.is_empty() {
        at.required(out, detail);
    }
    for mode in &modes {
        at.one_of(out, mode, &ACCESS_MODES);
    }
    if modes.contains(&"ReadWriteOncePod") && modes.iter().any(|m| *m != "ReadWriteOncePod") {
        at.forbidden(out, "may not use ReadWriteOncePod with other access modes");
    }
}

pub fn claim_spec(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    access_modes(out, spec, at, "at least 1 access mode is required");
    label_selector(out, spec.get("selector"), &at.field("selector"));
    match spec.pointer("/resources/requests/storage") {
        None => at.field("resources").key("storage").required(out, ""),
        Some(size) => {
            let fine = Quantity::from_json(size).is_ok_and(|q| !q.is_zero() && !q.is_negative());
            if !fine {
                let at = at.field("resources");
                at.key("storage")
                    .invalid(out, size, "must be greater than zero");
            }
        }
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        at.field("storageClassName")
            .all_invalid(out, class, dns_subdomain(class));
    }
    let mode = text(spec, "volumeMode");
    if !mode.is_empty() {
        at.field("volumeMode")
            .one_of(out, mode, &["Block", "Filesystem"]);
    }
}

const CLAIM_IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

pub fn claim(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "PersistentVolumeClaim");
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return out;
    }
    let at = Path::new("spec");
    claim_spec(&mut out, &new["spec"], &at);
    if let Some(old) = old {
        let bound = text(&old["status"], "phase") == "Bound"
            && !text(&old["spec"], "volumeName").is_empty();
        let comparable = |spec: &Value| {
            let mut spec = spec.clone();
            if let Some(map) = spec.as_object_mut() {
                if bound {
                    map.remove("volumeAttributesClassName");
                    if let Some(requests) = map.get_mut("resources").and_then(Value::as_object_mut)
                    {
                        requests.remove("requests");
                    }
                }
                if text(&old["spec"], "volumeName").is_empty() {
                    map.remove("volumeName");
                }
            }
            spec
        };
        if comparable(&new["spec"]) != comparable(&old["spec"]) {
            let changed: Vec<String> = fields(new, "spec")
                .filter(|(name, value)| old["spec"].get(name.as_str()) != Some(value))
                .map(|(name, _)| name.clone())
                .collect();
            at.forbidden(
                &mut out,
                &format!("{CLAIM_IMMUTABLE}\nchanged: {}", changed.join(", ")),
            );
        }
        let size = |o: &Value| {
            o.pointer("/spec/resources/requests/storage")
                .and_then(|s| Quantity::from_json(s).ok())
        };
        if bound && size(new) < size(old) {
            let at = at.field("resources");
            at.field("requests")
                .key("storage")
                .forbidden(&mut out, "field can not be less than status.capacity");
        }
    }
    out
}

pub fn volume(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "", "PersistentVolume");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if old.is_some_and(|old| old["spec"] == *spec) {
        return std::mem::take(out);
    }
    // Upstream checks an updated volume twice, and so tells everything twice.
    for _ in 0..if old.is_some() { 2 } else { 1 } {
        volume_spec(out, spec, &at);
    }
    if let Some(old) = old {
        volume_update(out, spec, &old["spec"], &at);
    }
    std::mem::take(out)
}

fn volume_spec(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    access_modes(out, spec, at, "");
    let capacity_at = at.field("capacity");
    let names: Vec<&String> = fields(spec, "capacity").map(|(name, _)| name).collect();
    if names.is_empty() {
        capacity_at.required(out, "");
    }
    if names.len() != 1 || names[0] != "storage" {
        let shown = spec
            .get("capacity")
            .filter(|c| c.is_object())
            .cloned()
            .unwrap_or(Value::Null);
        out.push(Cause::not_supported(
            capacity_at.to_string(),
            &shown,
            &["storage"],
        ));
    }
    if let Some(size) = spec.pointer("/capacity/storage")
        && Quantity::from_json(size).is_ok_and(|q| q.is_zero() || q.is_negative())
    {
        capacity_at
            .key("storage")
            .invalid(out, size, "must be greater than zero");
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        at.field("persistentVolumeReclaimPolicy").one_of(
            out,
            policy,
            &["Delete", "Recycle", "Retain"],
        );
    }
    if let Some(affinity) = some(spec, "nodeAffinity") {
        let at = at.field("nodeAffinity");
        match some(affinity, "required") {
            Some(required) => node_selector(out, required, &at.field("required")),
            None => at
                .field("required")
                .required(out, "must specify required node constraints"),
        }
    }
    let sources: Vec<&str> = SOURCES
        .iter()
        .chain(["local", "cephfs"].iter())
        .copied()
        .filter(|s| some(spec, s).is_some())
        .collect();
    match sources.as_slice() {
        [] => at.required(out, "must specify a volume type"),
        [_, rest @ ..] => {
            for extra in rest {
                at.field(extra)
                    .forbidden(out, "may not specify more than 1 volume type");
            }
        }
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        at.field("storageClassName")
            .all_invalid(out, class, dns_subdomain(class));
    }
}

fn volume_update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let differs = |field: &str| new.get(field) != old.get(field);
    if SOURCES.iter().any(|s| differs(s)) || differs("local") {
        at.field("persistentvolumesource").forbidden(
            out,
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    at.field("volumeMode")
        .same(out, new.get("volumeMode"), old.get("volumeMode"));
    if some(old, "nodeAffinity").is_some() && differs("nodeAffinity") {
        let shown = new.get("nodeAffinity").unwrap_or(&Value::Null);
        let detail = "field is immutable, except for updating from beta label to GA";
        Path::new("nodeAffinity").invalid(out, shown, detail);
    }
}

pub fn storage_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "storage.k8s.io", "StorageClass");
    let provisioner = text(new, "provisioner");
    let at = Path::new("provisioner");
    if provisioner.is_empty() {
        at.required(&mut out, "");
    } else {
        at.all_invalid(
            &mut out,
            provisioner,
            super::names::qualified_name(&provisioner.to_lowercase()),
        );
    }
    let policy = text(new, "reclaimPolicy");
    if !policy.is_empty() {
        Path::new("reclaimPolicy").one_of(&mut out, policy, &["Delete", "Retain"]);
    }
    match text(new, "volumeBindingMode") {
        "" => Path::new("volumeBindingMode").required(&mut out, ""),
        mode => {
            Path::new("volumeBindingMode").one_of(
                &mut out,
                mode,
                &["Immediate", "WaitForFirstConsumer"],
            );
        }
    }
    if let Some(old) = old {
        for field in ["parameters", "provisioner"] {
            if new.get(field) != old.get(field) {
                let detail = "field is immutable";
                Path::new(field).invalid(&mut out, new.get(field).unwrap_or(&Value::Null), detail);
            }
        }
        for field in ["reclaimPolicy", "volumeBindingMode"] {
            Path::new(field).same(&mut out, new.get(field), old.get(field));
        }
    }
    out
}
