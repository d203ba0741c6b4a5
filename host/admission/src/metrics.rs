//! Metrics of policies: answers by what they were, and how long they took.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabels {
    policy: String,
    stage: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StageLabels {
    policy: String,
    stage: &'static str,
}

#[derive(Clone, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(4e-6, 4.0, 10))
    }
}

/// All policies' metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    answers: Family<ResultLabels, Counter>,
    seconds: Family<StageLabels, Histogram, Buckets>,
    pub(crate) swaps: Counter,
}

/// One policy's metrics of one stage, found once.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub allowed: Counter,
    pub patched: Counter,
    pub denied: Counter,
    pub failed: Counter,
    pub seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            answers: Family::default(),
            seconds: Family::new_with_constructor(Buckets),
            swaps: Counter::default(),
        };
        let mut registry = Registry::default();
        registry.register(
            "oarlock_admission_policy_answers",
            "Answers of admission policies; those that only monitor tell what would have been",
            metrics.answers.clone(),
        );
        registry.register(
            "oarlock_admission_policy_duration_seconds",
            "Time that a request waited for a policy",
            metrics.seconds.clone(),
        );
        registry.register(
            "oarlock_admission_policy_swaps",
            "Versions of policies that became active",
            metrics.swaps.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }
}

impl Metrics {
    pub(crate) fn series(&self, policy: &str, stage: &'static str) -> Series {
        let counter = |result: &'static str| {
            let policy = policy.to_owned();
            self.answers
                .get_or_create(&ResultLabels {
                    policy,
                    stage,
                    result,
                })
                .clone()
        };
        let labels = StageLabels {
            policy: policy.to_owned(),
            stage,
        };
        Series {
            allowed: counter("allowed"),
            patched: counter("patched"),
            denied: counter("denied"),
            failed: counter("failed"),
            seconds: self.seconds.get_or_create(&labels).clone(),
        }
    }

    /// In the Prometheus text format, without the end mark.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode_registry(&mut out, &self.registry.lock());
        out
    }
}
