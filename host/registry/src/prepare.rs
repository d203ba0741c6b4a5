//! The generic half of preparing and checking a write: defaults, what a subresource may change, status, generation.
//! What a kind does beyond that is in its row's hooks, called here and nowhere else.

use oarlock_kinds::{Row, ephemeral_update, finalize_update, resize_update};
use oarlock_model::{Cause, meta, time};
use oarlock_schema::{apply_defaults, canonicalize};
use serde_json::Value;

use crate::{Context, Target, metadata, strategy};

pub fn default(row: &Row, object: &mut Value) {
    if let Some(custom) = &row.custom {
        return custom.fill_defaults(object);
    }
    apply_defaults(&row.schema, object);
    (row.hooks.default)(object);
}

/// A write through a subresource changes that part only; the rest stays as it was.
pub fn restrict_to_subresource(target: &Target, object: &mut Value, old: &Value) {
    match target.subresource.as_str() {
        "" => {}
        "status" if target.row.custom.is_some() => {
            let status = object.get("status").cloned();
            let fields = object.pointer("/metadata/managedFields").cloned();
            *object = old.clone();
            put(object, &["status"], status);
            put(object, &["metadata", "managedFields"], fields);
        }
        "status" => {
            restore(object, old, &["metadata", "status"]);
            // Old node agents would spoil them.
            if strategy::is(&target.row, "", "Pod") {
                copy(object, old, &["metadata", "ownerReferences"]);
            }
            if strategy::status_keeps_labels(&target.row) {
                copy(object, old, &["metadata", "labels"]);
            }
            if strategy::status_keeps_metadata(&target.row) {
                copy(object, old, &["metadata", "labels"]);
                copy(object, old, &["metadata", "annotations"]);
            }
        }
        "finalize" => part(object, old, &["spec", "finalizers"]),
        "ephemeralcontainers" => part(object, old, &["spec", "ephemeralContainers"]),
        "approval" => {
            let conditions = object.pointer("/status/conditions").cloned();
            let metadata = object
                .as_object_mut()
                .and_then(|map| map.remove("metadata"));
            rebuild(object, old, metadata, &["status", "conditions"], conditions);
        }
        _ => restore(object, old, &["metadata", "spec"]),
    }
}

/// Makes every top-level field but these what it was. Copies only what differs.
fn restore(object: &mut Value, old: &Value, changed: &[&str]) {
    let map = meta::as_map_mut(object);
    let Some(old) = old.as_object() else { return };
    map.retain(|name, _| changed.contains(&name.as_str()) || old.contains_key(name));
    for (name, value) in old
        .iter()
        .filter(|(name, _)| !changed.contains(&name.as_str()))
    {
        if map.get(name) != Some(value) {
            map.insert(name.clone(), value.clone());
        }
    }
}

fn part(object: &mut Value, old: &Value, path: &[&str]) {
    let kept = path
        .iter()
        .try_fold(&*object, |at, field| at.get(field))
        .cloned();
    let metadata = object
        .as_object_mut()
        .and_then(|map| map.remove("metadata"));
    rebuild(object, old, metadata, path, kept);
}

/// `old`, with `metadata` and the value at `path` from the new object.
fn rebuild(
    object: &mut Value,
    old: &Value,
    metadata: Option<Value>,
    path: &[&str],
    value: Option<Value>,
) {
    *object = old.clone();
    if let (Some(metadata), Some(map)) = (metadata, object.as_object_mut()) {
        map.insert("metadata".to_owned(), metadata);
    }
    put(object, path, value);
}

fn copy(object: &mut Value, old: &Value, path: &[&str]) {
    put(
        object,
        path,
        path.iter()
            .try_fold(old, |at, field| at.get(field))
            .cloned(),
    );
}

fn put(object: &mut Value, path: &[&str], value: Option<Value>) {
    let Some((last, parents)) = path.split_last() else {
        return;
    };
    let mut at = meta::as_map_mut(object);
    for field in parents {
        at = meta::child_map_mut(at, field);
    }
    match value {
        Some(value) => at.insert((*last).to_owned(), value),
        None => at.remove(*last),
    };
}

pub fn create(ctx: &Context, row: &Row, object: &mut Value) {
    if row.status_subresource && !strategy::status_on_create(row) {
        put(object, &["status"], None);
    }
    (row.hooks.prepare_create)(object);
    if strategy::is(row, "certificates.k8s.io", "CertificateSigningRequest") {
        name_requester(ctx, object);
    }
    stamp(ctx, row, object);
    canonicalize(&row.schema, object);
}

