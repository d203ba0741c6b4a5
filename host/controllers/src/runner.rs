//! One running controller: its queue, its instances, and the loop that brings them together.
//!
//! Invariant: keys are worked on by at most `concurrency` instances at once, never one key by two; the loop itself never
//! blocks (guests run on blocking threads).

use std::sync::Arc;
use std::time::Duration;

use oarlock_client::{Key, Object};
use oarlock_model::Gvr;
use oarlock_wasm::controller::{Description, Key as GuestKey, Outcome};
use oarlock_wasm::{
    ControllerInstance, ControllerPlugin, Error, HostEnv, Limits, Loaded, ObjectsHost,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cache::{Caches, Change, Depth, KindCache, Listener};
use crate::host::ControllerState;
use crate::mapping::{Mapped, Target, WatchRule};
use crate::metrics::{Metrics, QueueLabels, ReconcileLabels};
use crate::objects::ControllerObjects;
use crate::queue::WorkQueue;

/// An instance that has had nothing to do for so long is let go.
const IDLE_EVICT_MS: u64 = 30_000;
/// The most instances of one controller.
const MAX_CONCURRENCY: u32 = 32;
/// Objects that wait for the guest's `map`; above it a resync replaces them.
const MAX_ASKS: usize = 100_000;
/// Objects that one visit of the guest maps.
const ASK_BATCH: usize = 512;
/// How long work under way may take when the controller is stopped.
const STOP_MS: u64 = 5_000;
/// How often new kinds are looked for, for a watch of everything.
const DISCOVER_MS: u64 = 15_000;

/// What a controller is made from.
pub(crate) struct Spec {
    pub loaded: Loaded,
    pub limits: Limits,
    pub env: Arc<dyn HostEnv>,
    pub config: String,
    pub objects: Arc<ControllerObjects>,
    pub description: Description,
    pub state: Arc<Mutex<ControllerState>>,
    pub metrics: Metrics,
    /// 0: as described.
    pub workers: u32,
}

struct Shared {
    name: String,
    rules: Vec<WatchRule>,
    queue: Mutex<WorkQueue<Key>>,
    asks: Mutex<Vec<(u32, Object, bool)>>,
    wake: Notify,
    started: Instant,
    /// The first watch's cache, for `all-primary` and resync.
    primary: Mutex<Option<Arc<KindCache>>>,
}

struct RuleListener {
    shared: Arc<Shared>,
    watch: usize,
}

impl Listener for RuleListener {
    fn changed(&self, _: &Gvr, change: &Change) {
        let Some(mapped) = self.shared.rules[self.watch].map(change) else {
            return;
        };
        self.shared.enqueue(self.watch, mapped);
    }
}

impl Shared {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn enqueue(&self, watch: usize, mapped: Mapped) {
        match mapped {
            Mapped::Keys(keys) => self.add(keys),
            Mapped::Ask(objects) => {
                let mut asks = self.asks.lock();
                if asks.len() >= MAX_ASKS {
                    tracing::warn!(
                        controller = self.name,
                        "changes come faster than the controller can map them"
                    );
                    return;
                }
                asks.extend(
                    objects
                        .into_iter()
                        .map(|(object, gone)| (watch as u32, object, gone)),
                );
            }
            Mapped::AllPrimary(namespace) => self.add(self.primary_keys(namespace.as_deref())),
        }
        self.wake.notify_one();
    }

    fn add(&self, keys: Vec<Key>) {
        let now = self.now_ms();
        let mut queue = self.queue.lock();
        for key in keys {
            queue.add(key, now);
        }
    }

    fn primary_keys(&self, namespace: Option<&str>) -> Vec<Key> {
        let Some(primary) = self.primary.lock().clone() else {
            return Vec::new();
        };
        let keys = primary.read(|store| store.all_keys());
        // A cluster-scoped primary is meant whatever the namespace of the changed object.
        keys.into_iter()
            .filter(|key| {
                key.namespace.is_empty() || namespace.is_none_or(|wanted| key.namespace == wanted)
            })
            .collect()
    }
}

enum Finished {
    Reconciled {
        key: Key,
        result: Result<Result<Outcome, String>, Error>,
        instance: Option<ControllerInstance>,
        since: Instant,
    },
    Mapped {
        result: Result<Vec<GuestKey>, Error>,
        instance: Option<ControllerInstance>,
    },
}

pub(crate) struct Runner {
    spec: Arc<Spec>,
    shared: Arc<Shared>,
    caches: Arc<Caches>,
    listening: Vec<(Arc<KindCache>, Arc<dyn Listener>)>,
    idle: Vec<(ControllerInstance, Instant)>,
    tasks: JoinSet<Finished>,
    mapping: bool,
    labels: QueueLabels,
    /// Watches and kinds that are listened to.
    heard: std::collections::HashSet<(usize, Gvr)>,
}

impl Runner {
    pub fn new(spec: Spec, caches: Arc<Caches>) -> Result<Self, String> {
        let rules = spec
            .description
            .watches
            .iter()
            .map(WatchRule::parse)
            .collect::<Result<Vec<_>, _>>()?;
        let name = spec.description.name.clone();
        let shared = Arc::new(Shared {
            name: name.clone(),
            rules,
            queue: Mutex::default(),
            asks: Mutex::default(),
            wake: Notify::new(),
            started: Instant::now(),
            primary: Mutex::default(),
        });
        Ok(Self {
            spec: Arc::new(spec),
            shared,
            caches,
            listening: Vec::new(),
            idle: Vec::new(),
            tasks: JoinSet::new(),
            mapping: false,
            labels: QueueLabels { name },
            heard: std::collections::HashSet::new(),
        })
    }

    /// Runs until `stop` says true or its sender is gone.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.listen();
        let filled = async {
            for (cache, _) in &self.listening {
                cache.reached(1).await;
            }
        };
        tokio::select! {
            () = filled => {}
            _ = stop.wait_for(|stop| *stop) => return self.leave(),
        }
        self.spec.state.lock().running = true;
        let resync = u64::from(self.spec.description.resync_seconds) * 1_000;
        let mut resync_at = resync;
        let mut discover_at = DISCOVER_MS;
        let watches_everything = self
            .shared
            .rules
            .iter()
            .any(|rule| rule.target == Target::Every);
        loop {
            self.dispatch();
            let now = self.shared.now_ms();
            if resync > 0 && now >= resync_at {
                resync_at = now + resync;
                self.shared.add(self.shared.primary_keys(None));
                continue;
            }
            if watches_everything && now >= discover_at {
                discover_at = now + DISCOVER_MS;
                self.listen();
            }
            let mut due = self
                .shared
                .queue
                .lock()
                .next_ms()
                .unwrap_or(u64::MAX)
                .min(now + IDLE_EVICT_MS);
            if resync > 0 {
                due = due.min(resync_at);
            }
            if watches_everything {
                due = due.min(discover_at);
            }
            if self.busy() {
                // A free worker matters then, and nothing else.
                due = due.max(now + 1_000);
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(finished) = self.tasks.join_next(), if !self.tasks.is_empty() => match finished {
                    Ok(finished) => self.finish(finished),
                    Err(error) => tracing::error!(controller = self.shared.name, %error, "a reconcile was lost"),
                },
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(due.saturating_sub(now))) => {
                    self.idle.retain(|(_, since)| since.elapsed().as_millis() < u128::from(IDLE_EVICT_MS));
                }
            }
        }
        self.spec.state.lock().running = false;
        let rest = async { while self.tasks.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(Duration::from_millis(STOP_MS), rest).await;
        self.leave();
    }

    fn leave(self) {
        for (cache, listener) in &self.listening {
            cache.unlisten(listener);
        }
    }

    /// Opens the caches of all watches, and listens to those that are new.
    fn listen(&mut self) {
        for (number, rule) in self.shared.rules.iter().enumerate() {
            let kinds = match &rule.target {
                Target::Kind(kind) => vec![(kind.clone(), Depth::Full)],
                Target::Every => (self.spec.objects.discover)()
                    .into_iter()
                    .filter(|served| served.watchable && worth_watching(&served.kind))
                    .map(|served| (served.kind, Depth::Metadata))
                    .collect(),
            };
            for (kind, depth) in kinds {
                if !self.heard.insert((number, kind.clone())) {
                    continue;
                }
                let cache = self.caches.open(&kind, depth);
                if number == 0 {
                    *self.shared.primary.lock() = Some(Arc::clone(&cache));
                }
                let listener: Arc<dyn Listener> = Arc::new(RuleListener {
                    shared: Arc::clone(&self.shared),
                    watch: number,
                });
                cache.listen(Arc::clone(&listener));
                self.listening.push((cache, listener));
            }
        }
    }

    fn concurrency(&self) -> usize {
        let wanted = if self.spec.workers > 0 {
            self.spec.workers
        } else {
            self.spec.description.concurrency
        };
        wanted.clamp(1, MAX_CONCURRENCY) as usize
    }

    fn busy(&self) -> bool {
        self.tasks.len() >= self.concurrency()
    }

    fn dispatch(&mut self) {
        if !self.mapping && !self.shared.asks.lock().is_empty() && !self.busy() {
            let mut asks = self.shared.asks.lock();
            let count = asks.len().min(ASK_BATCH);
            let batch: Vec<_> = asks.drain(..count).collect();
            drop(asks);
            self.mapping = true;
            let (spec, instance) = (
                Arc::clone(&self.spec),
                self.idle.pop().map(|(instance, _)| instance),
            );
            let shared = Arc::clone(&self.shared);
            self.tasks
                .spawn_blocking(move || ask(&spec, &shared, instance, &batch));
        }
        while !self.busy() {
            let now = self.shared.now_ms();
            let taken = self.shared.queue.lock().take(now);
            let Some(taken) = taken else { break };
            self.spec
                .metrics
                .queue_seconds
                .get_or_create(&self.labels)
                .observe(taken.waited_ms as f64 / 1e3);
            let (spec, instance) = (
                Arc::clone(&self.spec),
                self.idle.pop().map(|(instance, _)| instance),
            );
            self.tasks
                .spawn_blocking(move || reconcile(&spec, instance, taken.key));
        }
        let queue = self.shared.queue.lock();
        let metrics = &self.spec.metrics;
        metrics
            .depth
            .get_or_create(&self.labels)
            .set(queue.depth() as i64);
        let longest = queue
            .oldest_start_ms()
            .map_or(0, |start| self.shared.now_ms().saturating_sub(start));
        metrics
            .unfinished_seconds
            .get_or_create(&self.labels)
            .set(longest as f64 / 1e3);
        let adds = metrics.adds.get_or_create(&self.labels);
        adds.inc_by(queue.adds.saturating_sub(adds.get()));
        let retries = metrics.retries.get_or_create(&self.labels);
        retries.inc_by(queue.retries.saturating_sub(retries.get()));
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Mapped { result, instance } => {
                self.mapping = false;
                self.keep(instance);
                match result {
                    Ok(keys) => {
                        self.shared.add(
                            keys.into_iter()
                                .map(|k| Key {
                                    namespace: k.namespace,
                                    name: k.name,
                                })
                                .collect(),
                        );
                    }
                    Err(error) => self.trapped(&error),
                }
            }
            Finished::Reconciled {
                key,
                result,
                instance,
                since,
            } => {
                self.keep(instance);
                let seconds = since.elapsed().as_secs_f64();
                self.spec
                    .metrics
                    .work_seconds
                    .get_or_create(&self.labels)
                    .observe(seconds);
                let now = self.shared.now_ms();
                let mut queue = self.shared.queue.lock();
                let word = match &result {
                    Ok(Ok(Outcome::Done)) => {
                        queue.forget(&key);
                        "success"
                    }
                    Ok(Ok(Outcome::RequeueAfter(after_ms))) => {
                        queue.forget(&key);
                        queue.add_after(key.clone(), *after_ms, now);
                        "requeue_after"
                    }
                    Ok(Ok(Outcome::Requeue)) => {
                        queue.add_rate_limited(key.clone(), now);
                        "requeue"
                    }
                    Ok(Err(_)) | Err(_) => {
                        queue.add_rate_limited(key.clone(), now);
                        "error"
                    }
                };
                queue.done(&key, now);
                drop(queue);
                let labels = ReconcileLabels {
                    controller: self.shared.name.clone(),
                    result: word,
                };
                self.spec.metrics.reconciles.get_or_create(&labels).inc();
                self.spec.state.lock().reconciles += 1;
                match result {
                    Ok(Ok(_)) => {}
                    Ok(Err(message)) => {
                        tracing::debug!(
                            controller = self.shared.name,
                            ns = key.namespace,
                            name = key.name,
                            message,
                            "reconcile failed"
                        );
                        let mut state = self.spec.state.lock();
                        state.errors += 1;
                        state.last_error = message;
                    }
                    Err(error) => self.trapped(&error),
                }
            }
        }
    }

    fn keep(&mut self, instance: Option<ControllerInstance>) {
        if let Some(instance) = instance.filter(|instance| !instance.is_dead()) {
            self.idle.push((instance, Instant::now()));
        }
    }

    fn trapped(&self, error: &Error) {
        tracing::warn!(controller = self.shared.name, %error, backtrace = ?error.backtrace(), "a controller's instance was replaced");
        let mut state = self.spec.state.lock();
        state.traps += 1;
        state.last_error = error.to_string();
    }
}

