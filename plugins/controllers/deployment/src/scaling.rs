//! Scaling without rolling out: one active set takes it all, several share it in proportion.

use controller_kit::workload::ReplicaSet;
use oarlock_sdk::controller::{Error, PatchKind};
use serde_json::json;

use crate::annotations::{self, DESIRED_REPLICAS, MAX_REPLICAS};
use crate::sets::Sets;
use crate::view::Deployment;
use crate::{REPLICA_SETS, Step};

/// What one set gets of `to_add` pods (negative: loses), of which `added` have been given away.
fn share(set: &ReplicaSet, deployment: &Deployment, to_add: i64, added: i64) -> i64 {
    if set.spec.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (fraction, left) = (fraction(set, deployment), to_add - added);
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i64 {
    let size = set.spec.replicas;
    if deployment.spec.replicas == 0 {
        return -size;
    }
    let most = deployment.spec.replicas + deployment.max_surge();
    let before = set
        .metadata
        .number(MAX_REPLICAS)
        .filter(|n| *n > 0)
        .unwrap_or(deployment.status.replicas);
    if before <= 0 {
        return 0;
    }
    // Rounded half up.
    (2 * size * most + before).div_euclid(2 * before) - size
}

impl Step<'_> {
    /// Whether only the number of pods changed since the sets were last scaled.
    pub fn is_scaling_event(&self, sets: &Sets) -> bool {
        sets.all
            .iter()
            .filter(|set| set.spec.replicas > 0)
            .filter_map(|set| set.metadata.number(DESIRED_REPLICAS))
            .any(|desired| desired != self.deployment.spec.replicas)
    }

    pub fn scale(&mut self, sets: &mut Sets) -> Result<(), Error> {
        let wanted = self.deployment.spec.replicas;
        let active: Vec<usize> = (0..sets.all.len())
            .filter(|i| sets.all[*i].spec.replicas > 0)
            .collect();
        let single = match active[..] {
            [] => sets.new_index().or_else(|| sets.all.len().checked_sub(1)),
            [one] => Some(one),
            _ => None,
        };
        if let Some(one) = single {
            if sets.all[one].spec.replicas != wanted {
                self.scale_set(sets, one, wanted)?;
            }
            return Ok(());
        }
        if active.is_empty() {
            return Ok(());
        }
        let saturated = sets.new_set().is_some_and(|new| {
            new.spec.replicas == wanted
                && new.metadata.number(DESIRED_REPLICAS) == Some(wanted)
                && new.status.available_replicas == wanted
        });
        if saturated {
            self.scale_down_all_old(sets)?;
            return Ok(());
        }
        if self.deployment.rolls() {
            self.scale_in_proportion(sets, active)?;
        }
        Ok(())
    }

    fn scale_in_proportion(
        &mut self,
        sets: &mut Sets,
        mut active: Vec<usize>,
    ) -> Result<(), Error> {
        let wanted = self.deployment.spec.replicas;
        let total: i64 = active.iter().map(|i| sets.all[*i].spec.replicas).sum();
        let allowed = if wanted > 0 {
            wanted + self.deployment.max_surge()
        } else {
            0
        };
        let to_add = allowed - total;
        // The biggest first; of equal ones the newest when growing, the oldest when shrinking.
        active.sort_by(|a, b| {
            let size = |i: &usize| sets.all[*i].spec.replicas;
            size(b)
                .cmp(&size(a))
                .then(if to_add > 0 { b.cmp(a) } else { a.cmp(b) })
        });
        let mut added = 0;
        let mut targets = Vec::new();
        for index in &active {
            let set = &sets.all[*index];
            let more = share(set, &self.deployment, to_add, added);
            added += more;
            targets.push(set.spec.replicas + more);
        }
        // What rounding left over goes to the first.
        if to_add != 0 {
            targets[0] = (targets[0] + to_add - added).max(0);
        }
        for (index, target) in active.into_iter().zip(targets) {
            self.scale_set(sets, index, target)?;
        }
        Ok(())
    }

    /// True if the set's size changed. Its memory of the Deployment's size is brought up to date either way.
    pub fn scale_set(&mut self, sets: &mut Sets, index: usize, size: i64) -> Result<bool, Error> {
        let set = &sets.all[index];
        let sizes = annotations::sizes(&self.deployment);
        let resize = set.spec.replicas != size;
        let remember = sizes
            .iter()
            .any(|(key, value)| set.metadata.annotations.get(key) != Some(value));
        if !resize && !remember {
            return Ok(false);
        }
        let (before, name) = (set.spec.replicas, set.metadata.name.clone());
        let annotations: serde_json::Map<_, _> =
            sizes.into_iter().map(|(k, v)| (k, json!(v))).collect();
        let patch = json!({
            "metadata": {"annotations": annotations, "resourceVersion": set.metadata.resource_version},
            "spec": {"replicas": size},
        });
        sets.all[index] = self.cluster.patch_as(
            REPLICA_SETS,
            &set.metadata.key(),
            "",
            PatchKind::Merge,
            &patch,
        )?;
        if resize {
            let direction = if size > before { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {before} to {size}");
            self.cluster
                .event(&self.deployment.reference(), "ScalingReplicaSet", &message)?;
        }
        Ok(resize)
    }
}
