//! Objects that tell users what became of their pods: conditions and events.

use std::collections::HashMap;

use jiff::Timestamp;
use oarlock_model::time::{format_micro_time, format_time};
use serde_json::{Value, json};

use crate::pod::{PodInfo, scheduler_name};
use crate::snapshot::Uid;

/// Events a second, on average; the rest is counted and dropped, so that a flood of bindings is not slowed.
pub const EVENTS_PER_SECOND: u64 = 100;
pub const EVENT_BURST: u64 = 400;
/// Pods whose last event is remembered, so that it is not told again and again.
const MAX_REMEMBERED: usize = 10_000;

/// The merge patch of a pod's status that sets PodScheduled to False; `None` if it says so already.
pub fn not_scheduled(pod: &PodInfo, reason: &str, message: &str, now: Timestamp) -> Option<Value> {
    let mut conditions = pod
        .object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut since = format_time(now);
    if let Some(at) = conditions.iter().position(|c| c["type"] == "PodScheduled") {
        let old = conditions.remove(at);
        if old["status"] == "False" {
            if old["reason"] == reason && old["message"] == message {
                return None;
            }
            if let Some(text) = old["lastTransitionTime"].as_str() {
                since = text.to_owned();
            }
        }
    }
    conditions.push(json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": since,
    }));
    Some(json!({"status": {"conditions": conditions}}))
}

/// An event of events.k8s.io/v1 about a pod. `unique` makes its name.
pub fn event(
    pod: &PodInfo,
    warning: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
    unique: u64,
) -> Value {
    let reporter = scheduler_name(&pod.object);
    let name = format!(
        "{}.{:x}",
        pod.key.name,
        (now.as_nanosecond() as u64).wrapping_add(unique)
    );
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": name, "namespace": pod.key.namespace},
        "eventTime": format_micro_time(now),
        "reportingController": reporter, "reportingInstance": format!("{reporter}-oarlock"),
        "action": if warning { "Scheduling" } else { "Binding" },
        "reason": reason, "note": message, "type": if warning { "Warning" } else { "Normal" },
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": pod.key.namespace, "name": pod.key.name, "uid": pod.uid.as_ref()},
    })
}

/// Lets through so many events, and none twice in a row about one pod.
#[derive(Debug, Default)]
pub struct Limiter {
    tokens_milli: u64,
    last_ms: u64,
    said: HashMap<Uid, String>,
}

impl Limiter {
    /// Whether the event may be told now.
    pub fn may(&mut self, uid: &Uid, message: &str, now_ms: u64) -> bool {
        if self.said.get(uid).is_some_and(|said| said == message) {
            return false;
        }
        let grown = now_ms
            .saturating_sub(self.last_ms)
            .saturating_mul(EVENTS_PER_SECOND);
        self.tokens_milli = self
            .tokens_milli
            .saturating_add(grown)
            .min(EVENT_BURST * 1_000);
        self.last_ms = now_ms;
        if self.tokens_milli < 1_000 {
            return false;
        }
        self.tokens_milli -= 1_000;
        if self.said.len() >= MAX_REMEMBERED {
            self.said.clear();
        }
        self.said.insert(uid.clone(), message.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn conditions_keep_the_others_and_their_time() {
        let pod = |conditions: Value| {
            PodInfo::new(Arc::new(json!({"status": {"conditions": conditions}})))
        };
        let old = json!([{"type": "Ready", "status": "False"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m", "lastTransitionTime": "t"}]);
        assert_eq!(
            not_scheduled(
                &pod(old.clone()),
                "Unschedulable",
                "m",
                Timestamp::UNIX_EPOCH
            ),
            None
        );
        let patch =
            not_scheduled(&pod(old), "Unschedulable", "other", Timestamp::UNIX_EPOCH).unwrap();
        let conditions = &patch["status"]["conditions"];
        assert_eq!(
            (&conditions[0]["type"], &conditions[1]["lastTransitionTime"]),
            (&json!("Ready"), &json!("t"))
        );
    }

    #[test]
    fn events_are_limited() {
        let mut limiter = Limiter::default();
        let uid = |n: u64| -> Uid { n.to_string().into() };
        let now = 10_000;
        let told = (0..EVENT_BURST + 50)
            .filter(|n| limiter.may(&uid(*n), "m", now))
            .count();
        assert_eq!(told as u64, EVENT_BURST);
        assert!(!limiter.may(&uid(0), "m", now + 1_000));
        assert!(limiter.may(&uid(0), "other", now + 1_000));
    }
}
