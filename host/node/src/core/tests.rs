//! Whole lives of nodes and pods, by events and an explicit clock.

use std::sync::Arc;

use oarlock_client::{Binding, Cluster, DeleteOptions, ListQuery, ListResult, Patch, WatchEvent};
use oarlock_model::{ApiResult, Gvr};
use serde_json::json;

use super::*;

/// The core never calls its cluster.
struct NoCluster;

#[async_trait::async_trait]
impl Cluster for NoCluster {
    async fn get(&self, _: &Gvr, _: &Key) -> ApiResult<Object> {
        unreachable!()
    }
    async fn list(&self, _: &Gvr, _: &ListQuery) -> ApiResult<ListResult> {
        unreachable!()
    }
    async fn watch(
        &self,
        _: &Gvr,
        _: &ListQuery,
        _: u64,
    ) -> ApiResult<futures::stream::BoxStream<'static, Result<WatchEvent, ApiError>>> {
        unreachable!()
    }
    async fn create(&self, _: &Gvr, _: &str, _: Value) -> ApiResult<Object> {
        unreachable!()
    }
    async fn update(&self, _: &Gvr, _: &str, _: Value) -> ApiResult<Object> {
        unreachable!()
    }
    async fn patch(&self, _: &Gvr, _: &Key, _: &str, _: Patch) -> ApiResult<Object> {
        unreachable!()
    }
    async fn delete(&self, _: &Gvr, _: &Key, _: DeleteOptions) -> ApiResult<()> {
        unreachable!()
    }
    async fn create_sub(&self, _: &Gvr, _: &Key, _: &str, _: Value) -> ApiResult<Value> {
        unreachable!()
    }
    async fn bind(&self, _: Vec<Binding>) -> Vec<ApiResult<()>> {
        unreachable!()
    }
    async fn patch_statuses(&self, _: &Gvr, _: Vec<(Key, Value)>) -> Vec<ApiResult<Object>> {
        unreachable!()
    }
    fn as_user(&self, _: &str) -> Arc<dyn Cluster> {
        unreachable!()
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

/// Nodes registered, with every write answered well.
fn core(count: usize) -> Core {
    let mut core = Core::new(NodeSimConfig::new(Arc::new(NoCluster), count), at(0));
    settle(&mut core, at(0));
    core
}

/// Answers every write as a cluster would that stores what it is given; returns what was asked, as texts.
fn settle(core: &mut Core, now: Timestamp) -> Vec<String> {
    let mut log = Vec::new();
    loop {
        let actions = core.take_actions();
        if actions.is_empty() {
            return log;
        }
        for (ticket, action) in actions {
            let mut answer = None;
            match &action {
                Action::CreateNode { object } => {
                    let mut object = object.clone();
                    meta::set(&mut object, "uid", "node-uid");
                    answer = Some(Arc::new(object));
                    log.push("create node".to_owned());
                }
                Action::CreateLease { .. } => log.push("create lease".to_owned()),
                Action::RenewLease { name, .. } => log.push(format!("renew {name}")),
                Action::PatchNodeStatus { name, .. } => log.push(format!("status {name}")),
                Action::PatchPodStatus { key, patch } => {
                    log.push(format!(
                        "{} {}",
                        key.name,
                        patch["status"]["phase"].as_str().unwrap()
                    ));
                }
                Action::DeletePod { key, uid } => log.push(format!("delete {} {uid}", key.name)),
            }
            core.done(ticket, Ok(answer), now);
        }
    }
}

fn pod(name: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "d", "uid": format!("uid-{name}"), "annotations": annotations},
        "spec": {"nodeName": "oarlock-node-0", "restartPolicy": "Always", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending"},
    })
}

#[test]
fn registration_and_leases() {
    let mut core = Core::new(NodeSimConfig::new(Arc::new(NoCluster), 2), at(0));
    let log = settle(&mut core, at(0));
    assert_eq!(
        log,
        ["create node", "create node", "create lease", "create lease"]
    );
    core.tick(at(7_500));
    assert_eq!(settle(&mut core, at(7_500)), ["renew oarlock-node-1"]);
    core.tick(at(10_000));
    assert_eq!(settle(&mut core, at(10_000)), ["renew oarlock-node-0"]);
    core.tick(at(17_500));
    assert_eq!(settle(&mut core, at(17_500)), ["renew oarlock-node-1"]);
    core.tick(at(300_000));
    let log = settle(&mut core, at(300_000));
    assert!(log.contains(&"status oarlock-node-0".to_owned()), "{log:?}");
}

