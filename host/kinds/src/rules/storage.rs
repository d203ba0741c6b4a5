//! Claims, volumes and storage classes.

use oarlock_model::{Cause, Quantity, meta};
use serde_json::{Value, json};

use super::affinity::node_selector;
use super::csi;
use super::metadata::{label_selector, meta_of, object_meta, object_meta_update};
use super::names::{dns_label, dns_subdomain};
use super::path::{Causes, Path, fields, list, some, text};
use super::volume::{PERSISTENT_SOURCES, Within, sources};

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

fn access_modes(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let modes: Vec<&str> = list(spec, "accessModes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for mode in &modes {
        at.one_of(out, mode, &ACCESS_MODES);
    }
    let shared = |mode: &&str| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode);
    if modes.contains(&"ReadWriteOncePod") && modes.iter().any(shared) {
        at.forbidden(out, "may not use ReadWriteOncePod with other access modes");
    }
}

pub fn claim_spec(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let modes_at = at.field("accessModes");
    if list(spec, "accessModes").is_empty() {
        modes_at.required(out, "at least 1 access mode is required");
    }
    label_selector(out, spec.get("selector"), &at.field("selector"));
    access_modes(out, spec, &modes_at);
    let size_at = at.field("resources");
    let size_at = size_at.key("storage");
    match spec.pointer("/resources/requests/storage") {
        None => size_at.required(out, ""),
        Some(size) => positive(out, size, &size_at),
    }
    class_name(out, spec, "storageClassName", at);
    if let Some(mode) = some(spec, "volumeMode").and_then(Value::as_str) {
        at.field("volumeMode")
            .one_of(out, mode, &["Block", "Filesystem"]);
    }
    data_sources(out, spec, at);
    class_name(out, spec, "volumeAttributesClassName", at);
}

fn positive(out: &mut Causes, size: &Value, at: &Path<'_>) {
    let fine = Quantity::from_json(size).is_ok_and(|q| !q.is_zero() && !q.is_negative());
    if !fine {
        at.invalid(out, size, "must be greater than zero");
    }
}

fn class_name(out: &mut Causes, spec: &Value, field: &str, at: &Path<'_>) {
    let class = text(spec, field);
    if !class.is_empty() {
        at.field(field)
            .all_invalid(out, class, dns_subdomain(class));
    }
}

/// What a claim's volume is filled with; the two fields must agree.
fn data_sources(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for field in ["dataSource", "dataSourceRef"] {
        let Some(source) = some(spec, field) else {
            continue;
        };
        let at = at.field(field);
        let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
        for part in ["name", "kind"] {
            if text(source, part).is_empty() {
                at.field(part).required(out, "");
            }
        }
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            at.invalid_text(out, kind, detail);
        }
        if !group.is_empty() {
            at.field("apiGroup")
                .all_invalid(out, group, dns_subdomain(group));
        }
        let namespace = text(source, "namespace");
        if !namespace.is_empty() {
            at.field("namespace")
                .all_invalid(out, namespace, dns_label(namespace));
        }
    }
    let (Some(source), Some(reference)) = (some(spec, "dataSource"), some(spec, "dataSourceRef"))
    else {
        return;
    };
    // Upstream prints the field's place where the value belongs.
    let refuse = |out: &mut Causes, detail: &str| {
        let message = format!("Invalid value: {{}}: {detail}");
        out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
    };
    if !text(reference, "namespace").is_empty() {
        refuse(
            out,
            "may not be specified when dataSourceRef.namespace is specified",
        );
    } else if ["apiGroup", "kind", "name"]
        .iter()
        .any(|part| some(source, part) != some(reference, part))
    {
        refuse(out, "must match dataSourceRef");
    }
}

