//! Volumes of a pod spec and of persistent volumes: exactly one source each, and what each source needs.

use std::collections::HashMap;

use oarlock_model::{Cause, Quantity, meta};
use serde_json::Value;

use super::env::{field_ref, resource_ref};
use super::metadata::template_meta;
use super::names::{dns_label, dns_subdomain};
use super::path::{Causes, Path, fields, flag, items, list, some, text};

/// 0777
const MAX_MODE: i64 = 0o777;
/// Sources in the order in which they are looked at.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Sources of persistent volumes, in the order in which they are looked at.
pub const PERSISTENT_SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// What is checked of a source depends on what it is part of.
#[derive(Clone, Copy)]
pub enum Within<'a> {
    /// A pod of this name (empty: not known yet) or a template.
    Pod { name: &'a str, template: bool },
    /// A persistent volume of this name.
    Persistent { name: &'a str },
}

/// Checks the volumes; those that are fine are returned by name for the mounts to refer to.
pub fn volumes<'a>(
    out: &mut Causes,
    spec: &'a Value,
    pod: Option<&Value>,
    at: &Path<'_>,
) -> HashMap<&'a str, &'a Value> {
    let list_at = at.field("volumes");
    let mut fine = HashMap::new();
    let pod_name = pod.map_or("", meta::name);
    let made: Vec<String> = list(spec, "volumes")
        .iter()
        .filter(|v| !pod_name.is_empty() && some(v, "ephemeral").is_some())
        .map(|v| format!("{pod_name}-{}", text(v, "name")))
        .collect();
    let within = Within::Pod {
        name: pod_name,
        template: pod.is_none(),
    };
    for (i, volume) in items(spec, "volumes") {
        let at = list_at.index(i);
        let before = out.len();
        sources(out, volume, &SOURCES, within, &at);
        let name = text(volume, "name");
        if name.is_empty() {
            at.field("name").required(out, "");
        } else {
            at.field("name").all_invalid(out, name, dns_label(name));
        }
        if fine.contains_key(name) {
            at.field("name").duplicate(out, name);
        }
        if out.len() == before {
            fine.insert(name, volume);
        }
        let claim = text(&volume["persistentVolumeClaim"], "claimName");
        if made.iter().any(|m| m == claim) {
            let at = at.field("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            at.field("claimName").invalid_text(out, claim, detail);
        }
    }
    fine
}

/// Exactly one of the sources, checked.
pub fn sources(
    out: &mut Causes,
    volume: &Value,
    kinds: &[&'static str],
    within: Within<'_>,
    at: &Path<'_>,
) {
    let mut first = true;
    for kind in kinds {
        let Some(source) = some(volume, kind) else {
            continue;
        };
        // Upstream misspells these.
        let shown = match *kind {
            "cephfs" if !first => "cephFS",
            "downwardAPI" if !first => "downwarAPI",
            "gcePersistentDisk" if first => "persistentDisk",
            kind => kind,
        };
        let source_at = at.field(shown);
        if !std::mem::take(&mut first) {
            source_at.forbidden(out, "may not specify more than 1 volume type");
            continue;
        }
        match *kind {
            "secret" | "configMap" | "downwardAPI" | "projected" => {
                files_of(out, kind, source, &source_at);
            }
            "ephemeral" => ephemeral(out, volume, source, within, at),
            kind => source_of(out, kind, source, within, &source_at),
        }
        if *kind == "iscsi" {
            iscsi_names(out, volume, source, within, at);
        }
    }
    if first {
        at.required(out, "must specify a volume type");
    }
}

pub fn need(out: &mut Causes, source: &Value, fields: &[&str], at: &Path<'_>) {
    for field in fields {
        if text(source, field).is_empty() {
            at.field(field).required(out, "");
        }
    }
}

fn mode(out: &mut Causes, holder: &Value, field: &str, at: &Path<'_>) {
    if let Some(value) =
        some(holder, field).filter(|m| m.as_i64().is_some_and(|m| !(0..=MAX_MODE).contains(&m)))
    {
        at.field(field).invalid(
            out,
            value,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}

pub fn key_to_path(out: &mut Causes, item: &Value, at: &Path<'_>) {
    need(out, item, &["key", "path"], at);
    non_reserved_path(out, text(item, "path"), &at.field("path"));
    mode(out, item, "mode", at);
}

fn key_items(out: &mut Causes, source: &Value, at: &Path<'_>) {
    let list_at = at.field("items");
    for (i, item) in items(source, "items") {
        key_to_path(out, item, &list_at.index(i));
    }
}

fn no_backsteps(out: &mut Causes, path: &str, at: &Path<'_>) {
    if path.split('/').any(|part| part == "..") {
        at.invalid_text(out, path, "must not contain '..'");
    }
}

/// A path inside a volume: relative, and never upwards.
pub fn local_path(out: &mut Causes, path: &str, at: &Path<'_>) {
    if path.starts_with('/') {
        at.invalid_text(out, path, "must be a relative path");
    }
    no_backsteps(out, path, at);
}

/// A file inside a volume; names beginning with two dots are taken.
pub fn non_reserved_path(out: &mut Causes, path: &str, at: &Path<'_>) {
    local_path(out, path, at);
    if path.starts_with("..") && !path.starts_with("../") {
        at.invalid_text(out, path, "must not start with '..'");
    }
}

const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

pub fn downward_file(out: &mut Causes, item: &Value, at: &Path<'_>) {
    need(out, item, &["path"], at);
    non_reserved_path(out, text(item, "path"), &at.field("path"));
    let resource = some(item, "resourceFieldRef");
    match (some(item, "fieldRef"), resource) {
        (Some(field), _) => {
            field_ref(out, field, &at.field("fieldRef"), &FILE_FIELDS);
            if resource.is_some() {
                at.invalid_text(
                    out,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
        }
        (None, Some(resource)) => {
            resource_ref(out, resource, &at.field("resourceFieldRef"), true);
        }
        (None, None) => at.required(out, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(out, item, "mode", at);
}

/// Sources that are made of files.
fn files_of(out: &mut Causes, kind: &str, source: &Value, at: &Path<'_>) {
    match kind {
        "secret" => need(out, source, &["secretName"], at),
        "configMap" => need(out, source, &["name"], at),
        _ => {}
    }
    mode(out, source, "defaultMode", at);
    match kind {
        // Upstream tells no index here.
        "downwardAPI" => {
            for item in list(source, "items") {
                downward_file(out, item, at);
            }
        }
        "projected" => super::projected::projected(out, source, at),
        _ => key_items(out, source, at),
    }
}

fn ephemeral(out: &mut Causes, volume: &Value, source: &Value, within: Within<'_>, at: &Path<'_>) {
    let source_at = at.field("ephemeral");
    let template_at = source_at.field("volumeClaimTemplate");
    match some(source, "volumeClaimTemplate") {
        Some(template) => {
            template_meta(out, template, &template_at.field("metadata"));
            super::storage::claim_spec(out, &template["spec"], &template_at.field("spec"));
        }
        None => template_at.required(out, ""),
    }
    let name = text(volume, "name");
    if let Within::Pod { name: pod, .. } = within
        && !pod.is_empty()
        && !name.is_empty()
    {
        let claim = format!("{pod}-{name}");
        for error in dns_subdomain(&claim) {
            let detail = format!("PVC name {claim:?}: {error}");
            at.field("name").invalid_text(out, name, &detail);
        }
    }
}

const MAX_PARTITION: &str = "must be between 0 and 255, inclusive";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

fn source_of(out: &mut Causes, kind: &str, source: &Value, within: Within<'_>, at: &Path<'_>) {
    let persistent = matches!(within, Within::Persistent { .. });
    match kind {
        "emptyDir" => {
            let size = some(source, "sizeLimit").and_then(|s| Quantity::from_json(s).ok());
            if size.is_some_and(Quantity::is_negative) {
                at.field("sizeLimit")
                    .forbidden(out, "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" | "local" => {
            let path = text(source, "path");
            if path.is_empty() {
                at.field("path").required(out, "");
                return;
            }
            no_backsteps(out, path, &at.field("path"));
            if kind == "hostPath" {
                at.field("type")
                    .one_of(out, text(source, "type"), &HOST_PATH_TYPES);
            }
        }
        "gitRepo" => {
            need(out, source, &["repository"], at);
            local_path(out, text(source, "directory"), &at.field("directory"));
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            let name = if kind == "gcePersistentDisk" {
                "pdName"
            } else {
                "volumeID"
            };
            need(out, source, &[name], at);
            if let Some(partition) = some(source, "partition")
                .filter(|p| !p.as_i64().is_some_and(|p| (0..=255).contains(&p)))
            {
                at.field("partition").invalid(out, partition, MAX_PARTITION);
            }
        }
        "persistentVolumeClaim" => need(out, source, &["claimName"], at),
        "nfs" => {
            need(out, source, &["server", "path"], at);
            let path = text(source, "path");
            if !path.starts_with('/') {
                at.field("path")
                    .invalid_text(out, path, "must be an absolute path");
            }
        }
        "csi" => csi(out, source, persistent, at),
        "iscsi" => iscsi(out, source, persistent, at),
        "fc" => fibre_channel(out, source, at),
        "image" => {
            if matches!(
                within,
                Within::Pod {
                    template: false,
                    ..
                }
            ) {
                need(out, source, &["reference"], at);
            }
            match text(source, "pullPolicy") {
                "" => at.field("pullPolicy").required(out, ""),
                policy => {
                    let policies = ["Always", "IfNotPresent", "Never"];
                    at.field("pullPolicy").one_of(out, policy, &policies);
                }
            }
        }
        "azureDisk" => azure_disk(out, source, at),
        _ => removed_source(out, kind, source, persistent, at),
    }
}

/// Sources whose drivers are gone, but whose fields are still looked at.
fn removed_source(out: &mut Causes, kind: &str, source: &Value, persistent: bool, at: &Path<'_>) {
    match kind {
        "azureFile" => {
            need(out, source, &["secretName", "shareName"], at);
            if persistent && some(source, "secretNamespace").is_some_and(|n| n == "") {
                at.field("secretNamespace").required(out, "");
            }
        }
        "cinder" => {
            need(out, source, &["volumeID"], at);
            secret_ref(out, source, persistent, at);
        }
        "storageos" => {
            let name = text(source, "volumeName");
            if name.is_empty() {
                at.field("volumeName").required(out, "");
            } else {
                at.field("volumeName")
                    .all_invalid(out, name, dns_label(name));
            }
            let namespace = text(source, "volumeNamespace");
            if !namespace.is_empty() {
                at.field("volumeNamespace")
                    .all_invalid(out, namespace, dns_label(namespace));
            }
            secret_ref(out, source, persistent, at);
        }
        "rbd" | "cephfs" => {
            if list(source, "monitors").is_empty() {
                at.field("monitors").required(out, "");
            }
            if kind == "rbd" {
                need(out, source, &["image"], at);
            }
        }
        "glusterfs" => {
            need(out, source, &["endpoints", "path"], at);
            if persistent
                && let Some(namespace) = some(source, "endpointsNamespace").and_then(Value::as_str)
            {
                let at = at.field("endpointsNamespace");
                if namespace.is_empty() {
                    let detail =
                        "if the endpointnamespace is set, it must be a valid namespace name";
                    at.invalid_text(out, namespace, detail);
                } else {
                    at.all_invalid(out, namespace, dns_label(namespace));
                }
            }
        }
        "flocker" => {
            let name = text(source, "datasetName");
            match (name.is_empty(), text(source, "datasetUUID").is_empty()) {
                (true, true) => {
                    at.required(out, "one of datasetName and datasetUUID is required");
                }
                (false, false) => {
                    let detail = "datasetName and datasetUUID can not be specified simultaneously";
                    at.invalid_text(out, "resource", detail);
                }
                _ => {}
            }
            if name.contains('/') {
                at.field("datasetName")
                    .invalid_text(out, name, "must not contain '/'");
            }
        }
        "quobyte" => quobyte(out, source, at),
        "flexVolume" => {
            need(out, source, &["driver"], at);
            for (option, _) in fields(source, "options") {
                let namespace = option.split('/').next().unwrap_or(option);
                let domain = format!(".{}", namespace.to_lowercase());
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    at.field("options").key(option).invalid_text(
                        out,
                        option,
                        "kubernetes.io and k8s.io namespaces are reserved",
                    );
                }
            }
        }
        "vsphereVolume" => need(out, source, &["volumePath"], at),
        "photonPersistentDisk" => need(out, source, &["pdID"], at),
        "portworxVolume" => need(out, source, &["volumeID"], at),
        "scaleIO" => need(out, source, &["gateway", "system", "volumeName"], at),
        _ => {}
    }
}

fn secret_ref(out: &mut Causes, source: &Value, persistent: bool, at: &Path<'_>) {
    if let Some(secret) = some(source, "secretRef") {
        let parts: &[&str] = if persistent {
            &["name", "namespace"]
        } else {
            &["name"]
        };
        need(out, secret, parts, &at.field("secretRef"));
    }
}

fn quobyte(out: &mut Causes, source: &Value, at: &Path<'_>) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    if registry.is_empty() {
        at.field("registry").required(out, PAIRS);
    } else if text(source, "tenant").len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        at.field("tenant").required(out, detail);
    } else {
        for pair in registry.split(',') {
            let host = pair.rsplit_once(':').map(|(host, _)| host);
            let fits = host.is_some_and(|h| !h.contains(':') || h.starts_with('['));
            if !fits {
                at.field("registry").invalid_text(out, registry, PAIRS);
            }
        }
    }
    need(out, source, &["volume"], at);
}

fn azure_disk(out: &mut Causes, source: &Value, at: &Path<'_>) {
    need(out, source, &["diskName", "diskURI"], at);
    let of = |field: &str| some(source, field).and_then(Value::as_str);
    if let Some(mode) = of("cachingMode") {
        at.field("cachingMode")
            .one_of(out, mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let uri = text(source, "diskURI");
    if let Some(kind) = of("kind") {
        at.field("kind")
            .one_of(out, kind, &["Dedicated", "Managed", "Shared"]);
        let (prefix, form) = if kind == "Managed" {
            (
                "/subscriptions/",
                "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
            )
        } else {
            (
                "https://",
                "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
            )
        };
        if !uri.starts_with(prefix) {
            at.field("diskURI").unsupported(out, uri, &[form]);
        }
    }
}

fn fibre_channel(out: &mut Causes, source: &Value, at: &Path<'_>) {
    let names = list(source, "targetWWNs");
    let names_at = at.field("targetWWNs");
    match (names.is_empty(), list(source, "wwids").is_empty()) {
        (true, true) => {
            names_at.required(out, "must specify either targetWWNs or wwids, but not both");
        }
        (false, false) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            names_at.invalid(out, &Value::Array(names.to_vec()), detail);
        }
        _ => {}
    }
    if !names.is_empty() {
        match some(source, "lun") {
            None => at
                .field("lun")
                .required(out, "lun is required if targetWWNs is specified"),
            lun => at.field("lun").between(out, lun, 0, 255),
        }
    }
}

const MAX_DRIVER: usize = 63;

fn csi(out: &mut Causes, source: &Value, persistent: bool, at: &Path<'_>) {
    let driver = text(source, "driver");
    let driver_at = at.field("driver");
    if driver.is_empty() {
        driver_at.required(out, "");
    } else {
        if driver.len() > MAX_DRIVER {
            out.push(Cause::too_long(driver_at.to_string(), MAX_DRIVER));
        }
        driver_at.all_invalid(out, driver, dns_subdomain(&driver.to_lowercase()));
    }
    if persistent {
        need(out, source, &["volumeHandle"], at);
        for field in [
            "controllerPublishSecretRef",
            "controllerExpandSecretRef",
            "nodePublishSecretRef",
            "nodeExpandSecretRef",
        ] {
            if let Some(secret) = some(source, field) {
                let at = at.field(field);
                for (part, check) in [
                    ("name", dns_subdomain as fn(&str) -> Vec<String>),
                    ("namespace", dns_label),
                ] {
                    match text(secret, part) {
                        "" => at.field(part).required(out, ""),
                        name => at.field(part).all_invalid(out, name, check(name)),
                    }
                }
            }
        }
    } else if let Some(secret) = some(source, "nodePublishSecretRef") {
        match text(secret, "name") {
            "" => at
                .field("nodePublishSecretRef")
                .field("name")
                .required(out, ""),
            name => at.field("name").all_invalid(out, name, dns_subdomain(name)),
        }
    }
}

/// `iqn.YYYY-MM.DOMAIN[:NAME]`, `eui.` and 16 hexadecimal digits, `naa.` and 16 or 32 of them.
fn is_iscsi_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(rest) = name.strip_prefix("iqn.") {
        let mut parts = rest.splitn(2, '.');
        let (date, domain) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let digits = |t: &str, n: usize| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
        let dated = date
            .split_once('-')
            .is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
        let host = domain.split(':').next().unwrap_or("");
        let fits = |t: &str| {
            !t.is_empty()
                && t.split('.').all(|part| {
                    !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                })
        };
        return dated && fits(host) && !domain.ends_with(':');
    }
    if let Some(rest) = name.strip_prefix("eui.") {
        return rest.len() == 16 && hex(rest);
    }
    name.strip_prefix("naa.")
        .is_some_and(|rest| (rest.len() == 16 || rest.len() == 32) && hex(rest))
}

fn iscsi_name(out: &mut Causes, name: &str, at: &Path<'_>, persistent: bool) {
    let known = ["iqn", "eui", "naa"].iter().any(|p| name.starts_with(p));
    if !known && !persistent {
        let detail = "must be valid format starting with iqn, eui, or naa";
        at.invalid_text(out, name, detail);
    } else if !known || !is_iscsi_name(name) {
        at.invalid_text(out, name, "must be valid format");
    }
}

fn iscsi(out: &mut Causes, source: &Value, persistent: bool, at: &Path<'_>) {
    need(out, source, &["targetPortal"], at);
    match text(source, "iqn") {
        "" => at.field("iqn").required(out, ""),
        name => iscsi_name(out, name, &at.field("iqn"), persistent),
    }
    at.field("lun").between(out, source.get("lun"), 0, 255);
    let secret = some(source, "secretRef");
    if (flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession")) && secret.is_none() {
        at.field("secretRef").required(out, "");
    }
    if let Some(secret) = secret.filter(|_| persistent) {
        need(out, secret, &["name"], &at.field("secretRef"));
    }
    if let Some(name) = some(source, "initiatorName").and_then(Value::as_str) {
        iscsi_name(out, name, &at.field("initiatorname"), persistent);
    }
}

/// Volume and portal become one name where the initiator's is given.
fn iscsi_names(
    out: &mut Causes,
    volume: &Value,
    source: &Value,
    within: Within<'_>,
    at: &Path<'_>,
) {
    const TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
    if some(source, "initiatorName").is_none() {
        return;
    }
    let portal = text(source, "targetPortal");
    match within {
        Within::Pod { .. } => {
            let name = text(volume, "name");
            if name.len() + 1 + portal.len() > 64 {
                at.field("name").invalid_text(out, name, TOO_LONG);
            }
        }
        Within::Persistent { name } => {
            if name.len() + 1 + portal.len() > 64 {
                let at = at.field("iscsi");
                at.field("targetportal").invalid_text(out, portal, TOO_LONG);
            }
        }
    }
}
