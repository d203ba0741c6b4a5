//! The edge: reflectors and the clock feed the core on its own thread; its actions become calls to the cluster on tokio.
//!
//! Invariants: guests of active profiles are called on the cycle thread alone. One batch of bindings is on its way at a time;
//! those that come meanwhile make the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use oarlock_client::{Binding, Cluster, Delta, Key, ListQuery, Object, Reflector};
use oarlock_model::{Gvr, meta};
use oarlock_wasm::{Engine, HostEnv, Limits, SystemEnv};
use parking_lot::{Condvar, Mutex};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::DEFAULT_COMPONENT;
use crate::core::{Action, Core, Input, apply};
use crate::load::Loader;
use crate::metrics::Metrics;
use crate::pod::PodInfo;
use crate::profiles::{self, ProfileNews};
use crate::report::{self, Limiter};
use crate::snapshot::Uid;

/// Pods in one call of `Cluster::bind`.
const MAX_BIND_BATCH: usize = 1_024;
const MAX_STATUS_BATCH: usize = 512;
/// Cycles between two looks at the inbox.
const CYCLES_A_TURN: usize = 256;
/// The longest sleep of the cycle thread.
const MAX_IDLE: Duration = Duration::from_secs(1);
/// Events that wait to be written; more are counted and dropped.
const MAX_WAITING_EVENTS: usize = 1_024;
/// Stack of the cycle thread: guests run on it.
const STACK_BYTES: usize = 4 << 20;

#[derive(Clone)]
pub struct SchedulerConfig {
    pub cluster: Arc<dyn Cluster>,
    pub engine: Engine,
    pub env: Arc<dyn HostEnv>,
    /// Limits of each component's instance; profiles may say otherwise.
    pub limits: Limits,
    /// Components that ship with the binary, by name; `default-scheduler` is the default bundle.
    pub components: HashMap<String, Arc<[u8]>>,
}

impl SchedulerConfig {
    /// With the usual limits and the machine's clock.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        engine: Engine,
        components: HashMap<String, Arc<[u8]>>,
    ) -> Self {
        Self {
            cluster,
            engine,
            env: Arc::new(SystemEnv),
            limits: Limits::default(),
            components,
        }
    }
}

/// What waits for the cycle thread.
#[derive(Default)]
pub(crate) struct Inbox {
    inner: Mutex<(Vec<Input>, bool)>,
    wakeup: Condvar,
}

impl Inbox {
    pub(crate) fn push(&self, input: Input) {
        self.inner.lock().0.push(input);
        self.wakeup.notify_one();
    }

    fn extend(&self, inputs: impl Iterator<Item = Input>) {
        self.inner.lock().0.extend(inputs);
        self.wakeup.notify_one();
    }

    fn stop(&self) {
        self.inner.lock().1 = true;
        self.wakeup.notify_one();
    }

    /// Everything that waits; waits for something up to `timeout`. `None`: stop.
    fn take(&self, timeout: Duration) -> Option<Vec<Input>> {
        let mut inner = self.inner.lock();
        if inner.0.is_empty() && !inner.1 && !timeout.is_zero() {
            self.wakeup.wait_for(&mut inner, timeout);
        }
        if inner.1 {
            None
        } else {
            Some(std::mem::take(&mut inner.0))
        }
    }
}

/// A running scheduler.
#[derive(Debug)]
pub struct Handle {
    inbox: Arc<InboxHandle>,
    thread: Option<JoinHandle<()>>,
    tasks: JoinSet<()>,
    _reflectors: Vec<oarlock_client::CacheHandle>,
    metrics: Metrics,
}

struct InboxHandle(Arc<Inbox>);

