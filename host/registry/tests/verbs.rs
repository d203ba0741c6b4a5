//! The generic verbs against the memory store: what no recording shows (races, history, batches, allocators).
#![expect(clippy::unwrap_used, reason = "a test may fail here")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult, FieldSelector, LabelSelector, meta};
use oarlock_registry::{
    BindRequest, Body, Config, Context, DeleteOptions, Deleted, EventType, ListOptions, PatchKind,
    Registry, Stored, Target, User, WatchItem, WatchOptions, WatchStream,
};
use oarlock_store::{Store, StoreOptions};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(10);

struct House {
    registry: Arc<Registry>,
}

impl House {
    async fn new() -> Self {
        Self::over(oarlock_store::open(StoreOptions::memory()).unwrap()).await
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        let config = Config {
            store,
            kinds: Arc::new(Kinds::builtin()),
            admission: Vec::new(),
        };
        let registry = Registry::open(config, now()).await.unwrap();
        let house = Self { registry };
        let account = house.target("", "serviceaccounts", "");
        // Made by a controller elsewhere.
        let made = house
            .registry
            .create(
                &ctx(),
                &account,
                Body::Value(json!({"metadata": {"name": "default"}})),
            )
            .await;
        assert!(made.is_ok() || made.is_err_and(|e| e.code() == 409));
        house
    }

    fn target(&self, group: &str, resource: &str, name: &str) -> Target {
        let row = self
            .registry
            .kinds()
            .resource(group, "v1", resource)
            .unwrap();
        Target::new(&row, if row.namespaced { "default" } else { "" }, name)
    }

    async fn create(&self, group: &str, resource: &str, object: Value) -> ApiResult<Value> {
        let target = self.target(group, resource, "");
        self.registry
            .create(&ctx(), &target, Body::Value(object))
            .await
            .map(|o| o.to_value().unwrap())
    }

    async fn pod(&self, name: &str) -> Value {
        self.create("", "pods", pod(name)).await.unwrap()
    }

    async fn get(&self, resource: &str, name: &str) -> ApiResult<Value> {
        let target = self.target("", resource, name);
        self.registry
            .get(&ctx(), &target, "")
            .await
            .map(|o| o.to_value().unwrap())
    }

    async fn merge(&self, resource: &str, name: &str, patch: Value) -> ApiResult<Value> {
        let target = self.target("", resource, name);
        let patch = Bytes::from(patch.to_string());
        self.registry
            .patch(&ctx(), &target, PatchKind::Merge, patch)
            .await
            .map(|w| w.object.to_value().unwrap())
    }

    async fn delete(&self, resource: &str, name: &str) -> ApiResult<Deleted> {
        self.registry
            .delete(
                &ctx(),
                &self.target("", resource, name),
                &DeleteOptions::default(),
            )
            .await
    }

    async fn watch(&self, resource: &str, options: WatchOptions) -> WatchStream {
        self.registry
            .watch(&ctx(), &self.target("", resource, ""), &options)
            .await
            .unwrap()
    }
}

fn now() -> jiff::Timestamp {
    "2026-11-23T21:00:00Z".parse().unwrap()
}

fn ctx() -> Context {
    let user = User {
        name: "admin".to_owned(),
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), now());
    ctx.field_manager = "test".to_owned();
    ctx
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "registry.example/i:1"}]}})
}

