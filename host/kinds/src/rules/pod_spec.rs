//! A pod's spec, in pods and in templates.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::Value;

use super::affinity;
use super::container::{Scope, containers};
use super::metadata::{label_map, label_selector};
use super::names::{
    bad_ip, dns_label, dns_subdomain, is_ip, label_value, qualified_name, search_domain,
};
use super::path::{Causes, Path, flag, items, list, some, text};
use super::resources;
use super::security;
use super::volume::volumes;
use super::windows;

const MAX_SEARCH_DOMAINS: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
const MAX_NAMESERVERS: usize = 3;

/// Checks a pod spec. What templates may not say is checked by the kinds that have them.
/// `pod`: the pod that it belongs to, if it is not a template's.
pub fn pod_spec(out: &mut Causes, spec: &Value, pod: Option<&Value>, at: &Path<'_>) {
    if some(spec, "terminationGracePeriodSeconds").is_none() {
        at.field("terminationGracePeriodSeconds").required(out, "");
    }
    let scope = Scope {
        spec,
        volumes: volumes(out, spec, pod, at),
    };
    resource_claims(out, spec, &at.field("resourceClaims"));
    containers(out, &scope, at);
    resources::pod_level(out, spec, &at.field("resources"));
    host_network(out, spec, pod.is_some(), &at.field("containers"));
    let policy = text(spec, "restartPolicy");
    if policy.is_empty() {
        at.field("restartPolicy").required(out, "");
    } else {
        at.field("restartPolicy")
            .one_of(out, policy, &["Always", "Never", "OnFailure"]);
    }
    dns_policy(out, spec, at);
    label_map(out, spec.get("nodeSelector"), &at.field("nodeSelector"));
    security::pod(out, spec, &at.field("securityContext"));
    affinity::affinity(out, spec, &at.field("affinity"));
    dns_config(out, spec, &at.field("dnsConfig"));
    readiness_gates(out, spec, &at.field("readinessGates"));
    scheduling_gates(out, spec, &at.field("schedulingGates"));
    spread_constraints(out, spec, &at.field("topologySpreadConstraints"));
    windows::host_process(out, spec, at);
    host_users(out, spec, at);
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
    if let Some(overhead) = some(spec, "overhead") {
        let overhead = serde_json::json!({ "limits": overhead });
        overhead_of(out, &overhead, &at.field("overhead"));
    }
    hostname_override(out, spec, at);
    windows::operating_system(out, spec, at);
}

/// What the pod itself costs, besides its containers; told as if it were a container's limits.
fn overhead_of(out: &mut Causes, overhead: &Value, at: &Path<'_>) {
    let owner = resources::Owner::Container;
    resources::requirements(out, &Value::Null, overhead, owner, at);
}

/// Claims for devices: named, and from one place each.
fn resource_claims(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let mut names = HashSet::new();
    for (i, claim) in items(spec, "resourceClaims") {
        let at = at.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            at.field("name").required(out, "");
        } else if !names.insert(name) {
            at.field("name").duplicate(out, name);
        } else {
            at.field("name").all_invalid(out, name, dns_label(name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given: Vec<&str> = sources
            .into_iter()
            .filter(|s| some(claim, s).is_some())
            .collect();
        let detail = match given.len() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => {
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            }
        };
        if !detail.is_empty() {
            let shown = super::face::show("PodResourceClaim", claim);
            let message = format!("Invalid value: {shown}: {detail}");
            out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
        }
        for source in given {
            let value = text(claim, source);
            at.field(source)
                .all_invalid(out, value, dns_subdomain(value));
        }
    }
}

/// On the machine's own network, ports of the container are ports of the machine.
fn host_network(out: &mut Causes, spec: &Value, is_pod: bool, at: &Path<'_>) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    let number = |port: &Value, field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
    for (i, container) in items(spec, "containers") {
        let at = at.index(i);
        let ports_at = at.field("ports");
        for (j, port) in items(container, "ports") {
            let host = number(port, "hostPort");
            if (is_pod || host != 0) && host != number(port, "containerPort") {
                ports_at.index(j).field("hostPort").invalid(
                    out,
                    &Value::from(host),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

/// A pod with user ids of its own may not share what belongs to the machine's users.
fn host_users(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    if spec.get("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if flag(spec, field) {
            at.field(field).forbidden(out, "when `hostUsers` is false");
        }
    }
}

const MAX_HOSTNAME: usize = 64;

fn hostname_override(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(name) = some(spec, "hostnameOverride").and_then(Value::as_str) else {
        return;
    };
    let at_name = at.field("hostnameOverride");
    if flag(spec, "hostNetwork") {
        let detail = "may not be specified when hostNetwork is true";
        at_name.forbidden(out, detail);
    }
    if flag(spec, "setHostnameAsFQDN") {
        let detail = "may not be specified when setHostnameAsFQDN is true";
        at_name.forbidden(out, detail);
    }
    if name.is_empty() || name.len() > MAX_HOSTNAME {
        let detail = format!("must be no more than {MAX_HOSTNAME} characters");
        if name.len() > MAX_HOSTNAME {
            at_name.invalid_text(out, name, &detail);
        }
    }
    at_name.all_invalid(out, name, dns_subdomain(name));
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
                return;
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
            list_at.index(i).invalid_text(out, server, bad_ip(server));
        }
    }
    let searches = list(config, "searches");
    if searches.len() > MAX_SEARCH_DOMAINS {
        let detail = format!("must not have more than {MAX_SEARCH_DOMAINS} search paths");
        at.field("searches")
            .invalid(out, &Value::Array(searches.to_vec()), &detail);
    }
    let length: usize = searches
        .iter()
        .filter_map(Value::as_str)
        .map(str::len)
        .sum();
    if length + searches.len().saturating_sub(1) > MAX_SEARCH_CHARACTERS {
        let detail = format!(
            "must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        at.field("searches")
            .invalid(out, &Value::Array(searches.to_vec()), &detail);
    }
    let list_at = at.field("searches");
    for (i, domain) in searches.iter().filter_map(Value::as_str).enumerate() {
        if domain != "." {
            // A final dot is fine.
            let name = domain.strip_suffix('.').unwrap_or(domain);
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
        match_label_keys(out, constraint, &at.field("matchLabelKeys"));
        label_selector(
            out,
            constraint.get("labelSelector"),
            &at.field("labelSelector"),
        );
    }
}

/// Keys whose values are taken from the pod: they may not stand in the selector as well.
fn match_label_keys(out: &mut Causes, constraint: &Value, at: &Path<'_>) {
    let keys = list(constraint, "matchLabelKeys");
    if keys.is_empty() {
        return;
    }
    let selector = some(constraint, "labelSelector");
    if selector.is_none() {
        at.forbidden(out, "must not be specified when labelSelector is not set");
    }
    let selected = |key: &str| {
        selector.is_some_and(|s| {
            s["matchLabels"].get(key).is_some()
                || list(s, "matchExpressions")
                    .iter()
                    .any(|e| text(e, "key") == key)
        })
    };
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        let at = at.index(i);
        at.all_invalid(out, key, qualified_name(key));
        if selected(key) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            at.invalid_text(out, key, detail);
        }
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
                    at.field("operator").invalid_text(
                        out,
                        value,
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
            at.field("ip")
                .invalid_text(out, text(alias, "ip"), bad_ip(text(alias, "ip")));
        }
        let list_at = at.field("hostnames");
        for (j, name) in items(alias, "hostnames") {
            let name = name.as_str().unwrap_or("");
            list_at.index(j).all_invalid(out, name, dns_subdomain(name));
        }
    }
}
