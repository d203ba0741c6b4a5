//! Server-side apply, and the record of who set which field (`metadata.managedFields`) that every write keeps.
//!
//! Semantics: <https://kubernetes.io/docs/reference/using-api/server-side-apply/>, KEP-555. Sets of fields are kept in
//! their stored form (see `set`), and only what a write changed is looked at, so a write that changes nothing of an
//! object's spec pays for one comparison.

mod compare;
mod managed;
mod merge;
mod set;
mod shape;
mod typed;

use oarlock_model::{ApiError, Cause, Gvk, Reason, meta};
use serde_json::Value;

use crate::types::Schema;
use compare::{Diff, Old, compare};
use managed::Entry;
pub use managed::{MAX_UPDATE_MANAGERS, Operation};
use set::Set;

/// Fields of `metadata` that belong to the server.
const UNOWNED_METADATA: &[&str] = &[
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];
/// What owned everything before an object was first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// kubectl's own manager; it alone takes over from its client-side apply.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together; a last-applied text that does not fit is left empty.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// A path of field names.
pub type FieldPath = &'static [&'static str];

/// Who writes, and through what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    pub manager: &'a str,
    /// `apps/v1`.
    pub api_version: &'a str,
    /// Empty: the object itself.
    pub subresource: &'a str,
    /// As `oarlock_model::time::format_time` prints it.
    pub now: &'a str,
    /// What this way of writing cannot change, and therefore never owns: `status` of the object itself, `spec` of its
    /// status.
    pub reset: &'a [FieldPath],
    /// A field is the same in all versions of the kind, so what other versions own is looked at too. (Of kinds whose versions
    /// differ it is not known which field of one is which of another.)
    pub one_schema: bool,
}

impl Writer<'_> {
    /// Whether the fields of entries of this version are comparable with the writer's.
    fn sees(&self, api_version: &str) -> bool {
        self.one_schema || self.api_version == api_version
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The request contradicts itself.
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema; Kubernetes answers 500 without a reason.
    #[error("{0}")]
    Untyped(String),
    #[error("{message}")]
    Conflict { message: String, causes: Vec<Cause> },
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::BadRequest(text) => Self::bad_request(text),
            ApplyError::Untyped(text) => Self::new(Reason::InternalError, text),
            ApplyError::Conflict { message, causes } => {
                let mut error = Self::new(Reason::Conflict, message);
                error.causes = causes;
                error
            }
        }
    }
}

/// `live` with an apply configuration laid over it, of which no record is kept (what an admission policy changes nobody owns).
/// The error says how the configuration does not fit the schema.
pub fn lay_over(schema: &Schema, live: Value, config: &Value) -> Result<Value, String> {
    match typed::check(schema, config) {
        Some(why) => Err(why),
        None => Ok(merge::merge(Some(schema), live, config)),
    }
}

/// Records a create or an update (PUT, or a patch other than apply) in `new`'s managedFields. Call it after defaulting
/// and before admission and preparation, whose changes nobody owns. `old`: `None` for a create.
pub fn track_update(schema: &Schema, old: Option<&Value>, new: &mut Value, writer: &Writer<'_>) {
    let sent = take_managed(new);
    let Some(old) = old else {
        let mut fields = changed(schema, Old::Zero, new, writer);
        let mut own = fields.added;
        set::union(&mut own, &fields.modified);
        fields.removed.clear();
        store(new, vec![update_entry(own, writer)]);
        return;
    };
    let Some(mut entries) = entries_of(sent, old, writer) else {
        return;
    };
    let diff = changed(schema, Old::Is(old), new, writer);
    if !diff.is_empty() {
        let Diff {
            mut added,
            removed,
            modified,
        } = diff;
        set::union(&mut added, &modified);
        let own = added;
        let is_own = |e: &Entry| {
            e.is_of(
                writer.manager,
                Operation::Update,
                writer.api_version,
                writer.subresource,
            )
        };
        for entry in entries.iter_mut().filter(|e| writer.sees(&e.api_version)) {
            if !removed.is_empty() {
                set::subtract(&mut entry.fields, &removed);
            }
            if !is_own(entry) {
                set::subtract(&mut entry.fields, &own);
            }
        }
        if !own.is_empty() {
            match entries.iter_mut().find(|e| is_own(e)) {
                Some(entry) => {
                    set::union(&mut entry.fields, &own);
                    entry.time = writer.now.to_owned();
                }
                None => entries.push(update_entry(own, writer)),
            }
        }
        entries.retain(|e| !e.fields.is_empty());
        managed::cap(&mut entries);
    }
    store(new, entries);
}

