//! What operators are told of a policy: its status and its events.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use oarlock_client::{Cluster, Key, Patch};
use oarlock_model::time::{format_micro_time, format_time};
use oarlock_model::{Gvr, meta};
use serde_json::{Value, json};

use crate::gate::policies_gvr;
use crate::load::Candidate;
use crate::rules;
use crate::version::Version;

pub(crate) fn condition(ready: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    let status = if ready { "True" } else { "False" };
    json!([{"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": format_time(now)}])
}

/// The status of a version that has become active.
pub(crate) fn switched(candidate: &Candidate, from: Option<&Version>, now: Timestamp) -> Value {
    let version = &candidate.version;
    let (parts, about) = (&version.parts, &version.description);
    let from = from.map(|version| version.parts.shown.clone());
    json!({
        "conditions": condition(true, "Active", "", now),
        "activeComponent": parts.shown,
        "previousComponent": from,
        "receipt": {
            "digest": parts.loaded.digest(), "component": parts.shown, "from": from, "at": format_time(now),
            "compileMilliseconds": candidate.compile_ms, "warmMilliseconds": candidate.warm_ms,
        },
        "policy": {
            "name": about.name, "mutates": about.mutates, "validates": about.validates,
            "rules": rules::shown(&about.rules), "argsSchema": about.args_schema,
        },
        "traps": 0,
        "counts": counts(version),
        "details": null,
    })
}

pub(crate) fn counts(version: &Version) -> Value {
    let counts = &version.counts;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "calls": read(&counts.calls), "patches": read(&counts.patches),
        "denials": read(&counts.denials), "failures": read(&counts.failures),
    })
}

/// Writes a part of a policy's status.
pub(crate) async fn write(
    cluster: &dyn Cluster,
    object: Option<&Value>,
    name: &str,
    mut status: Value,
) {
    if let Some(object) = object {
        status["observedGeneration"] = json!(meta::generation(object));
    }
    let key = Key {
        namespace: String::new(),
        name: name.to_owned(),
    };
    let patch = Patch::Merge(json!({"status": status}));
    if let Err(error) = cluster.patch(&policies_gvr(), &key, "status", patch).await {
        tracing::debug!(%error, policy = name, "the status of an admission policy was not written");
    }
}

/// Records a warning about a policy.
pub(crate) async fn event(
    cluster: &dyn Cluster,
    object: Option<&Value>,
    name: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let uid = object.map_or("", meta::uid);
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}", now.as_nanosecond() as u64), "namespace": "default"},
        "eventTime": format_micro_time(now),
        "reportingController": "oarlock-admission", "reportingInstance": "oarlock-admission",
        "action": "Decide", "reason": reason, "note": message, "type": "Warning",
        "regarding": {"apiVersion": "oarlock.dev/v1alpha1", "kind": "AdmissionPolicy", "name": name, "uid": uid},
    });
    let events = Gvr::new("events.k8s.io", "v1", "events");
    if let Err(error) = cluster.create(&events, "default", event).await {
        tracing::debug!(%error, "an event was not written");
    }
}
