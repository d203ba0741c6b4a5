//! Defaults of the other kinds, beyond those of the schema.

use base64::Engine as _;
use oarlock_model::meta;
use serde_json::{Map, Value, json};

use super::definition;
use super::pod_defaults::{each, map_at, pod, round_up, set, set_text, template};

type Default = fn(&mut Value);

pub fn of(group: &str, kind: &str) -> Default {
    match (group, kind) {
        ("", "Pod") => pod,
        ("", "PodTemplate") => |o| template(o.get_mut("template")),
        ("", "ReplicationController") => replication_controller,
        ("", "Service") => service,
        ("", "Namespace") => namespace,
        ("", "Secret") => secret,
        ("", "Node") => node,
        ("", "PersistentVolumeClaim") => claim,
        ("", "PersistentVolume") => volume,
        ("", "Endpoints") => endpoints,
        ("", "LimitRange") => limit_range,
        ("apps", "Deployment") => deployment,
        ("apps", "ReplicaSet") => replica_set,
        ("apps", "StatefulSet") => stateful_set,
        ("apps", "DaemonSet") => daemon_set,
        ("batch", "Job") => job,
        ("batch", "CronJob") => cron_job,
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler,
        ("networking.k8s.io", "NetworkPolicy") => network_policy,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => role_binding,
        ("storage.k8s.io", "StorageClass") => storage_class,
        ("scheduling.k8s.io", "PriorityClass") => |o| {
            set_text(
                meta::as_map_mut(o),
                "preemptionPolicy",
                "PreemptLowerPriority",
            );
        },
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition::default,
        _ => super::group_defaults::of(group, kind),
    }
}

pub fn spec(object: &mut Value) -> &mut Map<String, Value> {
    meta::child_map_mut(meta::as_map_mut(object), "spec")
}

fn status(object: &mut Value) -> &mut Map<String, Value> {
    meta::child_map_mut(meta::as_map_mut(object), "status")
}

