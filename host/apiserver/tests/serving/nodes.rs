//! A node with its client certificate: what it may read and write, and how it comes by a certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Client, TestServer};

const DEFAULT: &str = "/api/v1/namespaces/default";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

async fn node(server: &TestServer, name: &str) -> Client {
    let identity = server
        .pki
        .issue_client(&format!("system:node:{name}"), &["system:nodes"])
        .unwrap();
    Client::connect(server, Some(&identity), true).await
}

async fn made(client: &mut Client, path: &str, object: Value) -> Value {
    let (status, body) = client.create(path, &object).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body
}

async fn setup(admin: &mut Client) -> Value {
    let account = json!({"metadata": {"name": "default"}});
    made(admin, &format!("{DEFAULT}/serviceaccounts"), account).await;
    for name in ["used", "other"] {
        let secret = json!({"metadata": {"name": name}});
        made(admin, &format!("{DEFAULT}/secrets"), secret).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "n1",
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}],
    }});
    made(admin, &format!("{DEFAULT}/pods"), pod).await
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let pod = setup(&mut admin).await;
    let mut n1 = node(&server, "n1").await;
    let mut n2 = node(&server, "n2").await;
    let used = format!("{DEFAULT}/secrets/used");
    // The graph follows the store.
    n1.get_until(&used, |status, _| status == StatusCode::OK)
        .await;
    let refused = |node: &str, verb: &str, what: &str, place: &str, why: &str| {
        format!(
            r#"User "system:node:{node}" cannot {verb} resource "{what}" in API group "" {place}: {why}"#
        )
    };
    let here = r#"in the namespace "default""#;
    for (client, name, path, expect) in [
        (
            &mut n2,
            "n2",
            "secrets/used",
            "no relationship found between node 'n2' and this object",
        ),
        (
            &mut n1,
            "n1",
            "secrets/other",
            "no relationship found between node 'n1' and this object",
        ),
    ] {
        let (status, body) = client.get(&format!("{DEFAULT}/{path}")).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let object = path.split_once('/').unwrap().1;
        assert_eq!(
            body["message"],
            format!(
                "secrets {object:?} is forbidden: {}",
                refused(name, "get", "secrets", here, expect)
            )
        );
    }
    let by_name = format!("{DEFAULT}/secrets?fieldSelector=metadata.name%3Dused");
    let (status, list) = n1.get(&by_name).await;
    assert_eq!(
        (status, list["items"].as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
    let (_, body) = n1.get(&format!("{DEFAULT}/secrets")).await;
    assert_eq!(
        body["message"],
        format!(
            "secrets is forbidden: {}",
            refused("n1", "list", "secrets", here, "No Object name found")
        )
    );
    let (status, list) = n1
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
        .await;
    assert_eq!(
        (status, list["items"].as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
    let (_, body) = n1
        .get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2")
        .await;
    let why = "can only list/watch pods with spec.nodeName field selector";
    assert_eq!(
        body["message"],
        format!(
            "pods is forbidden: {}",
            refused("n1", "list", "pods", "at the cluster scope", why)
        )
    );

    // A token for its pod, but not for another audience.
    let token = format!("{DEFAULT}/serviceaccounts/default/token");
    let asked = |audiences: Value| {
        json!({"spec": {"audiences": audiences, "boundObjectRef": {
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}})
    };
    let (status, body) = n1.create(&token, &asked(json!([]))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let (_, body) = n1.create(&token, &asked(json!(["far"]))).await;
    assert_eq!(
        body["message"],
        r#"serviceaccounts "default" is forbidden: audience "far" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"#
    );
    let (status, _) = n2.create(&token, &asked(json!([]))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);

    // With its pod go the node's rights.
    let path = format!("{DEFAULT}/pods/p?gracePeriodSeconds=0");
    let (status, _, body) = n1.call(Method::DELETE, &path, &[], "").await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    n1.get_until(&used, |status, _| status == StatusCode::FORBIDDEN)
        .await;
}

#[tokio::test]
async fn a_node_writes_itself() {
    let server = TestServer::start().await;
    let mut n1 = node(&server, "n1").await;
    let own = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}});
    made(&mut n1, "/api/v1/nodes", own).await;
    let (status, _) = n1.get("/api/v1/nodes/n1").await;
    assert_eq!(status, StatusCode::OK);
    let (_, body) = n1.get("/api/v1/nodes/n2").await;
    assert_eq!(
        body["message"],
        r#"nodes "n2" is forbidden: User "system:node:n1" cannot get resource "nodes" in API group "" at the cluster scope: node 'n1' cannot read 'n2', only its own Node object"#
    );
    let (_, body) = n1
        .create("/api/v1/nodes", &json!({"metadata": {"name": "n2"}}))
        .await;
    assert_eq!(
        body["message"],
        r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#
    );
    let status = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}});
    let patch = [("content-type", "application/merge-patch+json")];
    let (_, _, body) = n1
        .call(
            Method::PATCH,
            "/api/v1/nodes/n1/status",
            &patch,
            status.to_string(),
        )
        .await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body["message"],
        r#"nodes "n1" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x"#
    );
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let mut lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}});
    made(&mut n1, leases, lease.clone()).await;
    lease["metadata"]["name"] = json!("n2");
    let (_, body) = n1.create(leases, &lease).await;
    assert_eq!(
        body["message"],
        r#"leases.coordination.k8s.io "n2" is forbidden: can only access node lease with the same name as the requesting node"#
    );
}

#[tokio::test]
async fn a_node_renews_its_certificate() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let mut n1 = node(&server, "n1").await;
    let request = |name: &str, of: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(rcgen::DnType::CommonName, format!("system:node:{of}"));
        subject.push(rcgen::DnType::OrganizationName, "system:nodes");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"metadata": {"name": name}, "spec": {
            "request": STANDARD.encode(pem), "signerName": "kubernetes.io/kube-apiserver-client-kubelet",
            "usages": ["digital signature", "client auth"]}})
    };
    let (_, body) = n1.create(REQUESTS, &request("foreign", "n2")).await;
    assert_eq!(
        body["message"],
        r#"certificatesigningrequests.certificates.k8s.io "foreign" is forbidden: can only create a node CSR with CN=system:node:n1"#
    );
    let binding = json!({
        "metadata": {"name": "renewal"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    made(&mut admin, bindings, binding).await;
    made(&mut n1, REQUESTS, request("own", "n1")).await;
    let signed = |_: StatusCode, body: &Value| body["status"]["certificate"].is_string();
    let body = n1.get_until(&format!("{REQUESTS}/own"), signed).await;
    let condition = &body["status"]["conditions"][0];
    assert_eq!(condition["reason"], "AutoApproved");
    assert_eq!(
        condition["message"],
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    );
    // One for serving waits for an approver, however long: the next is answered before it.
    let mut serving = request("serving", "n1");
    serving["spec"]["signerName"] = json!("kubernetes.io/kubelet-serving");
    serving["spec"]["usages"] = json!(["digital signature", "server auth"]);
    made(&mut n1, REQUESTS, serving).await;
    made(&mut n1, REQUESTS, request("next", "n1")).await;
    n1.get_until(&format!("{REQUESTS}/next"), signed).await;
    let (_, body) = admin.get(&format!("{REQUESTS}/serving")).await;
    assert!(body["status"]["conditions"].is_null(), "{body}");
}
