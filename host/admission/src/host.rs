//! The host of policies: watches `AdmissionPolicy` and `Component` objects, sets versions up beside the active ones, switches
//! the gate, and rolls back what fails.
//!
//! Invariant: a version (a spec and its component's digest) is tried once; one that was refused or rolled back is not tried
//! again until something about it changes. Until a new version is fit, the old one decides, by its own rules.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use oarlock_client::{Cluster, Delta, ListQuery, Object, Reflector};
use oarlock_model::{Gvr, meta};
use oarlock_wasm::{Engine, HostEnv, Limits, SystemEnv};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::gate::{Decider, Entry, Gate, policies_gvr};
use crate::load::Loader;
use crate::metrics::Metrics;
use crate::spec::{Mode, PolicySpec};
use crate::status;
use crate::version::{Retired, Version};

/// How often failures and monitored denials are looked for.
const REVIEW: Duration = Duration::from_secs(1);
/// How many reviews go by between two writes of counts that tell no failure, and between two events of one policy.
const REVIEWS_A_REPORT: u64 = 10;

/// Limits of a policy's instance where it says nothing: a request waits for it.
pub fn default_limits() -> Limits {
    Limits {
        memory_mib: 64,
        deadline_ms: 1_000,
        answer_bytes: 4 << 20,
        ..Limits::default()
    }
}

#[derive(Clone)]
pub struct AdmissionConfig {
    /// As the user [`crate::USER`].
    pub cluster: Arc<dyn Cluster>,
    pub engine: Engine,
    pub env: Arc<dyn HostEnv>,
    /// Limits of each instance; policies may say otherwise.
    pub limits: Limits,
    /// Components that ship with the binary, by name.
    pub components: HashMap<String, Arc<[u8]>>,
    /// The gate that the registry asks.
    pub gate: Arc<Gate>,
}

impl AdmissionConfig {
    /// With the usual limits and the machine's clock.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        engine: Engine,
        components: HashMap<String, Arc<[u8]>>,
        gate: Arc<Gate>,
    ) -> Self {
        Self {
            cluster,
            engine,
            env: Arc::new(SystemEnv),
            limits: default_limits(),
            components,
            gate,
        }
    }
}

/// A running host. Dropping it leaves the gate as it is.
#[derive(Debug)]
pub struct Handle {
    task: JoinHandle<()>,
    metrics: Metrics,
}

