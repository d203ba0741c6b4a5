//! Defaults of pods and of whatever holds a pod template.

use oarlock_model::{Quantity, meta};
use serde_json::{Map, Value, json};

use super::resources::{aggregate_requests, is_huge_pages};

/// Sets a field unless it is there.
pub fn set(map: &mut Map<String, Value>, field: &str, value: impl Into<Value>) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a number unless it is there and not 0.
fn set_nonzero(map: &mut Map<String, Value>, field: &str, value: i64) {
    if map.get(field).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(field.to_owned(), Value::from(value));
    }
}

/// Sets a text unless it is there and not empty.
pub fn set_text(map: &mut Map<String, Value>, field: &str, value: &str) {
    if map
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or("")
        .is_empty()
    {
        map.insert(field.to_owned(), Value::from(value));
    }
}

pub fn map_at<'a>(
    map: &'a mut Map<String, Value>,
    field: &str,
) -> Option<&'a mut Map<String, Value>> {
    map.get_mut(field)?.as_object_mut()
}

/// Runs `edit` on each map in a list.
pub fn each(
    map: &mut Map<String, Value>,
    field: &str,
    mut edit: impl FnMut(&mut Map<String, Value>),
) {
    let items = map.get_mut(field).and_then(Value::as_array_mut);
    for item in items.into_iter().flatten().filter_map(Value::as_object_mut) {
        edit(item);
    }
}

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// A pod of its own: what templates leave open is decided.
pub fn pod(object: &mut Value) {
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        pod_ips(status);
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    pod_spec(spec);
    set(spec, "enableServiceLinks", true);
    let host_network = spec
        .get("hostNetwork")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    for list in &CONTAINER_LISTS[..2] {
        each(spec, list, |container| {
            requests_from_limits(container);
            if host_network {
                each(container, "ports", |port| {
                    if let Some(number) = port.get("containerPort").and_then(Value::as_i64) {
                        set_nonzero(port, "hostPort", number);
                    }
                });
            }
        });
    }
    requests_of_pod(spec);
}

/// What a pod as a whole limits, it requests: as much as its containers do, or else as much as it may have.
fn requests_of_pod(spec: &mut Map<String, Value>) {
    let limits = spec
        .get("resources")
        .and_then(|r| r.get("limits"))
        .and_then(Value::as_object)
        .filter(|l| !l.is_empty())
        .cloned();
    let Some(limits) = limits else {
        return;
    };
    let sums = aggregate_requests(&Value::Object(spec.clone()));
    let basic = |name: &str| matches!(name, "cpu" | "memory");
    let requests = meta::child_map_mut(meta::child_map_mut(spec, "resources"), "requests");
    for (name, sum) in sums.into_iter().filter(|(name, _)| basic(name)) {
        requests
            .entry(name)
            .or_insert_with(|| Value::String(sum.to_string()));
    }
    for (name, limit) in limits {
        if basic(&name) || is_huge_pages(&name) {
            requests.entry(name).or_insert(limit);
        }
    }
}

/// One address under two names: the single one wins.
fn pod_ips(status: &mut Map<String, Value>) {
    let single = status
        .get("podIP")
        .and_then(Value::as_str)
        .filter(|ip| !ip.is_empty())
        .map(str::to_owned);
    let first = status
        .get("podIPs")
        .and_then(|l| l.get(0)?.get("ip")?.as_str())
        .map(str::to_owned);
    match (single, first) {
        (Some(single), first) if first.as_ref() != Some(&single) => {
            status.insert("podIPs".to_owned(), json!([{"ip": single}]));
        }
        (None, Some(first)) => {
            status.insert("podIP".to_owned(), Value::String(first));
        }
        _ => {}
    }
}

/// What is limited but not requested is requested as limited.
fn requests_from_limits(container: &mut Map<String, Value>) {
    let Some(resources) = map_at(container, "resources") else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = meta::child_map_mut(resources, "requests");
    for (resource, limit) in limits {
        requests.entry(resource).or_insert(limit);
    }
}

/// `{spec: …}` of a template, below any object.
pub fn template(template: Option<&mut Value>) {
    if let Some(spec) = template
        .and_then(|t| t.get_mut("spec"))
        .and_then(Value::as_object_mut)
    {
        pod_spec(spec);
    }
}

