//! Texts for Warning headers: what is deprecated, has no effect, or is probably not what was meant.

use std::collections::HashSet;

use oarlock_model::{Quantity, meta};
use serde_json::Value;

use super::path::{Path, fields, items, list, some, text};

type Warn = fn(&Value, Option<&Value>) -> Vec<String>;

/// Texts for an update are told of what it changed.
pub fn of(group: &str, kind: &str) -> Warn {
    match (group, kind) {
        ("", "Pod") => |new, old| {
            if old.is_some_and(|old| old["spec"] == new["spec"]) {
                return Vec::new();
            }
            pod(new, None)
        },
        ("", "PodTemplate") => |new, old| {
            if old.is_some_and(|old| old["template"] == new["template"]) {
                return Vec::new();
            }
            let at = Path::new("template");
            pod(&new["template"], Some(&at))
        },
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("", "ReplicationController") => workload,
        ("batch", "Job") => job,
        ("batch", "CronJob") => cron_job,
        ("", "Service") => service,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => super::definition::warnings,
        ("", "Node") => |new, old| if old.is_none() { node(new) } else { Vec::new() },
        ("", "PersistentVolume") => volume,
        ("storage.k8s.io", "CSIDriver") => super::csi::driver_warnings,
        ("", "PersistentVolumeClaim") => |new, _| claim_spec(&new["spec"], &Path::new("spec")),
        ("networking.k8s.io", "Ingress") => |new, old| {
            let annotated = meta::annotation(new, "kubernetes.io/ingress.class").is_some();
            match old {
                None if annotated => vec![INGRESS_CLASS.to_owned()],
                _ => Vec::new(),
            }
        },
        _ => |_, _| Vec::new(),
    }
}

const INGRESS_CLASS: &str = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";

fn workload(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut texts: Vec<String> = match old {
        None => name_warning(new).into_iter().collect(),
        Some(_) => Vec::new(),
    };
    if old.is_none_or(|old| old["spec"]["template"] != new["spec"]["template"]) {
        let at = Path::new("spec");
        texts.extend(pod(&new["spec"]["template"], Some(&at.field("template"))));
    }
    let at = Path::new("spec");
    let at = at.field("volumeClaimTemplates");
    for (i, claim) in items(&new["spec"], "volumeClaimTemplates") {
        texts.extend(claim_spec(&claim["spec"], &at.index(i)));
    }
    if meta::kind(new) == "StatefulSet"
        && some(&new["spec"], "revisionHistoryLimit")
            .and_then(Value::as_i64)
            .is_some_and(|limit| limit < 0)
    {
        texts.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
    }
    texts
}

fn job(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut texts: Vec<String> = match old {
        None => name_warning(new).into_iter().collect(),
        Some(_) => Vec::new(),
    };
    texts.extend(job_spec(
        &new["spec"],
        old.map(|o| &o["spec"]),
        &Path::new("spec"),
    ));
    texts
}

const MANY: i64 = 100_000;
const MUCH: i64 = 10_000;

