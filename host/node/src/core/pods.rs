//! Pods: what stage each is in, and what comes next.

use jiff::Timestamp;
use oarlock_client::{Key, Object};
use oarlock_model::{ApiError, Reason, meta, time::parse_time};
use serde_json::Value;

use super::{Action, Core, RETRY_MS, Ticket, Timer, key_of};
use crate::ids::parse_duration_ms;
use crate::pod_status::{self, Exit, PodFacts, Stage};
use crate::{COMPLETE_AFTER_ANNOTATION, EXIT_CODE_ANNOTATION, READY_AFTER_ANNOTATION};

/// The first back-off between restarts of containers that end by themselves; doubled each time.
const BACK_OFF_SECONDS: i64 = 10;
const MAX_BACK_OFF_SECONDS: i64 = 300;
/// Deadlines further away than this are as good as none.
const FAR_AWAY_MS: i64 = 1_000 * 60 * 60 * 24 * 365;

#[derive(Debug)]
pub(super) struct SimPod {
    pub object: Object,
    node: usize,
    stage: Stage,
    ip: String,
    /// `status.startTime`
    started: Timestamp,
    restarts: i64,
    last_exit: Option<Exit>,
    writing: bool,
    /// The stage has moved since the last write.
    dirty: bool,
    /// The final status is stored: only the delete is left.
    reported_stop: bool,
    timer_generation: u64,
}

impl Core {
    pub(super) fn pod_changed(&mut self, node: usize, object: Object, now: Timestamp) {
        let key = key_of(&object);
        if self
            .pods
            .get(&key)
            .is_some_and(|pod| meta::uid(&pod.object) != meta::uid(&object))
        {
            self.forget_pod(&key);
        }
        let Some(pod) = self.pods.get_mut(&key) else {
            let pod = self.adopt(node, object, now);
            self.pods.insert(key.clone(), pod);
            self.advance(&key, now);
            return;
        };
        // Gates are other people's conditions: our Ready may follow from them.
        if pod.object.pointer("/spec/readinessGates").is_some()
            && pod.object["status"] != object["status"]
        {
            pod.dirty = matches!(pod.stage, Stage::Running { .. });
        }
        let news = meta::is_terminating(&object) != meta::is_terminating(&pod.object)
            || meta::annotations(&object) != meta::annotations(&pod.object)
            || pod.dirty;
        pod.object = object;
        if news {
            self.advance(&key, now);
        }
    }

    pub(super) fn forget_pod(&mut self, key: &Key) {
        if let Some(pod) = self.pods.remove(key)
            && let Ok(address) = pod.ip.parse()
        {
            self.nodes[pod.node].range.give_back(address);
        }
    }

    /// A pod that we see for the first time: new, or one that ran before this process started.
    fn adopt(&mut self, node: usize, object: Object, now: Timestamp) -> SimPod {
        let status = &object["status"];
        let container = &status["containerStatuses"][0];
        let time = |value: &Value| value.as_str().and_then(parse_time);
        let started = time(&status["startTime"]).unwrap_or(now);
        let ended = &container["state"]["terminated"];
        let exit = Exit {
            code: ended["exitCode"].as_i64().unwrap_or(0),
            started: time(&ended["startedAt"]).unwrap_or(started),
            finished: time(&ended["finishedAt"]).unwrap_or(now),
        };
        let stage = match status["phase"].as_str() {
            Some("Succeeded" | "Failed") => Stage::Finished {
                exit,
                deadline_exceeded: false,
            },
            Some("Running") => Stage::Running {
                since: time(&container["state"]["running"]["startedAt"]).unwrap_or(now),
                ready: container["ready"] == true,
            },
            _ => Stage::Starting,
        };
        let ip = status["podIP"].as_str().unwrap_or("").to_owned();
        if let Ok(address) = ip.parse() {
            self.nodes[node].range.keep(address);
        }
        SimPod {
            node,
            ip,
            started,
            restarts: container["restartCount"].as_i64().unwrap_or(0),
            last_exit: None,
            writing: false,
            dirty: false,
            reported_stop: matches!(stage, Stage::Finished { .. }),
            timer_generation: 0,
            stage,
            object,
        }
    }