const CLAIM_IMMUTABLE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub fn claim(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let in_status =
        old.is_some_and(|old| old["spec"] == new["spec"] && old["status"] != new["status"]);
    if let Some(old) = old {
        object_meta_update(&mut out, new, old, 2);
        if in_status {
            claim_status(&mut out, new);
            return out;
        }
    }
    object_meta(&mut out, new, "", "PersistentVolumeClaim");
    let at = Path::new("spec");
    if old.is_none_or(|old| old["spec"] != new["spec"]) {
        claim_spec(&mut out, &new["spec"], &at);
    }
    if let Some(old) = old {
        claim_update(&mut out, new, old, &at);
    }
    out
}

/// The spec with what may change as it was.
fn munged_claim(new: &Value, old: &Value) -> (Value, Value) {
    let (mut now, mut before) = (new["spec"].clone(), old["spec"].clone());
    let put = |spec: &mut Value, field: &str, value: Option<&Value>| {
        if let Some(map) = spec.as_object_mut() {
            match value {
                Some(value) => map.insert(field.to_owned(), value.clone()),
                None => map.remove(field),
            };
        }
    };
    if text(&before, "volumeName").is_empty() {
        put(&mut before, "volumeName", now.get("volumeName"));
    }
    let class = some(&old["spec"], "storageClassName");
    let beta = meta::annotation(old, BETA_CLASS);
    let wanted = some(&new["spec"], "storageClassName").and_then(Value::as_str);
    if class.is_none() && wanted.is_some() && (beta.is_none() || beta == wanted) {
        put(&mut now, "storageClassName", None);
    }
    if text(&new["status"], "phase") == "Bound" {
        let size = old["spec"]["resources"]["requests"].get("storage").cloned();
        if let (Some(requests), Some(size)) = (
            now.pointer_mut("/resources/requests")
                .and_then(Value::as_object_mut),
            size,
        ) {
            requests.insert("storage".to_owned(), size);
        }
        if some(&now, "volumeAttributesClassName").is_some() {
            let before = old["spec"].get("volumeAttributesClassName");
            put(&mut now, "volumeAttributesClassName", before);
        }
    }
    (now, before)
}

fn claim_update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let beta = |claim: &Value| meta::annotation(claim, BETA_CLASS).unwrap_or("").to_owned();
    if beta(new) != beta(old) {
        let meta_at = Path::new("metadata");
        let meta_at = meta_at.field("annotations");
        meta_at
            .key(BETA_CLASS)
            .invalid_text(out, &beta(new), "field is immutable");
    }
    if new["spec"] == old["spec"] {
        return;
    }
    let (now, before) = munged_claim(new, old);
    if now != before {
        let difference = super::face::difference("PersistentVolumeClaimSpec", &before, &now);
        at.forbidden(out, &format!("{CLAIM_IMMUTABLE}\n{difference}"));
    }
    let zero = || Quantity::from_units(0);
    let size = |o: &Value, pointer: &str| {
        o.pointer(pointer)
            .and_then(|s| Quantity::from_json(s).ok())
            .unwrap_or_else(zero)
    };
    const REQUEST: &str = "/spec/resources/requests/storage";
    if size(new, REQUEST) < size(old, REQUEST)
        && size(new, REQUEST) <= size(old, "/status/capacity/storage")
    {
        let at = at.field("resources");
        let at = at.field("requests");
        at.field("storage")
            .forbidden(out, "field can not be less than status.capacity");
    }
    Path::new("volumeMode").same(
        out,
        new["spec"].get("volumeMode"),
        old["spec"].get("volumeMode"),
    );
    attributes_class(out, &new["spec"], &old["spec"], at, true);
}

/// A class of attributes can be exchanged, but not taken away.
fn attributes_class(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>, claim: bool) {
    const FIELD: &str = "volumeAttributesClassName";
    let (now, before) = (some(new, FIELD), some(old, FIELD));
    if now == before || before.is_none() {
        return;
    }
    let at = at.field(FIELD);
    if now.is_none() {
        at.forbidden(out, "update from non-nil value to nil is forbidden");
    } else if claim && text(new, FIELD).is_empty() {
        at.forbidden(
            out,
            "update from non-nil value to an empty string is forbidden",
        );
    }
}

