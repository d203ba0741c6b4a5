//! Pods of one operating system: what Linux alone knows may not be asked of Windows, and the other way round.

use serde_json::Value;

use super::path::{Causes, Path, flag, items, some, text};

const NOT_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_LINUX: &str = "windows options cannot be set for a linux pod";

/// Runs `visit` on each container's security context and options.
fn contexts(spec: &Value, at: &Path<'_>, mut visit: impl FnMut(&Value, &Path<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let list_at = at.field(list);
        for (i, container) in items(spec, list) {
            let at = list_at.index(i);
            visit(&container["securityContext"], &at.field("securityContext"));
        }
    }
}

pub fn operating_system(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(os) = some(spec, "os") else {
        return;
    };
    match text(os, "name") {
        "" => at
            .field("os")
            .field("name")
            .required(out, "cannot be empty"),
        "linux" => linux(out, spec, at),
        "windows" => windows(out, spec, at),
        other => at
            .field("os")
            .unsupported(out, other, &["linux", "windows"]),
    }
}

fn linux(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let mut refuse = |context: &Value, at: &Path<'_>| {
        if some(context, "windowsOptions").is_some() {
            at.field("windowsOptions").forbidden(out, NOT_LINUX);
        }
    };
    refuse(&spec["securityContext"], &at.field("securityContext"));
    contexts(spec, at, refuse);
}

/// Fields of a pod, in the order in which they are looked at; those in the security context begin with a dot.
const POD_FIELDS: [&str; 15] = [
    ".appArmorProfile",
    ".seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    ".seccompProfile",
    ".fsGroup",
    ".fsGroupChangePolicy",
    ".sysctls",
    "shareProcessNamespace",
    ".runAsUser",
    ".runAsGroup",
    ".supplementalGroups",
    ".supplementalGroupsPolicy",
    ".seLinuxChangePolicy",
];

const CONTAINER_FIELDS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn windows(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let context_at = at.field("securityContext");
    for name in POD_FIELDS {
        let (value, at) = match name.strip_prefix('.') {
            Some(name) => (some(&spec["securityContext"], name), context_at.field(name)),
            None => (some(spec, name), at.field(name)),
        };
        let set = match name {
            "hostPID" | "hostIPC" => flag(spec, name),
            ".sysctls" => value
                .and_then(Value::as_array)
                .is_some_and(|l| !l.is_empty()),
            _ => value.is_some(),
        };
        if set {
            at.forbidden(out, NOT_WINDOWS);
        }
    }
    contexts(spec, at, |context, at| {
        for field in CONTAINER_FIELDS {
            if some(context, field).is_some() {
                at.field(field).forbidden(out, NOT_WINDOWS);
            }
        }
    });
}

/// Containers that run as processes of the machine: all of a pod or none, and on the machine's network.
pub fn host_process(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let of = |context: &Value| {
        context
            .pointer("/windowsOptions/hostProcess")
            .and_then(Value::as_bool)
    };
    let pod = of(&spec["securityContext"]);
    let (mut all, mut processes) = (0, 0);
    contexts(spec, at, |context, at| {
        all += 1;
        let own = of(context);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let at = at.field("windowsOptions");
            let detail =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            at.field("hostProcess")
                .invalid(out, &Value::Bool(own), &detail);
        }
        processes += usize::from(own.or(pod) == Some(true));
    });
    if processes == 0 {
        return;
    }
    if processes != all {
        at.invalid_text(
            out,
            "",
            "If pod contains any hostProcess containers then all containers must be HostProcess containers",
        );
    }
    if !flag(spec, "hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        at.field("hostNetwork")
            .invalid(out, &Value::Bool(false), detail);
    }
}
