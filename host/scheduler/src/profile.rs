//! A profile at work: its members, its queries, and one pod's cycle over all nodes.
//!
//! Invariant: when `schedule` returns, every engine is alive, or the profile says that it is broken.

use std::collections::HashMap;
use std::sync::Arc;

use oarlock_wasm::Error;
use oarlock_wasm::scheduler::Verdict;

use crate::member::{FailurePolicy, Member, SetupError};
use crate::pod::PodInfo;
use crate::query::{Diagnosis, Failed, Query};
use crate::shape::Shape;
use crate::snapshot::{Slot, Snapshot};

/// Queries kept for shapes that come again.
pub const MAX_QUERIES: usize = 32;
/// So many failures of guests in one attempt end it.
const MAX_FAILURES_AN_ATTEMPT: u32 = 2;

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    Fits(Slot),
    /// Nowhere, and why.
    Unschedulable(Diagnosis),
    /// A guest failed, and its policy is to reject the pod.
    Error(String),
}

/// What went wrong with guests lately, for the owner to look at.
#[derive(Debug, Default)]
pub struct Failures {
    /// Component and error.
    pub list: Vec<(Arc<str>, Error)>,
    /// A member that cannot be brought back.
    pub broken: Option<String>,
}

#[derive(Debug)]
pub struct Profile {
    /// `metadata.name` of its SchedulerProfile.
    pub name: String,
    pub scheduler_name: String,
    /// Tells versions of one profile apart: what it was made from.
    pub version: String,
    /// As status names it: the component that the profile names, and its digest.
    pub component: String,
    pub max_traps: u32,
    pub members: Vec<Member>,
    /// By shape; the number says when it was used last.
    queries: HashMap<Shape, (u64, Query)>,
    /// Answers of PreEnqueue by shape.
    gates: HashMap<Shape, Option<String>>,
    uses: u64,
    /// Where among equals the next choice starts.
    start: usize,
    pub failures: Failures,
    pub cycles: u64,
}

