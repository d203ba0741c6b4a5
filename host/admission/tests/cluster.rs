//! Policies with real components in front of the in-process registry: what they change and refuse, how they fail, how they
//! are swapped and rolled back, and that nobody else waits for them.

#![expect(clippy::disallowed_methods, reason = "edge: tests measure and wait")]
#![expect(clippy::unwrap_used, reason = "a test may fail here")]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use oarlock_admission::{AdmissionConfig, Gate, Handle, PolicyHost};
use oarlock_client::{
    Cluster, DeleteOptions, Key, ListQuery, LocalCluster, Object, Patch, chunk_name,
};
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult, Gvr, Reason};
use oarlock_registry::{Body, Config, Context, Registry, Target, User};
use oarlock_store::StoreOptions;
use oarlock_wasm::{Engine, EngineConfig};
use serde_json::{Value, json};
use sha2::Digest as _;

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// One engine for all tests: components are compiled once.
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    Engine::new(EngineConfig {
        max_instances: 64,
        ..EngineConfig::default()
    })
    .unwrap()
});

struct World {
    cluster: LocalCluster,
    gate: Arc<Gate>,
    host: Option<Handle>,
}

impl World {
    async fn new() -> Self {
        let gate = Arc::new(Gate::default());
        let config = Config {
            store: oarlock_store::open(StoreOptions::memory()).unwrap(),
            kinds: Arc::new(Kinds::builtin()),
            admission: vec![Arc::clone(&gate) as _],
        };
        let registry = Registry::open(config, jiff::Timestamp::now())
            .await
            .unwrap();
        let cluster = LocalCluster::new(registry, "test");
        let mut world = Self {
            cluster,
            gate,
            host: None,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let own = LocalCluster::new(Arc::clone(&self.cluster.registry), "oarlock-admission");
        let guests = [oarlock_guests::ADMISSION, oarlock_guests::HOSTILE];
        let guests = guests.into_iter().flatten();
        let components: HashMap<String, Arc<[u8]>> = guests
            .map(|guest| (guest.name.to_owned(), guest.bytes.into()))
            .collect();
        let gate = Arc::clone(&self.gate);
        let config = AdmissionConfig::new(Arc::new(own), ENGINE.clone(), components, gate);
        self.host = Some(PolicyHost::start(config));
    }

    /// Makes a policy and waits until it decides.
    async fn policy(&self, name: &str, spec: Value) {
        let policy = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "AdmissionPolicy",
            "metadata": {"name": name}, "spec": spec});
        self.cluster
            .create(&own("admissionpolicies"), "", policy)
            .await
            .unwrap();
        self.until(name, "it is active", |o| ready(o) == "Active")
            .await;
    }

    async fn change(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        let kind = own("admissionpolicies");
        self.cluster
            .patch(&kind, &key("", name), "", patch)
            .await
            .unwrap();
    }

    async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Object {
        let (began, at) = (Instant::now(), key("", name));
        let mut last = Value::Null;
        while began.elapsed() < DEADLINE {
            let object = self
                .cluster
                .get(&own("admissionpolicies"), &at)
                .await
                .unwrap();
            if wanted(&object) {
                return object;
            }
            last = object["status"].clone();
            tokio::time::sleep(POLL).await;
        }
        panic!("{what}: {last}");
    }

    async fn create(&self, resource: &str, object: Value) -> ApiResult<Object> {
        self.cluster
            .create(&core(resource), "default", object)
            .await
    }

    /// A config map that asks the hostile policy to behave in some way.
    async fn behave(&self, name: &str, behaviour: &str) -> ApiResult<Object> {
        self.create(
            "configmaps",
            map(name, json!({"annotations": {"behave": behaviour}})),
        )
        .await
    }

    async fn metrics(&self) -> String {
        self.host.as_ref().unwrap().metrics().text()
    }
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

fn ready(policy: &Value) -> &str {
    policy["status"]["conditions"][0]["reason"]
        .as_str()
        .unwrap_or_default()
}