    pub(super) fn revisit_pods_of(&mut self, node: usize, now: Timestamp) {
        let keys: Vec<Key> = self
            .pods
            .iter()
            .filter(|(_, p)| p.node == node)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.advance(&key, now);
        }
    }

    pub(super) fn pod_due(&mut self, key: &Key, generation: u64, now: Timestamp) {
        if self
            .pods
            .get(key)
            .is_some_and(|pod| pod.timer_generation == generation)
        {
            self.advance(key, now);
        }
    }

    /// Moves a pod as far as `now` allows, asks for the write that this needs, and sets the next timer.
    fn advance(&mut self, key: &Key, now: Timestamp) {
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        let node = &mut self.nodes[pod.node];
        if !node.alive() {
            return;
        }
        let mut due = None;
        while let Step::Moved = step(pod, &self.config, now, &mut due) {
            pod.dirty = true;
            if matches!(pod.stage, Stage::Running { .. }) && pod.ip.is_empty() {
                pod.ip = if pod
                    .object
                    .pointer("/spec/hostNetwork")
                    .and_then(Value::as_bool)
                    == Some(true)
                {
                    node.facts.address.clone()
                } else {
                    node.range.take().to_string()
                };
            }
        }
        pod.timer_generation += 1;
        if let Some(due) = due {
            self.timers
                .set(due, Timer::Pod(key.clone(), pod.timer_generation));
        }
        if pod.writing {
            return;
        }
        if pod.dirty {
            pod.dirty = false;
            pod.writing = true;
            let facts = PodFacts {
                pod: &pod.object,
                host_ip: &node.facts.address,
                pod_ip: &pod.ip,
                started: pod.started,
                restarts: pod.restarts,
                last_exit: pod.last_exit,
            };
            let patch = pod_status::patch(&facts, &pod.stage, now);
            self.actions.push((
                Ticket::PodStatus(key.clone()),
                Action::PatchPodStatus {
                    key: key.clone(),
                    patch,
                },
            ));
        } else if meta::is_terminating(&pod.object) && pod.reported_stop {
            pod.writing = true;
            let uid = meta::uid(&pod.object).to_owned();
            self.actions.push((
                Ticket::PodDelete(key.clone()),
                Action::DeletePod {
                    key: key.clone(),
                    uid,
                },
            ));
        }
    }

    pub(super) fn pod_status_written(
        &mut self,
        key: &Key,
        result: Result<Option<Object>, ApiError>,
        now: Timestamp,
    ) {
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        pod.writing = false;
        match result {
            Ok(_) => {
                pod.reported_stop |= !pod.dirty
                    && matches!(pod.stage, Stage::Finished { .. } | Stage::Stopped { .. });
                self.advance(key, now);
            }
            // The watch will tell that it is gone (or another pod of its name).
            Err(error) if error.reason == Reason::NotFound || error.reason == Reason::Conflict => {}
            Err(_) => {
                pod.dirty = true;
                pod.timer_generation += 1;
                self.timers.set(
                    now.as_millisecond() + RETRY_MS,
                    Timer::Pod(key.clone(), pod.timer_generation),
                );
            }
        }
    }

    pub(super) fn pod_deleted(
        &mut self,
        key: &Key,
        result: Result<Option<Object>, ApiError>,
        now: Timestamp,
    ) {
        let Some(pod) = self.pods.get_mut(key) else {
            return;
        };
        match result {
            // Finalizers may keep it: nothing is left for us to do, so `writing` stays.
            Ok(_) => {}
            Err(error) if error.reason == Reason::NotFound || error.reason == Reason::Conflict => {}
            Err(_) => {
                pod.writing = false;
                pod.timer_generation += 1;
                self.timers.set(
                    now.as_millisecond() + RETRY_MS,
                    Timer::Pod(key.clone(), pod.timer_generation),
                );
            }
        }
    }
}

enum Step {
    Moved,
    Stays,
}

/// One transition, if one is due; otherwise `due` says when to look again.
fn step(
    pod: &mut SimPod,
    config: &crate::NodeSimConfig,
    now: Timestamp,
    due: &mut Option<i64>,
) -> Step {
    *due = None;
    if matches!(pod.stage, Stage::Finished { .. } | Stage::Stopped { .. }) {
        return Step::Stays;
    }
    if let Some(deleted) = meta::deletion_timestamp(&pod.object).map(str::to_owned) {
        return stop(pod, &deleted, config, now, due);
    }
    let now_ms = now.as_millisecond();
    let deadline = pod
        .object
        .pointer("/spec/activeDeadlineSeconds")
        .and_then(Value::as_i64);
    if let Some(deadline) = deadline.map(|s| {
        pod.started
            .as_millisecond()
            .saturating_add(s.saturating_mul(1_000))
    }) {
        if deadline <= now_ms {
            let exit = Exit {
                code: 137,
                started: pod.started,
                finished: now,
            };
            pod.stage = Stage::Finished {
                exit,
                deadline_exceeded: true,
            };
            return Step::Moved;
        }
        soonest(due, deadline);
    }
    let (at, next) = match next_stage(pod, config, now) {
        Some(next) => next,
        None => return Step::Stays,
    };
    if at > now_ms {
        soonest(due, at);
        return Step::Stays;
    }
    match (&pod.stage, &next) {
        (Stage::BackOff { exit, .. }, _) => {
            pod.last_exit = Some(*exit);
            pod.restarts += 1;
        }
        (Stage::Running { since, .. }, Stage::Running { since: again, .. }) if since != again => {
            pod.last_exit = Some(Exit {
                code: exit_code(&pod.object),
                started: *since,
                finished: now,
            });
            pod.restarts += 1;
        }
        _ => {}
    }
    pod.stage = next;
    Step::Moved
}