pub fn pod_spec(spec: &mut Map<String, Value>) {
    set_text(spec, "dnsPolicy", "ClusterFirst");
    set_text(spec, "restartPolicy", "Always");
    set_text(spec, "schedulerName", "default-scheduler");
    set(spec, "terminationGracePeriodSeconds", 30);
    set(spec, "securityContext", json!({}));
    // Two names of one field.
    for (from, to) in [
        ("serviceAccountName", "serviceAccount"),
        ("serviceAccount", "serviceAccountName"),
    ] {
        if let Some(Value::String(name)) = spec.get(from).cloned().filter(|n| n != "") {
            spec.insert(to.to_owned(), Value::String(name));
            break;
        }
    }
    for list in CONTAINER_LISTS {
        each(spec, list, container);
    }
    each(spec, "volumes", volume);
    if let Some(overhead) = map_at(spec, "overhead") {
        round_up(overhead);
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or("");
    let policy = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    set_text(container, "imagePullPolicy", policy);
    set_text(container, "terminationMessagePath", "/dev/termination-log");
    set_text(container, "terminationMessagePolicy", "File");
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = map_at(container, name) {
            set_nonzero(probe, "timeoutSeconds", 1);
            set_nonzero(probe, "periodSeconds", 10);
            set_nonzero(probe, "successThreshold", 1);
            set_nonzero(probe, "failureThreshold", 3);
            handler(probe);
        }
    }
    if let Some(lifecycle) = map_at(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(hook) = map_at(lifecycle, name) {
                handler(hook);
            }
        }
    }
    each(container, "env", |variable| {
        if let Some(source) = map_at(variable, "valueFrom") {
            if let Some(field) = map_at(source, "fieldRef") {
                set_text(field, "apiVersion", "v1");
            }
            if let Some(file) = map_at(source, "fileKeyRef") {
                set(file, "optional", false);
            }
        }
    });
    if let Some(resources) = map_at(container, "resources") {
        for list in ["limits", "requests"] {
            if let Some(list) = map_at(resources, list) {
                round_up(list);
            }
        }
    }
}

/// Amounts finer than a thousandth are rounded up to one.
pub fn round_up(resources: &mut Map<String, Value>) {
    for value in resources.values_mut() {
        let fine = value.as_str().is_some_and(|t| t.ends_with(['n', 'u']));
        if fine && let Ok(quantity) = Quantity::from_json(value) {
            *value = Value::String(quantity.rounded_to_milli().to_string());
        }
    }
}

fn handler(handler: &mut Map<String, Value>) {
    if let Some(get) = map_at(handler, "httpGet") {
        set_text(get, "path", "/");
        set_text(get, "scheme", "HTTP");
    }
    if let Some(grpc) = map_at(handler, "grpc") {
        set(grpc, "service", "");
    }
}

/// True for images whose tag is `latest`, or that have neither tag nor digest.
pub fn is_latest(image: &str) -> bool {
    // What cannot be an image's name has no tag.
    let letter = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
    let first = image.as_bytes().first();
    if !image.bytes().all(letter) || !first.is_some_and(u8::is_ascii_alphanumeric) {
        return false;
    }
    let (name, digest) = image
        .split_once('@')
        .map_or((image, ""), |(name, digest)| (name, digest));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_empty(),
    }
}

/// 0644
const DEFAULT_MODE: i64 = 420;

fn volume(volume: &mut Map<String, Value>) {
    if volume
        .iter()
        .all(|(field, value)| field == "name" || value.is_null())
    {
        volume.insert("emptyDir".to_owned(), json!({}));
        return;
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = map_at(volume, source) {
            set(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(path) = map_at(volume, "hostPath") {
        set(path, "type", "");
    }
    if let Some(downward) = map_at(volume, "downwardAPI") {
        each(downward, "items", downward_file);
    }
    if let Some(projected) = map_at(volume, "projected") {
        each(projected, "sources", |source| {
            if let Some(token) = map_at(source, "serviceAccountToken") {
                set(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = map_at(source, "downwardAPI") {
                each(downward, "items", downward_file);
            }
        });
    }
    if let Some(spec) = map_at(volume, "ephemeral")
        .and_then(|e| map_at(e, "volumeClaimTemplate"))
        .and_then(|t| map_at(t, "spec"))
    {
        set(spec, "volumeMode", "Filesystem");
    }
    if let Some(iscsi) = map_at(volume, "iscsi") {
        set_text(iscsi, "iscsiInterface", "default");
    }
}

fn downward_file(file: &mut Map<String, Value>) {
    if let Some(field) = map_at(file, "fieldRef") {
        set_text(field, "apiVersion", "v1");
    }
}
