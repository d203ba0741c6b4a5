//! `pods/binding`: gives a pod its node. One pod is one commit; many pods are issued together and share commits.
//!
//! Cost of one pod of a batch: 3 µs for its text (`splice`) and the store's share, 10 µs.

mod splice;

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Cause, Reason, meta, time};
use oarlock_store::{Action, Expect, Op, Record, TxnError};
use serde_json::{Map, Value, json};

use crate::codec::{encode, from_text, stored, stored_record, tree};
use crate::{BindRequest, Context, Registry, Stored, Target, errors, keys, scan};

/// How many bindings of a batch are on their way to the store at a time.
const BATCH_WORKERS: usize = 1024;
const MAX_ATTEMPTS: usize = 64;

/// What a Binding may carry besides the node.
#[derive(Debug, Default)]
struct Extra<'a> {
    labels: Option<&'a Map<String, Value>>,
    annotations: Option<&'a Map<String, Value>>,
}

impl Registry {
    pub(crate) async fn bind(
        &self,
        ctx: &Context,
        target: &Target,
        body: &Value,
    ) -> ApiResult<Stored> {
        super::match_name(target, body, "Binding")?;
        let text = |pointer: &str| {
            body.pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let mut causes = Vec::new();
        if !matches!(text("/target/kind"), "" | "Node") {
            causes.push(Cause::not_supported(
                "target.kind",
                &json!(text("/target/kind")),
                &["Node", "<empty>"],
            ));
        }
        if text("/target/name").is_empty() {
            causes.push(Cause::required("target.name", ""));
        }
        if !causes.is_empty() {
            // Upstream answers the bare list of errors here, as 500 without a reason.
            let texts: Vec<_> = causes
                .iter()
                .map(|c| format!("{}: {}", c.field, c.message))
                .collect();
            let list = if texts.len() == 1 {
                texts.concat()
            } else {
                format!("[{}]", texts.join(", "))
            };
            return Err(ApiError::new(Reason::Unknown, list));
        }
        let extra = Extra {
            labels: meta::labels(body),
            annotations: meta::annotations(body),
        };
        self.assign(ctx, target, meta::uid(body), text("/target/name"), &extra)
            .await
    }

    /// Binds each pod; results in order.
    pub async fn bind_many(
        &self,
        ctx: &Context,
        bindings: &[BindRequest],
    ) -> Vec<ApiResult<Stored>> {
        let Some(row) = self.row("", "pods") else {
            let error = ApiError::internal("pods are not served");
            return bindings.iter().map(|_| Err(error.clone())).collect();
        };
        let mut each = Vec::with_capacity(bindings.len());
        for binding in bindings {
            each.push(self.bind_one(ctx, &row, binding));
        }
        futures::stream::iter(each)
            .buffered(BATCH_WORKERS)
            .collect()
            .await
    }

    async fn bind_one(
        &self,
        ctx: &Context,
        row: &Arc<Row>,
        binding: &BindRequest,
    ) -> ApiResult<Stored> {
        let target = Target::sub(row, &binding.namespace, &binding.name, "binding");
        self.assign(ctx, &target, &binding.uid, &binding.node, &Extra::default())
            .await
    }

    async fn assign(
        &self,
        ctx: &Context,
        target: &Target,
        uid: &str,
        node: &str,
        extra: &Extra<'_>,
    ) -> ApiResult<Stored> {
        let key = keys::key_of(target);
        for _ in 0..MAX_ATTEMPTS {
            let record = self
                .store()
                .get(&key)
                .ok_or_else(|| errors::not_found(target))?;
            let value = match bound_text(ctx, uid, node, extra, &record) {
                Some(value) => value,
                None => bound_tree(ctx, target, uid, node, extra, &record)?,
            };
            if ctx.dry_run {
                return Ok(stored(&value, record.modified));
            }
            let op = Op {
                key: key.clone(),
                expect: Expect::Revision(record.modified),
                action: Action::Put(value.clone()),
            };
            match self.store().commit(vec![op]).await {
                Ok(committed) => return Ok(stored(&value, committed.revision)),
                Err(TxnError::Conflict { .. }) => {}
                Err(error) => return Err(errors::txn(error)),
            }
        }
        Err(errors::modified(&target.row, &target.name))
    }
}

/// The bound pod by way of its text, if it is plain enough.
fn bound_text(
    ctx: &Context,
    uid: &str,
    node: &str,
    extra: &Extra<'_>,
    record: &Record,
) -> Option<Bytes> {
    if extra.labels.is_some() || extra.annotations.is_some() {
        return None;
    }
    let pod = stored_record(record);
    if !uid.is_empty() && scan::text(&pod.json, &["metadata", "uid"]) != uid {
        return None;
    }
    let json = splice::bound(&pod.json, node, &time::format_time(ctx.now))?;
    Some(from_text(&json, pod.hole))
}

/// The same by way of its tree, with the reasons why it may not be bound.
fn bound_tree(
    ctx: &Context,
    target: &Target,
    uid: &str,
    node: &str,
    extra: &Extra<'_>,
    record: &Record,
) -> ApiResult<Bytes> {
    let mut pod = tree(&record.value)?;
    if !uid.is_empty() && uid != meta::uid(&pod) {
        return Err(errors::uid_mismatch(
            &target.row,
            &target.namespace,
            &target.name,
            uid,
            meta::uid(&pod),
        ));
    }
    refuse_unbindable(target, &pod)?;
    set_node(ctx, &mut pod, node, extra);
    encode(&pod)
}

fn refuse_unbindable(target: &Target, pod: &Value) -> ApiResult<()> {
    let name = &target.name;
    let conflict = |why: String| Err(ApiError::conflict("", "pods/binding", name, &why));
    if meta::is_terminating(pod) {
        return conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    match pod.pointer("/spec/nodeName").and_then(Value::as_str) {
        None | Some("") => {}
        Some(node) => return conflict(format!("pod {name} is already assigned to node {node:?}")),
    }
    if pod
        .pointer("/spec/schedulingGates")
        .and_then(Value::as_array)
        .is_some_and(|gates| !gates.is_empty())
    {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

fn set_node(ctx: &Context, pod: &mut Value, node: &str, extra: &Extra<'_>) {
    for (field, added) in [("labels", extra.labels), ("annotations", extra.annotations)] {
        if let Some(added) = added {
            let map = meta::child_map_mut(meta::metadata_mut(pod), field);
            map.extend(
                added
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
        }
    }
    let map = meta::as_map_mut(pod);
    meta::child_map_mut(map, "spec").insert("nodeName".to_owned(), json!(node));
    let status = meta::child_map_mut(map, "status");
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": time::format_time(ctx.now),
    });
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Value::Array(list) = conditions {
        match list
            .iter_mut()
            .find(|c| c.get("type").and_then(Value::as_str) == Some("PodScheduled"))
        {
            Some(found) => *found = condition,
            None => list.push(condition),
        }
    }
}