#[test]
fn a_pod_runs_and_is_deleted() {
    let mut core = core(1);
    let mut object = pod("p", json!({}));
    core.pod_seen(Arc::new(object.clone()), at(0));
    assert_eq!(settle(&mut core, at(0)), ["p Running"]);
    meta::set(&mut object, "deletionTimestamp", "2027-01-15T08:00:31Z");
    object["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    core.pod_seen(Arc::new(object.clone()), at(1_000));
    assert_eq!(
        settle(&mut core, at(1_000)),
        ["p Succeeded", "delete p uid-p"]
    );
    core.pod_gone(&object);
    assert!(core.pods.is_empty());
}

#[test]
fn a_pod_that_never_ran_is_only_deleted() {
    let mut config = NodeSimConfig::new(Arc::new(NoCluster), 1);
    config.start_latency_ms = 5_000;
    let mut core = Core::new(config, at(0));
    settle(&mut core, at(0));
    let mut object = pod("p", json!({}));
    core.pod_seen(Arc::new(object.clone()), at(0));
    assert!(settle(&mut core, at(0)).is_empty());
    meta::set(&mut object, "deletionTimestamp", "2027-01-15T08:00:00Z");
    core.pod_seen(Arc::new(object), at(1_000));
    assert_eq!(settle(&mut core, at(1_000)), ["delete p uid-p"]);
}

#[test]
fn completion_follows_the_restart_policy() {
    let check = |policy: &str, code: &str, expect: &[(i64, &str)]| {
        let mut core = core(1);
        let mut object = pod(
            "p",
            json!({"sim.oarlock.dev/complete-after": "2s", "sim.oarlock.dev/exit-code": code}),
        );
        object["spec"]["restartPolicy"] = json!(policy);
        core.pod_seen(Arc::new(object), at(0));
        let mut log: Vec<(i64, String)> = settle(&mut core, at(0))
            .into_iter()
            .map(|line| (0, line))
            .collect();
        for second in 1..16 {
            core.tick(at(second * 1_000));
            log.extend(
                settle(&mut core, at(second * 1_000))
                    .into_iter()
                    .filter(|l| l.starts_with('p'))
                    .map(|l| (second, l)),
            );
        }
        let log: Vec<(i64, &str)> = log.iter().map(|(s, l)| (*s, l.as_str())).collect();
        assert_eq!(log, expect, "{policy} {code}");
    };
    check("Never", "0", &[(0, "p Running"), (2, "p Succeeded")]);
    check("Never", "3", &[(0, "p Running"), (2, "p Failed")]);
    check("OnFailure", "0", &[(0, "p Running"), (2, "p Succeeded")]);
    // Restarted at once, then after a back-off of ten seconds.
    check(
        "OnFailure",
        "1",
        &[
            (0, "p Running"),
            (2, "p Running"),
            (4, "p Running"),
            (14, "p Running"),
        ],
    );
    check(
        "Always",
        "0",
        &[
            (0, "p Running"),
            (2, "p Running"),
            (4, "p Running"),
            (14, "p Running"),
        ],
    );
}

#[test]
fn a_silent_node_does_nothing_until_it_beats_again() {
    let mut core = core(1);
    let node = |heartbeat: &str| {
        let mut object = crate::node_object::node(
            &core_facts(),
            &NodeSimConfig::new(Arc::new(NoCluster), 1),
            at(0),
        );
        object["metadata"]["annotations"] = json!({ HEARTBEAT: heartbeat });
        Arc::new(object)
    };
    core.node_seen(node("off"), at(1_000));
    core.pod_seen(Arc::new(pod("p", json!({}))), at(2_000));
    core.tick(at(400_000));
    assert!(settle(&mut core, at(400_000)).is_empty());
    core.node_seen(node("on"), at(500_000));
    let log = settle(&mut core, at(500_000));
    assert_eq!(
        log,
        ["status oarlock-node-0", "renew oarlock-node-0", "p Running"]
    );
}

const HEARTBEAT: &str = crate::HEARTBEAT_ANNOTATION;

fn core_facts() -> crate::node_object::NodeFacts {
    crate::node_object::NodeFacts {
        name: "oarlock-node-0".to_owned(),
        address: "172.16.0.1".to_owned(),
        pod_cidr: "10.128.0.0/24".to_owned(),
    }
}

#[test]
fn a_running_pod_is_adopted_without_a_write() {
    let mut core = core(1);
    let mut object = pod("p", json!({"sim.oarlock.dev/complete-after": "10s"}));
    object["spec"]["restartPolicy"] = json!("Never");
    object["status"] = json!({
        "phase": "Running", "podIP": "10.128.0.1", "startTime": "2027-01-15T08:00:00Z",
        "containerStatuses": [{"ready": true, "restartCount": 0, "state": {"running": {"startedAt": "2027-01-15T08:00:00Z"}}}],
    });
    core.pod_seen(Arc::new(object), at(4_000));
    assert!(settle(&mut core, at(4_000)).is_empty());
    core.pod_seen(Arc::new(pod("q", json!({}))), at(4_000));
    let actions = core.take_actions();
    let Action::PatchPodStatus { patch, .. } = &actions[0].1 else {
        panic!("{actions:?}")
    };
    assert_eq!(patch["status"]["podIP"], "10.128.0.2");
    core.tick(at(10_000));
    let log = settle(&mut core, at(10_000));
    assert!(log.contains(&"p Succeeded".to_owned()), "{log:?}");
}

#[test]
fn readiness_may_come_late() {
    let mut core = core(1);
    core.pod_seen(
        Arc::new(pod("p", json!({"sim.oarlock.dev/ready-after": "3s"}))),
        at(0),
    );
    let ready = |core: &mut Core| {
        let actions = core.take_actions();
        let mut verdict = None;
        for (ticket, action) in actions {
            if let Action::PatchPodStatus { patch, .. } = &action {
                verdict = Some(patch["status"]["containerStatuses"][0]["ready"].clone());
            }
            core.done(ticket, Ok(None), at(0));
        }
        verdict
    };
    assert_eq!(ready(&mut core), Some(json!(false)));
    core.tick(at(3_000));
    assert_eq!(ready(&mut core), Some(json!(true)));
}

#[test]
fn failed_writes_are_made_again_and_a_missing_pod_is_let_go() {
    let mut core = core(1);
    core.pod_seen(Arc::new(pod("p", json!({}))), at(0));
    let (ticket, _) = core.take_actions().remove(0);
    core.done(ticket, Err(ApiError::internal("disk")), at(0));
    assert!(core.take_actions().is_empty());
    core.tick(at(1_000));
    let (ticket, _) = core.take_actions().remove(0);
    core.done(ticket, Err(ApiError::not_found("", "pods", "p")), at(1_000));
    core.tick(at(5_000));
    assert!(core.take_actions().is_empty());
}
