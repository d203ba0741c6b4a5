//! Rolls Deployments out by their ReplicaSets.
//! https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
//!
//! Invariant: a step works on one consistent view (the Deployment and its sets) and writes few things; what follows from
//! a write is done in the step that its event brings.

mod annotations;
mod conditions;
mod progress;
mod rolling;
mod scaling;
mod sets;
#[cfg(test)]
mod tests;
mod view;

use oarlock_sdk::controller::{
    Cluster, Description, Error, Key, Mapping, Outcome, Permission, Query, Reconciler, Watch,
};
use oarlock_sdk::host;

use controller_kit::Pod;
use sets::Sets;
use view::Deployment;

pub const DEPLOYMENTS: &str = "apps/v1/deployments";
pub const REPLICA_SETS: &str = "apps/v1/replicasets";
pub const PODS: &str = "v1/pods";

#[derive(Default)]
pub struct DeploymentController;

oarlock_sdk::export_controller!(DeploymentController);

impl Reconciler for DeploymentController {
    fn describe(&self) -> Description {
        Description::new(
            "deployment-controller",
            vec![
                Watch::of(DEPLOYMENTS).relevant(&[
                    "/metadata/generation",
                    "/metadata/annotations",
                    "/metadata/labels",
                    "/metadata/deletionTimestamp",
                ]),
                Watch::of(REPLICA_SETS).by(Mapping::ControllerOwner("Deployment".to_owned())),
                // Orphans concern every Deployment that selects them.
                Watch::of(REPLICA_SETS)
                    .by(Mapping::Custom)
                    .relevant(&["/metadata/labels", "/metadata/ownerReferences"]),
            ],
            vec![
                Permission::to("get list watch patch", "apps", "deployments"),
                Permission::to("patch", "apps", "deployments/status"),
                Permission::to("get list watch create patch delete", "apps", "replicasets"),
                Permission::to("get list watch", "", "pods"),
            ],
        )
        .concurrent(4)
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        if let Some(set) = key.name.strip_prefix(sets::ORPHAN) {
            sets::find_owner(cluster, &Key::new(&key.namespace, set))?;
            return Ok(Outcome::Done);
        }
        let Some(deployment) = cluster.get_as::<Deployment>(DEPLOYMENTS, key)? else {
            return Ok(Outcome::Done);
        };
        Step {
            cluster,
            deployment,
            now_ms: host::now_ms(),
        }
        .run()
    }

    fn keys_of(&self, _watch: u32, object: &serde_json::Value, gone: bool) -> Vec<Key> {
        sets::orphan_key(object, gone).into_iter().collect()
    }
}

/// One step for one Deployment.
struct Step<'a> {
    cluster: &'a Cluster<'a>,
    deployment: Deployment,
    now_ms: u64,
}

impl Step<'_> {
    fn run(mut self) -> Result<Outcome, Error> {
        if view::selects_everything(&self.deployment.spec.selector) {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.";
            self.cluster
                .warning(&self.deployment.reference(), "SelectingAll", message)?;
            return Ok(Outcome::Done);
        }
        let mut sets = Sets::claim(self.cluster, &self.deployment)?;
        if self.deployment.metadata.terminating() {
            self.write_status(&sets, None)?;
            return Ok(Outcome::Done);
        }
        self.note_pause()?;
        if self.deployment.spec.paused {
            return self.hold(&mut sets);
        }
        if self.is_scaling_event(&sets) {
            return self.hold(&mut sets);
        }
        match self.deployment.spec.strategy.kind.as_str() {
            "Recreate" => self.recreate(&mut sets),
            _ => self.roll(&mut sets),
        }
    }

    /// Scales without rolling out: while paused, and when only the number changed.
    fn hold(&mut self, sets: &mut Sets) -> Result<Outcome, Error> {
        self.find_new(sets, false)?;
        self.scale(sets)?;
        if self.deployment.spec.paused {
            self.clean_up(sets)?;
        }
        self.write_status(sets, None)?;
        Ok(Outcome::Done)
    }

    fn recreate(&mut self, sets: &mut Sets) -> Result<Outcome, Error> {
        self.find_new(sets, false)?;
        if self.scale_down_all_old(sets)? {
            return self.report(sets);
        }
        if self.old_pods_run(sets)? {
            return self.report(sets);
        }
        self.find_new(sets, true)?;
        let wanted = self.deployment.spec.replicas;
        if let Some(new) = sets.new_index() {
            self.scale_set(sets, new, wanted)?;
        }
        if self.deployment.is_complete(&self.deployment.status) {
            self.clean_up(sets)?;
        }
        self.report(sets)
    }

    fn old_pods_run(&self, sets: &Sets) -> Result<bool, Error> {
        for old in sets.old() {
            if old.status.replicas == 0
                && old.status.terminating_replicas.unwrap_or(0) == 0
                && old.spec.replicas == 0
            {
                continue;
            }
            let query =
                Query::namespace(&self.deployment.metadata.namespace).owned_by(&old.metadata.uid);
            let pods: Vec<Pod> = self
                .cluster
                .list_as(PODS, &query.parts(&["/status/phase"]))?;
            if pods.iter().any(|pod| !pod.finished()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
