//! The controller against a cluster in memory.

use oarlock_sdk::controller::testing::FakeCluster;

use super::*;

const NOW: &str = "2026-01-01T00:01:00Z";

fn cluster() -> FakeCluster {
    host::set_now_ms(time(NOW));
    FakeCluster::new()
}

fn time(text: &str) -> u64 {
    controller_kit::time::parse_ms(text).unwrap()
}

fn set(replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

fn ready(fake: &FakeCluster, name: &str, since: &str) {
    fake.change(PODS, "d", name, |pod| {
        pod["spec"]["nodeName"] = json!("n1");
        pod["status"] = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": since}]});
    });
}

fn names(fake: &FakeCluster) -> Vec<String> {
    fake.all(PODS)
        .iter()
        .map(|p| p["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn settle(fake: &FakeCluster) {
    fake.settle(&ReplicaSetController, "d", "web", 10);
}

#[test]
fn makes_what_is_missing() {
    let fake = cluster();
    fake.given(REPLICA_SETS, set(30));
    settle(&fake);
    let pods = fake.all(PODS);
    assert_eq!(pods.len(), 30);
    assert_eq!(
        pods[0]["metadata"]["ownerReferences"][0]["controller"],
        true
    );
    assert_eq!(
        pods[0]["metadata"]["ownerReferences"][0]["blockOwnerDeletion"],
        true
    );
    assert!(
        pods[0]["metadata"]["name"]
            .as_str()
            .unwrap()
            .starts_with("web-")
    );
    assert_eq!(pods[0]["metadata"]["labels"]["app"], "web");
    let status = &fake.at(REPLICA_SETS, "d", "web").unwrap()["status"];
    assert_eq!(
        (
            &status["replicas"],
            &status["fullyLabeledReplicas"],
            &status["readyReplicas"]
        ),
        (&json!(30), &json!(30), &json!(0))
    );
    assert!(fake.events()[0].starts_with("Normal SuccessfulCreate Created pod: web-"));
    assert_eq!(fake.events().len(), MAX_EVENTS);
}

#[test]
fn counts_ready_and_available() {
    let fake = cluster();
    let mut object = set(2);
    object["spec"]["minReadySeconds"] = json!(10);
    fake.given(REPLICA_SETS, object);
    settle(&fake);
    let pods = names(&fake);
    ready(&fake, &pods[0], "2026-01-01T00:00:00Z");
    ready(&fake, &pods[1], "2026-01-01T00:00:56Z");
    let outcome = fake.reconcile(&ReplicaSetController, "d", "web");
    assert_eq!(outcome, Ok(Outcome::RequeueAfter(6_000)));
    let status = &fake.at(REPLICA_SETS, "d", "web").unwrap()["status"];
    assert_eq!(
        (&status["readyReplicas"], &status["availableReplicas"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn removes_the_least_valuable_first() {
    let fake = cluster();
    fake.given(REPLICA_SETS, set(4));
    settle(&fake);
    let pods = names(&fake);
    ready(&fake, &pods[0], "2026-01-01T00:00:00Z");
    ready(&fake, &pods[2], "2026-01-01T00:00:58Z");
    fake.change(PODS, "d", &pods[3], |pod| {
        pod["spec"]["nodeName"] = json!("n1")
    });
    fake.change(PODS, "d", &pods[0], |pod| {
        pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "5"});
        pod["status"]["containerStatuses"] = json!([{"restartCount": 9}]);
    });
    // pods[1] is not assigned, pods[3] is not ready, pods[2] is ready for less time.
    for (replicas, left) in [(3, vec![0, 2, 3]), (2, vec![0, 2]), (1, vec![0])] {
        fake.change(REPLICA_SETS, "d", "web", |set| {
            set["spec"]["replicas"] = json!(replicas)
        });
        settle(&fake);
        let expect: Vec<String> = left.iter().map(|i: &usize| pods[*i].clone()).collect();
        assert_eq!(names(&fake), expect);
    }
}

#[test]
fn deletion_order() {
    let fake = cluster();
    drop(fake);
    let pod = |name: &str, change: &dyn Fn(&mut Pod)| {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        }))
        .unwrap();
        change(&mut pod);
        pod
    };
    let check = |what: &str, keep: &dyn Fn(&mut Pod), go: &dyn Fn(&mut Pod)| {
        let pods = [pod("a", keep), pod("b", go)];
        let related = [("n".to_owned(), 1), ("crowded".to_owned(), 2)].into();
        assert_eq!(
            rank::choose(&pods, 1, &related)[0].metadata.name,
            "b",
            "{what}"
        );
    };
    check("assigned", &|_| {}, &|p| p.spec.node_name.clear());
    check("phase", &|_| {}, &|p| p.status.phase = "Pending".into());
    check("ready", &|_| {}, &|p| p.status.conditions.clear());
    check("cost", &|_| {}, &|p| {
        p.metadata.annotations.insert(
            "controller.kubernetes.io/pod-deletion-cost".into(),
            "-5".into(),
        );
    });
    check("crowd", &|_| {}, &|p| p.spec.node_name = "crowded".into());
    check("ready time", &|_| {}, &|p| {
        p.status.conditions[0].last_transition_time = Some("2026-01-01T00:00:58Z".into());
    });
    check("age", &|_| {}, &|p| {
        p.metadata.creation_timestamp = "2026-01-01T00:00:58Z".into()
    });
}

#[test]
fn takes_in_orphans_and_lets_strangers_go() {
    let fake = cluster();
    fake.given(
        PODS,
        json!({"metadata": {"name": "orphan", "namespace": "d", "labels": {"app": "web"}}}),
    );
    fake.given(REPLICA_SETS, set(2));
    settle(&fake);
    assert_eq!(fake.all(PODS).len(), 2);
    let orphan = fake.at(PODS, "d", "orphan").unwrap();
    assert_eq!(orphan["metadata"]["ownerReferences"][0]["name"], "web");
    fake.change(PODS, "d", "orphan", |pod| {
        pod["metadata"]["labels"] = json!({"app": "other"})
    });
    settle(&fake);
    assert_eq!(fake.all(PODS).len(), 3);
    assert_eq!(
        fake.at(PODS, "d", "orphan").unwrap()["metadata"]["ownerReferences"],
        json!([])
    );
    // An orphan that appears later finds its owner by its own key.
    fake.given(
        PODS,
        json!({"metadata": {"name": "late", "namespace": "d", "labels": {"app": "web"}}}),
    );
    let keys = ReplicaSetController.keys_of(2, &fake.at(PODS, "d", "late").unwrap(), false);
    assert_eq!(keys, [Key::new("d", "orphan/late")]);
    fake.reconcile(&ReplicaSetController, "d", "orphan/late")
        .unwrap();
    assert_eq!(
        fake.at(PODS, "d", "late").unwrap()["metadata"]["ownerReferences"][0]["name"],
        "web"
    );
}

#[test]
fn finished_and_terminating_pods_do_not_count() {
    let fake = cluster();
    fake.given(REPLICA_SETS, set(2));
    settle(&fake);
    let pods = names(&fake);
    fake.change(PODS, "d", &pods[0], |pod| {
        pod["status"] = json!({"phase": "Failed"})
    });
    fake.change(PODS, "d", &pods[1], |pod| {
        pod["metadata"]["deletionTimestamp"] = json!(NOW)
    });
    settle(&fake);
    assert_eq!(fake.all(PODS).len(), 4);
    let status = &fake.at(REPLICA_SETS, "d", "web").unwrap()["status"];
    assert_eq!(
        (&status["replicas"], &status["terminatingReplicas"]),
        (&json!(2), &json!(1))
    );
}
