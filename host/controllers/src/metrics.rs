//! Metrics of work queues and reconciles, under the names that Kubernetes' controllers use.

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct QueueLabels {
    pub name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReconcileLabels {
    pub controller: String,
    pub result: &'static str,
}

type Histograms = Family<QueueLabels, Histogram, fn() -> Histogram>;

fn histogram() -> Histogram {
    // 10 µs to 10 s, as workqueue's own buckets.
    Histogram::new(exponential_buckets(1e-5, 10.0, 7))
}

#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub adds: Family<QueueLabels, Counter>,
    pub retries: Family<QueueLabels, Counter>,
    pub depth: Family<QueueLabels, Gauge>,
    pub queue_seconds: Histograms,
    pub work_seconds: Histograms,
    pub unfinished_seconds: Family<QueueLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    pub reconciles: Family<ReconcileLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::default())),
            adds: Family::default(),
            retries: Family::default(),
            depth: Family::default(),
            queue_seconds: Family::new_with_constructor(histogram),
            work_seconds: Family::new_with_constructor(histogram),
            unfinished_seconds: Family::default(),
            reconciles: Family::default(),
        };
        let mut registry = metrics.registry.lock();
        registry.register(
            "workqueue_adds",
            "Keys added to the queue",
            metrics.adds.clone(),
        );
        registry.register(
            "workqueue_retries",
            "Keys added again after a failure",
            metrics.retries.clone(),
        );
        registry.register("workqueue_depth", "Keys waiting", metrics.depth.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long a key waits before it is worked on",
            metrics.queue_seconds.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long working on a key takes",
            metrics.work_seconds.clone(),
        );
        registry.register(
            "workqueue_longest_running_processor_seconds",
            "How long the longest work under way has taken",
            metrics.unfinished_seconds.clone(),
        );
        registry.register(
            "oarlock_controller_reconciles",
            "Reconciles by how they ended",
            metrics.reconciles.clone(),
        );
        drop(registry);
        metrics
    }
}

impl Metrics {
    /// In the OpenMetrics text format, without the end mark: to be joined to others'.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()).is_err() {
            // Writing to a String does not fail.
            let _infallible = text.write_str("");
        }
        text.trim_end()
            .strip_suffix("# EOF")
            .map(str::to_owned)
            .unwrap_or(text)
    }
}