/// The object that results from applying `config` to `live`, with its managedFields. It is to be defaulted, prepared and
/// validated like any other. `live`: `None` for a create.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
    gvk: &Gvk,
) -> Result<Value, ApplyError> {
    let sent = config.get("metadata").and_then(|m| m.get("managedFields"));
    if sent.is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::BadRequest(
            "metadata.managedFields must be nil".to_owned(),
        ));
    }
    if let Some(text) = typed::check(schema, config) {
        let (namespace, name) = (meta::namespace(config), meta::name(config));
        return Err(ApplyError::Untyped(format!(
            "failed to create typed patch object ({namespace}/{name}; {}/{}, Kind={}): {text}",
            gvk.group, gvk.version, gvk.kind
        )));
    }
    match apply_once(schema, live, config, writer, force) {
        Err(conflicts) if writer.manager == KUBECTL && !force => {
            let allowed = live
                .map(|l| last_applied_fields(schema, l))
                .unwrap_or_default();
            let rest: Vec<(Entry, Set)> = conflicts
                .into_iter()
                .map(|(entry, mut fields)| {
                    set::subtract(&mut fields, &allowed);
                    (entry, fields)
                })
                .filter(|(_, fields)| !fields.is_empty())
                .collect();
            if rest.is_empty() {
                apply_once(schema, live, config, writer, true).map_err(conflict)
            } else {
                Err(conflict(rest))
            }
        }
        result => result.map_err(conflict),
    }
    .map(|mut object| {
        if writer.manager == KUBECTL {
            renew_last_applied(&mut object, config);
        }
        object
    })
}

/// If `new` is `old` but for time stamps in managedFields, the old ones are put back, so that nothing changed.
pub fn keep_times_if_unchanged(old: &Value, new: &mut Value) {
    fn list(object: &Value) -> &[Value] {
        object
            .pointer("/metadata/managedFields")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }
    fn same_but_time(old: &Value, new: &Value) -> bool {
        let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else {
            return old == new;
        };
        let rest = |map: &serde_json::Map<String, Value>| {
            map.len() - usize::from(map.contains_key("time"))
        };
        rest(old) == rest(new)
            && old
                .iter()
                .all(|(k, v)| k == "time" || new.get(k) == Some(v))
    }
    let (ours, theirs) = (list(old), list(new));
    if ours == theirs
        || ours.len() != theirs.len()
        || !ours.iter().zip(theirs).all(|(a, b)| same_but_time(a, b))
    {
        return;
    }
    let unchanged = |name: &str| old.get(name) == new.get(name);
    let fields = |object: &Value| object.as_object().map_or(0, serde_json::Map::len);
    let keys_same = fields(old) == fields(new)
        && old
            .as_object()
            .is_some_and(|map| map.keys().all(|k| k == "metadata" || unchanged(k)));
    let (Some(before), Some(after)) = (old["metadata"].as_object(), new["metadata"].as_object())
    else {
        return;
    };
    let metadata_same = before.len() == after.len()
        && before.iter().all(|(k, v)| {
            k == "managedFields" || k == "resourceVersion" || after.get(k) == Some(v)
        });
    if keys_same && metadata_same {
        let kept = old["metadata"]["managedFields"].clone();
        meta::metadata_mut(new).insert("managedFields".to_owned(), kept);
    }
}

