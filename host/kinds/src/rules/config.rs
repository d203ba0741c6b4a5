//! Configuration and bookkeeping: config maps, secrets, leases, events, priority classes, budgets, access.

use base64::Engine as _;
use oarlock_model::{Cause, meta};
use serde_json::{Value, json};

use super::metadata::{label_selector, meta_of, object_meta, object_meta_update};
use super::names::{BAD_PERCENT, config_map_key, dns_subdomain, path_segment, percent};
use super::path::{Causes, Path, fields, flag, items, list, some, text};
use super::workload::unchanged;

/// All values of a config map or secret together.
const MAX_DATA_BYTES: usize = 1024 * 1024;

/// An object marked immutable keeps its data, and the mark.
fn immutable(out: &mut Causes, new: &Value, old: Option<&Value>, data: &[&str]) {
    let Some(old) = old.filter(|old| flag(old, "immutable")) else {
        return;
    };
    if !flag(new, "immutable") {
        Path::new("immutable").forbidden(out, "field is immutable when `immutable` is set");
    }
    for field in data {
        if new.get(field) != old.get(field) {
            Path::new(field).forbidden(out, "field is immutable when `immutable` is set");
        }
    }
}

pub fn config_map(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    if let Some(old) = old {
        object_meta_update(&mut out, new, old, 2);
    }
    immutable(&mut out, new, old, &["data", "binaryData"]);
    object_meta(&mut out, new, "", "ConfigMap");
    let mut size = 0;
    for (name, other) in [("data", "binaryData"), ("binaryData", "data")] {
        let at = Path::new(name);
        for (key, value) in fields(new, name) {
            at.key(key).all_invalid(&mut out, key, config_map_key(key));
            let both = new.get(other).is_some_and(|o| o.get(key).is_some());
            if both && name == "data" {
                at.key(key)
                    .invalid_text(&mut out, key, "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, |text| match name {
                "data" => text.len(),
                _ => decoded_length(text),
            });
        }
    }
    if size > MAX_DATA_BYTES {
        out.push(Cause::too_long("[]", MAX_DATA_BYTES));
    }
    out
}

/// How many bytes a text in base64 stands for.
fn decoded_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

pub fn secret(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    if let Some(old) = old {
        object_meta_update(out, new, old, 2);
    }
    let kind = text(new, "type");
    if let Some(old) = old {
        let before = text(old, "type");
        if kind != before && !before.is_empty() {
            Path::new("type").invalid_text(out, kind, "field is immutable");
        }
        immutable(out, new, Some(old), &["data"]);
    }
    object_meta(out, new, "", "Secret");
    let at = Path::new("data");
    let mut size = 0;
    for (key, value) in fields(new, "data") {
        at.key(key).all_invalid(out, key, config_map_key(key));
        size += value.as_str().map_or(0, decoded_length);
    }
    if size > MAX_DATA_BYTES {
        out.push(Cause::too_long("data", MAX_DATA_BYTES));
    }
    let has = |key: &str| new.get("data").is_some_and(|d| d.get(key).is_some());
    let json_in = |out: &mut Causes, key: &str| match new
        .get("data")
        .and_then(|d| d.get(key))
        .and_then(Value::as_str)
    {
        None => at.key(key).required(out, ""),
        Some(text) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap_or_default();
            if let Err(error) = serde_json::from_slice::<Value>(&bytes) {
                let cause = Cause::new(
                    "FieldValueInvalid",
                    at.key(key).to_string(),
                    format!("Invalid value: \"<secret contents redacted>\": {error}"),
                );
                out.push(cause);
            }
        }
    };
    match kind {
        "kubernetes.io/service-account-token"
            if meta::annotation(new, "kubernetes.io/service-account.name")
                .unwrap_or("")
                .is_empty() =>
        {
            let at = Path::new("metadata");
            at.field("annotations")
                .key("kubernetes.io/service-account.name")
                .required(out, "");
        }
        "kubernetes.io/dockercfg" => json_in(out, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_in(out, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            at.key("username").required(out, "");
            at.key("password").required(out, "");
        }
        "kubernetes.io/ssh-auth"
            if new["data"]["ssh-privatekey"]
                .as_str()
                .is_none_or(str::is_empty) =>
        {
            at.key("ssh-privatekey").required(out, "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    at.key(key).required(out, "");
                }
            }
        }
        _ => {}
    }
    std::mem::take(out)
}

pub fn lease(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "coordination.k8s.io", "Lease");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if let Some(seconds) =
        some(spec, "leaseDurationSeconds").filter(|s| s.as_i64().is_some_and(|s| s <= 0))
    {
        at.field("leaseDurationSeconds")
            .invalid(&mut out, seconds, "must be greater than 0");
    }
    at.field("leaseTransitions")
        .not_negative(&mut out, spec.get("leaseTransitions"));
    if some(spec, "preferredHolder").is_some() && text(spec, "strategy").is_empty() {
        at.field("preferredHolder")
            .forbidden(&mut out, "may only be specified if `strategy` is defined");
    }
    out
}

