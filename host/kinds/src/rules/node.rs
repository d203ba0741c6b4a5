//! Nodes and namespaces.

use serde_json::Value;

use super::container::quantity;
use super::metadata::meta_of;
use super::names::{BAD_CIDR, is_cidr, label_value, qualified_name};
use super::path::{Causes, Path, fields, items, list, text};

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
    }
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
            let cause = oarlock_model::Cause::duplicate(at.to_string(), taint);
            out.push(cause);
        }
    }
}

pub fn namespace(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "Namespace");
    let at = Path::new("spec");
    let at = at.field("finalizers");
    for finalizer in list(&new["spec"], "finalizers")
        .iter()
        .filter_map(Value::as_str)
    {
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
