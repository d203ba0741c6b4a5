//! Containers: images, ports, environment, resources, mounts, probes and hooks.

use std::collections::HashSet;

use oarlock_model::{Cause, Quantity};
use serde_json::Value;

use super::names::{config_map_key, dns_label, env_name, port_name, qualified_name};
use super::path::{Causes, Path, fields, flag, items, list, some, text};

/// What the containers of one pod spec share.
pub struct Scope<'a> {
    pub spec: &'a Value,
    pub volumes: HashSet<&'a str>,
}

pub fn containers(out: &mut Causes, scope: &Scope<'_>, at: &Path<'_>) {
    let mut names = HashSet::new();
    let list_at = at.field("containers");
    if list(scope.spec, "containers").is_empty() {
        list_at.required(out, "");
    }
    for (i, one) in items(scope.spec, "containers") {
        let at = list_at.index(i);
        container(out, scope, one, &at, false, &mut names);
        resize_policies(out, scope, one, &at);
    }
    host_ports(out, list(scope.spec, "containers"), &list_at);
    let list_at = at.field("initContainers");
    for (i, one) in items(scope.spec, "initContainers") {
        let at = list_at.index(i);
        container(out, scope, one, &at, true, &mut names);
        resize_policies(out, scope, one, &at);
    }
}

fn container<'a>(
    out: &mut Causes,
    scope: &Scope<'_>,
    one: &'a Value,
    at: &Path<'_>,
    init: bool,
    names: &mut HashSet<&'a str>,
) {
    let name = text(one, "name");
    if name.is_empty() {
        at.field("name").required(out, "");
    } else {
        at.field("name").all_invalid(out, name, dns_label(name));
        if !names.insert(name) {
            at.field("name").duplicate(out, name);
        }
    }
    let image = text(one, "image");
    if image.is_empty() {
        at.field("image").required(out, "");
    }
    let restart = text(one, "restartPolicy");
    let sidecar = restart == "Always";
    if init && some(one, "restartPolicy").is_some() {
        at.field("restartPolicy")
            .one_of(out, restart, &["Always", "Never", "OnFailure"]);
    }
    lifecycle(out, one, at, init && !sidecar);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = some(one, name) {
            let at = at.field(name);
            if init && !sidecar {
                at.forbidden(
                    out,
                    "may not be set for init containers without restartPolicy=Always",
                );
            } else {
                probe(
                    out,
                    value,
                    &at,
                    name == "livenessProbe" || name == "startupProbe",
                );
            }
        }
    }
    if let Some(policy) = one.get("terminationMessagePolicy").and_then(Value::as_str) {
        at.field("terminationMessagePolicy").one_of(
            out,
            policy,
            &["FallbackToLogsOnError", "File"],
        );
    }
    ports(out, one, &at.field("ports"));
    environment(out, one, at);
    mounts(out, scope, one, &at.field("volumeMounts"));
    if let Some(policy) = one
        .get("imagePullPolicy")
        .and_then(Value::as_str)
        .filter(|p| !p.is_empty())
    {
        at.field("imagePullPolicy")
            .one_of(out, policy, &["Always", "IfNotPresent", "Never"]);
    }
    if let Some(resources_value) = some(one, "resources") {
        resources(out, scope, resources_value, &at.field("resources"));
    }
    security_context(out, one, &at.field("securityContext"));
}

fn resize_policies(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let at = at.field("resizePolicy");
    let never = text(scope.spec, "restartPolicy") == "Never";
    let mut seen = HashSet::new();
    for (i, policy) in items(one, "resizePolicy") {
        let resource = text(policy, "resourceName");
        if !seen.insert(resource) {
            at.index(i).duplicate(out, resource);
        }
        at.one_of(out, resource, &["cpu", "memory"]);
        let restart = text(policy, "restartPolicy");
        at.one_of(out, restart, &["NotRequired", "RestartContainer"]);
        if never && restart != "NotRequired" {
            at.invalid_text(
                out,
                restart,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            );
        }
    }
}

fn ports(out: &mut Causes, one: &Value, at: &Path<'_>) {
    let mut names = HashSet::new();
    for (i, port) in items(one, "ports") {
        let at = at.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let errors = port_name(name);
            if errors.is_empty() {
                if !names.insert(name) {
                    at.field("name").duplicate(out, name);
                }
            } else {
                at.field("name").all_invalid(out, name, errors);
            }
        }
        match port
            .get("containerPort")
            .and_then(Value::as_i64)
            .unwrap_or(0)
        {
            0 => at.field("containerPort").required(out, ""),
            _ => at
                .field("containerPort")
                .between(out, port.get("containerPort"), 1, 65535),
        }
        if port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            at.field("hostPort")
                .between(out, port.get("hostPort"), 1, 65535);
        }
        match text(port, "protocol") {
            "" => at.field("protocol").required(out, ""),
            protocol => {
                at.field("protocol")
                    .one_of(out, protocol, &["SCTP", "TCP", "UDP"]);
            }
        }
    }
}

