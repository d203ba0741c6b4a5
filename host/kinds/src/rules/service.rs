//! Services, endpoints and endpoint slices. Which addresses and ports are free is the registry's affair.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::{Value, json};

use super::container::port_or_name;
use super::metadata::{label_map, meta_of};
use super::names::{BAD_CIDR, BAD_IP, dns_label, dns_subdomain, is_cidr, is_ip};
use super::path::{Causes, Path, items, list, some, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub fn service(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "", "Service");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if let Some(old) = old {
        cluster_ip_update(out, spec, &old["spec"], &at);
    }
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None"
        || list(spec, "clusterIPs")
            .first()
            .is_some_and(|ip| ip == "None");
    let ports = list(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        at.field("ports").required(out, "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        at.field("clusterIPs")
            .index(0)
            .invalid_text(out, "None", &detail);
    }
    if kind == "ExternalName" {
        let name = text(spec, "externalName").trim_end_matches('.');
        if name.is_empty() {
            at.field("externalName").required(out, "");
        } else {
            at.field("externalName")
                .all_invalid(out, name, dns_subdomain(name));
        }
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if some(spec, field).is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty())) {
                at.field(field)
                    .forbidden(out, "may not be set for ExternalName services");
            }
        }
    }
    let ports_at = at.field("ports");
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        service_port(out, port, &ports_at.index(i), ports.len() > 1, &mut names);
    }
    label_map(out, spec.get("selector"), &at.field("selector"));
    match text(spec, "sessionAffinity") {
        "" => at.field("sessionAffinity").required(out, ""),
        affinity => {
            at.field("sessionAffinity")
                .one_of(out, affinity, &["ClientIP", "None"]);
        }
    }
    if text(spec, "sessionAffinity") == "ClientIP" {
        let seconds = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds");
        let at = at.field("sessionAffinityConfig");
        at.field("clientIP")
            .field("timeoutSeconds")
            .between(out, seconds, 1, 86_400);
    }
    let ips_at = at.field("externalIPs");
    for (i, ip) in items(spec, "externalIPs") {
        let ip = ip.as_str().unwrap_or("");
        if !is_ip(ip) {
            ips_at.index(i).invalid_text(out, ip, BAD_IP);
        }
    }
    if kind.is_empty() {
        at.field("type").required(out, "");
    } else {
        at.field("type").one_of(
            out,
            kind,
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
    }
    let node_ports = matches!(kind, "NodePort" | "LoadBalancer");
    for (i, port) in ports.iter().enumerate() {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0
            && !node_ports
            && matches!(kind, "ClusterIP")
        {
            ports_at
                .index(i)
                .field("nodePort")
                .forbidden(out, "may not be used when `type` is 'ClusterIP'");
        }
    }
    duplicates(out, ports, &ports_at);
    // The field's name is misspelt upstream too.
    let ranges_at = at.field("LoadBalancerSourceRanges");
    for (i, range) in items(spec, "loadBalancerSourceRanges") {
        let range = range.as_str().unwrap_or("").trim();
        if !is_cidr(range) {
            ranges_at.index(i).invalid_text(out, range, BAD_CIDR);
        }
    }
    traffic(out, spec, &at, node_ports);
    if kind != "LoadBalancer"
        && !list(&new["status"]["loadBalancer"], "ingress").is_empty()
        && old.is_some()
    {
        let status = Path::new("status");
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        if old.is_some_and(|o| o["status"] != new["status"]) {
            status
                .field("loadBalancer")
                .field("ingress")
                .forbidden(out, detail);
        }
    }
    std::mem::take(out)
}

fn traffic(out: &mut Causes, spec: &Value, at: &Path<'_>, node_ports: bool) {
    let external =
        node_ports || (text(spec, "type") == "ClusterIP" && !list(spec, "externalIPs").is_empty());
    let policy = text(spec, "externalTrafficPolicy");
    let at_policy = at.field("externalTrafficPolicy");
    if !external && !policy.is_empty() {
        at_policy.invalid_text(
            out,
            policy,
            "may only be set for externally-accessible services",
        );
    } else if external {
        match policy {
            "" => at_policy.required(out, ""),
            policy => {
                at_policy.one_of(out, policy, &["Cluster", "Local"]);
            }
        }
    }
    if let Some(policy) = some(spec, "internalTrafficPolicy").and_then(Value::as_str) {
        at.field("internalTrafficPolicy")
            .one_of(out, policy, &["Cluster", "Local"]);
    }
}

fn service_port<'a>(
    out: &mut Causes,
    port: &'a Value,
    at: &Path<'_>,
    named: bool,
    names: &mut HashSet<&'a str>,
) {
    let name = text(port, "name");
    if name.is_empty() {
        if named {
            at.field("name").required(out, "");
        }
    } else {
        at.field("name").all_invalid(out, name, dns_label(name));
        if !names.insert(name) {
            at.field("name").duplicate(out, name);
        }
    }
    let number = |field: &str| port.get(field).cloned().unwrap_or(json!(0));
    at.field("port")
        .between(out, Some(&number("port")), 1, 65535);
    match text(port, "protocol") {
        "" => at.field("protocol").required(out, ""),
        protocol => {
            at.field("protocol").one_of(out, protocol, &PROTOCOLS);
        }
    }
    port_or_name(out, Some(&number("targetPort")), &at.field("targetPort"));
}

