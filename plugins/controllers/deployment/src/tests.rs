//! Whole rollouts: this controller and the ReplicaSets' in turns, with pods that become ready when the test says so.

use std::cell::Cell;

use oarlock_sdk::controller::testing::FakeCluster;
use replicaset::ReplicaSetController;
use serde_json::{Value, json};

use super::*;

struct Rollout {
    fake: FakeCluster,
    second: Cell<u64>,
}

impl Rollout {
    fn new(deployment: Value) -> Self {
        let rollout = Self {
            fake: FakeCluster::new(),
            second: Cell::new(0),
        };
        rollout.tick();
        rollout.fake.given(DEPLOYMENTS, deployment);
        rollout
    }

    fn tick(&self) {
        self.second.set(self.second.get() + 1);
        host::set_now_ms(1_767_225_600_000 + self.second.get() * 1_000);
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.fake.change(DEPLOYMENTS, "d", "web", |object| {
            change(object);
            let generation = object["metadata"]["generation"].as_i64().unwrap() + 1;
            object["metadata"]["generation"] = json!(generation);
        });
    }

    /// One step of each controller; all pods (not of images called `bad`) become ready. What was written?
    fn turn(&self) -> u64 {
        self.tick();
        let before = self.fake.writes();
        let _conflicts_are_retried = self.fake.reconcile(&DeploymentController, "d", "web");
        for set in self.fake.all(REPLICA_SETS) {
            self.fake
                .reconcile(
                    &ReplicaSetController,
                    "d",
                    set["metadata"]["name"].as_str().unwrap(),
                )
                .unwrap();
        }
        for pod in self.fake.all(PODS) {
            let bad = pod["spec"]["containers"][0]["image"] == "bad";
            if pod["status"].is_null() && !bad {
                self.fake.change(PODS, "d", pod["metadata"]["name"].as_str().unwrap(), |pod| {
                    pod["status"] = json!({"phase": "Running", "conditions": [
                        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
                });
            }
        }
        self.fake.writes() - before
    }

    fn settle(&self) {
        for _ in 0..60 {
            if self.turn() == 0 {
                return;
            }
        }
        panic!("not settled: {:#?}", self.fake.all(DEPLOYMENTS));
    }

    fn deployment(&self) -> Value {
        self.fake.at(DEPLOYMENTS, "d", "web").unwrap()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let object = self.deployment();
        let all = object["status"]["conditions"].as_array().unwrap();
        let found = all
            .iter()
            .find(|c| c["type"] == kind)
            .unwrap_or_else(|| panic!("{kind} in {all:?}"));
        (
            found["reason"].as_str().unwrap().to_owned(),
            found["message"].as_str().unwrap().to_owned(),
        )
    }

    /// (image, replicas, revision), in order of revision.
    fn sets(&self) -> Vec<(String, i64, i64)> {
        let mut sets: Vec<_> = self
            .fake
            .all(REPLICA_SETS)
            .iter()
            .map(|set| {
                (
                    set["spec"]["template"]["spec"]["containers"][0]["image"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                    set["spec"]["replicas"].as_i64().unwrap(),
                    set["metadata"]["annotations"][annotations::REVISION]
                        .as_str()
                        .unwrap()
                        .parse()
                        .unwrap(),
                )
            })
            .collect();
        sets.sort_by_key(|set| set.2);
        sets
    }
}

fn deployment(replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "annotations": {"note": "x"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        },
    })
}

fn image(object: &mut Value, image: &str) {
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
}

fn sets(expect: &[(&str, i64, i64)]) -> Vec<(String, i64, i64)> {
    expect
        .iter()
        .map(|(image, size, revision)| ((*image).to_owned(), *size, *revision))
        .collect()
}

#[test]
fn rolls_out_a_first_time() {
    let rollout = Rollout::new(deployment(3));
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("one", 3, 1)]));
    let set = &rollout.fake.all(REPLICA_SETS)[0];
    let hash = set["metadata"]["labels"]["pod-template-hash"]
        .as_str()
        .unwrap();
    assert_eq!(set["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(
        set["spec"]["selector"]["matchLabels"]["pod-template-hash"],
        hash
    );
    let annotations = &set["metadata"]["annotations"];
    assert_eq!(
        (
            &annotations["note"],
            &annotations[annotations::DESIRED_REPLICAS],
            &annotations[annotations::MAX_REPLICAS]
        ),
        (&json!("x"), &json!("3"), &json!("4"))
    );
    let status = rollout.deployment()["status"].clone();
    assert_eq!(
        (
            &status["replicas"],
            &status["availableReplicas"],
            &status["updatedReplicas"]
        ),
        (&json!(3), &json!(3), &json!(3))
    );
    assert_eq!(
        rollout.deployment()["metadata"]["annotations"][annotations::REVISION],
        "1"
    );
    let name = set["metadata"]["name"].as_str().unwrap();
    assert_eq!(
        rollout.condition("Available"),
        (
            "MinimumReplicasAvailable".into(),
            "Deployment has minimum availability.".into()
        )
    );
    let message = format!("ReplicaSet {name:?} has successfully progressed.");
    assert_eq!(
        rollout.condition("Progressing"),
        ("NewReplicaSetAvailable".into(), message)
    );
    let event = format!("Normal ScalingReplicaSet Scaled up replica set {name} from 0 to 3");
    assert!(
        rollout.fake.events().contains(&event),
        "{:?}",
        rollout.fake.events()
    );
}

