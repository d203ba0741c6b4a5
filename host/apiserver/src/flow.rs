//! API Priority and Fairness: which flow a request belongs to, by flow schemas, and when it may run, by priority levels.
//!
//! Both kinds of objects are followed by watch, and each change makes new rules that requests read without a lock. Cost of a
//! request that need not wait: the schemas before its own (a dozen comparisons), and one short lock unless it is exempt.

mod fair;
mod follow;
mod matching;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use oarlock_model::meta;
use oarlock_registry::{Histogram, Registry, User};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::flow::fair::{Entry, Level, Limits, Refused, Ticket};
use crate::flow::matching::{Matcher, Request};
use crate::respond::Answer;
use crate::route::ResourcePath;

/// A request waits in its queue no longer than this: a quarter of the time that requests have, as upstream.
const WAIT_LIMIT: Duration = Duration::from_secs(15);
/// Subresources whose requests last as long as their callers like; they are not counted.
pub(crate) const LONG_RUNNING: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];

/// A flow schema, as requests see it, with the level that it leads to.
#[derive(Debug)]
pub(crate) struct Schema {
    name: String,
    precedence: i64,
    matcher: Matcher,
    by: By,
    uid: HeaderValue,
    level_uid: HeaderValue,
    level: Arc<Level>,
    counters: Arc<Counters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug)]
struct Counters {
    executing: AtomicU64,
    waiting: AtomicU64,
    dispatched: AtomicU64,
    queue_full: AtomicU64,
    no_seat: AtomicU64,
    timed_out: AtomicU64,
    waited: Histogram<13>,
    waited_in_vain: Histogram<13>,
}

impl Default for Counters {
    fn default() -> Self {
        // Upper bounds, in seconds, of upstream's histogram.
        const BOUNDS: [f64; 13] = [
            0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
        ];
        let none = || AtomicU64::new(0);
        Self {
            executing: none(),
            waiting: none(),
            dispatched: none(),
            queue_full: none(),
            no_seat: none(),
            timed_out: none(),
            waited: Histogram::new(BOUNDS),
            waited_in_vain: Histogram::new(BOUNDS),
        }
    }
}

impl Counters {
    fn of(&self, refused: Refused) -> &AtomicU64 {
        match refused {
            Refused::QueueFull => &self.queue_full,
            Refused::NoSeat => &self.no_seat,
            Refused::TimedOut => &self.timed_out,
        }
    }
}

impl Schema {
    /// Says in an answer's headers how its request was classified.
    pub fn mark(&self, answer: &mut Answer) {
        let headers = answer.headers_mut();
        headers.insert("x-kubernetes-pf-flowschema-uid", self.uid.clone());
        headers.insert("x-kubernetes-pf-prioritylevel-uid", self.level_uid.clone());
    }