/// Two ports may not be the same port of the same protocol.
fn duplicates(out: &mut Causes, ports: &[Value], at: &Path<'_>) {
    let mut seen = HashSet::new();
    let mut node_ports = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let protocol = text(port, "protocol");
        let number = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        if number != 0 && !node_ports.insert((protocol, number)) {
            at.index(i)
                .field("nodePort")
                .duplicate(out, &number.to_string());
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (
            text(port, "protocol"),
            port.get("port").and_then(Value::as_i64).unwrap_or(0),
        );
        if !seen.insert((protocol, number)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            let message = format!("Duplicate value: {shown}");
            out.push(Cause::new(
                "FieldValueDuplicate",
                at.index(i).to_string(),
                message,
            ));
        }
    }
}

fn cluster_ip_update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let assigned = |spec: &Value| {
        matches!(
            text(spec, "type"),
            "ClusterIP" | "NodePort" | "LoadBalancer"
        )
    };
    if !assigned(new) || !assigned(old) {
        return;
    }
    // An absent address is filled in from the old object.
    let first = |spec: &Value| {
        let listed = list(spec, "clusterIPs").first().and_then(Value::as_str);
        listed.unwrap_or_else(|| text(spec, "clusterIP")).to_owned()
    };
    let (before, now) = (first(old), first(new));
    if !before.is_empty() && !now.is_empty() && now != before {
        at.field("clusterIPs")
            .index(0)
            .invalid(out, &json!([now]), "may not change once set");
    }
}

pub fn endpoints(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "Endpoints");
    let at = Path::new("subsets");
    for (i, subset) in items(new, "subsets") {
        let at = at.index(i);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            at.required(&mut out, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let list_at = at.field(field);
            for (j, address) in items(subset, field) {
                let ip = text(address, "ip");
                if !is_ip(ip) {
                    let at = list_at.index(j);
                    at.field("ip").invalid_text(&mut out, ip, BAD_IP);
                    at.field("ip")
                        .invalid_text(&mut out, ip, "must be a valid IP address");
                }
            }
        }
        let ports = list(subset, "ports");
        let ports_at = at.field("ports");
        for (j, port) in ports.iter().enumerate() {
            let at = ports_at.index(j);
            let name = text(port, "name");
            if name.is_empty() {
                if ports.len() > 1 {
                    at.field("name").required(&mut out, "");
                }
            } else {
                at.field("name")
                    .all_invalid(&mut out, name, dns_label(name));
            }
            let number = port.get("port").cloned().unwrap_or(json!(0));
            at.field("port").between(&mut out, Some(&number), 1, 65535);
            match text(port, "protocol") {
                "" => at.field("protocol").required(&mut out, ""),
                protocol => {
                    at.field("protocol").one_of(&mut out, protocol, &PROTOCOLS);
                }
            }
        }
    }
    out
}

const MAX_ENDPOINT_ADDRESSES: usize = 100;
const MAX_ENDPOINTS: usize = 1000;

pub fn endpoint_slice(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "discovery.k8s.io", "EndpointSlice");
    let kind = text(new, "addressType");
    let kind_at = Path::new("addressType");
    if kind.is_empty() {
        kind_at.required(out, "");
    } else {
        kind_at.one_of(out, kind, &["FQDN", "IPv4", "IPv6"]);
    }
    let endpoints = list(new, "endpoints");
    let at = Path::new("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        out.push(Cause::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = at.index(i);
        let addresses = list(endpoint, "addresses");
        let list_at = at.field("addresses");
        if addresses.is_empty() {
            list_at.required(out, "must contain at least 1 address");
        } else if addresses.len() > MAX_ENDPOINT_ADDRESSES {
            out.push(Cause::too_many(
                list_at.to_string(),
                addresses.len(),
                MAX_ENDPOINT_ADDRESSES,
            ));
        }
        for (j, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            match kind {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    list_at
                        .index(j)
                        .invalid_text(out, address, "must be a valid IPv4 address");
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    list_at
                        .index(j)
                        .invalid_text(out, address, "must be a valid IPv6 address");
                }
                "FQDN" => list_at
                    .index(j)
                    .all_invalid(out, address, dns_subdomain(address)),
                _ => {}
            }
        }
        let host = text(endpoint, "hostname");
        if some(endpoint, "hostname").is_some() {
            at.field("hostname").all_invalid(out, host, dns_label(host));
        }
    }
    let at = Path::new("ports");
    let mut names = HashSet::new();
    for (i, port) in items(new, "ports") {
        let at = at.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            at.field("name").all_invalid(out, name, dns_label(name));
        }
        if !names.insert(name) {
            at.field("name").duplicate(out, name);
        }
        match text(port, "protocol") {
            "" => at.field("protocol").required(out, ""),
            protocol => {
                at.field("protocol").one_of(out, protocol, &PROTOCOLS);
            }
        }
    }
    if let Some(old) = old {
        kind_at.same(out, new.get("addressType"), old.get("addressType"));
    }
    std::mem::take(out)
}
