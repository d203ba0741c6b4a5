//! The status that a node agent writes for a pod in each stage of its life. Pure: (pod, stage) in, merge patch out.
//! Field by field what a kubelet writes, so that clients that look at pods cannot tell.

use jiff::Timestamp;
use oarlock_model::{meta, time::format_time};
use serde_json::{Value, json};

use crate::ids;

/// Where a pod is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bound; containers are being made.
    Starting,
    Running {
        since: Timestamp,
        ready: bool,
    },
    /// Containers ended and will be started again.
    BackOff {
        exit: Exit,
        delay_seconds: i64,
    },
    /// Ended for good, by itself or because of its deadline.
    Finished {
        exit: Exit,
        deadline_exceeded: bool,
    },
    /// Deleted, and its containers have ended.
    Stopped {
        exit: Exit,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// What the status says besides the stage.
#[derive(Clone, Debug)]
pub struct PodFacts<'a> {
    pub pod: &'a Value,
    pub host_ip: &'a str,
    /// Empty: none yet.
    pub pod_ip: &'a str,
    pub started: Timestamp,
    pub restarts: i64,
    /// How the containers ended before their last restart.
    pub last_exit: Option<Exit>,
}

/// The merge patch of `/status`, with the pod's uid as a precondition.
pub fn patch(facts: &PodFacts<'_>, stage: &Stage, now: Timestamp) -> Value {
    let mut status = json!({
        "phase": phase(stage),
        "conditions": conditions(facts, stage, now),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "startTime": format_time(facts.started),
        "containerStatuses": containers(facts, "containers", |c| container(facts, stage, c)),
    });
    if facts
        .pod
        .pointer("/spec/initContainers")
        .is_some_and(|list| list.as_array().is_some_and(|l| !l.is_empty()))
    {
        status["initContainerStatuses"] =
            containers(facts, "initContainers", |c| init_container(facts, stage, c));
    }
    if !facts.pod_ip.is_empty() {
        status["podIP"] = json!(facts.pod_ip);
        status["podIPs"] = json!([{"ip": facts.pod_ip}]);
    }
    if let Stage::Finished {
        deadline_exceeded: true,
        ..
    } = stage
    {
        status["reason"] = json!("DeadlineExceeded");
        status["message"] = json!("Pod was active on the node longer than the specified deadline");
    }
    let generation = meta::generation(facts.pod);
    if generation > 0 {
        status["observedGeneration"] = json!(generation);
    }
    json!({"metadata": {"uid": meta::uid(facts.pod)}, "status": status})
}

fn phase(stage: &Stage) -> &'static str {
    match stage {
        Stage::Starting => "Pending",
        Stage::Running { .. } | Stage::BackOff { .. } => "Running",
        Stage::Finished {
            deadline_exceeded: true,
            ..
        } => "Failed",
        Stage::Finished { exit, .. } | Stage::Stopped { exit } if exit.code == 0 => "Succeeded",
        Stage::Finished { .. } | Stage::Stopped { .. } => "Failed",
    }
}

/// In the order that a kubelet writes them; conditions of other owners come last.
fn conditions(facts: &PodFacts<'_>, stage: &Stage, now: Timestamp) -> Vec<Value> {
    const OURS: [&str; 5] = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ];
    let seen: Vec<&Value> = facts
        .pod
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .map(|list| list.iter().collect())
        .unwrap_or_default();
    let now = format_time(now);
    let generation = meta::generation(facts.pod);
    let make = |kind: &str, verdict: &Verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        let since = seen
            .iter()
            .find(|c| c["type"] == kind && c["status"] == status)
            .and_then(|c| c["lastTransitionTime"].as_str())
            .unwrap_or(&now);
        let mut condition = json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
        if let Some(reason) = verdict.reason {
            condition["reason"] = json!(reason);
        }
        if !verdict.message.is_empty() {
            condition["message"] = json!(verdict.message);
        }
        if generation > 0 {
            condition["observedGeneration"] = json!(generation);
        }
        condition
    };
    let containers_ready = containers_ready(facts, stage);
    let ready = gates_ready(facts, &seen, &containers_ready);
    let verdicts = [
        Verdict::of(!matches!(
            stage,
            Stage::Starting | Stage::Finished { .. } | Stage::Stopped { .. }
        )),
        initialized(facts, stage),
        ready,
        containers_ready,
        Verdict::of(true),
    ];
    let mut out: Vec<Value> = OURS
        .iter()
        .zip(&verdicts)
        .map(|(kind, verdict)| make(kind, verdict))
        .collect();
    out.extend(
        seen.iter()
            .filter(|c| !OURS.iter().any(|ours| c["type"] == *ours))
            .map(|c| (*c).clone()),
    );
    out
}

struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: String,
}

impl Verdict {
    fn of(holds: bool) -> Self {
        Self {
            holds,
            reason: None,
            message: String::new(),
        }
    }

    fn not(reason: &'static str, message: String) -> Self {
        Self {
            holds: false,
            reason: Some(reason),
            message,
        }
    }
}

fn initialized(facts: &PodFacts<'_>, stage: &Stage) -> Verdict {
    match stage {
        Stage::Starting => {
            let names = container_names(facts.pod, "initContainers");
            if names.is_empty() {
                return Verdict::of(true);
            }
            Verdict::not(
                "ContainersNotInitialized",
                format!("containers with incomplete status: [{}]", names.join(" ")),
            )
        }
        Stage::Finished {
            exit,
            deadline_exceeded: false,
        } if exit.code == 0 => completed(true),
        _ => Verdict::of(true),
    }
}

fn completed(holds: bool) -> Verdict {
    Verdict {
        holds,
        reason: Some("PodCompleted"),
        message: String::new(),
    }
}

fn containers_ready(facts: &PodFacts<'_>, stage: &Stage) -> Verdict {
    match stage {
        Stage::Running { ready: true, .. } => Verdict::of(true),
        Stage::Finished {
            exit,
            deadline_exceeded: false,
        }
        | Stage::Stopped { exit }
            if exit.code == 0 =>
        {
            completed(false)
        }
        Stage::Finished { .. } | Stage::Stopped { .. } => Verdict::not("PodFailed", String::new()),
        _ => {
            let names = container_names(facts.pod, "containers");
            Verdict::not(
                "ContainersNotReady",
                format!("containers with unready status: [{}]", names.join(" ")),
            )
        }
    }
}

/// `Ready` is `ContainersReady` and every readiness gate.
fn gates_ready(facts: &PodFacts<'_>, seen: &[&Value], containers: &Verdict) -> Verdict {
    if !containers.holds {
        return Verdict {
            message: containers.message.clone(),
            ..*containers
        };
    }
    let gates = facts
        .pod
        .pointer("/spec/readinessGates")
        .and_then(Value::as_array);
    let messages: Vec<String> = gates
        .into_iter()
        .flatten()
        .filter_map(|gate| {
            let kind = gate["conditionType"].as_str()?;
            match seen.iter().find(|c| c["type"] == kind) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate {kind:?} does not exist."
                )),
                Some(c) if c["status"] != "True" => Some(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c["status"].as_str().unwrap_or("")
                )),
                Some(_) => None,
            }
        })
        .collect();
    if messages.is_empty() {
        Verdict::of(true)
    } else {
        Verdict::not("ReadinessGatesNotReady", messages.join(", "))
    }
}

fn container_names(pod: &Value, list: &str) -> Vec<String> {
    pod["spec"][list]
        .as_array()
        .map(|all| {
            all.iter()
                .filter_map(|c| c["name"].as_str().map(str::to_owned))
                .collect()
        })
        .unwrap_or_default()
}

