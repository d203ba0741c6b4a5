//! The status of a ReplicaSet, counted from its pods.

use controller_kit::workload::{ReplicaSet, ReplicaSetStatus};
use controller_kit::{Condition, Pod, condition, time};
use serde_json::{Value, json};

use crate::Failure;

/// The new status, and in how many milliseconds a ready pod becomes available.
pub fn calculate(
    set: &ReplicaSet,
    active: &[Pod],
    terminating: &[Pod],
    failure: Option<&Failure>,
    now_ms: u64,
) -> (ReplicaSetStatus, Option<u64>) {
    let template: Vec<(&str, &str)> = set.spec.template["metadata"]["labels"]
        .as_object()
        .map(|labels| {
            labels
                .iter()
                .filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))
                .collect()
        })
        .unwrap_or_default();
    let mut status = ReplicaSetStatus {
        replicas: active.len() as i64,
        terminating_replicas: Some(terminating.len() as i64),
        observed_generation: set.metadata.generation,
        conditions: set.status.conditions.clone(),
        ..ReplicaSetStatus::default()
    };
    let mut wait: Option<u64> = None;
    for pod in active {
        let labelled = template
            .iter()
            .all(|(k, v)| pod.metadata.labels.get(*k).is_some_and(|own| own == v));
        status.fully_labeled_replicas += i64::from(labelled);
        if !pod.ready() {
            continue;
        }
        status.ready_replicas += 1;
        match pod.available(set.spec.min_ready_seconds, now_ms) {
            Ok(()) => status.available_replicas += 1,
            Err(Some(left)) => wait = Some(wait.map_or(left, |w| w.min(left))),
            Err(None) => {}
        }
    }
    match failure {
        Some(failure) if condition(&status.conditions, "ReplicaFailure").is_none() => {
            let now = time::format_ms(now_ms);
            let message = failure.message.clone();
            status.conditions.push(Condition::new(
                "ReplicaFailure",
                "True",
                failure.reason,
                message,
                &now,
            ));
        }
        Some(_) => {}
        None => status.conditions.retain(|c| c.kind != "ReplicaFailure"),
    }
    (status, wait)
}

pub fn patch(set: &ReplicaSet, new: &ReplicaSetStatus) -> Value {
    let conditions = (!new.conditions.is_empty() || !set.status.conditions.is_empty())
        .then_some(&new.conditions);
    let mut status = json!({
        "replicas": new.replicas,
        "fullyLabeledReplicas": new.fully_labeled_replicas,
        "readyReplicas": new.ready_replicas,
        "availableReplicas": new.available_replicas,
        "terminatingReplicas": new.terminating_replicas,
        "observedGeneration": new.observed_generation,
    });
    if let Some(conditions) = conditions {
        status["conditions"] = json!(conditions);
    }
    json!({ "metadata": {"uid": set.metadata.uid}, "status": status })
}
