//! Pods: their spec, and what an update may change of it.

use oarlock_model::Cause;
use serde_json::{Map, Value};

use super::container::image_for_pod;
use super::metadata::{object_meta, object_meta_update};
use super::path::{Causes, Path, items, list, some, text};
use super::pod_spec::pod_spec;

pub fn pod(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    let at = Path::new("spec");
    let spec = &new["spec"];
    // A spec that an update left alone was checked when it was made; a status write must not pay for it again.
    let same_spec = old.is_some_and(|old| old.get("spec") == new.get("spec"));
    let in_status = old.is_some_and(|old| same_spec && old["status"] != new["status"]);
    if let Some(old) = old {
        object_meta_update(&mut out, new, old, 2);
    }
    if !in_status {
        object_meta(&mut out, new, "", "Pod");
    }
    let meta_at = Path::new("metadata");
    let annotations_at = meta_at.field("annotations");
    annotations(&mut out, new, &annotations_at);
    if !same_spec {
        pod_spec(&mut out, spec, Some(new), &at);
        only_pods(&mut out, spec, &at);
        if old.is_none() {
            only_new_pods(&mut out, spec, &at);
        }
    }
    if let Some(old) = old {
        annotation_updates(&mut out, new, old, &annotations_at);
        if in_status {
            super::pod_status::update(&mut out, new, old);
        } else if !same_spec {
            update(&mut out, spec, &old["spec"], &at);
        }
    }
    out
}

/// A pod as a whole, after a write through one of its subresources.
fn whole(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    object_meta_update(out, new, old, 2);
    object_meta(out, new, "", "Pod");
    let meta_at = Path::new("metadata");
    annotations(out, new, &meta_at.field("annotations"));
    pod_spec(out, &new["spec"], Some(new), at);
    only_pods(out, &new["spec"], at);
    annotation_updates(out, new, old, &meta_at.field("annotations"));
}

/// A write through `ephemeralcontainers`: they are added, and stay as they are.
pub fn ephemeral_update(new: &Value, old: &Value) -> Causes {
    let mut out = Causes::new();
    let at = Path::new("spec");
    whole(&mut out, new, old, &at);
    if oarlock_model::meta::annotation(old, MIRROR).is_some() {
        let detail = "static pods do not support ephemeral containers";
        return vec![Cause::forbidden("", detail)];
    }
    let at = at.field("ephemeralContainers");
    for (_, before) in items(&old["spec"], "ephemeralContainers") {
        let name = text(before, "name");
        let now = list(&new["spec"], "ephemeralContainers")
            .iter()
            .find(|c| text(c, "name") == name);
        let detail = match now {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(now) if now != before => format!(
                "existing ephemeral containers {name:?} may not be changed\n{}",
                super::face::difference("EphemeralContainer", before, now)
            ),
            Some(_) => continue,
        };
        at.forbidden(&mut out, &detail);
    }
    out
}

/// A write through `resize`: amounts of cpu and memory change, and nothing else.
pub fn resize_update(new: &Value, old: &Value) -> Causes {
    let mut out = Causes::new();
    let at = Path::new("spec");
    whole(&mut out, new, old, &at);
    let whole_object = |detail: &str| vec![Cause::forbidden("", detail)];
    if oarlock_model::meta::annotation(old, MIRROR).is_some() {
        return whole_object("static pods cannot be resized");
    }
    if text(&old["spec"]["os"], "name") == "windows" {
        return whole_object("windows pods cannot be resized");
    }
    if super::quantity::qos_class(new) != super::quantity::qos_class(old) {
        let class = text(&new["status"], "qosClass");
        let detail = "Pod QOS Class may not change as a result of resizing";
        at.invalid_text(&mut out, class, detail);
    }
    for list_name in ["initContainers", "containers"] {
        let list_at = at.field(list_name);
        for (i, before) in items(&old["spec"], list_name) {
            if list_name == "initContainers" && text(before, "restartPolicy") != "Always" {
                continue;
            }
            let at = list_at.index(i);
            let at = at.field("resources");
            let now = &new["spec"][list_name][i]["resources"];
            for (field, what) in [("requests", "requests"), ("limits", "limits")] {
                let removed = super::path::fields(&before["resources"], field)
                    .any(|(name, _)| now[field].get(name).is_none());
                if removed {
                    let detail = format!("resource {what} cannot be removed");
                    at.field(field).forbidden(&mut out, &detail);
                }
            }
        }
    }
    fixed_parts(&mut out, new, old, &at);
    out
}

