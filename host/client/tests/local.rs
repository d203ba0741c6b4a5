//! The in-process cluster and the reflector over it, against the memory store.
#![expect(clippy::unwrap_used, reason = "a test may fail here")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use oarlock_client::{
    Binding, Cluster, DeleteOptions, Delta, Key, ListQuery, ListResult, LocalCluster, Object,
    Patch, Reflector, WatchEvent,
};
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult, Gvr, meta};
use oarlock_registry::{Config, Context, Registry, Target};
use oarlock_store::StoreOptions;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);

async fn local() -> LocalCluster {
    LocalCluster::new(registry().await, "test")
}

/// The first entry of a ConfigMap's managedFields, as it is stored.
async fn managed(registry: &Registry, name: &str) -> Value {
    let row = registry.kinds().resource("", "v1", "configmaps").unwrap();
    let target = Target::new(&row, "default", name);
    let ctx = Context::new(Arc::default(), jiff::Timestamp::UNIX_EPOCH);
    let stored = registry.get(&ctx, &target, "").await;
    stored.unwrap().to_value().unwrap()["metadata"]["managedFields"][0].clone()
}

async fn registry() -> Arc<Registry> {
    let store = oarlock_store::open(StoreOptions::memory()).unwrap();
    let config = Config {
        store,
        kinds: Arc::new(Kinds::builtin()),
        admission: Vec::new(),
    };
    Registry::open(config, jiff::Timestamp::now())
        .await
        .unwrap()
}

fn config_maps() -> Gvr {
    Gvr::new("", "v1", "configmaps")
}

