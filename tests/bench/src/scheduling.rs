//! Pods bound per second through the real API with durable bindings, on simulated nodes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hyper::Method;
use oarlock_client::http::Http;
use oarlock_tests::{Oarlock, Options};

use crate::api::pod;
use crate::load::{self, Request};
use crate::report::{Report, Row, each, latency, per_second};
use crate::server::{connect, cpu, memory_mib};

const DEADLINE: Duration = Duration::from_secs(300);
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
        .call(Method::GET, "/metrics", "text/plain", bytes::Bytes::new())
        .await?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|l| {
        l.starts_with("scheduler_schedule_attempts_total") && l.contains(r#"result="scheduled""#)
    });
    Ok(lines
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as usize)
}

#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
pub async fn run(report: &mut Report, nodes: u32, pods: usize) -> Result<()> {
    let server = Oarlock::start(Options {
        nodes: Some(nodes),
        ..Options::default()
    });
    let connections = connect(&server, 8).await?;
    let begin = Instant::now();
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
        work: format!("{nodes} nodes, {pods} pods bound"),
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
