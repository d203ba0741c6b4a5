//! A closed-loop load: workers spread over connections, each doing one request after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use hyper::Method;
use oarlock_client::http::Http;

pub struct Request {
    pub method: Method,
    pub path: String,
    pub content_type: &'static str,
    pub body: Bytes,
}

pub struct Outcome {
    pub took: Duration,
    pub latencies: Vec<Duration>,
}

/// Does requests 0..`count` with `workers` workers over these connections. Any failure ends it.
#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
pub async fn run(
    connections: &[Http],
    workers: usize,
    count: usize,
    request: impl Fn(usize) -> Request + Send + Sync + 'static,
) -> Result<Outcome> {
    let (next, request) = (Arc::new(AtomicUsize::new(0)), Arc::new(request));
    let start = Instant::now();
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let http = connections[worker % connections.len()].clone();
            let (next, request) = (Arc::clone(&next), Arc::clone(&request));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= count {
                        return anyhow::Ok(latencies);
                    }
                    let Request {
                        method,
                        path,
                        content_type,
                        body,
                    } = request(i);
                    let sent = Instant::now();
                    http.call(method, &path, content_type, body).await?;
                    latencies.push(sent.elapsed());
                }
            })
        })
        .collect();
    let mut latencies = Vec::with_capacity(count);
    for task in tasks {
        latencies.extend(task.await??);
    }
    Ok(Outcome {
        took: start.elapsed(),
        latencies,
    })
}