fn config_map(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

fn rv(object: &Value) -> u64 {
    meta::resource_version(object).parse().unwrap()
}

async fn events(stream: &mut WatchStream, count: usize) -> Vec<(EventType, Value)> {
    let mut out = Vec::new();
    while out.len() < count {
        let batch: Vec<WatchItem> = tokio::time::timeout(DEADLINE, stream.next_batch())
            .await
            .unwrap()
            .unwrap();
        out.extend(batch.into_iter().map(|item| {
            let object = match item.kind {
                EventType::Bookmark { .. } => Value::Null,
                _ => item.object.to_value().unwrap(),
            };
            (item.kind, object)
        }));
    }
    assert_eq!(out.len(), count);
    out
}

fn texts(error: ApiError) -> (u16, String) {
    (error.code(), error.message)
}

#[tokio::test]
async fn a_first_start_makes_what_every_cluster_has() {
    let house = House::new().await;
    for (group, resource, name) in [
        ("", "namespaces", "kube-system"),
        ("", "namespaces", "kube-node-lease"),
        (
            "scheduling.k8s.io",
            "priorityclasses",
            "system-node-critical",
        ),
        ("", "services", "kubernetes"),
    ] {
        let target = house.target(group, resource, name);
        house.registry.get(&ctx(), &target, "").await.unwrap();
    }
    let service = house.get("services", "kubernetes").await.unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
    // A second start over the same store changes nothing.
    let revision = house.registry.store().revision();
    let again = House::over(Arc::clone(house.registry.store())).await;
    assert_eq!(again.registry.store().revision(), revision);
}

#[tokio::test]
async fn generated_names_and_system_metadata() {
    let house = House::new().await;
    let sent = json!({"metadata": {"generateName": "job-", "uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z",
        "generation": 7, "deletionTimestamp": "1999-01-01T00:00:00Z"}});
    let made = house.create("", "configmaps", sent).await.unwrap();
    let name = meta::name(&made);
    assert!(name.starts_with("job-") && name.len() == 9, "{name}");
    assert_ne!(meta::uid(&made), "mine");
    assert_eq!(
        made["metadata"]["creationTimestamp"],
        "2026-11-23T21:00:00Z"
    );
    assert_eq!(made["metadata"].get("deletionTimestamp"), None);
    assert_eq!(made["metadata"].get("generation"), None);
    let error = house
        .create("", "configmaps", json!({"metadata": {"name": name}}))
        .await
        .unwrap_err();
    assert_eq!(
        texts(error),
        (409, format!("configmaps {name:?} already exists"))
    );
    let versioned = json!({"metadata": {"name": "v", "resourceVersion": "1"}});
    let error = house.create("", "configmaps", versioned).await.unwrap_err();
    assert_eq!(
        texts(error),
        (
            500,
            "resourceVersion should not be set on objects to be created".to_owned()
        )
    );
}

#[tokio::test]
async fn a_stale_version_conflicts_and_a_change_of_nothing_writes_nothing() {
    let house = House::new().await;
    let made = house
        .create("", "configmaps", config_map("a", json!({})))
        .await
        .unwrap();
    let target = house.target("", "configmaps", "a");
    let changed = house
        .merge("configmaps", "a", json!({"data": {"k": "w"}}))
        .await
        .unwrap();
    assert!(rv(&changed) > rv(&made));
    let error = house
        .registry
        .update(&ctx(), &target, Body::Value(made.clone()))
        .await
        .unwrap_err();
    assert_eq!(
        texts(error),
        (409, "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again".to_owned())
    );
    let mut late = ctx();
    late.now = "2027-01-01T00:00:00Z".parse().unwrap();
    let same = house
        .registry
        .update(&late, &target, Body::Value(changed.clone()))
        .await
        .unwrap();
    assert_eq!(same.object.revision, rv(&changed));
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "x"}});
    assert_eq!(
        house
            .merge("configmaps", "a", stale)
            .await
            .unwrap_err()
            .code(),
        409
    );
    let mut dry = ctx();
    dry.dry_run = true;
    let patch = Bytes::from_static(b"{\"data\":{\"k\":\"dry\"}}");
    let tried = house
        .registry
        .patch(&dry, &target, PatchKind::Merge, patch)
        .await
        .unwrap();
    assert_eq!(tried.object.to_value().unwrap()["data"]["k"], "dry");
    assert_eq!(house.get("configmaps", "a").await.unwrap(), changed);
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let house = House::new().await;
    house
        .create("", "configmaps", config_map("a", json!({})))
        .await
        .unwrap();
    let patches =
        (0..32).map(|at| house.merge("configmaps", "a", json!({"data": {format!("k{at}"): "x"}})));
    for result in futures::future::join_all(patches).await {
        result.unwrap();
    }
    let data = house.get("configmaps", "a").await.unwrap()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 33);
}