    fn flow(&self, user: &User, namespace: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.by {
            By::Nothing => {}
            By::User => user.name.hash(&mut hasher),
            By::Namespace => namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// The objects as they were last seen, and the levels that requests may hold seats of.
#[derive(Debug, Default)]
struct Known {
    schemas: BTreeMap<String, Value>,
    levels: BTreeMap<String, Value>,
    live: BTreeMap<String, Arc<Level>>,
    counters: BTreeMap<(String, String), Arc<Counters>>,
}

#[derive(Debug)]
pub(crate) struct Flow {
    /// Requests that may run at the same time, all levels together.
    total: u32,
    rules: ArcSwap<Vec<Arc<Schema>>>,
    known: Mutex<Known>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

/// A seat, held while a request runs.
#[derive(Debug)]
pub(crate) struct Seat {
    schema: Arc<Schema>,
    /// How long it took to get it.
    pub waited: Duration,
    _ticket: Option<Ticket>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.schema.counters.executing.fetch_sub(1, Relaxed);
    }
}

/// Counts a request that waits, also if its caller goes away meanwhile.
struct Waits<'a>(&'a Counters);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Flow {
    /// Reads the objects and follows them from now on.
    pub async fn start(registry: &Arc<Registry>, total: u32) -> Arc<Self> {
        let flow = Arc::new(Self::empty(total));
        follow::start(&flow, registry).await;
        flow
    }

    fn empty(total: u32) -> Self {
        Self {
            total: total.max(1),
            rules: ArcSwap::default(),
            known: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// The schema of a request; `None`: not one that is counted.
    pub fn classify(
        &self,
        user: &User,
        verb: &str,
        path: &str,
        at: Option<ResourcePath<'_>>,
    ) -> Option<Arc<Schema>> {
        if at.is_some_and(|at| LONG_RUNNING.contains(&at.first_subresource())) {
            return None;
        }
        let request = Request {
            user,
            verb,
            path,
            at,
        };
        let rules = self.rules.load();
        rules
            .iter()
            .find(|schema| schema.matcher.matches(&request))
            .map(Arc::clone)
    }

    /// Waits for a seat.
    pub async fn seat(
        &self,
        schema: &Arc<Schema>,
        user: &User,
        namespace: &str,
    ) -> Result<Seat, Failure> {
        let counters = &schema.counters;
        let mut waited = Duration::ZERO;
        let ticket = if schema.level.is_exempt() {
            None
        } else {
            let flow = schema.flow(user, namespace);
            let entered = match Level::enter(&schema.level, flow) {
                Ok(Entry::Runs(ticket)) => Ok(ticket),
                Ok(Entry::Waits(place)) => {
                    counters.waiting.fetch_add(1, Relaxed);
                    let _waits = Waits(counters);
                    let since = tokio::time::Instant::now();
                    let entered = tokio::time::timeout(WAIT_LIMIT, place)
                        .await
                        .unwrap_or(Err(Refused::TimedOut));
                    waited = since.elapsed();
                    entered
                }
                Err(refused) => Err(refused),
            };
            match entered {
                Ok(ticket) => Some(ticket),
                Err(refused) => {
                    counters.of(refused).fetch_add(1, Relaxed);
                    counters.waited_in_vain.observe(waited);
                    return Err(Failure::come_back_later());
                }
            }
        };
        counters.dispatched.fetch_add(1, Relaxed);
        counters.waited.observe(waited);
        counters.executing.fetch_add(1, Relaxed);
        Ok(Seat {
            schema: Arc::clone(schema),
            waited,
            _ticket: ticket,
        })
    }

    /// Makes the rules anew, from the objects that are known.
    fn rebuild(&self, known: &mut Known) {
        let shares = |level: &Value| {
            let spec = &level["spec"];
            let of = if spec["type"] == "Exempt" {
                (&spec["exempt"], 0)
            } else {
                (&spec["limited"], 30)
            };
            of.0["nominalConcurrencyShares"].as_u64().unwrap_or(of.1)
        };
        let sum = known.levels.values().map(shares).sum::<u64>().max(1);
        let mut live = BTreeMap::new();
        for (name, level) in &known.levels {
            let seats = (u64::from(self.total) * shares(level)).div_ceil(sum);
            let limits = Limits::of(&level["spec"], u32::try_from(seats).unwrap_or(u32::MAX));
            // Seats that are held stay counted.
            let kept = known.live.remove(name).unwrap_or_default();
            Level::configure(&kept, limits);
            live.insert(name.clone(), kept);
        }
        for gone in known.live.values() {
            Level::configure(gone, Limits::exempt());
        }
        known.live = live;
        let mut schemas = Vec::with_capacity(known.schemas.len());
        let mut counters = BTreeMap::new();
        for (name, schema) in &known.schemas {
            let spec = &schema["spec"];
            let level = level_name(schema);
            let (Some(live), Some(object)) = (known.live.get(level), known.levels.get(level))
            else {
                continue;
            };
            let uid = |object: &Value| {
                HeaderValue::from_str(meta::uid(object))
                    .unwrap_or_else(|_| HeaderValue::from_static(""))
            };
            let key = (name.clone(), level.to_owned());
            let counts = known.counters.remove(&key).unwrap_or_default();
            counters.insert(key, Arc::clone(&counts));
            schemas.push(Arc::new(Schema {
                name: name.clone(),
                precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
                matcher: Matcher::of(&spec["rules"]),
                by: match spec["distinguisherMethod"]["type"].as_str() {
                    Some("ByUser") => By::User,
                    Some("ByNamespace") => By::Namespace,
                    _ => By::Nothing,
                },
                uid: uid(schema),
                level_uid: uid(object),
                level: Arc::clone(live),
                counters: counts,
            }));
        }
        known.counters = counters;
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        self.rules.store(Arc::new(schemas));
    }

    /// `apiserver_flowcontrol_*`, as Prometheus text.
    pub fn metrics(&self) -> String {
        let known = self.known.lock();
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, value: fn(&Counters) -> u64| {
            let _ = writeln!(
                out,
                "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}"
            );
            for ((schema, level), counters) in &known.counters {
                let _ = writeln!(
                    out,
                    "apiserver_flowcontrol_{name}{{flow_schema=\"{schema}\",priority_level=\"{level}\"}} {}",
                    value(counters)
                );
            }
        };
        let executing = |c: &Counters| c.executing.load(Relaxed);
        family(
            "current_executing_requests",
            "gauge",
            "Requests that hold a seat now.",
            executing,
        );
        family(
            "current_executing_seats",
            "gauge",
            "Seats held now: one a request.",
            executing,
        );
        family(
            "current_inqueue_requests",
            "gauge",
            "Requests that wait for a seat now.",
            |c| c.waiting.load(Relaxed),
        );
        family(
            "dispatched_requests_total",
            "counter",
            "Requests that got a seat.",
            |c| c.dispatched.load(Relaxed),
        );
        out.push_str(
            "# HELP apiserver_flowcontrol_rejected_requests_total Requests refused, by why.\n\
             # TYPE apiserver_flowcontrol_rejected_requests_total counter\n",
        );
        for ((schema, level), counters) in &known.counters {
            for (reason, count) in [
                ("queue-full", &counters.queue_full),
                ("concurrency-limit", &counters.no_seat),
                ("time-out", &counters.timed_out),
            ] {
                let count = count.load(Relaxed);
                if count > 0 {
                    let _ = writeln!(
                        out,
                        "apiserver_flowcontrol_rejected_requests_total{{flow_schema=\"{schema}\",priority_level=\"{level}\",reason=\"{reason}\"}} {count}"
                    );
                }
            }
        }
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        let _ = writeln!(
            out,
            "# HELP {name} How long requests waited for a seat.\n# TYPE {name} histogram"
        );
        for ((schema, level), counters) in &known.counters {
            for (execute, waits) in [
                ("true", &counters.waited),
                ("false", &counters.waited_in_vain),
            ] {
                let labels = format!(
                    "execute=\"{execute}\",flow_schema=\"{schema}\",priority_level=\"{level}\""
                );
                waits.render(&mut out, name, &labels);
            }
        }
        for (name, help) in [
            (
                "nominal_limit_seats",
                "Seats that the level's shares give it.",
            ),
            (
                "current_limit_seats",
                "Seats that the level has now; none are lent.",
            ),
            ("lower_limit_seats", "Seats that the level has at least."),
            ("upper_limit_seats", "Seats that the level has at most."),
        ] {
            let _ = writeln!(
                out,
                "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} gauge"
            );
            for (level, live) in &known.live {
                let _ = writeln!(
                    out,
                    "apiserver_flowcontrol_{name}{{priority_level=\"{level}\"}} {}",
                    live.seats()
                );
            }
        }
        out
    }
}

/// The level that a schema leads to.
fn level_name(schema: &Value) -> &str {
    schema["spec"]["priorityLevelConfiguration"]["name"]
        .as_str()
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::resource_path;
    use serde_json::json;

    fn flow(level: Value) -> Flow {
        let flow = Flow::empty(10);
        let mut known = flow.known.lock();
        let schema = |name: &str, precedence: u32, level: &str, user: &str| {
            let everything = json!([{
                "subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
            }]);
            json!({"metadata": {"name": name, "uid": name}, "spec": {"rules": everything, "matchingPrecedence": precedence,
                "distinguisherMethod": {"type": "ByUser"}, "priorityLevelConfiguration": {"name": level}}})
        };
        for object in [
            schema("late", 9, "tight", "*"),
            schema("early", 1, "free", "kelp"),
            schema("dangling", 0, "nowhere", "*"),
        ] {
            known.schemas.insert(meta::name(&object).to_owned(), object);
        }
        let free = json!({"metadata": {"uid": "free-uid"}, "spec": {"type": "Exempt"}});
        known.levels.insert("free".to_owned(), free);
        known
            .levels
            .insert("tight".to_owned(), json!({"metadata": {}, "spec": level}));
        flow.rebuild(&mut known);
        drop(known);
        flow
    }

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            ..User::default()
        }
    }

    fn named(flow: &Flow, who: &str, path: &str) -> Option<Arc<Schema>> {
        flow.classify(&user(who), "get", path, resource_path(path))
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_classified_run_wait_and_are_refused() {
        let flow = flow(
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {
            "type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}}}}),
        );
        let pods = "/api/v1/namespaces/a/pods/p";
        assert_eq!(named(&flow, "kelp", pods).unwrap().name, "early");
        assert!(named(&flow, "kelp", "/api/v1/namespaces/a/pods/p/log").is_none());
        let schema = named(&flow, "otter", pods).unwrap();
        assert_eq!(schema.name, "late");
        let otter = user("otter");
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(flow.seat(&schema, &otter, "a").await.unwrap());
        }
        let mut waits = Box::pin(flow.seat(&schema, &otter, "a"));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        let full = flow.seat(&schema, &otter, "a").await.unwrap_err();
        assert_eq!((full.code(), full.retry_after_seconds()), (429, Some(1)));
        drop(held.pop());
        held.push(waits.await.unwrap());
        // Nobody leaves: the wait ends by itself.
        let late = flow.seat(&schema, &otter, "a").await.unwrap_err();
        assert_eq!(late.code(), 429);
        let metrics = flow.metrics();
        for reason in ["queue-full", "time-out"] {
            let line = format!("priority_level=\"tight\",reason=\"{reason}\"}} 1");
            assert!(metrics.contains(&line), "{metrics}");
        }
        drop(held);
        assert!(flow.seat(&schema, &otter, "a").await.is_ok());
    }

    #[tokio::test]
    async fn a_level_without_queues_refuses_at_once_and_an_exempt_one_never() {
        let flow = flow(
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}),
        );
        let pods = "/api/v1/pods";
        let tight = named(&flow, "otter", pods).unwrap();
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(flow.seat(&tight, &user("otter"), "").await.unwrap());
        }
        assert!(flow.seat(&tight, &user("otter"), "").await.is_err());
        let free = named(&flow, "kelp", pods).unwrap();
        for _ in 0..50 {
            held.push(flow.seat(&free, &user("kelp"), "").await.unwrap());
        }
        let mut answer = crate::respond::text(200, "");
        free.mark(&mut answer);
        assert_eq!(answer.headers()["x-kubernetes-pf-flowschema-uid"], "early");
        assert_eq!(
            answer.headers()["x-kubernetes-pf-prioritylevel-uid"],
            "free-uid"
        );
    }
}