fn deployment(object: &mut Value) {
    let spec = spec(object);
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    let strategy = meta::child_map_mut(spec, "strategy");
    set_text(strategy, "type", "RollingUpdate");
    if strategy.get("type").is_some_and(|t| t == "RollingUpdate") {
        let rolling = meta::child_map_mut(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
    template(spec.get_mut("template"));
}

fn replica_set(object: &mut Value) {
    let spec = spec(object);
    set(spec, "replicas", 1);
    template(spec.get_mut("template"));
}

fn replication_controller(object: &mut Value) {
    let labels = object
        .pointer("/spec/template/metadata/labels")
        .filter(|l| l.is_object())
        .cloned();
    let spec = spec(object);
    set(spec, "replicas", 1);
    template(spec.get_mut("template"));
    if let Some(labels) = labels {
        let empty = |map: &Map<String, Value>, field: &str| {
            map.get(field)
                .and_then(Value::as_object)
                .is_none_or(Map::is_empty)
        };
        if empty(spec, "selector") {
            spec.insert("selector".to_owned(), labels.clone());
        }
        let metadata = meta::metadata_mut(object);
        if empty(metadata, "labels") {
            metadata.insert("labels".to_owned(), labels);
        }
    }
}

fn stateful_set(object: &mut Value) {
    let spec = spec(object);
    set_text(spec, "podManagementPolicy", "OrderedReady");
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    let strategy = meta::child_map_mut(spec, "updateStrategy");
    if strategy
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("")
        .is_empty()
    {
        strategy.insert("type".to_owned(), json!("RollingUpdate"));
        if strategy.get("rollingUpdate").is_none_or(Value::is_null) {
            strategy.insert("rollingUpdate".to_owned(), json!({"partition": 0}));
        }
    }
    if strategy.get("type").is_some_and(|t| t == "RollingUpdate")
        && let Some(rolling) = map_at(strategy, "rollingUpdate")
    {
        set(rolling, "partition", 0);
    }
    let retention = meta::child_map_mut(spec, "persistentVolumeClaimRetentionPolicy");
    set_text(retention, "whenDeleted", "Retain");
    set_text(retention, "whenScaled", "Retain");
    template(spec.get_mut("template"));
    each(spec, "volumeClaimTemplates", |claim| {
        set_text(claim, "apiVersion", "v1");
        set_text(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = map_at(claim, "spec") {
            set(spec, "volumeMode", "Filesystem");
        }
        set_text(meta::child_map_mut(claim, "status"), "phase", "Pending");
    });
}

fn daemon_set(object: &mut Value) {
    // A field of older versions, shown as an annotation; preparation counts it.
    let annotations = meta::child_map_mut(meta::metadata_mut(object), "annotations");
    set_text(annotations, super::prepare::TEMPLATE_GENERATION, "0");
    let spec = spec(object);
    set(spec, "revisionHistoryLimit", 10);
    let strategy = meta::child_map_mut(spec, "updateStrategy");
    set_text(strategy, "type", "RollingUpdate");
    if strategy.get("type").is_some_and(|t| t == "RollingUpdate") {
        let rolling = meta::child_map_mut(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", 1);
        set(rolling, "maxSurge", 0);
    }
    template(spec.get_mut("template"));
}

fn job(object: &mut Value) {
    let labels = object
        .pointer("/spec/template/metadata/labels")
        .filter(|l| l.is_object())
        .cloned();
    let spec = spec(object);
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let per_index = spec
        .get("backoffLimitPerIndex")
        .is_some_and(|v| !v.is_null());
    set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set_text(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    let failure_policy = spec.get("podFailurePolicy").is_some_and(|v| !v.is_null());
    set_text(
        spec,
        "podReplacementPolicy",
        if failure_policy {
            "Failed"
        } else {
            "TerminatingOrFailed"
        },
    );
    failure_rules(spec);
    template(spec.get_mut("template"));
    if let Some(labels) = labels {
        let metadata = meta::metadata_mut(object);
        if metadata
            .get("labels")
            .and_then(Value::as_object)
            .is_none_or(Map::is_empty)
        {
            metadata.insert("labels".to_owned(), labels);
        }
    }
}

fn failure_rules(spec: &mut Map<String, Value>) {
    if let Some(policy) = map_at(spec, "podFailurePolicy") {
        each(policy, "rules", |rule| {
            each(rule, "onPodConditions", |pattern| {
                set_text(pattern, "status", "True");
            });
        });
    }
}

fn cron_job(object: &mut Value) {
    let spec = spec(object);
    set_text(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = map_at(spec, "jobTemplate").and_then(|t| map_at(t, "spec")) {
        failure_rules(job);
        template(job.get_mut("template"));
    }
}

fn service(object: &mut Value) {
    let spec = spec(object);
    set_text(spec, "sessionAffinity", "None");
    set_text(spec, "type", "ClusterIP");
    if spec.get("sessionAffinity").is_some_and(|a| a == "None") {
        spec.remove("sessionAffinityConfig");
    } else if spec.get("sessionAffinity").is_some_and(|a| a == "ClientIP") {
        let config = meta::child_map_mut(spec, "sessionAffinityConfig");
        set(
            meta::child_map_mut(config, "clientIP"),
            "timeoutSeconds",
            10_800,
        );
    }
    each(spec, "ports", |port| {
        set_text(port, "protocol", "TCP");
        let unset = port
            .get("targetPort")
            .is_none_or(|t| t.is_null() || t == 0 || t == "");
        if unset && let Some(number) = port.get("port").cloned() {
            port.insert("targetPort".to_owned(), number);
        }
    });
    let kind = spec
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("")
        .to_owned();
    let external_ips = spec
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external_ips)
    {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
        if let Some(balancer) = object
            .get_mut("status")
            .and_then(Value::as_object_mut)
            .and_then(|s| map_at(s, "loadBalancer"))
        {
            each(balancer, "ingress", |ingress| {
                if ingress.get("ip").is_some_and(|ip| ip != "") {
                    set(ingress, "ipMode", "VIP");
                }
            });
        }
    }
}

fn namespace(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        let labels = meta::child_map_mut(meta::metadata_mut(object), "labels");
        labels.insert(
            "kubernetes.io/metadata.name".to_owned(),
            Value::String(name),
        );
    }
}

/// `stringData` is a way of writing `data`.
fn secret(object: &mut Value) {
    let map = meta::as_map_mut(object);
    if let Some(Value::Object(texts)) = map.remove("stringData") {
        let data = meta::child_map_mut(map, "data");
        for (key, text) in texts {
            let bytes = text.as_str().unwrap_or("").as_bytes();
            data.insert(
                key,
                Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
            );
        }
    }
    set_text(map, "type", "Opaque");
}

fn node(object: &mut Value) {
    // One range under two names: the single one wins.
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let single = spec
            .get("podCIDR")
            .and_then(Value::as_str)
            .filter(|r| !r.is_empty())
            .map(str::to_owned);
        let first = spec
            .get("podCIDRs")
            .and_then(|l| l.get(0))
            .and_then(Value::as_str)
            .map(str::to_owned);
        match (single, first) {
            (Some(single), first) if first.as_ref() != Some(&single) => {
                spec.insert("podCIDRs".to_owned(), json!([single]));
            }
            (None, Some(first)) => {
                spec.insert("podCIDR".to_owned(), Value::String(first));
            }
            _ => {}
        }
    }
    for list in ["capacity", "allocatable"] {
        if let Some(list) = object
            .get_mut("status")
            .and_then(|s| s.get_mut(list))
            .and_then(Value::as_object_mut)
        {
            round_up(list);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
        && let Some(capacity) = status
            .get("capacity")
            .filter(|c| c.as_object().is_some_and(|c| !c.is_empty()))
            .cloned()
    {
        set(status, "allocatable", capacity);
    }
}

fn claim(object: &mut Value) {
    if let Some(resources) = map_at(spec(object), "resources") {
        for list in ["limits", "requests"] {
            if let Some(list) = map_at(resources, list) {
                round_up(list);
            }
        }
    }
    set_text(spec(object), "volumeMode", "Filesystem");
    set_text(status(object), "phase", "Pending");
}

fn volume(object: &mut Value) {
    let spec = spec(object);
    set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_text(spec, "volumeMode", "Filesystem");
    if let Some(path) = map_at(spec, "hostPath") {
        set(path, "type", "");
    }
    if let Some(capacity) = map_at(spec, "capacity") {
        super::pod_defaults::round_up(capacity);
    }
    set_text(status(object), "phase", "Pending");
}

fn endpoints(object: &mut Value) {
    each(meta::as_map_mut(object), "subsets", |subset| {
        each(subset, "ports", |port| set_text(port, "protocol", "TCP"));
    });
}

fn limit_range(object: &mut Value) {
    each(spec(object), "limits", |limit| {
        if limit.get("type").is_none_or(|t| t != "Container") {
            return;
        }
        for list in [
            "max",
            "min",
            "default",
            "defaultRequest",
            "maxLimitRequestRatio",
        ] {
            if let Some(list) = map_at(limit, list) {
                round_up(list);
            }
        }
        // An absent default is the maximum; an absent default request is the default, or else the minimum.
        for (into, from) in [
            ("default", "max"),
            ("defaultRequest", "default"),
            ("defaultRequest", "min"),
        ] {
            if let Some(values) = limit.get(from).and_then(Value::as_object).cloned() {
                let target = meta::child_map_mut(limit, into);
                for (resource, value) in values {
                    target.entry(resource).or_insert(value);
                }
            }
        }
    });
}

fn autoscaler(object: &mut Value) {
    set(spec(object), "minReplicas", 1);
    if meta::api_version(object) == "autoscaling/v1" {
        return crate::autoscalers::default_v1(object);
    }
    let spec = spec(object);
    if spec
        .get("metrics")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert(
            "metrics".to_owned(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
    let Some(behavior) = map_at(spec, "behavior") else {
        return;
    };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let rules = [
        (
            "scaleUp",
            Some(0),
            json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]),
        ),
        ("scaleDown", None, json!([percent])),
    ];
    for (name, window, policies) in rules {
        let rule = meta::child_map_mut(behavior, name);
        set(rule, "selectPolicy", "Max");
        if let Some(seconds) = window {
            set(rule, "stabilizationWindowSeconds", seconds);
        }
        set(rule, "policies", policies);
    }
}

fn network_policy(object: &mut Value) {
    let spec = spec(object);
    for list in ["ingress", "egress"] {
        each(spec, list, |rule| {
            each(rule, "ports", |port| set(port, "protocol", "TCP"));
        });
    }
    if spec
        .get("policyTypes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        let egress = spec
            .get("egress")
            .and_then(Value::as_array)
            .is_some_and(|e| !e.is_empty());
        let types = if egress {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        spec.insert("policyTypes".to_owned(), types);
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn role_binding(object: &mut Value) {
    let map = meta::as_map_mut(object);
    set_text(meta::child_map_mut(map, "roleRef"), "apiGroup", RBAC);
    each(map, "subjects", |subject| {
        if subject
            .get("kind")
            .is_some_and(|k| k == "User" || k == "Group")
        {
            set_text(subject, "apiGroup", RBAC);
        }
    });
}

fn storage_class(object: &mut Value) {
    let map = meta::as_map_mut(object);
    set(map, "reclaimPolicy", "Delete");
    set(map, "volumeBindingMode", "Immediate");
}

fn endpoint_slice(object: &mut Value) {
    each(meta::as_map_mut(object), "ports", |port| {
        set(port, "name", "");
        set(port, "protocol", "TCP");
    });
}