#[tokio::test]
async fn status_and_spec_keep_to_their_own_endpoints() {
    let house = House::new().await;
    house.pod("p").await;
    let through_main = house
        .merge(
            "pods",
            "p",
            json!({"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}),
        )
        .await;
    let pod = through_main.unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["metadata"]["labels"]["a"]),
        (&json!("Pending"), &json!("b"))
    );
    let row = house.registry.kinds().resource("", "v1", "pods").unwrap();
    let status = Target::sub(&row, "default", "p", "status");
    let patch = Bytes::from_static(br#"{"status":{"phase":"Running"},"spec":{"priority":9}}"#);
    let written = house
        .registry
        .patch(&ctx(), &status, PatchKind::Merge, patch)
        .await
        .unwrap();
    let pod = written.object.to_value().unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["spec"]["priority"]),
        (&json!("Running"), &json!(0))
    );
    assert_eq!(pod["metadata"]["generation"], 1);
    assert_eq!(pod["spec"], house.get("pods", "p").await.unwrap()["spec"]);
    assert_eq!(
        pod["spec"]["containers"][0]["image"],
        "registry.example/i:1"
    );
    // The same through a JSON patch, which sees the whole object.
    let patch = Bytes::from_static(br#"[{"op":"test","path":"/spec/containers/0/name","value":"c"},{"op":"add","path":"/status/message","value":"m"}]"#);
    let written = house
        .registry
        .patch(&ctx(), &status, PatchKind::Json, patch)
        .await
        .unwrap();
    assert_eq!(written.object.to_value().unwrap()["status"]["message"], "m");
    let entries = pod["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        entries
            .iter()
            .any(|e| e["subresource"] == "status" && e["manager"] == "test"),
        "{entries:?}"
    );
}

#[tokio::test]
async fn pods_are_bound_once_and_in_bulk() {
    let house = House::new().await;
    let count = 300;
    for at in 0..count {
        house.pod(&format!("p{at}")).await;
    }
    let request = |at: usize, uid: &str| BindRequest {
        namespace: "default".to_owned(),
        name: format!("p{at}"),
        uid: uid.to_owned(),
        node: format!("n{}", at % 7),
    };
    let requests: Vec<_> = (0..count).map(|at| request(at, "")).collect();
    let results = house.registry.bind_many(&ctx(), &requests).await;
    assert!(results.iter().all(Result::is_ok));
    for (at, result) in results.iter().enumerate() {
        let pod = result.as_ref().unwrap().to_value().unwrap();
        assert_eq!(pod["spec"]["nodeName"], format!("n{}", at % 7));
        assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    }
    let again = house
        .registry
        .bind_many(&ctx(), &[request(3, ""), request(9999, "")])
        .await;
    let errors: Vec<_> = again
        .into_iter()
        .map(|r| r.unwrap_err())
        .map(texts)
        .collect();
    assert_eq!(
        errors,
        [
            (409, "Operation cannot be fulfilled on pods/binding \"p3\": pod p3 is already assigned to node \"n3\"".to_owned()),
            (404, "pods \"p9999\" not found".to_owned()),
        ]
    );
    house.pod("other").await;
    let wrong = BindRequest {
        name: "other".to_owned(),
        ..request(0, "no-such-uid")
    };
    assert_eq!(
        house.registry.bind_many(&ctx(), &[wrong]).await[0]
            .as_ref()
            .unwrap_err()
            .code(),
        409
    );
    // Bulk statuses share commits: fewer revisions than writes would be luck, but every one must be there.
    let row = house.registry.kinds().resource("", "v1", "pods").unwrap();
    let patches = (0..count)
        .map(|at| {
            (
                Target::new(&row, "default", &format!("p{at}")),
                json!({"status": {"phase": "Running"}}),
            )
        })
        .collect();
    for result in house.registry.patch_status_many(&ctx(), patches).await {
        assert_eq!(
            result.unwrap().to_value().unwrap()["status"]["phase"],
            "Running"
        );
    }
}

