//! Delete and deletecollection: preconditions, grace, finalizers, propagation.
//! Source: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/> and, for grace periods,
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>
//!
//! An object with finalizers is marked and stays; a pod's end has two steps, a mark with a grace period and the removal,
//! so that watchers see both.

use futures::StreamExt as _;
use jiff::SignedDuration;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Cause, Reason, meta, time};
use oarlock_store::{Action, Expect, Op, Record, TxnError};
use serde_json::{Value, json};

use crate::admission::{AdmissionRequest, Operation, Rounds};
use crate::{Context, DeleteOptions, Deleted, List, ListOptions, Registry, Target};
use crate::{definitions, errors, keys, metadata, strategy};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How often a delete starts over because somebody else wrote in between.
const MAX_ATTEMPTS: usize = 64;
/// How many deletes of a collection are on their way to the store at a time: they share its commits.
const COLLECTION_WORKERS: usize = 64;
/// Namespaces that are there for good.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What the rules make of one object that is to be deleted.
enum Verdict {
    /// Nothing changes: a deletion is under way already.
    Pending,
    /// Store the marked object; then remove it if `remove`.
    Mark {
        object: Box<Value>,
        remove: bool,
    },
    Remove,
}

impl DeleteOptions {
    /// 422 for options that contradict themselves.
    pub fn check(&self) -> ApiResult<()> {
        let mut causes = Vec::new();
        if let Some(policy) = &self.propagation_policy {
            let value = Value::String(policy.clone());
            if self.orphan_dependents.is_some() {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                causes.push(Cause::invalid("propagationPolicy", &value, why));
            } else if !matches!(policy.as_str(), "Foreground" | "Background" | "Orphan") {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                causes.push(Cause::not_supported(
                    "propagationPolicy",
                    &value,
                    &supported,
                ));
            }
        }
        if causes.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                causes,
            ))
        }
    }
}

impl Registry {
    pub async fn delete(
        &self,
        ctx: &Context,
        target: &Target,
        options: &DeleteOptions,
    ) -> ApiResult<Deleted> {
        options.check()?;
        let row = &target.row;
        if strategy::is(row, "", "Namespace") && IMMORTAL.contains(&target.name.as_str()) {
            return Err(ApiError::forbidden(
                "",
                &row.resource,
                &target.name,
                "this namespace may not be deleted",
            ));
        }
        let key = keys::key_of(target);
        for _ in 0..MAX_ATTEMPTS {
            let record = self
                .store()
                .get(&key)
                .ok_or_else(|| errors::not_found(target))?;
            let mut object = self.load(row, &record.value).await?;
            check_preconditions(row, &object, &record, options)?;
            self.admit_delete(ctx, target, &object).await?;
            warn_of_orphans(ctx, row, options);
            let verdict = if strategy::is(row, "", "Namespace") {
                judge_namespace(ctx, row, &mut object, options)
            } else if strategy::is(row, definitions::GROUP, definitions::KIND)
                && !meta::is_terminating(&object)
            {
                definitions::mark(&mut object, &time::format_time(ctx.now));
                Verdict::Mark {
                    object: Box::new(object),
                    remove: false,
                }
            } else {
                judge(ctx, row, &mut object, options)
            };
            if let Some(deleted) = self.carry_out(ctx, target, &record, verdict).await? {
                return Ok(deleted);
            }
        }
        Err(errors::modified(row, &target.name))
    }

    /// `None`: somebody else wrote in between.
    async fn carry_out(
        &self,
        ctx: &Context,
        target: &Target,
        record: &Record,
        verdict: Verdict,
    ) -> ApiResult<Option<Deleted>> {
        match verdict {
            Verdict::Pending => {
                let row = &target.row;
                let object = self.shown(row, &record.value, record.modified).await?;
                Ok(Some(Deleted::Pending(object)))
            }
            Verdict::Remove => {
                let revision = if ctx.dry_run {
                    Some(record.modified)
                } else {
                    self.remove(target, record).await?
                };
                let Some(revision) = revision else {
                    return Ok(None);
                };
                let gone = self.shown(&target.row, &record.value, revision).await?;
                Ok(Some(Deleted::Gone(gone)))
            }
            Verdict::Mark { object, remove } => {
                let value = self.save(&target.row, &object).await?;
                let answer = async |revision| -> ApiResult<Option<Deleted>> {
                    let object = self.shown(&target.row, &value, revision).await?;
                    Ok(Some(if remove {
                        Deleted::Gone(object)
                    } else {
                        Deleted::Pending(object)
                    }))
                };
                if ctx.dry_run {
                    return answer(record.modified).await;
                }
                let put = Action::Put(value.clone());
                let op = Op {
                    key: record.key.to_string(),
                    expect: Expect::Revision(record.modified),
                    action: put,
                };
                let marked = match self.store().commit(vec![op]).await {
                    Ok(committed) => committed,
                    Err(TxnError::Conflict { .. }) => return Ok(None),
                    Err(error) => return Err(errors::txn(error)),
                };
                if !remove {
                    return answer(marked.revision).await;
                }
                answer(self.remove_marked(target, marked.revision, &value).await?).await
            }
        }
    }

