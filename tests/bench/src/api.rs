//! The API server alone: creates, gets, patches, lists and watch fan-out, with pods of about 2.4 KB.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use oarlock_tests::{Oarlock, Options};
use serde_json::json;

use crate::load::{self, Outcome, Request};
use crate::report::{Report, Row, each, latency, per_second};
use crate::server::{connect, cpu, memory_mib};

const CONNECTIONS: usize = 8;
const WORKERS: usize = 64;
const LISTS: usize = 20;
const WATCHERS: usize = 100;
const WATCHED_WRITES: usize = 3000;
const WATCH_WRITERS: usize = 16;

/// A pod of about 2.4 KB.
pub fn pod(name: &str) -> Bytes {
    let env: Vec<_> = (0..12)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": "v".repeat(60)}))
        .collect();
    let resources = json!({"requests": {"cpu": "10m", "memory": "16Mi"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "load"}, "annotations": {"note": "n".repeat(200)}},
        "spec": {
            "containers": [{"name": "main", "image": "registry.example/bench:1.0", "env": env, "resources": resources}],
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        },
    });
    Bytes::from(pod.to_string())
}

fn server() -> Oarlock {
    Oarlock::start(Options {
        disable: vec!["controllers", "scheduler", "nodes"],
        ..Options::default()
    })
}

/// Pods need the service account that a controller would make.
pub async fn prepare(http: &oarlock_client::http::Http) -> Result<()> {
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    http.json(
        Method::POST,
        "/api/v1/namespaces/default/serviceaccounts",
        Some(&account),
    )
    .await?;
    Ok(())
}

fn path(i: usize) -> String {
    format!("/api/v1/namespaces/default/pods/bench-{i}")
}

pub async fn run(report: &mut Report, pods: usize) -> Result<()> {
    let server = server();
    let connections = connect(&server, CONNECTIONS).await?;
    prepare(&connections[0]).await?;
    let mut measure = |work: &str, count: usize, note: &str, cpu: Duration, outcome: Outcome| {
        report.add(Row {
            work: work.to_owned(),
            result: per_second(count, outcome.took),
            latency: latency(outcome.latencies),
            cpu: each(cpu, count),
            note: note.to_owned(),
        });
    };
    let before = cpu(&server)?;
    let creates = load::run(&connections, WORKERS, pods, |i| Request {
        method: Method::POST,
        path: "/api/v1/namespaces/default/pods".to_owned(),
        content_type: "application/json",
        body: pod(&format!("bench-{i}")),
    });
    let outcome = creates.await?;
    measure(
        "create pods",
        pods,
        "kube-apiserver 725-1,313 /s; aim 5,000",
        cpu(&server)? - before,
        outcome,
    );

    let before = cpu(&server)?;
    let gets = pods * 4;
    let outcome = load::run(&connections, WORKERS, gets, move |i| Request {
        method: Method::GET,
        path: path(i % pods),
        content_type: "application/json",
        body: Bytes::new(),
    });
    let outcome = outcome.await?;
    measure(
        "get pods",
        gets,
        "kube-apiserver 2,000 /s",
        cpu(&server)? - before,
        outcome,
    );

    let before = cpu(&server)?;
    let outcome = load::run(&connections, WORKERS, pods, |i| Request {
        method: Method::PATCH,
        path: path(i),
        content_type: "application/merge-patch+json",
        body: Bytes::from_static(br#"{"metadata":{"annotations":{"patched":"yes"}}}"#),
    });
    let outcome = outcome.await?;
    measure(
        "merge-patch pods",
        pods,
        "kube-apiserver 390-485 /s",
        cpu(&server)? - before,
        outcome,
    );

    let before = cpu(&server)?;
    let outcome = load::run(&connections, 1, LISTS, |_| Request {
        method: Method::GET,
        path: "/api/v1/namespaces/default/pods?limit=5000".to_owned(),
        content_type: "application/json",
        body: Bytes::new(),
    });
    let outcome = outcome.await?;
    measure(
        "list 5,000 pods",
        LISTS,
        "kube-apiserver p50 150 ms",
        cpu(&server)? - before,
        outcome,
    );
    report.add(Row {
        work: "memory after these".into(),
        result: format!("{} MiB", memory_mib(&server)?),
        ..Row::default()
    });
    Ok(())
}

/// 100 watchers of one namespace while 16 writers create ConfigMap-sized pods.
#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
pub async fn watch_fan_out(report: &mut Report) -> Result<()> {
    let server = server();
    let connections = connect(&server, CONNECTIONS).await?;
    prepare(&connections[0]).await?;
    let seen = Arc::new(AtomicUsize::new(0));
    let mut watchers = Vec::new();
    for i in 0..WATCHERS {
        let http = connections[i % CONNECTIONS].clone();
        let path = "/api/v1/namespaces/default/pods?watch=true&resourceVersion=0";
        let mut body = http
            .send(Method::GET, path, "application/json", Bytes::new())
            .await?
            .into_body();
        let seen = Arc::clone(&seen);
        watchers.push(tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                if let Some(data) = frame.data_ref() {
                    seen.fetch_add(
                        data.iter().filter(|b| **b == b'\n').count(),
                        Ordering::Relaxed,
                    );
                }
            }
        }));
    }
    let before = cpu(&server)?;
    let begin = Instant::now();
    let writes = load::run(&connections, WATCH_WRITERS, WATCHED_WRITES, |i| Request {
        method: Method::POST,
        path: "/api/v1/namespaces/default/pods".to_owned(),
        content_type: "application/json",
        body: pod(&format!("w-{i}")),
    });
    let outcome = writes.await?;
    let all = WATCHERS * WATCHED_WRITES;
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.load(Ordering::Relaxed) < all {
        anyhow::ensure!(
            Instant::now() < deadline,
            "watchers saw {} of {all} events",
            seen.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = begin.elapsed();
    for watcher in watchers {
        watcher.abort();
    }
    report.add(Row {
        work: "100 watchers, 16 writers".into(),
        result: format!("{} events", per_second(all, took)),
        latency: format!("writes {}", latency(outcome.latencies)),
        cpu: each(cpu(&server)? - before, all),
        note: "kube-apiserver 13k-28k events/s".into(),
    });
    Ok(())
}
