//! Kubernetes Events of controllers: recorded in the background, repeated ones counted instead of written anew.
//!
//! Invariant: recording never waits and never fails a reconcile; when too many wait, the newest are dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::Timestamp;
use oarlock_client::{Cluster, Key, Patch};
use oarlock_model::{Gvr, Reason, meta, time::format_time};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Events that may wait to be written.
const MAX_WAITING: usize = 1_024;
/// Written events that are remembered for counting.
const MAX_REMEMBERED: usize = 2_048;
const MAX_MESSAGE_BYTES: usize = 1_024;

#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Recorded>,
    component: Arc<str>,
}

/// Something to be told about an object.
#[derive(Clone, Debug)]
struct Recorded {
    component: Arc<str>,
    /// `involvedObject`
    about: Value,
    warning: bool,
    reason: String,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// Starts the writer on the current runtime; it ends when the last recorder is dropped.
    pub fn start(cluster: Arc<dyn Cluster>) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        tokio::spawn(write(cluster, receiver));
        Self {
            sender,
            component: Arc::from(""),
        }
    }

    /// The same writer for another source.
    pub fn named(&self, component: &str) -> Self {
        Self {
            sender: self.sender.clone(),
            component: Arc::from(component),
        }
    }

    /// `about`: an object, of which the envelope is read.
    pub fn record(&self, about: &Value, warning: bool, reason: &str, message: &str, at: Timestamp) {
        let mut message = message.to_owned();
        if message.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES)
                .rev()
                .find(|at| message.is_char_boundary(*at))
                .unwrap_or(0);
            message.truncate(end);
        }
        let event = Recorded {
            component: Arc::clone(&self.component),
            about: reference(about),
            warning,
            reason: reason.to_owned(),
            message,
            at,
        };
        if self.sender.try_send(event).is_err() {
            tracing::debug!(reason, "an event was dropped: too many are waiting");
        }
    }
}

fn reference(object: &Value) -> Value {
    let mut out = json!({
        "apiVersion": meta::api_version(object),
        "kind": meta::kind(object),
        "name": meta::name(object),
        "uid": meta::uid(object),
    });
    for (field, text) in [
        ("namespace", meta::namespace(object)),
        ("resourceVersion", meta::resource_version(object)),
    ] {
        if !text.is_empty() {
            out[field] = json!(text);
        }
    }
    out
}

/// What makes two events one: everything but the time and the object's version.
fn identity(event: &Recorded) -> String {
    let about = &event.about;
    format!(
        "{}\n{}\n{}\n{}\n{}\n{}",
        event.component,
        about["kind"],
        about["namespace"],
        about["uid"],
        event.reason,
        event.message
    )
}

fn object(event: &Recorded, sequence: u64) -> (String, Value) {
    let namespace = event.about["namespace"]
        .as_str()
        .unwrap_or("default")
        .to_owned();
    let name = event.about["name"].as_str().unwrap_or("");
    let suffix = (event.at.as_nanosecond() as u64).wrapping_add(sequence);
    let time = format_time(event.at);
    let object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{suffix:x}"), "namespace": namespace},
        "involvedObject": event.about,
        "reason": event.reason,
        "message": event.message,
        "source": {"component": &*event.component},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "type": if event.warning { "Warning" } else { "Normal" },
        "eventTime": null,
        "reportingComponent": &*event.component,
        "reportingInstance": "",
    });
    (namespace, object)
}

async fn write(cluster: Arc<dyn Cluster>, mut receiver: mpsc::Receiver<Recorded>) {
    let kind = Gvr::new("", "v1", "events");
    let mut seen: HashMap<String, (Key, u64), RandomState> = HashMap::default();
    let mut order: VecDeque<String> = VecDeque::new();
    let mut sequence = 0u64;
    while let Some(event) = receiver.recv().await {
        let identity = identity(&event);
        if let Some((key, count)) = seen.get_mut(&identity) {
            *count += 1;
            let patch =
                Patch::Merge(json!({"count": *count, "lastTimestamp": format_time(event.at)}));
            match cluster.patch(&kind, key, "", patch).await {
                Err(error) if error.reason == Reason::NotFound => {
                    seen.remove(&identity);
                }
                Err(error) => {
                    tracing::debug!(%error, "an event was not counted");
                    continue;
                }
                Ok(_) => continue,
            }
        }
        sequence += 1;
        let (namespace, object) = object(&event, sequence);
        let key = Key {
            namespace: namespace.clone(),
            name: meta::name(&object).to_owned(),
        };
        match cluster.create(&kind, &namespace, object).await {
            Ok(_) => {
                if seen.insert(identity.clone(), (key, 1)).is_none() {
                    order.push_back(identity);
                }
                if order.len() > MAX_REMEMBERED
                    && let Some(oldest) = order.pop_front()
                {
                    seen.remove(&oldest);
                }
            }
            // A namespace on its way out takes no events.
            Err(error) => tracing::debug!(%error, "an event was not written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_their_object_and_are_told_apart() {
        let about = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "r", "namespace": "d", "uid": "u", "resourceVersion": "7"}, "spec": {}});
        let event = |message: &str, second: i64| Recorded {
            component: Arc::from("replicaset-controller"),
            about: reference(&about),
            warning: false,
            reason: "SuccessfulCreate".to_owned(),
            message: message.to_owned(),
            at: Timestamp::from_second(second).unwrap(),
        };
        let (namespace, object) = object(&event("Created pod: a", 5), 1);
        assert_eq!(namespace, "d");
        assert_eq!(object["involvedObject"]["resourceVersion"], "7");
        assert_eq!(object["source"]["component"], "replicaset-controller");
        assert!(meta::name(&object).starts_with("r."));
        assert_eq!(identity(&event("a", 1)), identity(&event("a", 2)));
        assert_ne!(identity(&event("a", 1)), identity(&event("b", 1)));
    }
}
