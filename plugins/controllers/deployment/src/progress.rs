//! The status of a Deployment, and whether its rollout makes progress.

use controller_kit::{Condition, condition, time};
use oarlock_sdk::controller::{Error, Outcome};
use serde_json::{Value, json};

use crate::conditions::set;
use crate::sets::Sets;
use crate::view::Status;
use crate::{DEPLOYMENTS, Step};

impl Step<'_> {
    fn calculate(&self, sets: &Sets) -> Status {
        let sum = |count: &dyn Fn(&controller_kit::workload::ReplicaSetStatus) -> i64| -> i64 {
            sets.all.iter().map(|set| count(&set.status)).sum()
        };
        let available = sum(&|s| s.available_replicas);
        let mut conditions = self.deployment.status.conditions.clone();
        let enough = available >= self.deployment.spec.replicas - self.deployment.max_unavailable();
        set(
            &mut conditions,
            if enough {
                let message = "Deployment has minimum availability.";
                self.condition("Available", "True", "MinimumReplicasAvailable", message)
            } else {
                let message = "Deployment does not have minimum availability.";
                self.condition("Available", "False", "MinimumReplicasUnavailable", message)
            },
        );
        Status {
            observed_generation: self.deployment.metadata.generation,
            replicas: sum(&|s| s.replicas),
            updated_replicas: sets.new_set().map_or(0, |new| new.status.replicas),
            ready_replicas: sum(&|s| s.ready_replicas),
            available_replicas: available,
            unavailable_replicas: (sets.wanted() - available).max(0),
            terminating_replicas: Some(sum(&|s| s.terminating_replicas.unwrap_or(0))),
            collision_count: self.deployment.status.collision_count,
            conditions,
        }
    }

    /// Writes the status if it changed. `conditions`: instead of those that follow from availability alone.
    pub fn write_status(
        &mut self,
        sets: &Sets,
        conditions: Option<Vec<Condition>>,
    ) -> Result<(), Error> {
        let mut new = self.calculate(sets);
        if let Some(conditions) = conditions {
            new.conditions = conditions;
        }
        if new == self.deployment.status {
            return Ok(());
        }
        let patch =
            json!({"metadata": {"uid": self.deployment.metadata.uid}, "status": texts(&new)});
        self.cluster
            .merge_status(DEPLOYMENTS, &self.deployment.metadata.key(), &patch)?;
        self.deployment.status = new;
        Ok(())
    }

    /// The status of a rollout under way: with the Progressing and ReplicaFailure conditions.
    pub fn report(&mut self, sets: &Sets) -> Result<Outcome, Error> {
        let mut new = self.calculate(sets);
        let current = condition(&new.conditions, "Progressing").cloned();
        let done_before = new.replicas == new.updated_replicas
            && current
                .as_ref()
                .is_some_and(|c| c.reason == "NewReplicaSetAvailable");
        if self.deployment.deadline_seconds().is_none() {
            new.conditions.retain(|c| c.kind != "Progressing");
        } else if !done_before {
            self.judge(sets, &mut new, current.as_ref());
        }
        let failure = sets
            .new_set()
            .into_iter()
            .chain(sets.old())
            .find_map(|set| condition(&set.status.conditions, "ReplicaFailure"))
            .cloned();
        match failure {
            Some(failure) => {
                let mut own = self.condition(
                    "ReplicaFailure",
                    &failure.status,
                    &failure.reason,
                    failure.message,
                );
                own.last_transition_time =
                    failure.last_transition_time.or(own.last_transition_time);
                set(&mut new.conditions, own);
            }
            None => new.conditions.retain(|c| c.kind != "ReplicaFailure"),
        }
        let outcome = self.next_look(&new);
        self.write_status(sets, Some(new.conditions))?;
        Ok(outcome)
    }

    fn judge(&self, sets: &Sets, new: &mut Status, current: Option<&Condition>) {
        let subject = match sets.new_set() {
            Some(set) => format!("ReplicaSet {:?}", set.metadata.name),
            None => format!("Deployment {:?}", self.deployment.metadata.name),
        };
        if self.deployment.is_complete(new) {
            let message = format!("{subject} has successfully progressed.");
            set(
                &mut new.conditions,
                self.condition("Progressing", "True", "NewReplicaSetAvailable", message),
            );
        } else if advanced(&self.deployment.status, new) {
            let mut next = self.condition(
                "Progressing",
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
            );
            if let Some(current) = current.filter(|c| c.status == "True") {
                next.last_transition_time = current.last_transition_time.clone();
            }
            // Put in anew even if nothing but its time changed: the deadline counts from there.
            new.conditions.retain(|c| c.kind != "Progressing");
            new.conditions.push(next);
        } else if self.timed_out(new) {
            let message = format!("{subject} has timed out progressing.");
            set(
                &mut new.conditions,
                self.condition("Progressing", "False", "ProgressDeadlineExceeded", message),
            );
        }
    }

    /// When the deadline ends, if it runs.
    fn deadline_ms(&self, status: &Status) -> Option<u64> {
        let seconds = self.deployment.deadline_seconds()?;
        let current = condition(&status.conditions, "Progressing")?;
        let from = time::parse_ms(current.last_update_time.as_deref()?)?;
        Some(from.saturating_add(u64::try_from(seconds).ok()?.saturating_mul(1_000)))
    }

    fn timed_out(&self, status: &Status) -> bool {
        match condition(&status.conditions, "Progressing").map(|c| c.reason.as_str()) {
            None | Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            Some(_) => self
                .deadline_ms(status)
                .is_some_and(|deadline| deadline < self.now_ms),
        }
    }

    /// A rollout that is stuck brings no events: it is looked at again when its deadline is over.
    fn next_look(&self, status: &Status) -> Outcome {
        let reason = condition(&status.conditions, "Progressing").map(|c| c.reason.as_str());
        if self.deployment.is_complete(status)
            || matches!(
                reason,
                None | Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")
            )
        {
            return Outcome::Done;
        }
        match self.deadline_ms(status) {
            Some(deadline) => Outcome::RequeueAfter(deadline.saturating_sub(self.now_ms) + 1_000),
            None => Outcome::Done,
        }
    }
}

fn advanced(old: &Status, new: &Status) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// As upstream writes it: zeros are left out, which in a merge patch means null.
fn texts(status: &Status) -> Value {
    let count = |n: i64| if n == 0 { Value::Null } else { json!(n) };
    let mut value = json!({
        "observedGeneration": status.observed_generation,
        "replicas": count(status.replicas),
        "updatedReplicas": count(status.updated_replicas),
        "readyReplicas": count(status.ready_replicas),
        "availableReplicas": count(status.available_replicas),
        "unavailableReplicas": count(status.unavailable_replicas),
        "terminatingReplicas": status.terminating_replicas,
        "conditions": status.conditions,
    });
    if let Some(collisions) = status.collision_count {
        value["collisionCount"] = json!(collisions);
    }
    value
}
