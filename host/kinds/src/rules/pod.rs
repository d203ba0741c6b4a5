//! Pods: their spec, and what an update may change of it.

use serde_json::{Map, Value};

use super::metadata::meta_of;
use super::path::{Causes, Path, items, list, some, text};
use super::pod_spec::pod_spec;

pub fn pod(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let at = Path::new("spec");
    let spec = &new["spec"];
    meta_of(&mut out, new, old, "", "Pod");
    // A spec that an update left alone was checked when it was made; a status write must not pay for it again.
    if old.is_none_or(|old| old.get("spec") != new.get("spec")) {
        pod_spec(&mut out, spec, &at);
        only_pods(&mut out, spec, &at);
        if let Some(old) = old {
            update(&mut out, spec, &old["spec"], &at);
        }
    }
    out
}

/// What templates may say and pods may not.
fn only_pods(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    for list_name in ["containers", "initContainers"] {
        let list_at = at.field(list_name);
        for (i, container) in items(spec, list_name) {
            let image = text(container, "image");
            if !image.is_empty() && image.trim() != image {
                list_at.index(i).field("image").invalid_text(
                    out,
                    image,
                    "must not have leading or trailing whitespace",
                );
            }
        }
    }
    if !text(spec, "serviceAccountName").is_empty() {
        return;
    }
    let list_at = at.field("volumes");
    for (i, volume) in items(spec, "volumes") {
        let at = list_at.index(i);
        let at = at.field("projected");
        let sources_at = at.field("sources");
        for (j, source) in items(&volume["projected"], "sources") {
            if some(source, "serviceAccountToken").is_some() {
                let at = sources_at.index(j);
                at.field("serviceAccountToken").forbidden(
                    out,
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
}

const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    for list_name in ["containers", "initContainers"] {
        if list(new, list_name).len() != list(old, list_name).len() {
            at.field(list_name)
                .forbidden(out, "pod updates may not add or remove containers");
            return;
        }
    }
    let (deadline, before) = (
        some(new, "activeDeadlineSeconds"),
        some(old, "activeDeadlineSeconds"),
    );
    let deadline_at = at.field("activeDeadlineSeconds");
    match (
        deadline.and_then(Value::as_i64),
        before.and_then(Value::as_i64),
    ) {
        (Some(now), _) if now < 0 => deadline_at.between(out, deadline, 0, i64::from(i32::MAX)),
        (Some(now), Some(was)) if now > was => {
            deadline_at.invalid(
                out,
                &Value::from(now),
                "must be less than or equal to previous value",
            );
        }
        (None, Some(_)) => deadline_at.invalid(
            out,
            &Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    let gated = !list(old, "schedulingGates").is_empty();
    gates(out, new, old, at);
    tolerations(out, new, old, at);
    if normalized(new, old, gated) != normalized(old, old, gated) {
        at.forbidden(out, &format!("{IMMUTABLE}\n{}", difference(new, old)));
    }
}

/// The spec with everything that may change made equal.
fn normalized(spec: &Value, old: &Value, gated: bool) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else {
        return spec;
    };
    for list_name in ["containers", "initContainers"] {
        for container in map
            .get_mut(list_name)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(container) = container.as_object_mut() {
                container.remove("image");
            }
        }
    }
    for field in [
        "activeDeadlineSeconds",
        "tolerations",
        "schedulingGates",
        "ephemeralContainers",
    ] {
        map.remove(field);
    }
    let grace = |s: &Value| {
        s.get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
    };
    if grace(old).is_some_and(|g| g < 0)
        && map
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            == Some(1)
    {
        map.insert(
            "terminationGracePeriodSeconds".to_owned(),
            old["terminationGracePeriodSeconds"].clone(),
        );
    }
    if gated {
        // A gated pod's demands may be narrowed.
        map.remove("nodeSelector");
        node_affinity(map);
    }
    spec
}

fn node_affinity(map: &mut Map<String, Value>) {
    if let Some(affinity) = map.get_mut("affinity").and_then(Value::as_object_mut) {
        affinity.remove("nodeAffinity");
        if affinity.is_empty() {
            map.remove("affinity");
        }
    }
}

fn gates(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let names = |spec: &Value| -> Vec<String> {
        list(spec, "schedulingGates")
            .iter()
            .map(|g| text(g, "name").to_owned())
            .collect()
    };
    let before = names(old);
    let list_at = at.field("schedulingGates");
    for (i, gate) in names(new)
        .iter()
        .enumerate()
        .filter(|(_, g)| !before.contains(g))
    {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
        list_at.index(i).field("name").forbidden(out, &detail);
    }
}

fn tolerations(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let at = at.field("tolerations");
    let without_seconds = |t: &Value| {
        let mut t = t.clone();
        if let Some(map) = t.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        t
    };
    let new: Vec<Value> = list(new, "tolerations")
        .iter()
        .map(without_seconds)
        .collect();
    for (_, toleration) in items(old, "tolerations") {
        if !new.contains(&without_seconds(toleration)) {
            at.forbidden(
                out,
                "existing toleration can not be modified except its tolerationSeconds",
            );
            return;
        }
    }
}

/// The first field that differs, for a person to read.
fn difference(new: &Value, old: &Value) -> String {
    let fields = |v: &Value| {
        v.as_object()
            .map(|m| m.keys().cloned().collect::<Vec<_>>())
            .unwrap_or_default()
    };
    let mut names = fields(new);
    names.extend(fields(old));
    names.sort();
    names.dedup();
    let changed: Vec<String> = names
        .into_iter()
        .filter(|n| new.get(n) != old.get(n))
        .collect();
    format!("changed: {}", changed.join(", "))
}