fn containers(facts: &PodFacts<'_>, list: &str, status: impl Fn(&Value) -> Value) -> Value {
    let all = facts.pod["spec"][list].as_array();
    Value::Array(all.into_iter().flatten().map(status).collect())
}

fn container(facts: &PodFacts<'_>, stage: &Stage, spec: &Value) -> Value {
    let name = spec["name"].as_str().unwrap_or("");
    let id = container_id(facts.pod, name, facts.restarts);
    let (state, ready, started) = match stage {
        Stage::Starting => (
            json!({"waiting": {"reason": "ContainerCreating"}}),
            false,
            false,
        ),
        Stage::Running { since, ready } => (
            json!({"running": {"startedAt": format_time(*since)}}),
            *ready,
            true,
        ),
        Stage::BackOff { delay_seconds, .. } => {
            let message = format!(
                "back-off {} restarting failed container={name} pod={}_{}({})",
                go_duration(*delay_seconds),
                meta::name(facts.pod),
                meta::namespace(facts.pod),
                meta::uid(facts.pod)
            );
            (
                json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}),
                false,
                false,
            )
        }
        Stage::Finished { exit, .. } | Stage::Stopped { exit } => {
            (terminated(exit, &id), false, false)
        }
    };
    let last = match stage {
        Stage::BackOff { exit, .. } => terminated(exit, &id),
        _ => match &facts.last_exit {
            Some(exit) => terminated(exit, &container_id(facts.pod, name, facts.restarts - 1)),
            None => json!({}),
        },
    };
    let status = json!({
        "state": state, "lastState": last, "ready": ready, "started": started, "restartCount": facts.restarts,
    });
    described(stage, spec, &id, status)
}

/// Init containers are done as soon as the pod runs; those that restart always (sidecars) run beside the others.
fn init_container(facts: &PodFacts<'_>, stage: &Stage, spec: &Value) -> Value {
    let name = spec["name"].as_str().unwrap_or("");
    let id = container_id(facts.pod, name, 0);
    let sidecar = spec["restartPolicy"] == "Always";
    let done = Exit {
        code: 0,
        started: facts.started,
        finished: facts.started,
    };
    let (state, ready, started) = match stage {
        Stage::Starting => (
            json!({"waiting": {"reason": "PodInitializing"}}),
            false,
            false,
        ),
        Stage::Running { .. } | Stage::BackOff { .. } if sidecar => (
            json!({"running": {"startedAt": format_time(facts.started)}}),
            true,
            true,
        ),
        Stage::Finished { exit, .. } | Stage::Stopped { exit } if sidecar => {
            (terminated(&Exit { code: 0, ..*exit }, &id), false, false)
        }
        _ => (terminated(&done, &id), true, false),
    };
    let status = json!({"state": state, "lastState": {}, "ready": ready, "started": started, "restartCount": 0});
    described(stage, spec, &id, status)
}

fn described(stage: &Stage, spec: &Value, id: &str, mut status: Value) -> Value {
    let image = spec["image"].as_str().unwrap_or("");
    status["name"] = spec["name"].clone();
    status["image"] = json!(image);
    if *stage == Stage::Starting {
        status["imageID"] = json!("");
    } else {
        status["imageID"] = json!(format!(
            "{}@sha256:{}",
            without_tag(image),
            ids::digest(&["image", image])
        ));
        status["containerID"] = json!(id);
    }
    status
}

/// `nginx:1.27` without its tag: a colon before a slash belongs to a registry's port.
fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

fn terminated(exit: &Exit, id: &str) -> Value {
    json!({"terminated": {
        "exitCode": exit.code,
        "reason": if exit.code == 0 { "Completed" } else { "Error" },
        "startedAt": format_time(exit.started),
        "finishedAt": format_time(exit.finished),
        "containerID": id,
    }})
}

fn container_id(pod: &Value, container: &str, restarts: i64) -> String {
    format!(
        "oarlock-sim://{}",
        ids::digest(&[meta::uid(pod), container, &restarts.to_string()])
    )
}

