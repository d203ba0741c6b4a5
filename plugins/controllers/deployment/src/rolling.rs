//! The rolling update: up with the new set as far as the surge allows, down with the old ones as far as enough pods
//! stay available.

use controller_kit::workload::ReplicaSet;
use oarlock_sdk::controller::{Error, Outcome};

use crate::Step;
use crate::sets::Sets;
use crate::view::Deployment;

/// How big the new set may be now. `current`: it, if it exists.
pub fn new_set_size(deployment: &Deployment, sets: &Sets, current: Option<&ReplicaSet>) -> i64 {
    let wanted = deployment.spec.replicas;
    if !deployment.rolls() {
        return wanted;
    }
    let size = current.map_or(0, |set| set.spec.replicas);
    let room = wanted + deployment.max_surge() - sets.wanted();
    if room <= 0 {
        size
    } else {
        size + room.min(wanted - size)
    }
}

impl Step<'_> {
    pub fn roll(&mut self, sets: &mut Sets) -> Result<Outcome, Error> {
        self.find_new(sets, true)?;
        if self.grow_new(sets)? {
            return self.report(sets);
        }
        if self.shrink_old(sets)? {
            return self.report(sets);
        }
        if self.deployment.is_complete(&self.deployment.status) {
            self.clean_up(sets)?;
        }
        self.report(sets)
    }

    fn grow_new(&mut self, sets: &mut Sets) -> Result<bool, Error> {
        let Some(new) = sets.new_index() else {
            return Ok(false);
        };
        let (size, wanted) = (sets.all[new].spec.replicas, self.deployment.spec.replicas);
        if size == wanted {
            return Ok(false);
        }
        let target = if size > wanted {
            wanted
        } else {
            new_set_size(&self.deployment, sets, sets.new_set())
        };
        self.scale_set(sets, new, target)
    }

    fn shrink_old(&mut self, sets: &mut Sets) -> Result<bool, Error> {
        let old_wanted: i64 = sets.old().map(|set| set.spec.replicas).sum();
        if old_wanted == 0 {
            return Ok(false);
        }
        let least = self.deployment.spec.replicas - self.deployment.max_unavailable();
        let new_unavailable = sets
            .new_set()
            .map_or(0, |set| set.spec.replicas - set.status.available_replicas);
        let room = sets.wanted() - least - new_unavailable;
        if room <= 0 {
            return Ok(false);
        }
        let unhealthy = self.shrink_unhealthy(sets, room)?;
        let available: i64 = sets
            .all
            .iter()
            .map(|set| set.status.available_replicas)
            .sum();
        let mut left = (available - least).max(0);
        let mut scaled = unhealthy;
        for index in sets.old_indexes() {
            let size = sets.all[index].spec.replicas;
            if left == 0 {
                break;
            }
            if size == 0 {
                continue;
            }
            let less = size.min(left);
            scaled |= self.scale_set(sets, index, size - less)?;
            left -= less;
        }
        Ok(scaled)
    }

    /// Old pods that are not available go first: nobody misses them.
    fn shrink_unhealthy(&mut self, sets: &mut Sets, room: i64) -> Result<bool, Error> {
        let mut left = room;
        let mut scaled = false;
        for index in sets.old_indexes() {
            let set = &sets.all[index];
            let (size, available) = (set.spec.replicas, set.status.available_replicas);
            if left <= 0 {
                break;
            }
            if size == 0 || size == available {
                continue;
            }
            let less = left.min(size - available);
            if less <= 0 {
                continue;
            }
            scaled |= self.scale_set(sets, index, size - less)?;
            left -= less;
        }
        Ok(scaled)
    }

    pub fn scale_down_all_old(&mut self, sets: &mut Sets) -> Result<bool, Error> {
        let mut scaled = false;
        for index in sets.old_indexes() {
            if sets.all[index].spec.replicas > 0 {
                scaled |= self.scale_set(sets, index, 0)?;
            }
        }
        Ok(scaled)
    }
}