fn key(name: &str) -> Key {
    Key {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

async fn next(deltas: &mut tokio::sync::mpsc::Receiver<Delta>) -> Delta {
    tokio::time::timeout(DEADLINE, deltas.recv())
        .await
        .expect("a delta in time")
        .expect("the reflector runs")
}

fn shown(delta: &Delta) -> String {
    match delta {
        Delta::Added(o) => format!("+{}", meta::name(o)),
        Delta::Updated { old, new } => format!(
            "{}:{}->{}",
            meta::name(new),
            old["data"]["k"],
            new["data"]["k"]
        ),
        Delta::Deleted(o) => format!("-{}", meta::name(o)),
        Delta::Synced => "synced".to_owned(),
    }
}

#[tokio::test]
async fn verbs() {
    let registry = registry().await;
    let cluster = LocalCluster::new(Arc::clone(&registry), "test");
    let made = cluster
        .create(&config_maps(), "default", config_map("a"))
        .await
        .unwrap();
    assert_eq!(made["metadata"]["managedFields"], Value::Null);
    assert_eq!(managed(&registry, "a").await["manager"], "test");
    let patch = Patch::Merge(json!({"data": {"k": "w"}}));
    let patched = cluster
        .patch(&config_maps(), &key("a"), "", patch)
        .await
        .unwrap();
    let mut stale = Value::clone(&made);
    stale["data"]["k"] = json!("x");
    assert_eq!(
        cluster
            .update(&config_maps(), "", stale)
            .await
            .unwrap_err()
            .code(),
        409
    );
    // One tree for all who hold it.
    let got = cluster.get(&config_maps(), &key("a")).await.unwrap();
    assert!(Arc::ptr_eq(&got, &patched));
    let query = ListQuery {
        namespace: Some("default".to_owned()),
        fields: "metadata.name=a".to_owned(),
        ..ListQuery::default()
    };
    let list = cluster.list(&config_maps(), &query).await.unwrap();
    assert!(list.items.len() == 1 && Arc::ptr_eq(&got, &list.items[0]));
    let applied = Patch::Apply {
        body: config_map("b"),
        manager: "m".to_owned(),
        force: false,
    };
    cluster
        .patch(&config_maps(), &key("b"), "", applied)
        .await
        .unwrap();
    assert_eq!(managed(&registry, "b").await["operation"], "Apply");
    let wrong = DeleteOptions {
        uid: "no".to_owned(),
        ..DeleteOptions::default()
    };
    assert_eq!(
        cluster
            .delete(&config_maps(), &key("a"), wrong)
            .await
            .unwrap_err()
            .code(),
        409
    );
    cluster
        .delete(&config_maps(), &key("a"), DeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(
        cluster
            .get(&config_maps(), &key("a"))
            .await
            .unwrap_err()
            .code(),
        404
    );
    let unknown = cluster
        .get(&Gvr::new("x.example", "v1", "things"), &key("a"))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), 404);
    let account = json!({"metadata": {"name": "default"}});
    cluster
        .create(&Gvr::new("", "v1", "serviceaccounts"), "default", account)
        .await
        .unwrap();
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = Gvr::new("", "v1", "pods");
    cluster.create(&pods, "default", pod).await.unwrap();
    let binding = Binding {
        pod: key("p"),
        uid: String::new(),
        node: "n".to_owned(),
    };
    assert!(cluster.bind(vec![binding.clone()]).await[0].is_ok());
    assert_eq!(
        cluster.bind(vec![binding]).await[0]
            .as_ref()
            .unwrap_err()
            .code(),
        409
    );
    let statuses = cluster
        .patch_statuses(
            &pods,
            vec![(key("p"), json!({"status": {"phase": "Running"}}))],
        )
        .await;
    assert_eq!(statuses[0].as_ref().unwrap()["status"]["phase"], "Running");
}

#[tokio::test]
async fn watchers_of_one_change_share_its_tree() {
    let cluster = local().await;
    let query = ListQuery::default();
    let revision = cluster.list(&config_maps(), &query).await.unwrap().revision;
    let mut first = cluster
        .watch(&config_maps(), &query, revision)
        .await
        .unwrap();
    let mut second = cluster
        .as_user("system:serviceaccount:a:b")
        .watch(&config_maps(), &query, revision)
        .await
        .unwrap();
    cluster
        .create(&config_maps(), "default", config_map("a"))
        .await
        .unwrap();
    let (first, second) = tokio::time::timeout(DEADLINE, async {
        (first.next().await, second.next().await)
    })
    .await
    .unwrap();
    let (Some(Ok(WatchEvent::Added(first))), Some(Ok(WatchEvent::Added(second)))) = (first, second)
    else {
        panic!("two additions expected");
    };
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_reflector_tells_every_change_once() {
    let cluster = Arc::new(local().await);
    cluster
        .create(&config_maps(), "default", config_map("a"))
        .await
        .unwrap();
    let mut reflector = Reflector::start(
        Arc::clone(&cluster) as Arc<dyn Cluster>,
        config_maps(),
        ListQuery::default(),
    );
    let mut seen = vec![
        shown(&next(&mut reflector.deltas).await),
        shown(&next(&mut reflector.deltas).await),
    ];
    cluster
        .create(&config_maps(), "default", config_map("b"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"data": {"k": "w"}}));
    let patched = cluster
        .patch(&config_maps(), &key("a"), "", patch)
        .await
        .unwrap();
    cluster
        .delete(&config_maps(), &key("b"), DeleteOptions::default())
        .await
        .unwrap();
    for _ in 0..3 {
        seen.push(shown(&next(&mut reflector.deltas).await));
    }
    assert_eq!(seen, ["+a", "synced", "+b", "a:\"v\"->\"w\"", "-b"]);
    tokio::time::timeout(
        DEADLINE,
        reflector
            .cache
            .reached(meta::resource_version(&patched).parse().unwrap()),
    )
    .await
    .unwrap();
    assert!(Arc::ptr_eq(
        &reflector.cache.get(&key("a")).unwrap(),
        &patched
    ));
    assert_eq!(
        (reflector.cache.len(), reflector.cache.is_synced()),
        (1, true)
    );
    drop(reflector.task);
    // The task is gone, and with it the sender.
    let ended = tokio::time::timeout(DEADLINE, reflector.deltas.recv())
        .await
        .unwrap();
    assert!(ended.is_none());
}

type Script = VecDeque<Result<WatchEvent, ApiError>>;

/// A cluster whose lists and watches are scripted; a watch whose script is used up hangs.
#[derive(Default)]
struct Scripted {
    lists: Mutex<VecDeque<ApiResult<ListResult>>>,
    watches: Mutex<VecDeque<(u64, Script)>>,
    listed: AtomicUsize,
}

#[async_trait]
impl Cluster for Scripted {
    async fn list(&self, _: &Gvr, _: &ListQuery) -> ApiResult<ListResult> {
        self.listed.fetch_add(1, Ordering::SeqCst);
        let next = self.lists.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Err(ApiError::internal("nothing more to list")))
    }

    async fn watch(
        &self,
        _: &Gvr,
        _: &ListQuery,
        revision: u64,
    ) -> ApiResult<BoxStream<'static, Result<WatchEvent, ApiError>>> {
        let next = self.watches.lock().unwrap().pop_front();
        match next {
            Some((expected, script)) => {
                assert_eq!(revision, expected, "a watch resumes where the cache is");
                Ok(Box::pin(futures::stream::iter(script)))
            }
            None => Ok(Box::pin(futures::stream::pending())),
        }
    }

    async fn get(&self, _: &Gvr, _: &Key) -> ApiResult<Object> {
        Err(ApiError::internal("not scripted"))
    }
    async fn create(&self, _: &Gvr, _: &str, _: Value) -> ApiResult<Object> {
        Err(ApiError::internal("not scripted"))
    }
    async fn update(&self, _: &Gvr, _: &str, _: Value) -> ApiResult<Object> {
        Err(ApiError::internal("not scripted"))
    }
    async fn patch(&self, _: &Gvr, _: &Key, _: &str, _: Patch) -> ApiResult<Object> {
        Err(ApiError::internal("not scripted"))
    }
    async fn delete(&self, _: &Gvr, _: &Key, _: DeleteOptions) -> ApiResult<()> {
        Err(ApiError::internal("not scripted"))
    }
    async fn create_sub(&self, _: &Gvr, _: &Key, _: &str, _: Value) -> ApiResult<Value> {
        Err(ApiError::internal("not scripted"))
    }
    async fn bind(&self, _: Vec<Binding>) -> Vec<ApiResult<()>> {
        Vec::new()
    }
    async fn patch_statuses(&self, _: &Gvr, _: Vec<(Key, Value)>) -> Vec<ApiResult<Object>> {
        Vec::new()
    }
    fn as_user(&self, _: &str) -> Arc<dyn Cluster> {
        Arc::new(Self::default())
    }
}

