//! CustomResourceDefinitions at run time: committed definitions become rows of the table of kinds, and what the API server
//! itself says of a definition (accepted names, conditions) is written to its status.
//!
//! One task follows the definitions' events. The table is made anew before a definition is looked at, so what its status
//! says is so. An instance's deletion is the delete path's; a definition goes when no instance is left.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use oarlock_kinds::{Row, custom, rules};
use oarlock_model::{ApiResult, meta, time};
use oarlock_store::{RangeQuery, Record, Revision, Store, WatchEnd};
use serde_json::{Value, json};

use crate::codec::tree;
use crate::write::View;
use crate::{Context, DeleteOptions, ListOptions, Registry, Target, User, errors, keys};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const KIND: &str = "CustomResourceDefinition";
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";
const FIELD_MANAGER: &str = "kube-apiserver";
/// Events that are handled at once at most.
const MAX_BATCH: usize = 256;
/// How often it is looked whether the instances of a definition that is to go are gone.
const INSTANCES_PERIOD: Duration = Duration::from_millis(500);

/// A definition as it was last seen.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    record: Arc<Record>,
    /// Without its versions, which are the most of it.
    outline: Arc<Value>,
    fingerprint: String,
}

/// By key.
pub(crate) type KnownDefinitions = BTreeMap<Arc<str>, Known>;

impl Known {
    fn of(record: Arc<Record>) -> ApiResult<Self> {
        let mut outline = tree(&record.value)?;
        let fingerprint = custom::fingerprint(&outline);
        if let Some(Value::Object(spec)) = outline.get_mut("spec") {
            spec.remove("versions");
        }
        Ok(Self {
            record,
            outline: Arc::new(outline),
            fingerprint,
        })
    }

    /// Kinds are listed in the order in which they were defined.
    fn order(&self) -> (Revision, &str) {
        (self.record.created, &self.record.key)
    }
}

/// Ends the task that follows the definitions when the registry goes.
#[derive(Debug, Default)]
pub(crate) struct Follower(Option<tokio::task::AbortHandle>);

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Serves what is stored already, then follows.
pub(crate) fn start(registry: &Arc<Registry>) -> ApiResult<()> {
    let Some(row) = registry.row(GROUP, RESOURCE) else {
        return Ok(());
    };
    let from = registry.renew_kinds(&row)?;
    let store = Arc::clone(registry.store());
    let task = tokio::spawn(follow(Arc::downgrade(registry), store, row, from));
    *registry.follower().lock() = Follower(Some(task.abort_handle()));
    Ok(())
}

async fn follow(
    registry: Weak<Registry>,
    store: Arc<dyn Store>,
    row: Arc<Row>,
    mut from: Revision,
) {
    let prefix = keys::prefix(&row, "");
    loop {
        let Ok(mut watch) = store.watch(&prefix, from) else {
            from = store.revision();
            continue;
        };
        // Everything is looked at once: a status may not have been written before the process ended.
        let mut changed: BTreeSet<String> = match registry.upgrade().map(|r| r.definitions(&row)) {
            Some(Ok((all, _))) => all
                .iter()
                .map(|known| meta::name(&known.outline).to_owned())
                .collect(),
            _ => BTreeSet::new(),
        };
        loop {
            let Some(strong) = registry.upgrade() else {
                return;
            };
            let going = strong.look_at(&row, std::mem::take(&mut changed)).await;
            drop(strong);
            let next = watch.next(MAX_BATCH);
            let batch = if going.is_empty() {
                next.await
            } else {
                changed = going;
                match tokio::time::timeout(INSTANCES_PERIOD, next).await {
                    Ok(batch) => batch,
                    Err(_) => continue,
                }
            };
            match batch {
                Ok(batch) => {
                    let names = batch
                        .events
                        .iter()
                        .map(|event| keys::split(&row, &event.key).1.to_owned());
                    changed.extend(names);
                    // A definition that is gone has freed its names, and its rows must go.
                    changed.insert(String::new());
                }
                Err(WatchEnd::Closed) => return,
                Err(WatchEnd::Compacted { .. }) => {
                    from = store.revision();
                    break;
                }
            }
        }
    }
}

