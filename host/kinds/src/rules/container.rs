//! Containers: images, ports, mounts and devices, restart and resize policies.

use std::collections::{HashMap, HashSet};

use oarlock_model::Cause;
use serde_json::Value;

use super::env::environment;
use super::names::{dns_label, port_name};
use super::path::{Causes, Path, flag, items, list, some, text};
use super::probe::probes;
use super::resources::{Owner, requirements};
use super::security;
use super::volume::local_path;

/// What the containers of one pod spec share.
pub struct Scope<'a> {
    pub spec: &'a Value,
    pub volumes: HashMap<&'a str, &'a Value>,
}

impl Scope<'_> {
    fn grace(&self) -> Option<i64> {
        self.spec
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
    }

    fn host_users(&self) -> bool {
        self.spec.get("hostUsers") != Some(&Value::Bool(false))
    }
}

pub fn containers(out: &mut Causes, scope: &Scope<'_>, at: &Path<'_>) {
    let own = list(scope.spec, "containers");
    let list_at = at.field("containers");
    if own.is_empty() {
        list_at.required(out, "");
    }
    let mut names = HashSet::new();
    for (i, one) in own.iter().enumerate() {
        let at = list_at.index(i);
        common(out, scope, one, &at);
        if !names.insert(text(one, "name")) {
            at.field("name").duplicate(out, text(one, "name"));
        }
        probes(out, one, scope.grace(), &at, false);
        restart_policy(out, one, &at);
        stop_signal(out, scope, one, &at);
    }
    host_ports(out, own, &list_at);
    init_containers(out, scope, at, &mut names);
    ephemeral_containers(out, scope, at, &names);
}

fn init_containers<'a>(
    out: &mut Causes,
    scope: &Scope<'a>,
    at: &Path<'_>,
    names: &mut HashSet<&'a str>,
) {
    let list_at = at.field("initContainers");
    for (i, one) in items(scope.spec, "initContainers") {
        let at = list_at.index(i);
        common(out, scope, one, &at);
        restart_policy(out, one, &at);
        let name = text(one, "name");
        if names.contains(name) {
            at.field("name").duplicate(out, name);
        } else if !name.is_empty() {
            names.insert(name);
        }
        host_ports_at(out, one, &at, &mut HashSet::new());
        let sidecar = text(one, "restartPolicy") == "Always";
        probes(out, one, scope.grace(), &at, !sidecar);
        if sidecar {
            stop_signal(out, scope, one, &at);
        }
    }
}

const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";

/// Fields that it may not have, in the order in which they are looked at.
const NEVER_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

fn ephemeral_containers(out: &mut Causes, scope: &Scope<'_>, at: &Path<'_>, names: &HashSet<&str>) {
    let list_at = at.field("ephemeralContainers");
    let mut own = HashSet::new();
    for (i, one) in items(scope.spec, "ephemeralContainers") {
        let at = list_at.index(i);
        common(out, scope, one, &at);
        image_for_pod(out, one, &at);
        let name = text(one, "name");
        if names.contains(name) || !own.insert(name) {
            at.field("name").duplicate(out, name);
        }
        let target = text(one, "targetContainerName");
        if !target.is_empty() && !names.contains(target) {
            at.field("targetContainerName").not_found(out, target);
        }
        for field in NEVER_EPHEMERAL {
            let set = some(one, field).is_some_and(|value| match value {
                Value::Object(map) => !map.is_empty(),
                Value::Array(list) => !list.is_empty(),
                _ => true,
            });
            if set {
                at.field(field).forbidden(out, NOT_EPHEMERAL);
            }
        }
        let mounts_at = at.field("volumeMounts");
        for (j, mount) in items(one, "volumeMounts") {
            let at = mounts_at.index(j);
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    at.field(field).forbidden(out, NOT_EPHEMERAL);
                }
            }
        }
    }
}

