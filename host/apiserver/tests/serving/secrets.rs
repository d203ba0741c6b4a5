//! Tokens that live in Secrets: filled in, good while Secret and account live.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Client, TestServer};

const DEFAULT: &str = "/api/v1/namespaces/default";

fn filled(_: StatusCode, secret: &Value) -> bool {
    secret["data"]["token"].is_string()
}

fn decoded(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap());
    String::from_utf8(bytes.unwrap()).unwrap()
}

async fn review(admin: &mut Client, token: &str) -> Value {
    let asked = json!({"spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (_, body) = admin.create(path, &asked).await;
    body["status"].clone()
}

async fn secret(admin: &mut Client) -> Value {
    let object = json!({"type": "kubernetes.io/service-account-token",
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "builder"}}});
    let (status, body) = admin.create(&format!("{DEFAULT}/secrets"), &object).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    admin
        .get_until(&format!("{DEFAULT}/secrets/t"), filled)
        .await
}

#[tokio::test]
async fn a_token_lives_with_its_secret() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let account = json!({"metadata": {"name": "builder"}});
    let (_, account) = admin
        .create(&format!("{DEFAULT}/serviceaccounts"), &account)
        .await;
    let uid = &account["metadata"]["uid"];
    let found = secret(&mut admin).await;
    assert_eq!(decoded(&found, "ca.crt"), server.pki.ca_pem());
    assert_eq!(decoded(&found, "namespace"), "default");
    assert_eq!(
        found["metadata"]["annotations"]["kubernetes.io/service-account.uid"],
        *uid
    );
    let token = decoded(&found, "token");
    let status = review(&mut admin, &token).await;
    assert_eq!(
        status["user"],
        json!({"username": "system:serviceaccount:default:builder", "uid": uid, "groups": [
            "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]})
    );
    assert_eq!(
        status["audiences"],
        json!(["https://kubernetes.default.svc"])
    );
    let used = |_: StatusCode, secret: &Value| {
        secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string()
    };
    let path = format!("{DEFAULT}/secrets/t");
    let after = admin.get_until(&path, used).await;
    assert_eq!(decoded(&after, "token"), token);

    // Another Secret of the same name has another token.
    admin.call(Method::DELETE, &path, &[], "").await;
    assert_eq!(
        review(&mut admin, &token).await["error"],
        "[invalid bearer token, Token has been invalidated]"
    );
    let invalid =
        json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    let again = secret(&mut admin).await;
    let token = decoded(&again, "token");
    let patch = [("content-type", "application/merge-patch+json")];
    admin
        .call(Method::PATCH, &path, &patch, invalid.to_string())
        .await;
    let why = review(&mut admin, &token).await;
    let why = why["error"].as_str().unwrap();
    assert!(why.contains("the token in secret default/t for service account default/builder has been marked invalid."), "{why}");

    // With the account goes the Secret.
    let account = format!("{DEFAULT}/serviceaccounts/builder");
    admin.call(Method::DELETE, &account, &[], "").await;
    admin
        .get_until(&path, |status, _| status == StatusCode::NOT_FOUND)
        .await;
}