impl Profile {
    pub fn new(
        name: &str,
        scheduler_name: &str,
        version: String,
        component: String,
        members: Vec<Member>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            scheduler_name: scheduler_name.to_owned(),
            version,
            component,
            max_traps: crate::config::DEFAULT_MAX_TRAPS,
            members,
            queries: HashMap::new(),
            gates: HashMap::new(),
            uses: 0,
            start: 0,
            failures: Failures::default(),
            cycles: 0,
        }
    }

    /// Failures of guests since the profile became active.
    pub fn traps(&self) -> u32 {
        self.members.iter().map(|m| m.traps).sum()
    }

    /// Takes note of a guest's failure and replaces its engine.
    fn failed(&mut self, failed: Failed) {
        let member = &mut self.members[failed.member];
        member.traps += 1;
        tracing::warn!(component = %member.component, error = %failed.error, "a scheduling plugin failed; its instance is replaced");
        self.failures
            .list
            .push((Arc::clone(&member.component), failed.error));
        if let Err(error) = member.respawn() {
            self.failures.broken = Some(format!("component {}: {error}", member.component));
        }
        // Its part of every query is gone.
        let members = &self.members;
        self.queries.retain(|_, (_, query)| query.is_known(members));
    }

    /// Why the pod may not enter the queue, if so.
    pub fn pre_enqueue(&mut self, pod: &PodInfo) -> Option<String> {
        if let Some(known) = self.gates.get(&pod.shape) {
            return known.clone();
        }
        let mut json: Option<String> = None;
        let mut reason = None;
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            let plugins = member.enqueueing();
            if plugins.is_empty() || !member.engine.has_queue() {
                continue;
            }
            let json = json.get_or_insert_with(|| pod.object.to_string());
            match member.engine.pre_enqueue(json, &plugins) {
                Ok(None) => {}
                Ok(Some(Verdict { reasons, .. })) => {
                    reason = Some(reasons.join(", "));
                    break;
                }
                // A guest that fails here decides nothing: the pod is tried.
                Err(error) => {
                    self.failed(Failed {
                        member: index,
                        error,
                    });
                    return None;
                }
            }
        }
        if self.gates.len() >= MAX_QUERIES * 8 {
            self.gates.clear();
        }
        self.gates.insert(pod.shape, reason.clone());
        reason
    }

    /// The pod's place in the queue; by age if no plugin sorts.
    pub fn sort_key(&mut self, pod: &PodInfo, queued_at_ms: u64) -> (i64, u64) {
        let sorter = self
            .members
            .iter()
            .position(|m| m.sorting().is_some() && m.engine.has_queue());
        let Some(index) = sorter else {
            return (0, queued_at_ms);
        };
        let member = &mut self.members[index];
        let plugin = member.sorting().unwrap_or_default();
        match member
            .engine
            .sort_key(&pod.object.to_string(), plugin, queued_at_ms)
        {
            Ok(key) => key,
            Err(error) => {
                self.failed(Failed {
                    member: index,
                    error,
                });
                (0, queued_at_ms)
            }
        }
    }

    /// Brings all mirrors up to date.
    pub fn sync(&mut self, snapshot: &Snapshot) {
        for index in 0..self.members.len() {
            if let Err(error) = self.members[index].sync(snapshot) {
                self.failed(Failed {
                    member: index,
                    error,
                });
            }
        }
    }

    fn sync_all(&mut self, snapshot: &Snapshot) -> Result<(), Failed> {
        for (index, member) in self.members.iter_mut().enumerate() {
            member.sync(snapshot).map_err(|error| Failed {
                member: index,
                error,
            })?;
        }
        Ok(())
    }

    /// Finds the pod a node.
    pub fn schedule(&mut self, pod: &PodInfo, snapshot: &Snapshot) -> Outcome {
        self.cycles += 1;
        if self.failures.broken.take().is_some()
            && let Err(error) = self.respawn_all()
        {
            self.failures.broken = Some(error.to_string());
            return Outcome::Error(error.to_string());
        }
        let mut without = None;
        for _ in 0..=MAX_FAILURES_AN_ATTEMPT {
            let failed = match self.try_once(pod, snapshot, without) {
                Ok(outcome) => return outcome,
                Err(failed) => failed,
            };
            let (index, text) = (failed.member, failed.error.to_string());
            let policy = self.members[index].failure_policy;
            self.failed(failed);
            if let Some(broken) = &self.failures.broken {
                return Outcome::Error(broken.clone());
            }
            match policy {
                FailurePolicy::Fail => return Outcome::Error(text),
                FailurePolicy::Ignore => without = Some(index),
            }
        }
        Outcome::Error("scheduling plugins keep failing".to_owned())
    }

    fn try_once(
        &mut self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        without: Option<usize>,
    ) -> Result<Outcome, Failed> {
        self.sync_all(snapshot)?;
        let mut query = match (without, self.queries.remove(&pod.shape)) {
            (None, Some((_, query))) if query.is_known(&self.members) => query,
            _ => Query::open(&pod.object.to_string(), &mut self.members, without)?,
        };
        query.refresh(&mut self.members, snapshot)?;
        let outcome = match query.best_from(self.start) {
            Some(slot) => {
                self.start = slot as usize + 1;
                Outcome::Fits(slot)
            }
            None => Outcome::Unschedulable(query.diagnose(&mut self.members, snapshot)?),
        };
        if without.is_some() {
            query.close(&mut self.members)?;
        } else {
            self.keep(pod.shape, query)?;
        }
        Ok(outcome)
    }

    fn keep(&mut self, shape: Shape, query: Query) -> Result<(), Failed> {
        self.uses += 1;
        if self.queries.len() >= MAX_QUERIES {
            let oldest = self
                .queries
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(shape, _)| *shape);
            if let Some((_, query)) = oldest.and_then(|shape| self.queries.remove(&shape)) {
                query.close(&mut self.members)?;
            }
        }
        self.queries.insert(shape, (self.uses, query));
        Ok(())
    }

    /// The kept query of a shape.
    pub fn query(&self, shape: &Shape) -> Option<&Query> {
        self.queries.get(shape).map(|(_, query)| query)
    }

    /// Changes that each member's mirror lacks; the caller applies them, member by member.
    pub fn take_changes(
        &mut self,
        snapshot: &Snapshot,
    ) -> Vec<Vec<oarlock_wasm::scheduler::Change>> {
        self.members
            .iter_mut()
            .map(|m| m.take_changes(snapshot))
            .collect()
    }

    /// Whether any member mirrors placed pods.
    pub fn wants_pods(&self) -> bool {
        self.members.iter().any(Member::wants_pods)
    }

    /// Replaces every engine.
    pub fn respawn_all(&mut self) -> Result<(), SetupError> {
        self.members.iter_mut().try_for_each(Member::respawn)?;
        let members = &self.members;
        self.queries.retain(|_, (_, query)| query.is_known(members));
        Ok(())
    }
}
