//! Request metrics under upstream's names, written as Prometheus text.
//!
//! A request costs one look-up under a read lock and a few relaxed counters; names are put together only when they are
//! read.

mod open;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use oarlock_kinds::Row;
use oarlock_registry::Histogram;
use parking_lot::{Mutex, RwLock};

pub(crate) use open::Open;
use open::Watches;

use crate::route::Verb;

/// Upper bounds, in seconds, of upstream's request duration histogram.
const BUCKETS_SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// The same of its indicator of service, which leaves out what is not the server's own time.
const SERVED_SECONDS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];
/// How labels end of what is no dry run.
const NO_DRY_RUN: &str = ",dry_run=\"\"";
/// More series than this are not kept: outside input must not grow them without end.
const MAX_SERIES: usize = 16_384;

/// What identifies a request in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Number of the kind; `u32::MAX`: none.
    pub kind: u32,
    /// Position among the kind's subresources plus one; 0: none.
    pub sub: u8,
    pub verb: Verb,
    pub apply: bool,
    pub dry_run: bool,
    pub namespaced: bool,
    pub single: bool,
    pub code: u16,
}

#[derive(Debug)]
struct Series {
    labels: String,
    code: u16,
    count: AtomicU64,
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS_SECONDS.len()],
    served: Option<Arc<Served>>,
}

/// How long the server itself took, whatever it answered.
#[derive(Debug)]
struct Served {
    labels: String,
    took: Histogram<21>,
}

type Source = Box<dyn Fn() -> String + Send + Sync>;

/// Metrics of other parts of the process, shown behind the server's own. Cheap to clone; all clones are one list.
#[derive(Clone, Default)]
pub struct MoreMetrics(Arc<RwLock<Vec<Source>>>);

impl MoreMetrics {
    /// Adds a source: it gives lines of Prometheus' text format, without an end mark, each time `/metrics` is read.
    pub fn add(&self, source: impl Fn() -> String + Send + Sync + 'static) {
        self.0.write().push(Box::new(source));
    }

    pub(crate) fn render(&self, out: &mut String) {
        for source in self.0.read().iter() {
            out.push_str(&source());
        }
    }
}

impl std::fmt::Debug for MoreMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MoreMetrics")
            .field(&self.0.read().len())
            .finish()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    series: RwLock<HashMap<Key, Arc<Series>>>,
    /// By keys without code and dry run.
    served: Mutex<HashMap<Key, Arc<Served>>>,
    pub reads_in_flight: AtomicI64,
    pub writes_in_flight: AtomicI64,
    pub watches: AtomicI64,
    pub watches_by_kind: Watches,
    pub connections: AtomicI64,
    pub tls_failures: AtomicU64,
}