/// Events as they are stored (core/v1). Those made by the newer API have an event time and are checked more strictly.
pub fn event(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    let newer = meta::api_version(new) == "events.k8s.io/v1";
    let group = if newer { "events.k8s.io" } else { "" };
    meta_of(out, new, old, group, "Event");
    let regarding = if newer { "regarding" } else { "involvedObject" };
    let namespace = meta::namespace(new);
    let about = text(&new[regarding], "namespace");
    let fits = if about.is_empty() {
        namespace == "default"
    } else {
        about == namespace
    };
    if old.is_none() && !newer && !fits {
        Path::new("involvedObject").field("namespace").invalid_text(
            out,
            about,
            "does not match event.namespace",
        );
    }
    if let Some(old) = old.filter(|_| newer) {
        event_update(out, new, old);
    }
    if some(new, "eventTime").is_none() || !newer {
        return std::mem::take(out);
    }
    if old.is_none() {
        for (field, shown) in [
            ("reportingController", "reportingController"),
            ("reportingInstance", "reportingInstance"),
            ("action", "action"),
            ("reason", "reason"),
        ] {
            if text(new, field).is_empty() {
                Path::new(shown).required(out, "");
            }
        }
        let kind = text(new, "type");
        if !matches!(kind, "Normal" | "Warning") {
            Path::new("type").invalid_text(out, "", &format!("has invalid value: {kind}"));
        }
    }
    if let Some(series) = some(new, "series") {
        let at = Path::new("series");
        if series.get("count").and_then(Value::as_i64).unwrap_or(0) < 2 {
            at.field("count")
                .invalid_text(out, "", "should be at least 2");
        }
        if some(series, "lastObservedTime").is_none() {
            at.field("lastObservedTime").required(out, "");
        }
    }
    std::mem::take(out)
}

/// Of an event made by the newer API, only the series may change.
fn event_update(out: &mut Causes, new: &Value, old: &Value) {
    let fields = [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("reason", "reason"),
        ("note", "message"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
        ("action", "action"),
        ("type", "type"),
    ];
    for (field, shown) in fields {
        if new.get(field) == old.get(field) {
            continue;
        }
        let value = new.get(field).unwrap_or(&Value::Null);
        if value.is_object() {
            let part = |go: &str, name: &str| format!("{go:?}:{}", json!(text(value, name)));
            let parts = [
                part("Kind", "kind"),
                part("Namespace", "namespace"),
                part("Name", "name"),
                part("UID", "uid"),
                part("APIVersion", "apiVersion"),
                part("ResourceVersion", "resourceVersion"),
                part("FieldPath", "fieldPath"),
            ];
            let message = format!("Invalid value: {{{}}}: field is immutable", parts.join(","));
            out.push(Cause::new("FieldValueInvalid", shown, message));
        } else {
            Path::new(shown).invalid(out, value, "field is immutable");
        }
    }
}

pub fn priority_class(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "scheduling.k8s.io", "PriorityClass");
    let value = new.get("value").and_then(Value::as_i64).unwrap_or(0);
    let name = meta::name(new);
    if old.is_none() {
        let system = [
            ("system-node-critical", 2_000_001_000),
            ("system-cluster-critical", 2_000_000_000),
        ];
        if name.starts_with("system-") {
            if !system.contains(&(name, value)) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
                );
                out.push(Cause::forbidden("metadata.name", &detail));
            }
        } else if value > 1_000_000_000 {
            let detail = "maximum allowed value of a user defined priority is 1000000000";
            Path::new("value").forbidden(&mut out, detail);
        }
        let policy = text(new, "preemptionPolicy");
        if !policy.is_empty() {
            Path::new("preemptionPolicy").one_of(
                &mut out,
                policy,
                &["PreemptLowerPriority", "Never"],
            );
        }
    }
    if let Some(old) = old {
        if old.get("value") != new.get("value") {
            Path::new("value").forbidden(&mut out, "may not be changed in an update.");
        }
        Path::new("preemptionPolicy").same(
            &mut out,
            new.get("preemptionPolicy"),
            old.get("preemptionPolicy"),
        );
    }
    out
}

