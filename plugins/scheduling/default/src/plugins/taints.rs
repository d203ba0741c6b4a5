//! TaintToleration and NodeUnschedulable.

use crate::mirror::{Mirror, NO_SCHEDULE, PREFER_NO_SCHEDULE, same};
use crate::objects::{Taint, Toleration};

pub const REASON: &str = "node(s) had untolerated taint(s)";
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !toleration.effect.is_empty() && !same(&toleration.effect, &taint.effect) {
        return false;
    }
    if !toleration.key.is_empty() && !same(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_str() {
        "" | "Equal" => same(&toleration.value, &taint.value),
        "Exists" => true,
        _ => false,
    }
}

fn any_tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| tolerates(t, taint))
}

#[derive(Debug)]
pub struct Taints {
    all: Vec<Toleration>,
    /// Those that can tolerate PreferNoSchedule.
    preferring: Vec<Toleration>,
    tolerates_unschedulable: bool,
}

impl Taints {
    pub fn new(tolerations: &[Toleration]) -> Self {
        let unschedulable = Taint {
            key: UNSCHEDULABLE_TAINT.to_owned(),
            value: String::new(),
            effect: NO_SCHEDULE.to_owned(),
        };
        let preferring = tolerations
            .iter()
            .filter(|t| t.effect.is_empty() || t.effect == PREFER_NO_SCHEDULE);
        Self {
            tolerates_unschedulable: any_tolerates(tolerations, &unschedulable),
            preferring: preferring.cloned().collect(),
            all: tolerations.to_vec(),
        }
    }

    pub fn fits(&self, mirror: &Mirror, slot: usize) -> bool {
        mirror.taints[slot]
            .iter()
            .all(|taint| any_tolerates(&self.all, taint))
    }

    pub fn may_use_unschedulable(&self) -> bool {
        self.tolerates_unschedulable
    }

    /// How many taints would rather not have the pod.
    pub fn score(&self, mirror: &Mirror, slot: usize) -> i64 {
        let taints = mirror.soft_taints[slot].iter();
        taints
            .filter(|taint| !any_tolerates(&self.preferring, taint))
            .count() as i64
    }
}
