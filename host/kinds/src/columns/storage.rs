//! Volumes, claims, classes and drivers.

use jiff::Timestamp;
use oarlock_model::meta;
use serde_json::{Value, json};

use super::cells::{UNSET, access_modes, age, flag, list, name, or, text};
use super::{AGE, Cells, NAME, col, wide};
use crate::Column;

const CLAIM: &[Column] = &[
    NAME,
    col("Status", "string", ""),
    col("Volume", "string", ""),
    col("Capacity", "string", ""),
    col("Access Modes", "string", ""),
    col("StorageClass", "string", "StorageClass of the pvc"),
    col(
        "VolumeAttributesClass",
        "string",
        "VolumeAttributesClass of the pvc",
    ),
    AGE,
    wide("VolumeMode", "string", ""),
];
const VOLUME: &[Column] = &[
    NAME,
    col("Capacity", "string", ""),
    col("Access Modes", "string", ""),
    col("Reclaim Policy", "string", ""),
    col("Status", "string", ""),
    col("Claim", "string", ""),
    col("StorageClass", "string", "StorageClass of the pv"),
    col(
        "VolumeAttributesClass",
        "string",
        "VolumeAttributesClass of the pv",
    ),
    col("Reason", "string", ""),
    AGE,
    wide("VolumeMode", "string", ""),
];
const STORAGE_CLASS: &[Column] = &[
    NAME,
    col("Provisioner", "string", ""),
    col("ReclaimPolicy", "string", ""),
    col("VolumeBindingMode", "string", ""),
    col("AllowVolumeExpansion", "boolean", ""),
    AGE,
];
const CSI_NODE: &[Column] = &[
    NAME,
    col(
        "Drivers",
        "integer",
        "Drivers indicates the number of CSI drivers registered on the node",
    ),
    AGE,
];
const CSI_DRIVER: &[Column] = &[
    NAME,
    col("AttachRequired", "boolean", ""),
    col("PodInfoOnMount", "boolean", ""),
    col("StorageCapacity", "boolean", ""),
    col("TokenRequests", "string", ""),
    col("RequiresRepublish", "boolean", ""),
    col("Modes", "string", ""),
    AGE,
];
const ATTACHMENT: &[Column] = &[
    NAME,
    Column {
        format: "name",
        ..col("Attacher", "string", "")
    },
    col("PV", "string", ""),
    col("Node", "string", ""),
    col("Attached", "boolean", ""),
    AGE,
];
const ATTRIBUTES_CLASS: &[Column] = &[
    NAME,
    col(
        "DriverName",
        "string",
        "Name of the CSI driver This field is immutable.",
    ),
    AGE,
];

pub fn find(group: &str, kind: &str) -> Option<(&'static [Column], Cells)> {
    Some(match (group, kind) {
        ("", "PersistentVolumeClaim") => (CLAIM, claim),
        ("", "PersistentVolume") => (VOLUME, volume),
        ("storage.k8s.io", "StorageClass") => (STORAGE_CLASS, storage_class),
        ("storage.k8s.io", "CSINode") => (CSI_NODE, |o, now| {
            vec![name(o), json!(list(o, "/spec/drivers").len()), age(o, now)]
        }),
        ("storage.k8s.io", "CSIDriver") => (CSI_DRIVER, csi_driver),
        ("storage.k8s.io", "VolumeAttachment") => (ATTACHMENT, |o, now| {
            vec![
                name(o),
                json!(text(o, "/spec/attacher")),
                json!(text(o, "/spec/source/persistentVolumeName")),
                json!(text(o, "/spec/nodeName")),
                json!(flag(o, "/status/attached")),
                age(o, now),
            ]
        }),
        ("storage.k8s.io", "VolumeAttributesClass") => (ATTRIBUTES_CLASS, |o, now| {
            vec![name(o), json!(text(o, "/driverName")), age(o, now)]
        }),
        _ => return None,
    })
}

fn phase(o: &Value) -> Value {
    json!(if meta::is_terminating(o) {
        "Terminating"
    } else {
        text(o, "/status/phase")
    })
}

fn class(o: &Value) -> Value {
    let annotated = meta::annotation(o, "volume.beta.kubernetes.io/storage-class");
    json!(annotated.unwrap_or_else(|| text(o, "/spec/storageClassName")))
}

fn claim(o: &Value, now: Timestamp) -> Vec<Value> {
    let volume = text(o, "/spec/volumeName");
    let bound = !volume.is_empty();
    let modes = if bound {
        access_modes(list(o, "/status/accessModes"))
    } else {
        String::new()
    };
    let capacity = match (
        bound,
        o.pointer("/status/capacity/storage")
            .and_then(Value::as_str),
    ) {
        (true, size) => size.unwrap_or("0"),
        (false, _) => "",
    };
    vec![
        name(o),
        phase(o),
        json!(volume),
        json!(capacity),
        json!(modes),
        class(o),
        json!(or(text(o, "/spec/volumeAttributesClassName"), UNSET)),
        age(o, now),
        json!(or(text(o, "/spec/volumeMode"), UNSET)),
    ]
}

fn volume(o: &Value, now: Timestamp) -> Vec<Value> {
    let claim = match o.pointer("/spec/claimRef") {
        Some(claim) => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        None => String::new(),
    };
    vec![
        name(o),
        json!(or(text(o, "/spec/capacity/storage"), "0")),
        json!(access_modes(list(o, "/spec/accessModes"))),
        json!(text(o, "/spec/persistentVolumeReclaimPolicy")),
        phase(o),
        json!(claim),
        class(o),
        json!(or(text(o, "/spec/volumeAttributesClassName"), UNSET)),
        json!(text(o, "/status/reason")),
        age(o, now),
        json!(or(text(o, "/spec/volumeMode"), UNSET)),
    ]
}

fn storage_class(o: &Value, now: Timestamp) -> Vec<Value> {
    let is_default = [
        "storageclass.kubernetes.io/is-default-class",
        "storageclass.beta.kubernetes.io/is-default-class",
    ]
    .into_iter()
    .any(|a| meta::annotation(o, a) == Some("true"));
    let suffix = if is_default { " (default)" } else { "" };
    vec![
        json!(format!("{}{suffix}", text(o, "/metadata/name"))),
        json!(text(o, "/provisioner")),
        json!(or(text(o, "/reclaimPolicy"), "Delete")),
        json!(or(text(o, "/volumeBindingMode"), "Immediate")),
        json!(flag(o, "/allowVolumeExpansion")),
        age(o, now),
    ]
}

fn csi_driver(o: &Value, now: Timestamp) -> Vec<Value> {
    let modes: Vec<&str> = list(o, "/spec/volumeLifecycleModes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let audiences: Vec<&str> = list(o, "/spec/tokenRequests")
        .iter()
        .map(|t| text(t, "/audience"))
        .collect();
    vec![
        name(o),
        json!(
            o.pointer("/spec/attachRequired")
                .and_then(Value::as_bool)
                .unwrap_or(true)
        ),
        json!(flag(o, "/spec/podInfoOnMount")),
        json!(flag(o, "/spec/storageCapacity")),
        json!(or(&audiences.join(","), UNSET)),
        json!(flag(o, "/spec/requiresRepublish")),
        json!(or(&modes.join(","), "<none>")),
        age(o, now),
    ]
}