fn host_ports(out: &mut Causes, containers: &[Value], at: &Path<'_>) {
    let mut seen = HashSet::new();
    for (i, one) in containers.iter().enumerate() {
        for (j, port) in items(one, "ports") {
            let number = port.get("hostPort").and_then(Value::as_i64).unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{number}",
                text(port, "protocol"),
                text(port, "hostIP")
            );
            if !seen.insert(key.clone()) {
                at.index(i)
                    .field("ports")
                    .index(j)
                    .field("hostPort")
                    .duplicate(out, &key);
            }
        }
    }
}

fn environment(out: &mut Causes, one: &Value, container: &Path<'_>) {
    let at = container.field("env");
    for (i, variable) in items(one, "env") {
        let at = at.index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            at.field("name").required(out, "");
        } else {
            at.field("name").all_invalid(out, name, env_name(name));
        }
        let Some(source) = some(variable, "valueFrom") else {
            continue;
        };
        let from = at.field("valueFrom");
        let kinds = [
            "fieldRef",
            "resourceFieldRef",
            "configMapKeyRef",
            "secretKeyRef",
            "fileKeyRef",
        ];
        let present: Vec<&str> = kinds
            .into_iter()
            .filter(|k| some(source, k).is_some())
            .collect();
        for kind in &present {
            env_source(out, &source[*kind], kind, &from.field(kind));
        }
        if present.is_empty() {
            from.invalid_text(
                out,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            );
        } else if !text(variable, "value").is_empty() {
            from.invalid_text(out, "", "may not be specified when `value` is not empty");
        } else if present.len() > 1 {
            from.invalid_text(
                out,
                "",
                "may not have more than one field specified at a time",
            );
        }
    }
    let at = container.field("envFrom");
    for source in list(one, "envFrom") {
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            at.field("prefix")
                .all_invalid(out, prefix, env_name(prefix));
        }
        let named: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|k| some(source, k).is_some())
            .collect();
        for kind in &named {
            if text(&source[*kind], "name").is_empty() {
                at.field(kind).field("name").required(out, "");
            }
        }
        match named.len() {
            0 => at.invalid_text(
                out,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            ),
            1 => {}
            _ => at.invalid_text(
                out,
                "",
                "may not have more than one field specified at a time",
            ),
        }
    }
}

const FIELD_PATHS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn env_source(out: &mut Causes, source: &Value, kind: &str, at: &Path<'_>) {
    match kind {
        "fieldRef" => field_ref(out, source, at, &FIELD_PATHS),
        "resourceFieldRef" => {
            if text(source, "resource").is_empty() {
                at.field("resource").required(out, "");
            }
        }
        _ => {
            if text(source, "name").is_empty() {
                at.field("name").required(out, "");
            }
            let key = text(source, "key");
            if key.is_empty() {
                at.field("key").required(out, "");
            } else {
                at.field("key").all_invalid(out, key, config_map_key(key));
            }
        }
    }
}

/// A reference to a field of the pod: `metadata.name`, `metadata.labels['a']`.
pub fn field_ref(out: &mut Causes, source: &Value, at: &Path<'_>, allowed: &[&str]) {
    if text(source, "apiVersion").is_empty() {
        at.field("apiVersion").required(out, "");
        return;
    }
    let path = text(source, "fieldPath");
    if path.is_empty() {
        at.field("fieldPath").required(out, "");
        return;
    }
    let subscript = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            at.all_invalid(out, &key, qualified_name(&key));
        }

        Some(("metadata.labels", key)) => at.all_invalid(out, key, qualified_name(key)),
        Some((path, _)) => at.invalid_text(out, path, "does not support subscript"),
        None => {
            at.field("fieldPath").one_of(out, path, allowed);
        }
    }
}