#[test]
fn rolling_updates_stay_within_the_fences() {
    let rollout = Rollout::new(deployment(10));
    rollout.settle();
    rollout.edit(|object| image(object, "two"));
    for _ in 0..60 {
        if rollout.turn() == 0 {
            break;
        }
        let wanted: i64 = rollout.sets().iter().map(|set| set.1).sum();
        assert!(wanted <= 13, "surge: {:?}", rollout.sets());
        let ready = rollout
            .fake
            .all(PODS)
            .iter()
            .filter(|pod| !pod["status"].is_null())
            .count();
        assert!(ready >= 8, "availability: {ready}");
    }
    assert_eq!(rollout.sets(), sets(&[("one", 0, 1), ("two", 10, 2)]));
    assert_eq!(
        rollout.deployment()["metadata"]["annotations"][annotations::REVISION],
        "2"
    );
    // Back to the first template: its set is used again, with a new revision.
    rollout.edit(|object| image(object, "one"));
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("two", 0, 2), ("one", 10, 3)]));
    let again = rollout
        .fake
        .all(REPLICA_SETS)
        .into_iter()
        .find(|set| set["spec"]["replicas"] == 10)
        .unwrap();
    assert_eq!(
        again["metadata"]["annotations"][annotations::REVISION_HISTORY],
        "1"
    );
}

#[test]
fn a_bad_update_stops_at_the_fence_and_times_out() {
    let rollout = Rollout::new(deployment(4));
    rollout.settle();
    rollout.edit(|object| image(object, "bad"));
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("one", 3, 1), ("bad", 2, 2)]));
    assert_eq!(rollout.condition("Progressing").0, "ReplicaSetUpdated");
    assert_eq!(rollout.condition("Available").0, "MinimumReplicasAvailable");
    rollout.second.set(rollout.second.get() + 700);
    rollout.settle();
    let (reason, message) = rollout.condition("Progressing");
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert!(message.ends_with("has timed out progressing."), "{message}");
    rollout.edit(|object| image(object, "one"));
    rollout.settle();
    assert_eq!(rollout.condition("Progressing").0, "NewReplicaSetAvailable");
    assert_eq!(rollout.sets(), sets(&[("bad", 0, 2), ("one", 4, 3)]));
}

#[test]
fn scaling_in_the_middle_is_shared_in_proportion() {
    let rollout = Rollout::new(deployment(10));
    rollout.settle();
    rollout.edit(|object| image(object, "bad"));
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("one", 8, 1), ("bad", 5, 2)]));
    rollout.edit(|object| object["spec"]["replicas"] = json!(20));
    rollout.turn();
    // 20 + 5 in the ratio of 8 to 5, the rest to the bigger.
    assert_eq!(rollout.sets(), sets(&[("one", 15, 1), ("bad", 10, 2)]));
}

#[test]
fn recreate_waits_for_the_old_pods_to_end() {
    let mut object = deployment(2);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    let rollout = Rollout::new(object);
    rollout.settle();
    rollout.edit(|object| image(object, "two"));
    rollout.tick();
    rollout
        .fake
        .reconcile(&DeploymentController, "d", "web")
        .unwrap();
    rollout
        .fake
        .reconcile(&DeploymentController, "d", "web")
        .unwrap();
    assert_eq!(rollout.sets(), sets(&[("one", 0, 1)]));
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("one", 0, 1), ("two", 2, 2)]));
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let rollout = Rollout::new(deployment(2));
    rollout.settle();
    rollout.edit(|object| {
        object["spec"]["paused"] = json!(true);
        object["spec"]["replicas"] = json!(4);
        image(object, "two");
    });
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("one", 4, 1)]));
    assert_eq!(
        rollout.condition("Progressing"),
        ("DeploymentPaused".into(), "Deployment is paused".into())
    );
    rollout.edit(|object| object["spec"]["paused"] = json!(false));
    rollout.settle();
    assert_eq!(rollout.sets(), sets(&[("one", 0, 1), ("two", 4, 2)]));
}

#[test]
fn old_sets_beyond_the_limit_go() {
    let mut object = deployment(1);
    object["spec"]["revisionHistoryLimit"] = json!(1);
    let rollout = Rollout::new(object);
    rollout.settle();
    for name in ["two", "three", "four"] {
        rollout.edit(|object| image(object, name));
        rollout.settle();
    }
    assert_eq!(rollout.sets(), sets(&[("three", 0, 3), ("four", 1, 4)]));
}

#[test]
fn scales_to_nothing_and_back() {
    let rollout = Rollout::new(deployment(3));
    rollout.settle();
    for size in [0, 5] {
        rollout.edit(|object| object["spec"]["replicas"] = json!(size));
        rollout.settle();
        assert_eq!(rollout.sets(), sets(&[("one", size, 1)]));
        assert_eq!(rollout.fake.all(PODS).len() as i64, size);
    }
}

#[test]
fn a_taken_name_is_told_apart() {
    let rollout = Rollout::new(deployment(1));
    let template = rollout.deployment()["spec"]["template"].clone();
    let name = format!(
        "web-{}",
        controller_kit::hash::template_hash(&template, None)
    );
    rollout.fake.given(
        REPLICA_SETS,
        json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"replicas": 0}}),
    );
    for _ in 0..6 {
        rollout.tick();
        let _collides_once = rollout.fake.reconcile(&DeploymentController, "d", "web");
    }
    assert_eq!(rollout.deployment()["status"]["collisionCount"], 1);
    assert_eq!(rollout.fake.all(REPLICA_SETS).len(), 2);
}
