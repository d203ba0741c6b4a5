//! The server over real connections: versions of HTTP, who may, streams, limits, shutdown.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod aggregated;
mod audit;
mod cbor;
mod certificates;
mod conversion;
mod harness;
mod hostile;
mod issuers;
mod metrics;
mod nodes;
mod remote;
mod secrets;
mod slow;
mod travel;
mod webhooks;

use std::io::Read as _;

use harness::{Client, DEADLINE, TestServer};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use oarlock_apiserver::Access;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, size: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x".repeat(size)}})
}

#[tokio::test]
async fn both_versions_of_http() {
    let server = TestServer::start().await;
    for h2 in [true, false] {
        let mut client = server.admin(h2).await;
        let (status, created) = client
            .create(CONFIG_MAPS, &config_map(&format!("v{h2}"), 10))
            .await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
        let path = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion=0");
        let watch = client.send(Method::GET, &path, &[], "").await;
        assert_eq!(watch.status(), StatusCode::OK);
        assert_eq!(watch.headers().get("connection"), None);
        let chunked = watch
            .headers()
            .get("transfer-encoding")
            .map(|v| v.to_str().unwrap());
        assert_eq!(chunked, if h2 { None } else { Some("chunked") });
        let events = watch.into_body().collect().await.unwrap().to_bytes();
        let first: Value =
            serde_json::from_slice(events.split(|b| *b == b'\n').next().unwrap()).unwrap();
        assert_eq!(first["type"], "ADDED");
    }
}

#[tokio::test]
async fn who_may_do_what() {
    let server = TestServer::start().await;
    let mut nobody = Client::connect(&server, None, true).await;
    let (status, body) = nobody.get("/api/v1/pods").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        (&body["kind"], &body["reason"], &body["code"]),
        (&json!("Status"), &json!("Unauthorized"), &json!(401))
    );
    for open in ["/livez", "/readyz", "/healthz", "/version"] {
        assert_eq!(nobody.get(open).await.0, StatusCode::OK, "{open}");
    }
    let token = [("authorization", "Bearer nonsense")];
    assert_eq!(
        nobody.call(Method::GET, "/api/v1/pods", &token, "").await.0,
        StatusCode::UNAUTHORIZED
    );

    let elsewhere = TestServer::start().await;
    let foreign = elsewhere.pki.admin().clone();
    let mut stranger = Client::connect(&server, Some(&foreign), true).await;
    assert_eq!(
        stranger.get("/api/v1/pods").await.0,
        StatusCode::UNAUTHORIZED
    );

    let jane = server.pki.issue_client("jane", &["dev"]).unwrap();
    let mut jane = Client::connect(&server, Some(&jane), true).await;
    let (status, body) = jane.get("/api/v1/namespaces/y/pods").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        body["message"],
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "y""#
    );
    assert_eq!(jane.get("/apis").await.0, StatusCode::OK);
    let impersonate = [
        ("impersonate-user", "x"),
        ("impersonate-group", "system:masters"),
    ];
    assert_eq!(
        jane.call(Method::GET, "/api/v1/pods", &impersonate, "")
            .await
            .0,
        StatusCode::FORBIDDEN
    );

    let mut admin = server.admin(true).await;
    assert_eq!(admin.get("/api/v1/pods").await.0, StatusCode::OK);
    assert_eq!(
        admin
            .call(Method::GET, "/api/v1/pods", &impersonate[..1], "")
            .await
            .0,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn anonymous_callers_when_they_are_let_in() {
    let server = TestServer::with_access(Access {
        anonymous: true,
        ..Access::default()
    })
    .await;
    let mut nobody = Client::connect(&server, None, true).await;
    let (status, body) = nobody.get("/api/v1/pods").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("system:anonymous")
    );
}

#[tokio::test]
async fn bad_input_gets_a_status() {
    let server = TestServer::start().await;
    let mut client = server.admin(true).await;
    let json = [("content-type", "application/json")];
    let yaml = [("content-type", "application/yaml")];
    let proto = [("content-type", "application/vnd.kubernetes.protobuf")];
    let text = [("content-type", "text/plain")];
    let image = [("accept", "image/png")];
    let override_method = [("x-http-method-override", "DELETE")];
    let large = vec![b' '; 4 * 1024 * 1024];
    let one = format!("{CONFIG_MAPS}/x");
    let dots = format!("{CONFIG_MAPS}/%2e%2e");
    let too_large = "Request entity too large: limit is 3145728";
    let no_method = "does not allow this method";
    let (get, post, patch) = (Method::GET, Method::POST, Method::PATCH);
    type Case<'a> = (
        &'a Method,
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a [u8],
        u16,
        &'a str,
    );
    #[rustfmt::skip]
    let cases: [Case<'_>; 12] = [
        (&post, CONFIG_MAPS, &json, &large, 413, too_large),
        (&post, CONFIG_MAPS, &json, b"{\"kind\":", 400, "unexpected end of JSON input"),
        (&post, CONFIG_MAPS, &json, b"[]", 400, "cannot unmarshal array"),
        (&post, CONFIG_MAPS, &yaml, b"a: b: c", 400, "yaml: "),
        (&post, CONFIG_MAPS, &proto, b"k8s\0\xff\xff", 400, "Status"),
        (&post, CONFIG_MAPS, &text, b"x", 415, "UnsupportedMediaType"),
        (&patch, &one, &json, b"{}", 415, "415: Unsupported Media Type"),
        (&get, CONFIG_MAPS, &image, b"", 406, "406: Not Acceptable"),
        (&get, "/kelp", &[], b"", 404, "404 page not found"),
        (&get, "/api/v1/kelp", &[], b"", 404, "could not find the requested resource"),
        (&post, &one, &json, b"{}", 405, no_method),
        (&post, &one, &override_method, b"", 405, no_method),
    ];
    let mut check = async |(method, path, headers, body, code, text): Case<'_>| {
        let (status, _, answer) = client
            .call(method.clone(), path, headers, body.to_vec())
            .await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(status.as_u16(), code, "{path}: {answer}");
        assert!(answer.contains(text), "{path}: {answer}");
    };
    for case in cases {
        check(case).await;
    }
    check((&get, &dots, &[], b"", 400, "may not be '..'")).await;
}

