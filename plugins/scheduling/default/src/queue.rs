//! SchedulingGates and PrioritySort.

use crate::objects::PodSpec;

/// The refusal of a pod with gates.
pub fn gates(spec: &PodSpec) -> Option<String> {
    if spec.scheduling_gates.is_empty() {
        return None;
    }
    let names: Vec<&str> = spec
        .scheduling_gates
        .iter()
        .map(|g| g.name.as_str())
        .collect();
    Some(format!(
        "waiting for scheduling gates: [{}]",
        names.join(" ")
    ))
}

/// Higher priority first, then the one that waits longer.
pub fn sort_key(spec: &PodSpec, queued_at_ms: u64) -> (i64, u64) {
    (-spec.priority, queued_at_ms)
}