/// Who asks for a certificate is not for the request to say.
fn name_requester(ctx: &Context, object: &mut Value) {
    let user = &ctx.user;
    let extra: serde_json::Map<String, Value> = user
        .extra
        .iter()
        .map(|(key, values)| (key.clone(), Value::from(values.clone())))
        .collect();
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    let said = [
        (
            "username",
            Value::from(user.name.as_str()),
            user.name.is_empty(),
        ),
        ("uid", Value::from(user.uid.as_str()), user.uid.is_empty()),
        (
            "groups",
            Value::from(user.groups.clone()),
            user.groups.is_empty(),
        ),
        ("extra", Value::Object(extra), user.extra.is_empty()),
    ];
    for (field, value, empty) in said {
        if empty {
            spec.remove(field);
        } else {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// Rules read no clock: the times that they leave open are filled in here.
fn stamp(ctx: &Context, row: &Row, object: &mut Value) {
    let now = Value::String(time::format_time(ctx.now));
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    if strategy::is(row, "", "Pod") {
        for condition in status
            .get_mut("conditions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if condition
                .get("lastTransitionTime")
                .is_none_or(Value::is_null)
            {
                meta::as_map_mut(condition).insert("lastTransitionTime".to_owned(), now.clone());
            }
        }
    }
    if strategy::is(row, "", "PersistentVolume") {
        status.insert("lastPhaseTransitionTime".to_owned(), now);
    }
}

/// Rules read no clock: since when a volume is in its phase is written here, unless the caller says it.
pub fn stamp_update(ctx: &Context, row: &Row, object: &mut Value, old: &Value) {
    if !strategy::is(row, "", "PersistentVolume") {
        return;
    }
    const SINCE: &str = "lastPhaseTransitionTime";
    let before = &old["status"];
    let same_phase = object["status"]["phase"] == before["phase"];
    let stated = object["status"][SINCE].clone();
    let since = match (same_phase, stated.is_null()) {
        (true, true) => before[SINCE].clone(),
        (false, _) if stated.is_null() || stated == before[SINCE] => {
            Value::String(time::format_time(ctx.now))
        }
        _ => return,
    };
    if !since.is_null() {
        meta::child_map_mut(meta::as_map_mut(object), "status").insert(SINCE.to_owned(), since);
    }
}

pub fn update(target: &Target, object: &mut Value, old: &Value) {
    let row = &target.row;
    metadata::keep(object, old);
    if target.subresource.is_empty() && row.status_subresource {
        copy(object, old, &["status"]);
    }
    (row.hooks.prepare_update)(object, old);
    if strategy::is(row, "", "Namespace") && target.subresource.is_empty() {
        copy(object, old, &["spec", "finalizers"]);
    }
    canonicalize(&row.schema, object);
    if target.subresource == "status" {
        // What canonical form adds to a part of an object is not there in the whole.
        restore(object, old, &["metadata", "status"]);
    } else {
        metadata::count_generation(row, object, old);
    }
}

pub fn validate(target: &Target, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    if let Some(custom) = &target.row.custom {
        return custom.validate(object, old, &target.subresource);
    }
    let theirs = match (target.subresource.as_str(), old) {
        ("ephemeralcontainers", Some(old)) => ephemeral_update(object, old),
        ("resize", Some(old)) => resize_update(object, old),
        ("finalize", Some(old)) => finalize_update(object, old),
        _ => (target.row.hooks.validate)(object, old),
    };
    if !target.row.stored {
        return theirs;
    }
    let mut causes = metadata::check(object, old);
    // Where the kind speaks of a field, it speaks for both.
    causes.retain(|cause| !theirs.iter().any(|c| c.field == cause.field));
    causes.extend(theirs);
    causes
}

/// An update that takes the last finalizer off an object that was to be deleted deletes it.
pub fn deleted_by_update(row: &Row, new: &Value, old: &Value) -> bool {
    if !meta::is_terminating(new) || !meta::finalizers(new).is_empty() {
        return false;
    }
    if strategy::is(row, "", "Namespace") {
        return new
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty);
    }
    let grace = old
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    !meta::finalizers(old).is_empty() && grace.unwrap_or(0) == 0
}
