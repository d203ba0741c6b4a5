//! The cluster's own signers at work: approved requests for certificates get one, or learn why not. It lives in the server,
//! because that holds the CA's key; who may have a certificate at all is decided by whoever approves (for kubelets: `approving`).
//!
//! Cost: one watch of one kind; a signature for each approved request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason, meta, time};
use oarlock_registry::{Body, Context, EventType, Registry, Target, User, WatchOptions};
use serde_json::{Value, json};

use crate::approving::{self, Outcome};
use crate::pki::Pki;
use crate::pki::request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Wanted};

const GROUP: &str = "certificates.k8s.io";
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is asked again whether a request may be approved.
const RETRY: Duration = Duration::from_secs(5);

/// Signs until the registry closes or the future is dropped.
pub async fn sign_requests(registry: Arc<Registry>, pki: Arc<Pki>) {
    let Some(row) = registry
        .kinds()
        .resource(GROUP, "v1", "certificatesigningrequests")
    else {
        return;
    };
    loop {
        let Err(error) = follow(&registry, &pki, &row).await;
        if error.reason == Reason::ServiceUnavailable {
            return;
        }
        tracing::warn!(%error, "watching requests for certificates ended, starting over");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(
    registry: &Registry,
    pki: &Pki,
    row: &Arc<Row>,
) -> ApiResult<std::convert::Infallible> {
    let all = Target::new(row, "", "");
    // Those that are there come first.
    let options = WatchOptions::default();
    let mut events = registry.watch(&context(), &all, &options).await?;
    // Kubelets' requests that may not be approved yet, by name.
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    loop {
        let batch = tokio::time::timeout(RETRY, events.next_batch()).await;
        let mut objects = Vec::new();
        for item in batch.unwrap_or_else(|_| Ok(Vec::new()))? {
            if matches!(item.kind, EventType::Added | EventType::Modified) {
                objects.push(item.object);
            }
        }
        if objects.is_empty() {
            let again = std::mem::take(&mut waiting);
            let found = again.iter().filter_map(|name| registry.peek(row, "", name));
            objects.extend(found);
        }
        for object in objects {
            let object = object.to_value().map_err(ApiError::internal)?;
            let now = Timestamp::now();
            let authorizer = registry.authorizer().map(|authorizer| &**authorizer);
            let (done, subresource) = match approving::judge(&object, authorizer, now) {
                Outcome::Approved(object) => (*object, "approval"),
                Outcome::NotYet => {
                    waiting.insert(meta::name(&object).to_owned());
                    continue;
                }
                Outcome::Nothing => match answered(pki, &object, now) {
                    Some(object) => (object, "status"),
                    None => continue,
                },
            };
            let mut target = Target::new(row, "", meta::name(&object));
            subresource.clone_into(&mut target.subresource);
            // A conflict means another change, and so another event.
            if let Err(error) = registry
                .update(&context(), &target, Body::Value(done))
                .await
                && !matches!(error.reason, Reason::Conflict | Reason::NotFound)
            {
                tracing::warn!(request = meta::name(&object), %error, "cannot answer a request for a certificate");
            }
        }
    }
}

/// Edge: the signer's writes have a time.
fn context() -> Context {
    let user = User {
        name: oarlock_auth::account_user("kube-system", "certificate-controller"),
        groups: vec![oarlock_auth::MASTERS.to_owned()],
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), Timestamp::now());
    "kube-controller-manager".clone_into(&mut ctx.field_manager);
    ctx
}

/// The request with its certificate or its failure; `None`: there is nothing to do.
fn answered(pki: &Pki, object: &Value, now: Timestamp) -> Option<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |kind: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|c| c["type"] == kind && c["status"] == "True")
    };
    let signed = status["certificate"]
        .as_str()
        .is_some_and(|c| !c.is_empty());
    let signer = spec["signerName"].as_str().unwrap_or_default();
    let ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY].contains(&signer);
    if signed || !ours || !has("Approved") || has("Denied") || has("Failed") {
        return None;
    }
    let bytes = STANDARD.decode(spec["request"].as_str().unwrap_or_default());
    let request_pem = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
    let usages: Vec<&str> = spec["usages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let wanted = Wanted {
        signer,
        request_pem: &request_pem,
        usages: &usages,
        seconds: spec["expirationSeconds"].as_i64(),
    };
    let mut object = object.clone();
    match pki.sign(&wanted, now) {
        Ok(pem) => object["status"]["certificate"] = json!(STANDARD.encode(pem)),
        Err(why) => {
            let at = time::format_time(now);
            let failed = json!({
                "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why,
                "lastUpdateTime": at, "lastTransitionTime": at,
            });
            object["status"]["conditions"].as_array_mut()?.push(failed);
        }
    }
    Some(object)
}