impl std::fmt::Debug for InboxHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Drop for InboxHandle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Handle {
    /// Stops after the cycle that is running; bindings on their way are waited for.
    pub async fn stop(mut self) {
        self.inbox.0.stop();
        if let Some(thread) = self.thread.take() {
            // Its end closes the channels, which ends the writers.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }

    /// The metrics, to be read while the handle is elsewhere.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

/// Where the cycle thread's actions go.
struct Outlets {
    binds: mpsc::UnboundedSender<(Uid, Binding)>,
    statuses: mpsc::UnboundedSender<(Arc<PodInfo>, &'static str, String)>,
    events: mpsc::Sender<(String, Value)>,
    profiles: mpsc::UnboundedSender<ProfileNews>,
    warm: mpsc::UnboundedSender<Action>,
}

#[derive(Debug)]
pub struct Scheduler;

impl Scheduler {
    /// Starts on the current tokio runtime.
    pub fn start(config: SchedulerConfig) -> std::io::Result<Handle> {
        let inbox = Arc::new(Inbox::default());
        let metrics = Metrics::default();
        let (binds, bind_rx) = mpsc::unbounded_channel();
        let (statuses, status_rx) = mpsc::unbounded_channel();
        let (events, event_rx) = mpsc::channel(MAX_WAITING_EVENTS);
        let (profiles, profile_rx) = mpsc::unbounded_channel();
        let (warm, warm_rx) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(bind_all(
            Arc::clone(&config.cluster),
            bind_rx,
            Arc::clone(&inbox),
        ));
        tasks.spawn(write_statuses(Arc::clone(&config.cluster), status_rx));
        tasks.spawn(write_events(Arc::clone(&config.cluster), event_rx));
        tasks.spawn(warm_all(warm_rx, Arc::clone(&inbox)));
        let loader = Loader {
            engine: config.engine.clone(),
            env: Arc::clone(&config.env),
            limits: config.limits.clone(),
            builtin: Arc::new(config.components.clone()),
        };
        if !loader.builtin.contains_key(DEFAULT_COMPONENT) {
            tracing::warn!(
                "no component {DEFAULT_COMPONENT} ships: profiles must name components of the cluster"
            );
        }
        tasks.spawn(profiles::run(
            Arc::clone(&config.cluster),
            loader,
            profile_rx,
            Arc::clone(&inbox),
        ));
        let reflectors = watch(&config.cluster, &inbox);
        let outlets = Outlets {
            binds,
            statuses,
            events,
            profiles,
            warm,
        };
        let cycle = Cycle {
            inbox: Arc::clone(&inbox),
            env: config.env,
            metrics: metrics.clone(),
            outlets,
        };
        let thread = std::thread::Builder::new()
            .name("scheduler".to_owned())
            .stack_size(STACK_BYTES);
        let thread = thread.spawn(move || cycle.run())?;
        let inbox = Arc::new(InboxHandle(inbox));
        Ok(Handle {
            inbox,
            thread: Some(thread),
            tasks,
            _reflectors: reflectors,
            metrics,
        })
    }
}

fn gvr(group: &str, version: &str, resource: &str) -> Gvr {
    Gvr::new(group, version, resource)
}

/// Feeds nodes and pods to the core.
fn watch(cluster: &Arc<dyn Cluster>, inbox: &Arc<Inbox>) -> Vec<oarlock_client::CacheHandle> {
    let waiting = Arc::new(AtomicU64::new(2));
    let one = |resource: &str, input: fn(Delta) -> Option<Input>| {
        let (inbox, waiting) = (Arc::clone(inbox), Arc::clone(&waiting));
        let handler = move |delta: Delta| match delta {
            Delta::Synced => {
                if waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
                    inbox.push(Input::Synced);
                }
            }
            delta => {
                if let Some(input) = input(delta) {
                    inbox.push(input);
                }
            }
        };
        Reflector::start_with(
            Arc::clone(cluster),
            gvr("", "v1", resource),
            ListQuery::default(),
            handler,
        )
    };
    let pods = |delta: Delta| match delta {
        Delta::Added(object) | Delta::Updated { new: object, .. } => {
            Some(Input::Pod(Arc::new(PodInfo::new(object))))
        }
        Delta::Deleted(object) => Some(Input::PodGone(object)),
        Delta::Synced => None,
    };
    let nodes = |delta: Delta| match delta {
        Delta::Added(object) | Delta::Updated { new: object, .. } => Some(Input::Node(object)),
        Delta::Deleted(object) => Some(Input::NodeGone(meta::name(&object).to_owned())),
        Delta::Synced => None,
    };
    vec![one("nodes", nodes), one("pods", pods)]
}

/// The thread that decides.
struct Cycle {
    inbox: Arc<Inbox>,
    env: Arc<dyn HostEnv>,
    metrics: Metrics,
    outlets: Outlets,
}

impl Cycle {
    #[expect(
        clippy::disallowed_methods,
        reason = "edge: the duration of attempts is measured here"
    )]
    fn run(self) {
        let mut core = Core::new();
        let mut limiter = Limiter::default();
        let mut more = false;
        let mut told = 0u64;
        loop {
            let now = self.env.now_ms();
            let timer = core
                .next_timer_ms()
                .map_or(MAX_IDLE, |at| Duration::from_millis(at.saturating_sub(now)));
            let timeout = if more {
                Duration::ZERO
            } else {
                timer.min(MAX_IDLE)
            };
            let Some(inputs) = self.inbox.take(timeout) else {
                break;
            };
            let now = self.env.now_ms();
            for input in inputs {
                core.handle(input, now);
            }
            let began = Instant::now();
            more = core.run(now, CYCLES_A_TURN);
            let actions = core.take_actions();
            let ended = core.take_ended();
            let tried = actions
                .iter()
                .filter(|a| matches!(a, Action::Bind { .. } | Action::NotScheduled { .. }))
                .count();
            if tried > 0 {
                let each = began.elapsed().as_secs_f64() / tried as f64;
                (0..tried).for_each(|_| self.metrics.attempt_seconds.observe(each));
            }
            self.metrics.ended(&ended, now);
            self.metrics.queue(core.counts());
            for action in actions {
                self.carry_out(action, &mut limiter, now, &mut told);
            }
        }
    }

    /// A send fails only while the scheduler stops.
    fn carry_out(&self, action: Action, limiter: &mut Limiter, now_ms: u64, told: &mut u64) {
        match action {
            Action::Bind { pod, node } => {
                let (uid, node) = (pod.uid.as_ref().to_owned(), node.as_ref().to_owned());
                let binding = Binding {
                    pod: pod.key.clone(),
                    uid,
                    node,
                };
                let _ = self.outlets.binds.send((Arc::clone(&pod.uid), binding));
            }
            Action::Scheduled { pod, node } => {
                let Key { namespace, name } = &pod.key;
                let note = format!("Successfully assigned {namespace}/{name} to {node}");
                self.tell(&pod, false, "Scheduled", &note, limiter, now_ms, told);
            }
            Action::NotScheduled {
                pod,
                reason,
                message,
            } => {
                if reason != "SchedulingGated" {
                    self.tell(
                        &pod,
                        true,
                        "FailedScheduling",
                        &message,
                        limiter,
                        now_ms,
                        told,
                    );
                }
                let _ = self.outlets.statuses.send((pod, reason, message));
            }
            warm @ Action::Warm(..) => {
                let _ = self.outlets.warm.send(warm);
            }
            Action::Switched(receipt) => {
                self.metrics.swaps.inc();
                tracing::info!(profile = %receipt.profile, component = %receipt.component, "scheduler profile is active");
                let _ = self.outlets.profiles.send(ProfileNews::Switched(receipt));
            }
            Action::Refused {
                profile,
                component,
                message,
                ..
            } => {
                let _ = self.outlets.profiles.send(ProfileNews::Refused {
                    profile,
                    component,
                    message,
                });
            }
            Action::RolledBack {
                profile,
                component,
                to,
                message,
            } => {
                tracing::error!(%profile, %component, to = to.as_deref().unwrap_or(""), %message, "scheduler profile is rolled back");
                let _ = self.outlets.profiles.send(ProfileNews::RolledBack {
                    profile,
                    component,
                    to,
                    message,
                });
            }
            Action::GuestFailed {
                profile,
                component,
                message,
                traps,
            } => {
                self.metrics.traps.inc();
                let _ = self.outlets.profiles.send(ProfileNews::GuestFailed {
                    profile,
                    component,
                    message,
                    traps,
                });
            }
        }
    }

    fn tell(
        &self,
        pod: &PodInfo,
        warning: bool,
        reason: &str,
        note: &str,
        limiter: &mut Limiter,
        now_ms: u64,
        told: &mut u64,
    ) {
        if !limiter.may(&pod.uid, note, now_ms) {
            self.metrics.events_dropped.inc();
            return;
        }
        *told += 1;
        let now = timestamp(now_ms);
        let event = report::event(pod, warning, reason, note, now, *told);
        if self
            .outlets
            .events
            .try_send((pod.key.namespace.clone(), event))
            .is_err()
        {
            self.metrics.events_dropped.inc();
        }
    }
}

pub(crate) fn timestamp(now_ms: u64) -> Timestamp {
    i64::try_from(now_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

async fn bind_all(
    cluster: Arc<dyn Cluster>,
    mut queue: mpsc::UnboundedReceiver<(Uid, Binding)>,
    inbox: Arc<Inbox>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MAX_BIND_BATCH).await > 0 {
        let (uids, bindings): (Vec<Uid>, Vec<Binding>) = batch.drain(..).unzip();
        let results = cluster.bind(bindings).await;
        inbox.extend(
            uids.into_iter()
                .zip(results)
                .map(|(uid, result)| Input::Bound(uid, result)),
        );
    }
}

async fn write_statuses(
    cluster: Arc<dyn Cluster>,
    mut queue: mpsc::UnboundedReceiver<(Arc<PodInfo>, &'static str, String)>,
) {
    let pods = gvr("", "v1", "pods");
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MAX_STATUS_BATCH).await > 0 {
        let now = timestamp(SystemEnv.now_ms());
        let patches: Vec<(Key, Value)> = batch
            .drain(..)
            .filter_map(|(pod, reason, message)| {
                // The uid makes sure that a namesake is not meant.
                let mut patch = report::not_scheduled(&pod, reason, &message, now)?;
                patch["metadata"] = serde_json::json!({"uid": pod.uid.as_ref()});
                Some((pod.key.clone(), patch))
            })
            .collect();
        if patches.is_empty() {
            continue;
        }
        for error in cluster
            .patch_statuses(&pods, patches)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::debug!(%error, "the status of a pod was not written");
        }
    }
}

async fn write_events(cluster: Arc<dyn Cluster>, mut queue: mpsc::Receiver<(String, Value)>) {
    let events = gvr("events.k8s.io", "v1", "events");
    while let Some((namespace, event)) = queue.recv().await {
        if let Err(error) = cluster.create(&events, &namespace, event).await {
            tracing::debug!(%error, "an event was not written");
        }
    }
}

/// Fills the mirrors of candidates beside the cycle thread.
async fn warm_all(mut queue: mpsc::UnboundedReceiver<Action>, inbox: Arc<Inbox>) {
    while let Some(action) = queue.recv().await {
        let Action::Warm(mut candidate, changes) = action else {
            continue;
        };
        let inbox = Arc::clone(&inbox);
        tokio::task::spawn_blocking(move || {
            let result = apply(&mut candidate.profile, &changes);
            inbox.push(Input::Warmed(candidate, result));
        });
    }
}

/// The object of a cache, by name.
pub(crate) fn named(name: &str) -> Key {
    Key {
        namespace: String::new(),
        name: name.to_owned(),
    }
}

/// `metadata.generation`, for status.
pub(crate) fn generation(object: &Object) -> i64 {
    meta::generation(object)
}