impl Registry {
    /// All definitions without their versions, and the revision that they are the state at. Only those that have changed
    /// are parsed.
    fn definitions(&self, row: &Row) -> ApiResult<(Vec<Known>, Revision)> {
        let query = RangeQuery {
            prefix: keys::prefix(row, ""),
            ..RangeQuery::default()
        };
        let page = self.store().range(&query).map_err(errors::list_read)?;
        let mut known = self.known_definitions().lock();
        let mut all = BTreeMap::new();
        for record in page.records {
            let key = Arc::clone(&record.key);
            let same = known
                .remove(&key)
                .filter(|k| k.record.modified == record.modified);
            let one = match same {
                Some(one) => one,
                None => Known::of(record)?,
            };
            all.insert(key, one);
        }
        known.clone_from(&all);
        Ok((all.into_values().collect(), page.revision))
    }

    /// Makes the table of kinds anew: the rows that no definition has made, and those of the definitions. A row whose
    /// definition has not changed stays the same.
    fn renew_kinds(&self, row: &Row) -> ApiResult<Revision> {
        let (mut definitions, revision) = self.definitions(row)?;
        definitions.sort_by(|a, b| a.order().cmp(&b.order()));
        let old = self.kinds();
        let mut by_definition: BTreeMap<&str, Vec<&Arc<Row>>> = BTreeMap::new();
        let mut rows = Vec::with_capacity(old.rows().len());
        for row in old.rows() {
            match &row.custom {
                Some(custom) => by_definition
                    .entry(&custom.fingerprint)
                    .or_default()
                    .push(row),
                None => rows.push(Arc::clone(row)),
            }
        }
        for known in &definitions {
            match by_definition.get(known.fingerprint.as_str()) {
                Some(kept) => rows.extend(kept.iter().map(|row| Arc::clone(row))),
                None if !custom::is_served(&known.outline) => {}
                None => {
                    let definition = tree(&known.record.value)?;
                    rows.extend(custom::rows(&definition).into_iter().map(Arc::new));
                }
            }
        }
        let same = rows.len() == old.rows().len()
            && rows.iter().zip(old.rows()).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.set_kinds(oarlock_kinds::Kinds::from_shared(rows));
        }
        Ok(revision)
    }

    /// Does what there is to do for these definitions; the names of those that wait for their instances to go.
    async fn look_at(&self, row: &Arc<Row>, mut names: BTreeSet<String>) -> BTreeSet<String> {
        let mut going = BTreeSet::new();
        if names.is_empty() {
            return going;
        }
        if let Err(error) = self.renew_kinds(row) {
            tracing::error!(%error, "the table of kinds cannot be made anew");
            return names;
        }
        // A name that was given up may be what another definition of the group waits for.
        if let Ok((all, _)) = self.definitions(row) {
            let waiting = all.iter().map(|known| &*known.outline);
            let waiting = waiting.filter(|d| !custom::has_condition(d, "NamesAccepted"));
            names.extend(waiting.map(|d| meta::name(d).to_owned()));
        }
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            match self.advance(row, &name).await {
                Ok(true) => {
                    going.insert(name);
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(definition = name, %error, "a definition's status cannot be written");
                }
            }
        }
        going
    }

    /// The next step of one definition. True: it waits for its instances to go.
    async fn advance(&self, row: &Arc<Row>, name: &str) -> ApiResult<bool> {
        let target = Target::sub(row, "", name, "status");
        let Some(record) = self.store().get(&keys::key_of(&target)) else {
            return Ok(false);
        };
        let definition = tree(&record.value)?;
        let now = Timestamp::now();
        if meta::is_terminating(&definition) && meta::finalizers(&definition).contains(&FINALIZER) {
            return self.finish(row, &target, &definition, now).await;
        }
        let (all, _) = self.definitions(row)?;
        let all: Vec<Arc<Value>> = all.into_iter().map(|known| known.outline).collect();
        if let Some(status) = names::next_status(&definition, &all, &time::format_time(now)) {
            self.write_status(&target, &definition, status, now).await?;
        }
        Ok(false)
    }

    async fn write_status(
        &self,
        target: &Target,
        seen: &Value,
        status: Value,
        now: Timestamp,
    ) -> ApiResult<()> {
        let ctx = context(now);
        let same = |old: &Value| {
            old.get("status") == seen.get("status") && old.get("spec") == seen.get("spec")
        };
        self.modify(&ctx, target, View::Whole, &mut |old| {
            let mut object = old.clone();
            // Written to in between: what follows from that comes with its own event.
            if same(old) {
                meta::as_map_mut(&mut object).insert("status".to_owned(), status.clone());
            }
            Ok(object.into())
        })
        .await
        .map(drop)
    }

    /// Deletes the instances of a definition that is to go, and lets it go when there are none. True: there are some.
    async fn finish(
        &self,
        row: &Arc<Row>,
        target: &Target,
        definition: &Value,
        now: Timestamp,
    ) -> ApiResult<bool> {
        let reason = names::condition(definition, "Terminating").and_then(|c| c.get("reason"));
        if reason.and_then(Value::as_str) != Some("InstanceDeletionInProgress") {
            let mut status = definition["status"].clone();
            names::set_condition(
                &mut status,
                (
                    "Terminating",
                    "True",
                    "InstanceDeletionInProgress",
                    "CustomResource deletion is in progress",
                ),
                &time::format_time(now),
            );
            self.write_status(target, definition, status, now).await?;
        }
        let storage = format!("{}/", meta::name(definition));
        let kinds = self.kinds();
        let instances = kinds
            .rows()
            .iter()
            .find(|r| r.custom.is_some() && format!("{}/", r.storage_prefix) == storage);
        if let Some(instances) = instances
            && self.store().count(&storage) > 0
        {
            let all = Target::new(instances, "", "");
            self.delete_collection(
                &context(now),
                &all,
                &ListOptions::default(),
                &DeleteOptions::default(),
            )
            .await?;
            if self.store().count(&storage) > 0 {
                return Ok(true);
            }
        }
        let whole = Target::new(row, "", &target.name);
        let Some(record) = self.store().get(&keys::key_of(&whole)) else {
            return Ok(false);
        };
        let mut last = tree(&record.value)?;
        let rest: Vec<&str> = meta::finalizers(&last)
            .into_iter()
            .filter(|f| *f != FINALIZER)
            .collect();
        if rest.is_empty() {
            self.remove(&whole, &record).await?;
            return Ok(false);
        }
        let rest = json!(rest);
        meta::metadata_mut(&mut last).insert("finalizers".to_owned(), rest.clone());
        self.modify(&context(now), &whole, View::Whole, &mut |old| {
            let mut object = old.clone();
            meta::metadata_mut(&mut object).insert("finalizers".to_owned(), rest.clone());
            Ok(object.into())
        })
        .await
        .map(|_| false)
    }
}

