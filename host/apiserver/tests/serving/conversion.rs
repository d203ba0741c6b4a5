//! Custom resources whose versions a webhook converts: stored in one, read, listed, watched and written in another.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::TestServer;
use super::remote::{Remote, Reply, Seen};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/stable.example.com/v1/namespaces/default/ports";
const V2: &str = "/apis/stable.example.com/v2/namespaces/default/ports";

/// v1 has `hostPort: "h:1"`, v2 has `host` and `port`.
fn convert(seen: &Seen) -> Reply {
    let request = &seen.body["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap().iter();
    let converted: Vec<Value> = objects
        .map(|object| {
            let mut new = object.clone();
            new["apiVersion"] = json!(wanted);
            let map = new.as_object_mut().unwrap();
            if wanted.ends_with("/v2") {
                let both = object["hostPort"].as_str().unwrap_or_default();
                let (host, port) = both.split_once(':').unwrap_or((both, ""));
                map.remove("hostPort");
                map.insert("host".to_owned(), json!(host));
                map.insert("port".to_owned(), json!(port));
            } else {
                let text = |field: &str| object[field].as_str().unwrap_or_default();
                let both = format!("{}:{}", text("host"), text("port"));
                map.remove("host");
                map.remove("port");
                map.insert("hostPort".to_owned(), json!(both));
            }
            new
        })
        .collect();
    let spoilt = converted.iter().any(|c| c["metadata"]["name"] == "spoilt");
    let result = if spoilt {
        json!({"status": "Failed", "message": "it is spoilt"})
    } else {
        json!({"status": "Success"})
    };
    let review = json!({
        "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": {"uid": request["uid"], "result": result, "convertedObjects": converted},
    });
    (200, review, Duration::ZERO)
}

fn definition(remote: &Remote) -> Value {
    let text = json!({"type": "string"});
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ports.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "ports", "kind": "Port"},
            "versions": [
                version("v1", true, json!({"hostPort": text})),
                version("v2", false, json!({"host": text, "port": text})),
            ],
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://{}/convert", remote.address), "caBundle": remote.ca_bundle()},
            }},
        },
    })
}

#[tokio::test]
async fn a_webhook_converts() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let remote = Remote::start(convert).await;
    let (status, body) = admin.create(DEFINITIONS, &definition(&remote)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let one = json!({"apiVersion": "stable.example.com/v1", "kind": "Port", "metadata": {"name": "one"}, "hostPort": "a:1"});
    let mut status = StatusCode::NOT_FOUND;
    for _ in 0..100 {
        status = admin.create(V1, &one).await.0;
        if status != StatusCode::NOT_FOUND {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status, StatusCode::CREATED);
    assert!(
        remote.seen().is_empty(),
        "what is stored as it came needs no converting"
    );

    let (_, got) = admin.get(&format!("{V2}/one")).await;
    assert_eq!(
        (&got["host"], &got["port"]),
        (&json!("a"), &json!("1")),
        "{got}"
    );
    assert_eq!(got["apiVersion"], "stable.example.com/v2");
    assert_eq!(got["hostPort"], Value::Null);

    let two = json!({"apiVersion": "stable.example.com/v2", "kind": "Port", "metadata": {"name": "two"}, "host": "b", "port": "2"});
    let (status, made) = admin.create(V2, &two).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!((&made["host"], &made["port"]), (&json!("b"), &json!("2")));
    let (_, got) = admin.get(&format!("{V1}/two")).await;
    assert_eq!(got["hostPort"], "b:2");

    let merge = [("content-type", "application/merge-patch+json")];
    let change = json!({"port": "3"}).to_string();
    let (status, _, body) = admin
        .call(Method::PATCH, &format!("{V2}/two"), &merge, change)
        .await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    let (_, got) = admin.get(&format!("{V1}/two")).await;
    assert_eq!(got["hostPort"], "b:3");

    let asked = remote.seen().len();
    let (_, list) = admin.get(V2).await;
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(items[1]["port"], "3");
    assert_eq!(
        remote.seen().len(),
        asked + 1,
        "a list is converted at once"
    );

    let watch = format!(
        "{V2}?watch=1&timeoutSeconds=1&resourceVersion={}",
        one_before(&list)
    );
    let (_, _, events) = admin.call(Method::GET, &watch, &[], "").await;
    let first = events.split(|b| *b == b'\n').next().unwrap();
    let first: Value = serde_json::from_slice(first).unwrap();
    assert_eq!(first["object"]["port"], "3", "{first}");

    let spoilt = json!({"apiVersion": "stable.example.com/v2", "kind": "Port", "metadata": {"name": "spoilt"}, "host": "b"});
    let (status, body) = admin.create(V2, &spoilt).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        body["message"],
        "conversion webhook for stable.example.com/v2, Kind=Port failed: it is spoilt"
    );
    let (status, _, _) = admin
        .call(Method::DELETE, &format!("{V2}/one"), &[], "")
        .await;
    assert_eq!(status, StatusCode::OK);
}

/// The revision before the last write of the list.
fn one_before(list: &Value) -> u64 {
    let versions = list["items"].as_array().unwrap().iter();
    let newest = versions
        .map(|i| i["metadata"]["resourceVersion"].as_str().unwrap())
        .map(|text| text.parse::<u64>().unwrap());
    newest.max().unwrap() - 1
}