#[tokio::test]
async fn a_scheduled_pod_ends_in_two_steps_and_an_unscheduled_one_at_once() {
    let house = House::new().await;
    house.pod("unscheduled").await;
    assert!(matches!(
        house.delete("pods", "unscheduled").await.unwrap(),
        Deleted::Gone(_)
    ));
    assert_eq!(
        house.get("pods", "unscheduled").await.unwrap_err().code(),
        404
    );

    let made = house.pod("p").await;
    let bind = BindRequest {
        namespace: "default".to_owned(),
        name: "p".to_owned(),
        uid: String::new(),
        node: "n".to_owned(),
    };
    house
        .registry
        .bind_many(&ctx(), &[bind])
        .await
        .remove(0)
        .unwrap();
    let Deleted::Pending(marked) = house.delete("pods", "p").await.unwrap() else {
        panic!("gone at once")
    };
    let marked = marked.to_value().unwrap();
    assert_eq!(
        marked["metadata"]["deletionTimestamp"],
        "2026-11-23T21:00:30Z"
    );
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["generation"], 2);
    let mut watch = house
        .watch(
            "pods",
            WatchOptions {
                resource_version: rv(&made).to_string(),
                ..WatchOptions::default()
            },
        )
        .await;
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    let target = house.target("", "pods", "p");
    assert!(matches!(
        house
            .registry
            .delete(&ctx(), &target, &options)
            .await
            .unwrap(),
        Deleted::Gone(_)
    ));
    let seen = events(&mut watch, 4).await;
    let kinds: Vec<_> = seen.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [
            EventType::Modified,
            EventType::Modified,
            EventType::Modified,
            EventType::Deleted
        ]
    );
    assert_eq!(seen[3].1["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(rv(&seen[3].1) > rv(&seen[2].1));
}

#[tokio::test]
async fn finalizers_and_foreground_hold_an_object() {
    let house = House::new().await;
    house
        .create("", "configmaps", config_map("a", json!({})))
        .await
        .unwrap();
    let target = house.target("", "configmaps", "a");
    let options = DeleteOptions {
        propagation_policy: Some("Foreground".to_owned()),
        ..DeleteOptions::default()
    };
    assert!(matches!(
        house
            .registry
            .delete(&ctx(), &target, &options)
            .await
            .unwrap(),
        Deleted::Pending(_)
    ));
    let marked = house.get("configmaps", "a").await.unwrap();
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let error = house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"finalizers": ["x.example/y"]}}),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), 422);
    house
        .merge("configmaps", "a", json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    assert_eq!(house.get("configmaps", "a").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let house = House::new().await;
    let made = house
        .create("", "namespaces", json!({"metadata": {"name": "ns"}}))
        .await
        .unwrap();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert!(matches!(
        house.delete("namespaces", "ns").await.unwrap(),
        Deleted::Pending(_)
    ));
    let row = house
        .registry
        .kinds()
        .resource("", "v1", "configmaps")
        .unwrap();
    let inside = Target::new(&row, "ns", "");
    let error = house
        .registry
        .create(&ctx(), &inside, Body::Value(config_map("a", json!({}))))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.causes[0].reason.as_str()),
        (403, "NamespaceTerminating")
    );
    let namespaces = house
        .registry
        .kinds()
        .resource("", "v1", "namespaces")
        .unwrap();
    let finalize = Target::sub(&namespaces, "", "ns", "finalize");
    let body = json!({"metadata": {"name": "ns"}, "spec": {"finalizers": []}});
    house
        .registry
        .update(&ctx(), &finalize, Body::Value(body))
        .await
        .unwrap();
    assert_eq!(house.get("namespaces", "ns").await.unwrap_err().code(), 404);
    let missing = house
        .registry
        .create(&ctx(), &inside, Body::Value(config_map("a", json!({}))))
        .await
        .unwrap_err();
    assert_eq!(
        texts(missing),
        (404, "namespaces \"ns\" not found".to_owned())
    );
    assert_eq!(
        house
            .delete("namespaces", "default")
            .await
            .unwrap_err()
            .code(),
        403
    );
}

