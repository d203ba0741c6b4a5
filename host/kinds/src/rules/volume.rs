//! Volumes of a pod spec: exactly one source each, and what the common sources need.

use std::collections::HashSet;

use oarlock_model::Quantity;
use serde_json::Value;

use super::container::{field_ref, local_path};
use super::names::{config_map_key, dns_label};
use super::path::{Causes, Path, items, some, text};

/// 0777
const MAX_MODE: i64 = 0o777;
/// Sources in the order in which they are looked at.
pub const SOURCES: [&str; 30] = [
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
    "azureDisk",
    "storageos",
    "portworxVolume",
    "scaleIO",
    "projected",
    "csi",
    "ephemeral",
    "image",
];

/// Checks the volumes; the names of those that are fine are returned for the mounts to refer to.
pub fn volumes<'a>(out: &mut Causes, spec: &'a Value, at: &Path<'_>) -> HashSet<&'a str> {
    let list_at = at.field("volumes");
    let mut names = HashSet::new();
    for (i, volume) in items(spec, "volumes") {
        let at = list_at.index(i);
        let before = out.len();
        sources(out, volume, &at);
        let name = text(volume, "name");
        if name.is_empty() {
            at.field("name").required(out, "");
        } else {
            at.field("name").all_invalid(out, name, dns_label(name));
            if names.contains(name) {
                at.field("name").duplicate(out, name);
            }
        }
        if out.len() == before {
            names.insert(name);
        }
    }
    names
}

fn sources(out: &mut Causes, volume: &Value, at: &Path<'_>) {
    let mut first = true;
    for kind in SOURCES {
        let Some(source) = some(volume, kind) else {
            continue;
        };
        let at = at.field(kind);
        if !std::mem::take(&mut first) {
            at.forbidden(out, "may not specify more than 1 volume type");
            continue;
        }
        source_of(out, kind, source, &at);
    }
    if first {
        at.required(out, "must specify a volume type");
    }
}

