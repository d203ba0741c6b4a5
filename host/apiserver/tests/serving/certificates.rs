//! Requests for certificates: who may approve them, and that an approved one is a certificate that opens the door.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use oarlock_apiserver::Identity;
use serde_json::{Value, json};

use crate::harness::{Client, DEADLINE, TestServer};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn asking(name: &str, group: &str, usage: &str) -> (Value, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let subject = &mut params.distinguished_name;
    subject.push(rcgen::DnType::CommonName, name);
    subject.push(rcgen::DnType::OrganizationName, group);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "signerName": SIGNER, "usages": [usage], "expirationSeconds": 3600},
    });
    (object, key.serialize_pem())
}

async fn approve(client: &mut Client, mut object: Value) -> (StatusCode, Value) {
    object["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Test", "message": "fine"}]);
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let json = [("content-type", "application/json")];
    let path = format!("{REQUESTS}/{name}/approval");
    let (status, _, body) = client
        .call(Method::PUT, &path, &json, object.to_string())
        .await;
    (status, serde_json::from_slice(&body).unwrap())
}

/// The status, once the signer has answered.
async fn answer(client: &mut Client, name: &str, done: fn(&Value) -> bool) -> Value {
    let path = format!("{REQUESTS}/{name}");
    let wait = async {
        loop {
            let (_, mut found) = client.get(&path).await;
            if done(&found["status"]) {
                return found["status"].take();
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap()
}

#[tokio::test]
async fn an_approved_request_becomes_a_certificate() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let (wanted, key_pem) = asking("jane", "dev", "client auth");
    let (status, made) = admin.create(REQUESTS, &wanted).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["username"], "admin");
    assert_eq!(
        made["spec"]["groups"],
        json!(["system:masters", "system:authenticated"])
    );

    let (status, body) = approve(&mut admin, made).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let status = answer(&mut admin, "jane", |s| s["certificate"].is_string()).await;
    let pem = STANDARD.decode(status["certificate"].as_str().unwrap());
    let jane = Identity {
        certificate_pem: String::from_utf8(pem.unwrap()).unwrap(),
        key_pem,
    };
    let mut jane = Client::connect(&server, Some(&jane), true).await;
    let (_, refused) = jane.get("/api/v1/namespaces/y/pods").await;
    assert_eq!(
        refused["message"],
        r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "y""#
    );

    let (wanted, _) = asking("jim", "dev", "server auth");
    let (_, made) = admin.create(REQUESTS, &wanted).await;
    approve(&mut admin, made).await;
    let failed: fn(&Value) -> bool = |s| s["conditions"].as_array().is_some_and(|c| c.len() == 2);
    let status = answer(&mut admin, "jim", failed).await;
    assert_eq!(status["conditions"][1]["type"], "Failed");
    assert_eq!(
        status["conditions"][1]["message"],
        "invalid usage for client certificate: server auth"
    );
}

#[tokio::test]
async fn approving_needs_the_signer_too() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "approver"},
        "rules": [{"verbs": ["get", "update"], "apiGroups": ["certificates.k8s.io"],
            "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "approver"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "approver"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}],
    });
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (kind, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let (status, body) = admin.create(&format!("{rbac}/{kind}"), &object).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    let (wanted, _) = asking("joe", "dev", "client auth");
    let (_, made) = admin.create(REQUESTS, &wanted).await;
    let ann = server.pki.issue_client("ann", &[]).unwrap();
    let mut ann = Client::connect(&server, Some(&ann), true).await;
    let wait = async {
        // The index follows the store.
        while ann.get(&format!("{REQUESTS}/joe")).await.0 != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
    let (status, refused) = approve(&mut ann, made).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        r#"certificatesigningrequests.certificates.k8s.io "joe" is forbidden: user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client""#
    );

    let (wanted, _) = asking("eve", "system:masters", "client auth");
    let (status, refused) = admin.create(REQUESTS, &wanted).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        r#"certificatesigningrequests.certificates.k8s.io "eve" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"#
    );
}