impl Handle {
    /// Follows the objects no longer. The gate stays as it is.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// The metrics, to be read while the handle is elsewhere.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

#[derive(Debug)]
pub struct PolicyHost;

impl PolicyHost {
    /// Starts on the current tokio runtime.
    pub fn start(config: AdmissionConfig) -> Handle {
        let metrics = Metrics::default();
        let (retired, retirements) = mpsc::unbounded_channel();
        let loader = Loader {
            engine: config.engine,
            env: config.env,
            limits: config.limits,
            builtin: Arc::new(config.components),
            metrics: metrics.clone(),
            retired,
        };
        let state = Policies {
            cluster: config.cluster,
            loader,
            gate: config.gate,
            metrics: metrics.clone(),
            objects: HashMap::new(),
            digests: HashMap::new(),
            policies: HashMap::new(),
        };
        Handle {
            task: tokio::spawn(state.run(retirements)),
            metrics,
        }
    }
}

/// What became of one policy.
#[derive(Default)]
struct Policy {
    /// The version that was last tried.
    tried: String,
    active: Option<Arc<Version>>,
    previous: Option<Arc<Version>>,
    /// Why there is no active version.
    refused: String,
    /// Failures and counts as last written, and when that was (in reviews).
    failures: u64,
    counts: Value,
    reported: u64,
}

struct Policies {
    cluster: Arc<dyn Cluster>,
    loader: Loader,
    gate: Arc<Gate>,
    metrics: Metrics,
    objects: HashMap<String, Object>,
    /// Digests of Component objects by name.
    digests: HashMap<String, String>,
    policies: HashMap<String, Policy>,
}

impl Policies {
    async fn run(mut self, mut retirements: mpsc::UnboundedReceiver<Retired>) {
        let mut components = Reflector::start(
            Arc::clone(&self.cluster),
            Gvr::new("oarlock.dev", "v1alpha1", "components"),
            ListQuery::default(),
        );
        let mut policies = Reflector::start(
            Arc::clone(&self.cluster),
            policies_gvr(),
            ListQuery::default(),
        );
        let (mut components_synced, mut policies_synced) = (false, false);
        let (mut first, mut reviews) = (true, 0);
        let mut review = tokio::time::interval(REVIEW);
        loop {
            tokio::select! {
                Some(delta) = components.deltas.recv() => match delta {
                    Delta::Synced => components_synced = true,
                    Delta::Added(object) | Delta::Updated { new: object, .. } => {
                        let digest = object["spec"]["digest"].as_str().unwrap_or("").to_owned();
                        self.digests.insert(meta::name(&object).to_owned(), digest);
                    }
                    Delta::Deleted(object) => {
                        self.digests.remove(meta::name(&object));
                    }
                },
                Some(delta) = policies.deltas.recv() => match delta {
                    Delta::Synced => policies_synced = true,
                    Delta::Added(object) | Delta::Updated { new: object, .. } => {
                        self.objects.insert(meta::name(&object).to_owned(), object);
                    }
                    Delta::Deleted(object) => {
                        self.objects.remove(meta::name(&object));
                        self.policies.remove(meta::name(&object));
                        self.switch(first);
                    }
                },
                Some(retired) = retirements.recv() => self.roll_back(retired).await,
                _ = review.tick() => {
                    reviews += 1;
                    self.review(reviews).await;
                }
                else => return,
            }
            if components_synced && policies_synced {
                self.reconcile(first).await;
                first = false;
            }
        }
    }

    /// Sets up every policy whose version was not tried yet.
    async fn reconcile(&mut self, first: bool) {
        let mut objects: Vec<Object> = self.objects.values().map(Arc::clone).collect();
        objects.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
        for object in objects {
            let name = meta::name(&object).to_owned();
            let spec = PolicySpec::parse(&object["spec"]);
            let component = spec.as_ref().map(|spec| self.component(&spec.component));
            let component = component.unwrap_or_default();
            let key = format!(
                "{}\n{component}@{}",
                object["spec"],
                self.digests.get(&component).map_or("", String::as_str)
            );
            if self.policies.get(&name).is_some_and(|p| p.tried == key) {
                continue;
            }
            let cluster = Arc::clone(&self.cluster);
            let candidate = match spec {
                Ok(spec) => {
                    let (loader, key) = (&self.loader, key.clone());
                    loader.load(&*cluster, &name, key, spec, &component).await
                }
                Err(message) => Err(message),
            };
            let now = Timestamp::now();
            let policy = self.policies.entry(name.clone()).or_default();
            policy.tried = key;
            match candidate {
                Ok(candidate) => {
                    let before = policy.active.replace(Arc::clone(&candidate.version));
                    let told = status::switched(&candidate, before.as_deref(), now);
                    // Going back helps only where the code or what it works with was another.
                    if let Some(before) = before.filter(|v| !v.is_same_code(&candidate.version)) {
                        policy.previous = Some(before);
                    }
                    policy.refused = String::new();
                    (policy.failures, policy.counts) = (0, Value::Null);
                    self.metrics.swaps.inc();
                    self.switch(first);
                    tracing::info!(policy = %name, component = %candidate.version.parts.shown, "an admission policy is active");
                    status::write(&*cluster, Some(&object), &name, told).await;
                }
                Err(message) => {
                    tracing::warn!(policy = %name, %message, "a version of an admission policy does not become active");
                    policy.refused.clone_from(&message);
                    self.switch(first);
                    let told = json!({"conditions": status::condition(false, "ComponentRefused", &message, now)});
                    status::write(&*cluster, Some(&object), &name, told).await;
                    let reason = "ComponentRefused";
                    status::event(&*cluster, Some(&object), &name, reason, &message, now).await;
                }
            }
        }
        if first {
            self.switch(false);
        }
    }

