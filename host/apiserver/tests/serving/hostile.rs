//! Bodies and connections of clients that mean no good: a clear Status for them, and nobody else notices.

use http::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn hostile_bodies_get_a_status_and_the_server_goes_on() {
    let server = TestServer::start().await;
    let json_type = [("content-type", "application/json")];
    let with = |field: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}},{field}}}"#)
            .into_bytes()
    };
    let deep = format!(
        "\"data\":{}{}",
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    let deep_maps = format!(
        "\"data\":{}1{}",
        r#"{"a":"#.repeat(100_000),
        "}".repeat(100_000)
    );
    let wide = format!(
        "\"data\":{{{}}}",
        (0..150_000)
            .map(|n| format!(r#""k{n}":1"#))
            .collect::<Vec<_>>()
            .join(",")
    );
    let cases = [
        with(&deep),
        with(&deep_maps),
        with(&wide),
        with(r#""immutable":1e999999999"#),
        with(r#""metadata":{"generation":99999999999999999999999999}"#),
        b"{\"kind\":\"ConfigMap\",\"data\":{\"a\":\"\xff\xfe\"}".to_vec(),
        vec![b'{'; 3 * 1024 * 1024 - 1],
    ];
    for h2 in [true, false] {
        let mut client = server.admin(h2).await;
        for (at, body) in cases.iter().enumerate() {
            let (code, headers, answer) = client
                .call(Method::POST, MAPS, &json_type, body.clone())
                .await;
            let text = String::from_utf8_lossy(&answer);
            let text = text.get(..300).unwrap_or(&text);
            assert!(code.is_client_error(), "case {at}: {code} {text}");
            let status: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(status["kind"], "Status", "case {at}: {text}");
            assert_eq!(headers["audit-id"].len(), 36);
        }
    }
    let named = [("audit-id", "kelp")];
    let mut client = server.admin(true).await;
    let (code, headers, _) = client.call(Method::GET, MAPS, &named, Vec::new()).await;
    assert_eq!(
        (code.as_u16(), headers["audit-id"].as_bytes()),
        (200, &b"kelp"[..])
    );
}

#[tokio::test]
async fn silent_connections_keep_nobody_waiting() {
    let server = TestServer::start().await;
    let mut silent = Vec::new();
    for at in 0..300 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        if at % 2 == 0 {
            // The beginning of a handshake, and no more.
            stream.write_all(&[22, 3, 1, 2]).await.unwrap();
        }
        silent.push(stream);
    }
    for h2 in [true, false] {
        let mut client = server.admin(h2).await;
        let (code, ..) = client.call(Method::GET, MAPS, &[], Vec::new()).await;
        assert_eq!(code, 200);
    }
    drop(silent);
}
