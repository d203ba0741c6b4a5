//! Pods bound per second through the real API with durable bindings, on simulated nodes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use hyper::Method;
use oarlock_client::http::Http;
use oarlock_tests::{Oarlock, Options};
use serde_json::json;

use crate::api::{pod, prepare};
use crate::load::{self, Request};
use crate::report::{Report, Row, each, latency, per_second};
use crate::server::{connect, cpu, memory_mib};

const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

/// How many objects a list would hold, by `remainingItemCount`.
async fn count(http: &Http, path: &str) -> Result<usize> {
    let page = http
        .json(Method::GET, &format!("{path}limit=1"), None)
        .await?;
    let shown = page["items"].as_array().map_or(0, Vec::len);
    Ok(shown + page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize)
}

/// Bound pods by the scheduler's own counter.
async fn scheduled(http: &Http) -> Result<usize> {
    let text = http
        .call(Method::GET, "/metrics", "text/plain", Bytes::new())
        .await?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|l| {
        l.starts_with("scheduler_schedule_attempts_total") && l.contains(r#"result="scheduled""#)
    });
    Ok(lines
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as usize)
}

/// What runs beside the API server and the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    /// Nothing, nodes are mere objects: as in upstream's scheduler_perf.
    Nothing,
    /// Controllers, and simulated kubelets that run what is bound.
    Cluster,
}

/// A node as scheduler_perf's default: 4 CPUs, 32 GiB, 110 pods.
fn node(name: &str) -> Bytes {
    let room = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": room, "allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]},
    });
    Bytes::from(node.to_string())
}

async fn make_nodes(connections: &[Http], nodes: usize) -> Result<()> {
    prepare(&connections[0]).await?;
    let creates = load::run(connections, 64, nodes, |i| Request {
        method: Method::POST,
        path: "/api/v1/nodes".to_owned(),
        content_type: "application/json",
        body: node(&format!("node-{i}")),
    });
    creates.await?;
    // Admission taints new nodes until a controller has seen them ready.
    let patches = load::run(connections, 64, nodes, |i| Request {
        method: Method::PATCH,
        path: format!("/api/v1/nodes/node-{i}"),
        content_type: "application/merge-patch+json",
        body: Bytes::from_static(br#"{"spec":{"taints":null}}"#),
    });
    patches.await.map(drop)
}

#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
pub async fn run(report: &mut Report, around: Around, nodes: u32, pods: usize) -> Result<()> {
    let server = Oarlock::start(match around {
        Around::Nothing => Options {
            disable: vec!["controllers", "nodes"],
            ..Options::default()
        },
        Around::Cluster => Options {
            nodes: Some(nodes),
            ..Options::default()
        },
    });
    let connections = connect(&server, 8).await?;
    let begin = Instant::now();
    if around == Around::Nothing {
        make_nodes(&connections, nodes as usize).await?;
    }
    while count(&connections[0], "/api/v1/nodes?").await? < nodes as usize
        || connections[0]
            .json(
                Method::GET,
                "/api/v1/namespaces/default/serviceaccounts/default",
                None,
            )
            .await
            .is_err()
    {
        ensure!(begin.elapsed() < DEADLINE, "the nodes did not come up");
        tokio::time::sleep(POLL).await;
    }
    let registered = begin.elapsed();
    let before = cpu(&server)?;
    let begin = Instant::now();
    let creates = load::run(&connections, 64, pods, |i| Request {
        method: Method::POST,
        path: "/api/v1/namespaces/default/pods".to_owned(),
        content_type: "application/json",
        body: pod(&format!("p-{i}")),
    });
    let outcome = creates.await?;
    let created = begin.elapsed();
    while scheduled(&connections[0]).await? < pods {
        ensure!(
            begin.elapsed() < DEADLINE,
            "only {} of {pods} pods were bound",
            scheduled(&connections[0]).await?
        );
        tokio::time::sleep(POLL).await;
    }
    let bound = begin.elapsed();
    report.add(Row {
        work: match around {
            Around::Nothing => format!("{pods} pods bound to {nodes} nodes"),
            Around::Cluster => "the same, and run; controllers too".to_owned(),
        },
        result: per_second(pods, bound),
        latency: format!("creates {}", latency(outcome.latencies)),
        cpu: each(cpu(&server)? - before, pods),
        note: format!(
            "nodes up in {:.1} s, creates done in {:.1} s, {} MiB; kube-scheduler 205-385 /s; aim 3,000",
            registered.as_secs_f64(),
            created.as_secs_f64(),
            memory_mib(&server)?
        ),
    });
    Ok(())
}
