//! The built-in controllers as components, over a cluster in this process with simulated nodes. Pods are bound by the
//! test, round-robin: there is no scheduler here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use oarlock_client::{
    Binding, Cluster, DeleteOptions, Delta, Key, ListQuery, LocalCluster, Patch, Reflector,
};
use oarlock_controllers::{Controllers, ControllersConfig, Handle, Served};
use oarlock_kinds::Kinds;
use oarlock_model::{Gvr, meta};
use oarlock_node::{NodeSim, NodeSimConfig};
use oarlock_registry::Registry;
use oarlock_wasm::{Engine, EngineConfig};
use serde_json::{Value, json};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(60);
const NODES: usize = 3;

struct World {
    cluster: Arc<dyn Cluster>,
    controllers: Handle,
    nodes: oarlock_node::Handle,
    binder: tokio::task::JoinHandle<()>,
}

fn kind(text: &str) -> Gvr {
    match text.split('/').collect::<Vec<_>>()[..] {
        [version, resource] => Gvr::new("", version, resource),
        [group, version, resource] => Gvr::new(group, version, resource),
        _ => panic!("{text}"),
    }
}

fn key(namespace: &str, name: &str) -> Key {
    Key {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

impl World {
    async fn start() -> Self {
        let _already = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let store = oarlock_store::open(oarlock_store::StoreOptions::memory())
            .expect("the test's cluster answers");
        let kinds = Arc::new(Kinds::builtin());
        let config = oarlock_registry::Config {
            store,
            kinds: Arc::clone(&kinds),
            admission: Vec::new(),
        };
        let registry = Registry::open(config, jiff::Timestamp::now())
            .await
            .expect("the test's cluster answers");
        let local = |name: &str| -> Arc<dyn Cluster> {
            Arc::new(LocalCluster::new(Arc::clone(&registry), name))
        };
        let discover = Arc::new(move || {
            let served = |row: &Arc<oarlock_kinds::Row>| {
                let has = |verb: &str| row.verbs.iter().any(|v| v == verb);
                Served {
                    kind: row.gvr(),
                    object_kind: row.kind.clone(),
                    namespaced: row.namespaced,
                    deletable: has("delete"),
                    watchable: has("watch") && has("list"),
                }
            };
            kinds.rows().iter().map(served).collect()
        });
        let engine = Engine::new(EngineConfig {
            cache_dir: Some(cache_dir()),
            max_instances: 64,
            ..EngineConfig::default()
        })
        .expect("the test's cluster answers");
        let builtin = oarlock_guests::CONTROLLERS
            .iter()
            .map(|guest| (guest.name.to_owned(), Arc::from(guest.bytes)))
            .collect();
        let configs = BTreeMap::from([
            ("root-ca".to_owned(), json!({"certificate": "PEM"})),
            (
                "node-lifecycle".to_owned(),
                json!({"gracePeriodSeconds": 3}),
            ),
            (
                "pod-garbage-collector".to_owned(),
                json!({"quarantineSeconds": 1}),
            ),
        ]);
        let controllers = Controllers::start(ControllersConfig::new(
            local("kube-controller-manager"),
            engine,
            builtin,
            configs,
            discover,
        ));
        let mut sim = NodeSimConfig::new(local("node-simulator"), NODES);
        sim.capacity.pods = 1_000;
        sim.lease_renew_ms = 500;
        let nodes = NodeSim::start(sim);
        let binder = tokio::spawn(bind(local("kube-scheduler")));
        Self {
            cluster: local("test"),
            controllers,
            nodes,
            binder,
        }
    }

    async fn stop(self) {
        self.binder.abort();
        self.controllers.stop().await;
        self.nodes.stop().await;
    }

    async fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.cluster
            .get(&kind(resource), &key(namespace, name))
            .await
            .ok()
            .map(|o| Value::clone(&o))
    }

    async fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let query = ListQuery {
            namespace: Some(namespace.to_owned()),
            ..ListQuery::default()
        };
        let list = self
            .cluster
            .list(&kind(resource), &query)
            .await
            .expect("the test's cluster answers");
        list.items.iter().map(|o| Value::clone(o)).collect()
    }

    async fn create(&self, resource: &str, namespace: &str, object: Value) {
        self.cluster
            .create(&kind(resource), namespace, object)
            .await
            .unwrap_or_else(|e| panic!("{resource}: {e}"));
    }

    async fn merge(&self, resource: &str, namespace: &str, name: &str, patch: Value) {
        let key = key(namespace, name);
        self.cluster
            .patch(&kind(resource), &key, "", Patch::Merge(patch))
            .await
            .expect("the test's cluster answers");
    }

    /// Waits until `holds`; says what there was if it never does.
    async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) -> Duration {
        let start = Instant::now();
        while !holds().await {
            if start.elapsed() > DEADLINE {
                panic!(
                    "{what}: not within {DEADLINE:?}; controllers: {:#?}",
                    self.controllers.states()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }

    async fn available(&self, name: &str) -> i64 {
        let deployment = self
            .get("apps/v1/deployments", "default", name)
            .await
            .unwrap_or_default();
        let done = deployment["status"]["observedGeneration"]
            == deployment["metadata"]["generation"]
            && deployment["status"]["unavailableReplicas"].is_null();
        if done {
            deployment["status"]["availableReplicas"]
                .as_i64()
                .unwrap_or(0)
        } else {
            -1
        }
    }
}

/// Stores a component as `oarlock component push` does.
async fn push(world: &World, name: &str, bytes: &[u8]) {
    use base64::Engine as _;
    let engine = Engine::new(EngineConfig {
        cache_dir: Some(cache_dir()),
        max_instances: 4,
        ..EngineConfig::default()
    })
    .expect("an engine starts");
    let digest = engine
        .load(name, bytes)
        .expect("the component loads")
        .digest();
    let chunks: Vec<&[u8]> = bytes.chunks(200_000).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let data = base64::engine::general_purpose::STANDARD.encode(chunk);
        let name = oarlock_client::chunk_name(&digest, index);
        let object = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "ComponentChunk",
            "metadata": {"name": name}, "digest": digest, "index": index, "data": data});
        world
            .create("oarlock.dev/v1alpha1/componentchunks", "", object)
            .await;
    }
    let spec = json!({"digest": digest, "size": bytes.len(), "chunks": chunks.len()});
    let object = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "Component",
        "metadata": {"name": name}, "spec": spec});
    world
        .create("oarlock.dev/v1alpha1/components", "", object)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_misbehaves_is_reported_and_harms_nobody() {
    const CONTROLLERS: &str = "oarlock.dev/v1alpha1/controllers";
    let world = World::start().await;
    let name_it = |name: &str, component: &str| {
        json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "Controller", "metadata": {"name": name},
            "spec": {"component": component, "limits": {"deadlineMilliseconds": 200}}})
    };
    world
        .create(CONTROLLERS, "", name_it("absent", "nowhere"))
        .await;
    world
        .create(CONTROLLERS, "", name_it("bad", "misbehaving"))
        .await;
    let reason = async |name: &str| {
        let object = world.get(CONTROLLERS, "", name).await.unwrap_or_default();
        object["status"]["conditions"][0]["reason"]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    world
        .until("absent is reported", async || {
            reason("absent").await == "NotStarted"
        })
        .await;
    // Pushed after it was named: found without anyone touching the Controller.
    let guest = oarlock_guests::hostile("misbehaving-controller").expect("it is built");
    push(&world, "misbehaving", guest.bytes).await;
    world
        .until("bad runs", async || reason("bad").await == "Running")
        .await;
    for name in ["panic", "spin", "fail"] {
        world
            .create(
                "v1/configmaps",
                "default",
                json!({"metadata": {"name": name}}),
            )
            .await;
    }
    world
        .until("traps are reported", async || {
            reason("bad").await == "Trapping"
        })
        .await;
    world
        .create("apps/v1/deployments", "default", deployment("web", 3))
        .await;
    world
        .until("others work", async || world.available("web").await == 3)
        .await;
    world
        .cluster
        .delete(
            &kind(CONTROLLERS),
            &key("", "bad"),
            DeleteOptions::default(),
        )
        .await
        .expect("it is deleted");
    world
        .until("it stops", async || {
            !world.controllers.states().contains_key("controller/bad")
        })
        .await;
    world.stop().await;
}

