//! Small facts of single kinds that decide a branch of a generic verb. What needs code lives in the kind's row.

use oarlock_kinds::{Propagation, Row};
use serde_json::Value;

/// A PUT of an absent object creates it.
pub fn create_on_update(row: &Row) -> bool {
    matches!(
        (row.group.as_str(), row.kind.as_str()),
        (
            "",
            "Endpoints" | "Event" | "LimitRange" | "PodTemplate" | "Service"
        ) | ("events.k8s.io", "Event")
            | ("coordination.k8s.io", "Lease")
            | ("rbac.authorization.k8s.io", _)
    )
}

/// A PUT without `metadata.resourceVersion` overwrites whatever is there.
pub fn unconditional_update(row: &Row) -> bool {
    row.custom.is_none()
        && !matches!(
            (row.group.as_str(), row.kind.as_str()),
            (
                "coordination.k8s.io"
                    | "admissionregistration.k8s.io"
                    | "apiextensions.k8s.io"
                    | "oarlock.dev",
                _
            ) | ("policy", "PodDisruptionBudget")
                | ("node.k8s.io", "RuntimeClass")
                | (
                    "storage.k8s.io",
                    "CSIDriver" | "VolumeAttachment" | "CSIStorageCapacity"
                )
        )
}

/// What the caller says of the status at a create is kept.
pub fn status_on_create(row: &Row) -> bool {
    row.group.is_empty() && row.kind == "Node"
}

/// A write of the status leaves the labels alone.
pub fn status_keeps_labels(row: &Row) -> bool {
    is(row, "apps", "Deployment")
}

/// A create without a name gets one.
pub fn names_itself(row: &Row) -> bool {
    is(row, "", "LimitRange")
}

/// A write of the status leaves labels and annotations alone.
pub fn status_keeps_metadata(row: &Row) -> bool {
    matches!(
        (row.group.as_str(), row.kind.as_str()),
        ("storage.k8s.io", "VolumeAttachment")
            | ("resource.k8s.io", "ResourceClaim")
            | ("admissionregistration.k8s.io", _)
            | ("flowcontrol.apiserver.k8s.io", _)
            | ("apiregistration.k8s.io", _)
    )
}

/// A delete never waits for dependents: no `orphan` and no `foregroundDeletion`.
pub fn ignores_propagation(row: &Row) -> bool {
    row.kind == "Event"
}

/// What a delete that says nothing leaves its dependents to: Jobs have orphaned their pods since before there was a choice.
pub fn orphans(row: &Row) -> bool {
    row.default_propagation == Propagation::Orphan || is(row, "batch", "Job")
}

/// A pod that runs nowhere, or not any more, has nothing to wait for, whatever grace was asked.
pub fn ends_at_once(row: &Row, object: &Value) -> bool {
    if !is(row, "", "Pod") {
        return false;
    }
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    text("/spec/nodeName").is_empty() || matches!(text("/status/phase"), "Succeeded" | "Failed")
}

/// Whether the two differ in what `metadata.generation` counts: everything but metadata and status, as a rule.
pub fn generation_changed(row: &Row, new: &Value, old: &Value) -> bool {
    let differ_in = |field: &str| {
        let of = |object: &Value| object.get("metadata").and_then(|m| m.get(field)).cloned();
        of(new) != of(old)
    };
    if is(row, "scheduling.k8s.io", "PriorityClass") {
        return false;
    }
    crate::metadata::differ_beyond(new, old, &["metadata", "status"])
        || (is(row, "apps", "Deployment") && differ_in("annotations"))
        || (is(row, "discovery.k8s.io", "EndpointSlice") && differ_in("labels"))
}

/// This kind's rules look at the rest of an object only if it has changed, so a status write needs no tree of it.
pub fn status_alone(row: &Row) -> bool {
    row.group.is_empty() && matches!(row.kind.as_str(), "Pod" | "Node") && row.conversion.is_none()
}

/// A pod with a container that has ended: whether it may run again is up to the spec.
pub fn status_needs_spec(part: &Value) -> bool {
    let status = &part["status"];
    [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ]
    .iter()
    .filter_map(|list| status[*list].as_array())
    .flatten()
    .any(|container| container["state"]["terminated"].is_object())
}

pub fn is(row: &Row, group: &str, kind: &str) -> bool {
    row.kind == kind && row.group == group
}
