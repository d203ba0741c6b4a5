//! The scheduler with real components against the in-process cluster: binding, what users are told, swaps under load,
//! roll-back.

#![expect(clippy::disallowed_methods, reason = "edge: tests measure and wait")]
#![expect(clippy::unwrap_used, reason = "a test may fail here")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures::StreamExt as _;
use oarlock_client::{
    Cluster, Key, ListQuery, LocalCluster, Object, Patch, WatchEvent, chunk_name,
};
use oarlock_kinds::Kinds;
use oarlock_model::Gvr;
use oarlock_registry::{Config, Registry};
use oarlock_scheduler::{Handle, Scheduler, SchedulerConfig};
use oarlock_store::StoreOptions;
use oarlock_wasm::{Engine, EngineConfig};
use serde_json::{Value, json};
use sha2::Digest as _;

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

async fn local() -> Arc<LocalCluster> {
    let store = oarlock_store::open(StoreOptions::memory()).unwrap();
    let config = Config {
        store,
        kinds: Arc::new(Kinds::builtin()),
        admission: Vec::new(),
    };
    let registry = Registry::open(config, jiff::Timestamp::now())
        .await
        .unwrap();
    let cluster = LocalCluster::new(registry, "test");
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster
        .create(&core("serviceaccounts"), "default", account)
        .await
        .unwrap();
    Arc::new(cluster)
}

fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

fn own(resource: &str) -> Gvr {
    Gvr::new("oarlock.dev", "v1alpha1", resource)
}

fn key(namespace: &str, name: &str) -> Key {
    Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn start(cluster: &Arc<LocalCluster>) -> Handle {
    let guest = oarlock_guests::get("default-scheduler").unwrap();
    let components = HashMap::from([(guest.name.to_owned(), Arc::from(guest.bytes))]);
    let engine = Engine::new(EngineConfig {
        max_instances: 16,
        ..EngineConfig::default()
    })
    .unwrap();
    Scheduler::start(SchedulerConfig::new(
        Arc::clone(cluster) as Arc<dyn Cluster>,
        engine,
        components,
    ))
    .unwrap()
}

async fn add_node(cluster: &LocalCluster, name: &str, pods: u32, taints: Value) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": pods.to_string()},
                   "capacity": {"cpu": "64", "memory": "256Gi", "pods": pods.to_string()}},
    });
    cluster
        .create(&core("nodes"), "", node.clone())
        .await
        .unwrap();
    let status = json!({"status": node["status"]});
    cluster
        .patch(
            &core("nodes"),
            &key("", name),
            "status",
            Patch::Merge(status),
        )
        .await
        .unwrap();
    // Admission taints a new node as not ready; no kubelet is here to say otherwise.
    let ready = Patch::Merge(json!({"spec": {"taints": node["spec"]["taints"]}}));
    cluster
        .patch(&core("nodes"), &key("", name), "", ready)
        .await
        .unwrap();
}

async fn add_pod(cluster: &LocalCluster, name: &str, extra: Value) {
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "10m"}}}]});
    spec.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    cluster.create(&core("pods"), "default", pod).await.unwrap();
}

