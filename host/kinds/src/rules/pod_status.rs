//! What a pod's status may say, and what may not change of it.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::Value;

use super::names::{bad_ip, dns_subdomain, is_ip, qualified_name};
use super::path::{Causes, Path, items, list, some, text};

pub fn update(out: &mut Causes, new: &Value, old: &Value) {
    // Upstream places conditions here, though they are in the status.
    let conditions_at = Path::new("metadata");
    let conditions_at = conditions_at.field("conditions");
    for (i, condition) in items(&new["status"], "conditions") {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let at = conditions_at.index(i);
            at.field("Type")
                .all_invalid(out, kind, qualified_name(kind));
        }
    }
    let (spec, status, before) = (&new["spec"], &new["status"], &old["status"]);
    let at = Path::new("status");
    let nominated = text(status, "nominatedNodeName");
    if nominated != text(before, "nominatedNodeName") && !nominated.is_empty() {
        at.field("nominatedNodeName")
            .all_invalid(out, nominated, dns_subdomain(nominated));
    }
    let class = text(status, "qosClass");
    if class != text(before, "qosClass") {
        at.field("qosClass")
            .invalid_text(out, class, "field is immutable");
    }
    // A write may see the status alone; then nothing in it depends on the rest.
    if !spec.is_null() {
        containers(out, new, old, &at);
    }
    addresses(out, status, "podIPs", &at.field("podIPs"));
    if let Some(first) = list(status, "hostIPs").first() {
        let at = at.field("hostIPs");
        let ip = text(first, "ip");
        if text(status, "hostIP") != ip {
            at.index(0)
                .field("ip")
                .invalid_text(out, ip, "must be equal to `hostIP`");
        }
        addresses(out, status, "hostIPs", &at);
    }
}

fn containers(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let (spec, status) = (&new["spec"], &new["status"]);
    let policy = text(spec, "restartPolicy");
    for (field, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        container_states(out, new, old, field, policy, &at.field(field));
    }
    claims(out, spec, status, &at.field("resourceClaimStatuses"));
}

/// A container that has ended for good does not run again.
fn container_states(
    out: &mut Causes,
    new: &Value,
    old: &Value,
    field: &str,
    policy: &str,
    at: &Path<'_>,
) {
    if policy == "Always" {
        return;
    }
    let sidecar = |name: &str| {
        field == "initContainerStatuses"
            && list(&old["spec"], "initContainers")
                .iter()
                .any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always")
    };
    for (i, before) in items(&old["status"], field) {
        let Some(ended) = some(&before["state"], "terminated") else {
            continue;
        };
        let name = text(before, "name");
        let failed = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0;
        if (failed && policy == "OnFailure") || sidecar(name) {
            continue;
        }
        let runs_again = list(&new["status"], field)
            .iter()
            .any(|now| text(now, "name") == name && some(&now["state"], "terminated").is_none());
        if runs_again {
            let detail = "may not be transitioned to non-terminated state";
            at.index(i).field("state").forbidden(out, detail);
        }
    }
}

fn claims(out: &mut Causes, spec: &Value, status: &Value, at: &Path<'_>) {
    let mut names = HashSet::new();
    for (i, claim) in items(status, "resourceClaimStatuses") {
        let item = at.index(i);
        let at = item.field("name");
        let name = text(claim, "name");
        if !list(spec, "resourceClaims")
            .iter()
            .any(|c| text(c, "name") == name)
        {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            at.invalid_text(out, name, detail);
        }
        if !names.insert(name) {
            at.duplicate(out, name);
        }
        if let Some(claim) = some(claim, "resourceClaimName").and_then(Value::as_str) {
            at.all_invalid(out, claim, dns_subdomain(claim));
        }
    }
}

/// At most one address of each family.
fn addresses(out: &mut Causes, status: &Value, field: &str, at: &Path<'_>) {
    let ips: Vec<&str> = list(status, field)
        .iter()
        .map(|ip| text(ip, "ip"))
        .collect();
    for (i, ip) in ips.iter().enumerate().filter(|(_, ip)| !is_ip(ip)) {
        at.index(i).invalid_text(out, ip, bad_ip(ip));
    }
    if ips.len() < 2 {
        return;
    }
    let show = |ip: &Value| super::face::show("PodIP", ip);
    let both = ips.iter().any(|ip| ip.contains(':')) && ips.iter().any(|ip| !ip.contains(':'));
    let mut refuse = |at: &Path<'_>, reason: &str, message: String| {
        out.push(Cause::new(reason, at.to_string(), message));
    };
    let many = |refuse: &mut dyn FnMut(&Path<'_>, &str, String)| {
        if !both || ips.len() > 2 {
            let all: Vec<String> = list(status, field).iter().map(show).collect();
            let message = format!(
                "Invalid value: [{}]: may specify no more than one IP for each IP family",
                all.join(",")
            );
            refuse(at, "FieldValueInvalid", message);
        }
    };
    let twice = |refuse: &mut dyn FnMut(&Path<'_>, &str, String)| {
        for (i, ip) in items(status, field) {
            if ips[..i].contains(&text(ip, "ip")) {
                let message = format!("Duplicate value: {}", show(ip));
                refuse(&at.index(i), "FieldValueDuplicate", message);
            }
        }
    };
    // Upstream looks at the two lists in different orders.
    if field == "podIPs" {
        many(&mut refuse);
        twice(&mut refuse);
    } else {
        twice(&mut refuse);
        many(&mut refuse);
    }
}
