//! Services, endpoints and endpoint slices. Which addresses and ports are free is the registry's affair.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::{Value, json};

use super::metadata::{label_map, meta_of, object_meta, object_meta_update, whole_meta_of};
use super::names::{BAD_CIDR, bad_ip, dns_label, dns_subdomain, is_cidr, is_ip, qualified_name};
use super::path::{Causes, Path, items, list, some, text};
use super::probe::port_or_name;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub fn service(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if let Some(old) = old {
        object_meta_update(out, new, old, 2);
        if old["status"] != new["status"] && old["spec"] == *spec {
            status(out, new);
            return std::mem::take(out);
        }
        update(out, spec, &old["spec"], &at);
    }
    object_meta(out, new, "", "Service");
    topology_annotations(out, new);
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        at.field("ports").required(out, "");
    }
    if is_headless(spec) && matches!(kind, "NodePort" | "LoadBalancer") {
        let detail = format!("may not be set to 'None' for {kind} services");
        at.field("clusterIPs")
            .index(0)
            .invalid_text(out, "None", &detail);
    }
    if kind == "ExternalName" {
        external_name(out, spec, &at);
    }
    let ports_at = at.field("ports");
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        service_port(out, port, &ports_at.index(i), ports.len() > 1, &mut names);
    }
    label_map(out, spec.get("selector"), &at.field("selector"));
    session_affinity(out, spec, &at);
    out.extend(service_addresses(spec));
    let ips_at = at.field("externalIPs");
    for (i, ip) in items(spec, "externalIPs") {
        let (ip, at) = (ip.as_str().unwrap_or(""), ips_at.index(i));
        if is_ip(ip) {
            special_ip(out, ip, &at);
        } else {
            at.invalid_text(out, ip, bad_ip(ip));
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
    if kind == "ClusterIP" {
        for (i, _) in ports
            .iter()
            .enumerate()
            .filter(|(_, port)| number(port, "nodePort") != 0)
        {
            ports_at
                .index(i)
                .field("nodePort")
                .forbidden(out, "may not be used when `type` is 'ClusterIP'");
        }
    }
    duplicates(out, ports, &ports_at);
    load_balancer(out, new, old, &at);
    traffic(out, spec, &at);
    std::mem::take(out)
}

fn number(object: &Value, field: &str) -> i64 {
    object.get(field).and_then(Value::as_i64).unwrap_or(0)
}

fn is_headless(spec: &Value) -> bool {
    matches!(list(spec, "clusterIPs"), [one] if one == "None")
}

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";

/// An annotation under its old and its new name must say one thing.
fn topology_annotations(out: &mut Causes, service: &Value) {
    let of = |key| oarlock_model::meta::annotation(service, key);
    if let (Some(hints), Some(mode)) = (of(HINTS), of(MODE))
        && hints != mode
    {
        let at = Path::new("metadata");
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        at.field("annotations")
            .key(MODE)
            .invalid_text(out, mode, &detail);
    }
}

fn external_name(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if some(spec, field).is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty())) {
            at.field(field)
                .forbidden(out, "may not be set for ExternalName services");
        }
    }
    let name = text(spec, "externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        at.field("externalName").required(out, "");
    } else {
        at.field("externalName")
            .all_invalid(out, name, dns_subdomain(name));
    }
}

