//! The audit of a real server: what it writes to its log and sends to its webhook.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use oarlock_apiserver::{
    Access, Audit, AuditConfig, AuditLogConfig, AuditWebhookConfig, LogFormat,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{Client, DEADLINE, TestServer};

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: None, nonResourceURLs: ["/healthz*"]}
- {level: None, verbs: [get], resources: [{group: "", resources: [namespaces]}]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, omitStages: [RequestReceived]}
"#;

/// A webhook that takes what comes.
async fn webhook() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
    let all = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            let service = service_fn(move |request: Request<Incoming>| {
                let all = Arc::clone(&all);
                async move {
                    assert_eq!(request.headers()["authorization"], "Bearer kelp");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    all.lock().push(serde_json::from_slice(&body).unwrap());
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move {
                let _ = connection.await;
            });
        }
    });
    (format!("http://{address}/events"), taken)
}

fn config(dir: &Path, webhook: &str) -> AuditConfig {
    let (policy, kubeconfig) = (dir.join("policy.yaml"), dir.join("webhook.yaml"));
    std::fs::write(&policy, POLICY).unwrap();
    let text = format!(
        "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: \"{webhook}\"}}}}]\nusers: [{{name: u, user: {{token: kelp}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    AuditConfig {
        policy_file: Some(policy),
        log: Some(AuditLogConfig {
            path: dir.join("audit.log"),
            format: LogFormat::Json,
            max_age_days: 0,
            max_backups: 0,
            max_size_mib: 0,
        }),
        webhook: Some(AuditWebhookConfig {
            max_wait: Duration::from_millis(20),
            ..AuditWebhookConfig::new(kubeconfig)
        }),
    }
}

async fn policy(client: &mut Client) {
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({"metadata": {"name": "tide"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "object.spec == 1 || object.data.a == 'b'", "message": "not b"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'it is ' + object.metadata.name"}],
        "failurePolicy": "Ignore",
    }});
    let binding = json!({"metadata": {"name": "bound"}, "spec": {"policyName": "tide", "validationActions": ["Audit"]}});
    for (resource, object) in [
        ("validatingadmissionpolicies", &policy),
        ("validatingadmissionpolicybindings", &binding),
    ] {
        let (status, answer) = client.create(&format!("{group}/{resource}"), object).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    // What the checker says of it comes by and by.
    let path = format!("{group}/validatingadmissionpolicies/tide");
    let checked = tokio::time::timeout(DEADLINE, async {
        loop {
            let (_, policy) = client.get(&path).await;
            if policy["status"]["observedGeneration"] == 1 {
                return policy;
            }
            tokio::task::yield_now().await;
        }
    });
    let checked = checked.await.unwrap();
    let warning = &checked["status"]["typeChecking"]["expressionWarnings"][0];
    assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
    let text = warning["warning"].as_str().unwrap();
    assert!(
        text.starts_with("/v1, Kind=ConfigMap: ERROR: <input>:1:7: undefined field 'spec'"),
        "{text}"
    );
}

/// The events of one request, by stage.
fn of<'e>(events: &'e [Value], uri: &str, user: &str) -> BTreeMap<&'e str, &'e Value> {
    let about = |e: &&Value| {
        let who = e["impersonatedUser"]["username"].as_str().unwrap_or("");
        e["requestURI"] == uri && who == user
    };
    events
        .iter()
        .filter(about)
        .map(|e| (e["stage"].as_str().unwrap(), e))
        .collect()
}