/// Waits until the object is as wanted.
async fn until(
    cluster: &LocalCluster,
    kind: &Gvr,
    at: &Key,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Object {
    let began = Instant::now();
    let mut last = String::new();
    while began.elapsed() < DEADLINE {
        match cluster.get(kind, at).await {
            Ok(object) if wanted(&object) => return object,
            Ok(object) => last = format!("{} {}", object["spec"], object["status"]),
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(POLL).await;
    }
    panic!("{what}: {last}");
}

fn condition(object: &Value, kind: &str) -> Value {
    let list = object["status"]["conditions"].as_array();
    list.into_iter()
        .flatten()
        .find(|c| c["type"] == kind)
        .cloned()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_bound_and_their_users_told() {
    let cluster = local().await;
    let handle = start(&cluster);
    add_node(&cluster, "a", 2, json!([])).await;
    add_node(
        &cluster,
        "b",
        2,
        json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
    )
    .await;
    let pods = core("pods");
    add_pod(&cluster, "one", json!({})).await;
    let one = until(
        &cluster,
        &pods,
        &key("default", "one"),
        "one is bound",
        |p| p["spec"]["nodeName"] == "a",
    )
    .await;
    assert_eq!(condition(&one, "PodScheduled")["status"], "True");

    add_pod(&cluster, "big", json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100"}}}]})).await;
    let big = until(
        &cluster,
        &pods,
        &key("default", "big"),
        "big is refused",
        |p| condition(p, "PodScheduled")["reason"] == "Unschedulable",
    )
    .await;
    let message = condition(&big, "PodScheduled")["message"].clone();
    assert_eq!(
        message,
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."
    );

    add_pod(
        &cluster,
        "gated",
        json!({"schedulingGates": [{"name": "example.com/g"}]}),
    )
    .await;
    let gated = until(
        &cluster,
        &pods,
        &key("default", "gated"),
        "gated waits",
        |p| condition(p, "PodScheduled")["reason"] == "SchedulingGated",
    )
    .await;
    assert_eq!(gated["spec"].get("nodeName"), None);
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    cluster
        .patch(&pods, &key("default", "gated"), "", open)
        .await
        .unwrap();
    until(
        &cluster,
        &pods,
        &key("default", "gated"),
        "the gate opens",
        |p| p["spec"]["nodeName"] == "a",
    )
    .await;

    // Now `a` is full; a pod waits until another one goes.
    add_pod(&cluster, "waits", json!({})).await;
    until(&cluster, &pods, &key("default", "waits"), "no room", |p| {
        condition(p, "PodScheduled")["reason"] == "Unschedulable"
    })
    .await;
    let now = oarlock_client::DeleteOptions {
        grace_period_seconds: Some(0),
        ..Default::default()
    };
    cluster
        .delete(&pods, &key("default", "one"), now)
        .await
        .unwrap();
    until(
        &cluster,
        &pods,
        &key("default", "waits"),
        "room again",
        |p| p["spec"]["nodeName"] == "a",
    )
    .await;

    add_pod(&cluster, "other", json!({"schedulerName": "someone-else"})).await;
    let began = Instant::now();
    let events = loop {
        let events = cluster
            .list(
                &Gvr::new("events.k8s.io", "v1", "events"),
                &ListQuery::default(),
            )
            .await
            .unwrap()
            .items;
        let notes: Vec<String> = events
            .iter()
            .filter_map(|e| e["note"].as_str().map(str::to_owned))
            .collect();
        if notes
            .iter()
            .any(|n| n == "Successfully assigned default/waits to a")
            || began.elapsed() > DEADLINE
        {
            break notes;
        }
        tokio::time::sleep(POLL).await;
    };
    assert!(
        events
            .iter()
            .any(|n| n == "Successfully assigned default/one to a"),
        "{events:?}"
    );
    assert!(
        events
            .iter()
            .any(|n| n.starts_with("0/2 nodes are available: 1 Insufficient cpu")),
        "{events:?}"
    );
    let other = cluster.get(&pods, &key("default", "other")).await.unwrap();
    assert!(other["spec"].get("nodeName").is_none() && condition(&other, "PodScheduled").is_null());
    let metrics = handle.metrics().text();
    assert!(
        metrics.contains("scheduler_schedule_attempts_total{result=\"scheduled\"} 3"),
        "{metrics}"
    );
    let profile = until(
        &cluster,
        &own("schedulerprofiles"),
        &key("", "default-scheduler"),
        "a profile",
        |p| condition(p, "Ready")["status"] == "True",
    )
    .await;
    assert!(
        profile["status"]["receipt"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    handle.stop().await;
}

/// Stores a component as `oarlock component push` does.
async fn push(cluster: &LocalCluster, name: &str, bytes: &[u8]) {
    let digest = format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)));
    let chunks: Vec<&[u8]> = bytes.chunks(oarlock_kinds::own::MAX_CHUNK_BYTES).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let data = base64::engine::general_purpose::STANDARD.encode(chunk);
        let chunk = json!({
            "apiVersion": "oarlock.dev/v1alpha1", "kind": "ComponentChunk",
            "metadata": {"name": chunk_name(&digest, index)}, "digest": digest, "index": index, "data": data,
        });
        cluster
            .create(&own("componentchunks"), "", chunk)
            .await
            .unwrap();
    }
    let component = json!({
        "apiVersion": "oarlock.dev/v1alpha1", "kind": "Component", "metadata": {"name": name},
        "spec": {"digest": digest, "size": bytes.len(), "chunks": chunks.len()},
    });
    cluster
        .create(&own("components"), "", component)
        .await
        .unwrap();
}

async fn set_component(cluster: &LocalCluster, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    cluster
        .patch(
            &own("schedulerprofiles"),
            &key("", "default-scheduler"),
            "",
            patch,
        )
        .await
        .unwrap();
}

/// The same component under other digests: a custom section is added.
fn variant(bytes: &[u8], number: u8) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.extend([0, 3, 1, b'v', number]);
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_under_load_lose_nothing() {
    const PODS: usize = 5_000;
    const SWAPS: u8 = 10;
    let cluster = local().await;
    for n in 0..100 {
        add_node(&cluster, &format!("n{n}"), 110, json!([])).await;
    }
    let guest = oarlock_guests::get("default-scheduler").unwrap();
    for number in 0..SWAPS {
        push(
            &cluster,
            &format!("v{number}"),
            &variant(guest.bytes, number),
        )
        .await;
    }
    let handle = start(&cluster);
    let profile = key("", "default-scheduler");
    until(
        &cluster,
        &own("schedulerprofiles"),
        &profile,
        "ready",
        |p| condition(p, "Ready")["status"] == "True",
    )
    .await;
    let mut watch = cluster
        .watch(&core("pods"), &ListQuery::default(), 0)
        .await
        .unwrap();
    let watcher = tokio::spawn(async move {
        let (mut bound, mut twice, mut last, mut longest) =
            (HashMap::new(), 0, None::<Instant>, Duration::ZERO);
        while bound.len() < PODS {
            let event = tokio::time::timeout(DEADLINE, watch.next())
                .await
                .expect("bindings go on")
                .unwrap()
                .unwrap();
            if let WatchEvent::Added(pod) | WatchEvent::Modified(pod) = event
                && let Some(node) = pod["spec"]["nodeName"].as_str()
            {
                let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
                match bound.insert(uid, node.to_owned()) {
                    None => {
                        longest = last.map_or(longest, |at| longest.max(at.elapsed()));
                        last = Some(Instant::now());
                    }
                    Some(before) if before != node => twice += 1,
                    Some(_) => {}
                }
            }
        }
        (twice, longest)
    });
    let creator = {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            for n in 0..PODS {
                add_pod(&cluster, &format!("p{n}"), json!({})).await;
            }
        })
    };
    for number in 0..SWAPS {
        set_component(&cluster, json!({"component": format!("v{number}")})).await;
        let is_active = |p: &Value| {
            p["status"]["activeComponent"]
                .as_str()
                .is_some_and(|c| c.starts_with(&format!("v{number}@")))
        };
        until(
            &cluster,
            &own("schedulerprofiles"),
            &profile,
            "swapped",
            is_active,
        )
        .await;
    }
    creator.await.unwrap();
    let (twice, longest) = watcher.await.unwrap();
    println!(
        "{SWAPS} swaps while {PODS} pods were bound: longest gap between two bindings {longest:?}"
    );
    assert_eq!(twice, 0);
    let receipt = cluster
        .get(&own("schedulerprofiles"), &profile)
        .await
        .unwrap()["status"]["receipt"]
        .clone();
    assert!(
        receipt["from"].as_str().unwrap().starts_with("v8@"),
        "{receipt}"
    );
    handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_versions_do_not_stay() {
    let cluster = local().await;
    add_node(&cluster, "a", 100, json!([])).await;
    let bad = oarlock_guests::hostile("misbehaving-scheduler").unwrap();
    push(&cluster, "bad", bad.bytes).await;
    let handle = start(&cluster);
    let (profiles, profile) = (own("schedulerprofiles"), key("", "default-scheduler"));
    until(&cluster, &profiles, &profile, "ready", |p| {
        condition(p, "Ready")["status"] == "True"
    })
    .await;
    let with = |behaviour: &str| json!({"component": "bad", "pluginConfig": [{"name": "Misbehaving", "args": behaviour}]});

    // Never becomes active: it traps while its mirror is filled, or is not there at all.
    for spec in [with("apply=panic"), json!({"component": "nowhere"})] {
        set_component(&cluster, spec).await;
        let refused = until(&cluster, &profiles, &profile, "refused", |p| {
            condition(p, "Ready")["reason"] == "ComponentRefused"
                && p["metadata"]["generation"] == p["status"]["observedGeneration"]
        })
        .await;
        assert!(
            refused["status"]["activeComponent"]
                .as_str()
                .unwrap()
                .starts_with("default-scheduler@")
        );
    }
    // Becomes active, and traps on pods.
    set_component(&cluster, with("filter=panic")).await;
    until(&cluster, &profiles, &profile, "active", |p| {
        p["status"]["activeComponent"]
            .as_str()
            .is_some_and(|c| c.starts_with("bad@"))
    })
    .await;
    for n in 0..6 {
        add_pod(&cluster, &format!("p{n}"), json!({})).await;
    }
    let rolled = until(&cluster, &profiles, &profile, "rolled back", |p| {
        condition(p, "Ready")["reason"] == "RolledBack"
    })
    .await;
    assert!(
        rolled["status"]["activeComponent"]
            .as_str()
            .unwrap()
            .starts_with("default-scheduler@")
    );
    for n in 0..6 {
        until(
            &cluster,
            &core("pods"),
            &key("default", &format!("p{n}")),
            "bound",
            |p| p["spec"]["nodeName"] == "a",
        )
        .await;
    }
    handle.stop().await;
}
