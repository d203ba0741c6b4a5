//! The status of ValidatingAdmissionPolicies: warnings about expressions that do not fit the kinds that they are about. A
//! controller's work upstream; it lives here, because the checker and the schemas do.
//!
//! Cost: one watch of one kind; some milliseconds and a write for each change of a policy's spec.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_registry::{
    Body, Context, EventType, Registry, Target, User, WatchOptions, expression_warnings,
};
use serde_json::{Value, json};

const GROUP: &str = "admissionregistration.k8s.io";
const MANAGER: &str = "validatingadmissionpolicy-status";
const PAUSE: Duration = Duration::from_secs(1);

/// Checks until the registry closes or the future is dropped.
pub async fn check_policies(registry: Arc<Registry>) {
    let row = registry
        .kinds()
        .resource(GROUP, "v1", "validatingadmissionpolicies");
    let Some(row) = row else {
        return;
    };
    loop {
        let Err(error) = follow(&registry, &row).await;
        if error.reason == Reason::ServiceUnavailable {
            return;
        }
        tracing::warn!(%error, "watching admission policies ended, starting over");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(registry: &Registry, row: &Arc<Row>) -> ApiResult<std::convert::Infallible> {
    let all = Target::new(row, "", "");
    // Those that are there come first.
    let options = WatchOptions::default();
    let mut events = registry.watch(&context(), &all, &options).await?;
    loop {
        for item in events.next_batch().await? {
            if !matches!(item.kind, EventType::Added | EventType::Modified) {
                continue;
            }
            let policy = item.object.to_value().map_err(ApiError::internal)?;
            let Some(checked) = checked(registry, policy) else {
                continue;
            };
            let name = meta::name(&checked).to_owned();
            let mut target = Target::new(row, "", &name);
            "status".clone_into(&mut target.subresource);
            // A conflict means another change, and so another event.
            if let Err(error) = registry
                .update(&context(), &target, Body::Value(checked))
                .await
                && !matches!(error.reason, Reason::Conflict | Reason::NotFound)
            {
                tracing::warn!(policy = name, %error, "cannot write what is to be said of an admission policy");
            }
        }
    }
}

/// Edge: the writes have a time.
fn context() -> Context {
    let user = User {
        name: oarlock_auth::account_user(
            "kube-system",
            "validatingadmissionpolicy-status-controller",
        ),
        groups: vec![oarlock_auth::MASTERS.to_owned()],
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), Timestamp::now());
    MANAGER.clone_into(&mut ctx.field_manager);
    ctx
}

/// The policy with its new status; `None`: this generation has been looked at.
fn checked(registry: &Registry, mut policy: Value) -> Option<Value> {
    let generation = meta::generation(&policy);
    let seen = policy["status"]["observedGeneration"].as_i64();
    if seen.unwrap_or(0) >= generation {
        return None;
    }
    let warnings = expression_warnings(&registry.kinds(), &policy);
    let checking = if warnings.is_empty() {
        json!({})
    } else {
        json!({"expressionWarnings": warnings})
    };
    policy["status"]["typeChecking"] = checking;
    policy["status"]["observedGeneration"] = json!(generation);
    Some(policy)
}
