//! A version of a policy: a component with its arguments, idle instances of it, and the one way to ask it.
//!
//! Invariants: an instance answers one request at a time, and one that failed is never asked again. A call is first polled
//! where the request is; if it is pending (a tick went by), it goes on on a blocking thread in the version's slow lane, which
//! is narrow: a policy that spins takes that much of the machine and no more. A version known to be slow begins there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use oarlock_wasm::admission::{Denial, Description, Patch, Request};
use oarlock_wasm::{AdmissionInstance, AdmissionPlugin, Error, HostEnv, Limits, Loaded};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::metrics::{Metrics, Series};
use crate::rules::Rule;
use crate::spec::PolicySpec;

/// Instances of one version.
const MAX_INSTANCES: usize = 8;
/// A call that took longer makes its version slow, until one takes less.
const SLOW: Duration = Duration::from_millis(10);
/// A new version is rolled back when it failed more often than its `maxTraps`, and at least in one of so many calls: one bad
/// kind of request among thousands of good ones brings no old version back.
const CALLS_A_FAILURE: u64 = 20;
/// What the machine itself may take beyond the guest's deadline: the ticks that deadlines are counted in.
const SLACK: Duration = Duration::from_millis(30);

/// When a policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Mutate,
    Validate,
}

/// What it says, if it does not refuse.
#[derive(Debug)]
pub(crate) enum Answer {
    Patch(Option<Patch>),
    Warnings(Vec<String>),
}

pub(crate) type Decision = Result<Answer, Denial>;

/// A version failed too often.
#[derive(Debug)]
pub(crate) struct Retired {
    pub policy: String,
    pub key: String,
    pub message: String,
}

/// Answers since the version became active.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub calls: AtomicU64,
    pub patches: AtomicU64,
    pub denials: AtomicU64,
    pub failures: AtomicU64,
}

/// What a version is made of.
pub(crate) struct Parts {
    /// Name of the `AdmissionPolicy`.
    pub policy: String,
    /// What the version was made from; versions with the same key are the same.
    pub key: String,
    /// `COMPONENT@sha256:…`
    pub shown: String,
    pub spec: PolicySpec,
    pub loaded: Loaded,
    pub limits: Limits,
    pub env: Arc<dyn HostEnv>,
    pub retired: mpsc::UnboundedSender<Retired>,
}

pub(crate) struct Version {
    pub parts: Parts,
    pub description: Description,
    /// What the component looks at.
    pub rules: Vec<Rule>,
    pub counts: Counts,
    /// For the status.
    pub last_failure: Mutex<Option<String>>,
    pub last_denial: Mutex<Option<String>>,
    idle: Mutex<Vec<AdmissionInstance>>,
    instances: Arc<Semaphore>,
    slow_lane: Arc<Semaphore>,
    slow: AtomicBool,
    is_retired: AtomicBool,
    mutate: Series,
    validate: Series,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version")
            .field("policy", &self.parts.policy)
            .field("component", &self.parts.shown)
            .finish_non_exhaustive()
    }
}