/// Everything of a resized pod but cpu and memory of the containers that run.
fn fixed_parts(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let fixed = |container: &Value| {
        let mut container = container.clone();
        for field in ["requests", "limits"] {
            let amounts = container
                .pointer_mut(&format!("/resources/{field}"))
                .and_then(Value::as_object_mut);
            if let Some(amounts) = amounts {
                amounts.remove("cpu");
                amounts.remove("memory");
            }
        }
        container
    };
    for (list_name, detail) in [
        ("containers", "only cpu and memory resources are mutable"),
        (
            "initContainers",
            "only cpu and memory resources for sidecar containers are mutable",
        ),
    ] {
        for (i, before) in items(&old["spec"], list_name) {
            let now = &new["spec"][list_name][i];
            let sidecar = list_name == "containers" || text(before, "restartPolicy") == "Always";
            if !sidecar && now != before {
                at.forbidden(
                    out,
                    "resources for non-sidecar init containers are immutable",
                );
            } else if sidecar
                && fixed(now)["resources"]["limits"] != fixed(before)["resources"]["limits"]
                && !fixed(now)["resources"]["limits"]
                    .as_object()
                    .is_none_or(Map::is_empty)
            {
                at.forbidden(out, detail);
            }
        }
    }
}

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Annotations of pods and templates that the system reads.
pub fn annotations(out: &mut Causes, pod: &Value, at: &Path<'_>) {
    let Some(all) = pod
        .pointer("/metadata/annotations")
        .and_then(Value::as_object)
    else {
        return;
    };
    let of = |key: &str| all.get(key).and_then(Value::as_str);
    let spec = &pod["spec"];
    if let Some(value) = of(MIRROR)
        && text(spec, "nodeName").is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        at.key(MIRROR).invalid_text(out, value, detail);
    }
    for (key, value) in all {
        let Some(container) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        let value = value.as_str().unwrap_or("");
        let known = ["initContainers", "containers", "ephemeralContainers"]
            .iter()
            .any(|l| list(spec, l).iter().any(|c| text(c, "name") == container));
        if !known {
            at.key(key)
                .invalid_text(out, container, "container not found");
        }
        let fits = matches!(value, "" | "runtime/default" | "unconfined")
            || value.starts_with("localhost/");
        if !fits {
            let detail = format!("invalid AppArmor profile name: {value:?}");
            at.key(key).invalid_text(out, value, &detail);
        }
    }
    if let Some(cost) = of(DELETION_COST) {
        let digits = cost.strip_prefix('-').unwrap_or(cost);
        let fits = cost.parse::<i32>().is_ok()
            && !cost.starts_with('+')
            && (digits == "0" && cost == "0" || !digits.starts_with('0'));
        if !fits {
            at.key(DELETION_COST)
                .invalid_text(out, cost, "must be a 32bit integer");
        }
    }
}