fn map(name: &str, more: Value) -> Value {
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}});
    let metadata = map["metadata"].as_object_mut().unwrap();
    metadata.extend(more.as_object().unwrap().clone());
    map
}

fn deployment(name: &str, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_changes_objects() {
    let world = World::new().await;
    world.policy("labels", json!({
        "component": "default-labels", "args": {"labels": {"team": "none"}},
        "match": {"rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "resources": ["configmaps"]}],
                  "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}},
    })).await;
    let made = world
        .create("configmaps", map("a", json!({})))
        .await
        .unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"team": "none"}));
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"oarlock.dev/created-by": "system:test"})
    );
    assert_eq!(made["data"], json!({"k": "v"}));
    // Neither what the selector leaves out nor another resource.
    let free = json!({"labels": {"free": "yes"}});
    let made = world.create("configmaps", map("b", free)).await.unwrap();
    assert_eq!(made["metadata"]["labels"], json!({"free": "yes"}));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    let made = world.create("secrets", secret).await.unwrap();
    assert_eq!(made["metadata"].get("labels"), None);
    // An update cannot take away what the policy put there.
    let take = Patch::Merge(json!({"metadata": {"labels": null, "annotations": null}}));
    let kind = core("configmaps");
    let kept = world
        .cluster
        .patch(&kind, &key("default", "a"), "", take)
        .await
        .unwrap();
    assert_eq!(kept["metadata"]["labels"], json!({"team": "none"}));
    assert_eq!(
        kept["metadata"]["annotations"],
        json!({"oarlock.dev/created-by": "system:test"})
    );
    // Gone with its object.
    world
        .cluster
        .delete(
            &own("admissionpolicies"),
            &key("", "labels"),
            DeleteOptions::default(),
        )
        .await
        .unwrap();
    let began = Instant::now();
    for n in 0.. {
        assert!(began.elapsed() < DEADLINE, "the policy is gone");
        let made = world
            .create("configmaps", map(&format!("late-{n}"), json!({})))
            .await
            .unwrap();
        if made["metadata"].get("labels").is_none() {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_refuses_and_warns() {
    let world = World::new().await;
    world.policy("images", json!({"component": "image-registries", "args": {"allowed": ["registry.example/"], "warnOnLatest": true},
        "match": {"namespaceSelector": {"matchLabels": {"guarded": "yes"}}}})).await;
    let deployments = Gvr::new("apps", "v1", "deployments");
    let deploy = |name: &str, image: &str| {
        let cluster = world.cluster.clone();
        let (deployments, object) = (deployments.clone(), deployment(name, image));
        async move { cluster.create(&deployments, "default", object).await }
    };
    deploy("before", "nginx").await.unwrap();
    let label = Patch::Merge(json!({"metadata": {"labels": {"guarded": "yes"}}}));
    world
        .cluster
        .patch(&core("namespaces"), &key("", "default"), "", label)
        .await
        .unwrap();
    let refused: ApiError = deploy("a", "nginx").await.unwrap_err();
    assert_eq!(refused.reason, Reason::Forbidden);
    assert_eq!(
        refused.message,
        "deployments.apps \"a\" is forbidden: admission policy \"images\" denied the request: \
         spec.template.spec.containers[0].image: image \"nginx\" comes from a registry that is not allowed"
    );
    assert_eq!(
        refused.causes[0].field,
        "spec.template.spec.containers[0].image"
    );
    deploy("a", "registry.example/nginx:1").await.unwrap();

    // Warnings reach the sender; a dry run is decided like any other.
    let registry = &world.cluster.registry;
    let row = registry
        .kinds()
        .resource("apps", "v1", "deployments")
        .unwrap();
    let mut ctx = Context::new(Arc::new(User::default()), jiff::Timestamp::now());
    ctx.dry_run = true;
    let target = Target::new(&row, "default", "");
    let body = |image: &str| Body::Value(deployment("dry", image));
    registry
        .create(&ctx, &target, body("registry.example/nginx"))
        .await
        .unwrap();
    let warnings = ctx.warnings.lock().clone();
    assert!(
        warnings[0].contains("may change at any time"),
        "{warnings:?}"
    );
    registry
        .create(&ctx, &target, body("nginx"))
        .await
        .unwrap_err();
    let text = world.metrics().await;
    let counted = r#"oarlock_admission_policy_answers_total{policy="images",stage="validate",result="denied"} 2"#;
    assert!(text.contains(counted), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitoring_policy_only_reports() {
    let world = World::new().await;
    world
        .policy(
            "watcher",
            json!({"component": "misbehaving-policy", "mode": "Monitor"}),
        )
        .await;
    let made = world
        .behave("a", "mutate=mark,validate=deny")
        .await
        .unwrap();
    assert_eq!(made["metadata"].get("labels"), None);
    world.behave("b", "mutate=panic").await.unwrap();
    world.behave("c", "validate=warn").await.unwrap();
    let policy = world
        .until("watcher", "counts", |o| {
            o["status"]["counts"]["denials"] == 1
        })
        .await;
    assert_eq!(policy["status"]["counts"]["patches"], 1);
    assert_eq!(policy["status"]["counts"]["failures"], 1);
    let began = Instant::now();
    loop {
        let events = Gvr::new("events.k8s.io", "v1", "events");
        let list = world
            .cluster
            .list(&events, &ListQuery::default())
            .await
            .unwrap();
        let notes: Vec<_> = list.items.iter().map(|e| e["note"].clone()).collect();
        if notes.contains(&json!(
            "configmaps default/a would have been denied: told to deny"
        )) {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{notes:?}");
        tokio::time::sleep(POLL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_what_the_failure_policy_says() {
    let world = World::new().await;
    let limits = json!({"deadlineMilliseconds": 100, "memoryMiB": 16});
    world
        .policy(
            "hostile",
            json!({"component": "misbehaving-policy", "limits": limits}),
        )
        .await;
    let failing = [
        ("mutate=spin", "took longer than 100 ms in mutate"),
        ("validate=spin", "took longer than 100 ms in validate"),
        ("mutate=panic", "told to panic in mutate"),
        (
            "validate=allocate",
            "ran out of its 16 MiB of memory in validate",
        ),
        ("mutate=recurse", "trapped in mutate"),
        ("mutate=rename", "the patch changes metadata.name"),
        ("mutate=move", "the patch changes metadata.namespace"),
        ("mutate=kind", "the patch changes kind"),
        ("mutate=type", "the patched object does not fit its kind"),
        ("mutate=garbage", "the patch is no JSON"),
        ("mutate=wipe", "the patch does not apply"),
        ("mutate=misses", "the patch does not apply"),
        ("mutate=huge", "hostile"),
        ("validate=texts", "10000 texts"),
    ];
    let (mut worst, fine) = (Duration::ZERO, ["", "mutate=flood", "validate=warn"]);
    for (n, (behaviour, expect)) in failing.into_iter().enumerate() {
        let began = Instant::now();
        let error = world.behave(&format!("m{n}"), behaviour).await.unwrap_err();
        worst = worst.max(began.elapsed());
        assert_eq!(error.reason, Reason::InternalError, "{behaviour}: {error}");
        let prefix = "Internal error occurred: failed calling admission policy \"hostile\": ";
        assert!(error.message.starts_with(prefix), "{error}");
        assert!(error.message.contains(expect), "{behaviour}: {error}");
        // The next one finds a working instance.
        world.behave(&format!("n{n}"), "").await.unwrap();
    }
    println!("the longest failure took {worst:?}");
    assert!(worst < Duration::from_secs(1), "{worst:?}");
    for (n, behaviour) in fine.into_iter().enumerate() {
        world.behave(&format!("f{n}"), behaviour).await.unwrap();
    }
    world
        .change("hostile", json!({"failurePolicy": "Ignore"}))
        .await;
    world
        .until("hostile", "the change", |o| {
            o["status"]["observedGeneration"] == 2 && ready(o) == "Active"
        })
        .await;
    for (n, (behaviour, _)) in failing.into_iter().enumerate() {
        let made = world.behave(&format!("i{n}"), behaviour).await.unwrap();
        assert_eq!(made["metadata"]["name"], json!(format!("i{n}")));
    }
    let error = world.behave("denied", "validate=deny").await.unwrap_err();
    assert_eq!(error.reason, Reason::Forbidden, "a refusal is no failure");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_policy_that_spins() {
    let world = Arc::new(World::new().await);
    let limits = json!({"deadlineMilliseconds": 500});
    world
        .policy(
            "hostile",
            json!({"component": "misbehaving-policy", "limits": limits, "failurePolicy": "Ignore"}),
        )
        .await;
    let secret =
        |name: String| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    let others = |world: Arc<World>, round: &'static str| async move {
        let (mut worst, mut all) = (Duration::ZERO, Duration::ZERO);
        for n in 0..200 {
            let began = Instant::now();
            world
                .create("secrets", secret(format!("{round}-{n}")))
                .await
                .unwrap();
            worst = worst.max(began.elapsed());
            all += began.elapsed();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (all / 200, worst)
    };
    let alone = others(Arc::clone(&world), "alone").await;
    let spinning: Vec<_> = (0..12)
        .map(|n| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let began = Instant::now();
                world
                    .behave(&format!("spin-{n}"), "validate=spin")
                    .await
                    .unwrap();
                began.elapsed()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let beside = others(Arc::clone(&world), "beside").await;
    for task in spinning {
        let took = task.await.unwrap();
        assert!(
            took < Duration::from_millis(1500),
            "its deadline is 500 ms, and it took {took:?}"
        );
    }
    println!("a write took {alone:?} (mean, longest) alone, {beside:?} beside a dozen that spin");
    assert!(
        beside.0 < alone.0 * 5 + Duration::from_millis(5),
        "{alone:?} {beside:?}"
    );
    assert!(beside.1 < Duration::from_millis(200), "{beside:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_version_does_not_replace_a_good_one() {
    let world = World::new().await;
    world
        .policy(
            "p",
            json!({"component": "misbehaving-policy", "args": "mutate=mark"}),
        )
        .await;
    let marked = |object: &Value| object["metadata"]["labels"]["marked"] == "yes";
    assert!(marked(&world.behave("a", "").await.unwrap()));
    for (n, bad) in [
        json!({"args": "configure=refuse"}),
        json!({"args": "configure=panic"}),
        json!({"args": "configure=spin", "limits": {"deadlineMilliseconds": 50}}),
        json!({"args": "describe=nothing"}),
        json!({"component": "nobody"}),
        json!({"component": "misbehaving-scheduler"}),
    ]
    .into_iter()
    .enumerate()
    {
        world.change("p", bad.clone()).await;
        let generation = json!(n + 2);
        let policy = world
            .until("p", "it is refused", |o| {
                ready(o) == "ComponentRefused" && o["status"]["observedGeneration"] == generation
            })
            .await;
        assert!(
            marked(&world.behave(&format!("b{n}"), "").await.unwrap()),
            "{bad}"
        );
        assert!(
            policy["status"]["activeComponent"]
                .as_str()
                .unwrap()
                .starts_with("misbehaving-policy@sha256:")
        );
    }
    // Without one before it, a version that is not fit leaves the decision to the failure policy.
    let broken = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "AdmissionPolicy", "metadata": {"name": "broken"},
        "spec": {"component": "nobody", "match": {"rules": [{"apiGroups": [""], "resources": ["secrets"]}]}}});
    world
        .cluster
        .create(&own("admissionpolicies"), "", broken)
        .await
        .unwrap();
    world
        .until("broken", "it is refused", |o| {
            ready(o) == "ComponentRefused"
        })
        .await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let error = world.create("secrets", secret.clone()).await.unwrap_err();
    assert!(
        error
            .message
            .contains("failed calling admission policy \"broken\": component nobody"),
        "{error}"
    );
    world
        .change("broken", json!({"failurePolicy": "Ignore"}))
        .await;
    world
        .until("broken", "it is refused", |o| {
            o["status"]["observedGeneration"] == 2
        })
        .await;
    world.create("secrets", secret).await.unwrap();
}

/// Stores a component as `oarlock component push` does.
async fn push(cluster: &dyn Cluster, name: &str, bytes: &[u8]) -> String {
    let digest = format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)));
    let chunks: Vec<&[u8]> = bytes.chunks(oarlock_kinds::own::MAX_CHUNK_BYTES).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let data = base64::engine::general_purpose::STANDARD.encode(chunk);
        let object = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "ComponentChunk",
            "metadata": {"name": chunk_name(&digest, index)}, "digest": digest, "index": index, "data": data});
        cluster
            .create(&own("componentchunks"), "", object)
            .await
            .unwrap();
    }
    let object = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "Component", "metadata": {"name": name},
        "spec": {"digest": digest, "size": bytes.len(), "chunks": chunks.len()}});
    cluster
        .create(&own("components"), "", object)
        .await
        .unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_keeps_failing_is_rolled_back() {
    let world = World::new().await;
    let good = oarlock_guests::hostile("misbehaving-policy").unwrap().bytes;
    let digest = push(&world.cluster, "mine", good).await;
    world
        .policy(
            "p",
            json!({"component": digest, "args": "mutate=mark", "failurePolicy": "Ignore"}),
        )
        .await;
    let marked = |object: &Value| object["metadata"]["labels"]["marked"] == "yes";
    assert!(marked(&world.behave("a", "").await.unwrap()));
    world
        .change(
            "p",
            json!({"args": "mutate=panic", "limits": {"maxTraps": 2}}),
        )
        .await;
    world
        .until("p", "the swap", |o| {
            o["status"]["observedGeneration"] == 2 && ready(o) == "Active"
        })
        .await;
    let mut n = 0;
    let began = Instant::now();
    while !marked(&world.behave(&format!("b{n}"), "").await.unwrap()) {
        assert!(began.elapsed() < DEADLINE, "it is rolled back");
        n += 1;
    }
    let policy = world
        .until("p", "the roll-back", |o| ready(o) == "RolledBack")
        .await;
    let text = policy["status"]["conditions"][0]["message"]
        .as_str()
        .unwrap();
    assert!(
        n > 2 && text.contains("told to panic") && text.contains(&digest),
        "{n} {text}"
    );
    // Not tried again.
    tokio::time::sleep(POLL * 5).await;
    assert!(marked(&world.behave("c", "").await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_writes_wait_for_their_policies() {
    let mut world = World::new().await;
    world
        .policy(
            "images",
            json!({"component": "image-registries", "args": {"allowed": ["registry.example/"]}}),
        )
        .await;
    world.host.take().unwrap().stop().await;
    // The gate as a new process has it.
    world.gate.close(&world.cluster).await.unwrap();
    let deployments = Gvr::new("apps", "v1", "deployments");
    let cluster = world.cluster.clone();
    let waiting = tokio::spawn(async move {
        cluster
            .create(&deployments, "default", deployment("a", "nginx"))
            .await
    });
    world
        .create("configmaps", map("nobody-cares", json!({})))
        .await
        .unwrap();
    tokio::time::sleep(POLL * 5).await;
    assert!(!waiting.is_finished());
    world.start();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(
        error.message.contains("a registry that is not allowed"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_cannot_lock_its_own_removal_out() {
    let world = World::new().await;
    let kind = own("admissionpolicies");
    let everything = json!({"rules": [{"resources": ["*/*"]}]});
    let policy = json!({"apiVersion": "oarlock.dev/v1alpha1", "kind": "AdmissionPolicy",
        "metadata": {"name": "all"}, "spec": {"component": "nobody", "match": everything}});
    world.cluster.create(&kind, "", policy).await.unwrap();
    world
        .until("all", "it is refused", |o| ready(o) == "ComponentRefused")
        .await;
    world
        .create("configmaps", map("a", json!({})))
        .await
        .unwrap_err();
    let at = key("", "all");
    world
        .cluster
        .delete(&kind, &at, DeleteOptions::default())
        .await
        .unwrap();
}
