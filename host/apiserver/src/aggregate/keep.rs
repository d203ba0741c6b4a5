//! What the server itself writes for aggregation: an APIService for each group version that is served here, the condition
//! `Available` of each, and the config map that tells other servers whom to believe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use oarlock_kinds::Row;
use oarlock_model::{ApiResult, Reason, meta, time};
use oarlock_registry::{Body, DeleteOptions, Registry, Target};
use serde_json::{Value, json};

use super::available::Problem;
use super::{PROXY_USER, context, is_named, name_of};

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const NAMESPACE: &str = "kube-system";
const AUTHENTICATION: &str = "extension-apiserver-authentication";
/// Priorities of groups that definitions make, and of their versions.
const CUSTOM_GROUP: i64 = 1000;
const CUSTOM_VERSION: i64 = 100;

/// `extension-apiserver-authentication` in `kube-system`, as it must be.
pub(super) async fn authentication(registry: &Arc<Registry>, ca: &str) -> ApiResult<()> {
    let kinds = registry.kinds();
    let Some(row) = kinds.resource("", "v1", "configmaps") else {
        return Ok(());
    };
    let data = json!({
        "client-ca-file": ca,
        "requestheader-allowed-names": json!([PROXY_USER]).to_string(),
        "requestheader-client-ca-file": ca,
        "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
        "requestheader-username-headers": r#"["X-Remote-User"]"#,
    });
    let found = registry
        .peek(&row, NAMESPACE, AUTHENTICATION)
        .and_then(|stored| stored.to_value().ok());
    if found.as_ref().is_some_and(|found| found["data"] == data) {
        return Ok(());
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": AUTHENTICATION, "namespace": NAMESPACE}, "data": data,
    });
    let target = Target::new(&row, NAMESPACE, AUTHENTICATION);
    if found.is_some() {
        registry
            .update(&context(), &target, Body::Value(object))
            .await?;
    } else {
        let target = Target::new(&row, NAMESPACE, "");
        registry
            .create(&context(), &target, Body::Value(object))
            .await?;
    }
    Ok(())
}

/// Makes the APIServices of what is served here, and removes those of what no longer is.
pub(super) async fn local(registry: &Arc<Registry>, row: &Arc<Row>, objects: &[Value]) {
    let kinds = registry.kinds();
    let mut wanted: BTreeMap<(String, String), bool> = BTreeMap::new();
    for of in kinds.rows() {
        let custom = of.custom.is_some();
        wanted.insert((of.group.clone(), of.version.clone()), custom);
    }
    let mut names = BTreeSet::new();
    for ((group, version), custom) in &wanted {
        let name = name_of(group, version);
        names.insert(name.clone());
        let found = objects.iter().find(|o| is_named(o, &name));
        match found {
            // Somebody has given the group version to another server.
            Some(found) if found["spec"]["service"].is_object() => {}
            Some(found) => condition(registry, row, found, None).await,
            None => make(registry, row, group, version, *custom).await,
        }
    }
    for object in objects {
        let managed = meta::labels(object).is_some_and(|labels| labels.contains_key(AUTOMANAGED));
        if managed && !names.contains(meta::name(object)) {
            let target = Target::new(row, "", meta::name(object));
            let gone = registry
                .delete(&context(), &target, &DeleteOptions::default())
                .await;
            report(gone.map(drop), meta::name(object));
        }
    }
}

async fn make(registry: &Arc<Registry>, row: &Arc<Row>, group: &str, version: &str, custom: bool) {
    let (group_priority, version_priority) = priorities(group, version, custom);
    let managed = if custom { "true" } else { "onstart" };
    let name = name_of(group, version);
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": {AUTOMANAGED: managed}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        },
    });
    let object: Value = object;
    let made = registry
        .create(&context(), &Target::new(row, "", ""), Body::Value(object))
        .await;
    match made.map(|stored| stored.to_value()) {
        Ok(Ok(made)) => condition(registry, row, &made, None).await,
        Ok(Err(_)) => {}
        Err(error) => report(Err(error), &name),
    }
}

fn priorities(group: &str, version: &str, custom: bool) -> (i64, i64) {
    if custom {
        return (CUSTOM_GROUP, CUSTOM_VERSION);
    }
    let of_group = match group {
        "" => 18_000,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" | "apps" | "authorization.k8s.io" => 17_700,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "admissionregistration.k8s.io" | "apiextensions.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        _ => 16_000,
    };
    let stable = !version.contains("alpha") && !version.contains("beta");
    let of_version = match (group, version) {
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        _ if stable => 15,
        _ if version.contains("beta") => 9,
        _ => 1,
    };
    (of_group, of_version)
}

/// Writes the condition `Available` where it says something else.
pub(super) async fn condition(
    registry: &Arc<Registry>,
    row: &Arc<Row>,
    object: &Value,
    problem: Option<Problem>,
) {
    let is_local = !object["spec"]["service"].is_object();
    let (status, reason, message) = match &problem {
        Some(Problem(reason, message)) => ("False", *reason, message.as_str()),
        None if is_local => ("True", "Local", "Local APIServices are always available"),
        None => ("True", "Passed", "all checks passed"),
    };
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Available");
    if found
        .is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message)
    {
        return;
    }
    let since = match found {
        Some(found) if found["status"] == status => found["lastTransitionTime"].clone(),
        _ => json!(time::format_time(Timestamp::now())),
    };
    let mut wanted = object.clone();
    wanted["status"] = json!({"conditions": [{
        "type": "Available", "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    }]});
    let target = Target::sub(row, "", meta::name(object), "status");
    let written = registry
        .update(&context(), &target, Body::Value(wanted))
        .await;
    report(written.map(drop), meta::name(object));
}

/// A conflict means another change, and so another look.
fn report(done: ApiResult<()>, name: &str) {
    if let Err(error) = done
        && !matches!(
            error.reason,
            Reason::Conflict | Reason::NotFound | Reason::AlreadyExists
        )
    {
        tracing::warn!(name, %error, "cannot write an APIService");
    }
}