fn soonest(due: &mut Option<i64>, at: i64) {
    *due = Some(due.map_or(at, |other| other.min(at)));
}

/// The stage that follows by itself, and when.
fn next_stage(pod: &SimPod, config: &crate::NodeSimConfig, now: Timestamp) -> Option<(i64, Stage)> {
    let annotated = |name: &str| meta::annotation(&pod.object, name);
    match &pod.stage {
        Stage::Starting => {
            let ready = annotated(READY_AFTER_ANNOTATION).is_none();
            Some((
                pod.started.as_millisecond() + config.start_latency_ms,
                Stage::Running { since: now, ready },
            ))
        }
        Stage::Running { since, ready } => {
            let since_ms = since.as_millisecond();
            if !ready {
                match annotated(READY_AFTER_ANNOTATION) {
                    Some(text) => {
                        if let Some(after) = parse_duration_ms(text) {
                            return Some((
                                since_ms + after,
                                Stage::Running {
                                    since: *since,
                                    ready: true,
                                },
                            ));
                        }
                    }
                    None => {
                        return Some((
                            now.as_millisecond(),
                            Stage::Running {
                                since: *since,
                                ready: true,
                            },
                        ));
                    }
                }
            }
            let after = parse_duration_ms(annotated(COMPLETE_AFTER_ANNOTATION)?)
                .filter(|ms| *ms < FAR_AWAY_MS)?;
            let exit = Exit {
                code: exit_code(&pod.object),
                started: *since,
                finished: now,
            };
            let restart = match pod
                .object
                .pointer("/spec/restartPolicy")
                .and_then(Value::as_str)
            {
                Some("Never") => false,
                Some("OnFailure") => exit.code != 0,
                _ => true,
            };
            let next = match (restart, pod.restarts) {
                (false, _) => Stage::Finished {
                    exit,
                    deadline_exceeded: false,
                },
                (true, 0) => Stage::Running {
                    since: now,
                    ready: true,
                },
                (true, n) => {
                    let doubled = BACK_OFF_SECONDS.saturating_mul(1 << (n - 1).clamp(0, 10));
                    Stage::BackOff {
                        exit,
                        delay_seconds: doubled.min(MAX_BACK_OFF_SECONDS),
                    }
                }
            };
            Some((since_ms + after, next))
        }
        Stage::BackOff {
            exit,
            delay_seconds,
        } => Some((
            exit.finished.as_millisecond() + delay_seconds * 1_000,
            Stage::Running {
                since: now,
                ready: true,
            },
        )),
        Stage::Finished { .. } | Stage::Stopped { .. } => None,
    }
}

fn stop(
    pod: &mut SimPod,
    deleted: &str,
    config: &crate::NodeSimConfig,
    now: Timestamp,
    due: &mut Option<i64>,
) -> Step {
    let grace_ms = pod
        .object
        .pointer("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(0)
        * 1_000;
    let latency = config.stop_latency_ms.min(grace_ms);
    // deletionTimestamp is when the grace ends.
    let asked = parse_time(deleted).map_or(now.as_millisecond(), |end| {
        end.as_millisecond().saturating_sub(grace_ms)
    });
    if latency > 0 && asked.saturating_add(latency) > now.as_millisecond() {
        soonest(due, asked.saturating_add(latency));
        return Step::Stays;
    }
    let never_ran = matches!(pod.stage, Stage::Starting);
    let started = match &pod.stage {
        Stage::Running { since, .. } => *since,
        _ => now,
    };
    pod.stage = Stage::Stopped {
        exit: Exit {
            code: 0,
            started,
            finished: now,
        },
    };
    if never_ran {
        // Nothing ran, so there is no end to report.
        pod.reported_stop = true;
        return Step::Stays;
    }
    Step::Moved
}

fn exit_code(pod: &Value) -> i64 {
    meta::annotation(pod, EXIT_CODE_ANNOTATION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}