fn job_spec(spec: &Value, old: Option<&Value>, at: &Path<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    let number = |field: &str| spec.get(field).and_then(Value::as_i64).unwrap_or(0);
    if text(spec, "completionMode") == "Indexed"
        && number("completions") > MANY
        && number("parallelism") > MUCH
    {
        texts.push(format!(
            "{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    if old.is_none_or(|old| old["template"] != spec["template"]) {
        texts.extend(pod(&spec["template"], Some(&at.field("template"))));
    }
    texts
}

fn cron_job(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut texts: Vec<String> = match old {
        None => name_warning(new).into_iter().collect(),
        Some(_) => Vec::new(),
    };
    let at = Path::new("spec");
    let job_at = at.field("jobTemplate");
    texts.extend(job_spec(
        &new["spec"]["jobTemplate"]["spec"],
        old.map(|o| &o["spec"]["jobTemplate"]["spec"]),
        &job_at.field("spec"),
    ));
    if text(&new["spec"], "schedule").contains("TZ") {
        let at = at.field("schedule");
        texts.push(format!(
            "cannot use TZ or CRON_TZ in {at}, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones for more details"
        ));
    }
    texts
}

fn service(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut texts = Vec::new();
    let spec = &new["spec"];
    if !text(spec, "externalName").is_empty() && text(spec, "type") != "ExternalName" {
        texts
            .push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if !list(spec, "externalIPs").is_empty() {
        texts.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
                .to_owned(),
        );
    }
    let headless = text(spec, "clusterIP") == "None";
    if headless && !text(spec, "loadBalancerIP").is_empty() {
        texts.push("spec.loadBalancerIP is ignored for headless services".to_owned());
    }
    if headless && text(spec, "sessionAffinity") == "ClientIP" {
        texts.push("spec.SessionAffinity is ignored for headless services".to_owned());
    }
    texts
}

fn node(new: &Value) -> Vec<String> {
    let mut texts = Vec::new();
    let spec = &new["spec"];
    if some(spec, "configSource").is_some() {
        texts.push(
            "spec.configSource: the feature is no longer supported in the kubelet".to_owned(),
        );
    }
    if !text(spec, "externalID").is_empty() {
        texts.push(
            "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
        );
    }
    texts
}

fn volume(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut texts = Vec::new();
    let (spec, at) = (&new["spec"], Path::new("spec"));
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    for (key, instead) in [(CLASS, "storageClassName"), (MOUNT_OPTIONS, "mountOptions")] {
        if meta::annotation(new, key).is_some() {
            texts.push(format!(
                "metadata.annotations[{key}]: deprecated since v1.{}; use \"{instead}\" attribute instead",
                if instead == "storageClassName" { 8 } else { 31 }
            ));
        }
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        texts.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned());
    }
    let affinity_at = at.field("nodeAffinity");
    let affinity_at = affinity_at.field("required");
    let terms_at = affinity_at.field("nodeSelectorTerms");
    for (i, term) in items(&spec["nodeAffinity"]["required"], "nodeSelectorTerms") {
        texts.extend(node_term(term, &terms_at.index(i)));
    }
    texts.extend(old_plugins(spec, &at, false));
    texts
}

fn claim_spec(spec: &Value, at: &Path<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    let at = at.field("resources");
    for list in ["requests", "limits"] {
        if let Some(size) = spec["resources"][list].get("storage") {
            let at = at.field(list);
            texts.extend(fractional(size, &at.key("storage")));
        }
    }
    texts
}

/// Sources whose drivers are deprecated or gone.
fn old_plugins(volume: &Value, at: &Path<'_>, in_pod: bool) -> Vec<String> {
    let known = [
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (
            "gitRepo",
            "gitRepo",
            "deprecated in v1.11, and disabled by default in v1.33+",
        ),
        (
            "scaleIO",
            "scaleIO",
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        (
            "flocker",
            "flocker",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "storageos",
            "storageOS",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "quobyte",
            "quobyte",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            "glusterfs",
            "glusterfs",
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        (
            "cephfs",
            "cephfs",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
        (
            "rbd",
            "rbd",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
    ];
    known
        .into_iter()
        .filter(|(field, ..)| some(volume, field).is_some())
        .map(|(_, shown, why)| format!("{}: {why}", at.field(shown)))
        .filter(|_| in_pod || some(volume, "gitRepo").is_none())
        .collect()
}

fn fractional(value: &Value, at: &Path<'_>) -> Option<String> {
    let amount = Quantity::from_json(value).ok()?;
    (!amount.is_integer())
        .then(|| format!("{at}: fractional byte value \"{amount}\" is invalid, must be an integer"))
}

/// Labels of nodes under their old names, and the new ones.
const NODE_LABELS: [(&str, &str); 5] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

fn old_label(key: &str) -> Option<&'static str> {
    NODE_LABELS
        .iter()
        .find(|(old, _)| *old == key)
        .map(|(_, why)| *why)
}

fn node_term(term: &Value, at: &Path<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    let list_at = at.field("matchExpressions");
    for (i, requirement) in items(term, "matchExpressions") {
        let key = text(requirement, "key");
        let at = list_at.index(i);
        if let Some(why) = old_label(key) {
            texts.push(format!("{}: {key} is {why}", at.field("key")));
        }
        let values_at = at.field("values");
        for (j, value) in items(requirement, "values") {
            let value = value.as_str().unwrap_or("");
            let errors = super::names::label_value(value);
            if !errors.is_empty() {
                texts.push(format!(
                    "{}: {value} is invalid, {}",
                    values_at.index(j),
                    errors.join("; ")
                ));
            }
        }
    }
    texts
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// A pod, or a template at its place.
fn pod(pod: &Value, at: Option<&Path<'_>>) -> Vec<String> {
    let root = Path::new("spec");
    let (meta_root, below, below_meta);
    let (spec_at, meta_at) = match at {
        Some(at) => {
            below = at.field("spec");
            below_meta = at.field("metadata");
            (below, below_meta)
        }
        None => {
            meta_root = Path::new("metadata");
            (root, meta_root)
        }
    };
    let (spec, at) = (&pod["spec"], &spec_at);
    let mut texts = Vec::new();
    placement(&mut texts, spec, at);
    annotations(&mut texts, pod, &meta_at);
    volumes(&mut texts, spec, at);
    names_given_twice(&mut texts, spec, at);
    for name in ["memory", "ephemeral-storage"] {
        if let Some(value) = spec["overhead"].get(name) {
            texts.extend(fractional(value, &at.field("overhead").key(name)));
        }
    }
    for_containers(spec, at, &mut |container, at| {
        let resources_at = at.field("resources");
        for name in ["memory", "ephemeral-storage"] {
            for list in ["limits", "requests"] {
                if let Some(value) = container["resources"][list].get(name) {
                    texts.extend(fractional(value, &resources_at.field(list).key(name)));
                }
            }
        }
        environment(&mut texts, container, &at.field("env"));
    });
    ports(&mut texts, spec, at);
    let grace = spec
        .get("terminationGracePeriodSeconds")
        .and_then(Value::as_i64);
    if grace.is_some_and(|seconds| seconds < 0) {
        let field = at.field("terminationGracePeriodSeconds");
        texts.push(format!(
            "{field}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    pod_affinity(&mut texts, spec, at);
    texts
}

fn for_containers(spec: &Value, at: &Path<'_>, visit: &mut dyn FnMut(&Value, &Path<'_>)) {
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let list_at = at.field(list);
        for (i, container) in items(spec, list) {
            visit(container, &list_at.index(i));
        }
    }
}

fn placement(texts: &mut Vec<String>, spec: &Value, at: &Path<'_>) {
    let selector_at = at.field("nodeSelector");
    for (key, _) in fields(spec, "nodeSelector") {
        if let Some(why) = old_label(key) {
            texts.push(format!("{}: {why}", selector_at.key(key)));
        }
    }
    let affinity = &spec["affinity"]["nodeAffinity"];
    let affinity_at = at.field("affinity");
    let affinity_at = affinity_at.field("nodeAffinity");
    let required_at = affinity_at.field(REQUIRED);
    let terms_at = required_at.field("nodeSelectorTerms");
    for (i, term) in items(&affinity[REQUIRED], "nodeSelectorTerms") {
        texts.extend(node_term(term, &terms_at.index(i)));
    }
    let preferred_at = affinity_at.field(PREFERRED);
    for (i, term) in items(affinity, PREFERRED) {
        let at = preferred_at.index(i);
        texts.extend(node_term(&term["preference"], &at.field("preference")));
    }
    let list_at = at.field("topologySpreadConstraints");
    for (i, constraint) in items(spec, "topologySpreadConstraints") {
        let at = list_at.index(i);
        let key = text(constraint, "topologyKey");
        if let Some(why) = old_label(key) {
            texts.push(format!("{}: {key} is {why}", at.field("topologyKey")));
        }
        if some(constraint, "labelSelector").is_none() {
            texts.push(format!("{}: {NO_SELECTOR}", at.field("labelSelector")));
        }
    }
}

fn annotations(texts: &mut Vec<String>, pod: &Value, at: &Path<'_>) {
    let at = at.field("annotations");
    let known = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ];
    for (key, why) in known {
        if meta::annotation(pod, key).is_some() {
            texts.push(format!("{}: {why}", at.key(key)));
        }
    }
}

fn volumes(texts: &mut Vec<String>, spec: &Value, at: &Path<'_>) {
    let list_at = at.field("volumes");
    let mut tokens = HashSet::new();
    for (i, volume) in items(spec, "volumes") {
        let at = list_at.index(i);
        texts.extend(old_plugins(volume, &at, true));
        if let Some(template) = some(&volume["ephemeral"], "volumeClaimTemplate") {
            let at = at.field("ephemeral");
            let at = at.field("volumeClaimTemplate");
            texts.extend(claim_spec(&template["spec"], &at.field("spec")));
        }
        for source in list(&volume["projected"], "sources") {
            if let Some(token) = some(source, "serviceAccountToken") {
                tokens.insert(text(token, "path"));
            }
        }
    }
    for (i, volume) in items(spec, "volumes") {
        let at = list_at.index(i);
        let at = at.field("projected");
        let at = at.field("sources");
        for source in list(&volume["projected"], "sources") {
            for (kind, shown) in [
                ("configMap", "configMap"),
                ("secret", "secrets"),
                ("downwardAPI", "downwardAPI"),
            ] {
                for (j, item) in items(&source[kind], "items") {
                    let path = text(item, "path");
                    if tokens.contains(path) {
                        let at = at.field(shown);
                        texts.push(format!(
                            "{}: has duplicated path with ServiceAccountToken {path:?}",
                            at.index(j)
                        ));
                    }
                }
            }
            let bundle = text(&source["clusterTrustBundle"], "path");
            if some(source, "clusterTrustBundle").is_some() && tokens.contains(bundle) {
                texts.push(format!(
                    "{}: has duplicated path with ServiceAccountToken {bundle:?}",
                    at.field("ClusterTrustBundle")
                ));
            }
        }
    }
}

fn names_given_twice(texts: &mut Vec<String>, spec: &Value, at: &Path<'_>) {
    let mut addresses = HashSet::new();
    let list_at = at.field("hostAliases");
    for (i, alias) in items(spec, "hostAliases") {
        let ip = text(alias, "ip");
        if !addresses.insert(ip) {
            let at = list_at.index(i);
            texts.push(format!("{}: duplicate ip {ip:?}", at.field("ip")));
        }
    }
    let list_at = at.field("imagePullSecrets");
    let mut secrets = HashSet::new();
    for (i, secret) in items(spec, "imagePullSecrets") {
        let name = text(secret, "name");
        if !secrets.insert(name) {
            let at = list_at.index(i);
            texts.push(format!("{}: duplicate name {name:?}", at.field("name")));
        }
    }
    for (i, _) in items(spec, "imagePullSecrets").filter(|(_, s)| text(s, "name").is_empty()) {
        let at = list_at.index(i);
        texts.push(format!("{}: invalid empty name \"\"", at.field("name")));
    }
}

/// A variable given twice is fine if the second value is made of the first.
fn environment(texts: &mut Vec<String>, container: &Value, at: &Path<'_>) {
    let mut names = HashSet::new();
    for (i, variable) in items(container, "env") {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        if names.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let extends = value.contains(&reference) && value != reference;
        if some(variable, "valueFrom").is_some() || !extends {
            texts.push(format!(
                "{}: hides previous definition of {name:?}, which may be dropped when using apply",
                at.index(i)
            ));
        }
    }
}

struct Port {
    at: String,
    number: i64,
    protocol: String,
    host: i64,
    ip: String,
}

fn ports(texts: &mut Vec<String>, spec: &Value, at: &Path<'_>) {
    let mut seen: Vec<Port> = Vec::new();
    for_containers(spec, at, &mut |container, at| {
        let list_at = at.field("ports");
        for (i, port) in items(container, "ports") {
            let number = |field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
            let port = Port {
                at: list_at.index(i).to_string(),
                number: number("containerPort"),
                protocol: text(port, "protocol").to_owned(),
                host: number("hostPort"),
                ip: text(port, "hostIP").to_owned(),
            };
            if !port.ip.is_empty() && port.host == 0 {
                texts.push(format!(
                    "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                    port.at,
                    text(&list(container, "ports")[i], "name"),
                    port.number,
                    port.protocol,
                    port.ip
                ));
            }
            let same = seen
                .iter()
                .filter(|o| o.number == port.number && o.protocol == port.protocol);
            for other in same {
                let how = if other.ip == port.ip && other.host == port.host {
                    "duplicate"
                } else if other.host == 0 || port.host == 0 {
                    "overlapping"
                } else if other.host == port.host && (other.ip.is_empty() != port.ip.is_empty()) {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                texts.push(format!(
                    "{}: {how} port definition with {}",
                    port.at, other.at
                ));
            }
            seen.push(port);
        }
    });
}

fn pod_affinity(texts: &mut Vec<String>, spec: &Value, at: &Path<'_>) {
    let at = at.field("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, at) = (&spec["affinity"][kind], at.field(kind));
        let required_at = at.field(REQUIRED);
        for (i, term) in items(affinity, REQUIRED) {
            if some(term, "labelSelector").is_none() {
                let at = required_at.index(i);
                texts.push(format!("{}: {NO_SELECTOR}", at.field("labelSelector")));
            }
        }
        let preferred_at = at.field(PREFERRED);
        for (i, term) in items(affinity, PREFERRED) {
            if some(&term["podAffinityTerm"], "labelSelector").is_none() {
                let at = preferred_at.index(i);
                let at = at.field("podAffinityTerm");
                texts.push(format!("{}: {NO_SELECTOR}", at.field("labelSelector")));
            }
        }
    }
}

/// Names that pods and their hosts will have should be labels.
fn name_warning(object: &Value) -> Option<String> {
    let errors = super::names::dns_label(meta::name(object));
    let dotted = meta::name(object).contains('.');
    (dotted && !errors.is_empty()).then(|| {
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]".to_owned()
    })
}