#[tokio::test]
async fn requests_are_recorded_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let (url, taken) = webhook().await;
    let audit = Audit::start(&config(dir.path(), &url)).unwrap();
    assert!(audit.is_some());
    let mut server = TestServer::with(Access::default(), |config| config.audit = audit).await;
    let mut admin = server.admin(true).await;
    policy(&mut admin).await;

    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "c"}});
    let headers = [
        ("content-type", "application/json"),
        ("audit-id", "my-own"),
        ("user-agent", "otter/1"),
    ];
    let (status, answered, body) = admin
        .call(Method::POST, maps, &headers, map.to_string())
        .await;
    assert_eq!(status, StatusCode::CREATED, "{body:?}");
    assert_eq!(answered["audit-id"], "my-own");
    let patch = [("content-type", "application/merge-patch+json")];
    let one = format!("{maps}/m");
    admin
        .call(Method::PATCH, &one, &patch, "{\"data\": {\n\"a\": \"d\"}}")
        .await;
    admin.get(maps).await;
    let gone = [("content-type", "application/json")];
    admin
        .call(
            Method::DELETE,
            &format!("{one}?x=1"),
            &gone,
            r#"{"propagationPolicy":"Background"}"#,
        )
        .await;
    let other = [("impersonate-user", "kelp")];
    admin.call(Method::GET, "/api/v1/secrets", &other, "").await;
    admin.get("/healthz").await;
    admin.get("/api/v1/endpoints").await;
    admin.get("/api/v1/namespaces/default").await;
    admin
        .get("/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1")
        .await;
    let account = json!({"metadata": {"name": "default"}});
    admin
        .create("/api/v1/namespaces/default/serviceaccounts", &account)
        .await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(admin.create(pods, &pod).await.0, StatusCode::CREATED);
    let mut stranger = Client::connect(&server, None, false).await;
    assert_eq!(stranger.get(pods).await.0, StatusCode::UNAUTHORIZED);
    let (_, _, metrics) = admin.call(Method::GET, "/metrics", &[], "").await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in [
        "apiserver_audit_event_total ",
        "apiserver_audit_level_total{level=\"None\"} 2",
        "apiserver_audit_error_total{plugin=\"buffered\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    drop((admin, stranger));
    server.stop().await;

    let log = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    let events: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let in_lists: Vec<Value> = taken
        .lock()
        .iter()
        .flat_map(|list| list["items"].as_array().unwrap().clone())
        .collect();
    assert_eq!(in_lists.len(), events.len());
    assert!(taken.lock().iter().all(|list| list["kind"] == "EventList"));

    let created: Vec<&Value> = events.iter().filter(|e| e["auditID"] == "my-own").collect();
    let [received, complete] = created.as_slice() else {
        panic!("{created:?}");
    };
    assert_eq!(received["stage"], "RequestReceived");
    assert_eq!(
        received["stageTimestamp"],
        received["requestReceivedTimestamp"]
    );
    assert!(received.get("requestObject").is_none() && received["objectRef"].get("name").is_none());
    assert_eq!(complete["stage"], "ResponseComplete");
    assert_eq!(
        (&complete["verb"], &complete["level"]),
        (&json!("create"), &json!("RequestResponse"))
    );
    assert_eq!(complete["userAgent"], "otter/1");
    assert_eq!(complete["sourceIPs"], json!(["127.0.0.1"]));
    assert!(
        complete["user"]["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:masters"))
    );
    assert_eq!(
        complete["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"})
    );
    assert_eq!(
        complete["responseStatus"],
        json!({"metadata": {}, "code": 201})
    );
    assert_eq!(complete["requestObject"]["data"], json!({"a": "c"}));
    assert_eq!(complete["requestObject"]["kind"], "ConfigMap");
    assert_eq!(
        complete["responseObject"]["metadata"]["namespace"],
        "default"
    );
    assert!(
        complete["responseObject"]["metadata"]
            .get("managedFields")
            .is_none()
    );
    assert_eq!(
        complete["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert_eq!(complete["annotations"]["tide/name"], "it is m");
    assert!(
        complete["annotations"]
            .get("validation.policy.admission.k8s.io/validation_failure")
            .is_none()
    );

    let patched = of(&events, &one, "");
    assert_eq!(
        patched["ResponseComplete"]["requestObject"],
        json!({"data": {"a": "d"}})
    );
    assert_eq!(
        patched["ResponseComplete"]["responseObject"]["data"],
        json!({"a": "d"})
    );
    let listed = of(&events, maps, "");
    assert_eq!(
        listed["ResponseComplete"]["responseObject"]["kind"],
        "ConfigMapList"
    );
    let deleted = of(&events, &format!("{one}?x=1"), "");
    let status = &deleted["ResponseComplete"]["responseStatus"];
    assert_eq!(
        (&status["status"], &status["code"]),
        (&json!("Success"), &json!(200))
    );
    assert_eq!(
        deleted["ResponseComplete"]["requestObject"]["propagationPolicy"],
        "Background"
    );

    let refused = of(&events, "/api/v1/secrets", "kelp");
    let refused = refused["ResponseComplete"];
    assert_eq!(
        refused["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert!(refused.get("responseObject").is_none());

    assert!(
        events
            .iter()
            .all(|e| e["requestURI"] != "/healthz"
                && e["requestURI"] != "/api/v1/namespaces/default")
    );
    let watched = of(
        &events,
        "/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1",
        "",
    );
    assert_eq!(
        watched.keys().collect::<Vec<_>>(),
        [&"ResponseComplete", &"ResponseStarted"]
    );
    assert_eq!(watched["ResponseStarted"]["verb"], "watch");
    let deprecated = of(&events, "/api/v1/endpoints", "");
    assert_eq!(
        deprecated["ResponseComplete"]["annotations"]["k8s.io/deprecated"],
        "true"
    );
    let pods = of(&events, pods, "");
    assert_eq!(
        pods["ResponseComplete"]["annotations"]["pod-security.kubernetes.io/enforce-policy"],
        "privileged:latest"
    );
    let stranger = pods["ResponseStarted"];
    assert_eq!(stranger["user"], json!({}));
    assert_eq!(stranger["responseStatus"]["reason"], "Unauthorized");
}

#[test]
fn what_cannot_be_used_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), "http://127.0.0.1:1");
    let nothing = AuditConfig::default();
    assert!(Audit::start(&nothing).unwrap().is_none());
    let why = |config: &AuditConfig| Audit::start(config).unwrap_err().to_string();
    config.webhook.as_mut().unwrap().kubeconfig = dir.path().join("nowhere");
    assert!(
        why(&config).starts_with("the audit webhook's kubeconfig "),
        "{}",
        why(&config)
    );
    config.policy_file = Some(dir.path().join("none.yaml"));
    assert!(why(&config).ends_with("No such file or directory (os error 2)"));
}