fn object(name: &str, revision: u64, data: &str) -> Object {
    Arc::new(
        json!({"metadata": {"name": name, "namespace": "default", "resourceVersion": revision.to_string()}, "data": {"k": data}}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_reflector_resumes_relists_on_410_and_survives_errors() {
    let scripted = Scripted::default();
    scripted.lists.lock().unwrap().extend([
        Err(ApiError::internal("not yet")),
        Ok(ListResult {
            items: vec![object("a", 3, "1"), object("b", 4, "1")],
            revision: 5,
        }),
        // What was missed: b is gone, a has changed, c is new.
        Ok(ListResult {
            items: vec![object("a", 21, "2"), object("c", 22, "1")],
            revision: 30,
        }),
    ]);
    scripted.watches.lock().unwrap().extend([
        (
            5,
            Script::from([
                Ok(WatchEvent::Added(object("d", 6, "1"))),
                Err(ApiError::internal("cut")),
            ]),
        ),
        (
            6,
            Script::from([
                Ok(WatchEvent::Deleted(object("d", 7, "1"))),
                Ok(WatchEvent::Bookmark(9)),
            ]),
        ),
        (
            9,
            Script::from([Err(ApiError::expired("too old resource version: 9 (20)"))]),
        ),
        (
            30,
            Script::from([Ok(WatchEvent::Modified(object("c", 31, "2")))]),
        ),
    ]);
    let cluster = Arc::new(scripted);
    let mut reflector = Reflector::start(
        Arc::clone(&cluster) as Arc<dyn Cluster>,
        config_maps(),
        ListQuery::default(),
    );
    let mut seen = Vec::new();
    for _ in 0..9 {
        seen.push(shown(&next(&mut reflector.deltas).await));
    }
    assert_eq!(
        seen,
        [
            "+a",
            "+b",
            "synced",
            "+d",
            "-d",
            "a:\"1\"->\"2\"",
            "+c",
            "-b",
            "c:\"1\"->\"2\""
        ]
    );
    assert_eq!(
        (
            cluster.listed.load(Ordering::SeqCst),
            reflector.cache.revision()
        ),
        (3, 31)
    );
}
