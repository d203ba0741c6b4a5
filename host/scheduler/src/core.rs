//! The scheduler as a state machine: events and a time go in, actions come out.
//!
//! Invariants: a pod is bound only from here, and while its binding is on its way it counts on its node and is not tried
//! again. A profile is replaced only between two cycles.

use std::collections::HashMap;
use std::sync::Arc;

use oarlock_client::Object;
use oarlock_model::{ApiError, Reason};
use oarlock_wasm::scheduler::{Change, Events};

use crate::member::SetupError;
use crate::pod::{PodInfo, is_finished, node_name};
use crate::profile::{Outcome, Profile};
use crate::queue::{Attempt, Counts, Queue};
use crate::snapshot::{Snapshot, Uid};

/// Bindings on their way; beyond it the scheduler waits for answers.
pub const MAX_BINDING: usize = 8_192;
/// A candidate that lacks no more changes than this is brought up to date on the spot and switched to.
pub const MAX_INLINE_CHANGES: usize = 250;
/// After so many rounds a candidate is switched to whatever it lacks.
const MAX_WARM_ROUNDS: u32 = 16;

/// What happened.
#[derive(Debug)]
pub enum Input {
    Pod(Arc<PodInfo>),
    PodGone(Object),
    Node(Object),
    NodeGone(String),
    /// The first lists of nodes and pods are in.
    Synced,
    Bound(Uid, Result<(), ApiError>),
    /// A profile that is set up, with empty mirrors.
    Candidate(Box<Candidate>),
    /// The same, after changes were applied to its mirrors.
    Warmed(Box<Candidate>, Result<(), String>),
    /// The profile of this name is gone.
    ProfileGone(String),
}

/// A profile on its way to become active.
#[derive(Debug)]
pub struct Candidate {
    pub profile: Profile,
    pub rounds: u32,
    pub compile_ms: u64,
    /// When warming began.
    pub began_ms: u64,
}

/// What is to be done.
#[derive(Debug)]
pub enum Action {
    Bind {
        pod: Arc<PodInfo>,
        node: Arc<str>,
    },
    /// The pod was bound: tell of it.
    Scheduled {
        pod: Arc<PodInfo>,
        node: Arc<str>,
    },
    /// The pod was not placed: PodScheduled is False, for this reason.
    NotScheduled {
        pod: Arc<PodInfo>,
        reason: &'static str,
        message: String,
    },
    /// Apply the changes to the candidate's members, and hand it back.
    Warm(Box<Candidate>, Vec<Vec<Change>>),
    Switched(Receipt),
    /// A candidate did not become active.
    Refused {
        profile: String,
        version: String,
        component: String,
        message: String,
    },
    /// An active version failed too often.
    RolledBack {
        profile: String,
        component: String,
        to: Option<String>,
        message: String,
    },
    /// A guest of an active profile failed and was replaced.
    GuestFailed {
        profile: String,
        component: String,
        message: String,
        traps: u32,
    },
}

/// What a switch was.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub profile: String,
    pub version: String,
    pub component: String,
    pub from: String,
    pub compile_ms: u64,
    pub warm_ms: u64,
    /// How many cycles the old version had done.
    pub cycles_on_old: u64,
}

/// How an attempt ended, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    Scheduled,
    Unschedulable,
    Error,
}

#[derive(Debug)]
struct Active {
    profile: Profile,
    previous: Option<Box<Profile>>,
}

#[derive(Debug)]
struct Binding {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    attempt: Attempt,
}

#[derive(Debug, Default)]
pub struct Core {
    pub snapshot: Snapshot,
    queue: Queue,
    profiles: Vec<Active>,
    binding: HashMap<Uid, Binding>,
    /// Pending pods whose scheduler name no profile has.
    strangers: HashMap<Uid, Arc<PodInfo>>,
    is_synced: bool,
    actions: Vec<Action>,
    /// Attempts that ended: result, attempts so far, first seen (ms).
    ended: Vec<(Ended, u32, u64)>,
}

impl Core {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn counts(&self) -> Counts {
        self.queue.counts()
    }

    pub fn binding_count(&self) -> usize {
        self.binding.len()
    }

