//! The checks of the Pod Security Standards, by level and version, and what each says of a pod that breaks it.
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use std::collections::BTreeSet;

use oarlock_model::meta;
use serde_json::Value;

use super::Level;
use crate::admission::builtin::list;

/// What is wrong, in a few words, and where.
struct Broken {
    reason: String,
    detail: String,
}

fn broken(reason: impl Into<String>, detail: impl Into<String>) -> Option<Broken> {
    Some(Broken {
        reason: reason.into(),
        detail: detail.into(),
    })
}

type Check = fn(&Pod<'_>) -> Option<Broken>;

/// A check, since when it is one, and whether the restricted level has a stricter one instead.
struct Entry {
    since: u32,
    replaced: bool,
    check: Check,
}

const fn entry(since: u32, replaced: bool, check: Check) -> Entry {
    Entry {
        since,
        replaced,
        check,
    }
}

/// In the order in which violations are told.
const BASELINE: &[Entry] = &[
    entry(0, false, app_armor),
    entry(0, true, capabilities_baseline),
    entry(0, false, host_namespaces),
    entry(0, true, host_path),
    entry(0, false, host_ports),
    entry(34, false, probe_hosts),
    entry(0, false, privileged),
    entry(0, false, proc_mount),
    entry(0, false, se_linux),
    entry(0, true, seccomp_baseline),
    entry(0, false, sysctls),
    entry(0, false, host_process),
];
const RESTRICTED: &[Entry] = &[
    entry(8, false, privilege_escalation),
    entry(22, false, capabilities_restricted),
    entry(0, false, restricted_volumes),
    entry(0, false, run_as_non_root),
    entry(23, false, run_as_user),
    entry(19, false, seccomp_restricted),
];

struct Pod<'a> {
    pod: &'a Value,
    minor: u32,
}

/// The texts of all checks that the pod breaks: `reason (detail)`.
pub(super) fn run(level: Level, minor: u32, pod: &Value) -> Vec<String> {
    all(level, minor, pod)
        .into_iter()
        .map(|b| match b.detail.as_str() {
            "" => b.reason,
            detail => format!("{} ({detail})", b.reason),
        })
        .collect()
}

/// The reasons alone.
pub(super) fn reasons(level: Level, minor: u32, pod: &Value) -> Vec<String> {
    let all = all(level, minor, pod);
    all.into_iter().map(|b| b.reason).collect()
}

fn all(level: Level, minor: u32, pod: &Value) -> Vec<Broken> {
    let pod = Pod { pod, minor };
    let restricted = level == Level::Restricted;
    let baseline = BASELINE.iter().filter(|e| {
        level >= Level::Baseline && !(restricted && e.replaced && replaced_by(minor, e))
    });
    let more = RESTRICTED.iter().filter(|_| restricted);
    baseline
        .chain(more)
        .filter(|e| e.since <= minor)
        .filter_map(|e| (e.check)(&pod))
        .collect()
}

/// Whether the stricter check was there already at this version.
fn replaced_by(minor: u32, entry: &Entry) -> bool {
    let since = if std::ptr::fn_addr_eq(entry.check, capabilities_baseline as Check) {
        22
    } else if std::ptr::fn_addr_eq(entry.check, seccomp_baseline as Check) {
        19
    } else {
        0
    };
    minor >= since
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let pod = self.pod;
        [
            "/spec/initContainers",
            "/spec/containers",
            "/spec/ephemeralContainers",
        ]
        .into_iter()
        .flat_map(move |field| list(pod, field))
    }

    fn context(&self) -> &'a Value {
        &self.pod["spec"]["securityContext"]
    }

    /// Names of the containers of which this holds.
    fn named(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| bad(container))
            .map(|container| container["name"].as_str().unwrap_or_default())
            .collect()
    }

    /// Since 1.25 what Windows has no notion of is not asked of its pods.
    fn is_windows(&self) -> bool {
        self.minor >= 25
            && self.pod.pointer("/spec/os/name").and_then(Value::as_str) == Some("windows")
    }

    /// In a user namespace of its own root is nobody outside.
    fn has_own_users(&self) -> bool {
        self.minor >= 35 && self.pod["spec"]["hostUsers"] == false
    }
}

fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("{:?}", n.as_ref())).collect();
    quoted.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!(
        "{} {}",
        plural("container", "containers", names.len()),
        quoted(names)
    )
}

