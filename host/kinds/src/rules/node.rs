//! Nodes and namespaces.

use oarlock_model::Cause;
use serde_json::Value;

use super::metadata::meta_of;
use super::names::{BAD_CIDR, is_cidr, label_value, qualified_name};
use super::path::{Causes, Path, fields, items, list, text};
use super::resources::quantity;

pub fn node(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "", "Node");
    let spec = &new["spec"];
    if old.is_none_or(|old| old["spec"] != *spec) {
        // Upstream places taints here, though they are in the spec.
        let at = Path::new("metadata");
        taints(out, spec, &at.field("taints"));
        let at = Path::new("spec");
        let ranges_at = at.field("podCIDRs");
        for (i, range) in items(spec, "podCIDRs") {
            let range = range.as_str().unwrap_or("");
            if !is_cidr(range) {
                ranges_at.index(i).invalid_text(out, range, BAD_CIDR);
            }
        }
        families(out, list(spec, "podCIDRs"), &ranges_at);
    }
    addresses(out, new, old);
    let status = Path::new("status");
    for list_name in ["capacity", "allocatable"] {
        if old.is_some_and(|old| old["status"].get(list_name) == new["status"].get(list_name)) {
            continue;
        }
        let at = status.field(list_name);
        for (resource, value) in fields(&new["status"], list_name) {
            quantity(out, resource, value, &at.field(resource));
        }
    }
    if let Some(old) = old {
        let at = Path::new("spec");
        let before = list(&old["spec"], "podCIDRs");
        if !before.is_empty() && before != list(spec, "podCIDRs") {
            at.field("podCIDRs").forbidden(
                out,
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
        let before = text(&old["spec"], "providerID");
        if !before.is_empty() && before != text(spec, "providerID") {
            at.field("providerID").forbidden(
                out,
                "node updates may not change providerID except from \"\" to valid",
            );
        }
    }
    std::mem::take(out)
}

/// At most one range of each family.
fn families(out: &mut Causes, ranges: &[Value], at: &Path<'_>) {
    if ranges.len() < 2 {
        return;
    }
    let is_v6 = |range: &Value| range.as_str().is_some_and(|r| r.contains(':'));
    let both = ranges.iter().any(is_v6) && !ranges.iter().all(is_v6);
    if !both || ranges.len() > 2 {
        let detail = "may specify no more than one CIDR for each IP family";
        at.invalid(out, &Value::Array(ranges.to_vec()), detail);
    }
    for (i, range) in ranges
        .iter()
        .enumerate()
        .filter(|(i, r)| ranges[..*i].contains(r))
    {
        out.push(Cause::duplicate(at.index(i).to_string(), range));
    }
}

/// No address is told twice.
fn addresses(out: &mut Causes, new: &Value, old: Option<&Value>) {
    let all = list(&new["status"], "addresses");
    if old.is_none() {
        return;
    }
    let at = Path::new("status");
    let at = at.field("addresses");
    for (i, address) in all
        .iter()
        .enumerate()
        .filter(|(i, a)| all[..*i].contains(a))
    {
        let message = format!(
            "Duplicate value: {}",
            super::face::show("NodeAddress", address)
        );
        out.push(Cause::new(
            "FieldValueDuplicate",
            at.index(i).to_string(),
            message,
        ));
    }
}

fn taints(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let taints = list(spec, "taints");
    for (i, taint) in taints.iter().enumerate() {
        let at = at.index(i);
        let (key, value, effect) = (
            text(taint, "key"),
            text(taint, "value"),
            text(taint, "effect"),
        );
        at.field("key").all_invalid(out, key, qualified_name(key));
        let errors = label_value(value);
        if !errors.is_empty() {
            at.field("value")
                .invalid_text(out, value, &errors.join(";"));
        }
        if effect.is_empty() {
            at.field("effect").required(out, "");
        } else {
            at.field("effect").one_of(
                out,
                effect,
                &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            );
        }
        if taints[..i]
            .iter()
            .any(|t| text(t, "key") == key && text(t, "effect") == effect)
        {
            let message = format!(
                "Duplicate value: {}: taints must be unique by key and effect pair",
                super::face::show("Taint", taint)
            );
            out.push(Cause::new("FieldValueDuplicate", at.to_string(), message));
        }
    }
}

pub fn namespace(new: &Value, old: Option<&Value>) -> Causes {
    namespace_with(new, old, false)
}

/// A write through `finalize`, where faults are told by their place in the list.
pub fn finalize_update(new: &Value, old: &Value) -> Causes {
    namespace_with(new, Some(old), true)
}

fn namespace_with(new: &Value, old: Option<&Value>, by_place: bool) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "Namespace");
    if old.is_some_and(|old| old["status"] != new["status"]) {
        phase(&mut out, new);
    }
    let at = Path::new("spec");
    let at = at.field("finalizers");
    for (i, finalizer) in items(&new["spec"], "finalizers") {
        let place = at.index(i);
        let at = if by_place { &place } else { &at };
        let finalizer = finalizer.as_str().unwrap_or_default();
        at.all_invalid(&mut out, finalizer, qualified_name(finalizer));
        if !finalizer.contains('/')
            && !matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion")
        {
            at.invalid_text(
                &mut out,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    out
}

fn phase(out: &mut Causes, namespace: &Value) {
    let phase = text(&namespace["status"], "phase");
    let ends = oarlock_model::meta::is_terminating(namespace);
    let at = Path::new("status");
    let at = at.field("Phase");
    if !ends && phase != "Active" {
        let detail = "may only be 'Active' if `deletionTimestamp` is empty";
        at.invalid_text(out, phase, detail);
    } else if ends && phase != "Terminating" {
        let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
        at.invalid_text(out, phase, detail);
    }
}
