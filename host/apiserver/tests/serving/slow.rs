//! Clients that dribble, stop half-way or flood: they are cut off, and others are answered meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use oarlock_apiserver::{Access, AlwaysAllow};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Client, DEADLINE, TestServer};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Everybody may do everything, but only masters are exempt from flow control.
async fn open_server(header_timeout: Duration) -> TestServer {
    let access = Access {
        authorizers: vec![Arc::new(AlwaysAllow)],
        ..Access::default()
    };
    TestServer::with(access, |config| config.header_timeout = header_timeout).await
}

/// Says a request's head byte by byte until the server has enough of it.
async fn dribble(server: &TestServer, h2: bool) {
    let identity = server.pki.issue_client("dribbler", &[]).unwrap();
    let mut stream = Client::tls(server, Some(&identity), h2).await;
    let head = b"GET /api HTTP/1.1\r\nhost: localhost\r\nx-slow: ";
    stream.write_all(head).await.unwrap();
    let mut answer = [0_u8; 1];
    loop {
        tokio::select! {
            // Closed, or an answer that says why.
            _ = stream.read(&mut answer) => return,
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                if stream.write_all(b"a").await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_dribble_are_cut_off() {
    let server = open_server(Duration::from_secs(1)).await;
    let all = futures::future::join_all((0..40).map(|_| dribble(&server, false)));
    let others = async {
        for h2 in [true, false] {
            let mut client = server.admin(h2).await;
            for _ in 0..20 {
                assert_eq!(client.get(MAPS).await.0, StatusCode::OK);
            }
        }
    };
    let both = async { tokio::join!(all, others) };
    tokio::time::timeout(DEADLINE, both).await.unwrap();
    // What is no HTTP/2 at all is refused at once.
    let odd = dribble(&server, true);
    tokio::time::timeout(DEADLINE, odd).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_stop_half_way_hold_nobody() {
    let server = open_server(DEADLINE).await;
    let identity = server.pki.admin().clone();
    // HTTP/1.1: half a body, and then the other side of the connection is closed.
    let mut stopped = Vec::new();
    for _ in 0..50 {
        let mut stream = Client::tls(&server, Some(&identity), false).await;
        let head = format!(
            "POST {MAPS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stopped.push(stream);
    }
    // HTTP/2: streams whose bodies never end.
    let io = TokioIo::new(Client::tls(&server, Some(&identity), true).await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let endless = || {
        let frames = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
        StreamBody::new(frames).boxed()
    };
    let mut open = Vec::new();
    for _ in 0..200 {
        let request: Request<BoxBody<Bytes, Infallible>> =
            Request::post(format!("https://localhost{MAPS}"))
                .header(JSON.0, JSON.1)
                .body(endless())
                .unwrap();
        open.push(tokio::spawn(sender.send_request(request)));
    }
    let other = Request::get(format!("https://localhost{MAPS}"))
        .body(Empty::new().boxed())
        .unwrap();
    let same = tokio::time::timeout(DEADLINE, sender.send_request(other));
    assert_eq!(same.await.unwrap().unwrap().status(), StatusCode::OK);
    let mut client = server.admin(false).await;
    assert_eq!(client.get(MAPS).await.0, StatusCode::OK);
    assert!(open.iter().all(|request| !request.is_finished()));
    connection.abort();

    for mut stream in stopped {
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
        // Closed without a word, or with a refusal; never taken for a whole request.
        assert!(ended.is_ok(), "a half-closed connection stays");
        assert!(!rest.starts_with(b"HTTP/1.1 2"));
    }
    let list = client.get(MAPS).await.1;
    let names = list["items"].as_array().unwrap().iter();
    let mut names = names.map(|map| &map["metadata"]["name"]);
    assert!(names.all(|name| name == "kube-root-ca.crt"), "{list}");
}

#[tokio::test]
async fn bad_bodies_are_told_in_upstreams_words() {
    let server = TestServer::start().await;
    let mut client = server.admin(true).await;
    let mut post = async |path: &str, body: Vec<u8>| {
        let (code, headers, answer) = client.call(Method::POST, path, &[JSON], body).await;
        let warnings = headers.get_all("warning").iter();
        let warnings: Vec<String> = warnings.map(|w| w.to_str().unwrap().to_owned()).collect();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        (code.as_u16(), answer, warnings)
    };
    let (code, status, _) = post(MAPS, vec![b' '; 3 * 1024 * 1024 + 1]).await;
    let wanted = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "RequestEntityTooLarge",
        "message": "Request entity too large: limit is 3145728", "code": 413,
    });
    assert_eq!((code, status), (413, wanted));
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let deep = [&open.repeat(10_000), "1", &close.repeat(10_000)].concat();
        let body = format!(r#"{{"metadata":{{"name":"x"}},"data":{deep}}}"#);
        let (code, status, _) = post(MAPS, body.into_bytes()).await;
        assert_eq!((code, &status["kind"]), (400, &json!("Status")), "{status}");
    }
    let twice = |name: &str| {
        let body = r#"{"metadata":{"name":"NAME"},"data":{"a":"1","a":"2"},"kelp":1}"#;
        body.replace("NAME", name).into_bytes()
    };
    let (code, made, warnings) = post(MAPS, twice("a")).await;
    assert_eq!((code, &made["data"]), (201, &json!({"a": "2"})));
    let wanted = [
        r#"299 - "duplicate field \"data.a\"""#,
        r#"299 - "unknown field \"kelp\"""#,
    ];
    assert_eq!(warnings, wanted);
    let ignoring = format!("{MAPS}?fieldValidation=Ignore");
    let (code, made, warnings) = post(&ignoring, twice("b")).await;
    assert_eq!((code, warnings.len()), (201, 0), "{made}");
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let (code, status, _) = post(&strict, twice("c")).await;
    let why = r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.a", unknown field "kelp""#;
    assert_eq!((code, &status["message"]), (400, &json!(why)));
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    for number in ["99999999999999999999", "1e999", "2147483648", "1.5"] {
        let body = format!(r#"{{"metadata":{{"name":"x"}},"spec":{{"replicas":{number}}}}}"#);
        let (code, status, _) = post(deployments, body.into_bytes()).await;
        let why = format!(
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal number {number} into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!((code, &status["message"]), (400, &json!(why)));
    }
}

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

#[expect(clippy::disallowed_methods, reason = "a test measures")]
fn clock() -> Instant {
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_by_one_starves_nobody() {
    const FLOODS: usize = 100;
    let server = open_server(DEADLINE).await;
    // Large, slow to read, and refused in the end: each wants a seat and memory.
    let maps = (0..60_000).map(|n| format!(r#""k{n}":"{n}""#));
    let data = maps.collect::<Vec<_>>().join(",");
    let body = Bytes::from(format!(
        r#"{{"metadata":{{"name":"-bad-"}},"data":{{{data}}}}}"#
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let flooder = server.pki.issue_client("flooder", &[]).unwrap();
    let io = TokioIo::new(Client::tls(&server, Some(&flooder), true).await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let floods = (0..FLOODS).map(|_| {
        let (mut sender, body) = (sender.clone(), body.clone());
        let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = Request::post(format!("https://localhost{MAPS}"))
                    .header(JSON.0, JSON.1)
                    .body(Full::new(body.clone()))
                    .unwrap();
                let Ok(answer) = sender.send_request(request).await else {
                    return;
                };
                // Refused for the name, or told to come back later.
                assert!(matches!(answer.status().as_u16(), 422 | 429));
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let floods: Vec<_> = floods.collect();
    let flowing = async {
        while answered.load(Ordering::Relaxed) < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, flowing).await.unwrap();
    let before = memory_mib();
    let modest = server.pki.issue_client("modest", &[]).unwrap();
    let mut client = Client::connect(&server, Some(&modest), true).await;
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let started = clock();
        assert_eq!(client.get(MAPS).await.0, StatusCode::OK);
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let grown = memory_mib().saturating_sub(before);
    assert!(grown < 1024, "the flood holds {grown} MiB");
    stop.store(true, Ordering::Relaxed);
    connection.abort();
    for flood in floods {
        flood.await.unwrap();
    }
}
