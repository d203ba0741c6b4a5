//! kube-rs: typed calls, a watcher (both ways to start one) and a reflector that stays equal to the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Config, Discovery};
use oarlock_tests::{Oarlock, Options};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(60);

async fn client(cluster: &Oarlock) -> Client {
    let file = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .expect("a configuration");
    Client::try_from(config).expect("a client")
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: kube::core::ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(
                "made-by".to_owned(),
                "kube-rs".to_owned(),
            )])),
            ..Default::default()
        },
        data: Some(BTreeMap::from([("k".to_owned(), value.to_owned())])),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_reflector_follows() {
    let cluster = Oarlock::start(Options::default());
    let client = client(&cluster).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    maps.create(&PostParams::default(), &config_map("before", "1"))
        .await
        .expect("created");
    for config in [
        watcher::Config::default().labels("made-by=kube-rs"),
        watcher::Config::default()
            .labels("made-by=kube-rs")
            .streaming_lists(),
    ] {
        let (reader, writer) = reflector::store();
        let follow = watcher(maps.clone(), config)
            .reflect(writer)
            .applied_objects()
            .try_for_each(|_| std::future::ready(Ok(())));
        let follow = tokio::spawn(follow);
        tokio::time::timeout(TIMEOUT, reader.wait_until_ready())
            .await
            .expect("in time")
            .expect("it lists");
        let find = |name: &'static str| {
            let reader = reader.clone();
            move || reader.find(|m| m.metadata.name.as_deref() == Some(name))
        };
        assert!(find("before")().is_some(), "the first list is in");
        maps.create(&PostParams::default(), &config_map("after", "1"))
            .await
            .expect("created");
        let patch = Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "after"}, "data": {"k": "2"},
        }));
        maps.patch("after", &PatchParams::apply("kube-rs").force(), &patch)
            .await
            .expect("applied");
        until(|| {
            find("after")()
                .and_then(|m| m.data.clone())
                .is_some_and(|data| data["k"] == "2")
        })
        .await;
        maps.delete("after", &DeleteParams::default())
            .await
            .expect("deleted");
        until(|| find("after")().is_none()).await;
        follow.abort();
    }
}

async fn until(met: impl Fn() -> bool) {
    let wait = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, wait)
        .await
        .expect("the reflector followed");
}

#[tokio::test]
async fn discovery_lists_and_errors() {
    let cluster = Oarlock::start(Options::default());
    let client = client(&cluster).await;
    for discovery in [
        Discovery::new(client.clone()).run().await,
        Discovery::new(client.clone()).run_aggregated().await,
    ] {
        let discovery = discovery.expect("discovery");
        assert!(discovery.has_group("apps") && discovery.has_group("oarlock.dev"));
    }
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let missing = pods.get("none").await.expect_err("there is none");
    assert!(
        matches!(&missing, kube::Error::Api(status) if status.code == 404 && status.reason == "NotFound"),
        "{missing}"
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    for i in 0..5 {
        let map = config_map(&format!("m-{i}"), "1");
        maps.create(&PostParams::default(), &map)
            .await
            .expect("created");
    }
    let mut pages = 0;
    let mut names = Vec::new();
    let mut params = ListParams::default().labels("made-by=kube-rs").limit(2);
    loop {
        let page = maps.list(&params).await.expect("a page");
        pages += 1;
        names.extend(page.items.into_iter().filter_map(|m| m.metadata.name));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!((pages, names.len()), (3, 5));
    let lines: Vec<_> = maps
        .watch(&watcher_params(), "0")
        .await
        .expect("a watch")
        .take(5)
        .try_collect()
        .await
        .expect("events");
    assert_eq!(lines.len(), 5);
}

fn watcher_params() -> kube::api::WatchParams {
    kube::api::WatchParams::default()
        .labels("made-by=kube-rs")
        .timeout(10)
}
