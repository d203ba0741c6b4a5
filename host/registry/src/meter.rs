//! How long admission takes, and what policies decide: `apiserver_admission_*` and `apiserver_validating_admission_policy_*`, as
//! Prometheus text.
//!
//! Cost: a write pays two looks at the clock and a few relaxed counters for each plugin that handles its kind (some 0.1 µs each).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use oarlock_model::ApiResult;
use parking_lot::Mutex;

use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, User};

/// Upper bounds, in seconds, of upstream's histograms of admission.
const ADMISSION_SECONDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// More policies and bindings than this are not told apart.
const MAX_CHECKS: usize = 4096;

/// Durations, by upper bounds in seconds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    buckets: [AtomicU64; N],
    count: AtomicU64,
    nanos: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    pub const fn new(bounds: [f64; N]) -> Self {
        Self {
            bounds,
            buckets: [const { AtomicU64::new(0) }; N],
            count: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let fits = self.bounds.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = fits.and_then(|at| self.buckets.get(at)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// Nothing, if nothing was observed.
    pub fn render(&self, out: &mut String, name: &str, labels: &str) {
        let count = self.count.load(Relaxed);
        if count == 0 {
            return;
        }
        let mut below = 0;
        for (bound, bucket) in self.bounds.iter().zip(&self.buckets) {
            below += bucket.load(Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
        }
        let sum = Duration::from_nanos(self.nanos.load(Relaxed)).as_secs_f64();
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
        );
    }
}

/// One plugin's durations: by step, operation and whether it refused.
#[derive(Debug)]
struct Plugin {
    name: String,
    series: [[[Histogram<6>; 2]; 4]; 2],
}

#[derive(Clone, Copy)]
enum Step {
    Admit,
    Validate,
}

impl Plugin {
    fn new(name: &str) -> Self {
        let histogram = |_| Histogram::new(ADMISSION_SECONDS);
        let outcomes = |_| std::array::from_fn(histogram);
        let operations = |_| std::array::from_fn(outcomes);
        Self {
            name: name.to_owned(),
            series: std::array::from_fn(operations),
        }
    }

    fn observe(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let series = self.series.get(step as usize);
        let series = series.and_then(|by| by.get(operation as usize));
        if let Some(histogram) = series.and_then(|by| by.get(usize::from(rejected))) {
            histogram.observe(took);
        }
    }

    fn render(&self, out: &mut String) {
        const OPERATIONS: [Operation; 4] = [
            Operation::Create,
            Operation::Update,
            Operation::Delete,
            Operation::Connect,
        ];
        for (step, by) in ["admit", "validate"].iter().zip(&self.series) {
            for operation in OPERATIONS {
                for (rejected, histogram) in
                    by.get(operation as usize).into_iter().flatten().enumerate()
                {
                    let labels = format!(
                        "name=\"{}\",operation=\"{}\",rejected=\"{}\",type=\"{step}\"",
                        self.name,
                        operation.as_str(),
                        rejected == 1
                    );
                    histogram.render(
                        out,
                        "apiserver_admission_controller_admission_duration_seconds",
                        &labels,
                    );
                }
            }
        }
    }
}

/// A plugin, with a clock beside it.
#[derive(Debug)]
struct Metered {
    inner: Arc<dyn Admission>,
    plugin: Arc<Plugin>,
}

#[expect(clippy::disallowed_methods, reason = "edge: how long a plugin took")]
fn start() -> Instant {
    Instant::now()
}

#[async_trait]
impl Admission for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        self.inner.handles(target, operation)
    }

    fn concerns(&self, user: &User) -> bool {
        self.inner.concerns(user)
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let (started, operation) = (start(), request.operation);
        let result = self.inner.mutate(registry, request).await;
        self.plugin
            .observe(Step::Admit, operation, result.is_err(), started.elapsed());
        result
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let (started, operation) = (start(), request.operation);
        let result = self.inner.validate(registry, request).await;
        self.plugin.observe(
            Step::Validate,
            operation,
            result.is_err(),
            started.elapsed(),
        );
        result
    }
}

/// Policy, binding, why (`no_error` or what went wrong) and what was done.
type Check = (String, String, &'static str, &'static str);

/// One for each registry.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    plugins: Mutex<Vec<Arc<Plugin>>>,
    checks: Mutex<BTreeMap<Check, u64>>,
}

impl Meter {
    /// The plugins, with their times taken from now on.
    pub fn watch(&self, plugins: Vec<Arc<dyn Admission>>) -> Vec<Arc<dyn Admission>> {
        let metered = plugins.into_iter().map(|inner| {
            let plugin = Arc::new(Plugin::new(inner.name()));
            self.plugins.lock().push(Arc::clone(&plugin));
            Arc::new(Metered { inner, plugin }) as Arc<dyn Admission>
        });
        metered.collect()
    }

    /// A validation that did not hold (`is_error`: could not be evaluated), and what a binding made of it.
    pub fn checked(&self, policy: &str, binding: &str, is_error: bool, action: &'static str) {
        let why = if is_error {
            "invalid_error"
        } else {
            "no_error"
        };
        let check = (policy.to_owned(), binding.to_owned(), why, action);
        let mut checks = self.checks.lock();
        if checks.len() < MAX_CHECKS || checks.contains_key(&check) {
            *checks.entry(check).or_default() += 1;
        }
    }

    fn render(&self) -> String {
        let mut out = String::from(
            "# HELP apiserver_admission_controller_admission_duration_seconds How long plugins took, by step and operation.\n\
             # TYPE apiserver_admission_controller_admission_duration_seconds histogram\n",
        );
        for plugin in self.plugins.lock().iter() {
            plugin.render(&mut out);
        }
        out.push_str(
            "# HELP apiserver_validating_admission_policy_check_total What became of validations that did not hold.\n\
             # TYPE apiserver_validating_admission_policy_check_total counter\n",
        );
        for ((policy, binding, why, action), count) in self.checks.lock().iter() {
            let _ = writeln!(
                out,
                "apiserver_validating_admission_policy_check_total{{enforcement_action=\"{action}\",error_type=\"{why}\",\
                 policy=\"{policy}\",policy_binding=\"{binding}\"}} {count}"
            );
        }
        out
    }
}

impl Registry {
    /// What admission did, as Prometheus text.
    pub fn metrics(&self) -> String {
        self.meter().render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_and_plugins_read_as_prometheus_text() {
        let plugin = Plugin::new("Tide");
        let took = Duration::from_millis(30);
        plugin.observe(Step::Validate, Operation::Delete, true, took);
        plugin.observe(Step::Validate, Operation::Delete, true, took * 1000);
        let mut text = String::new();
        plugin.render(&mut text);
        let labels = r#"name="Tide",operation="DELETE",rejected="true",type="validate""#;
        let name = "apiserver_admission_controller_admission_duration_seconds";
        for line in [
            format!("{name}_bucket{{{labels},le=\"0.025\"}} 0\n"),
            format!("{name}_bucket{{{labels},le=\"0.1\"}} 1\n"),
            format!("{name}_bucket{{{labels},le=\"+Inf\"}} 2\n"),
            format!("{name}_sum{{{labels}}} 30.03\n"),
        ] {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("CREATE"));
        let meter = Meter::default();
        meter.checked("p", "b", false, "deny");
        meter.checked("p", "b", false, "deny");
        assert!(meter.render().contains(
            r#"{enforcement_action="deny",error_type="no_error",policy="p",policy_binding="b"} 2"#
        ));
    }
}