/// Spaces around an image's name are let through in templates, but not in pods.
pub fn image_for_pod(out: &mut Causes, one: &Value, at: &Path<'_>) {
    let image = text(one, "image");
    if image.trim() != image {
        at.field("image")
            .invalid_text(out, image, "must not have leading or trailing whitespace");
    }
}

/// What holds for containers of all sorts.
fn common(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let name = text(one, "name");
    if name.is_empty() {
        at.field("name").required(out, "");
    } else {
        at.field("name").all_invalid(out, name, dns_label(name));
    }
    if text(one, "image").is_empty() {
        at.field("image").required(out, "");
    }
    match text(one, "terminationMessagePolicy") {
        "" => at.field("terminationMessagePolicy").required(out, ""),
        policy => {
            at.field("terminationMessagePolicy").one_of(
                out,
                policy,
                &["FallbackToLogsOnError", "File"],
            );
        }
    }
    ports(out, one, &at.field("ports"));
    environment(out, one, at);
    mounts(out, scope, one, &at.field("volumeMounts"));
    devices(out, scope, one, &at.field("volumeDevices"));
    match text(one, "imagePullPolicy") {
        "" => at.field("imagePullPolicy").required(out, ""),
        policy => {
            at.field("imagePullPolicy")
                .one_of(out, policy, &["Always", "IfNotPresent", "Never"]);
        }
    }
    if let Some(resources) = some(one, "resources") {
        requirements(
            out,
            scope.spec,
            resources,
            Owner::Container,
            &at.field("resources"),
        );
    }
    resize_policies(out, scope, one, &at.field("resizePolicy"));
    security::container(out, one, scope.host_users(), &at.field("securityContext"));
}

const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// A container's own restart policy, and what it does at which exit codes.
fn restart_policy(out: &mut Causes, one: &Value, at: &Path<'_>) {
    let rules = list(one, "restartPolicyRules");
    let rules_at = at.field("restartPolicyRules");
    let Some(policy) = some(one, "restartPolicy").and_then(Value::as_str) else {
        if !rules.is_empty() {
            at.field("restartPolicy").required(
                out,
                "must specify restartPolicy when restart rules are used",
            );
        }
        return;
    };
    at.field("restartPolicy")
        .one_of(out, policy, &["Always", "Never", "OnFailure"]);
    if rules.len() > MAX_RESTART_RULES {
        out.push(Cause::too_many(
            rules_at.to_string(),
            rules.len(),
            MAX_RESTART_RULES,
        ));
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = rules_at.index(i);
        match text(rule, "action") {
            "" => at.field("action").required(out, ""),
            action => {
                at.field("action")
                    .one_of(out, action, &["Restart", "RestartAllContainers"]);
            }
        }
        let codes_at = at.field("exitCodes");
        let Some(codes) = some(rule, "exitCodes") else {
            codes_at.required(out, "must be specified");
            continue;
        };
        match text(codes, "operator") {
            "" => codes_at.field("operator").required(out, ""),
            operator => {
                codes_at
                    .field("operator")
                    .one_of(out, operator, &["In", "NotIn"]);
            }
        }
        let values = list(codes, "values");
        if values.len() > MAX_EXIT_CODES {
            out.push(Cause::too_many(
                codes_at.field("values").to_string(),
                values.len(),
                MAX_EXIT_CODES,
            ));
        }
    }
}

/// Signals are those of the pod's operating system, which must be known.
fn stop_signal(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let Some(signal) = one.pointer("/lifecycle/stopSignal").and_then(Value::as_str) else {
        return;
    };
    let at = at.field("lifecycle");
    let at = at.field("stopSignal");
    match text(&scope.spec["os"], "name") {
        "windows" => {
            at.one_of(out, signal, &["SIGKILL", "SIGTERM"]);
        }
        "linux" => {
            at.one_of(out, signal, &LINUX_SIGNALS);
        }
        _ => at.forbidden(
            out,
            "may not be set for containers with empty `spec.os.name`",
        ),
    }
}

