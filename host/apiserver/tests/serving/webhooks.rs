//! Admission webhooks over real HTTPS: what they are told, what they may do, and what their failures mean.

use std::time::Duration;

use base64::Engine as _;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::CONFIG_MAPS;
use super::harness::{Client, TestServer};
use super::remote::{Remote, Reply, Seen};

const NOW: Duration = Duration::ZERO;
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

fn review(seen: &Seen, response: Value) -> Reply {
    let mut response = response;
    response["uid"] = seen.body["request"]["uid"].clone();
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": seen.body["apiVersion"], "response": response,
    });
    (200, review, NOW)
}

fn patch(seen: &Seen, patch: &Value) -> Reply {
    let patch = base64::engine::general_purpose::STANDARD.encode(patch.to_string());
    review(
        seen,
        json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"}),
    )
}

/// A webhook about config maps; `more` lies over it.
fn hook(remote: &Remote, name: &str, more: Value) -> Value {
    let mut hook = json!({
        "name": format!("{name}.example.com"),
        "clientConfig": {"url": format!("https://{}/{name}", remote.address), "caBundle": remote.ca_bundle()},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
    });
    for (field, value) in more.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

async fn configure(client: &mut Client, kind: &str, name: &str, hooks: &[Value]) {
    let object = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": name}, "webhooks": hooks,
    });
    let path = format!("{GROUP}/{}webhookconfigurations", kind.to_ascii_lowercase());
    let (status, body) = client.create(&path, &object).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test]
