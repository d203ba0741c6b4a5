//! Preparation: what the system itself writes into objects before they are checked and stored.

use oarlock_model::meta;
use serde_json::{Map, Value, json};

use super::definition;
use super::quantity::qos_class;

pub fn create_of(group: &str, kind: &str) -> fn(&mut Value) {
    match (group, kind) {
        ("", "Pod") => pod,
        ("", "Namespace") => namespace,
        ("", "PersistentVolumeClaim") => |o| {
            pending(o);
            one_data_source(o);
        },
        ("", "PersistentVolume") => pending,
        ("apps", "DaemonSet") => |o| template_generation(o, 1),
        ("batch", "Job") => job,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => |o| null_if_empty(o, "/rules"),
        ("discovery.k8s.io", "EndpointSlice") => |o| null_if_empty(o, "/endpoints"),
        ("storage.k8s.io", "CSINode") => csi_node,
        ("storage.k8s.io", "VolumeAttributesClass") => {
            |o| protect(o, "kubernetes.io/vac-protection")
        }
        ("coordination.k8s.io", "Lease") => lease,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::prepare_create,
        _ => |_| {},
    }
}

pub fn update_of(group: &str, kind: &str) -> fn(&mut Value, &Value) {
    match (group, kind) {
        ("apps", "DaemonSet") => |new, old| {
            let before: i64 = meta::annotation(old, TEMPLATE_GENERATION)
                .and_then(|t| t.parse().ok())
                .unwrap_or(1);
            let changed = new.pointer("/spec/template") != old.pointer("/spec/template");
            template_generation(new, before + i64::from(changed));
        },
        ("", "Pod") => keep_qos,
        ("", "PersistentVolumeClaim") => |new, _| one_data_source(new),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => |o, _| null_if_empty(o, "/rules"),
        ("discovery.k8s.io", "EndpointSlice") => |o, _| null_if_empty(o, "/endpoints"),
        ("storage.k8s.io", "CSINode") => |o, _| csi_node(o),
        ("certificates.k8s.io", "CertificateSigningRequest") => |new, old| {
            let spec = old.get("spec").cloned().unwrap_or_default();
            meta::as_map_mut(new).insert("spec".to_owned(), spec);
        },
        ("coordination.k8s.io", "Lease") => |new, _| lease(new),
        ("", "Service") => drop_fields_of_old_type,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::prepare_update,
        _ => |_, _| {},
    }
}

pub fn settle_of(group: &str, kind: &str) -> fn(&mut Value) {
    match (group, kind) {
        ("batch", "Job") | ("", "ReplicationController") => labels_of_template,
        _ => |_| {},
    }
}

/// Upstream's storage does not tell an empty list from none; required lists then show as null.
fn null_if_empty(object: &mut Value, pointer: &str) {
    if let Some(list) = object
        .pointer_mut(pointer)
        .filter(|l| l.as_array().is_some_and(Vec::is_empty))
    {
        *list = Value::Null;
    }
}

fn csi_node(object: &mut Value) {
    null_if_empty(object, "/spec/drivers");
    let drivers = object.pointer_mut("/spec/drivers");
    for driver in drivers.and_then(Value::as_array_mut).into_iter().flatten() {
        null_if_empty(driver, "/topologyKeys");
    }
}

/// An object in use is not to go: a controller takes this finalizer away when it may.
fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = meta::metadata_mut(object)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|f| f == finalizer)
    {
        list.push(json!(finalizer));
    }
}

/// A field of older versions, kept as an annotation.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(object: &mut Value, generation: i64) {
    let annotations = meta::child_map_mut(meta::metadata_mut(object), "annotations");
    annotations.insert(
        TEMPLATE_GENERATION.to_owned(),
        Value::String(generation.to_string()),
    );
}

/// Fields of coordinated leader election, which is off by default.
fn lease(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("preferredHolder");
        spec.remove("strategy");
    }
}

fn pod(object: &mut Value) {
    // A negative time to end is read as the shortest one.
    let grace = object.pointer_mut("/spec/terminationGracePeriodSeconds");
    if let Some(grace) = grace.filter(|g| g.as_i64().is_some_and(|g| g < 0)) {
        *grace = json!(1);
    }
    let mut status = Map::new();
    status.insert("phase".to_owned(), json!("Pending"));
    let gates = object
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array);
    if gates.is_some_and(|g| !g.is_empty()) {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null, "lastTransitionTime": null,
        });
        status.insert("conditions".to_owned(), json!([condition]));
    }
    status.insert("qosClass".to_owned(), json!(qos_class(object)));
    meta::as_map_mut(object).insert("status".to_owned(), Value::Object(status));
}

