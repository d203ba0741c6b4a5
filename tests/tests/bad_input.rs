//! What goes wrong outside stays outside: a clear Status, nothing lost, no growth, nobody else slowed.

use std::process::Command;

use bytes::Bytes;
use hyper::Method;
use oarlock_client::http::{Http, HttpError, Kubeconfig};
use oarlock_tests::{Oarlock, Options, eventually};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

fn server() -> Oarlock {
    Oarlock::start(Options {
        disable: vec!["controllers", "scheduler", "nodes"],
        ..Options::default()
    })
}

async fn connect(server: &Oarlock) -> Http {
    let config = Kubeconfig::load(&server.kubeconfig()).expect("a kubeconfig");
    Http::connect(&config).await.expect("a connection")
}

async fn refused(
    http: &Http,
    method: Method,
    path: &str,
    content_type: &str,
    body: Bytes,
) -> (u16, String) {
    match http.call(method, path, content_type, body).await {
        Err(HttpError::Refused { code, message }) => (code, message),
        Err(other) => panic!("{path}: {other}"),
        Ok(answer) => panic!("{path} was accepted: {}", String::from_utf8_lossy(&answer)),
    }
}

fn config_map(name: &str, bytes: usize) -> Bytes {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(bytes)}});
    Bytes::from(object.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_names_and_selectors() {
    let server = server();
    let http = connect(&server).await;
    let deep = Bytes::from(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    let post = |content_type: &'static str, body: Bytes| {
        (Method::POST, CONFIG_MAPS.to_owned(), content_type, body)
    };
    let get = |path: &str| (Method::GET, path.to_owned(), JSON, Bytes::new());
    let long = "a".repeat(20_000);
    let cases = [
        (
            post(JSON, Bytes::from_static(b"{\"kind\":")),
            400,
            "unexpected end of JSON input",
        ),
        (post(JSON, Bytes::new()), 400, ""),
        (post(JSON, deep), 400, ""),
        (
            post("application/yaml", Bytes::from_static(b"a: [1")),
            400,
            "",
        ),
        (
            post(
                "application/vnd.kubernetes.protobuf",
                Bytes::from_static(b"k8s\0\xff\xff"),
            ),
            400,
            "EOF",
        ),
        (
            post("text/plain", Bytes::from_static(b"hello")),
            415,
            "media type",
        ),
        (
            post(
                JSON,
                Bytes::from_static(
                    b"{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"x\"}}",
                ),
            ),
            400,
            "ConfigMap",
        ),
        (
            post(JSON, config_map("Bad_Name", 1)),
            422,
            "lowercase RFC 1123 subdomain",
        ),
        (post(JSON, config_map("big", 2 << 20)), 422, "Too long"),
        (post(JSON, config_map("huge", 4 << 20)), 413, "too large"),
        (
            get(&format!("{CONFIG_MAPS}?labelSelector=a%20b%20c")),
            400,
            "",
        ),
        (
            get(&format!("{CONFIG_MAPS}?labelSelector={long}%20in%20%28")),
            400,
            "",
        ),
        (
            get(&format!("{CONFIG_MAPS}?fieldSelector=spec.nonsense%3Dx")),
            400,
            "is not a known field selector",
        ),
        (get(&format!("{CONFIG_MAPS}?limit=many")), 400, ""),
        (
            get(&format!("{CONFIG_MAPS}?continue=nonsense")),
            400,
            "continue",
        ),
        (get("/api/v1/namespaces/default/nonsense"), 404, ""),
        (
            (
                Method::PUT,
                CONFIG_MAPS.to_owned(),
                JSON,
                config_map("x", 1),
            ),
            405,
            "",
        ),
    ];
    for ((method, path, content_type, body), code, text) in cases {
        let shown = format!(
            "{method} {} {}",
            &path[..path.len().min(90)],
            String::from_utf8_lossy(&body[..body.len().min(60)])
        );
        let (got, message) = refused(&http, method, &path, content_type, body).await;
        assert_eq!(got, code, "{shown}: {message}");
        assert!(message.contains(text), "{shown}: {message}");
    }
    let list = http
        .json(Method::GET, CONFIG_MAPS, None)
        .await
        .expect("it still answers");
    assert_eq!(list["items"], json!([]), "nothing was stored");
}

fn memory_mib(server: &Oarlock) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("a VmRSS line");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok())
        .expect("a number")
        / 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_stop_reading_or_vanish() {
    let server = server();
    let http = connect(&server).await;
    let watch = format!("{CONFIG_MAPS}?watch=true&resourceVersion=0");
    // One that never reads: its answer is kept and not polled.
    let stuck = connect(&server).await;
    let unread = stuck
        .send(Method::GET, &watch, JSON, Bytes::new())
        .await
        .expect("a watch");
    let before = memory_mib(&server);
    for i in 0..400 {
        http.call(
            Method::POST,
            CONFIG_MAPS,
            JSON,
            config_map(&format!("m-{i}"), 200_000),
        )
        .await
        .expect("writes go on");
        http.call(
            Method::DELETE,
            &format!("{CONFIG_MAPS}/m-{i}"),
            JSON,
            Bytes::new(),
        )
        .await
        .expect("writes go on");
    }
    let grown = memory_mib(&server).saturating_sub(before);
    assert!(
        grown < 250,
        "80 MB of events for a stuck watcher cost {grown} MiB"
    );
    drop(unread);

    let mut dropped = Vec::new();
    for connection in 0..10 {
        let many = connect(&server).await;
        for _ in 0..100 {
            dropped.push(
                many.send(Method::GET, &watch, JSON, Bytes::new())
                    .await
                    .expect("a watch"),
            );
        }
        assert_eq!(dropped.len(), (connection + 1) * 100);
    }
    drop(dropped);
    http.call(Method::POST, CONFIG_MAPS, JSON, config_map("after", 10))
        .await
        .expect("writes go on");
    eventually("the dropped watches to be forgotten", 30, || {
        let metrics = server.kubectl(&["get", "--raw", "/metrics"]);
        let open: f64 = metrics
            .lines()
            .filter(|l| l.starts_with("apiserver_longrunning_requests"))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        open == 0.0
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    let disk = tempfile::tempdir().expect("a directory");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
        .arg(disk.path())
        .status();
    if !mounted.is_ok_and(|s| s.success()) {
        eprintln!("not root: the store's own tests cover a full disk");
        return;
    }
    let unmount = || {
        Command::new("umount")
            .args(["-l"])
            .arg(disk.path())
            .status()
    };
    let result = tokio::spawn(fill(disk.path().to_owned())).await;
    let _ = unmount();
    result.expect("a full disk is survived");
}

async fn fill(disk: std::path::PathBuf) {
    let data = disk.join("data");
    std::fs::create_dir(&data).expect("a folder");
    let mut server = Oarlock::start_in(
        &data,
        Options {
            disable: vec!["controllers", "scheduler", "nodes"],
            ..Options::default()
        },
    );
    let http = connect(&server).await;
    let ballast = disk.join("ballast");
    let mut stored = Vec::new();
    let failure = loop {
        let name = format!("m-{}", stored.len());
        match http
            .call(Method::POST, CONFIG_MAPS, JSON, config_map(&name, 300_000))
            .await
        {
            Ok(_) => stored.push(name),
            Err(HttpError::Refused { code, message }) => break (code, message),
            Err(other) => panic!("{other}"),
        }
        if stored.len() == 8 {
            // Leaves a little room, so that the disk fills during writes rather than before them.
            let chunk = vec![0u8; 1 << 20];
            let mut file = std::fs::File::create(&ballast).expect("ballast");
            while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
        }
        assert!(stored.len() < 1000, "the disk never filled");
    };
    assert!(matches!(failure.0, 500 | 503), "{failure:?}");
    let held = |list: &Value| list["items"].as_array().map_or(0, Vec::len);
    let list = http
        .json(Method::GET, CONFIG_MAPS, None)
        .await
        .expect("reads go on");
    assert_eq!(
        held(&list),
        stored.len(),
        "what was acknowledged is there, what was refused is not"
    );

    std::fs::remove_file(&ballast).expect("room again");
    eventually("writes to work again", 30, || {
        server
            .try_kubectl(&["create", "configmap", "again"])
            .is_ok()
    });
    server.crash_and_restart();
    let list = connect(&server)
        .await
        .json(Method::GET, CONFIG_MAPS, None)
        .await
        .expect("it starts again");
    assert_eq!(
        held(&list),
        stored.len() + 1,
        "nothing acknowledged was lost"
    );
}
