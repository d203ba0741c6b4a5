//! Ingresses and network policies.

use serde_json::{Value, json};

use super::metadata::{label_selector, meta_of};
use super::names::{BAD_CIDR, dns_subdomain, is_cidr, path_segment};
use super::path::{Causes, Path, items, list, some, text};
use super::probe::port_or_name;
use super::workload::unchanged;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub fn ingress(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "networking.k8s.io", "Ingress");
    if unchanged(new, old) {
        return std::mem::take(out);
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    if old.is_none()
        && let Some(annotated) = oarlock_model::meta::annotation(new, CLASS_ANNOTATION)
        && let Some(class) = some(spec, "ingressClassName").and_then(Value::as_str)
        && annotated != class
    {
        let detail = "must match `ingressClassName` when both are specified";
        Path::new("annotations")
            .field(CLASS_ANNOTATION)
            .invalid_text(out, annotated, detail);
    }
    if list(spec, "rules").is_empty() && some(spec, "defaultBackend").is_none() {
        at.invalid(
            out,
            &Value::Null,
            "either `defaultBackend` or `rules` must be specified",
        );
        if let Some(cause) = out.last_mut() {
            cause.message =
                "Invalid value: null: either `defaultBackend` or `rules` must be specified"
                    .to_owned();
        }
    }
    if let Some(value) = some(spec, "defaultBackend") {
        backend(out, value, &at.field("defaultBackend"));
    }
    let rules_at = at.field("rules");
    for (i, rule) in items(spec, "rules") {
        let at = rules_at.index(i);
        let host = text(rule, "host");
        if !host.is_empty() {
            let name = host.strip_prefix("*.").unwrap_or(host);
            at.field("host").all_invalid(out, host, dns_subdomain(name));
        }
        if let Some(http) = some(rule, "http") {
            let paths_at = at.field("http");
            let paths_at = paths_at.field("paths");
            if list(http, "paths").is_empty() {
                paths_at.required(out, "");
            }
            for (j, path) in items(http, "paths") {
                http_path(out, path, &paths_at.index(j));
            }
        }
    }
    let class = text(spec, "ingressClassName");
    if some(spec, "ingressClassName").is_some() {
        at.field("ingressClassName")
            .all_invalid(out, class, dns_subdomain(class));
    }
    std::mem::take(out)
}