/// Ownership of one field of a parent object that was written through a subresource of another kind (`scale`): `path` is
/// the field's path in the parent, `changed` says whether its value changed. The entry has no time, as in Kubernetes.
pub fn track_field(
    parent: &mut Value,
    path: &[&str],
    changed: bool,
    writer: &Writer<'_>,
    operation: Operation,
    force: bool,
) -> Result<(), ApplyError> {
    let elements: Vec<String> = path.iter().map(|name| shape::field_element(name)).collect();
    let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
    let mut entries = take_managed(parent)
        .and_then(managed::decode)
        .unwrap_or_default();
    let is_own = |e: &Entry| {
        e.is_of(
            writer.manager,
            operation,
            writer.api_version,
            writer.subresource,
        )
    };
    let mut own = Set::new();
    for element in elements.iter().rev() {
        let below = std::mem::take(&mut own);
        own.insert((*element).to_owned(), Value::Object(below));
    }
    if changed {
        let owners: Vec<(Entry, Set)> = entries
            .iter()
            .filter(|e| !is_own(e) && set::contains_path(&e.fields, &elements))
            .map(|e| (e.clone(), own.clone()))
            .collect();
        if operation == Operation::Apply && !force && !owners.is_empty() {
            return Err(conflict(owners));
        }
        for entry in entries.iter_mut().filter(|e| !is_own(e)) {
            set::remove_path(&mut entry.fields, &elements);
        }
    }
    if changed || operation == Operation::Apply {
        match entries.iter_mut().find(|e| is_own(e)) {
            Some(entry) => set::union(&mut entry.fields, &own),
            None => entries.push(Entry {
                operation,
                time: String::new(),
                ..update_entry(own, writer)
            }),
        }
    }
    store(parent, entries);
    Ok(())
}

fn take_managed(object: &mut Value) -> Option<Value> {
    object
        .get_mut("metadata")?
        .as_object_mut()?
        .remove("managedFields")
}

fn store(object: &mut Value, entries: Vec<Entry>) {
    if let Some(list) = managed::encode(entries) {
        meta::metadata_mut(object).insert("managedFields".to_owned(), list);
    }
}

fn update_entry(fields: Set, writer: &Writer<'_>) -> Entry {
    Entry {
        manager: writer.manager.to_owned(),
        operation: Operation::Update,
        api_version: writer.api_version.to_owned(),
        subresource: writer.subresource.to_owned(),
        time: writer.now.to_owned(),
        fields,
    }
}

/// What differs, without what this writer cannot change.
fn changed(schema: &Schema, old: Old<'_>, new: &Value, writer: &Writer<'_>) -> Diff {
    let mut diff = compare(schema, old, new);
    for path in writer.reset {
        let elements: Vec<String> = path.iter().map(|name| shape::field_element(name)).collect();
        let elements: Vec<&str> = elements.iter().map(String::as_str).collect();
        for part in [&mut diff.added, &mut diff.removed, &mut diff.modified] {
            set::remove_path(part, &elements);
        }
    }
    diff
}

/// The entries that hold before an update. `None`: this object's fields are not tracked.
fn entries_of(sent: Option<Value>, old: &Value, writer: &Writer<'_>) -> Option<Vec<Entry>> {
    let live = || old.get("metadata").and_then(|m| m.get("managedFields"));
    let from_live = || live().cloned().and_then(managed::decode);
    let entries = if writer.subresource.is_empty() {
        match sent {
            None | Some(Value::Null) => from_live(),
            Some(Value::Array(list)) if list.is_empty() => None,
            Some(Value::Array(list))
                if list.len() == 1 && list[0].as_object().is_some_and(|e| e.is_empty()) =>
            {
                None
            }
            Some(list) => managed::decode(list).or_else(from_live),
        }
    } else if sent.is_some() && sent.as_ref() == live() {
        sent.and_then(managed::decode)
    } else {
        from_live()
    };
    entries.filter(|e| !e.is_empty())
}

/// The conflicting entries, each with the fields in conflict.
type Conflicts = Vec<(Entry, Set)>;