fn claim_status(out: &mut Causes, claim: &Value) {
    if list(&claim["spec"], "accessModes").is_empty() {
        Path::new("Spec").field("accessModes").required(out, "");
    }
    let status = &claim["status"];
    let at = Path::new("status");
    let list_at = at.field("capacity");
    for (resource, value) in fields(status, "capacity") {
        basic(out, value, &list_at.key(resource));
    }
    let statuses = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let resize_at = at.field("allocatedResourceStatus");
    for (resource, value) in fields(status, "allocatedResourceStatuses") {
        claim_resource(out, resource, &resize_at);
        if !statuses.iter().any(|s| value == s) {
            resize_at.unsupported(out, resource, &statuses);
        }
    }
    let list_at = at.field("allocatedResources");
    for (resource, value) in fields(status, "allocatedResources") {
        let before = out.len();
        claim_resource(out, resource, &list_at);
        if out.len() == before {
            basic(out, value, &list_at.key(resource));
        }
    }
}

fn claim_resource(out: &mut Causes, resource: &str, at: &Path<'_>) {
    let errors = super::names::qualified_name(resource);
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    if !errors.is_empty() {
        at.all_invalid(out, resource, errors);
    } else if native && resource != "storage" {
        at.unsupported(out, resource, &["storage"]);
    }
}

/// An amount that is not negative, told as a number.
fn basic(out: &mut Causes, value: &Value, at: &Path<'_>) {
    if let Ok(amount) = Quantity::from_json(value)
        && amount.is_negative()
    {
        at.invalid(
            out,
            &Value::from(amount.value()),
            "must be a valid resource quantity",
        );
    }
}

pub fn volume(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    let in_status =
        old.is_some_and(|old| old["spec"] == new["spec"] && old["status"] != new["status"]);
    if let Some(old) = old {
        object_meta_update(out, new, old, if in_status { 2 } else { 1 });
        if in_status {
            return std::mem::take(out);
        }
    }
    // Upstream checks an updated volume twice, and so tells everything twice.
    for _ in 0..if old.is_some() { 2 } else { 1 } {
        object_meta(out, new, "", "PersistentVolume");
        volume_spec(out, new);
    }
    if let Some(old) = old {
        volume_update(out, &new["spec"], &old["spec"]);
    }
    std::mem::take(out)
}

fn volume_spec(out: &mut Causes, volume: &Value) {
    let (spec, at) = (&volume["spec"], Path::new("spec"));
    let modes_at = at.field("accessModes");
    if list(spec, "accessModes").is_empty() {
        modes_at.required(out, "");
    }
    access_modes(out, spec, &modes_at);
    let capacity_at = at.field("capacity");
    let names: Vec<&String> = fields(spec, "capacity").map(|(name, _)| name).collect();
    if names.is_empty() {
        capacity_at.required(out, "");
    }
    if names.len() != 1 || names[0] != "storage" {
        // An empty map is not kept apart from none; where there is no spec at all, there is none.
        let shown = spec.get("capacity").filter(|c| c.is_object()).cloned();
        let empty = match spec.get("accessModes") {
            None => Value::Null,
            Some(_) => json!({}),
        };
        out.push(Cause::not_supported(
            capacity_at.to_string(),
            &shown.unwrap_or(empty),
            &["storage"],
        ));
    }
    for (resource, value) in fields(spec, "capacity") {
        basic(out, value, &capacity_at.key(resource));
        positive(out, value, &capacity_at.key(resource));
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        at.field("persistentVolumeReclaimPolicy").one_of(
            out,
            policy,
            &["Delete", "Recycle", "Retain"],
        );
    }
    let affinity = some(spec, "nodeAffinity");
    if let Some(affinity) = affinity {
        let at = at.field("nodeAffinity");
        match some(affinity, "required") {
            Some(required) => node_selector(out, required, &at.field("required")),
            None => at
                .field("required")
                .required(out, "must specify required node constraints"),
        }
    }
    let name = meta::name(volume);
    sources(
        out,
        spec,
        &PERSISTENT_SOURCES,
        Within::Persistent { name },
        &at,
    );
    if some(spec, "local").is_some() && affinity.is_none() {
        at.field("nodeAffinity")
            .required(out, "Local volume requires node affinity");
    }
    let path = text(&spec["hostPath"], "path");
    let is_root = path.starts_with('/') && path.split('/').all(|p| p.is_empty() || p == ".");
    if is_root && policy == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        at.field("persistentVolumeReclaimPolicy")
            .forbidden(out, detail);
    }
    class_name(out, spec, "storageClassName", &at);
    if let Some(mode) = some(spec, "volumeMode").and_then(Value::as_str) {
        at.field("volumeMode")
            .one_of(out, mode, &["Block", "Filesystem"]);
    }
    if let Some(class) = some(spec, "volumeAttributesClassName") {
        if class == "" {
            at.field("volumeAttributesClassName")
                .required(out, "an empty string is disallowed");
        } else {
            class_name(out, spec, "volumeAttributesClassName", &at);
        }
        if some(spec, "csi").is_none() {
            at.field("csi").required(
                out,
                "has to be specified when using volumeAttributesClassName",
            );
        }
    }
}