const LINUX_SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn resize_policies(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let never = text(scope.spec, "restartPolicy") == "Never";
    let mut seen = HashSet::new();
    for (i, policy) in items(one, "resizePolicy") {
        let resource = text(policy, "resourceName");
        if !seen.insert(resource) {
            at.index(i).duplicate(out, resource);
        }
        let restart = text(policy, "restartPolicy");
        for (value, supported) in [
            (resource, ["cpu", "memory"]),
            (restart, ["NotRequired", "RestartContainer"]),
        ] {
            if value.is_empty() {
                at.required(out, "");
            } else {
                at.one_of(out, value, &supported);
            }
        }
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
        host_ports_at(out, one, &at.index(i), &mut seen);
    }
}

/// Ports of the machine, each of which can be had once.
fn host_ports_at(out: &mut Causes, one: &Value, at: &Path<'_>, seen: &mut HashSet<String>) {
    let at = at.field("ports");
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
            at.index(j).field("hostPort").duplicate(out, &key);
        }
    }
}

fn mounts(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let privileged = flag(&one["securityContext"], "privileged");
    let devices = list(one, "volumeDevices");
    let mut paths = HashSet::new();
    for (i, mount) in items(one, "volumeMounts") {
        let item = at.index(i);
        let name = text(mount, "name");
        if name.is_empty() {
            item.field("name").required(out, "");
        }
        let volume = scope.volumes.get(name);
        if volume.is_none() {
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
        if devices.iter().any(|d| text(d, "name") == name) {
            let detail = "must not already exist in volumeDevices";
            item.field("name").invalid_text(out, name, detail);
        }
        if devices.iter().any(|d| text(d, "devicePath") == path) {
            let detail = "must not already exist as a path in volumeDevices";
            item.field("mountPath").invalid_text(out, path, detail);
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        // Upstream tells no index here.
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
        let propagation = some(mount, "mountPropagation").and_then(Value::as_str);
        if let Some(propagation) = propagation {
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
        read_only(out, mount, propagation, &at.field("recursiveReadOnly"));
    }
}

fn read_only(out: &mut Causes, mount: &Value, propagation: Option<&str>, at: &Path<'_>) {
    match some(mount, "recursiveReadOnly").and_then(Value::as_str) {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !flag(mount, "readOnly") {
                at.forbidden(out, "may only be specified when readOnly is true");
            }
            if propagation.is_some_and(|p| p != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                at.forbidden(out, detail);
            }
        }
        Some(other) => at.unsupported(out, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(out: &mut Causes, scope: &Scope<'_>, one: &Value, at: &Path<'_>) {
    let mounts = list(one, "volumeMounts");
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (i, device) in items(one, "volumeDevices") {
        let at = at.index(i);
        let (name_at, path_at) = (at.field("name"), at.field("devicePath"));
        let (name, path) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            name_at.required(out, "");
        }
        if names.contains(name) {
            name_at.invalid_text(out, name, "must be unique");
        }
        match scope.volumes.get(name) {
            None => name_at.not_found(out, name),
            Some(volume)
                if some(volume, "persistentVolumeClaim").is_none()
                    && some(volume, "ephemeral").is_none() =>
            {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                name_at.invalid_text(out, name, detail);
            }
            Some(_) => {}
        }
        if path.is_empty() {
            path_at.required(out, "");
        }
        if paths.contains(path) {
            path_at.invalid_text(out, path, "must be unique");
        }
        if path.split('/').any(|part| part == "..") {
            path_at.invalid_text(out, path, "can not contain backsteps ('..')");
        } else {
            paths.insert(path);
        }
        if mounts.iter().any(|m| text(m, "name") == name) {
            name_at.invalid_text(out, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| text(m, "mountPath") == path) {
            let detail = "must not already exist as a path in volumeMounts";
            path_at.invalid_text(out, path, detail);
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
