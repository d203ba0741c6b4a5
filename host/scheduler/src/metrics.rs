//! Metrics, under kube-scheduler's names.
//! Source: https://kubernetes.io/docs/reference/instrumentation/metrics/

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::core::Ended;
use crate::queue::Counts;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ResultLabels {
    pub result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct QueueLabels {
    pub queue: &'static str,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    attempts: Family<ResultLabels, Counter>,
    pending: Family<QueueLabels, Gauge>,
    pub attempt_seconds: Histogram,
    sli_seconds: Histogram,
    pod_attempts: Histogram,
    pub events_dropped: Counter,
    pub traps: Counter,
    pub swaps: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            registry: Arc::default(),
            attempts: Family::default(),
            pending: Family::default(),
            attempt_seconds: Histogram::new(exponential_buckets(1e-6, 4.0, 12)),
            sli_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 20)),
            pod_attempts: Histogram::new(exponential_buckets(1.0, 2.0, 5)),
            events_dropped: Counter::default(),
            traps: Counter::default(),
            swaps: Counter::default(),
        };
        registry.register(
            "scheduler_schedule_attempts",
            "Attempts to schedule pods, by result",
            metrics.attempts.clone(),
        );
        registry.register(
            "scheduler_pending_pods",
            "Pending pods, by queue",
            metrics.pending.clone(),
        );
        registry.register(
            "scheduler_scheduling_attempt_duration_seconds",
            "Time of one attempt without its binding",
            metrics.attempt_seconds.clone(),
        );
        registry.register(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "Time from first seen to bound",
            metrics.sli_seconds.clone(),
        );
        registry.register(
            "scheduler_pod_scheduling_attempts",
            "Attempts until a pod was bound",
            metrics.pod_attempts.clone(),
        );
        registry.register(
            "oarlock_scheduler_events_dropped",
            "Events beyond the limit",
            metrics.events_dropped.clone(),
        );
        registry.register(
            "oarlock_scheduler_plugin_failures",
            "Traps and other failures of plugins",
            metrics.traps.clone(),
        );
        registry.register(
            "oarlock_scheduler_swaps",
            "Profiles that became active",
            metrics.swaps.clone(),
        );
        *metrics.registry.lock() = registry;
        metrics
    }
}

impl Metrics {
    pub fn ended(&self, ended: &[(Ended, u32, u64)], now_ms: u64) {
        for (result, attempts, first_seen_ms) in ended {
            let result = match result {
                Ended::Scheduled => {
                    self.sli_seconds
                        .observe(now_ms.saturating_sub(*first_seen_ms) as f64 / 1e3);
                    self.pod_attempts.observe(f64::from(*attempts));
                    "scheduled"
                }
                Ended::Unschedulable => "unschedulable",
                Ended::Error => "error",
            };
            self.attempts.get_or_create(&ResultLabels { result }).inc();
        }
    }

    pub fn queue(&self, counts: Counts) {
        let Counts {
            active,
            backoff,
            unschedulable,
            gated,
        } = counts;
        for (queue, count) in [
            ("active", active),
            ("backoff", backoff),
            ("unschedulable", unschedulable),
            ("gated", gated),
        ] {
            self.pending
                .get_or_create(&QueueLabels { queue })
                .set(count as i64);
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
