//! ResourceQuota: what a write adds is charged to the namespace's quotas before it is stored, and refused where it is too much.
//! What is given back is for a controller to count. Source: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>

mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use oarlock_model::{ApiResult, LabelSelector, meta};
use oarlock_store::{Action, Expect, Op, TxnError};
use serde_json::{Value, json};

use super::limits::{Amounts, amounts};
use super::{all, forbidden, list};
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::codec::{load, save};
use crate::{Context, Registry, Target, errors, keys, managed, strategy};

/// Whose the charged amounts are.
const FIELD_MANAGER: &str = "kube-apiserver";
/// How often a quota is charged anew because somebody else charged it in between.
const MAX_ATTEMPTS: usize = 64;

#[derive(Debug)]
pub(in crate::admission) struct ResourceQuota;

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        if !target.row.namespaced || !target.row.stored || target.row.kind == "Event" {
            return false;
        }
        match operation {
            Operation::Create => target.subresource.is_empty(),
            Operation::Update => usage::changes(target),
            _ => false,
        }
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let (target, Some(object)) = (request.target, request.object.as_deref()) else {
            return Ok(());
        };
        let quotas = all(registry, "", "resourcequotas", &target.namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let refuse = |why: &str| Err(forbidden(target, object, why));
        let mut interested = Vec::new();
        for quota in &quotas {
            let hard = amounts(quota, "/status/hard");
            let ours: BTreeSet<&str> = hard
                .keys()
                .map(String::as_str)
                .filter(|name| usage::counts(target, name))
                .collect();
            if ours.is_empty() || !in_scope(quota, target, object) {
                continue;
            }
            let name = meta::name(quota);
            if let Some(missing) = usage::unsaid(target, object, &ours) {
                return refuse(&format!("failed quota: {name}: must specify {missing}"));
            }
            let used = amounts(quota, "/status/used");
            if ours.iter().any(|resource| !used.contains_key(*resource)) {
                let all: Vec<&str> = ours.iter().copied().collect();
                let all = all.join(",");
                return refuse(&format!(
                    "status unknown for quota: {name}, resources: {all}"
                ));
            }
            interested.push(name.to_owned());
        }
        if interested.is_empty() {
            return Ok(());
        }
        let mut delta = usage::of(target, object);
        if let Some(old) = request.old {
            let before = usage::of(target, old);
            for (name, amount) in &mut delta {
                *amount = before.get(name).map_or(*amount, |was| amount.minus(*was));
            }
        }
        delta.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
        if delta.is_empty() {
            return Ok(());
        }
        // All are asked before any is charged.
        for name in &interested {
            charge(registry, request, object, name, &delta, false).await?;
        }
        if request.context.dry_run {
            return Ok(());
        }
        for name in &interested {
            charge(registry, request, object, name, &delta, true).await?;
        }
        Ok(())
    }
}

/// Adds to what a quota has used, if it fits; `write`: and says so in its status.
async fn charge(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
    object: &Value,
    name: &str,
    delta: &Amounts,
    write: bool,
) -> ApiResult<()> {
    let target = request.target;
    let Some(row) = registry.row("", "resourcequotas") else {
        return Ok(());
    };
    let key = keys::key(&row, &target.namespace, name);
    for _ in 0..MAX_ATTEMPTS {
        let Some(record) = registry.store().get(&key) else {
            return Ok(());
        };
        let old = load(&row, &record.value)?;
        let mut quota = old.clone();
        let hard = amounts(&quota, "/status/hard");
        let mut used = amounts(&quota, "/status/used");
        let added: BTreeMap<&String, _> = delta
            .iter()
            .filter(|(r, _)| hard.contains_key(*r))
            .collect();
        let exceeded: Vec<&String> = added
            .iter()
            .filter(|(resource, amount)| {
                let now = used
                    .get(**resource)
                    .map_or(***amount, |u| u.plus(***amount));
                hard.get(**resource).is_some_and(|most| now > *most)
            })
            .map(|(resource, _)| *resource)
            .collect();
        if !exceeded.is_empty() {
            let show = |of: &Amounts| {
                let texts: Vec<String> = exceeded
                    .iter()
                    .filter_map(|r| Some(format!("{r}={}", of.get(*r)?)))
                    .collect();
                texts.join(",")
            };
            let why = format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                show(delta),
                show(&used),
                show(&hard)
            );
            return Err(forbidden(target, object, &why));
        }
        if !write || added.is_empty() {
            return Ok(());
        }
        for (resource, amount) in added {
            let now = used.get(resource).map_or(*amount, |u| u.plus(*amount));
            used.insert(resource.clone(), now);
        }
        let texts: serde_json::Map<String, Value> = used
            .iter()
            .map(|(resource, amount)| (resource.clone(), json!(amount.to_string())))
            .collect();
        meta::child_map_mut(meta::as_map_mut(&mut quota), "status")
            .insert("used".to_owned(), Value::Object(texts));
        let writer = Context {
            field_manager: FIELD_MANAGER.to_owned(),
            ..Context::new(Arc::clone(&request.context.user), request.context.now)
        };
        let status = Target::sub(&row, &target.namespace, name, "status");
        managed::updated(&writer, &status, Some(&old), &mut quota);
        let op = Op {
            key: key.clone(),
            expect: Expect::Revision(record.modified),
            action: Action::Put(save(&row, &quota)?),
        };
        match registry.store().commit(vec![op]).await {
            Ok(_) => return Ok(()),
            Err(TxnError::Conflict { .. }) => {}
            Err(error) => return Err(errors::txn(error)),
        }
    }
    Err(errors::modified(&row, name))
}

/// Whether a quota's scopes take this object in.
fn in_scope(quota: &Value, target: &Target, object: &Value) -> bool {
    let by_name = list(quota, "/spec/scopes")
        .iter()
        .filter_map(Value::as_str)
        .all(|scope| fits(scope, None, target, object));
    by_name
        && list(quota, "/spec/scopeSelector/matchExpressions")
            .iter()
            .all(|e| {
                fits(
                    e["scopeName"].as_str().unwrap_or_default(),
                    Some(e),
                    target,
                    object,
                )
            })
}

fn fits(scope: &str, expression: Option<&Value>, target: &Target, object: &Value) -> bool {
    if strategy::is(&target.row, "", "PersistentVolumeClaim") {
        let class = object.pointer("/spec/volumeAttributesClassName");
        return scope == "VolumeAttributesClass" && selects(expression, class);
    }
    if !strategy::is(&target.row, "", "Pod") {
        return false;
    }
    let spec = &object["spec"];
    let terminating = spec["activeDeadlineSeconds"]
        .as_i64()
        .is_some_and(|s| s >= 0);
    let best_effort =
        object.pointer("/status/qosClass").and_then(Value::as_str) == Some("BestEffort");
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => selects(expression, spec.get("priorityClassName")),
        "CrossNamespacePodAffinity" => usage::reaches_out(spec),
        _ => false,
    }
}

/// Whether a name is what an expression of a scope selector asks for. Without an expression: whether there is a name.
fn selects(expression: Option<&Value>, name: Option<&Value>) -> bool {
    let name = name.and_then(Value::as_str).filter(|name| !name.is_empty());
    let Some(expression) = expression else {
        return name.is_some();
    };
    let requirement = json!({"matchExpressions": [{
        "key": "name",
        "operator": expression["operator"],
        "values": expression["values"],
    }]});
    LabelSelector::from_object(&requirement).is_ok_and(|selector| selector.matches_with(|_| name))
}