#[tokio::test]
async fn services_never_share_addresses_or_ports() {
    let house = House::new().await;
    let service = |name: &str, ip: &str, port: u32| {
        let mut object = json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}});
        if !ip.is_empty() {
            object["spec"]["clusterIP"] = json!(ip);
        }
        if port > 0 {
            object["spec"]["ports"][0]["nodePort"] = json!(port);
        }
        object
    };
    let made = house
        .create("", "services", service("a", "10.0.7.7", 30_123))
        .await
        .unwrap();
    assert_eq!(
        (
            &made["spec"]["clusterIP"],
            &made["spec"]["ports"][0]["nodePort"]
        ),
        (&json!("10.0.7.7"), &json!(30_123))
    );
    for (name, ip, port, expect) in [
        ("b", "10.0.7.7", 0, "provided IP is already allocated"),
        ("b", "192.168.0.1", 0, "not in the valid range"),
        ("b", "", 30_123, "provided port is already allocated"),
        ("b", "", 80, "not in the valid range"),
    ] {
        let error = house
            .create("", "services", service(name, ip, port))
            .await
            .unwrap_err();
        assert!(
            error.code() == 422 && error.message.contains(expect),
            "{error}"
        );
    }
    // What a refused or tried write had taken is free again.
    let mut dry = ctx();
    dry.dry_run = true;
    let target = house.target("", "services", "");
    house
        .registry
        .create(
            &dry,
            &target,
            Body::Value(service("dry", "10.0.8.8", 30_200)),
        )
        .await
        .unwrap();
    house
        .create("", "services", service("c", "10.0.8.8", 30_200))
        .await
        .unwrap();
    house.delete("services", "a").await.unwrap();
    // A restart learns from the store what is taken.
    let again = House::over(Arc::clone(house.registry.store())).await;
    assert_eq!(
        again
            .create("", "services", service("d", "10.0.8.8", 0))
            .await
            .unwrap_err()
            .code(),
        422
    );
    again
        .create("", "services", service("e", "10.0.7.7", 30_123))
        .await
        .unwrap();
    // An update that leaves the address out keeps it.
    let body = service("c", "", 0);
    let kept = again
        .registry
        .update(
            &ctx(),
            &again.target("", "services", "c"),
            Body::Value(body),
        )
        .await
        .unwrap();
    let kept = kept.object.to_value().unwrap();
    assert_eq!(
        (
            &kept["spec"]["clusterIP"],
            &kept["spec"]["ports"][0]["nodePort"]
        ),
        (&json!("10.0.8.8"), &json!(30_200))
    );
}

