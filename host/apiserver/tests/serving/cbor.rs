//! CBOR over a real connection: where it is served, and where it is not.

use http::{Method, StatusCode};
use oarlock_apiserver::Access;

use crate::harness::TestServer;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const CBOR: &[(&str, &str)] = &[
    ("content-type", "application/cbor"),
    ("accept", "application/cbor"),
];

/// `{"metadata": {"name": "s"}, "data": {"k": 22(h'00ff')}}`, with texts as byte strings and the tag in front.
const SECRET: &[u8] =
    b"\xd9\xd9\xf7\xa2\x48metadata\xa1\x44name\x41s\x44data\xa1\x61k\xd6\x42\x00\xff";

fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|part| part == needle)
}

#[tokio::test]
async fn objects_lists_and_watches() {
    let server = TestServer::with(Access::default(), |config| config.cbor = true).await;
    let mut admin = server.admin(true).await;
    let (status, headers, body) = admin.call(Method::POST, SECRETS, CBOR, SECRET).await;
    assert_eq!(status, StatusCode::CREATED, "{body:?}");
    assert_eq!(headers["content-type"], "application/cbor");
    assert!(body.starts_with(b"\xd9\xd9\xf7"));
    assert!(has(&body, b"\x44kind\x46Secret"), "{body:?}");
    let (_, stored) = admin.get(&format!("{SECRETS}/s")).await;
    assert_eq!(stored["data"]["k"], "AP8=");
    let (_, headers, list) = admin.call(Method::GET, SECRETS, CBOR, "").await;
    assert_eq!(headers["content-type"], "application/cbor");
    assert!(has(&list, b"\x4aSecretList") && has(&list, b"\x41s"));
    let watch = format!("{SECRETS}?watch=1&timeoutSeconds=1");
    let (_, headers, events) = admin.call(Method::GET, &watch, CBOR, "").await;
    assert_eq!(headers["content-type"], "application/cbor-seq");
    assert!(events.starts_with(b"\xd9\xd9\xf7\xa2\x44type\x45ADDED\x46object\xd9\xd9\xf7"));
    let apply = [
        ("content-type", "application/apply-patch+cbor"),
        ("accept", "application/cbor"),
    ];
    let patch: &[u8] = b"\xd9\xd9\xf7\xa4\x4aapiVersion\x42v1\x44kind\x46Secret\x48metadata\xa1\x44name\x41s\x44type\x46Opaque";
    let path = format!("{SECRETS}/s?fieldManager=m");
    let (status, _, body) = admin.call(Method::PATCH, &path, &apply, patch).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    let broken: &[u8] = b"\xd9\xd9\xf7\xa1\x48meta";
    let (status, _, body) = admin.call(Method::POST, SECRETS, CBOR, broken).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:?}");
}

#[tokio::test]
async fn as_upstream_it_is_not_served_unless_it_is_switched_on() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let accept = [("accept", "application/cbor")];
    let (status, headers, _) = admin.call(Method::GET, SECRETS, &accept, "").await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(headers["content-type"], "application/json");
    let (status, ..) = admin.call(Method::POST, SECRETS, CBOR, SECRET).await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
    let both = [("accept", "application/cbor, application/json;q=0.9")];
    let (status, headers, _) = admin.call(Method::GET, SECRETS, &both, "").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    let secret = r#"{"metadata": {"name": "j"}}"#;
    assert_eq!(
        admin.call(Method::POST, SECRETS, JSON, secret).await.0,
        StatusCode::CREATED
    );
}