fn cache_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("code")
}

/// Binds every pod that has no node, to each node without taints in turn.
async fn bind(cluster: Arc<dyn Cluster>) {
    let query = ListQuery {
        fields: "spec.nodeName=".to_owned(),
        ..ListQuery::default()
    };
    let mut pods = Reflector::start(Arc::clone(&cluster), kind("v1/pods"), query);
    let (mut deltas, mut waiting, mut next) = (Vec::new(), Vec::new(), 0);
    loop {
        let news = pods.deltas.recv_many(&mut deltas, 512);
        let _quiet = tokio::time::timeout(Duration::from_millis(200), news).await;
        waiting.extend(deltas.drain(..).filter_map(|delta| match delta {
            Delta::Added(pod) => Some(pod),
            _ => None,
        }));
        let nodes = cluster
            .list(&kind("v1/nodes"), &ListQuery::default())
            .await
            .expect("the test's cluster answers");
        let fit: Vec<&str> = nodes
            .items
            .iter()
            .filter(|n| n["spec"]["taints"].as_array().is_none_or(Vec::is_empty))
            .map(|n| meta::name(n))
            .collect();
        if fit.is_empty() || waiting.is_empty() {
            continue;
        }
        let bindings = waiting
            .drain(..)
            .map(|pod| {
                next += 1;
                Binding {
                    pod: key(meta::namespace(&pod), meta::name(&pod)),
                    uid: meta::uid(&pod).to_owned(),
                    node: fit[next % fit.len()].to_owned(),
                }
            })
            .collect();
        cluster.bind(bindings).await;
    }
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "tolerations": [
                    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
                ],
                "containers": [{"name": "c", "image": "nginx:1"}],
            }},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_runs_scales_rolls_and_goes() {
    let world = World::start().await;
    world
        .until("nodes", async || {
            world.list("v1/nodes", "").await.len() == NODES
        })
        .await;
    world
        .create("apps/v1/deployments", "default", deployment("web", 3))
        .await;
    let took = world
        .until("3 available", async || world.available("web").await == 3)
        .await;
    eprintln!("first rollout {took:?}");

    world
        .merge(
            "apps/v1/deployments",
            "default",
            "web",
            json!({"spec": {"replicas": 1000}}),
        )
        .await;
    let took = world
        .until("1,000 available", async || {
            world.available("web").await == 1_000
        })
        .await;
    eprintln!("3 to 1,000 {took:?}");
    world
        .merge(
            "apps/v1/deployments",
            "default",
            "web",
            json!({"spec": {"replicas": 2}}),
        )
        .await;
    let took = world
        .until("2 left", async || {
            world.list("v1/pods", "default").await.len() == 2
        })
        .await;
    eprintln!("1,000 to 2 {took:?}");

    let image = json!({"spec": {"template": {"metadata": {"labels": {"app": "web", "v": "2"}}}}});
    world
        .merge("apps/v1/deployments", "default", "web", image)
        .await;
    world
        .until("rolled", async || {
            let sets = world.list("apps/v1/replicasets", "default").await;
            let sizes: Vec<i64> = sets
                .iter()
                .filter_map(|s| s["status"]["availableReplicas"].as_i64())
                .collect();
            sets.len() == 2
                && sizes.iter().sum::<i64>() == 2
                && sets.iter().any(|s| s["spec"]["replicas"] == 0)
        })
        .await;

    world
        .cluster
        .delete(
            &kind("apps/v1/deployments"),
            &key("default", "web"),
            DeleteOptions::default(),
        )
        .await
        .expect("the test's cluster answers");
    world
        .until("everything collected", async || {
            world.list("v1/pods", "default").await.is_empty()
                && world
                    .list("apps/v1/replicasets", "default")
                    .await
                    .is_empty()
        })
        .await;
    for (name, state) in world.controllers.states() {
        assert_eq!(
            (state.refused.as_str(), state.traps),
            ("", 0),
            "{name}: {}",
            state.last_error
        );
    }
    assert!(
        world
            .controllers
            .metrics()
            .text()
            .contains("workqueue_adds_total")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_furnished_and_emptied() {
    let world = World::start().await;
    world
        .create("v1/namespaces", "", json!({"metadata": {"name": "team"}}))
        .await;
    world
        .until("furnished", async || {
            world
                .get("v1/serviceaccounts", "team", "default")
                .await
                .is_some()
                && world
                    .get("v1/configmaps", "team", "kube-root-ca.crt")
                    .await
                    .is_some_and(|m| m["data"]["ca.crt"] == "PEM")
        })
        .await;
    world
        .create(
            "v1/configmaps",
            "team",
            json!({"metadata": {"name": "own"}}),
        )
        .await;
    world
        .cluster
        .delete(
            &kind("v1/namespaces"),
            &key("", "team"),
            DeleteOptions::default(),
        )
        .await
        .expect("the test's cluster answers");
    world
        .until("emptied", async || {
            world.get("v1/namespaces", "", "team").await.is_none()
                && world.list("v1/configmaps", "team").await.is_empty()
        })
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_silent_node_are_made_again_elsewhere() {
    let world = World::start().await;
    world
        .until("nodes", async || {
            world.list("v1/nodes", "").await.len() == NODES
        })
        .await;
    world
        .create("apps/v1/deployments", "default", deployment("web", 6))
        .await;
    world
        .until("6 available", async || world.available("web").await == 6)
        .await;
    let silent = "oarlock-node-1";
    let off = json!({"metadata": {"annotations": {"sim.oarlock.dev/heartbeat": "off"}}});
    world.merge("v1/nodes", "", silent, off).await;
    world
        .until("unknown and tainted", async || {
            let node = world
                .get("v1/nodes", "", silent)
                .await
                .expect("the test's cluster answers");
            let unknown = node["status"]["conditions"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "Unknown")
            });
            unknown
                && node["spec"]["taints"]
                    .to_string()
                    .contains("node.kubernetes.io/unreachable")
        })
        .await;
    world
        .until("6 available elsewhere", async || {
            let pods = world.list("v1/pods", "default").await;
            let healthy = |pod: &&Value| {
                pod["spec"]["nodeName"] != silent
                    && !meta::is_terminating(pod)
                    && pod["status"]["phase"] == "Running"
            };
            pods.iter().filter(healthy).count() == 6
        })
        .await;
    let on = json!({"metadata": {"annotations": {"sim.oarlock.dev/heartbeat": null}}});
    world.merge("v1/nodes", "", silent, on).await;
    world
        .until("back", async || {
            let node = world
                .get("v1/nodes", "", silent)
                .await
                .expect("the test's cluster answers");
            let pods = world.list("v1/pods", "default").await;
            !node["spec"]["taints"].to_string().contains("unreachable")
                && pods.iter().all(|p| !meta::is_terminating(p))
        })
        .await;
    world.stop().await;
}
