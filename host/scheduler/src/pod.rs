//! A pod as the scheduler keeps it: what is needed of it again and again, read once.

use std::sync::Arc;

use oarlock_client::{Key, Object};
use oarlock_model::meta;

use crate::shape::Shape;
use crate::snapshot::Uid;
use crate::usage::PodUsage;

pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

#[derive(Debug)]
pub struct PodInfo {
    pub uid: Uid,
    pub key: Key,
    pub object: Object,
    pub usage: Arc<PodUsage>,
    pub shape: Shape,
}

impl PodInfo {
    pub fn new(object: Object) -> Self {
        Self {
            uid: meta::uid(&object).into(),
            key: key_of(&object),
            usage: Arc::new(PodUsage::of(&object)),
            shape: Shape::of(&object),
            object,
        }
    }

    pub fn scheduler_name(&self) -> &str {
        scheduler_name(&self.object)
    }

    /// Whether the pod waits for a node.
    pub fn is_pending(&self) -> bool {
        node_name(&self.object).is_empty()
            && !is_finished(&self.object)
            && !meta::is_terminating(&self.object)
    }
}

pub fn key_of(object: &Object) -> Key {
    Key {
        namespace: meta::namespace(object).to_owned(),
        name: meta::name(object).to_owned(),
    }
}

pub fn scheduler_name(object: &Object) -> &str {
    let name = object
        .pointer("/spec/schedulerName")
        .and_then(|v| v.as_str())
        .unwrap_or("");
    if name.is_empty() {
        DEFAULT_SCHEDULER_NAME
    } else {
        name
    }
}

pub fn node_name(object: &Object) -> &str {
    object
        .pointer("/spec/nodeName")
        .and_then(|v| v.as_str())
        .unwrap_or("")
}

/// Succeeded and Failed pods use nothing of their node.
pub fn is_finished(object: &Object) -> bool {
    matches!(
        object.pointer("/status/phase").and_then(|v| v.as_str()),
        Some("Succeeded" | "Failed")
    )
}