    /// What is to be done since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    pub fn take_ended(&mut self) -> Vec<(Ended, u32, u64)> {
        std::mem::take(&mut self.ended)
    }

    pub fn profile(&self, name: &str) -> Option<&Profile> {
        self.profiles
            .iter()
            .find(|a| a.profile.name == name)
            .map(|a| &a.profile)
    }

    pub fn handle(&mut self, input: Input, now_ms: u64) {
        match input {
            Input::Pod(pod) => self.pod_set(pod, now_ms),
            Input::PodGone(object) => self.pod_gone(&object, now_ms),
            Input::Node(object) => {
                let events = self.snapshot.set_node(object);
                self.wake(events, now_ms);
            }
            Input::NodeGone(name) => self.snapshot.remove_node(&name),
            Input::Synced => self.is_synced = true,
            Input::Bound(uid, result) => self.bound(&uid, result, now_ms),
            Input::Candidate(candidate) => self.warm(candidate),
            Input::Warmed(candidate, result) => match result {
                Ok(()) => self.warmed(candidate, now_ms),
                Err(message) => self.refuse(*candidate, message),
            },
            Input::ProfileGone(name) => self.profile_gone(&name),
        }
    }

    fn wake(&mut self, events: Events, now_ms: u64) {
        if events != Events::empty() && self.queue.may_wake() {
            self.queue.wake(events, now_ms);
        }
    }

    fn position(&self, scheduler_name: &str) -> Option<usize> {
        self.profiles
            .iter()
            .position(|a| a.profile.scheduler_name == scheduler_name)
    }

    fn pod_set(&mut self, pod: Arc<PodInfo>, now_ms: u64) {
        if is_finished(&pod.object) {
            self.leave(&pod.uid, now_ms);
            return;
        }
        let node = node_name(&pod.object);
        if !node.is_empty() {
            let events = self.snapshot.place(&pod.uid, node, &pod.usage, &pod.object);
            self.queue.remove(&pod.uid);
            self.strangers.remove(&pod.uid);
            self.wake(events, now_ms);
            return;
        }
        if !pod.is_pending() {
            if !self.binding.contains_key(&pod.uid) {
                self.leave(&pod.uid, now_ms);
            }
            return;
        }
        if self.binding.contains_key(&pod.uid) {
            self.queue.update(&pod);
            return;
        }
        let known = self.queue.pod(&pod.uid).map(|old| old.shape);
        if known == Some(pod.shape) {
            // Its own status, most likely: no reason to try again.
            self.queue.update(&pod);
            return;
        }
        self.enqueue(pod, now_ms);
    }

    /// A new pod, or one that became another.
    fn enqueue(&mut self, pod: Arc<PodInfo>, now_ms: u64) {
        let Some(at) = self.position(pod.scheduler_name()) else {
            self.queue.remove(&pod.uid);
            self.strangers.insert(Arc::clone(&pod.uid), pod);
            return;
        };
        self.strangers.remove(&pod.uid);
        let was_known = self.queue.contains(&pod.uid);
        let profile = &mut self.profiles[at].profile;
        if let Some(message) = profile.pre_enqueue(&pod) {
            self.queue.add_gated(Arc::clone(&pod), now_ms);
            if !was_known {
                self.actions.push(Action::NotScheduled {
                    pod,
                    reason: "SchedulingGated",
                    message,
                });
            }
        } else {
            let first_seen_ms = self.queue.first_seen_ms(&pod.uid).unwrap_or(now_ms);
            let key = profile.sort_key(&pod, first_seen_ms);
            self.queue.add(pod, key, now_ms);
        }
        self.look_after(at);
    }

    fn pod_gone(&mut self, object: &Object, now_ms: u64) {
        let uid = oarlock_model::meta::uid(object).to_owned();
        self.leave(&uid, now_ms);
    }

    /// The pod takes part no more.
    fn leave(&mut self, uid: &str, now_ms: u64) {
        self.queue.remove(uid);
        self.strangers.remove(uid);
        if self.snapshot.remove_pod(uid) {
            self.wake(Events::POD_DELETE, now_ms);
        }
    }

    fn bound(&mut self, uid: &Uid, result: Result<(), ApiError>, now_ms: u64) {
        let Some(binding) = self.binding.remove(uid) else {
            return;
        };
        let error = match result {
            Ok(()) => {
                self.queue.remove(uid);
                self.ended.push((
                    Ended::Scheduled,
                    binding.attempt.attempts,
                    binding.attempt.first_seen_ms,
                ));
                self.actions.push(Action::Scheduled {
                    pod: binding.pod,
                    node: binding.node,
                });
                return;
            }
            Err(error) => error,
        };
        if self.snapshot.is_assumed(uid) {
            self.snapshot.remove_pod(uid);
            self.wake(Events::POD_DELETE, now_ms);
        }
        self.ended.push((
            Ended::Error,
            binding.attempt.attempts,
            binding.attempt.first_seen_ms,
        ));
        if error.reason == Reason::NotFound {
            self.queue.remove(uid);
            return;
        }
        self.queue.requeue(uid, now_ms);
        if self.queue.contains(uid) {
            let message = format!("binding rejected: {error}");
            self.actions.push(Action::NotScheduled {
                pod: binding.pod,
                reason: "SchedulerError",
                message,
            });
        }
    }

    /// Tries up to `budget` pods; true if more can be tried at once.
    pub fn run(&mut self, now_ms: u64, budget: usize) -> bool {
        self.queue.flush(now_ms);
        if !self.is_synced || self.profiles.is_empty() {
            return false;
        }
        for _ in 0..budget {
            if self.binding.len() >= MAX_BINDING {
                return false;
            }
            let Some(attempt) = self.queue.pop() else {
                return false;
            };
            self.attempt(attempt, now_ms);
        }
        self.queue.has_active()
    }

    /// When `run` is worth calling again without an event.
    pub fn next_timer_ms(&self) -> Option<u64> {
        self.queue.next_timer_ms()
    }

    fn attempt(&mut self, attempt: Attempt, now_ms: u64) {
        let pod = Arc::clone(&attempt.pod);
        let Some(at) = self.position(pod.scheduler_name()) else {
            self.queue.remove(&pod.uid);
            self.strangers.insert(Arc::clone(&pod.uid), pod);
            return;
        };
        let outcome = self.profiles[at].profile.schedule(&pod, &self.snapshot);
        let ended = |result| (result, attempt.attempts, attempt.first_seen_ms);
        match outcome {
            Outcome::Fits(slot) => {
                let node = Arc::clone(self.snapshot.name(slot));
                self.snapshot
                    .assume(&pod.uid, slot, &pod.usage, &pod.object);
                let binding = Binding {
                    pod: Arc::clone(&pod),
                    node: Arc::clone(&node),
                    attempt,
                };
                self.binding.insert(Arc::clone(&pod.uid), binding);
                self.actions.push(Action::Bind { pod, node });
            }
            Outcome::Unschedulable(diagnosis) => {
                // A change of the pod itself arrives as a new shape, whatever the plugins wait for.
                let wakes_on = diagnosis.wakes_on
                    | if self.snapshot.node_count() == 0 {
                        Events::NODE_ADD
                    } else {
                        Events::empty()
                    };
                self.queue.reject(&pod.uid, wakes_on, now_ms);
                self.ended.push(ended(Ended::Unschedulable));
                let message = diagnosis.message(self.snapshot.node_count());
                self.actions.push(Action::NotScheduled {
                    pod,
                    reason: "Unschedulable",
                    message,
                });
            }
            Outcome::Error(message) => {
                self.queue.requeue(&pod.uid, now_ms);
                self.ended.push(ended(Ended::Error));
                self.actions.push(Action::NotScheduled {
                    pod,
                    reason: "SchedulerError",
                    message,
                });
            }
        }
        self.look_after(at);
    }

    /// Reports failures of a profile's guests, and rolls back a version that fails too often.
    fn look_after(&mut self, at: usize) {
        let active = &mut self.profiles[at];
        let profile = &mut active.profile;
        if profile.failures.list.is_empty() {
            return;
        }
        let traps = profile.traps();
        for (component, error) in std::mem::take(&mut profile.failures.list) {
            self.actions.push(Action::GuestFailed {
                profile: profile.name.clone(),
                component: component.as_ref().to_owned(),
                message: error.to_string(),
                traps,
            });
        }
        if traps <= profile.max_traps && profile.failures.broken.is_none() {
            return;
        }
        let (name, component) = (profile.name.clone(), profile.component.clone());
        let message = match &profile.failures.broken {
            Some(broken) => broken.clone(),
            None => format!(
                "failed {traps} times, and at most {} are allowed",
                profile.max_traps
            ),
        };
        let Some(previous) = active.previous.take() else {
            return;
        };
        let to = Some(previous.component.clone());
        active.profile = *previous;
        self.actions.push(Action::RolledBack {
            profile: name,
            component,
            to,
            message,
        });
    }

    fn warm(&mut self, mut candidate: Box<Candidate>) {
        if candidate.profile.wants_pods() {
            self.snapshot.keep_pod_log();
        }
        let changes = candidate.profile.take_changes(&self.snapshot);
        self.actions.push(Action::Warm(candidate, changes));
    }

    fn warmed(&mut self, mut candidate: Box<Candidate>, now_ms: u64) {
        candidate.rounds += 1;
        let changes = candidate.profile.take_changes(&self.snapshot);
        let count: usize = changes.iter().map(Vec::len).sum();
        if count > MAX_INLINE_CHANGES && candidate.rounds < MAX_WARM_ROUNDS {
            self.actions.push(Action::Warm(candidate, changes));
            return;
        }
        match apply(&mut candidate.profile, &changes) {
            Ok(()) => self.switch(*candidate, now_ms),
            Err(message) => self.refuse(*candidate, message),
        }
    }

    fn refuse(&mut self, candidate: Candidate, message: String) {
        let Profile {
            name,
            version,
            component,
            ..
        } = candidate.profile;
        self.actions.push(Action::Refused {
            profile: name,
            version,
            component,
            message,
        });
    }

    fn switch(&mut self, candidate: Candidate, now_ms: u64) {
        let warm_ms = now_ms.saturating_sub(candidate.began_ms);
        let profile = candidate.profile;
        let mut receipt = Receipt {
            profile: profile.name.clone(),
            version: profile.version.clone(),
            component: profile.component.clone(),
            from: String::new(),
            compile_ms: candidate.compile_ms,
            warm_ms,
            cycles_on_old: 0,
        };
        match self
            .profiles
            .iter_mut()
            .find(|a| a.profile.name == profile.name)
        {
            Some(active) => {
                let old = std::mem::replace(&mut active.profile, profile);
                receipt.from = old.component.clone();
                receipt.cycles_on_old = old.cycles;
                // A version that failed too often is no good one to go back to.
                if old.traps() <= old.max_traps && old.failures.broken.is_none() {
                    active.previous = Some(Box::new(old));
                }
            }
            None => self.profiles.push(Active {
                profile,
                previous: None,
            }),
        }
        self.actions.push(Action::Switched(receipt));
        self.queue.wake(Events::all(), now_ms);
        // The oldest first, and always in the same order.
        let mut strangers: Vec<Arc<PodInfo>> =
            std::mem::take(&mut self.strangers).into_values().collect();
        strangers.sort_by_cached_key(|pod| {
            let created = pod.object["metadata"]["creationTimestamp"].as_str();
            (created.unwrap_or("").to_owned(), Arc::clone(&pod.uid))
        });
        for pod in strangers {
            self.enqueue(pod, now_ms);
        }
    }

    fn profile_gone(&mut self, name: &str) {
        // Its pods are found out when they are tried.
        self.profiles.retain(|a| a.profile.name != name);
    }
}

/// Applies each member's changes.
pub fn apply(profile: &mut Profile, changes: &[Vec<Change>]) -> Result<(), String> {
    for (member, changes) in profile.members.iter_mut().zip(changes) {
        if !changes.is_empty() {
            let text = |e| SetupError::from(e).to_string();
            member.engine.apply(changes).map_err(text)?;
        }
    }
    Ok(())
}