fn volume_update(out: &mut Causes, new: &Value, old: &Value) {
    let at = Path::new("spec");
    let source = |spec: &Value, other: &Value| -> Vec<Option<Value>> {
        PERSISTENT_SOURCES
            .iter()
            .map(|kind| {
                let mut source = some(spec, kind).cloned()?;
                // A secret for growing may be named later.
                if *kind == "csi" && some(&other["csi"], "controllerExpandSecretRef").is_none() {
                    source.as_object_mut()?.remove("controllerExpandSecretRef");
                }
                Some(source)
            })
            .collect()
    };
    if source(new, old) != source(old, new) {
        let difference = super::face::difference("PersistentVolumeSource", old, new);
        at.field("persistentvolumesource").forbidden(
            out,
            &format!("spec.persistentvolumesource is immutable after creation\n{difference}"),
        );
    }
    Path::new("volumeMode").same(out, new.get("volumeMode"), old.get("volumeMode"));
    let (now, before) = (some(new, "nodeAffinity"), some(old, "nodeAffinity"));
    if before.is_some() && now.map(under_new_labels) != before.map(under_new_labels) {
        let shown = now.map_or("null".to_owned(), |affinity| {
            super::face::show("VolumeNodeAffinity", affinity)
        });
        let message = format!(
            "Invalid value: {shown}: field is immutable, except for updating from beta label to GA"
        );
        out.push(Cause::new("FieldValueInvalid", "nodeAffinity", message));
    }
    attributes_class(out, new, old, &at, false);
}

/// Labels of nodes that have a new name.
fn under_new_labels(affinity: &Value) -> Value {
    let renamed = [
        (
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        (
            "beta.kubernetes.io/instance-type",
            "node.kubernetes.io/instance-type",
        ),
    ];
    let mut affinity = affinity.clone();
    let terms = affinity
        .pointer_mut("/required/nodeSelectorTerms")
        .and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        let list = term
            .get_mut("matchExpressions")
            .and_then(Value::as_array_mut);
        for requirement in list.into_iter().flatten() {
            let key = text(requirement, "key").to_owned();
            if let Some((_, now)) = renamed.iter().find(|(old, _)| *old == key) {
                requirement["key"] = json!(now);
            }
        }
    }
    affinity
}

pub fn storage_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "storage.k8s.io", "StorageClass");
    csi::provisioner(
        &mut out,
        text(new, "provisioner"),
        &Path::new("provisioner"),
    );
    csi::parameters(&mut out, new, true);
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
    if old.is_none() {
        csi::allowed_topologies(&mut out, new);
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