fn session_affinity(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let affinity = text(spec, "sessionAffinity");
    if affinity.is_empty() {
        at.field("sessionAffinity").required(out, "");
    } else {
        at.field("sessionAffinity")
            .one_of(out, affinity, &["ClientIP", "None"]);
    }
    let at = at.field("sessionAffinityConfig");
    let config = some(spec, "sessionAffinityConfig");
    match (affinity, config) {
        ("ClientIP", config) => {
            let why = "when session affinity type is ClientIP";
            let client = config.and_then(|c| some(c, "clientIP"));
            let client_at = at.field("clientIP");
            let seconds_at = client_at.field("timeoutSeconds");
            match (
                config,
                client,
                client.and_then(|c| some(c, "timeoutSeconds")),
            ) {
                (None, ..) => at.required(out, why),
                (_, None, _) => client_at.required(out, why),
                (_, _, None) => seconds_at.required(out, why),
                (_, _, Some(seconds)) => {
                    if !seconds
                        .as_i64()
                        .is_some_and(|s| (1..=MAX_AFFINITY_SECONDS).contains(&s))
                    {
                        let detail =
                            format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                        seconds_at.invalid(out, seconds, &detail);
                    }
                }
            }
        }
        ("None", Some(_)) => {
            at.forbidden(out, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

/// A day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

/// What a spec says of its addresses and their families. Runs before addresses are handed out, and after.
pub fn service_addresses(spec: &Value) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    if text(spec, "type") == "ExternalName" {
        return Causes::new();
    }
    let at = Path::new("spec");
    let ips_at = at.field("clusterIPs");
    let ips = list(spec, "clusterIPs");
    let shown = Value::Array(ips.to_vec());
    match (text(spec, "clusterIP"), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            ips_at.invalid(
                out,
                &shown,
                "must be empty when `clusterIP` is not specified",
            );
        }
        (_, None) => ips_at.required(out, ""),
        (single, Some(first)) if first != single => {
            ips_at.invalid(out, &shown, "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families_at = at.field("ipFamilies");
    let families: Vec<&str> = list(spec, "ipFamilies")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for (i, family) in families.iter().enumerate() {
        let at = families_at.index(i);
        at.one_of(out, family, &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            at.duplicate(out, family);
        }
    }
    if let Some(policy) = some(spec, "ipFamilyPolicy").and_then(Value::as_str) {
        at.field("ipFamilyPolicy").one_of(
            out,
            policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
    let mut bad = false;
    for (i, ip) in ips.iter().enumerate() {
        let ip = ip.as_str().unwrap_or("");
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                bad = true;
                ips_at.invalid(out, &shown, "'None' must be the first and only value");
            }
        } else if !is_ip(ip) {
            bad = true;
            ips_at.index(i).invalid_text(out, ip, bad_ip(ip));
        }
    }
    if ips.len() > 2 {
        ips_at.invalid(out, &shown, "may only hold up to 2 values");
    }
    if bad {
        return std::mem::take(out);
    }
    let is_v6 = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
    if ips.len() > 1 && ips.iter().all(is_v6) == ips.iter().any(is_v6) {
        let detail = "may specify no more than one IP for each IP family";
        ips_at.invalid(out, &shown, detail);
    }
    if !is_headless(spec) {
        for (i, (ip, family)) in ips.iter().zip(&families).enumerate() {
            if (*family == "IPv4" && is_v6(ip)) || (*family == "IPv6" && !is_v6(ip)) {
                let detail =
                    format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                ips_at.index(i).invalid(out, ip, &detail);
            }
        }
    }
    std::mem::take(out)
}

/// Addresses that mean something else on every machine.
pub fn special_ip(out: &mut Causes, text: &str, at: &Path<'_>) {
    use std::net::IpAddr;
    let Ok(ip) = text.parse::<IpAddr>() else {
        at.invalid_text(out, text, "must be a valid IP address");
        return;
    };
    let ip = ip.to_canonical();
    let (link_local, link_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (
            ip.segments()[0] & 0xffc0 == 0xfe80,
            ip.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if ip.is_unspecified() {
        at.invalid_text(out, text, &format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        let detail = "may not be in the loopback range (127.0.0.0/8, ::1/128)";
        at.invalid_text(out, text, detail);
    }
    if link_local {
        let detail = "may not be in the link-local range (169.254.0.0/16, fe80::/10)";
        at.invalid_text(out, text, detail);
    }
    if link_multicast {
        let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
        at.invalid_text(out, text, detail);
    }
}

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";

fn load_balancer(out: &mut Causes, service: &Value, old: Option<&Value>, at: &Path<'_>) {
    let spec = &service["spec"];
    let balanced = text(spec, "type") == "LoadBalancer";
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // The field's name is misspelt upstream too.
        let ranges_at = at.field("LoadBalancerSourceRanges");
        if !balanced {
            ranges_at.forbidden(out, ONLY_BALANCED);
        }
        for (i, range) in ranges.iter().enumerate() {
            let range = range.as_str().unwrap_or("").trim();
            if !is_cidr(range) {
                ranges_at.index(i).invalid_text(out, range, BAD_CIDR);
            }
        }
    } else if let Some(ranges) = oarlock_model::meta::annotation(service, RANGES) {
        let at = Path::new("metadata");
        let at = at.field("annotations");
        let at = at.key(RANGES);
        if !balanced {
            at.forbidden(out, ONLY_BALANCED);
        }
        let ranges = ranges.trim();
        for range in ranges
            .split(',')
            .map(str::trim)
            .filter(|_| !ranges.is_empty())
        {
            if !is_cidr(range) {
                at.invalid_text(out, range, BAD_CIDR);
            }
        }
    }
    match (balanced, some(spec, "allocateLoadBalancerNodePorts")) {
        (false, Some(_)) => at
            .field("allocateLoadBalancerNodePorts")
            .forbidden(out, ONLY_BALANCED),
        (true, None) => Path::new("allocateLoadBalancerNodePorts").required(out, ""),
        _ => {}
    }
    if old.is_none() {
        balancer_class(out, spec, None, at);
    }
}

fn balancer_class(out: &mut Causes, spec: &Value, old: Option<&Value>, at: &Path<'_>) {
    let at = at.field("loadBalancerClass");
    let class = some(spec, "loadBalancerClass");
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if let Some(old) = old.filter(|old| balanced(old) && balanced(spec))
        && some(old, "loadBalancerClass") != class
    {
        let value = class.unwrap_or(&Value::Null);
        at.invalid(out, value, "may not change once set");
    }
    match class.and_then(Value::as_str) {
        Some(class) if balanced(spec) => at.all_invalid(out, class, qualified_name(class)),
        Some(_) => at.forbidden(out, ONLY_BALANCED),
        None => {}
    }
}

fn traffic(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let kind = text(spec, "type");
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !list(spec, "externalIPs").is_empty());
    let policy = text(spec, "externalTrafficPolicy");
    let at_policy = at.field("externalTrafficPolicy");
    match (external, policy) {
        (false, "") => {}
        (false, policy) => at_policy.invalid_text(
            out,
            policy,
            "may only be set for externally-accessible services",
        ),
        (true, "") => at_policy.required(out, ""),
        (true, policy) => {
            at_policy.one_of(out, policy, &["Cluster", "Local"]);
        }
    }
    let health_at = at.field("healthCheckNodePort");
    let health = spec
        .get("healthCheckNodePort")
        .filter(|n| n.as_i64() != Some(0) && !n.is_null());
    match (kind == "LoadBalancer" && policy == "Local", health) {
        (false, Some(port)) => health_at.invalid(
            out,
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (true, None) => health_at.required(out, ""),
        (true, port) => health_at.between(out, port, 1, 65535),
        (false, None) => {}
    }
    let internal_at = at.field("internalTrafficPolicy");
    match some(spec, "internalTrafficPolicy").and_then(Value::as_str) {
        None if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") => {
            internal_at.required(out, "");
        }
        None => {}
        Some(policy) => {
            internal_at.one_of(out, policy, &["Cluster", "Local"]);
        }
    }
    if let Some(distribution) = some(spec, "trafficDistribution").and_then(Value::as_str) {
        at.field("trafficDistribution").one_of(
            out,
            distribution,
            &["PreferClose", "PreferSameNode", "PreferSameZone"],
        );
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
    if let Some(protocol) = some(port, "appProtocol").and_then(Value::as_str) {
        at.field("appProtocol")
            .all_invalid(out, protocol, qualified_name(protocol));
    }
}

/// Two ports may not be the same port of the same protocol.
fn duplicates(out: &mut Causes, ports: &[Value], at: &Path<'_>) {
    let mut seen = HashSet::new();
    let mut node_ports = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let protocol = text(port, "protocol");
        let number = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        if number != 0 && !node_ports.insert((protocol, number)) {
            let at = at.index(i);
            out.push(Cause::duplicate(
                at.field("nodePort").to_string(),
                &json!(number),
            ));
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

/// What may not change of a Service that has addresses, and goes on having some.
fn update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if !external(new) && !external(old) {
        if !(is_headless(new) && is_headless(old)) {
            kept_list(out, new, old, at, "clusterIPs", "clusterIP");
        }
        if !is_headless(new) && !is_headless(old) {
            kept_list(out, new, old, at, "ipFamilies", "ipFamily");
        }
    }
    balancer_class(out, new, Some(old), at);
    let checked = |spec: &Value| {
        text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
    };
    if checked(new)
        && checked(old)
        && number(new, "healthCheckNodePort") != number(old, "healthCheckNodePort")
    {
        at.field("healthCheckNodePort")
            .forbidden(out, "field is immutable");
    }
}

/// The first address (or family) stays; the second may come, and go if the policy says so.
fn kept_list(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>, field: &str, one: &str) {
    let (now, before) = (list(new, field), list(old, field));
    let at_list = at.field(field);
    let shown = Value::Array(now.to_vec());
    let families = field == "ipFamilies";
    if now.len() == before.len() {
        for (i, _) in before.iter().enumerate().filter(|(i, b)| now[*i] != **b) {
            let at = at_list.index(if families { 0 } else { i });
            at.invalid(out, &shown, "may not change once set");
        }
        return;
    }
    if before.len() > now.len() && list(new, "clusterIPs").is_empty() {
        let value = if now.is_empty() {
            Value::Null
        } else {
            shown.clone()
        };
        at_list
            .index(0)
            .invalid(out, &value, &format!("primary {one} can not be unset"));
    }
    if let (Some(first), Some(other)) = (now.first(), before.first())
        && first != other
    {
        at_list
            .index(0)
            .invalid(out, &shown, "may not change once set");
    }
    if before.len() > now.len() && now.len() == 1 && text(new, "ipFamilyPolicy") != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        let policy = new.get("ipFamilyPolicy").unwrap_or(&Value::Null);
        at.field("ipFamilyPolicy").invalid(out, policy, &detail);
    }
}

/// What a balancer reports.
fn status(out: &mut Causes, service: &Value) {
    let at = Path::new("status");
    let at = at.field("loadBalancer");
    let ingress = list(&service["status"]["loadBalancer"], "ingress");
    let list_at = at.field("ingress");
    if text(&service["spec"], "type") != "LoadBalancer" && !ingress.is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        list_at.forbidden(out, detail);
        return;
    }
    for (i, one) in ingress.iter().enumerate() {
        let at = list_at.index(i);
        let ip = text(one, "ip");
        if !ip.is_empty() && !is_ip(ip) {
            at.field("ip").invalid_text(out, ip, bad_ip(ip));
        }
        let mode_at = at.field("ipMode");
        match some(one, "ipMode").and_then(Value::as_str) {
            None if !ip.is_empty() => mode_at.required(out, "must be specified when `ip` is set"),
            None => {}
            Some(_) if ip.is_empty() => {
                mode_at.forbidden(out, "may not be specified when `ip` is not set");
            }
            Some(mode) => {
                mode_at.one_of(out, mode, &["Proxy", "VIP"]);
            }
        }
        let host = text(one, "hostname");
        if !host.is_empty() {
            let at = at.field("hostname");
            at.all_invalid(out, host, dns_subdomain(host));
            if is_ip(host) {
                at.invalid_text(out, host, "must be a DNS name, not an IP address");
            }
        }
    }
}

pub fn endpoints(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    whole_meta_of(&mut out, new, old, "", "Endpoints");
    let at = Path::new("subsets");
    for (i, subset) in items(new, "subsets") {
        let at = at.index(i);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            at.required(&mut out, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let list_at = at.field(field);
            for (j, address) in items(subset, field) {
                endpoint_address(&mut out, address, &list_at.index(j));
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
            if let Some(protocol) = some(port, "appProtocol").and_then(Value::as_str) {
                at.field("appProtocol")
                    .all_invalid(&mut out, protocol, qualified_name(protocol));
            }
        }
    }
    out
}

fn endpoint_address(out: &mut Causes, address: &Value, at: &Path<'_>) {
    let ip = text(address, "ip");
    if !is_ip(ip) {
        at.field("ip").invalid_text(out, ip, bad_ip(ip));
    }
    let host = text(address, "hostname");
    if !host.is_empty() {
        at.field("hostname").all_invalid(out, host, dns_label(host));
    }
    if let Some(node) = some(address, "nodeName").and_then(Value::as_str) {
        at.field("nodeName")
            .all_invalid(out, node, dns_subdomain(node));
    }
    special_ip(out, ip, &at.field("ip"));
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
