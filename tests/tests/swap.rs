//! The scheduler is swapped while pods are being created at full speed: nothing is lost, nothing is bound twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use oarlock_client::http::{Http, Kubeconfig};
use oarlock_tests::{Oarlock, Options};
use serde_json::{Value, json};

const PODS: usize = 5_000;
const SWAPS: usize = 10;
const WORKERS: usize = 32;
const PATH: &str = "/api/v1/namespaces/default/pods";
const DEADLINE: Duration = Duration::from_secs(180);

async fn connect(server: &Oarlock) -> Http {
    let config = Kubeconfig::load(&server.kubeconfig()).expect("a kubeconfig");
    Http::connect(&config).await.expect("a connection")
}

fn pod(i: usize) -> Bytes {
    let containers =
        json!([{"name": "c", "image": "app", "resources": {"requests": {"cpu": "1m"}}}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p-{i}")}, "spec": {"containers": containers}});
    Bytes::from(pod.to_string())
}

/// Reads watch events until every pod is bound; gives the longest gap between two bindings.
#[expect(
    clippy::disallowed_methods,
    reason = "edge: the gap between bindings is measured"
)]
async fn watch_bindings(http: Http) -> Duration {
    let path = format!("{PATH}?watch=true&resourceVersion=0");
    let mut body = http
        .send(Method::GET, &path, "application/json", Bytes::new())
        .await
        .expect("a watch")
        .into_body();
    let mut bound: HashMap<String, String> = HashMap::new();
    let (mut rest, mut last, mut longest) = (Vec::new(), None::<Instant>, Duration::ZERO);
    while bound.len() < PODS {
        let frame = body
            .frame()
            .await
            .expect("the watch goes on")
            .expect("the watch goes on");
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        while let Some(end) = rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let event: Value = serde_json::from_slice(&line).expect("an event a line");
            let (name, node) = (
                &event["object"]["metadata"]["name"],
                &event["object"]["spec"]["nodeName"],
            );
            let (Some(name), Some(node)) = (name.as_str(), node.as_str()) else {
                continue;
            };
            match bound.insert(name.to_owned(), node.to_owned()) {
                Some(before) => assert_eq!(before, node, "{name} was bound twice"),
                None => {
                    let now = Instant::now();
                    longest = longest.max(last.map_or(Duration::ZERO, |at| now - at));
                    last = Some(now);
                }
            }
        }
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_swaps_while_five_thousand_pods_come() {
    let server = Arc::new(Oarlock::start(Options {
        nodes: Some(60),
        ..Options::default()
    }));
    let http = connect(&server).await;
    oarlock_tests::eventually("the default service account", 60, || {
        server
            .try_kubectl(&["get", "serviceaccount", "default"])
            .is_ok()
    });
    // The same plugins under another digest: a custom section more.
    let mut other = oarlock_guests::get("default-scheduler")
        .expect("the default bundle")
        .bytes
        .to_vec();
    other.extend_from_slice(b"\x00\x06\x04note!");
    let file = server.data_dir().join("other.wasm");
    std::fs::write(&file, &other).expect("a file");
    let pushed = server.oarlock(&[
        "component",
        "push",
        &file.to_string_lossy(),
        "--name",
        "other",
    ]);
    assert!(
        pushed.status.success(),
        "{}",
        String::from_utf8_lossy(&pushed.stderr)
    );

    let watching = tokio::spawn(watch_bindings(connect(&server).await));
    let done = Arc::new(AtomicBool::new(false));
    let swapper = tokio::task::spawn_blocking({
        let (server, done) = (Arc::clone(&server), Arc::clone(&done));
        move || {
            for swap in 0..SWAPS {
                let component = if swap % 2 == 0 {
                    "other"
                } else {
                    "default-scheduler"
                };
                let patch = json!({"spec": {"component": component}}).to_string();
                server.kubectl(&[
                    "patch",
                    "schedulerprofile",
                    "default-scheduler",
                    "--type=merge",
                    "-p",
                    &patch,
                ]);
                oarlock_tests::eventually("the swap's receipt", 60, || {
                    let status = "jsonpath={.status.activeComponent}";
                    let active = server.kubectl(&[
                        "get",
                        "schedulerprofile",
                        "default-scheduler",
                        "-o",
                        status,
                    ]);
                    active.starts_with(component)
                });
            }
            done.store(true, Ordering::Release);
        }
    });
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (http, next) = (http.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= PODS {
                        return;
                    }
                    http.call(Method::POST, PATH, "application/json", pod(i))
                        .await
                        .expect("creates go on");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker");
    }
    let longest = tokio::time::timeout(DEADLINE, watching)
        .await
        .expect("every pod is bound")
        .expect("no pod twice");
    swapper.await.expect("ten swaps");
    assert!(done.load(Ordering::Acquire));
    println!(
        "{PODS} pods bound through {SWAPS} swaps; the longest gap between two bindings was {longest:?}"
    );
}