async fn they_change_refuse_and_warn() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let remote = Remote::start(|seen| {
        let name = &seen.body["request"]["object"]["metadata"]["name"];
        match seen.path.split('?').next().unwrap() {
            "/label" => patch(
                seen,
                &json!([{"op": "add", "path": "/data/seen", "value": "yes"}]),
            ),
            "/broken" => patch(seen, &json!([{"op": "add", "path": "/data/a b", "value": "x"}])),
            _ if name == "bad" => review(
                seen,
                json!({"allowed": false, "status": {"code": 418, "message": "no tea"}, "warnings": ["careful"]}),
            ),
            _ => review(seen, json!({"allowed": true})),
        }
    })
    .await;
    let creations = json!({"rules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]});
    let label = hook(&remote, "label", creations);
    configure(&mut admin, "Mutating", "a", &[label]).await;
    let check = hook(&remote, "check", json!({}));
    configure(&mut admin, "Validating", "b", &[check]).await;

    let (status, made) = admin.create(CONFIG_MAPS, &config_map("good")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["data"], json!({"k": "v", "seen": "yes"}));
    let seen = remote.seen();
    assert_eq!(
        seen.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(),
        ["/label?timeout=5s", "/check?timeout=5s"]
    );
    let asked = &seen[1].body["request"];
    assert_eq!(asked["operation"], "CREATE");
    assert_eq!(
        asked["resource"],
        json!({"group": "", "version": "v1", "resource": "configmaps"})
    );
    assert_eq!(asked["object"]["data"]["seen"], "yes");
    assert_eq!(asked["oldObject"], Value::Null);
    assert_eq!(asked["userInfo"]["username"], "admin");
    assert_eq!(asked["dryRun"], false);

    let json_body = [("content-type", "application/json")];
    let (status, headers, body) = admin
        .call(
            Method::POST,
            CONFIG_MAPS,
            &json_body,
            config_map("bad").to_string(),
        )
        .await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status.as_u16(), 418);
    assert_eq!(
        body["message"],
        r#"admission webhook "check.example.com" denied the request: no tea"#
    );
    assert_eq!(headers["warning"], r#"299 - "careful""#);

    let path = format!("{CONFIG_MAPS}/good");
    let (status, _, _) = admin.call(Method::DELETE, &path, &[], "").await;
    assert_eq!(status, StatusCode::OK);
    let last = remote.seen().pop().unwrap().body;
    assert_eq!(last["request"]["operation"], "DELETE");
    assert_eq!(last["request"]["object"], Value::Null);
    assert_eq!(last["request"]["oldObject"]["data"]["seen"], "yes");

    let broken = hook(&remote, "broken", json!({}));
    configure(&mut admin, "Mutating", "z", &[broken]).await;
    let (status, body) = admin.create(CONFIG_MAPS, &config_map("odd")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
}

#[tokio::test]
async fn failures_open_or_closed() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let remote = Remote::start(|seen| match seen.path.split('?').next().unwrap() {
        "/slow" => (200, json!({}), Duration::from_secs(3)),
        "/sick" => (500, json!("out of order"), NOW),
        "/other" => (
            200,
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": "x", "allowed": true}}),
            NOW,
        ),
        _ => review(seen, json!({"allowed": true})),
    })
    .await;
    let address = remote.address;
    let nowhere = format!("https://{}/x", {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    });
    let foreign = json!({"url": format!("https://{address}/check")});
    let cases = [
        (
            "slow",
            json!({"timeoutSeconds": 1}),
            format!(
                "failed to call webhook: Post \"https://{address}/slow?timeout=1s\": context deadline exceeded"
            ),
        ),
        (
            "sick",
            json!({}),
            "failed to call webhook: an error on the server (\"out of order\") has prevented the request from succeeding"
                .to_owned(),
        ),
        (
            "other",
            json!({}),
            "received invalid webhook response: expected response.uid=".to_owned(),
        ),
        (
            "nowhere",
            json!({"clientConfig": {"url": nowhere}}),
            "connect: connection refused".to_owned(),
        ),
        (
            "foreign",
            json!({"clientConfig": foreign}),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
                .to_owned(),
        ),
        (
            "service",
            json!({"clientConfig": {"service": {"name": "none", "namespace": "default", "path": "/x"}}}),
            "Post \"https://none.default.svc:443/x?timeout=5s\": service \"none\" not found".to_owned(),
        ),
    ];
    for (name, more, expect) in cases {
        for policy in ["Fail", "Ignore"] {
            let mut more = more.clone();
            more["failurePolicy"] = json!(policy);
            let named = format!("{name}-{policy}").to_ascii_lowercase();
            let hooks = [hook(&remote, name, more)];
            configure(&mut admin, "Validating", &named, &hooks).await;
            let (status, body) = admin.create(CONFIG_MAPS, &config_map(&named)).await;
            let path = format!("{GROUP}/validatingwebhookconfigurations/{named}");
            admin.call(Method::DELETE, &path, &[], "").await;
            if policy == "Ignore" {
                assert_eq!(status, StatusCode::CREATED, "{body}");
                continue;
            }
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
            let message = body["message"].as_str().unwrap();
            let head =
                format!("Internal error occurred: failed calling webhook \"{name}.example.com\": ");
            assert!(message.starts_with(&head), "{message}");
            assert!(message.contains(&expect), "{message}\n{expect}");
        }
    }
}

#[tokio::test]
async fn only_what_matches_is_told() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let remote = Remote::start(|seen| review(seen, json!({"allowed": false}))).await;
    let refusing = [
        (
            "label",
            json!({"objectSelector": {"matchLabels": {"a": "b"}}}),
        ),
        (
            "space",
            json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}),
        ),
        (
            "cel",
            json!({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'picked'"}]}),
        ),
        (
            "update",
            json!({"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}]}),
        ),
    ];
    let hooks: Vec<Value> = refusing
        .iter()
        .map(|(name, more)| hook(&remote, name, more.clone()))
        .collect();
    configure(&mut admin, "Validating", "v", &hooks).await;
    let refused = |name: &str| {
        format!("admission webhook \"{name}.example.com\" denied the request without explanation")
    };
    let (status, body) = admin.create(CONFIG_MAPS, &config_map("plain")).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let mut labelled = config_map("labelled");
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let (status, body) = admin.create(CONFIG_MAPS, &labelled).await;
    assert_eq!(
        (status.as_u16(), &body["message"]),
        (400, &json!(refused("label")))
    );
    let system = "/api/v1/namespaces/kube-system/configmaps";
    let (status, body) = admin.create(system, &config_map("plain")).await;
    assert_eq!(
        (status.as_u16(), &body["message"]),
        (400, &json!(refused("space")))
    );
    let (status, body) = admin.create(CONFIG_MAPS, &config_map("picked")).await;
    assert_eq!(
        (status.as_u16(), &body["message"]),
        (400, &json!(refused("cel")))
    );
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{CONFIG_MAPS}/plain");
    let change = json!({"data": {"k": "w"}}).to_string();
    let (status, _, _) = admin.call(Method::PATCH, &path, &merge, change).await;
    assert_eq!(status.as_u16(), 400);

    let noisy = hook(
        &remote,
        "noisy",
        json!({"sideEffects": "NoneOnDryRun", "rules": [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]}]}),
    );
    configure(&mut admin, "Mutating", "m", &[noisy]).await;
    let before = remote.seen().len();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let secrets = "/api/v1/namespaces/default/secrets?dryRun=All";
    let (status, _) = admin.create(secrets, &secret).await;
    assert_eq!(status.as_u16(), 400);
    let asked = &remote.seen()[before].body["request"];
    assert_eq!(asked["dryRun"], true);
    assert_eq!(asked["options"]["dryRun"], json!(["All"]));
}

