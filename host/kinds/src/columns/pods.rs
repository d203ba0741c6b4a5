//! Pods: what their containers' states add up to.

use jiff::Timestamp;
use oarlock_model::time::{human_duration, parse_time};
use serde_json::{Value, json};

use super::cells::{NONE, age, condition, flag, int, labels, list, name, or, text};
use super::{AGE, Cells, NAME, col, wide};
use crate::Column;

const POD: &[Column] = &[
    NAME,
    col(
        "Ready",
        "string",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    col(
        "Status",
        "string",
        "The aggregate status of the containers in this pod.",
    ),
    col(
        "Restarts",
        "string",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    AGE,
    wide("IP", "string", ""),
    wide("Node", "string", ""),
    wide("Nominated Node", "string", ""),
    wide("Readiness Gates", "string", ""),
];
const POD_TEMPLATE: &[Column] = &[
    NAME,
    col(
        "Containers",
        "string",
        "Names of each container in the template.",
    ),
    col(
        "Images",
        "string",
        "Images referenced by each container in the template.",
    ),
    col("Pod Labels", "string", "The labels for the pod template."),
];

pub fn find(group: &str, kind: &str) -> Option<(&'static [Column], Cells)> {
    match (group, kind) {
        ("", "Pod") => Some((POD, pod)),
        ("", "PodTemplate") => Some((POD_TEMPLATE, |object, _| {
            let [containers, images] = super::cells::containers(object.pointer("/template/spec"));
            let labels = labels(
                object
                    .pointer("/template/metadata/labels")
                    .and_then(Value::as_object),
            );
            vec![name(object), containers, images, json!(labels)]
        })),
        _ => None,
    }
}

/// Restarts counted so far.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += int(container, "/restartCount");
        let at = parse_time(text(container, "/lastState/terminated/finishedAt"));
        self.last = self.last.max(at);
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(at) if self.count != 0 => {
                format!(
                    "{} ({} ago)",
                    self.count,
                    human_duration(now.as_second() - at.as_second())
                )
            }
            _ => self.count.to_string(),
        }
    }
}

/// Why a container ended: its reason, signal or exit code.
fn ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), int(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

struct Progress {
    ready: usize,
    reason: String,
    restarts: Restarts,
}

/// Goes through the init containers; true if one of them is still under way (or failed).
fn initializing(
    pod: &Value,
    sidecar: &dyn Fn(&str) -> bool,
    all: &mut Restarts,
    progress: &mut Progress,
) -> bool {
    for (at, status) in list(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        let is_sidecar = sidecar(text(status, "/name"));
        all.add(status);
        if is_sidecar {
            progress.restarts.add(status);
        }
        let terminated = status.pointer("/state/terminated");
        if terminated.is_some_and(|t| int(t, "/exitCode") == 0) {
            continue;
        }
        if is_sidecar && flag(status, "/started") {
            progress.ready += usize::from(flag(status, "/ready"));
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        progress.reason = match terminated {
            Some(terminated) => format!("Init:{}", ended(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            None => format!("Init:{at}/{}", list(pod, "/spec/initContainers").len()),
        };
        return true;
    }
    false
}

fn containers(pod: &Value, progress: &mut Progress) {
    let mut running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        progress.restarts.add(status);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            progress.reason = waiting.to_owned();
        } else if let Some(terminated) = status.pointer("/state/terminated") {
            progress.reason = ended(terminated);
        } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
            running = true;
            progress.ready += 1;
        }
    }
    if progress.reason == "Completed" && running {
        progress.reason = if condition(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        }
        .to_owned();
    }
}

fn pod(object: &Value, now: Timestamp) -> Vec<Value> {
    let phase = text(object, "/status/phase");
    let sidecars: Vec<&str> = list(object, "/spec/initContainers")
        .iter()
        .filter(|c| text(c, "/restartPolicy") == "Always")
        .map(|c| text(c, "/name"))
        .collect();
    let gated = list(object, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated");
    let reason = if gated {
        "SchedulingGated"
    } else {
        or(text(object, "/status/reason"), phase)
    };
    let mut progress = Progress {
        ready: 0,
        reason: reason.to_owned(),
        restarts: Restarts::default(),
    };
    let mut all = Restarts::default();
    let under_way = initializing(
        object,
        &|name| sidecars.contains(&name),
        &mut all,
        &mut progress,
    );
    if !under_way || condition(object, "Initialized") {
        containers(object, &mut progress);
    } else {
        progress.restarts = all;
    }
    if oarlock_model::meta::is_terminating(object) {
        if text(object, "/status/reason") == "NodeLost" {
            progress.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            progress.reason = "Terminating".to_owned();
        }
    }
    let total = list(object, "/spec/containers").len() + sidecars.len();
    let gates = list(object, "/spec/readinessGates");
    let passed = gates
        .iter()
        .filter(|g| condition(object, text(g, "/conditionType")))
        .count();
    let gates = if gates.is_empty() {
        NONE.to_owned()
    } else {
        format!("{passed}/{}", gates.len())
    };
    vec![
        name(object),
        json!(format!("{}/{total}", progress.ready)),
        json!(progress.reason),
        json!(progress.restarts.text(now)),
        age(object, now),
        json!(or(text(object, "/status/podIPs/0/ip"), NONE)),
        json!(or(text(object, "/spec/nodeName"), NONE)),
        json!(or(text(object, "/status/nominatedNodeName"), NONE)),
        json!(gates),
    ]
}