fn context(now: Timestamp) -> Context {
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), now);
    FIELD_MANAGER.clone_into(&mut ctx.field_manager);
    ctx
}

/// Marks a definition that is to be deleted: it stays until its instances are gone.
pub(crate) fn mark(definition: &mut Value, now: &str) {
    meta::set(definition, "deletionTimestamp", now);
    let mut finalizers: Vec<String> = meta::finalizers(definition)
        .into_iter()
        .map(str::to_owned)
        .collect();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    meta::metadata_mut(definition).insert("finalizers".to_owned(), json!(finalizers));
    let map = meta::as_map_mut(definition);
    let mut status = map.remove("status").unwrap_or_else(|| json!({}));
    let text =
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    names::set_condition(
        &mut status,
        ("Terminating", "True", "InstanceDeletionPending", text),
        now,
    );
    map.insert("status".to_owned(), status);
}

/// Whether the annotation of a definition in a group of the Kubernetes community says that it was approved.
fn approval(definition: &Value) -> Option<(&'static str, &'static str, String)> {
    let group = definition
        .pointer("/spec/group")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !rules::definition::is_community_group(group) {
        return None;
    }
    Some(match rules::definition::approval(definition) {
        rules::definition::Approval::Missing(why) => ("False", "MissingAnnotation", why),
        rules::definition::Approval::Invalid(why) => ("False", "InvalidAnnotation", why),
        rules::definition::Approval::Bypassed(why) => ("False", "UnapprovedAnnotation", why),
        rules::definition::Approval::Approved(why) => ("True", "ApprovedAnnotation", why),
    })
}