#[tokio::test]
async fn those_that_ask_for_it_run_again_after_a_change() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let remote = Remote::start(|seen| {
        let path = seen.path.split('?').next().unwrap();
        let key = format!("/data{path}");
        let has = &seen.body["request"]["object"]["data"][path.trim_start_matches('/')];
        if has.is_null() {
            patch(seen, &json!([{"op": "add", "path": key, "value": "x"}]))
        } else {
            review(seen, json!({"allowed": true}))
        }
    })
    .await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = [
        hook(&remote, "one", again),
        hook(&remote, "two", json!({})),
        hook(&remote, "three", json!({})),
    ];
    configure(&mut admin, "Mutating", "m", &hooks).await;
    let (status, made) = admin.create(CONFIG_MAPS, &config_map("c")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        made["data"],
        json!({"k": "v", "one": "x", "two": "x", "three": "x"})
    );
    let paths: Vec<String> = remote.seen().iter().map(|s| s.path.clone()).collect();
    assert_eq!(
        paths,
        [
            "/one?timeout=5s",
            "/two?timeout=5s",
            "/three?timeout=5s",
            "/one?timeout=5s"
        ]
    );
}

#[tokio::test]
async fn a_service_means_its_endpoints_and_versions_that_are_alike_are_told_alike() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let remote = Remote::start(|seen| review(seen, json!({"allowed": false}))).await;
    serve_as_service(&mut admin, &remote).await;
    let at = json!({"name": "remote", "namespace": "default", "path": "/hook", "port": 8443});
    let hooks = [hook(
        &remote,
        "scaling",
        json!({
            "clientConfig": {"service": at, "caBundle": remote.ca_bundle()},
            "matchPolicy": "Equivalent",
            "rules": [{"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["horizontalpodautoscalers"]}],
        }),
    )];
    configure(&mut admin, "Validating", "s", &hooks).await;
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]},
    });
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let (status, body) = admin.create(path, &scaler).await;
    assert_eq!(status.as_u16(), 400, "{body}");
    let seen = &remote.seen()[0];
    assert_eq!(seen.path, "/hook?timeout=5s");
    assert_eq!(seen.headers["host"], "remote.default.svc:8443");
    let asked = &seen.body["request"];
    assert_eq!(asked["kind"]["version"], "v1");
    assert_eq!(asked["requestKind"]["version"], "v2");
    assert_eq!(asked["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(
        asked["object"]["spec"]["targetCPUUtilizationPercentage"],
        70
    );
}

/// Makes the service `remote` in `default`, with the remote's address as its endpoint.
pub async fn serve_as_service(admin: &mut Client, remote: &Remote) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "remote"},
        "spec": {"ports": [{"name": "https", "port": 8443}]},
    });
    let services = "/api/v1/namespaces/default/services";
    assert_eq!(
        admin.create(services, &service).await.0,
        StatusCode::CREATED
    );
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "remote-1", "labels": {"kubernetes.io/service-name": "remote"}},
        "ports": [{"name": "https", "port": remote.address.port(), "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
    });
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let (status, body) = admin.create(slices, &slice).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}
