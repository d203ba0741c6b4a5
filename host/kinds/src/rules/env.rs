//! A container's environment, and references to fields of its pod.

use oarlock_model::Quantity;
use serde_json::Value;

use super::names::{config_map_key, dns_subdomain, env_name, qualified_name};
use super::path::{Causes, Path, items, some, text};
use super::volume::non_reserved_path;

pub fn environment(out: &mut Causes, one: &Value, container: &Path<'_>) {
    let at = container.field("env");
    for (i, variable) in items(one, "env") {
        let at = at.index(i);
        let name = text(variable, "name");
        if name.is_empty() {
            at.field("name").required(out, "");
        } else {
            at.field("name").all_invalid(out, name, env_name(name));
        }
        if let Some(source) = some(variable, "valueFrom") {
            value_from(out, variable, source, &at.field("valueFrom"));
        }
    }
    let at = container.field("envFrom");
    for (i, source) in items(one, "envFrom") {
        let item = at.index(i);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            item.field("prefix")
                .all_invalid(out, prefix, env_name(prefix));
        }
        let named: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|k| some(source, k).is_some())
            .collect();
        for kind in &named {
            let item = item.field(kind);
            let name = text(&source[*kind], "name");
            if name.is_empty() {
                item.field("name").required(out, "");
            } else {
                let checked = super::metadata::as_prefix(name);
                item.field("name")
                    .all_invalid(out, name, dns_subdomain(&checked));
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

fn value_from(out: &mut Causes, variable: &Value, source: &Value, from: &Path<'_>) {
    let kinds = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ];
    let mut present = 0;
    for kind in kinds {
        let Some(reference) = some(source, kind) else {
            continue;
        };
        present += 1;
        let at = from.field(kind);
        match kind {
            "fieldRef" => field_ref(out, reference, &at, &FIELD_PATHS),
            "resourceFieldRef" => resource_ref(out, reference, &at, false),
            "fileKeyRef" => file_key(out, reference, &at),
            _ => {
                let name = text(reference, "name");
                at.field("name").all_invalid(out, name, dns_subdomain(name));
                let key = text(reference, "key");
                if key.is_empty() {
                    at.field("key").required(out, "");
                } else {
                    at.field("key").all_invalid(out, key, config_map_key(key));
                }
            }
        }
    }
    if present == 0 {
        from.invalid_text(
            out,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !text(variable, "value").is_empty() {
        from.invalid_text(out, "", "may not be specified when `value` is not empty");
    } else if present > 1 {
        from.invalid_text(
            out,
            "",
            "may not have more than one field specified at a time",
        );
    }
}

/// A variable that is read from a file of a volume.
fn file_key(out: &mut Causes, source: &Value, at: &Path<'_>) {
    let key = text(source, "key");
    if key.is_empty() {
        at.field("key").required(out, "");
    } else {
        at.field("key").all_invalid(out, key, env_name(key));
    }
    if text(source, "volumeName").is_empty() {
        at.field("volumeName").required(out, "");
    }
    let path = text(source, "path");
    if path.is_empty() {
        at.field("path").required(out, "");
    } else {
        non_reserved_path(out, path, &at.field("path"));
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

/// All fields of a pod that have a label in the downward API.
const KNOWN_PATHS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A reference to a field of the pod: `metadata.name`, `metadata.labels['a']`.
pub fn field_ref(out: &mut Causes, source: &Value, at: &Path<'_>, allowed: &[&str]) {
    let version = text(source, "apiVersion");
    if version.is_empty() {
        at.field("apiVersion").required(out, "");
        return;
    }
    let path = text(source, "fieldPath");
    if path.is_empty() {
        at.field("fieldPath").required(out, "");
        return;
    }
    let refuse = |out: &mut Causes, why: String| {
        let detail = format!("error converting fieldPath: {why}");
        at.field("fieldPath").invalid_text(out, path, &detail);
    };
    if version != "v1" {
        refuse(out, format!("unsupported pod version: {version}"));
        return;
    }
    let subscript = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            at.all_invalid(out, &key, qualified_name(&key));
        }
        Some(("metadata.labels", key)) => at.all_invalid(out, key, qualified_name(key)),
        Some(_) => refuse(
            out,
            format!("field label does not support subscript: {path}"),
        ),
        // The old name of a known field.
        None if path == "spec.host" => {
            at.field("fieldPath").one_of(out, "spec.nodeName", allowed);
        }
        None if !KNOWN_PATHS.contains(&path) => {
            refuse(out, format!("field label not supported: {path}"));
        }
        None => {
            at.field("fieldPath").one_of(out, path, allowed);
        }
    }
}

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const SIZES: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// A reference to a container's resource.
pub fn resource_ref(out: &mut Causes, source: &Value, at: &Path<'_>, volume: bool) {
    let resource = text(source, "resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|p| resource.starts_with(p));
    if volume && text(source, "containerName").is_empty() {
        at.field("containerName").required(out, "");
    } else if resource.is_empty() {
        at.field("resource").required(out, "");
    } else if !huge {
        at.field("resource").one_of(out, resource, &RESOURCES);
    }
    let divisor = some(source, "divisor").and_then(|d| Quantity::from_json(d).ok());
    let Some(divisor) = divisor.filter(|d| !d.is_zero()).map(|d| d.to_string()) else {
        return;
    };
    let sizes = SIZES.join(", ");
    let detail = match resource {
        "limits.cpu" | "requests.cpu" if !matches!(divisor.as_str(), "1" | "1m") => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "limits.cpu" | "requests.cpu" => return,
        _ if SIZES.contains(&divisor.as_str()) => return,
        "limits.memory" | "requests.memory" => {
            format!("only divisor's values {sizes} are supported with the memory resource")
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => format!(
            "only divisor's values {sizes} are supported with the local ephemeral storage resource"
        ),
        _ if huge => {
            format!("only divisor's values {sizes} are supported with the hugepages resource")
        }
        _ => return,
    };
    at.field("divisor").invalid_text(out, resource, &detail);
}
