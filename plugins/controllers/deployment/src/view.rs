//! A Deployment as its controller looks at it.

use controller_kit::{Condition, Meta, resolve};
use serde::Deserialize;
use serde_json::{Value, json};

/// What `progressDeadlineSeconds` says when there is no deadline.
const NO_DEADLINE: i64 = i32::MAX as i64;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    pub metadata: Meta,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub replicas: i64,
    pub selector: Value,
    pub template: Value,
    pub strategy: Strategy,
    pub min_ready_seconds: i64,
    pub revision_history_limit: Option<i64>,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i64>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            replicas: 1,
            selector: Value::Null,
            template: Value::Null,
            strategy: Strategy::default(),
            min_ready_seconds: 0,
            revision_history_limit: None,
            paused: false,
            progress_deadline_seconds: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    #[serde(rename = "type")]
    pub kind: String,
    pub rolling_update: Option<RollingUpdate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    pub max_surge: Value,
    pub max_unavailable: Value,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub observed_generation: i64,
    pub replicas: i64,
    pub updated_replicas: i64,
    pub ready_replicas: i64,
    pub available_replicas: i64,
    pub unavailable_replicas: i64,
    pub terminating_replicas: Option<i64>,
    pub collision_count: Option<i64>,
    pub conditions: Vec<Condition>,
}

impl Deployment {
    pub fn rolls(&self) -> bool {
        self.spec.strategy.kind != "Recreate"
    }

    /// (maxSurge, maxUnavailable), in pods; both zero cannot make progress, so one may then be unavailable.
    fn fences(&self) -> (i64, i64) {
        let Some(update) = self
            .spec
            .strategy
            .rolling_update
            .as_ref()
            .filter(|_| self.rolls())
        else {
            return (0, 0);
        };
        let surge = resolve(&update.max_surge, self.spec.replicas, true).unwrap_or(0);
        let unavailable = resolve(&update.max_unavailable, self.spec.replicas, false).unwrap_or(0);
        if surge == 0 && unavailable == 0 {
            (0, 1)
        } else {
            (surge, unavailable)
        }
    }

    pub fn max_surge(&self) -> i64 {
        self.fences().0
    }

    pub fn max_unavailable(&self) -> i64 {
        if !self.rolls() || self.spec.replicas == 0 {
            0
        } else {
            self.fences().1.min(self.spec.replicas)
        }
    }

    pub fn deadline_seconds(&self) -> Option<i64> {
        self.spec
            .progress_deadline_seconds
            .filter(|seconds| *seconds != NO_DEADLINE)
    }

    pub fn is_complete(&self, status: &Status) -> bool {
        status.updated_replicas == self.spec.replicas
            && status.replicas == self.spec.replicas
            && status.available_replicas == self.spec.replicas
            && status.observed_generation >= self.metadata.generation
    }

    /// The envelope, for events.
    pub fn reference(&self) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": self.metadata.name, "namespace": self.metadata.namespace, "uid": self.metadata.uid,
                "resourceVersion": self.metadata.resource_version,
            },
        })
    }
}

pub fn selects_everything(selector: &Value) -> bool {
    let empty = |part: &str| match selector.get(part) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    empty("matchLabels") && empty("matchExpressions")
}
