//! Security contexts of pods and containers.

use std::collections::HashSet;

use oarlock_model::Cause;
use serde_json::{Value, json};

use super::names::dns_subdomain;
use super::path::{Causes, Path, flag, items, list, some, text};
use super::volume::local_path;

/// The largest user and group id.
const MAX_ID: i64 = i32::MAX as i64;

/// A container's. `host_users`: the pod shares the machine's user ids.
pub fn container(out: &mut Causes, one: &Value, host_users: bool, at: &Path<'_>) {
    let Some(context) = some(one, "securityContext") else {
        return;
    };
    for field in ["runAsUser", "runAsGroup"] {
        at.field(field).between(out, context.get(field), 0, MAX_ID);
    }
    if let Some(mount) = some(context, "procMount").and_then(Value::as_str) {
        let at = at.field("procMount");
        at.one_of(out, mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            at.invalid_text(out, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(out, context, &at.field("seccompProfile"));
    let sys_admin = list(&context["capabilities"], "add")
        .iter()
        .any(|c| c == "CAP_SYS_ADMIN");
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        let refuse = |out: &mut Causes, why: &str| {
            let shown = shown_context(context);
            let detail = format!(
                "Invalid value: {shown}: cannot set `allowPrivilegeEscalation` to false and {why}"
            );
            out.push(Cause::new("FieldValueInvalid", at.to_string(), detail));
        };
        if flag(context, "privileged") {
            refuse(out, "`privileged` to true");
        }
        if sys_admin {
            refuse(out, "`capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    windows_options(out, context, &at.field("windowsOptions"));
    app_armor(out, context, &at.field("appArmorProfile"));
}

fn shown_context(context: &Value) -> String {
    super::face::show("SecurityContext", context)
}

/// A pod's.
pub fn pod(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(context) = some(spec, "securityContext") else {
        return;
    };
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
            &json!(true),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    sysctls(out, spec, context, &at.field("sysctls"));
    let policy = |out: &mut Causes, field: &str, supported: &[&str]| {
        if let Some(policy) = some(context, field).and_then(Value::as_str) {
            at.field(field).one_of(out, policy, supported);
        }
    };
    policy(out, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
    seccomp(out, context, &at.field("seccompProfile"));
    windows_options(out, context, &at.field("windowsOptions"));
    app_armor(out, context, &at.field("appArmorProfile"));
    policy(out, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    policy(out, "seLinuxChangePolicy", &["MountOption", "Recursive"]);
}

const MAX_SYSCTL: usize = 253;

/// Parts of letters and digits, with hyphens and underscores inside, between dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= MAX_SYSCTL
        && name.split(['.', '/']).all(|part| {
            edge(part.bytes().next())
                && edge(part.bytes().last())
                && part
                    .bytes()
                    .all(|b| edge(Some(b)) || matches!(b, b'-' | b'_'))
        })
}

fn sysctls(out: &mut Causes, spec: &Value, context: &Value, at: &Path<'_>) {
    let mut seen = HashSet::new();
    for (i, sysctl) in items(context, "sysctls") {
        let name = text(sysctl, "name");
        let item = at.index(i);
        let at = item.field("name");
        if name.is_empty() {
            at.required(out, "");
        } else if !is_sysctl(name) {
            let detail = format!(
                "must have at most {MAX_SYSCTL} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            at.invalid_text(out, name, &detail);
        } else if seen.contains(name) {
            at.duplicate(out, name);
        }
        let dotted = name.replace('/', ".");
        let ipc = dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted.starts_with("fs.mqueue.")
            || dotted == "kernel.sem";
        if flag(spec, "hostNetwork") && dotted.starts_with("net.") {
            at.invalid_text(out, name, "may not be specified when 'hostNetwork' is true");
        } else if flag(spec, "hostIPC") && ipc {
            at.invalid_text(out, name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name);
    }
}

fn seccomp(out: &mut Causes, context: &Value, at: &Path<'_>) {
    let Some(profile) = some(context, "seccompProfile") else {
        return;
    };
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    let kind = text(profile, "type");
    if kind.is_empty() {
        at.field("type")
            .required(out, "type is required when seccompProfile is set");
    } else {
        at.field("type").one_of(out, kind, &types);
    }
    let local = some(profile, "localhostProfile").and_then(Value::as_str);
    let local_at = at.field("localhostProfile");
    match (kind, local) {
        ("Localhost", None) => {
            local_at.required(out, "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(path)) => local_path(out, path, &local_at),
        (_, Some(_)) => {
            let message = format!(
                "Invalid value: {}: can only be set when seccomp type is Localhost",
                super::face::show("SeccompProfile", profile)
            );
            out.push(Cause::new(
                "FieldValueInvalid",
                local_at.to_string(),
                message,
            ));
        }
        _ => {}
    }
}

const MAX_PROFILE_BYTES: usize = 4095;

fn app_armor(out: &mut Causes, context: &Value, at: &Path<'_>) {
    let Some(profile) = some(context, "appArmorProfile") else {
        return;
    };
    let local = some(profile, "localhostProfile").and_then(Value::as_str);
    let local_at = at.field("localhostProfile");
    match (text(profile, "type"), local) {
        ("Localhost", None) => {
            local_at.required(out, "must be set when AppArmor type is Localhost");
        }
        ("Localhost", Some(path)) => {
            if path.trim() != path {
                local_at.invalid_text(out, path, "must not be padded with whitespace");
            } else if path.is_empty() {
                local_at.required(out, "must be set when AppArmor type is Localhost");
            }
            if path.len() > MAX_PROFILE_BYTES {
                out.push(Cause::too_long(local_at.to_string(), MAX_PROFILE_BYTES));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(path)) => {
            local_at.invalid_text(out, path, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => at
            .field("type")
            .required(out, "type is required when appArmorProfile is set"),
        (other, _) => {
            at.field("type").unsupported(
                out,
                other,
                &["Localhost", "RuntimeDefault", "Unconfined"],
            );
        }
    }
}

const MAX_SPEC_KIB: usize = 64;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

fn windows_options(out: &mut Causes, context: &Value, at: &Path<'_>) {
    let Some(options) = some(context, "windowsOptions") else {
        return;
    };
    let of = |field: &str| some(options, field).and_then(Value::as_str);
    if let Some(name) = of("gmsaCredentialSpecName") {
        at.field("gmsaCredentialSpecName")
            .all_invalid(out, name, dns_subdomain(name));
    }
    if let Some(spec) = of("gmsaCredentialSpec") {
        let at = at.field("gmsaCredentialSpec");
        if spec.is_empty() {
            at.invalid_text(out, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > MAX_SPEC_KIB * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {MAX_SPEC_KIB} KiB");
            at.invalid_text(out, spec, &detail);
        }
    }
    if let Some(name) = of("runAsUserName") {
        for detail in windows_user(name) {
            at.field("runAsUserName").invalid_text(out, name, &detail);
        }
    }
}

/// `USER` or `DOMAIN\USER`.
fn windows_user(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".to_owned()],
    };
    let mut details = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= MAX_DOMAIN {
            details.push(format!(
                "runAsUserName's Domain length must be under {MAX_DOMAIN} characters"
            ));
        }
        if !is_net_bios(domain) && !is_windows_domain(domain) {
            details.push(
                "runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned(),
            );
        }
    }
    if user.is_empty() {
        details.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > MAX_USER {
        details.push(format!(
            "runAsUserName's User length must not be longer than {MAX_USER} characters"
        ));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        details.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.chars().any(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        details.push(
            "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"
                .to_owned(),
        );
    }
    details
}

fn is_net_bios(domain: &str) -> bool {
    !domain.starts_with('.')
        && (1..=15).contains(&domain.chars().count())
        && !domain.chars().any(|c| "\\/:*?\"<>|".contains(c))
}

fn is_windows_domain(domain: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    domain.split('.').all(|part| {
        part.len() <= 63
            && edge(part.bytes().next())
            && edge(part.bytes().last())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}
