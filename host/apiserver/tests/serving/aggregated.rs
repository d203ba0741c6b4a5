//! An API server behind an APIService: discovery, requests, who asks, and what it means when it does not answer.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::TestServer;
use super::remote::Remote;
use super::webhooks::serve_as_service;

const NOW: Duration = Duration::ZERO;
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

async fn available(admin: &mut super::Client, name: &str) -> Value {
    let (status, object) = admin.get(&format!("{SERVICES}/{name}")).await;
    assert_eq!(status, StatusCode::OK, "{object}");
    object["status"]["conditions"][0].clone()
}

#[tokio::test]
async fn requests_go_to_who_serves_the_group() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let local = available(&mut admin, "v1.apps").await;
    assert_eq!(
        (&local["status"], &local["reason"]),
        (&json!("True"), &json!("Local"))
    );

    let remote = Remote::start(|seen| match seen.path.as_str() {
        "/apis/metrics.k8s.io/v1beta1" => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1",
                "resources": [{"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]}]}),
            NOW,
        ),
        "/apis/metrics.k8s.io/v1beta1/nodes" => (
            200,
            json!({"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": []}),
            NOW,
        ),
        _ => (404, json!({"kind": "Status", "code": 404}), NOW),
    })
    .await;
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {"group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": "remote", "namespace": "default", "port": 8443}, "caBundle": remote.ca_bundle()},
    });
    let (status, body) = admin.create(SERVICES, &service).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let mut condition = Value::Null;
    for _ in 0..100 {
        condition = available(&mut admin, "v1beta1.metrics.k8s.io").await;
        if !condition.is_null() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(condition["reason"], "ServiceNotFound", "{condition}");
    assert_eq!(
        condition["message"],
        r#"service/remote in "default" is not present"#
    );
    let path = "/apis/metrics.k8s.io/v1beta1/nodes";
    let (status, _, body) = admin.call(Method::GET, path, &[], "").await;
    assert_eq!(
        (status.as_u16(), &*body),
        (503, b"service unavailable\n".as_slice())
    );

    serve_as_service(&mut admin, &remote).await;
    // A change of the APIService is looked at at once.
    let merge = [("content-type", "application/merge-patch+json")];
    let own = format!("{SERVICES}/v1beta1.metrics.k8s.io");
    let touch = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    admin.call(Method::PATCH, &own, &merge, touch).await;
    for _ in 0..100 {
        condition = available(&mut admin, "v1beta1.metrics.k8s.io").await;
        if condition["status"] == "True" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(condition["reason"], "Passed", "{condition}");

    let headers = [("x-remote-user", "mallory"), ("authorization", "Basic x")];
    let (status, _, body) = admin.call(Method::GET, path, &headers[..1], "").await;
    assert_eq!(status, StatusCode::OK);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["kind"], "NodeMetricsList");
    let seen = remote.seen().pop().unwrap();
    assert_eq!(seen.path, path);
    let users: Vec<_> = seen.headers.get_all("x-remote-user").iter().collect();
    assert_eq!(users, ["admin"]);
    let groups: Vec<_> = seen.headers.get_all("x-remote-group").iter().collect();
    assert!(groups.contains(&&http::HeaderValue::from_static("system:masters")));
    let (status, _) = admin.get("/apis/metrics.k8s.io/v1beta1/pods").await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let (_, groups) = admin.get("/apis").await;
    let listed = groups["groups"].as_array().unwrap();
    assert!(listed.iter().any(|g| g["name"] == "metrics.k8s.io"));
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    )];
    let (_, _, body) = admin.call(Method::GET, "/apis", &accept, "").await;
    let all: Value = serde_json::from_slice(&body).unwrap();
    let items = all["items"].as_array().unwrap();
    let ours = items
        .iter()
        .find(|i| i["metadata"]["name"] == "metrics.k8s.io")
        .unwrap();
    assert_eq!(ours["versions"][0]["resources"][0]["resource"], "nodes");
    let (_, index) = admin.get("/openapi/v3").await;
    assert!(index["paths"]["apis/metrics.k8s.io/v1beta1"].is_object());

    let bob = server.pki.issue_client("bob", &[]).unwrap();
    let mut bob = super::Client::connect(&server, Some(&bob), true).await;
    assert_eq!(bob.get(path).await.0, StatusCode::FORBIDDEN);

    admin.call(Method::DELETE, &own, &[], "").await;
    for _ in 0..100 {
        if admin.get(path).await.0 == StatusCode::NOT_FOUND {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a group version without an APIService is still served");
}
