//! What the built-in controllers share: typed views of objects, time, percentages, owners. Views read and are never
//! written back whole; writes are patches.

pub mod hash;
mod intstr;
mod labels;
pub mod time;
pub mod workload;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use intstr::resolve;
pub use labels::{selector_text, selects};

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub generation: i64,
    pub creation_timestamp: String,
    pub deletion_timestamp: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owner_references: Vec<Owner>,
    pub finalizers: Vec<String>,
}

impl Meta {
    pub fn terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub fn controller(&self) -> Option<&Owner> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    pub fn key(&self) -> oarlock_sdk::controller::Key {
        oarlock_sdk::controller::Key::new(&self.namespace, &self.name)
    }

    /// Annotation as a number.
    pub fn number(&self, annotation: &str) -> Option<i64> {
        self.annotations.get(annotation)?.parse().ok()
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub controller: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_owner_deletion: bool,
}

impl Owner {
    pub fn controlling(api_version: &str, kind: &str, meta: &Meta) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            controller: true,
            block_owner_deletion: true,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<String>,
}

impl Condition {
    pub fn new(
        kind: &str,
        status: &str,
        reason: &str,
        message: impl Into<String>,
        now: &str,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: Some(now.to_owned()),
            last_update_time: None,
        }
    }
}

pub fn condition<'a>(all: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    all.iter().find(|c| c.kind == kind)
}

/// A pod as controllers look at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub metadata: Meta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub tolerations: Vec<Toleration>,
    pub host_network: bool,
    pub hostname: String,
    pub subdomain: String,
    pub containers: Vec<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub reason: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    pub conditions: Vec<Condition>,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub restart_count: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    pub key: String,
    pub operator: String,
    pub value: String,
    pub effect: String,
    pub toleration_seconds: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

impl Toleration {
    /// https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        let key = self.key.is_empty() || self.key == taint.key;
        effect
            && key
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
                _ => false,
            }
    }
}

impl Pod {
    pub fn finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Neither finished nor on its way out.
    pub fn active(&self) -> bool {
        !self.finished() && !self.metadata.terminating()
    }

    /// Since when it is ready.
    pub fn ready_since(&self) -> Option<&str> {
        let ready = condition(&self.status.conditions, "Ready").filter(|c| c.status == "True")?;
        Some(ready.last_transition_time.as_deref().unwrap_or(""))
    }

    pub fn ready(&self) -> bool {
        self.ready_since().is_some()
    }

    /// Whether it has been ready for long enough; if not, how many milliseconds are left.
    pub fn available(&self, min_ready_seconds: i64, now_ms: u64) -> Result<(), Option<u64>> {
        let since = self.ready_since().ok_or(None)?;
        if min_ready_seconds <= 0 {
            return Ok(());
        }
        let since_ms = time::parse_ms(since).ok_or(None)?;
        let due = since_ms.saturating_add(min_ready_seconds as u64 * 1_000);
        if due <= now_ms {
            Ok(())
        } else {
            Err(Some(due - now_ms))
        }
    }
}

/// A merge patch of the owners, which are replaced as a whole; bound to the object's uid and version.
pub fn owners_patch(meta: &Meta, owners: &[Owner]) -> Value {
    json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations() {
        let taint = Taint {
            key: "k".into(),
            value: "v".into(),
            effect: "NoExecute".into(),
            time_added: None,
        };
        let check = |key: &str, operator: &str, value: &str, effect: &str, expect: bool| {
            let toleration = Toleration {
                key: key.into(),
                operator: operator.into(),
                value: value.into(),
                effect: effect.into(),
                toleration_seconds: None,
            };
            assert_eq!(toleration.tolerates(&taint), expect, "{toleration:?}");
        };
        check("k", "", "v", "NoExecute", true);
        check("k", "Equal", "w", "", false);
        check("k", "Exists", "", "", true);
        check("", "Exists", "", "", true);
        check("k", "Exists", "", "NoSchedule", false);
        check("j", "Exists", "", "", false);
    }

    #[test]
    fn availability() {
        let pod: Pod = serde_json::from_value(json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let start = time::parse_ms("2026-01-01T00:00:00Z").unwrap();
        assert_eq!(pod.available(0, start), Ok(()));
        assert_eq!(pod.available(10, start + 4_000), Err(Some(6_000)));
        assert_eq!(pod.available(10, start + 10_000), Ok(()));
        assert_eq!(Pod::default().available(0, start), Err(None));
    }
}
