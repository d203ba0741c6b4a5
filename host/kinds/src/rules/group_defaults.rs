//! Defaults of the groups beyond core, apps and batch.

use oarlock_model::meta;
use serde_json::{Map, Value, json};

use super::defaults::spec;
use super::pod_defaults::{each, map_at, set, set_text};

type Default = fn(&mut Value);

pub fn of(group: &str, kind: &str) -> Default {
    match (group, kind) {
        ("storage.k8s.io", "CSIDriver") => csi_driver,
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            |o| webhooks(o, false)
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => |o| webhooks(o, true),
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy",
        ) => policy,
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => |o| {
            if let Some(matching) = map_at(spec(o), "matchResources") {
                match_resources(matching);
            }
        },
        ("apiregistration.k8s.io", "APIService") => |o| {
            if let Some(service) = map_at(spec(o), "service") {
                set(service, "port", 443);
            }
        },
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => |o| {
            let spec = spec(o);
            if spec.get("matchingPrecedence").is_none_or(|p| p == 0) {
                spec.insert("matchingPrecedence".to_owned(), json!(1000));
            }
        },
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => priority_level,
        ("resource.k8s.io", "ResourceClaim") => |o| claim_spec(spec(o)),
        ("resource.k8s.io", "ResourceClaimTemplate") => |o| {
            if let Some(inner) = map_at(spec(o), "spec") {
                claim_spec(inner);
            }
        },
        ("networking.k8s.io", "IngressClass") => |o| {
            if let Some(parameters) = map_at(spec(o), "parameters") {
                set(parameters, "scope", "Cluster");
            }
        },
        _ => |_| {},
    }
}

fn csi_driver(object: &mut Value) {
    let spec = spec(object);
    set(spec, "attachRequired", true);
    for flag in [
        "podInfoOnMount",
        "storageCapacity",
        "requiresRepublish",
        "seLinuxMount",
    ] {
        set(spec, flag, false);
    }
    set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec
        .get("volumeLifecycleModes")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}

fn webhooks(object: &mut Value, mutating: bool) {
    each(meta::as_map_mut(object), "webhooks", |webhook| {
        set(webhook, "failurePolicy", "Fail");
        set(webhook, "matchPolicy", "Equivalent");
        set(webhook, "namespaceSelector", json!({}));
        set(webhook, "objectSelector", json!({}));
        set(webhook, "timeoutSeconds", 10);
        if mutating {
            set(webhook, "reinvocationPolicy", "Never");
        }
        if let Some(service) = map_at(webhook, "clientConfig").and_then(|c| map_at(c, "service")) {
            set(service, "port", 443);
        }
        each(webhook, "rules", |rule| set(rule, "scope", "*"));
    });
}

fn policy(object: &mut Value) {
    let spec = spec(object);
    set(spec, "failurePolicy", "Fail");
    if let Some(matching) = map_at(spec, "matchConstraints") {
        match_resources(matching);
    }
}

fn match_resources(matching: &mut Map<String, Value>) {
    set(matching, "matchPolicy", "Equivalent");
    set(matching, "namespaceSelector", json!({}));
    set(matching, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        each(matching, rules, |rule| set(rule, "scope", "*"));
    }
}

fn priority_level(object: &mut Value) {
    let spec = spec(object);
    if let Some(exempt) = map_at(spec, "exempt") {
        set(exempt, "nominalConcurrencyShares", 0);
        set(exempt, "lendablePercent", 0);
    }
    let Some(limited) = map_at(spec, "limited") else {
        return;
    };
    set(limited, "nominalConcurrencyShares", 30);
    set(limited, "lendablePercent", 0);
    let Some(response) = map_at(limited, "limitResponse") else {
        return;
    };
    if let Some(queuing) = map_at(response, "queuing") {
        for (field, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            if queuing.get(field).is_none_or(|n| n == 0 || n.is_null()) {
                queuing.insert(field.to_owned(), json!(number));
            }
        }
    }
}

fn claim_spec(spec: &mut Map<String, Value>) {
    let Some(devices) = map_at(spec, "devices") else {
        return;
    };
    each(devices, "requests", |request| {
        if let Some(exactly) = map_at(request, "exactly") {
            wanted(exactly);
        }
        each(request, "firstAvailable", wanted);
    });
}

fn wanted(request: &mut Map<String, Value>) {
    set_text(request, "allocationMode", "ExactCount");
    let exact = request
        .get("allocationMode")
        .is_some_and(|mode| mode == "ExactCount");
    if exact && request.get("count").is_none_or(|n| n == 0 || n.is_null()) {
        request.insert("count".to_owned(), json!(1));
    }
    each(request, "tolerations", |toleration| {
        set_text(toleration, "operator", "Equal");
    });
}