#[tokio::test]
async fn a_large_list_is_streamed_and_compressed() {
    let server = TestServer::start().await;
    let mut client = server.admin(true).await;
    for at in 0..100 {
        assert_eq!(
            client
                .create(CONFIG_MAPS, &config_map(&format!("c{at:03}"), 4000))
                .await
                .0,
            StatusCode::CREATED
        );
    }
    let (_, plain_headers, plain) = client.call(Method::GET, CONFIG_MAPS, &[], "").await;
    assert_eq!(plain_headers.get("content-encoding"), None);
    let list: Value = serde_json::from_slice(&plain).unwrap();
    assert_eq!(list["kind"], "ConfigMapList");
    let items = list["items"].as_array().unwrap();
    assert!(items.len() >= 100);
    assert_eq!(items[0].get("kind"), None);
    let gzip = [("accept-encoding", "gzip")];
    let (_, headers, packed) = client.call(Method::GET, CONFIG_MAPS, &gzip, "").await;
    assert_eq!(headers.get("content-encoding").unwrap(), "gzip");
    assert!(packed.len() < plain.len() / 4);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed)
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain);
    let table = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let (_, _, body) = client.call(Method::GET, CONFIG_MAPS, &table, "").await;
    let table: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"].as_array().unwrap().len(), items.len());
}

#[tokio::test]
async fn a_shutdown_ends_watches_and_idle_connections() {
    let mut server = TestServer::start().await;
    let mut watcher = server.admin(true).await;
    let mut idle = server.admin(false).await;
    assert_eq!(idle.get("/api").await.0, StatusCode::OK);
    let watch = watcher
        .send(Method::GET, "/api/v1/pods?watch=1", &[], "")
        .await;
    let ended = tokio::spawn(watch.into_body().collect());
    server.stop().await;
    assert!(tokio::time::timeout(DEADLINE, ended).await.is_ok());
}

#[tokio::test]
async fn dropped_watches_are_forgotten() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let mut watcher = server.admin(true).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(
            watcher
                .send(Method::GET, "/api/v1/pods?watch=1", &[], "")
                .await,
        );
    }
    let watches = async |admin: &mut Client| {
        let (_, _, text) = admin.call(Method::GET, "/metrics", &[], "").await;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let line = text
            .lines()
            .find(|l| {
                l.starts_with("apiserver_longrunning_requests{") && l.contains("resource=\"pods\"")
            })
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(watches(&mut admin).await, 300);
    drop(open);
    drop(watcher);
    let gone = async {
        while watches(&mut admin).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, gone).await.is_ok());
    assert_eq!(
        admin.create(CONFIG_MAPS, &config_map("after", 1)).await.0,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn discovery_and_openapi() {
    let server = TestServer::start().await;
    let mut client = server.admin(true).await;
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let (_, headers, body) = client
        .call(Method::GET, "/apis", &[("accept", accept)], "")
        .await;
    let list: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    let etag = headers["etag"].to_str().unwrap().to_owned();
    let again = [("accept", accept), ("if-none-match", &*etag)];
    assert_eq!(
        client.call(Method::GET, "/apis", &again, "").await.0,
        StatusCode::NOT_MODIFIED
    );
    let (_, index) = client.get("/openapi/v3").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let (status, document) = client.get(&url).await;
    assert_eq!(status, StatusCode::OK);
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
}

#[tokio::test]
async fn reviews_answer_and_keep_nothing() {
    let server = TestServer::start().await;
    let jane = server.pki.issue_client("jane", &["dev"]).unwrap();
    let mut jane = Client::connect(&server, Some(&jane), true).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (status, me) = jane
        .create("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{me}");
    assert_eq!(
        me["status"]["userInfo"],
        json!({"username": "jane", "uid": "jane", "groups": ["dev", "system:authenticated"]})
    );
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = |spec: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let pods = review(json!({"resourceAttributes": {"verb": "list", "resource": "pods"}}));
    assert_eq!(
        jane.create(path, &pods).await.1["status"]["allowed"],
        json!(false)
    );
    let mut admin = server.admin(true).await;
    assert_eq!(
        admin.create(path, &pods).await.1["status"]["allowed"],
        json!(true)
    );
    let (status, refused) = jane.create(path, &review(json!({}))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
}
