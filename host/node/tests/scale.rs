//! Five thousand nodes in one process, over a cluster in the same process.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use oarlock_client::{Binding, Cluster, Key, ListQuery, LocalCluster};
use oarlock_model::{Gvr, meta};
use oarlock_node::{NodeSim, NodeSimConfig};
use oarlock_registry::Registry;
use serde_json::json;
use tokio::time::Instant;

const NODES: usize = 5_000;
const PODS: usize = 5_000;
const DEADLINE: Duration = Duration::from_secs(90);

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eprintln!("{what}: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_nodes_run_five_thousand_pods() {
    let store = oarlock_store::open(oarlock_store::StoreOptions::memory())
        .expect("a store in memory opens");
    let kinds = Arc::new(oarlock_kinds::Kinds::builtin());
    let config = oarlock_registry::Config {
        store,
        kinds,
        admission: Vec::new(),
    };
    let registry = Registry::open(config, jiff::Timestamp::now())
        .await
        .expect("the registry opens");
    let cluster: Arc<dyn Cluster> = Arc::new(LocalCluster::new(registry, "test"));
    let pods = Gvr::new("", "v1", "pods");
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let sim = NodeSim::start(NodeSimConfig::new(Arc::clone(&cluster), NODES));
    until("leases", async || {
        cluster
            .list(&leases, &ListQuery::default())
            .await
            .is_ok_and(|l| l.items.len() == NODES)
    })
    .await;

    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    cluster
        .create(&Gvr::new("", "v1", "serviceaccounts"), "default", account)
        .await
        .expect("pods need an account");
    let made = join_all((0..PODS).map(|index| {
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{index}")}, "spec": spec});
        cluster.create(&pods, "default", pod)
    }))
    .await;
    assert!(
        made.iter().all(Result::is_ok),
        "{:?}",
        made.iter().find(|m| m.is_err())
    );
    let bindings = (0..PODS)
        .map(|index| Binding {
            pod: Key {
                namespace: "default".to_owned(),
                name: format!("p{index}"),
            },
            uid: String::new(),
            node: format!("oarlock-node-{}", index % NODES),
        })
        .collect();
    cluster.bind(bindings).await;
    let running = ListQuery {
        fields: "status.phase=Running".to_owned(),
        ..ListQuery::default()
    };
    until("running", async || {
        cluster
            .list(&pods, &running)
            .await
            .is_ok_and(|l| l.items.len() == PODS)
    })
    .await;
    let list = cluster
        .list(&pods, &running)
        .await
        .expect("pods are listed");
    let addresses: std::collections::HashSet<&str> = list
        .items
        .iter()
        .filter_map(|pod| pod["status"]["podIP"].as_str())
        .collect();
    assert_eq!(addresses.len(), PODS, "every pod has its own address");

    // Deleted with grace: the nodes end them.
    let key = |pod: &oarlock_client::Object| Key {
        namespace: "default".to_owned(),
        name: meta::name(pod).to_owned(),
    };
    join_all(list.items.iter().map(|pod| {
        let key = key(pod);
        let (cluster, pods) = (&cluster, &pods);
        async move {
            cluster
                .delete(pods, &key, oarlock_client::DeleteOptions::default())
                .await
        }
    }))
    .await;
    until("gone", async || {
        cluster
            .list(&pods, &ListQuery::default())
            .await
            .is_ok_and(|l| l.items.is_empty())
    })
    .await;
    sim.stop().await;
}