/// `10s`, `1m20s`, `5m0s`
fn go_duration(seconds: i64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u1", "generation": 1},
            "spec": {
                "initContainers": [{"name": "i", "image": "busybox"}, {"name": "s", "image": "proxy", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "localhost:5000/nginx:1.27"}],
            },
            "status": {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-01T00:00:00Z"},
                {"type": "other.io/Gate", "status": "False"},
            ]},
        })
    }

    fn facts(pod: &Value) -> PodFacts<'_> {
        PodFacts {
            pod,
            host_ip: "172.16.0.1",
            pod_ip: "10.128.0.1",
            started: at(0),
            restarts: 0,
            last_exit: None,
        }
    }

    #[test]
    fn running() {
        let pod = pod();
        let patch = patch(
            &facts(&pod),
            &Stage::Running {
                since: at(0),
                ready: true,
            },
            at(1),
        );
        let status = &patch["status"];
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["podIP"], "10.128.0.1");
        let kinds: Vec<_> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (c["type"].as_str().unwrap(), c["status"].as_str().unwrap()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("PodReadyToStartContainers", "True"),
                ("Initialized", "True"),
                ("Ready", "True"),
                ("ContainersReady", "True"),
                ("PodScheduled", "True"),
                ("other.io/Gate", "False"),
            ]
        );
        assert_eq!(
            status["conditions"][4]["lastTransitionTime"],
            "2027-01-01T00:00:00Z"
        );
        let container = &status["containerStatuses"][0];
        assert_eq!(container["ready"], true);
        assert!(
            container["imageID"]
                .as_str()
                .unwrap()
                .starts_with("localhost:5000/nginx@sha256:")
        );
        assert_eq!(
            status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
        assert!(status["initContainerStatuses"][1]["state"]["running"].is_object());
    }

    #[test]
    fn phases_and_reasons() {
        let pod = pod();
        let exit = |code| Exit {
            code,
            started: at(0),
            finished: at(2),
        };
        let check = |stage: Stage, phase: &str, ready_reason: Value| {
            let patch = patch(&facts(&pod), &stage, at(3));
            assert_eq!(patch["status"]["phase"], phase, "{stage:?}");
            assert_eq!(
                patch["status"]["conditions"][2]["reason"], ready_reason,
                "{stage:?}"
            );
        };
        check(Stage::Starting, "Pending", json!("ContainersNotReady"));
        check(
            Stage::Running {
                since: at(0),
                ready: false,
            },
            "Running",
            json!("ContainersNotReady"),
        );
        check(
            Stage::BackOff {
                exit: exit(1),
                delay_seconds: 10,
            },
            "Running",
            json!("ContainersNotReady"),
        );
        check(
            Stage::Finished {
                exit: exit(0),
                deadline_exceeded: false,
            },
            "Succeeded",
            json!("PodCompleted"),
        );
        check(
            Stage::Finished {
                exit: exit(3),
                deadline_exceeded: false,
            },
            "Failed",
            json!("PodFailed"),
        );
        check(
            Stage::Finished {
                exit: exit(0),
                deadline_exceeded: true,
            },
            "Failed",
            json!("PodFailed"),
        );
        check(
            Stage::Stopped { exit: exit(0) },
            "Succeeded",
            json!("PodCompleted"),
        );
    }

    #[test]
    fn readiness_gates() {
        let mut pod = pod();
        pod["spec"]["readinessGates"] = json!([{"conditionType": "other.io/Gate"}]);
        let running = Stage::Running {
            since: at(0),
            ready: true,
        };
        let status = patch(&facts(&pod), &running, at(1));
        assert_eq!(
            status["status"]["conditions"][2]["reason"],
            "ReadinessGatesNotReady"
        );
        pod["status"]["conditions"][1]["status"] = json!("True");
        let status = patch(&facts(&pod), &running, at(1));
        assert_eq!(status["status"]["conditions"][2]["status"], "True");
    }
}
