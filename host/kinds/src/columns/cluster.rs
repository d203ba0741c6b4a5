//! Nodes, namespaces, networking, configuration, access and events.

use jiff::Timestamp;
use oarlock_model::meta;
use serde_json::{Value, json};

use super::cells::{
    NONE, UNKNOWN, UNSET, age, condition, flag, int, join, labels, list, load_balancer, name, or,
    selector, since, some_of, text,
};
use super::{AGE, Cells, NAME, col, wide};
use crate::Column;

/// Addresses, ports and hosts shown in one cell.
const MAX_SHOWN: usize = 3;

const NODE: &[Column] = &[
    NAME,
    col("Status", "string", "The status of the node"),
    col("Roles", "string", "The roles of the node"),
    AGE,
    col("Version", "string", ""),
    wide("Internal-IP", "string", ""),
    wide("External-IP", "string", ""),
    wide("OS-Image", "string", ""),
    wide("Kernel-Version", "string", ""),
    wide("Container-Runtime", "string", ""),
];
const NAMESPACE: &[Column] = &[
    NAME,
    col("Status", "string", "The status of the namespace"),
    AGE,
];
const NAME_AND_AGE: &[Column] = &[NAME, AGE];
const CONFIG_MAP: &[Column] = &[NAME, col("Data", "string", ""), AGE];
const SECRET: &[Column] = &[
    NAME,
    col("Type", "string", ""),
    col("Data", "string", ""),
    AGE,
];
const SERVICE: &[Column] = &[
    NAME,
    col("Type", "string", ""),
    col("Cluster-IP", "string", ""),
    col("External-IP", "string", ""),
    col("Port(s)", "string", ""),
    AGE,
    wide("Selector", "string", ""),
];
const ENDPOINTS: &[Column] = &[NAME, col("Endpoints", "string", ""), AGE];
const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    col("AddressType", "string", ""),
    col("Ports", "string", ""),
    col("Endpoints", "string", ""),
    AGE,
];
const INGRESS: &[Column] = &[
    NAME,
    col(
        "Class",
        "string",
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    col(
        "Hosts",
        "string",
        "Hosts that incoming requests are matched against before the ingress rule",
    ),
    col(
        "Address",
        "string",
        "Address is a list containing ingress points for the load-balancer",
    ),
    col("Ports", "string", "Ports of TLS configurations that open"),
    AGE,
];
const INGRESS_CLASS: &[Column] = &[
    NAME,
    col(
        "Controller",
        "string",
        "Controller that is responsible for handling this class",
    ),
    col(
        "Parameters",
        "string",
        "A reference to a resource with additional parameters",
    ),
    AGE,
];
const NETWORK_POLICY: &[Column] = &[NAME, col("Pod-Selector", "string", ""), AGE];
const ROLE_BINDING: &[Column] = &[
    NAME,
    col(
        "Role",
        "string",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    wide("Users", "string", "Users in the roleBinding"),
    wide("Groups", "string", "Groups in the roleBinding"),
    wide(
        "ServiceAccounts",
        "string",
        "ServiceAccounts in the roleBinding",
    ),
];
const CLUSTER_ROLE_BINDING: &[Column] = &[
    NAME,
    col(
        "Role",
        "string",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    wide("Users", "string", "Users in the clusterRoleBinding"),
    wide("Groups", "string", "Groups in the clusterRoleBinding"),
    wide(
        "ServiceAccounts",
        "string",
        "ServiceAccounts in the clusterRoleBinding",
    ),
];
const LEASE: &[Column] = &[NAME, col("Holder", "string", ""), AGE];
const EVENT: &[Column] = &[
    col("Last Seen", "string", ""),
    col("Type", "string", ""),
    col("Reason", "string", ""),
    col("Object", "string", ""),
    wide("Subobject", "string", ""),
    wide("Source", "string", ""),
    col("Message", "string", ""),
    wide("First Seen", "string", ""),
    wide("Count", "string", ""),
    Column {
        priority: 1,
        ..NAME
    },
];
const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    col(
        "Request",
        "string",
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    col(
        "Limit",
        "string",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    AGE,
];
const PRIORITY_CLASS: &[Column] = &[
    NAME,
    col("Value", "integer", ""),
    col("Global-Default", "boolean", ""),
    AGE,
    col("PreemptionPolicy", "string", ""),
];
const RUNTIME_CLASS: &[Column] = &[NAME, col("Handler", "string", ""), AGE];
const SERVICE_CIDR: &[Column] = &[NAME, col("CIDRs", "string", ""), AGE];
const IP_ADDRESS: &[Column] = &[NAME, col("ParentRef", "string", "")];
const WEBHOOKS: &[Column] = &[
    NAME,
    col(
        "Webhooks",
        "integer",
        "Webhooks indicates the number of webhooks defined in this configuration",
    ),
    AGE,
];
const CSR: &[Column] = &[
    NAME,
    AGE,
    col("SignerName", "string", ""),
    col("Requestor", "string", "Base64-encoded PKCS#10 CSR data"),
    col("RequestedDuration", "string", ""),
    col("Condition", "string", ""),
];

pub fn find(group: &str, kind: &str) -> Option<(&'static [Column], Cells)> {
    Some(match (group, kind) {
        ("", "Node") => (NODE, node),
        ("", "Namespace") => (NAMESPACE, |o, now| {
            vec![name(o), json!(text(o, "/status/phase")), age(o, now)]
        }),
        ("", "ServiceAccount") => (NAME_AND_AGE, |o, now| vec![name(o), age(o, now)]),
        ("", "ConfigMap") => (CONFIG_MAP, |o, now| {
            vec![
                name(o),
                json!(count(o, "data") + count(o, "binaryData")),
                age(o, now),
            ]
        }),
        ("", "Secret") => (SECRET, |o, now| {
            vec![
                name(o),
                json!(text(o, "/type")),
                json!(count(o, "data")),
                age(o, now),
            ]
        }),
        ("", "Service") => (SERVICE, service),
        ("", "Endpoints") => (ENDPOINTS, |o, now| {
            vec![name(o), json!(endpoints(o)), age(o, now)]
        }),
        ("discovery.k8s.io", "EndpointSlice") => (ENDPOINT_SLICE, endpoint_slice),
        ("networking.k8s.io", "Ingress") => (INGRESS, ingress),
        ("networking.k8s.io", "IngressClass") => (INGRESS_CLASS, ingress_class),
        ("networking.k8s.io", "NetworkPolicy") => (NETWORK_POLICY, |o, now| {
            vec![
                name(o),
                json!(selector(o.pointer("/spec/podSelector"))),
                age(o, now),
            ]
        }),
        ("networking.k8s.io", "ServiceCIDR") => (SERVICE_CIDR, |o, now| {
            let ranges: Vec<&str> = list(o, "/spec/cidrs")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            vec![name(o), json!(ranges.join(",")), age(o, now)]
        }),
        ("networking.k8s.io", "IPAddress") => (IP_ADDRESS, |o, _| {
            vec![name(o), json!(parent_ref(&o["spec"]["parentRef"]))]
        }),
        ("rbac.authorization.k8s.io", "RoleBinding") => (ROLE_BINDING, role_binding),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => (CLUSTER_ROLE_BINDING, role_binding),
        ("coordination.k8s.io", "Lease") => (LEASE, |o, now| {
            vec![name(o), json!(text(o, "/spec/holderIdentity")), age(o, now)]
        }),
        ("" | "events.k8s.io", "Event") => (EVENT, event),
        ("", "ResourceQuota") => (RESOURCE_QUOTA, resource_quota),
        ("scheduling.k8s.io", "PriorityClass") => (PRIORITY_CLASS, |o, now| {
            vec![
                name(o),
                json!(int(o, "/value")),
                json!(flag(o, "/globalDefault")),
                age(o, now),
                json!(text(o, "/preemptionPolicy")),
            ]
        }),
        ("node.k8s.io", "RuntimeClass") => (RUNTIME_CLASS, |o, now| {
            vec![name(o), json!(text(o, "/handler")), age(o, now)]
        }),
        (
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration",
        ) => (WEBHOOKS, |o, now| {
            vec![name(o), json!(list(o, "/webhooks").len()), age(o, now)]
        }),
        ("certificates.k8s.io", "CertificateSigningRequest") => (CSR, signing_request),
        ("resource.k8s.io", "DeviceClass" | "ResourceClaimTemplate") => {
            (NAME_AND_AGE, |o, now| vec![name(o), age(o, now)])
        }
        _ => return None,
    })
}

fn count(o: &Value, field: &str) -> usize {
    o.get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn node(o: &Value, now: Timestamp) -> Vec<Value> {
    let known = list(o, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "Ready");
    let mut status = match (known, condition(o, "Ready")) {
        (false, _) => "Unknown".to_owned(),
        (true, true) => "Ready".to_owned(),
        (true, false) => "NotReady".to_owned(),
    };
    if flag(o, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = meta::labels(o)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.as_str() {
            "kubernetes.io/role" => value.as_str().filter(|v| !v.is_empty()),
            key => key
                .strip_prefix("node-role.kubernetes.io/")
                .filter(|r| !r.is_empty()),
        })
        .collect();
    roles.sort_unstable();
    let address = |kind: &str| {
        let of_kind = list(o, "/status/addresses")
            .iter()
            .find(|a| text(a, "/type") == kind);
        json!(or(of_kind.map(|a| text(a, "/address")).unwrap_or(""), NONE))
    };
    let info = |field: &str| json!(or(text(&o["status"]["nodeInfo"], field), UNKNOWN));
    vec![
        name(o),
        json!(status),
        json!(or(&roles.join(","), NONE)),
        age(o, now),
        json!(text(o, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("/osImage"),
        info("/kernelVersion"),
        info("/containerRuntimeVersion"),
    ]
}

fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text(o, "/spec/type");
    let own: Vec<&str> = list(o, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let balancer = load_balancer(o);
    let external = match kind {
        "ClusterIP" | "NodePort" => or(&own.join(","), NONE).to_owned(),
        "LoadBalancer" => {
            let all: Vec<&str> = [balancer.as_str()]
                .into_iter()
                .filter(|b| !b.is_empty())
                .chain(own)
                .collect();
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(o, "/spec/externalName").to_owned(),
        _ => UNKNOWN.to_owned(),
    };
    let ports: Vec<String> = list(o, "/spec/ports")
        .iter()
        .map(|p| {
            let (port, node_port, protocol) =
                (int(p, "/port"), int(p, "/nodePort"), text(p, "/protocol"));
            if node_port > 0 {
                format!("{port}:{node_port}/{protocol}")
            } else {
                format!("{port}/{protocol}")
            }
        })
        .collect();
    vec![
        name(o),
        json!(kind),
        json!(or(
            list(o, "/spec/clusterIPs")
                .first()
                .and_then(Value::as_str)
                .unwrap_or(""),
            NONE
        )),
        json!(external),
        json!(or(&ports.join(","), NONE)),
        age(o, now),
        json!(labels(
            o.pointer("/spec/selector").and_then(Value::as_object)
        )),
    ]
}

fn endpoints(o: &Value) -> String {
    let subsets = list(o, "/subsets");
    if subsets.is_empty() {
        return NONE.to_owned();
    }
    let mut texts = Vec::new();
    for subset in subsets {
        let addresses = list(subset, "/addresses").iter().map(|a| text(a, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            texts.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in ports {
            for address in addresses.clone() {
                let host = if address.contains(':') {
                    format!("[{address}]")
                } else {
                    address.to_owned()
                };
                texts.push(format!("{host}:{}", int(port, "/port")));
            }
        }
    }
    some_of(&texts, MAX_SHOWN, "")
}

fn endpoint_slice(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(o, "/ports")
        .iter()
        .map(|p| match p.get("port").and_then(Value::as_i64) {
            Some(port) => port.to_string(),
            None => or(text(p, "/name"), "*").to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(o, "/endpoints")
        .iter()
        .flat_map(|e| list(e, "/addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![
        name(o),
        json!(text(o, "/addressType")),
        json!(some_of(&ports, MAX_SHOWN, UNSET)),
        json!(some_of(&addresses, MAX_SHOWN, UNSET)),
        age(o, now),
    ]
}

fn ingress(o: &Value, now: Timestamp) -> Vec<Value> {
    let hosts: Vec<String> = list(o, "/spec/rules")
        .iter()
        .map(|r| text(r, "/host").to_owned())
        .filter(|h| !h.is_empty())
        .collect();
    let ports = if list(o, "/spec/tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    vec![
        name(o),
        json!(or(text(o, "/spec/ingressClassName"), NONE)),
        json!(some_of(&hosts, MAX_SHOWN, "*")),
        json!(load_balancer(o)),
        json!(ports),
        age(o, now),
    ]
}

fn ingress_class(o: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match o.pointer("/spec/parameters") {
        Some(p) => {
            let (group, kind) = (text(p, "/apiGroup"), text(p, "/kind"));
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", text(p, "/name"))
        }
        None => NONE.to_owned(),
    };
    vec![
        name(o),
        json!(text(o, "/spec/controller")),
        json!(parameters),
        age(o, now),
    ]
}

/// `services/default/kubernetes`
fn parent_ref(parent: &Value) -> String {
    let parts = [
        text(parent, "/resource"),
        text(parent, "/group"),
        text(parent, "/namespace"),
        text(parent, "/name"),
    ];
    let [resource, group, namespace, name] = parts;
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{resource}{dot}{group}/{namespace}{slash}{name}")
}

fn role_binding(o: &Value, now: Timestamp) -> Vec<Value> {
    let of_kind = |kind: &str| -> Vec<Value> {
        list(o, "/subjects")
            .iter()
            .filter(|s| text(s, "/kind") == kind)
            .cloned()
            .collect()
    };
    let accounts: Vec<String> = of_kind("ServiceAccount")
        .iter()
        .map(|s| format!("{}/{}", text(s, "/namespace"), text(s, "/name")))
        .collect();
    vec![
        name(o),
        json!(format!(
            "{}/{}",
            text(o, "/roleRef/kind"),
            text(o, "/roleRef/name")
        )),
        age(o, now),
        json!(join(&of_kind("User"), "/name", ", ")),
        json!(join(&of_kind("Group"), "/name", ", ")),
        json!(accounts.join(", ")),
    ]
}

/// An event of either group: the same object under two sets of names.
fn event(o: &Value, now: Timestamp) -> Vec<Value> {
    let either = |a: &str, b: &str| -> String { or(text(o, a), text(o, b)).to_owned() };
    let first = either("/firstTimestamp", "/deprecatedFirstTimestamp");
    let first = or(&first, text(o, "/eventTime")).to_owned();
    let last = either("/lastTimestamp", "/deprecatedLastTimestamp");
    let mut last = or(&last, &first).to_owned();
    let mut times = int(o, "/count").max(int(o, "/deprecatedCount"));
    if let Some(series) = o.get("series").filter(|s| s.is_object()) {
        last = text(series, "/lastObservedTime").to_owned();
        times = int(series, "/count");
    } else if times == 0 {
        times = 1;
    }
    let about = o
        .get("involvedObject")
        .or_else(|| o.get("regarding"))
        .cloned()
        .unwrap_or_default();
    let component = either("/source/component", "/deprecatedSource/component");
    let component = or(
        &component,
        &either("/reportingComponent", "/reportingController"),
    )
    .to_owned();
    let host = either("/source/host", "/deprecatedSource/host");
    let host = or(&host, text(o, "/reportingInstance")).to_owned();
    let source = if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    };
    vec![
        json!(since(&last, now)),
        json!(text(o, "/type")),
        json!(text(o, "/reason")),
        json!(format!(
            "{}/{}",
            text(&about, "/kind").to_lowercase(),
            text(&about, "/name")
        )),
        json!(text(&about, "/fieldPath")),
        json!(source),
        json!(either("/message", "/note").trim()),
        json!(since(&first, now)),
        json!(times),
        name(o),
    ]
}

fn resource_quota(o: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in o
        .pointer("/status/hard")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let used = o
            .pointer("/status/used")
            .and_then(|u| u.get(resource))
            .and_then(Value::as_str)
            .unwrap_or("0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"));
        if resource.starts_with("limits") {
            &mut limits
        } else {
            &mut requests
        }
        .push(text);
    }
    vec![
        name(o),
        json!(requests.join(", ")),
        json!(limits.join(", ")),
        age(o, now),
    ]
}

fn signing_request(o: &Value, now: Timestamp) -> Vec<Value> {
    let has = |kind: &str| {
        list(o, "/status/conditions")
            .iter()
            .any(|c| text(c, "/type") == kind)
    };
    let mut status = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(o, "/status/certificate").is_empty() {
        status.push_str(",Issued");
    }
    let duration = match int(o, "/spec/expirationSeconds") {
        0 => NONE.to_owned(),
        seconds => oarlock_model::time::human_duration(seconds),
    };
    vec![
        name(o),
        age(o, now),
        json!(or(text(o, "/spec/signerName"), NONE)),
        json!(text(o, "/spec/username")),
        json!(duration),
        json!(status),
    ]
}