    /// Removes what was just marked. That somebody else has removed it is as good; a change in between means that the
    /// object stays, marked.
    async fn remove_marked(
        &self,
        target: &Target,
        marked: u64,
        value: &bytes::Bytes,
    ) -> ApiResult<u64> {
        let op = Op {
            key: keys::key_of(target),
            expect: Expect::Revision(marked),
            action: Action::Delete,
        };
        match self.store().commit(vec![op]).await {
            Ok(committed) => {
                self.services().release(&target.row, value);
                Ok(committed.revision)
            }
            Err(TxnError::Conflict { .. }) => Ok(marked),
            Err(error) => Err(errors::txn(error)),
        }
    }

    async fn admit_delete(&self, ctx: &Context, target: &Target, old: &Value) -> ApiResult<()> {
        let operation = Operation::Delete;
        let mut request = AdmissionRequest {
            context: ctx,
            target,
            operation,
            object: None,
            old: Some(old),
            rounds: Rounds::default(),
        };
        self.mutate(&mut request).await?;
        for plugin in self.plugins(&ctx.user, target, operation) {
            plugin.validate(self, &request).await?;
        }
        Ok(())
    }

    /// Answers the objects as they were listed.
    pub async fn delete_collection(
        &self,
        ctx: &Context,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<List> {
        options.check()?;
        let found = self.list(ctx, target, list).await?;
        let one = |item: &crate::Stored| Target {
            namespace: crate::scan::text(&item.json, &["metadata", "namespace"]).into_owned(),
            name: crate::scan::text(&item.json, &["metadata", "name"]).into_owned(),
            ..target.clone()
        };
        // Owned, so that the future may be sent to another thread.
        let targets: Vec<Target> = found.items.iter().map(one).collect();
        let deletes = targets.into_iter().map(|target| async move {
            match self.delete(ctx, &target, options).await {
                Err(error) if error.reason == Reason::NotFound => Ok(()),
                other => other.map(drop),
            }
        });
        let results: Vec<ApiResult<()>> = futures::stream::iter(deletes)
            .buffered(COLLECTION_WORKERS)
            .collect()
            .await;
        results.into_iter().collect::<ApiResult<()>>()?;
        Ok(found)
    }
}

fn check_preconditions(
    row: &Row,
    object: &Value,
    record: &Record,
    options: &DeleteOptions,
) -> ApiResult<()> {
    let name = meta::name(object);
    let conflict = |why: String| Err(ApiError::conflict(&row.group, &row.kind, name, &why));
    if let Some(wanted) = &options.precondition_uid
        && wanted != meta::uid(object)
    {
        return conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            meta::uid(object)
        ));
    }
    if let Some(wanted) = &options.precondition_resource_version
        && *wanted != record.modified.to_string()
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({}). The \
             object might have been modified",
            record.modified
        ));
    }
    Ok(())
}

fn warn_of_orphans(ctx: &Context, row: &Row, options: &DeleteOptions) {
    let silent = options.propagation_policy.is_none() && options.orphan_dependents.is_none();
    if silent && strategy::is(row, "batch", "Job") {
        ctx.warn(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or \
             set propagationPolicy=Orphan to suppress this warning",
        );
    }
}

fn judge(ctx: &Context, row: &Row, object: &mut Value, options: &DeleteOptions) -> Verdict {
    let grace = match mark_graceful(ctx, row, object, options) {
        Grace::UnderWay => return Verdict::Pending,
        Grace::Marked { seconds } => Some(seconds),
        Grace::None => None,
    };
    let finalizers_changed = set_propagation(row, object, options);
    let pending = !meta::finalizers(object).is_empty();
    match grace {
        Some(seconds) => Verdict::Mark {
            object: Box::new(object.take()),
            remove: seconds == 0 && !pending,
        },
        None if pending => {
            let was_marked = meta::is_terminating(object);
            mark_now(ctx, object);
            if was_marked && !finalizers_changed && same_mark(object) {
                return Verdict::Pending;
            }
            Verdict::Mark {
                object: Box::new(object.take()),
                remove: false,
            }
        }
        None => Verdict::Remove,
    }
}