/// Who set something: `pod`, `pod and container "a"`; nothing if nobody did.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut all = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    if !names.is_empty() {
        all.push(containers(names));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}

fn words(set: &BTreeSet<String>) -> Vec<&str> {
    set.iter().map(String::as_str).collect()
}

fn app_armor(pod: &Pod<'_>) -> Option<Broken> {
    let mut values = BTreeSet::new();
    let mut bad = |context: &Value| {
        let kind = context
            .pointer("/appArmorProfile/type")
            .and_then(Value::as_str);
        match kind {
            None | Some("RuntimeDefault" | "Localhost") => false,
            Some(other) => {
                values.insert(format!("{other:?}"));
                true
            }
        }
    };
    let of_pod = bad(pod.context());
    let names: Vec<&str> = pod
        .containers()
        .filter(|c| bad(&c["securityContext"]))
        .map(|c| c["name"].as_str().unwrap_or_default())
        .collect();
    let mut all: Vec<String> = setters(of_pod, &names).into_iter().collect();
    let mut notes: Vec<String> = meta::annotations(pod.pod)
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter(|(_, value)| {
            let value = value.as_str().unwrap_or_default();
            !matches!(value, "" | "runtime/default") && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={:?}", value.as_str().unwrap_or_default()))
        .collect();
    notes.sort_unstable();
    if !notes.is_empty() {
        let word = plural("annotation", "annotations", notes.len());
        values.extend(notes.iter().cloned());
        all.push(word.to_owned());
    }
    if all.is_empty() {
        return None;
    }
    let count = values.len();
    let values: Vec<String> = values.into_iter().collect();
    broken(
        plural(
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
            count,
        ),
        format!(
            "{} must not set AppArmor profile type to {}",
            all.join(" and "),
            values.join(", ")
        ),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add capabilities beyond those allowed, and the capabilities.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
    let mut found = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        let before = names.len();
        for capability in list(container, "/securityContext/capabilities/add") {
            let capability = capability.as_str().unwrap_or_default();
            if !allowed.contains(&capability) {
                found.insert(capability.to_owned());
                if names.len() == before {
                    names.push(container["name"].as_str().unwrap_or_default());
                }
            }
        }
    }
    (names, found)
}

fn must_not_add(names: &[&str], found: &BTreeSet<String>) -> String {
    format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(names),
        quoted(&words(found))
    )
}

fn capabilities_baseline(pod: &Pod<'_>) -> Option<Broken> {
    let (names, found) = added(pod, &DEFAULT_CAPABILITIES);
    if names.is_empty() {
        return None;
    }
    broken("non-default capabilities", must_not_add(&names, &found))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Broken> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.pod["spec"][*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if set.is_empty() {
        return None;
    }
    broken("host namespaces", set.join(", "))
}

fn host_path(pod: &Pod<'_>) -> Option<Broken> {
    let names: Vec<&str> = list(pod.pod, "/spec/volumes")
        .iter()
        .filter(|volume| volume["hostPath"].is_object())
        .map(|volume| volume["name"].as_str().unwrap_or_default())
        .collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    broken("hostPath volumes", format!("{word} {}", quoted(&names)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Broken> {
    let mut ports = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        let own: Vec<String> = list(container, "/ports")
            .iter()
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect();
        if !own.is_empty() {
            names.push(container["name"].as_str().unwrap_or_default());
            ports.extend(own);
        }
    }
    if names.is_empty() {
        return None;
    }
    broken(
        "hostPort",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("hostPort", "hostPorts", ports.len()),
            words(&ports).join(", ")
        ),
    )
}

fn probe_hosts(pod: &Pod<'_>) -> Option<Broken> {
    const AT: [&str; 5] = [
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let mut hosts = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        let own: Vec<String> = AT
            .iter()
            .filter_map(|at| container.pointer(at))
            .flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]])
            .filter_map(Value::as_str)
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        if !own.is_empty() {
            names.push(container["name"].as_str().unwrap_or_default());
            hosts.extend(own);
        }
    }
    if names.is_empty() {
        return None;
    }
    broken(
        "probe or lifecycle host",
        format!(
            "{} {} probe or lifecycle {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("host", "hosts", hosts.len()),
            quoted(&words(&hosts))
        ),
    )
}

