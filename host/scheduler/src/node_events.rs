//! What the change of a node may mean for pods that wait.

use oarlock_model::{Quantity, meta};
use oarlock_wasm::scheduler::Events;
use serde_json::Value;

/// The classes of event in which two states of a node differ.
pub fn changes_between(old: &Value, new: &Value) -> Events {
    let mut events = Events::empty();
    let differ = |pointer: &str| old.pointer(pointer) != new.pointer(pointer);
    if differ("/status/allocatable") && allocatable_grew(old, new) {
        events |= Events::NODE_ALLOCATABLE;
    }
    if meta::labels(old) != meta::labels(new) {
        events |= Events::NODE_LABEL;
    }
    if differ("/spec/taints") || differ("/spec/unschedulable") {
        events |= Events::NODE_TAINT;
    }
    if meta::annotations(old) != meta::annotations(new) {
        events |= Events::NODE_ANNOTATION;
    }
    if differ("/status/images") || conditions(old) != conditions(new) {
        events |= Events::NODE_CONDITION;
    }
    events
}

/// Types and statuses; times of heartbeats do not count.
fn conditions(node: &Value) -> Vec<(&Value, &Value)> {
    let list = node.pointer("/status/conditions").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|c| (&c["type"], &c["status"]))
        .collect()
}

fn allocatable_grew(old: &Value, new: &Value) -> bool {
    let map = |node: &'_ Value| {
        node.pointer("/status/allocatable")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    };
    let before = map(old);
    let amount = |value: &Value| Quantity::from_json(value).unwrap_or_default();
    map(new)
        .iter()
        .any(|(name, value)| before.get(name).is_none_or(|b| amount(value) > amount(b)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let check = |old: Value, new: Value, expect: Events| {
            assert_eq!(changes_between(&old, &new), expect, "{new}");
        };
        let cpu = |n: &str| json!({"status": {"allocatable": {"cpu": n}}});
        check(cpu("1"), cpu("2"), Events::NODE_ALLOCATABLE);
        check(cpu("2"), cpu("1"), Events::empty());
        check(cpu("1"), cpu("1000m"), Events::empty());
        check(
            json!({}),
            json!({"spec": {"unschedulable": true}}),
            Events::NODE_TAINT,
        );
        check(
            json!({}),
            json!({"metadata": {"labels": {"a": "b"}}}),
            Events::NODE_LABEL,
        );
        let beat = |at: &str| json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": at}]}});
        check(beat("1"), beat("2"), Events::empty());
    }
}
