//! `pods/eviction`: a delete that asks the PodDisruptionBudget first.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>

use oarlock_model::{ApiError, ApiResult, Cause, LabelSelector, Reason, meta};
use oarlock_store::RangeQuery;
use serde_json::{Value, json};

use crate::codec::tree;
use crate::write::{Proposal, View};
use crate::{Context, DeleteOptions, Registry, Target, errors, keys};

/// What a refused eviction is told to wait.
const RETRY_SECONDS: u32 = 10;

impl Registry {
    pub(crate) async fn evict(
        &self,
        ctx: &Context,
        target: &Target,
        body: &Value,
    ) -> ApiResult<()> {
        super::match_name(target, body, "Eviction")?;
        let mut ctx = ctx.clone();
        let given = body.get("deleteOptions").unwrap_or(&Value::Null);
        ctx.dry_run |= given.pointer("/dryRun/0").is_some();
        let mut options = delete_options(given);
        let whole = Target {
            subresource: String::new(),
            ..target.clone()
        };
        let record = self
            .store()
            .get(&keys::key_of(target))
            .ok_or_else(|| errors::not_found(target))?;
        let pod = tree(&record.value)?;
        if needs_budget(&pod) {
            self.spend_budget(&ctx, target, &pod, &options).await?;
            // What the budget was spent on is this very pod.
            options
                .precondition_uid
                .get_or_insert_with(|| meta::uid(&pod).to_owned());
        }
        self.delete(&ctx, &whole, &options).await.map(drop)
    }

    async fn spend_budget(
        &self,
        ctx: &Context,
        target: &Target,
        pod: &Value,
        options: &DeleteOptions,
    ) -> ApiResult<()> {
        let Some(row) = self.row("policy", "poddisruptionbudgets") else {
            return Ok(());
        };
        if let Some(wanted) = &options.precondition_uid
            && wanted != meta::uid(pod)
        {
            // The delete words this conflict.
            return Ok(());
        }
        let query = RangeQuery {
            prefix: keys::prefix(&row, &target.namespace),
            ..RangeQuery::default()
        };
        let page = self.store().range(&query).map_err(errors::list_read)?;
        let mut matching = Vec::new();
        for record in &page.records {
            let budget = tree(&record.value)?;
            let selector = budget
                .pointer("/spec/selector")
                .map(LabelSelector::from_object);
            if let Some(Ok(selector)) = selector
                && selector.matches(meta::labels(pod))
            {
                matching.push(budget);
            }
        }
        if matching.len() > 1 {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(Reason::Unknown, text));
        }
        let Some(budget) = matching.pop() else {
            return Ok(());
        };
        let unhealthy = !is_ready(pod);
        if unhealthy && healthy_enough(&budget) {
            return Ok(());
        }
        let name = meta::name(&budget).to_owned();
        let pod_name = target.name.clone();
        let stamp = oarlock_model::time::format_time(ctx.now);
        let budget_target = Target::sub(&row, &target.namespace, &name, "status");
        self.modify(ctx, &budget_target, View::Whole, &mut |budget| {
            spend(budget, &pod_name, &stamp)
        })
        .await
        .map(drop)
    }
}

fn delete_options(given: &Value) -> DeleteOptions {
    let text = |pointer: &str| {
        given
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    DeleteOptions {
        grace_period_seconds: given.get("gracePeriodSeconds").and_then(Value::as_i64),
        propagation_policy: text("/propagationPolicy"),
        orphan_dependents: given.get("orphanDependents").and_then(Value::as_bool),
        precondition_uid: text("/preconditions/uid"),
        precondition_resource_version: text("/preconditions/resourceVersion"),
    }
}

/// Pods that do no work (not started, ended, on their way out) are evicted without asking.
fn needs_budget(pod: &Value) -> bool {
    let phase = pod
        .pointer("/status/phase")
        .and_then(Value::as_str)
        .unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed" | "Pending") && !meta::is_terminating(pod)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Unhealthy pods may go if the healthy ones suffice, or always if the budget says so.
fn healthy_enough(budget: &Value) -> bool {
    let number = |field: &str| {
        budget
            .pointer(&format!("/status/{field}"))
            .and_then(Value::as_i64)
            .unwrap_or(0)
    };
    let always = budget
        .pointer("/spec/unhealthyPodEvictionPolicy")
        .and_then(Value::as_str)
        == Some("AlwaysAllow");
    always || (number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0)
}

fn spend(budget: &Value, pod: &str, stamp: &str) -> ApiResult<Proposal> {
    let name = meta::name(budget);
    let number = |pointer: &str| budget.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let too_many = |text: String, cause: String| {
        let mut error = ApiError::new(Reason::TooManyRequests, text);
        error.causes.push(Cause::new("DisruptionBudget", "", cause));
        error
    };
    if number("/status/observedGeneration") < meta::generation(budget) {
        let mut error = too_many(
            "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
            format!("The disruption budget {name} is still being processed by the server."),
        );
        error.retry_after_seconds = Some(RETRY_SECONDS);
        return Err(error);
    }
    let allowed = number("/status/disruptionsAllowed");
    if allowed < 1 {
        let (desired, current) = (
            number("/status/desiredHealthy"),
            number("/status/currentHealthy"),
        );
        return Err(too_many(
            "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
            format!(
                "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
            ),
        ));
    }
    let mut budget = budget.clone();
    let status = meta::child_map_mut(meta::as_map_mut(&mut budget), "status");
    status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
    meta::child_map_mut(status, "disruptedPods").insert(pod.to_owned(), json!(stamp));
    Ok(Proposal::from(budget))
}
