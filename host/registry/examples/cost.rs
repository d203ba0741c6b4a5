//! What one operation costs the registry over the memory store, in microseconds of one core: `cargo run --release --example
//! cost -p oarlock-registry`.

use std::sync::Arc;

use bytes::Bytes;
use oarlock_kinds::Kinds;
use oarlock_registry::{
    BindRequest, Body, Config, Context, ListOptions, PatchKind, Registry, Target, User,
};
use oarlock_store::StoreOptions;
use serde_json::{Value, json};

const COUNT: usize = 5_000;
const WRITERS: usize = 64;

fn pod(at: usize) -> Value {
    let env: Vec<Value> = (0..12)
        .map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "a value of some length"}))
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{at}"), "labels": {"app": "web", "n": at.to_string()},
        "annotations": {"example.com/note": "x".repeat(300)}},
        "spec": {"containers": [{"name": "main", "image": "registry.example/web:1.2.3", "env": env,
            "ports": [{"containerPort": 80, "name": "http"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}}}]}})
}

/// CPU of the whole process, in seconds.
fn cpu() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let field = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (field(11) + field(12)) / TICKS_PER_SECOND
}

async fn measure<F: Future<Output = ()>>(what: &str, count: usize, work: impl Fn(usize) -> F) {
    use futures::StreamExt as _;
    let before = cpu();
    futures::stream::iter((0..count).map(work))
        .buffer_unordered(WRITERS)
        .collect::<Vec<()>>()
        .await;
    println!(
        "{what:<28} {:>8.1} us",
        (cpu() - before) * 1e6 / count as f64
    );
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = oarlock_store::open(StoreOptions::memory())?;
    let config = Config {
        store,
        kinds: Arc::new(Kinds::builtin()),
        admission: Vec::new(),
    };
    let registry = Registry::open(config, jiff::Timestamp::now()).await?;
    let mut ctx = Context::new(Arc::new(User::default()), jiff::Timestamp::now());
    "bench".clone_into(&mut ctx.field_manager);
    let row = |resource| {
        registry
            .kinds()
            .resource("", "v1", resource)
            .ok_or("no such kind")
    };
    let accounts = Target::new(&row("serviceaccounts")?, "default", "");
    registry
        .create(
            &ctx,
            &accounts,
            Body::Value(json!({"metadata": {"name": "default"}})),
        )
        .await?;
    let pods = row("pods")?;
    let named = |at: usize| Target::new(&pods, "default", &format!("pod-{at}"));
    let bodies: Vec<Bytes> = (0..COUNT)
        .map(|at| Bytes::from(pod(at).to_string()))
        .collect();
    println!("pod: {} bytes as sent", bodies[0].len());
    let all = Target::new(&pods, "default", "");
    measure("decode", COUNT, |at| {
        let decoded = oarlock_schema::decode(&pods.schema, &bodies[at]);
        async move { assert!(decoded.is_ok()) }
    })
    .await;
    measure("create", COUNT, |at| {
        let body = Body::Json(bodies[at].clone());
        async { assert!(registry.create(&ctx, &all, body).await.is_ok()) }
    })
    .await;
    let stored = registry.get(&ctx, &named(0), "").await?;
    println!("pod: {} bytes as stored", stored.json.len());
    measure("get", COUNT, |at| {
        let target = named(at);
        let (registry, ctx) = (&registry, &ctx);
        async move {
            assert!(
                !registry
                    .get(ctx, &target, "")
                    .await
                    .expect("a pod")
                    .to_json()
                    .is_empty()
            );
        }
    })
    .await;
    measure("parse", COUNT, |_| {
        let stored = &stored;
        async move { assert!(stored.to_value().is_ok()) }
    })
    .await;
    let requests: Vec<BindRequest> = (0..COUNT)
        .map(|at| BindRequest {
            namespace: "default".into(),
            name: format!("pod-{at}"),
            uid: String::new(),
            node: format!("n{at}"),
        })
        .collect();
    let before = cpu();
    assert!(
        registry
            .bind_many(&ctx, &requests)
            .await
            .iter()
            .all(Result::is_ok)
    );
    println!(
        "{:<28} {:>8.1} us",
        "bind",
        (cpu() - before) * 1e6 / COUNT as f64
    );
    let patches = (0..COUNT).map(|at| {
        let status = json!({"status": {"phase": "Running", "podIP": "10.1.2.3", "startTime": "2026-11-23T21:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-23T21:00:00Z"}]}});
        (named(at), status)
    });
    let patches: Vec<_> = patches.collect();
    let before = cpu();
    assert!(
        registry
            .patch_status_many(&ctx, patches)
            .await
            .iter()
            .all(Result::is_ok)
    );
    println!(
        "{:<28} {:>8.1} us",
        "patch status",
        (cpu() - before) * 1e6 / COUNT as f64
    );
    measure("merge-patch a label", COUNT, |at| {
        let target = named(at);
        let (registry, ctx) = (&registry, &ctx);
        async move {
            let patch = Bytes::from_static(br#"{"metadata":{"labels":{"x":"y"}}}"#);
            assert!(
                registry
                    .patch(ctx, &target, PatchKind::Merge, patch)
                    .await
                    .is_ok()
            );
        }
    })
    .await;
    let list = ListOptions {
        labels: oarlock_model::LabelSelector::parse("n=17")?,
        ..ListOptions::default()
    };
    let before = cpu();
    for _ in 0..20 {
        assert_eq!(registry.list(&ctx, &all, &list).await?.items.len(), 1);
    }
    println!(
        "{:<28} {:>8.1} us",
        "list 5,000 by a label",
        (cpu() - before) * 1e6 / 20.0
    );
    Ok(())
}