pub fn disruption_budget(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "policy", "PodDisruptionBudget");
    if unchanged(new, old) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let (least, most) = (some(spec, "minAvailable"), some(spec, "maxUnavailable"));
    if let (Some(least), Some(most)) = (least, most) {
        let go = |name: &str| some(spec, name).map_or("null".to_owned(), go_selector);
        let policy =
            some(spec, "unhealthyPodEvictionPolicy").map_or("null".to_owned(), Value::to_string);
        let shown = format!(
            "{{\"MinAvailable\":{least},\"Selector\":{},\"MaxUnavailable\":{most},\"UnhealthyPodEvictionPolicy\":{policy}}}",
            go("selector")
        );
        let message =
            format!("Invalid value: {shown}: minAvailable and maxUnavailable cannot be both set");
        out.push(Cause::new("FieldValueInvalid", "spec", message));
    }
    for (field, value) in [("minAvailable", least), ("maxUnavailable", most)] {
        let at = at.field(field);
        match value {
            Some(Value::String(text)) => match percent(text) {
                None => at.invalid_text(&mut out, text, BAD_PERCENT),
                Some(p) if p > 100 => {
                    at.invalid_text(&mut out, text, "must not be greater than 100%");
                }
                Some(_) => {}
            },
            number => at.not_negative(&mut out, number),
        }
    }
    label_selector(&mut out, spec.get("selector"), &at.field("selector"));
    if let Some(policy) = some(spec, "unhealthyPodEvictionPolicy").and_then(Value::as_str) {
        at.field("unhealthyPodEvictionPolicy").one_of(
            &mut out,
            policy,
            &["AlwaysAllow", "IfHealthyBudget"],
        );
    }
    out
}

/// A selector in the order of fields that the Go type has.
fn go_selector(selector: &Value) -> String {
    let part = |name: &str| some(selector, name).map(|v| format!("{name:?}:{v}"));
    let parts: Vec<String> = ["matchLabels", "matchExpressions"]
        .into_iter()
        .filter_map(part)
        .collect();
    format!("{{{}}}", parts.join(","))
}

pub fn role(new: &Value, old: Option<&Value>, kind: &str) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, RBAC, kind);
    let rules_at = Path::new("rules");
    for (i, rule) in items(new, "rules") {
        let at = rules_at.index(i);
        if list(rule, "verbs").is_empty() {
            at.field("verbs")
                .required(out, "verbs must contain at least one value");
        }
        let urls = list(rule, "nonResourceURLs");
        let resources = !list(rule, "apiGroups").is_empty()
            || !list(rule, "resources").is_empty()
            || !list(rule, "resourceNames").is_empty();
        if !urls.is_empty() {
            if kind == "Role" {
                at.field("nonResourceURLs").invalid(
                    out,
                    &rule["nonResourceURLs"],
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            if resources {
                at.field("nonResourceURLs").invalid(
                    out,
                    &rule["nonResourceURLs"],
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            at.field("apiGroups")
                .required(out, "resource rules must supply at least one api group");
        }
        if list(rule, "resources").is_empty() {
            at.field("resources")
                .required(out, "resource rules must supply at least one resource");
        }
    }
    if let Some(aggregation) = some(new, "aggregationRule") {
        let at = Path::new("aggregationRule");
        let list_at = at.field("clusterRoleSelectors");
        if list(aggregation, "clusterRoleSelectors").is_empty() {
            list_at.required(
                out,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
        for (i, selector) in items(aggregation, "clusterRoleSelectors") {
            label_selector(out, Some(selector), &list_at.index(i));
        }
    }
    std::mem::take(out)
}

const RBAC: &str = "rbac.authorization.k8s.io";

pub fn role_binding(new: &Value, old: Option<&Value>, kind: &str) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, RBAC, kind);
    let role = &new["roleRef"];
    let at = Path::new("roleRef");
    let group = text(role, "apiGroup");
    at.field("apiGroup").one_of(out, group, &[RBAC]);
    let kinds: &[&str] = if kind == "RoleBinding" {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    at.field("kind").one_of(out, text(role, "kind"), kinds);
    let name = text(role, "name");
    if name.is_empty() {
        at.field("name").required(out, "");
    } else {
        at.field("name").all_invalid(out, name, path_segment(name));
    }
    let list_at = Path::new("subjects");
    for (i, subject) in items(new, "subjects") {
        let at = list_at.index(i);
        let (kind_of, name, group) = (
            text(subject, "kind"),
            text(subject, "name"),
            text(subject, "apiGroup"),
        );
        if name.is_empty() {
            at.field("name").required(out, "");
        }
        match kind_of {
            "ServiceAccount" => {
                if !name.is_empty() {
                    at.field("name").all_invalid(out, name, dns_subdomain(name));
                }
                if !group.is_empty() {
                    at.field("apiGroup").unsupported(out, group, &[""]);
                }
                if text(subject, "namespace").is_empty() && kind == "ClusterRoleBinding" {
                    at.field("namespace").required(out, "");
                }
            }
            "User" | "Group" => {
                at.field("apiGroup").one_of(out, group, &[RBAC]);
            }
            other => at
                .field("kind")
                .unsupported(out, other, &["ServiceAccount", "User", "Group"]),
        }
    }
    if let Some(old) = old
        && old.get("roleRef") != new.get("roleRef")
    {
        let go = |field: &str| json!(text(role, field)).to_string();
        let shown = format!(
            "{{\"APIGroup\":{},\"Kind\":{},\"Name\":{}}}",
            go("apiGroup"),
            go("kind"),
            go("name")
        );
        out.push(Cause::new(
            "FieldValueInvalid",
            "roleRef",
            format!("Invalid value: {shown}: cannot change roleRef"),
        ));
    }
    std::mem::take(out)
}