fn need(out: &mut Causes, source: &Value, fields: &[&str], at: &Path<'_>) {
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

fn key_items(out: &mut Causes, source: &Value, at: &Path<'_>) {
    let list_at = at.field("items");
    for (i, item) in items(source, "items") {
        let at = list_at.index(i);
        let key = text(item, "key");
        if key.is_empty() {
            at.field("key").required(out, "");
        } else {
            at.field("key").all_invalid(out, key, config_map_key(key));
        }
        if text(item, "path").is_empty() {
            at.field("path").required(out, "");
        }
        relative(out, text(item, "path"), &at.field("path"));
        mode(out, item, "mode", &at);
    }
}

/// A file inside a volume; names beginning with two dots are taken.
fn relative(out: &mut Causes, path: &str, at: &Path<'_>) {
    local_path(out, path, at);
    if path.starts_with("..") && !path.split('/').any(|p| p == "..") {
        at.invalid_text(out, path, "must not start with '..'");
    }
}

fn downward(out: &mut Causes, source: &Value, at: &Path<'_>) {
    let list_at = at.field("items");
    for (i, item) in items(source, "items") {
        let at = list_at.index(i);
        if text(item, "path").is_empty() {
            at.field("path").required(out, "");
        }
        relative(out, text(item, "path"), &at.field("path"));
        let allowed = [
            "metadata.annotations",
            "metadata.labels",
            "metadata.name",
            "metadata.namespace",
            "metadata.uid",
        ];
        match (some(item, "fieldRef"), some(item, "resourceFieldRef")) {
            (Some(field), None) => field_ref(out, field, &at.field("fieldRef"), &allowed),
            (None, Some(resource)) => {
                let at = at.field("resourceFieldRef");
                need(out, resource, &["containerName", "resource"], &at);
            }
            (Some(_), Some(_)) => at.invalid_text(
                out,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (None, None) => at.required(out, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(out, item, "mode", &at);
    }
}

fn source_of(out: &mut Causes, kind: &str, source: &Value, at: &Path<'_>) {
    match kind {
        "emptyDir" => {
            let size = some(source, "sizeLimit").and_then(|s| Quantity::from_json(s).ok());
            if size.is_some_and(Quantity::is_negative) {
                at.field("sizeLimit")
                    .forbidden(out, "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            need(out, source, &["path"], at);
            if text(source, "path").split('/').any(|part| part == "..") {
                at.field("path")
                    .invalid_text(out, text(source, "path"), "must not contain '..'");
            }
            if text(source, "path").is_empty() {
                return;
            }
            let kinds = [
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ];
            at.field("type").one_of(out, text(source, "type"), &kinds);
        }
        "secret" => {
            need(out, source, &["secretName"], at);
            mode(out, source, "defaultMode", at);
            key_items(out, source, at);
        }
        "configMap" => {
            need(out, source, &["name"], at);
            mode(out, source, "defaultMode", at);
            key_items(out, source, at);
        }
        "downwardAPI" => {
            mode(out, source, "defaultMode", at);
            downward(out, source, at);
        }
        "persistentVolumeClaim" => need(out, source, &["claimName"], at),
        "nfs" => {
            need(out, source, &["server", "path"], at);
            let path = text(source, "path");
            if !path.is_empty() && !path.starts_with('/') {
                at.field("path")
                    .invalid_text(out, path, "must be an absolute path");
            }
        }
        "csi" => need(out, source, &["driver"], at),
        "iscsi" => iscsi(out, source, at),
        "projected" => projected(out, source, at),
        "ephemeral" => match some(source, "volumeClaimTemplate") {
            Some(template) => super::storage::claim_spec(
                out,
                &template["spec"],
                &at.field("volumeClaimTemplate").field("spec"),
            ),
            None => at.field("volumeClaimTemplate").required(out, ""),
        },
        "image" => need(out, source, &["reference"], at),
        "gcePersistentDisk" => need(out, source, &["pdName"], at),
        "awsElasticBlockStore" => need(out, source, &["volumeID"], at),
        "gitRepo" => need(out, source, &["repository"], at),
        "cinder" => need(out, source, &["volumeID"], at),
        "azureFile" => need(out, source, &["secretName", "shareName"], at),
        "azureDisk" => need(out, source, &["diskName", "diskURI"], at),
        "flexVolume" => need(out, source, &["driver"], at),
        "glusterfs" => need(out, source, &["endpoints", "path"], at),
        "vsphereVolume" => need(out, source, &["volumePath"], at),
        _ => {}
    }
}

fn iscsi(out: &mut Causes, source: &Value, at: &Path<'_>) {
    need(out, source, &["targetPortal"], at);
    let name = text(source, "iqn");
    if name.is_empty() {
        at.field("iqn").required(out, "");
    } else if !["iqn.", "eui.", "naa."].iter().any(|p| name.starts_with(p)) {
        at.field("iqn").invalid_text(
            out,
            name,
            "must be valid format starting with iqn, eui, or naa",
        );
    }
    at.field("lun").between(out, source.get("lun"), 0, 255);
}

fn projected(out: &mut Causes, source: &Value, at: &Path<'_>) {
    mode(out, source, "defaultMode", at);
    let list_at = at.field("sources");
    for (i, one) in items(source, "sources") {
        let at = list_at.index(i);
        let mut first = true;
        for kind in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let Some(projection) = some(one, kind) else {
                continue;
            };
            let at = at.field(kind);
            if !std::mem::take(&mut first) {
                at.forbidden(out, "may not specify more than 1 volume type");
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    need(out, projection, &["name"], &at);
                    key_items(out, projection, &at);
                }
                "downwardAPI" => downward(out, projection, &at),
                "serviceAccountToken" => {
                    let seconds = projection
                        .get("expirationSeconds")
                        .and_then(Value::as_i64)
                        .unwrap_or(3600);
                    if seconds < 600 {
                        at.field("expirationSeconds").invalid(
                            out,
                            &Value::from(seconds),
                            "may not specify a duration less than 10 minutes",
                        );
                    } else if seconds > 1 << 32 {
                        at.field("expirationSeconds").invalid(
                            out,
                            &Value::from(seconds),
                            "may not specify a duration larger than 2^32 seconds",
                        );
                    }
                    need(out, projection, &["path"], &at);
                }
                _ => {}
            }
        }
        if first {
            at.required(out, "must specify a volume type");
        }
    }
}
