//! Conditions of a Deployment.

use controller_kit::{Condition, condition};
use oarlock_sdk::controller::Error;
use serde_json::json;

use crate::{DEPLOYMENTS, Step};

/// Puts a condition in; an equal one (status and reason) stays as it is, and a changed one keeps its transition time
/// if its status stays.
pub fn set(all: &mut Vec<Condition>, mut new: Condition) {
    if let Some(old) = condition(all, &new.kind) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    all.retain(|c| c.kind != new.kind);
    all.push(new);
}

impl Step<'_> {
    /// Writes the Progressing condition at once.
    pub fn progressing(
        &mut self,
        status: &str,
        reason: &str,
        message: String,
    ) -> Result<(), Error> {
        let new = self.condition("Progressing", status, reason, message);
        let mut all = self.deployment.status.conditions.clone();
        set(&mut all, new);
        if all == self.deployment.status.conditions {
            return Ok(());
        }
        self.write_conditions(all)
    }

    fn write_conditions(&mut self, all: Vec<Condition>) -> Result<(), Error> {
        let patch = json!({"metadata": {"uid": self.deployment.metadata.uid}, "status": {"conditions": all}});
        self.cluster
            .merge_status(DEPLOYMENTS, &self.deployment.metadata.key(), &patch)?;
        self.deployment.status.conditions = all;
        Ok(())
    }

    /// Says when a rollout is paused or resumed, so that the deadline does not run meanwhile.
    pub fn note_pause(&mut self) -> Result<(), Error> {
        if self.deployment.deadline_seconds().is_none() {
            return Ok(());
        }
        let reason =
            condition(&self.deployment.status.conditions, "Progressing").map(|c| c.reason.clone());
        if reason.as_deref() == Some("ProgressDeadlineExceeded") {
            return Ok(());
        }
        let noted = reason.as_deref() == Some("DeploymentPaused");
        match (self.deployment.spec.paused, noted) {
            (true, false) => self.progressing(
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".to_owned(),
            ),
            (false, true) => self.progressing(
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed".to_owned(),
            ),
            _ => Ok(()),
        }
    }
}