fn http_path(out: &mut Causes, path: &Value, at: &Path<'_>) {
    let value = text(path, "path");
    match text(path, "pathType") {
        "" => at
            .field("pathType")
            .required(out, "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                at.field("path")
                    .invalid_text(out, value, "must be an absolute path");
            } else {
                for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                    if value.contains(bad) {
                        at.field("path").invalid_text(
                            out,
                            value,
                            &format!("must not contain '{bad}'"),
                        );
                    }
                }
                for bad in ["/..", "/."] {
                    if value.ends_with(bad) {
                        at.field("path").invalid_text(
                            out,
                            value,
                            &format!("cannot end with '{bad}'"),
                        );
                    }
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                at.field("path")
                    .invalid_text(out, value, "must be an absolute path");
            }
        }
        other => at.field("pathType").unsupported(
            out,
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    backend(out, &path["backend"], &at.field("backend"));
}

fn backend(out: &mut Causes, backend: &Value, at: &Path<'_>) {
    match (some(backend, "resource"), some(backend, "service")) {
        (Some(_), Some(_)) => {
            at.invalid_text(out, "", "cannot set both resource and service backends");
        }
        (None, None) => at.invalid_text(out, "", "resource or service backend is required"),
        (Some(resource), None) => {
            let at = at.field("resource");
            for field in ["kind", "name"] {
                let value = text(resource, field);
                if value.is_empty() {
                    at.field(field).required(out, "");
                } else {
                    at.field(field).all_invalid(out, value, path_segment(value));
                }
            }
        }
        (None, Some(service)) => {
            let at = at.field("service");
            let name = text(service, "name");
            if name.is_empty() {
                at.field("name").required(out, "");
            } else {
                at.field("name")
                    .all_invalid(out, name, super::names::dns_label(name));
            }
            let port = &service["port"];
            let (port_name, number) = (
                text(port, "name"),
                port.get("number").and_then(Value::as_i64).unwrap_or(0),
            );
            match (port_name, number) {
                ("", 0) => at.required(out, "port name or number is required"),
                ("", _) => {
                    at.field("port")
                        .field("number")
                        .between(out, port.get("number"), 1, 65535);
                }
                (_, 0) => port_or_name(
                    out,
                    Some(&json!(port_name)),
                    &at.field("port").field("name"),
                ),
                _ => at.invalid_text(out, "", "cannot set both port name & port number"),
            }
        }
    }
}

pub fn network_policy(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "networking.k8s.io", "NetworkPolicy");
    let (spec, at) = (&new["spec"], Path::new("spec"));
    label_selector(out, spec.get("podSelector"), &at.field("podSelector"));
    for (list_name, peers) in [("ingress", "from"), ("egress", "to")] {
        let list_at = at.field(list_name);
        for (i, rule) in items(spec, list_name) {
            let at = list_at.index(i);
            let ports_at = at.field("ports");
            for (j, port) in items(rule, "ports") {
                policy_port(out, port, &ports_at.index(j));
            }
            let peers_at = at.field(peers);
            for (j, peer) in items(rule, peers) {
                policy_peer(out, peer, &peers_at.index(j));
            }
        }
    }
    let types = list(spec, "policyTypes");
    let types_at = at.field("policyTypes");
    if types.len() > 2 {
        types_at.invalid(
            out,
            &spec["policyTypes"],
            "may not specify more than two policyTypes",
        );
    } else {
        for (i, kind) in types.iter().filter_map(Value::as_str).enumerate() {
            types_at.index(i).one_of(out, kind, &["Egress", "Ingress"]);
        }
    }
    std::mem::take(out)
}

fn policy_port(out: &mut Causes, port: &Value, at: &Path<'_>) {
    let protocol = text(port, "protocol");
    if !protocol.is_empty() {
        at.field("protocol")
            .one_of(out, protocol, &["TCP", "UDP", "SCTP"]);
    }
    let number = some(port, "port");
    port_or_name(out, number, &at.field("port"));
    if let Some(end) = some(port, "endPort") {
        let at = at.field("endPort");
        match number {
            None => at.required(out, "must be specified when endPort is specified"),
            Some(Value::String(_)) => {
                at.invalid(out, end, "may not be specified when `port` is non-numeric");
            }
            Some(first) => {
                if end.as_i64() < first.as_i64() {
                    at.invalid(out, end, "must be greater than or equal to `port`");
                }
                at.between(out, Some(end), 1, 65535);
            }
        }
    }
}

fn policy_peer(out: &mut Causes, peer: &Value, at: &Path<'_>) {
    let mut given = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if some(peer, field).is_some() {
            given += 1;
            label_selector(out, peer.get(field), &at.field(field));
        }
    }
    if let Some(block) = some(peer, "ipBlock") {
        given += 1;
        let block_at = at.field("ipBlock");
        let range = text(block, "cidr");
        if range.is_empty() {
            block_at.field("cidr").required(out, "");
        } else if !is_cidr(range) {
            block_at.field("cidr").invalid_text(out, range, BAD_CIDR);
        }
        let except_at = block_at.field("except");
        for (i, range) in items(block, "except") {
            let range = range.as_str().unwrap_or("");
            if !is_cidr(range) {
                except_at.index(i).invalid_text(out, range, BAD_CIDR);
            }
        }
        if given > 1 {
            at.forbidden(out, "may not specify both ipBlock and another peer");
        }
    }
    if given == 0 {
        at.required(out, "must specify a peer");
    }
}