    /// The name of the component that a spec means: a name, or the digest of one.
    fn component(&self, wanted: &str) -> String {
        if self.digests.contains_key(wanted) || !wanted.starts_with("sha256:") {
            return wanted.to_owned();
        }
        let named = self.digests.iter().filter(|(_, digest)| *digest == wanted);
        // The same one each time.
        let name = named.map(|(name, _)| name.clone()).min();
        name.unwrap_or_else(|| wanted.to_owned())
    }

    /// Shows the gate what there is now. `first`: policies that were not tried yet are being loaded.
    fn switch(&self, first: bool) {
        let entry = |(name, object): (&String, &Object)| match self.policies.get(name) {
            Some(policy) => match &policy.active {
                Some(version) => Some(Entry::of(version)),
                None => Entry::without_version(object, Decider::Broken(policy.refused.clone())),
            },
            None if first => Entry::without_version(object, Decider::Loading),
            None => None,
        };
        self.gate
            .set(self.objects.iter().filter_map(entry).collect());
    }

    async fn roll_back(&mut self, retired: Retired) {
        let Retired {
            policy: name,
            key,
            message,
        } = retired;
        let Some(policy) = self.policies.get_mut(&name) else {
            return;
        };
        let Some(active) = policy.active.clone().filter(|v| v.parts.key == key) else {
            return;
        };
        // Without one to go back to, each request that the version fails meets the failure policy by itself.
        let previous = policy.previous.take().filter(|v| !v.is_retired());
        let Some(previous) = previous else {
            tracing::warn!(policy = %name, %message, "an admission policy fails, and there is no version before it");
            return;
        };
        policy.active = Some(Arc::clone(&previous));
        (policy.failures, policy.counts) = (
            previous.counts.failures.load(Ordering::Relaxed),
            Value::Null,
        );
        let text = format!(
            "component {} {message}; back to {}",
            active.parts.shown, previous.parts.shown
        );
        tracing::error!(policy = %name, message = %text, "an admission policy is rolled back");
        self.switch(false);
        let (now, object) = (Timestamp::now(), self.objects.get(&name).map(|o| &**o));
        let told = json!({
            "conditions": status::condition(false, "RolledBack", &text, now),
            "activeComponent": previous.parts.shown, "previousComponent": active.parts.shown,
        });
        status::write(&*self.cluster, object, &name, told).await;
        status::event(&*self.cluster, object, &name, "RolledBack", &text, now).await;
    }

    /// Writes down what happened since the last review.
    async fn review(&mut self, reviews: u64) {
        for (name, policy) in &mut self.policies {
            let Some(version) = &policy.active else {
                continue;
            };
            let due = reviews >= policy.reported + REVIEWS_A_REPORT;
            if due && version.parts.spec.mode == Mode::Monitor {
                let denied = version.last_denial.lock().take();
                if let Some(text) = denied {
                    policy.reported = reviews;
                    let (object, now) = (self.objects.get(name).map(|o| &**o), Timestamp::now());
                    let reason = "WouldDeny";
                    status::event(&*self.cluster, object, name, reason, &text, now).await;
                }
            }
            let failures = version.counts.failures.load(Ordering::Relaxed);
            let counts = status::counts(version);
            if failures == policy.failures && (!due || counts == policy.counts) {
                continue;
            }
            let mut told = json!({"traps": failures, "counts": counts});
            if let Some(message) = version.last_failure.lock().clone() {
                told["details"] =
                    json!({"lastFailure": {"component": version.parts.shown, "message": message}});
            }
            (policy.failures, policy.counts, policy.reported) = (failures, counts, reviews);
            status::write(&*self.cluster, None, name, told).await;
        }
    }
}