#[tokio::test]
async fn pages_are_one_snapshot_until_it_is_compacted() {
    let house = House::new().await;
    for name in ["a", "b", "c", "d"] {
        house
            .create("", "configmaps", config_map(name, json!({"n": name})))
            .await
            .unwrap();
    }
    let names = |list: &oarlock_registry::List| -> Vec<String> {
        list.items
            .iter()
            .map(|item: &Stored| meta::name(&item.to_value().unwrap()).to_owned())
            .collect()
    };
    let target = house.target("", "configmaps", "");
    let first = house
        .registry
        .list(
            &ctx(),
            &target,
            &ListOptions {
                limit: 2,
                ..ListOptions::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        (names(&first), first.remaining),
        (vec!["a".to_owned(), "b".to_owned()], Some(2))
    );
    house
        .create("", "configmaps", config_map("bb", json!({})))
        .await
        .unwrap();
    house.delete("configmaps", "c").await.unwrap();
    let next = ListOptions {
        limit: 2,
        continue_token: first.continue_token.clone(),
        ..ListOptions::default()
    };
    let second = house.registry.list(&ctx(), &target, &next).await.unwrap();
    assert_eq!(
        (names(&second), second.continue_token.as_str()),
        (vec!["c".to_owned(), "d".to_owned()], "")
    );
    assert_eq!(second.revision, first.revision);
    house
        .registry
        .store()
        .compact(house.registry.store().revision());
    let gone = house
        .registry
        .list(&ctx(), &target, &next)
        .await
        .unwrap_err();
    assert_eq!(gone.code(), 410);
    assert!(
        gone.message
            .contains("The provided continue parameter is too old")
    );
    let inconsistent = ListOptions {
        continue_token: gone.continue_token,
        ..ListOptions::default()
    };
    let rest = house
        .registry
        .list(&ctx(), &target, &inconsistent)
        .await
        .unwrap();
    assert_eq!(names(&rest), ["bb", "d"]);
    let selected = ListOptions {
        labels: LabelSelector::parse("n in (a,d)").unwrap(),
        fields: FieldSelector::parse("metadata.name!=a").unwrap(),
        limit: 1,
        ..ListOptions::default()
    };
    assert_eq!(
        names(
            &house
                .registry
                .list(&ctx(), &target, &selected)
                .await
                .unwrap()
        ),
        ["d"]
    );
}

#[tokio::test]
async fn watches_end_truthfully_and_idle_ones_get_bookmarks() {
    let house = House::new().await;
    let made = house
        .create("", "configmaps", config_map("a", json!({"app": "x"})))
        .await
        .unwrap();
    house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"labels": {"app": "y"}}}),
        )
        .await
        .unwrap();
    house
        .registry
        .store()
        .compact(house.registry.store().revision());
    let old = WatchOptions {
        resource_version: (rv(&made) - 1).to_string(),
        ..WatchOptions::default()
    };
    let mut stream = house.watch("configmaps", old).await;
    let error = stream.next_batch().await.unwrap_err();
    assert_eq!(error.code(), 410);
    assert!(
        error.message.starts_with("too old resource version: "),
        "{error}"
    );

    let options = WatchOptions {
        labels: LabelSelector::parse("app=x").unwrap(),
        resource_version: house.registry.store().revision().to_string(),
        bookmarks: true,
        ..WatchOptions::default()
    };
    let mut stream = house.watch("configmaps", options).await;
    house.pod("elsewhere").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let seen = events(&mut stream, 1).await;
    assert_eq!(seen[0].0, EventType::Bookmark { initial_end: false });
    house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"labels": {"app": "x"}}}),
        )
        .await
        .unwrap();
    house
        .merge("configmaps", "a", json!({"data": {"k": "w"}}))
        .await
        .unwrap();
    let last = house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"labels": {"app": "z"}}}),
        )
        .await
        .unwrap();
    let seen = events(&mut stream, 3).await;
    let kinds: Vec<_> = seen.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [EventType::Added, EventType::Modified, EventType::Deleted]
    );
    // The last state that was selected, at the revision that took it out.
    assert_eq!(
        (
            seen[2].1["metadata"]["labels"]["app"].as_str(),
            rv(&seen[2].1)
        ),
        (Some("x"), rv(&last))
    );
    let future = WatchOptions {
        resource_version: (rv(&last) + 1).to_string(),
        ..WatchOptions::default()
    };
    let mut stream = house.watch("configmaps", future).await;
    house
        .create("", "configmaps", config_map("b", json!({})))
        .await
        .unwrap();
    house
        .create("", "configmaps", config_map("c", json!({})))
        .await
        .unwrap();
    assert_eq!(meta::name(&events(&mut stream, 1).await[0].1), "c");
}