/// Fields that only the service's old type had go with it, unless the caller set them anew.
fn drop_fields_of_old_type(new: &mut Value, old: &Value) {
    let old = &old["spec"];
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    let kind = |spec: &Value| spec["type"].as_str().unwrap_or("").to_owned();
    let now = spec
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let external_ips =
        |ips: Option<&Value>| ips.and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    let external = |kind: &str, ips| {
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && ips)
    };
    let mut gone: Vec<&str> = Vec::new();
    if now == "ExternalName" {
        gone.extend([
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ]);
    }
    if now != "LoadBalancer" {
        gone.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
    }
    if !external(&now, external_ips(spec.get("externalIPs")))
        && external(&kind(old), external_ips(old.get("externalIPs")))
    {
        gone.push("externalTrafficPolicy");
    }
    for field in gone {
        if old.get(field).is_some() && spec.get(field) == old.get(field) {
            spec.remove(field);
        }
    }
    if !matches!(now.as_str(), "NodePort" | "LoadBalancer")
        && matches!(kind(old).as_str(), "NodePort" | "LoadBalancer")
    {
        let before: Vec<&Value> = old["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| &p["nodePort"])
            .collect();
        for port in spec
            .get_mut("ports")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if before.contains(&&port["nodePort"]) {
                port.as_object_mut().map(|p| p.remove("nodePort"));
            }
        }
    }
}

/// Two names of one field.
fn one_data_source(claim: &mut Value) {
    let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    for (from, to) in [
        ("dataSource", "dataSourceRef"),
        ("dataSourceRef", "dataSource"),
    ] {
        let absent = spec.get(to).is_none_or(Value::is_null);
        let source = spec.get(from).filter(|s| {
            absent && s.is_object() && s["namespace"].as_str().unwrap_or("").is_empty()
        });
        if let Some(source) = source.cloned() {
            spec.insert(to.to_owned(), source);
        }
    }
}

/// Without labels of its own, an object has those of its template.
fn labels_of_template(object: &mut Value) {
    let own = object
        .pointer("/metadata/labels")
        .and_then(Value::as_object);
    if own.is_some_and(|l| !l.is_empty()) {
        return;
    }
    let labels = object
        .pointer("/spec/template/metadata/labels")
        .filter(|l| l.as_object().is_some_and(|l| !l.is_empty()))
        .cloned();
    if let Some(labels) = labels {
        meta::metadata_mut(object).insert("labels".to_owned(), labels);
    }
}

fn keep_qos(new: &mut Value, old: &Value) {
    if let Some(class) = old.pointer("/status/qosClass").cloned() {
        let status = meta::child_map_mut(meta::as_map_mut(new), "status");
        status.entry("qosClass").or_insert(class);
    }
}

fn namespace(object: &mut Value) {
    let map = meta::as_map_mut(object);
    map.insert("status".to_owned(), json!({"phase": "Active"}));
    let spec = meta::child_map_mut(map, "spec");
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Value::Array(list) = finalizers
        && !list.iter().any(|f| f == "kubernetes")
    {
        list.push(json!("kubernetes"));
    }
}

fn pending(object: &mut Value) {
    meta::as_map_mut(object).insert("status".to_owned(), json!({"phase": "Pending"}));
}

/// A job that does not bring its own selector selects by its uid.
fn job(object: &mut Value) {
    if object
        .pointer("/spec/manualSelector")
        .and_then(Value::as_bool)
        == Some(true)
    {
        return;
    }
    let (uid, name) = (meta::uid(object).to_owned(), meta::name(object).to_owned());
    let own = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    let template = meta::child_map_mut(spec, "template");
    let labels = meta::child_map_mut(meta::child_map_mut(template, "metadata"), "labels");
    for (label, value) in own {
        labels
            .entry(label)
            .or_insert_with(|| Value::String(value.clone()));
    }
    let selector = meta::child_map_mut(spec, "selector");
    let wanted = meta::child_map_mut(selector, "matchLabels");
    wanted
        .entry("batch.kubernetes.io/controller-uid")
        .or_insert_with(|| Value::String(uid.clone()));
}