impl Metrics {
    /// `waited`: for a seat; a part of `took`.
    pub fn observe(&self, key: Key, row: Option<&Row>, took: Duration, waited: Duration) {
        let known = self.series.read().get(&key).map(Arc::clone);
        let Some(series) = known.or_else(|| self.add(key, row)) else {
            return;
        };
        series.count.fetch_add(1, Relaxed);
        if key.verb == Verb::Watch {
            return;
        }
        series
            .micros
            .fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        if let Some(served) = &series.served {
            served.took.observe(took.saturating_sub(waited));
        }
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BUCKETS_SECONDS
            .iter()
            .position(|b| seconds <= *b)
            .and_then(|at| series.buckets.get(at))
        {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn add(&self, key: Key, row: Option<&Row>) -> Option<Arc<Series>> {
        let mut all = self.series.write();
        if all.len() >= MAX_SERIES && !all.contains_key(&key) {
            return None;
        }
        let series = all.entry(key).or_insert_with(|| {
            Arc::new(Series {
                labels: labels(key, row),
                code: key.code,
                count: AtomicU64::new(0),
                micros: AtomicU64::new(0),
                buckets: Default::default(),
                served: (key.verb != Verb::Watch).then(|| self.served(key, row)),
            })
        });
        Some(Arc::clone(series))
    }

    fn served(&self, key: Key, row: Option<&Row>) -> Arc<Served> {
        let key = Key {
            code: 0,
            dry_run: false,
            ..key
        };
        let mut all = self.served.lock();
        Arc::clone(all.entry(key).or_insert_with(|| {
            let labels = labels(key, row);
            Arc::new(Served {
                labels: labels.trim_end_matches(NO_DRY_RUN).to_owned(),
                took: Histogram::new(SERVED_SECONDS),
            })
        }))
    }

    /// Prometheus text. `revision` and `objects` (count by resource) describe the store.
    pub fn render(&self, revision: u64, objects: &[(String, usize)]) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let mut all: Vec<Arc<Series>> = self.series.read().values().map(Arc::clone).collect();
        all.sort_by(|a, b| (&a.labels, a.code).cmp(&(&b.labels, b.code)));
        head(
            &mut out,
            "apiserver_request_total",
            "counter",
            "Requests, by verb, resource and answer.",
        );
        for series in &all {
            let _ = writeln!(
                out,
                "apiserver_request_total{{code=\"{}\",{}}} {}",
                series.code,
                series.labels,
                series.count.load(Relaxed)
            );
        }
        head(
            &mut out,
            "apiserver_request_duration_seconds",
            "histogram",
            "How long requests took, watches left out.",
        );
        for group in all.chunk_by(|a, b| a.labels == b.labels) {
            render_histogram(&mut out, group);
        }
        let name = "apiserver_request_sli_duration_seconds";
        let help = "How long requests took without their wait for a seat, watches left out.";
        head(&mut out, name, "histogram", help);
        let mut served: Vec<Arc<Served>> = self.served.lock().values().map(Arc::clone).collect();
        served.sort_by(|a, b| a.labels.cmp(&b.labels));
        for one in &served {
            one.took.render(&mut out, name, &one.labels);
        }
        let name = "apiserver_current_inflight_requests";
        head(&mut out, name, "gauge", "Requests being answered now.");
        for (kind, count) in [
            ("mutating", &self.writes_in_flight),
            ("readOnly", &self.reads_in_flight),
        ] {
            let count = count.load(Relaxed);
            let _ = writeln!(out, "{name}{{request_kind=\"{kind}\"}} {count}");
        }
        self.watches_by_kind.render(&mut out);
        let name = "apiserver_open_connections";
        head(&mut out, name, "gauge", "Client connections open now.");
        let _ = writeln!(out, "{name} {}", self.connections.load(Relaxed));
        let name = "apiserver_tls_handshake_errors_total";
        let help = "Connections that did not get through the handshake.";
        head(&mut out, name, "counter", help);
        let _ = writeln!(out, "{name} {}", self.tls_failures.load(Relaxed));
        head(
            &mut out,
            "apiserver_storage_revision",
            "gauge",
            "The newest revision of the store.",
        );
        let _ = writeln!(out, "apiserver_storage_revision {revision}");
        // The first is the older name, which most dashboards know.
        let name = "apiserver_storage_objects";
        head(&mut out, name, "gauge", "Objects stored, by resource.");
        for (resource, count) in objects {
            let _ = writeln!(out, "{name}{{resource=\"{resource}\"}} {count}");
        }
        let name = "apiserver_resource_objects";
        head(&mut out, name, "gauge", "Objects stored, by resource.");
        for (resource, count) in objects {
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let _ = writeln!(
                out,
                "{name}{{group=\"{group}\",resource=\"{resource}\"}} {count}"
            );
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn render_histogram(out: &mut String, group: &[Arc<Series>]) {
    let Some(labels) = group.first().map(|s| &s.labels) else {
        return;
    };
    let count: u64 = group.iter().map(|s| s.count.load(Relaxed)).sum();
    if count == 0 || labels.starts_with("verb=\"WATCH\"") {
        return;
    }
    let mut below = 0;
    for (at, bound) in BUCKETS_SECONDS.iter().enumerate() {
        below += group
            .iter()
            .filter_map(|s| s.buckets.get(at))
            .map(|b| b.load(Relaxed))
            .sum::<u64>();
        let _ = writeln!(
            out,
            "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {below}"
        );
    }
    let sum: u64 = group.iter().map(|s| s.micros.load(Relaxed)).sum();
    let _ = writeln!(
        out,
        "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}"
    );
    let _ = writeln!(
        out,
        "apiserver_request_duration_seconds_sum{{{labels}}} {}",
        sum as f64 / 1e6
    );
    let _ = writeln!(
        out,
        "apiserver_request_duration_seconds_count{{{labels}}} {count}"
    );
}

fn labels(key: Key, row: Option<&Row>) -> String {
    let verb = match key.verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch if key.apply => "APPLY",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Other => "other",
    };
    let scope = match (row, key.single, key.namespaced) {
        (None, ..) => "",
        (_, true, _) => "resource",
        (_, false, true) => "namespace",
        (_, false, false) => "cluster",
    };
    let (group, version, resource) = row.map_or(("", "", ""), |row| {
        (
            row.group.as_str(),
            row.version.as_str(),
            row.resource.as_str(),
        )
    });
    let sub = usize::from(key.sub)
        .checked_sub(1)
        .and_then(|at| row?.subresources.get(at))
        .map_or("", |sub| sub.name.as_str());
    let dry_run = if key.dry_run { "All" } else { "" };
    format!(
        "verb=\"{verb}\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",subresource=\"{sub}\",\
         scope=\"{scope}\",component=\"apiserver\",dry_run=\"{dry_run}\""
    )
}

/// Counts something that is open, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Gauge(Arc<Metrics>, fn(&Metrics) -> &AtomicI64);

impl Gauge {
    /// The gauge and its new value.
    pub fn raise(metrics: &Arc<Metrics>, which: fn(&Metrics) -> &AtomicI64) -> (Self, i64) {
        let value = which(metrics).fetch_add(1, Relaxed) + 1;
        (Self(Arc::clone(metrics), which), value)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering() {
        let metrics = Metrics::default();
        let key = Key {
            kind: u32::MAX,
            sub: 0,
            verb: Verb::Get,
            apply: false,
            dry_run: false,
            namespaced: false,
            single: false,
            code: 200,
        };
        let none = Duration::ZERO;
        metrics.observe(key, None, Duration::from_millis(30), none);
        let long = Duration::from_secs(100);
        metrics.observe(Key { code: 404, ..key }, None, long, long);
        let text = metrics.render(7, &[("pods".to_owned(), 3)]);
        for line in [
            r#"apiserver_request_total{code="404",verb="GET",group="","#,
            r#"le="0.025"} 0"#,
            r#"le="0.05"} 1"#,
            r#"le="60"} 1"#,
            r#"le="+Inf"} 2"#,
            "apiserver_storage_revision 7",
            r#"scope="",component="apiserver",le="0.05"} 2"#,
            r#"apiserver_storage_objects{resource="pods"} 3"#,
            r#"apiserver_resource_objects{group="",resource="pods"} 3"#,
            r#"apiserver_current_inflight_requests{request_kind="mutating"} 0"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
