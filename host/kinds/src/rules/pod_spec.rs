//! A pod's spec, in pods and in templates.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::Value;

use super::affinity;
use super::container::{MAX_ID, Scope, containers, seccomp};
use super::metadata::{label_map, label_selector};
use super::names::{
    BAD_IP, dns_label, dns_subdomain, is_ip, label_value, qualified_name, search_domain,
};
use super::path::{Causes, Path, flag, items, list, some, text};
use super::volume::volumes;

const MAX_SEARCH_DOMAINS: usize = 32;
const MAX_NAMESERVERS: usize = 3;

/// Checks a pod spec. What templates may not say is checked by the kinds that have them.
pub fn pod_spec(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let names = volumes(out, spec, at);
    let scope = Scope {
        spec,
        volumes: names,
    };
    containers(out, &scope, at);
    let policy = text(spec, "restartPolicy");
    if policy.is_empty() {
        at.field("restartPolicy").required(out, "");
    } else {
        at.field("restartPolicy")
            .one_of(out, policy, &["Always", "Never", "OnFailure"]);
    }
    dns_policy(out, spec, at);
    label_map(out, spec.get("nodeSelector"), &at.field("nodeSelector"));
    security_context(out, spec, at);
    affinity::affinity(out, spec, &at.field("affinity"));
    dns_config(out, spec, &at.field("dnsConfig"));
    readiness_gates(out, spec, &at.field("readinessGates"));
    scheduling_gates(out, spec, &at.field("schedulingGates"));
    spread_constraints(out, spec, &at.field("topologySpreadConstraints"));
    windows(out, spec, at);
    let account = text(spec, "serviceAccountName");
    if !account.is_empty() {
        at.field("serviceAccountName")
            .all_invalid(out, account, dns_subdomain(account));
    }
    let node = text(spec, "nodeName");
    if !node.is_empty() {
        at.field("nodeName")
            .all_invalid(out, node, dns_subdomain(node));
    }
    if let Some(seconds) = some(spec, "activeDeadlineSeconds") {
        at.field("activeDeadlineSeconds")
            .between(out, Some(seconds), 1, i64::from(i32::MAX));
    }
    for field in ["hostname", "subdomain"] {
        let value = text(spec, field);
        if !value.is_empty() {
            at.field(field).all_invalid(out, value, dns_label(value));
        }
    }
    tolerations(out, spec, &at.field("tolerations"));
    host_aliases(out, spec, &at.field("hostAliases"));
    let class = text(spec, "priorityClassName");
    if !class.is_empty() {
        at.field("priorityClassName")
            .all_invalid(out, class, dns_subdomain(class));
    }
    let runtime = text(spec, "runtimeClassName");
    if !runtime.is_empty() {
        at.field("runtimeClassName")
            .all_invalid(out, runtime, dns_subdomain(runtime));
    }
    if let Some(policy) = some(spec, "preemptionPolicy").and_then(Value::as_str) {
        match policy {
            "" => at.field("preemptionPolicy").required(out, ""),
            policy => {
                at.field("preemptionPolicy").one_of(
                    out,
                    policy,
                    &["PreemptLowerPriority", "Never"],
                );
            }
        }
    }
    if let Some(overhead) = spec.get("overhead").and_then(Value::as_object) {
        let overhead_at = at.field("overhead");
        for (resource, value) in overhead {
            super::container::quantity(out, resource, value, &overhead_at.key(resource));
        }
    }
}

fn dns_policy(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let policy = text(spec, "dnsPolicy");
    if policy.is_empty() {
        at.field("dnsPolicy").required(out, "");
    } else {
        at.field("dnsPolicy").one_of(
            out,
            policy,
            &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
        );
    }
}

fn dns_config(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let config = some(spec, "dnsConfig");
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => at.required(out, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if list(config, "nameservers").is_empty() => {
                at.field("nameservers").required(
                    out,
                    "must provide at least one DNS nameserver when `dnsPolicy` is None",
                );
            }
            _ => {}
        }
    }
    let Some(config) = config else {
        return;
    };
    let servers = list(config, "nameservers");
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        at.field("nameservers")
            .invalid(out, &Value::Array(servers.to_vec()), &detail);
    }
    let list_at = at.field("nameservers");
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        if !is_ip(server) {
            list_at.index(i).invalid_text(out, server, BAD_IP);
        }
    }
    let searches = list(config, "searches");
    if searches.len() > MAX_SEARCH_DOMAINS {
        let detail = format!("must not have more than {MAX_SEARCH_DOMAINS} search paths");
        at.field("searches")
            .invalid(out, &Value::Array(searches.to_vec()), &detail);
    }
    let list_at = at.field("searches");
    for (i, domain) in searches.iter().filter_map(Value::as_str).enumerate() {
        if domain != "." || searches.len() > 1 || domain.is_empty() {
            // A final dot is fine.
            let name = domain.strip_suffix('.').filter(|n| !n.is_empty());
            let name = name.unwrap_or(domain);
            list_at.index(i).all_invalid(out, name, search_domain(name));
        }
    }
    let list_at = at.field("options");
    for (i, option) in items(config, "options") {
        if text(option, "name").is_empty() {
            list_at.index(i).required(out, "must not be empty");
        }
    }
}