#[tokio::test]
async fn an_event_is_one_object_with_two_faces() {
    let house = House::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "it runs", "type": "Normal"});
    house.create("", "events", event).await.unwrap();
    let target = house.target("events.k8s.io", "events", "e");
    let other = house
        .registry
        .get(&ctx(), &target, "")
        .await
        .unwrap()
        .to_value()
        .unwrap();
    assert_eq!(
        (meta::api_version(&other), other["note"].as_str()),
        ("events.k8s.io/v1", Some("it runs"))
    );
    let patch = Bytes::from_static(br#"{"metadata":{"labels":{"seen":"yes"}}}"#);
    house
        .registry
        .patch(&ctx(), &target, PatchKind::Merge, patch)
        .await
        .unwrap();
    let core = house.get("events", "e").await.unwrap();
    assert_eq!(
        (meta::api_version(&core), meta::label(&core, "seen")),
        ("v1", Some("yes"))
    );
}

#[tokio::test]
async fn events_expire_an_hour_after_they_were_last_seen() {
    let house = House::new().await;
    for (name, seen) in [
        ("old", "2026-11-23T19:59:00Z"),
        ("seen", "2026-11-23T20:30:00Z"),
    ] {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "Started", "lastTimestamp": seen});
        house.create("", "events", event).await.unwrap();
    }
    let minutes = |n: i64| now() + jiff::SignedDuration::from_mins(n);
    assert_eq!(house.registry.expire_events(minutes(29)).await.unwrap(), 0);
    assert_eq!(house.registry.expire_events(minutes(61)).await.unwrap(), 2);
    assert_eq!(house.get("events", "old").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn outside_input_is_refused_in_words() {
    let house = House::new().await;
    let target = house.target("", "configmaps", "a");
    let check = |result: ApiResult<Stored>, code: u16, text: &str| {
        let error = result.unwrap_err();
        assert!(
            error.code() == code && error.message.contains(text),
            "{} {}",
            error.code(),
            error.message
        );
    };
    let create = |body: &'static [u8]| {
        house
            .registry
            .create(&CTX, &target, Body::Json(Bytes::from_static(body)))
    };
    static CTX: std::sync::LazyLock<Context> = std::sync::LazyLock::new(ctx);
    check(create(b"{").await, 400, "json parse error");
    check(create(b"").await, 400, "json parse error");
    check(create(b"[]").await, 400, "");
    check(
        create(br#"{"kind":"Pod","apiVersion":"v1"}"#).await,
        400,
        "Pod in version \"v1\" cannot be handled as a ConfigMap",
    );
    check(
        create(br#"{"kind":"ConfigMap","apiVersion":"v2"}"#).await,
        400,
        "does not match the expected API version (v1)",
    );
    check(
        create(br#"{"metadata":{}}"#).await,
        422,
        "name or generateName is required",
    );
    check(
        create(br#"{"metadata":{"name":"a","namespace":"other"}}"#).await,
        400,
        "does not match the namespace sent on the request",
    );
    check(
        create(br#"{"metadata":{"name":"a/b"}}"#).await,
        422,
        "metadata.name",
    );
    let big =
        json!({"metadata": {"name": "big"}, "revision": 1, "data": {"k": "x".repeat(2 << 20)}});
    let revisions = house.target("apps", "controllerrevisions", "");
    check(
        house
            .registry
            .create(&CTX, &revisions, Body::Value(big))
            .await,
        413,
        "at most",
    );
    check(
        house.registry.get(&CTX, &target, "x1").await,
        400,
        "invalid resource version",
    );
    let patch = |kind, text: &'static [u8]| {
        house
            .registry
            .patch(&CTX, &target, kind, Bytes::from_static(text))
    };
    assert_eq!(patch(PatchKind::Merge, b"{").await.unwrap_err().code(), 400);
    assert_eq!(
        patch(PatchKind::Merge, b"{}").await.unwrap_err().code(),
        404
    );
}