fn apply_once(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, Conflicts> {
    let named = typed::field_set(schema, config);
    let mut own = named.clone();
    strip(&mut own, writer);
    let Some(live) = live else {
        let mut object = config.clone();
        merge::drop_nulls(Some(schema), &mut object);
        let entry = Entry {
            operation: Operation::Apply,
            ..update_entry(own, writer)
        };
        store(&mut object, vec![entry]);
        return Ok(object);
    };
    let mut old = live.clone();
    let mut entries = take_managed(&mut old)
        .and_then(managed::decode)
        .unwrap_or_default();
    if entries.is_empty() {
        let before = Writer {
            manager: BEFORE_FIRST_APPLY,
            ..*writer
        };
        let Diff {
            mut added,
            modified,
            ..
        } = changed(schema, Old::Zero, &old, &before);
        set::union(&mut added, &modified);
        entries.push(update_entry(added, &before));
    }
    let at = entries.iter().position(|e| {
        e.is_of(
            writer.manager,
            Operation::Apply,
            writer.api_version,
            writer.subresource,
        )
    });
    let last = at.map(|at| entries.swap_remove(at));

    let mut object = merge::merge(Some(schema), old.clone(), config);
    if let Some(last) = last
        .as_ref()
        .filter(|last| !set::is_subset(&last.fields, &own))
    {
        let owned = merge::union_all(entries.iter().map(|e| &e.fields).chain([&named]));
        object = merge::prune(schema, object, &last.fields, &owned);
    }
    merge::drop_nulls(Some(schema), &mut object);

    let Diff {
        mut added,
        removed,
        modified,
    } = changed(schema, Old::Is(&old), &object, writer);
    set::union(&mut added, &modified);
    let conflicts: Conflicts = entries
        .iter()
        .filter(|e| writer.sees(&e.api_version) && set::intersects(&e.fields, &added))
        .map(|e| (e.clone(), set::intersection(&e.fields, &added)))
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflicts);
    }
    for entry in entries.iter_mut().filter(|e| writer.sees(&e.api_version)) {
        set::subtract(&mut entry.fields, &added);
        set::subtract(&mut entry.fields, &removed);
    }
    // An apply that changes nothing leaves the manager's time as it was.
    let time = if object == old {
        last.map(|l| l.time).unwrap_or_default()
    } else {
        writer.now.to_owned()
    };
    entries.push(Entry {
        operation: Operation::Apply,
        time,
        ..update_entry(own, writer)
    });
    store(&mut object, entries);
    Ok(object)
}

/// Takes out what nobody owns, and what this writer cannot change.
fn strip(fields: &mut Set, writer: &Writer<'_>) {
    fields.remove("f:apiVersion");
    fields.remove("f:kind");
    for name in UNOWNED_METADATA {
        set::remove_path(fields, &["f:metadata", &shape::field_element(name)]);
    }
    if fields
        .get("f:metadata")
        .and_then(Value::as_object)
        .is_some_and(set::is_member)
    {
        fields.remove("f:metadata");
    }
    for path in writer.reset {
        let elements: Vec<String> = path.iter().map(|name| shape::field_element(name)).collect();
        set::remove_path(
            fields,
            &elements.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
}

fn conflict(mut conflicts: Conflicts) -> ApplyError {
    conflicts.sort_by_cached_key(|(e, _)| {
        (
            e.api_version.clone(),
            e.manager.clone(),
            e.subresource.clone(),
        )
    });
    let mut causes = Vec::new();
    let mut text = String::new();
    for (entry, fields) in &conflicts {
        let who = entry.description();
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("conflicts with {who}:"));
        set::each_path(fields, &mut |path| {
            text.push_str(&format!("\n- {path}"));
            causes.push(Cause::new(
                "FieldManagerConflict",
                path,
                format!("conflict with {who}"),
            ));
        });
    }
    let message = match causes.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        ),
        many => format!("Apply failed with {} conflicts: {text}", many.len()),
    };
    ApplyError::Conflict { message, causes }
}

/// The fields that kubectl's client-side apply set and that nobody changed since: server-side apply may take them over.
fn last_applied_fields(schema: &Schema, live: &Value) -> Set {
    let Some(config) =
        meta::annotation(live, LAST_APPLIED).and_then(|t| serde_json::from_str::<Value>(t).ok())
    else {
        return Set::new();
    };
    let mut fields = typed::field_set(schema, &config);
    let Diff {
        added,
        removed,
        modified,
    } = compare(schema, Old::Is(&config), live);
    for part in [added, removed, modified] {
        set::subtract(&mut fields, &part);
    }
    fields
}

/// Keeps the annotation of client-side apply in step, if it is there, so that one can go back.
fn renew_last_applied(object: &mut Value, config: &Value) {
    if meta::annotation(object, LAST_APPLIED).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
        if annotations.is_empty() {
            meta::metadata_mut(&mut config).remove("annotations");
        }
    }
    let mut text = format!("{config}\n");
    let others = meta::annotations(object)
        .into_iter()
        .flatten()
        .filter(|(k, _)| *k != LAST_APPLIED);
    let size: usize = others
        .map(|(k, v)| k.len() + v.as_str().map_or(0, str::len))
        .sum();
    if size + LAST_APPLIED.len() + text.len() > MAX_ANNOTATION_BYTES {
        text.clear();
    }
    let annotations = meta::child_map_mut(meta::metadata_mut(object), "annotations");
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(text));
}

#[cfg(test)]
#[path = "apply/tests.rs"]
mod tests;
