//! Reading the past, and what flow control adds to answers.

use http::Method;
use serde_json::{Value, json};

use crate::harness::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn the_past_can_be_read_and_compared() {
    let server = TestServer::start().await;
    let mut client = server.admin(true).await;
    let json_type = [("content-type", "application/json")];
    let map = |data: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tide"}, "data": {"level": data}})
            .to_string()
            .into_bytes()
    };
    let one = format!("{MAPS}/tide");
    let version = |body: &[u8]| {
        let value: Value = serde_json::from_slice(body).unwrap();
        value["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (status, headers, body) = client
        .call(Method::POST, MAPS, &json_type, map("low"))
        .await;
    assert_eq!(status, 201);
    assert_eq!(headers["x-kubernetes-pf-flowschema-uid"].len(), 36);
    assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"].len(), 36);
    let first = version(&body);
    let (_, _, body) = client
        .call(Method::PUT, &one, &json_type, map("high"))
        .await;
    let second = version(&body);
    client.call(Method::DELETE, &one, &[], Vec::new()).await;
    let mut get = async |path: String| {
        let (status, _, body) = client.call(Method::GET, &path, &[], Vec::new()).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        (status.as_u16(), body)
    };
    let (code, then) = get(format!("{one}?asOf={first}")).await;
    assert_eq!(
        (code, &then["data"]["level"]),
        (200, &json!("low")),
        "{then}"
    );
    let (code, list) = get(format!("{MAPS}?asOf={second}")).await;
    assert_eq!(
        (code, &list["items"][0]["data"]["level"]),
        (200, &json!("high")),
        "{list}"
    );
    let (code, diff) = get(format!("{one}?asOf={first}&diffTo={second}")).await;
    assert_eq!(
        (code, &diff["mergePatch"]["data"]),
        (200, &json!({"level": "high"})),
        "{diff}"
    );
    for (query, expect) in [
        ("asOf=tomorrow", 400),
        ("asOf=999999", 400),
        ("asOf=2999-01-01T00:00:00Z", 400),
        ("asOf=1999-01-01T00:00:00Z", 410),
        ("diffTo=1", 400),
    ] {
        let (code, status) = get(format!("{one}?{query}")).await;
        assert_eq!(
            (code, &status["kind"]),
            (expect, &json!("Status")),
            "{query}: {status}"
        );
    }
    assert_eq!(get(one).await.0, 404);
}