fn privileged(pod: &Pod<'_>) -> Option<Broken> {
    let names = pod.named(|c| c["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.privileged=true",
        containers(&names)
    );
    broken("privileged", detail)
}

fn proc_mount(pod: &Pod<'_>) -> Option<Broken> {
    if pod.has_own_users() {
        return None;
    }
    let mut values = BTreeSet::new();
    let mut names = Vec::new();
    for container in pod.containers() {
        let mount = container["securityContext"]["procMount"].as_str();
        if let Some(mount) = mount.filter(|mount| *mount != "Default") {
            values.insert(mount.to_owned());
            names.push(container["name"].as_str().unwrap_or_default());
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.procMount to {}",
        containers(&names),
        quoted(&words(&values))
    );
    broken("procMount", detail)
}

fn se_linux(pod: &Pod<'_>) -> Option<Broken> {
    let minor = pod.minor;
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let text = |field: &str| options[field].as_str().unwrap_or_default();
        let kind = text("type");
        let known = matches!(
            kind,
            "" | "container_t" | "container_init_t" | "container_kvm_t"
        ) || (kind == "container_engine_t" && minor >= 31);
        if !known {
            types.insert(kind.to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !known || !text("user").is_empty() || !text("role").is_empty()
    };
    let of_pod = bad(pod.context());
    let names: Vec<&str> = pod
        .containers()
        .filter(|c| bad(&c["securityContext"]))
        .map(|c| c["name"].as_str().unwrap_or_default())
        .collect();
    let who = setters(of_pod, &names)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!(
            "{} {}",
            plural("type", "types", types.len()),
            quoted(&words(&types))
        ));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    broken(
        "seLinuxOptions",
        format!(
            "{who} set forbidden securityContext.seLinuxOptions: {}",
            what.join("; ")
        ),
    )
}

fn seccomp_is_fine(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn seccomp_type(context: &Value) -> Option<&str> {
    context.pointer("/seccompProfile/type")?.as_str()
}

/// Who sets a profile that is not fine, and the detail that says so.
fn bad_seccomp(pod: &Pod<'_>) -> Option<Broken> {
    let bad = |context: &Value| seccomp_type(context).is_some_and(|kind| !seccomp_is_fine(kind));
    let names = pod.named(|c| bad(&c["securityContext"]));
    let who = setters(bad(pod.context()), &names)?;
    let values: BTreeSet<String> = std::iter::once(pod.context())
        .chain(pod.containers().map(|c| &c["securityContext"]))
        .filter_map(seccomp_type)
        .filter(|kind| !seccomp_is_fine(kind))
        .map(str::to_owned)
        .collect();
    let values = quoted(&words(&values));
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {values}");
    broken("seccompProfile", detail)
}

fn seccomp_baseline(pod: &Pod<'_>) -> Option<Broken> {
    if pod.minor >= 19 {
        return bad_seccomp(pod);
    }
    // Before there were fields there were annotations.
    let mut bad: Vec<String> = meta::annotations(pod.pod)
        .into_iter()
        .flatten()
        .filter(|(key, _)| {
            *key == "seccomp.security.alpha.kubernetes.io/pod"
                || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        })
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !matches!(*value, "runtime/default" | "docker/default")
                && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    bad.sort_unstable();
    if bad.is_empty() {
        return None;
    }
    let word = plural("forbidden annotation", "forbidden annotations", bad.len());
    broken("seccompProfile", format!("{word} {}", bad.join(", ")))
}

fn sysctls(pod: &Pod<'_>) -> Option<Broken> {
    const SAFE: [(&str, u32); 12] = [
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let names: Vec<&str> = list(pod.pod, "/spec/securityContext/sysctls")
        .iter()
        .filter_map(|sysctl| sysctl["name"].as_str())
        .filter(|name| {
            !SAFE
                .iter()
                .any(|(safe, since)| safe == name && *since <= pod.minor)
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    broken("forbidden sysctls", names.join(", "))
}

fn host_process(pod: &Pod<'_>) -> Option<Broken> {
    let bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let names = pod.named(|c| bad(&c["securityContext"]));
    let who = setters(bad(pod.context()), &names)?;
    let detail = format!("{who} must not set securityContext.windowsOptions.hostProcess=true");
    broken("hostProcess", detail)
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_windows() {
        return None;
    }
    let names = pod.named(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must set securityContext.allowPrivilegeEscalation=false",
        containers(&names)
    );
    broken("allowPrivilegeEscalation != false", detail)
}

fn capabilities_restricted(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_windows() {
        return None;
    }
    let keeps = pod.named(|c| {
        !list(c, "/securityContext/capabilities/drop")
            .iter()
            .any(|dropped| dropped == "ALL")
    });
    let (names, found) = added(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keeps)
        ));
    }
    if !names.is_empty() {
        details.push(must_not_add(&names, &found));
    }
    if details.is_empty() {
        return None;
    }
    broken("unrestricted capabilities", details.join("; "))
}

fn restricted_volumes(pod: &Pod<'_>) -> Option<Broken> {
    const FINE: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let mut types = BTreeSet::new();
    let mut names = Vec::new();
    for volume in list(pod.pod, "/spec/volumes") {
        let source = volume
            .as_object()
            .and_then(|map| {
                map.iter()
                    .find(|(key, value)| *key != "name" && value.is_object())
            })
            .map_or("unknown", |(key, _)| key.as_str());
        if !FINE.contains(&source) {
            types.insert(source.to_owned());
            names.push(volume["name"].as_str().unwrap_or_default());
        }
    }
    if names.is_empty() {
        return None;
    }
    broken(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural(
                "restricted volume type",
                "restricted volume types",
                types.len()
            ),
            quoted(&words(&types))
        ),
    )
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Broken> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.has_own_users() {
        return None;
    }
    let of_pod = pod.context()["runAsNonRoot"].as_bool();
    let of = |c: &Value| c["securityContext"]["runAsNonRoot"].as_bool();
    let names = pod.named(|c| of(c) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &names) {
        return broken(
            REASON,
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        );
    }
    let silent = pod.named(|c| of(c).is_none());
    if of_pod == Some(true) || silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.runAsNonRoot=true",
        containers(&silent)
    );
    broken(REASON, detail)
}

fn run_as_user(pod: &Pod<'_>) -> Option<Broken> {
    if pod.has_own_users() {
        return None;
    }
    let names = pod.named(|c| c["securityContext"]["runAsUser"] == 0);
    let who = setters(pod.context()["runAsUser"] == 0, &names)?;
    broken("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn seccomp_restricted(pod: &Pod<'_>) -> Option<Broken> {
    if pod.is_windows() {
        return None;
    }
    if let Some(bad) = bad_seccomp(pod) {
        return Some(bad);
    }
    let silent = pod.named(|c| seccomp_type(&c["securityContext"]).is_none());
    if seccomp_type(pod.context()).is_some() || silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&silent)
    );
    broken("seccompProfile", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(level: Level, spec: Value) -> Vec<String> {
        run(level, 36, &json!({"spec": spec}))
    }

    #[test]
    fn a_plain_pod_is_baseline_and_not_restricted() {
        let plain = json!({"containers": [{"name": "c"}]});
        assert!(told(Level::Privileged, plain.clone()).is_empty());
        assert!(told(Level::Baseline, plain.clone()).is_empty());
        assert_eq!(
            told(Level::Restricted, plain),
            [
                "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
                "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])",
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
                "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ]
        );
        let fine = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        });
        assert!(told(Level::Restricted, fine).is_empty());
    }

    #[test]
    fn the_host_is_off_limits() {
        let spec = json!({
            "hostNetwork": true, "hostPID": true,
            "volumes": [{"name": "h", "hostPath": {"path": "/"}}, {"name": "i", "hostPath": {"path": "/"}}],
            "containers": [{"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}},
                "ports": [{"hostPort": 80}, {"hostPort": 81}]}],
        });
        assert_eq!(
            told(Level::Baseline, spec),
            [
                "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
                "host namespaces (hostNetwork=true, hostPID=true)",
                "hostPath volumes (volumes \"h\", \"i\")",
                "hostPort (container \"a\" uses hostPorts 80, 81)",
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ]
        );
    }

    #[test]
    fn older_versions_ask_for_less() {
        let pod = json!({"spec": {"securityContext": {"runAsUser": 0, "runAsNonRoot": true,
            "sysctls": [{"name": "net.ipv4.tcp_rmem"}]}, "containers": []}});
        assert_eq!(
            run(Level::Restricted, 22, &pod),
            ["forbidden sysctls (net.ipv4.tcp_rmem)"]
        );
        assert_eq!(
            run(Level::Restricted, 36, &pod),
            ["runAsUser=0 (pod must not set runAsUser=0)"]
        );
    }
}