fn security_context(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    if spec.get("hostUsers") == Some(&Value::Bool(false)) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if flag(spec, field) {
                at.field(field).forbidden(out, "when `hostUsers` is false");
            }
        }
    }
    let Some(context) = some(spec, "securityContext") else {
        return;
    };
    let at = at.field("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        at.field(field).between(out, context.get(field), 0, MAX_ID);
    }
    let groups_at = at.field("supplementalGroups");
    for (i, group) in items(context, "supplementalGroups") {
        groups_at.index(i).between(out, Some(group), 0, MAX_ID);
    }
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        at.field("shareProcessNamespace").invalid(
            out,
            &Value::Bool(true),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    seccomp(out, context, &at.field("seccompProfile"));
    if let Some(policy) = some(context, "fsGroupChangePolicy").and_then(Value::as_str) {
        at.field("fsGroupChangePolicy")
            .one_of(out, policy, &["Always", "OnRootMismatch"]);
    }
}

/// What Linux alone knows may not be asked of Windows.
fn windows(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let os = some(spec, "os");
    if let Some(os) = os {
        let os_at = at.field("os").field("name").to_string();
        let name = text(os, "name");
        if name.is_empty() {
            out.push(Cause::required(os_at, ""));
        } else if !matches!(name, "linux" | "windows") {
            out.push(Cause::not_supported(
                os_at,
                &Value::String(name.to_owned()),
                &["linux", "windows"],
            ));
        }
    }
    if os.is_none_or(|os| text(os, "name") != "windows") {
        return;
    }
    let Some(context) = some(spec, "securityContext") else {
        return;
    };
    let at = at.field("securityContext");
    let fields = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
    ];
    for field in fields {
        if some(context, field).is_some() {
            at.field(field)
                .forbidden(out, "cannot be set for a windows pod");
        }
    }
}

fn readiness_gates(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for (i, gate) in items(spec, "readinessGates") {
        let kind = text(gate, "conditionType");
        at.index(i)
            .field("conditionType")
            .all_invalid(out, kind, qualified_name(kind));
    }
}

fn scheduling_gates(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let mut seen = HashSet::new();
    for (i, gate) in items(spec, "schedulingGates") {
        let name = text(gate, "name");
        let item = at.index(i);
        item.all_invalid(out, name, qualified_name(name));
        if !seen.insert(name) {
            item.duplicate(out, name);
        }
    }
}

fn spread_constraints(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let constraints = list(spec, "topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let at = at.index(i);
        let skew = constraint
            .get("maxSkew")
            .and_then(Value::as_i64)
            .unwrap_or(0);
        if skew <= 0 {
            at.field("maxSkew")
                .invalid(out, &Value::from(skew), "must be greater than zero");
        }
        let key = text(constraint, "topologyKey");
        if key.is_empty() {
            at.field("topologyKey").required(out, "can not be empty");
        }
        let when = text(constraint, "whenUnsatisfiable");
        at.field("whenUnsatisfiable")
            .one_of(out, when, &["DoNotSchedule", "ScheduleAnyway"]);
        let pair = |c: &Value| {
            (
                text(c, "topologyKey").to_owned(),
                text(c, "whenUnsatisfiable").to_owned(),
            )
        };
        if constraints[i + 1..]
            .iter()
            .any(|other| pair(other) == pair(constraint))
        {
            let field = format!("{at}.{{topologyKey, whenUnsatisfiable}}");
            out.push(Cause::duplicate(
                field,
                &Value::String(format!("{{{key}, {when}}}")),
            ));
        }
        if let Some(domains) = some(constraint, "minDomains") {
            if domains.as_i64().is_some_and(|d| d <= 0) {
                at.field("minDomains")
                    .invalid(out, domains, "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                let detail = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
                );
                at.field("minDomains").invalid(out, domains, &detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = some(constraint, field).and_then(Value::as_str) {
                at.field(field).one_of(out, policy, &["Honor", "Ignore"]);
            }
        }
        label_selector(
            out,
            constraint.get("labelSelector"),
            &at.field("labelSelector"),
        );
    }
}

pub fn tolerations(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for (i, toleration) in items(spec, "tolerations") {
        let at = at.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            at.field("key").all_invalid(out, key, qualified_name(key));
        }
        if key.is_empty() && operator != "Exists" {
            at.field("operator").invalid_text(
                out,
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if some(toleration, "tolerationSeconds").is_some() && effect != "NoExecute" {
            at.field("effect").invalid_text(
                out,
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                let errors = label_value(value);
                if !errors.is_empty() {
                    at.field("operator")
                        .invalid_text(out, value, &errors.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    at.field("operator").invalid(
                        out,
                        toleration,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            other => at
                .field("operator")
                .unsupported(out, other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            at.field("effect").one_of(
                out,
                effect,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
    }
}

fn host_aliases(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for (i, alias) in items(spec, "hostAliases") {
        let at = at.index(i);
        if !is_ip(text(alias, "ip")) {
            at.field("ip").invalid_text(out, text(alias, "ip"), BAD_IP);
        }
        let list_at = at.field("hostnames");
        for (j, name) in items(alias, "hostnames") {
            let name = name.as_str().unwrap_or("");
            list_at.index(j).all_invalid(out, name, dns_subdomain(name));
        }
    }
}