fn mounts(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let privileged = flag(&one["securityContext"], "privileged");
    let mut paths = HashSet::new();
    for (i, mount) in items(one, "volumeMounts") {
        let item = at.index(i);
        let name = text(mount, "name");
        if name.is_empty() {
            item.field("name").required(out, "");
        }
        if !scope.volumes.contains(name) {
            item.field("name").not_found(out, name);
        }
        let path = text(mount, "mountPath");
        if path.is_empty() {
            item.field("mountPath").required(out, "");
        }
        if !paths.insert(path) {
            item.field("mountPath")
                .invalid_text(out, path, "must be unique");
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        local_path(out, sub, &at.field("subPath"));
        if !expression.is_empty() {
            if !sub.is_empty() {
                item.field("subPathExpr").invalid_text(
                    out,
                    expression,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            local_path(out, expression, &at.field("subPathExpr"));
        }
        if let Some(propagation) = some(mount, "mountPropagation").and_then(Value::as_str) {
            let at = at.field("mountPropagation");
            let known = at.one_of(
                out,
                propagation,
                &["Bidirectional", "HostToContainer", "None"],
            );
            if known && propagation == "Bidirectional" && !privileged {
                at.forbidden(
                    out,
                    "Bidirectional mount propagation is available only to privileged containers",
                );
            }
        }
    }
}

/// A path inside a volume: relative, and never upwards.
pub fn local_path(out: &mut Causes, path: &str, at: &Path<'_>) {
    if path.starts_with('/') {
        at.invalid_text(out, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        at.invalid_text(out, path, "must not contain '..'");
    }
}

/// True for resources of the cluster itself.
fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

fn is_standard(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage" | "storage")
        || resource.starts_with("hugepages-")
}

fn resources(out: &mut Causes, scope: &Scope<'_>, resources: &Value, at: &Path<'_>) {
    let amount = |list: &str, resource: &str| {
        resources
            .get(list)?
            .get(resource)
            .and_then(|v| Quantity::from_json(v).ok())
    };
    let mut huge = false;
    let mut basic = false;
    for list in ["limits", "requests"] {
        let list_at = at.field(list);
        for (resource, value) in fields(resources, list) {
            let item = list_at.key(resource);
            resource_name(out, resource, &item);
            quantity(out, resource, value, &item);
            huge |= resource.starts_with("hugepages-");
            basic |= matches!(resource.as_str(), "cpu" | "memory");
            if list == "requests"
                && let Some(limit) = amount("limits", resource)
                && let Some(request) = amount("requests", resource)
            {
                let exact = resource.starts_with("hugepages-") || !is_native(resource);
                let limit_text = limit.to_string();
                if exact && request != limit {
                    let detail = format!("must be equal to {resource} limit of {limit_text}");
                    list_at.invalid_text(out, &request.to_string(), &detail);
                } else if !exact && request > limit {
                    let detail =
                        format!("must be less than or equal to {resource} limit of {limit_text}");
                    list_at.invalid_text(out, &request.to_string(), &detail);
                }
            } else if list == "requests"
                && (resource.starts_with("hugepages-") || !is_native(resource))
            {
                at.field("limits")
                    .required(out, "Limit must be set for non overcommitable resources");
            }
        }
    }
    if huge && !basic {
        at.forbidden(out, "HugePages require cpu or memory");
    }
    let claims: HashSet<&str> = list(scope.spec, "resourceClaims")
        .iter()
        .map(|c| text(c, "name"))
        .collect();
    for (i, claim) in items(resources, "claims") {
        let name = text(claim, "name");
        let claim_at = at.field("claims");
        let item = claim_at.index(i);
        if name.is_empty() {
            item.required(out, "");
        } else if !claims.contains(name) {
            let why = if claims.is_empty() {
                " which is empty".to_owned()
            } else {
                String::new()
            };
            let message = format!(
                "Not found: {name:?}: must be one of the names in pod.spec.resourceClaims{why}"
            );
            out.push(Cause::new("FieldValueNotFound", item.to_string(), message));
        }
    }
}

fn resource_name(out: &mut Causes, resource: &str, at: &Path<'_>) {
    let errors = qualified_name(resource);
    if !errors.is_empty() {
        at.all_invalid(out, resource, errors);
    } else if !resource.contains('/') && !is_standard(resource) {
        at.invalid_text(
            out,
            resource,
            "must be a standard resource type or fully qualified",
        );
        at.invalid_text(out, resource, "must be a standard resource for containers");
    }
}

/// An amount of a resource: not negative, and whole unless the resource is one of the divisible ones.
pub fn quantity(out: &mut Causes, resource: &str, value: &Value, at: &Path<'_>) {
    let Ok(amount) = Quantity::from_json(value) else {
        return;
    };
    if amount.is_negative() {
        at.invalid(out, value, "must be greater than or equal to 0");
    }
    let whole = !is_standard(resource) || resource.starts_with("hugepages-");
    if whole && !amount.is_integer() {
        at.invalid(out, value, "must be an integer");
    }
}

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

fn lifecycle(out: &mut Causes, one: &Value, at: &Path<'_>, forbidden: bool) {
    let Some(lifecycle) = some(one, "lifecycle") else {
        return;
    };
    let at = at.field("lifecycle");
    if forbidden {
        at.forbidden(
            out,
            "may not be set for init containers without restartPolicy=Always",
        );
        return;
    }
    for name in ["postStart", "preStop"] {
        if let Some(value) = some(lifecycle, name) {
            handler(out, value, &at.field(name));
        }
    }
}

fn handler(out: &mut Causes, value: &Value, at: &Path<'_>) {
    let mut first = true;
    for kind in HANDLERS {
        let Some(action) = some(value, kind) else {
            continue;
        };
        let at = at.field(kind);
        if !std::mem::take(&mut first) {
            at.forbidden(out, "may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" if list(action, "command").is_empty() => {
                at.field("command").required(out, "");
            }
            "httpGet" => {
                if text(action, "path").is_empty() {
                    at.field("path").required(out, "");
                }
                port_or_name(out, action.get("port"), &at.field("port"));
                at.field("scheme")
                    .one_of(out, text(action, "scheme"), &["HTTP", "HTTPS"]);
                for header in list(action, "httpHeaders") {
                    let name = text(header, "name");
                    if name.is_empty()
                        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                    {
                        let detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                        at.field("httpHeaders").invalid_text(out, name, detail);
                    }
                }
            }
            "tcpSocket" => port_or_name(out, action.get("port"), &at.field("port")),
            "grpc" => at.field("port").between(out, action.get("port"), 1, 65535),
            _ => {}
        }
    }
    if first {
        at.required(out, "must specify a handler type");
    }
}

/// A port's number or name.
pub fn port_or_name(out: &mut Causes, port: Option<&Value>, at: &Path<'_>) {
    match port {
        Some(Value::String(name)) => at.all_invalid(out, name, port_name(name)),
        Some(number) => at.between(out, Some(number), 1, 65535),
        None => {}
    }
}

fn probe(out: &mut Causes, value: &Value, at: &Path<'_>, once: bool) {
    handler(out, value, at);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        at.field(field).not_negative(out, value.get(field));
    }
    if let Some(seconds) =
        some(value, "terminationGracePeriodSeconds").filter(|s| s.as_i64().is_some_and(|s| s <= 0))
    {
        at.field("terminationGracePeriodSeconds")
            .invalid(out, seconds, "must be greater than 0");
    }
    if once
        && value
            .get("successThreshold")
            .and_then(Value::as_i64)
            .is_some_and(|n| n != 1)
    {
        at.field("successThreshold")
            .invalid(out, &value["successThreshold"], "must be 1");
    }
}

/// The largest user and group id.
pub const MAX_ID: i64 = i32::MAX as i64;

fn security_context(out: &mut Causes, one: &Value, at: &Path<'_>) {
    let Some(context) = some(one, "securityContext") else {
        return;
    };
    for field in ["runAsUser", "runAsGroup"] {
        at.field(field).between(out, context.get(field), 0, MAX_ID);
    }
    if let Some(mount) = some(context, "procMount").and_then(Value::as_str) {
        at.field("procMount")
            .one_of(out, mount, &["Default", "Unmasked"]);
    }
    seccomp(out, context, &at.field("seccompProfile"));
    let added = |name: &str| {
        list(&context["capabilities"], "add")
            .iter()
            .any(|c| c == name)
    };
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if flag(context, "privileged") {
            at.invalid(
                out,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if added("CAP_SYS_ADMIN") {
            at.invalid(out, context, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

pub fn seccomp(out: &mut Causes, context: &Value, at: &Path<'_>) {
    let Some(profile) = some(context, "seccompProfile") else {
        return;
    };
    let kind = text(profile, "type");
    let local = some(profile, "localhostProfile").and_then(Value::as_str);
    match (kind, local) {
        ("Localhost", None | Some("")) => {
            at.field("localhostProfile")
                .required(out, "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(path)) => local_path(out, path, &at.field("localhostProfile")),
        (_, Some(path)) if kind != "Localhost" => {
            at.field("localhostProfile").invalid_text(
                out,
                path,
                "can only be set when seccomp type is Localhost",
            );
        }
        _ => {}
    }
    if !matches!(kind, "Localhost" | "RuntimeDefault" | "Unconfined") {
        if kind.is_empty() {
            at.field("type")
                .required(out, "type is required when seccompProfile is set");
        } else {
            at.field("type")
                .unsupported(out, kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}