/// What an update may not do to annotations that the system reads.
fn annotation_updates(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let of = |pod: &Value| {
        pod.pointer("/metadata/annotations")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let (now, before) = (of(new), of(old));
    if now == before {
        return;
    }
    let refuse = |out: &mut Causes, key: &str, how: &str| {
        if key.starts_with(APP_ARMOR) {
            at.key(key)
                .forbidden(out, &format!("may not {how} AppArmor annotations"));
        }
        if key == MIRROR {
            at.key(key)
                .forbidden(out, &format!("may not {how} mirror pod annotation"));
        }
    };
    for (key, value) in &before {
        if now.get(key) != Some(value) {
            refuse(out, key, "remove or update");
        }
    }
    for key in now.keys().filter(|key| !before.contains_key(*key)) {
        refuse(out, key, "add");
    }
    annotations(out, new, at);
}

/// What templates may say and pods may not.
fn only_pods(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    if text(spec, "serviceAccountName").is_empty() {
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
    for list_name in ["containers", "initContainers"] {
        let list_at = at.field(list_name);
        for (i, container) in items(spec, list_name) {
            image_for_pod(out, container, &list_at.index(i));
        }
    }
}

fn only_new_pods(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    if !list(spec, "ephemeralContainers").is_empty() {
        at.field("ephemeralContainers")
            .forbidden(out, "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        at.field("nodeName").forbidden(out, detail);
    }
}

const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

fn update(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    for list_name in ["containers", "initContainers"] {
        let list_at = at.field(list_name);
        if list(new, list_name).len() != list(old, list_name).len() {
            list_at.forbidden(out, "pod updates may not add or remove containers");
            return;
        }
        for (i, container) in items(new, list_name) {
            let at = list_at.index(i);
            if text(container, "image").is_empty() {
                at.field("image").required(out, "");
            }
            image_for_pod(out, container, &at);
        }
    }
    let number = |spec: &Value| some(spec, "activeDeadlineSeconds").and_then(Value::as_i64);
    let deadline_at = at.field("activeDeadlineSeconds");
    match (number(new), number(old)) {
        (Some(now), _) if !(0..=i64::from(i32::MAX)).contains(&now) => {
            let shown = Value::from(now);
            deadline_at.between(out, Some(&shown), 0, i64::from(i32::MAX));
            return;
        }
        (Some(now), Some(was)) if now > was => {
            let detail = "must be less than or equal to previous value";
            deadline_at.invalid(out, &Value::from(now), detail);
            return;
        }
        (None, Some(_)) => deadline_at.invalid(
            out,
            &Value::Null,
            "must not update from a positive integer to nil value",
        ),
        _ => {}
    }
    tolerations(out, new, old, at);
    gates(out, new, old, at);
    let gated = !list(old, "schedulingGates").is_empty();
    if gated {
        narrowed(out, new, old, at);
    }
    let munged = normalized(new, old, gated);
    if munged != *old {
        let difference = super::face::difference("PodSpec", old, &munged);
        at.forbidden(out, &format!("{IMMUTABLE}\n{difference}"));
    }
}

/// Where a gated pod may run can be narrowed, but not widened.
fn narrowed(out: &mut Causes, new: &Value, old: &Value, at: &Path<'_>) {
    let kept = super::path::fields(old, "nodeSelector")
        .all(|(key, value)| new["nodeSelector"].get(key) == Some(value));
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let shown = new.get("nodeSelector").unwrap_or(&Value::Null);
        at.field("nodeSelector").invalid(out, shown, detail);
    }
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms =
        |spec: &Value| spec["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"].clone();
    let (now, before) = (terms(new), terms(old));
    let count = |terms: &Value| terms.as_array().map_or(0, Vec::len);
    if count(&before) == 0 {
        return;
    }
    let at = at.field("affinity");
    let at = at.field("nodeAffinity");
    let at = at.field(REQUIRED);
    let at = at.field("nodeSelectorTerms");
    let show = |term: &Value| super::face::show("NodeSelectorTerm", term);
    let mut refuse = |at: &Path<'_>, shown: String, detail: &str| {
        let message = format!("Invalid value: {shown}: {detail}");
        out.push(Cause::new("FieldValueInvalid", at.to_string(), message));
    };
    if count(&before) != count(&now) {
        let shown: Vec<String> = now.as_array().into_iter().flatten().map(show).collect();
        let shown = if shown.is_empty() {
            "null".to_owned()
        } else {
            format!("[{}]", shown.join(","))
        };
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        refuse(&at, shown, detail);
        return;
    }
    let starts_with = |now: &Value, before: &Value, field: &str| {
        list(now, field).starts_with(list(before, field))
    };
    for (i, before) in before.as_array().into_iter().flatten().enumerate() {
        let now = &now[i];
        let empty = |term: &Value| {
            list(term, "matchExpressions").is_empty() && list(term, "matchFields").is_empty()
        };
        let fits = starts_with(now, before, "matchExpressions")
            && starts_with(now, before, "matchFields")
            && (!empty(before) || empty(now));
        if !fits {
            let detail = "only additions are allowed (no mutations or deletions)";
            refuse(&at.index(i), show(now), detail);
        }
    }
}

/// The new spec, with everything that may change as it was.
fn normalized(spec: &Value, old: &Value, gated: bool) -> Value {
    let mut spec = spec.clone();
    let Some(map) = spec.as_object_mut() else {
        return spec;
    };
    for list_name in ["containers", "initContainers"] {
        let containers = map.get_mut(list_name).and_then(Value::as_array_mut);
        for (i, container) in containers.into_iter().flatten().enumerate() {
            if let (Some(container), Some(image)) =
                (container.as_object_mut(), old[list_name][i].get("image"))
            {
                container.insert("image".to_owned(), image.clone());
            }
        }
    }
    let mut restore = |field: &str| match old.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    };
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(field);
    }
    if gated {
        restore("nodeSelector");
    }
    let grace = |s: &Map<String, Value>| {
        s.get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
    };
    if old.as_object().and_then(grace).is_some_and(|g| g < 0) && grace(map) == Some(1) {
        map.insert(
            "terminationGracePeriodSeconds".to_owned(),
            old["terminationGracePeriodSeconds"].clone(),
        );
    }
    if gated {
        restore_node_affinity(map, old);
    }
    spec
}

fn restore_node_affinity(map: &mut Map<String, Value>, old: &Value) {
    let before = old
        .get("affinity")
        .and_then(|a| a.get("nodeAffinity"))
        .filter(|a| !a.is_null());
    let affinity = map
        .entry("affinity")
        .or_insert_with(|| Value::Object(Map::new()));
    let Some(affinity) = affinity.as_object_mut() else {
        return;
    };
    match before {
        Some(before) => affinity.insert("nodeAffinity".to_owned(), before.clone()),
        None => affinity.remove("nodeAffinity"),
    };
    if affinity.is_empty() && some(old, "affinity").is_none() {
        map.remove("affinity");
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
    let list_at = at.field("tolerations");
    let without_seconds = |t: &Value| {
        let mut t = t.clone();
        if let Some(map) = t.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        t
    };
    let now: Vec<Value> = list(new, "tolerations")
        .iter()
        .map(without_seconds)
        .collect();
    let kept = list(old, "tolerations")
        .iter()
        .all(|toleration| now.contains(&without_seconds(toleration)));
    if kept {
        super::pod_spec::tolerations(out, new, &list_at);
    } else {
        list_at.forbidden(
            out,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}