/// Upstream's garbage collector leaves these out too: they come and go by themselves.
fn worth_watching(kind: &Gvr) -> bool {
    kind.resource != "events"
}

/// A configured instance.
pub(crate) fn instance(
    loaded: &Loaded,
    limits: &Limits,
    env: &Arc<dyn HostEnv>,
    objects: Arc<dyn ObjectsHost>,
    config: &str,
) -> Result<ControllerInstance, Error> {
    let mut instance = ControllerPlugin::instantiate(loaded, limits, Arc::clone(env), objects)?;
    match instance.configure(config)? {
        Ok(()) => Ok(instance),
        Err(message) => Err(Error::Load {
            plugin: loaded.name().to_owned(),
            message: format!("refuses its configuration: {message}"),
        }),
    }
}

fn ready(spec: &Spec, idle: Option<ControllerInstance>) -> Result<ControllerInstance, Error> {
    match idle {
        Some(instance) => Ok(instance),
        None => {
            let objects: Arc<dyn ObjectsHost> = spec.objects.clone();
            instance(&spec.loaded, &spec.limits, &spec.env, objects, &spec.config)
        }
    }
}

fn reconcile(spec: &Spec, idle: Option<ControllerInstance>, key: Key) -> Finished {
    let since = Instant::now();
    let _span = tracing::debug_span!(
        "reconcile",
        plugin = spec.description.name,
        ns = key.namespace,
        name = key.name
    )
    .entered();
    match ready(spec, idle) {
        Ok(mut instance) => {
            let result = instance.reconcile(&GuestKey {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            });
            Finished::Reconciled {
                key,
                result,
                instance: Some(instance),
                since,
            }
        }
        Err(error) => Finished::Reconciled {
            key,
            result: Err(error),
            instance: None,
            since,
        },
    }
}

fn ask(
    spec: &Spec,
    shared: &Shared,
    idle: Option<ControllerInstance>,
    batch: &[(u32, Object, bool)],
) -> Finished {
    let mut instance = match ready(spec, idle) {
        Ok(instance) => instance,
        Err(error) => {
            return Finished::Mapped {
                result: Err(error),
                instance: None,
            };
        }
    };
    let mut keys = Vec::new();
    for (watch, object, gone) in batch {
        match instance.keys_of(*watch, &shared.rules[*watch as usize].shown(object), *gone) {
            Ok(more) => keys.extend(more),
            Err(error) => {
                // What was mapped still counts; the rest comes back with the next resync or change.
                tracing::warn!(%error, "a controller could not map an object");
                return Finished::Mapped {
                    result: Ok(keys),
                    instance: None,
                };
            }
        }
    }
    Finished::Mapped {
        result: Ok(keys),
        instance: Some(instance),
    }
}