enum Grace {
    /// The kind knows no grace, or the grace is over.
    None,
    Marked {
        seconds: i64,
    },
    UnderWay,
}

fn mark_graceful(ctx: &Context, row: &Row, object: &mut Value, options: &DeleteOptions) -> Grace {
    // A negative period means the shortest one.
    let at_least = |seconds: i64| if seconds < 0 { 1 } else { seconds };
    let Some(default) = (row.hooks.grace_seconds)(object) else {
        return Grace::None;
    };
    let asked = options.grace_period_seconds.map(at_least);
    let at_once = strategy::ends_at_once(row, object);
    let metadata = meta::metadata_mut(object);
    let marked = metadata
        .get("deletionTimestamp")
        .and_then(Value::as_str)
        .and_then(time::parse_time);
    if let Some(deadline) = marked {
        let current = metadata
            .get("deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
            .map_or(0, at_least);
        return match asked {
            _ if current == 0 => Grace::None,
            Some(seconds) if seconds < current => {
                let deadline = deadline - SignedDuration::from_secs(current - seconds);
                set_mark(object, deadline, seconds);
                Grace::Marked { seconds }
            }
            _ => Grace::UnderWay,
        };
    }
    let seconds = if at_once {
        0
    } else {
        at_least(asked.unwrap_or(default))
    };
    let deadline = ctx
        .now
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(ctx.now);
    set_mark(object, deadline, seconds);
    metadata::bump_generation(object);
    Grace::Marked { seconds }
}

fn set_mark(object: &mut Value, deadline: jiff::Timestamp, seconds: i64) {
    let metadata = meta::metadata_mut(object);
    metadata.insert(
        "deletionTimestamp".to_owned(),
        Value::String(time::format_time(deadline)),
    );
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(seconds));
}

/// Marks an object that waits for its finalizers and knows no grace.
fn mark_now(ctx: &Context, object: &mut Value) {
    let now = time::format_time(ctx.now);
    let before = meta::deletion_timestamp(object).and_then(time::parse_time);
    if before.is_none() {
        metadata::bump_generation(object);
    }
    let metadata = meta::metadata_mut(object);
    if before.is_none_or(|at| at > ctx.now) {
        metadata.insert("deletionTimestamp".to_owned(), Value::String(now));
    }
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(0));
}

fn same_mark(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        == Some(0)
}

/// Puts the finalizer of the wanted propagation on the object, takes the other one off. True if that changed anything.
fn set_propagation(row: &Row, object: &mut Value, options: &DeleteOptions) -> bool {
    if strategy::ignores_propagation(row) {
        return false;
    }
    let before: Vec<String> = meta::finalizers(object)
        .into_iter()
        .map(str::to_owned)
        .collect();
    let has = |name: &str| before.iter().any(|f| f == name);
    let (orphan, foreground) = match (
        options.orphan_dependents,
        options.propagation_policy.as_deref(),
    ) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        // An object that carries one already keeps it.
        (None, None) if has(ORPHAN) => (true, false),
        (None, None) if has(FOREGROUND) => (false, true),
        (None, None) => (strategy::orphans(row), false),
    };
    let mut after: Vec<String> = before
        .iter()
        .filter(|f| *f != ORPHAN && *f != FOREGROUND)
        .cloned()
        .collect();
    after.extend(orphan.then(|| ORPHAN.to_owned()));
    after.extend(foreground.then(|| FOREGROUND.to_owned()));
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    if sorted(&before) == sorted(&after) {
        return false;
    }
    set_finalizers(object, &after);
    true
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let metadata = meta::metadata_mut(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
}

/// A namespace is emptied by its controller first: it turns Terminating, and goes when `spec.finalizers` is empty.
fn judge_namespace(
    ctx: &Context,
    row: &Row,
    object: &mut Value,
    options: &DeleteOptions,
) -> Verdict {
    let finalizers = |object: &Value| {
        object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    };
    if !meta::is_terminating(object) {
        meta::set(object, "deletionTimestamp", time::format_time(ctx.now));
        let map = meta::as_map_mut(object);
        meta::child_map_mut(map, "status").insert("phase".to_owned(), json!("Terminating"));
        set_propagation(row, object, options);
        let remove = !finalizers(object) && meta::finalizers(object).is_empty();
        return Verdict::Mark {
            object: Box::new(object.take()),
            remove,
        };
    }
    if finalizers(object) || !meta::finalizers(object).is_empty() {
        Verdict::Pending
    } else {
        Verdict::Remove
    }
}