/// A fresh instance that has its arguments. Blocks.
fn instance(parts: &Parts) -> Result<AdmissionInstance, String> {
    let (loaded, limits) = (&parts.loaded, &parts.limits);
    let mut instance = AdmissionPlugin::instantiate(loaded, limits, Arc::clone(&parts.env))
        .map_err(|error| error.to_string())?;
    match instance.configure(&parts.spec.args) {
        Ok(Ok(())) => Ok(instance),
        Ok(Err(complaint)) => Err(format!("it refuses its arguments: {complaint}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Version {
    /// Makes the first instance and asks it what it is. Blocks.
    pub fn new(parts: Parts, metrics: &Metrics) -> Result<Self, String> {
        let mut first = instance(&parts)?;
        let description = first.describe().map_err(|error| error.to_string())?;
        let lanes = std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        Ok(Self {
            rules: description.rules.iter().map(Rule::described).collect(),
            counts: Counts::default(),
            last_failure: Mutex::default(),
            last_denial: Mutex::default(),
            idle: Mutex::new(vec![first]),
            instances: Arc::new(Semaphore::new(MAX_INSTANCES)),
            slow_lane: Arc::new(Semaphore::new(lanes.max(1))),
            slow: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            mutate: metrics.series(&parts.policy, "mutate"),
            validate: metrics.series(&parts.policy, "validate"),
            description,
            parts,
        })
    }

    pub fn series(&self, stage: Stage) -> &Series {
        match stage {
            Stage::Mutate => &self.mutate,
            Stage::Validate => &self.validate,
        }
    }

    pub fn asked_at(&self, stage: Stage) -> bool {
        match stage {
            Stage::Mutate => self.description.mutates,
            Stage::Validate => self.description.validates,
        }
    }

    /// Asks, and has an answer within the deadline. The error is a failure of the policy, for people.
    #[expect(
        clippy::disallowed_methods,
        reason = "edge: the duration of answers is measured"
    )]
    pub async fn ask(
        self: &Arc<Self>,
        stage: Stage,
        request: Arc<Request>,
    ) -> Result<Decision, String> {
        let begun = Instant::now();
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let limit = Duration::from_millis(self.parts.limits.deadline_ms);
        let answer = tokio::time::timeout(limit + SLACK, self.answer(stage, request)).await;
        self.series(stage)
            .seconds
            .observe(begun.elapsed().as_secs_f64());
        answer.unwrap_or_else(|_| {
            let message = format!(
                "no answer within {} ms: other requests keep it busy",
                limit.as_millis()
            );
            self.failed(&message);
            Err(message)
        })
    }

    async fn answer(
        self: &Arc<Self>,
        stage: Stage,
        request: Arc<Request>,
    ) -> Result<Decision, String> {
        let place = permit(&self.instances).await?;
        let slow = self.slow.load(Ordering::Relaxed);
        let mut lane = None;
        if slow {
            lane = Some(permit(&self.slow_lane).await?);
        }
        let idle = self.idle.lock().pop();
        let instance = match idle {
            Some(instance) => instance,
            None => self.another().await?,
        };
        let mut call = Box::pin(Arc::clone(self).call(instance, stage, request, place));
        if !slow && let Poll::Ready(answer) = futures::poll!(&mut call) {
            return answer;
        }
        let lane = match lane {
            Some(lane) => lane,
            None => permit(&self.slow_lane).await?,
        };
        let rest = move || {
            let answer = block_on(call);
            drop(lane);
            answer
        };
        tokio::task::spawn_blocking(rest)
            .await
            .map_err(|error| error.to_string())?
    }

    async fn another(self: &Arc<Self>) -> Result<AdmissionInstance, String> {
        let version = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || instance(&version.parts)).await;
        let made = made.map_err(|error| error.to_string()).flatten();
        made.inspect_err(|message| self.failed(message))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "edge: whether the guest is slow is measured"
    )]
    async fn call(
        self: Arc<Self>,
        mut instance: AdmissionInstance,
        stage: Stage,
        request: Arc<Request>,
        place: OwnedSemaphorePermit,
    ) -> Result<Decision, String> {
        let begun = Instant::now();
        let answer: Result<Decision, Error> = match stage {
            Stage::Mutate => instance
                .mutate(&request)
                .await
                .map(|decision| decision.map(Answer::Patch)),
            Stage::Validate => instance
                .validate(&request)
                .await
                .map(|decision| decision.map(Answer::Warnings)),
        };
        self.slow.store(begun.elapsed() > SLOW, Ordering::Relaxed);
        if !instance.is_dead() {
            self.idle.lock().push(instance);
        }
        drop(place);
        answer.map_err(|error| {
            let message = error.to_string();
            self.failed(&message);
            message
        })
    }

    /// Whether it failed too often.
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// Whether the other is the same component with the same arguments and limits.
    pub fn is_same_code(&self, other: &Self) -> bool {
        let code = |version: &Self| {
            let parts = &version.parts;
            (
                parts.loaded.digest(),
                parts.spec.args.clone(),
                parts.limits.clone(),
            )
        };
        code(self) == code(other)
    }

    /// Says that an answer turned out to be impossible: instances of such a guest are not to be trusted.
    pub fn lied(&self, what: &str) -> String {
        self.idle.lock().clear();
        let message = format!("it gave an impossible answer: {what}");
        self.failed(&message);
        message
    }

    fn failed(&self, message: &str) {
        let failures = self.counts.failures.fetch_add(1, Ordering::Relaxed) + 1;
        *self.last_failure.lock() = Some(message.to_owned());
        let calls = self.counts.calls.load(Ordering::Relaxed);
        if failures > self.parts.spec.max_traps
            && failures.saturating_mul(CALLS_A_FAILURE) >= calls
            && !self.is_retired.swap(true, Ordering::Relaxed)
        {
            // Nobody listens any more while the host stops.
            let _ = self.parts.retired.send(Retired {
                policy: self.parts.policy.clone(),
                key: self.parts.key.clone(),
                message: format!("failed {failures} times in {calls} calls, last: {message}"),
            });
        }
    }
}

async fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, String> {
    let permit = Arc::clone(of).acquire_owned().await;
    permit.map_err(|error| error.to_string())
}
