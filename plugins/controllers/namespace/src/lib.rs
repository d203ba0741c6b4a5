//! Empties namespaces that are being deleted, and lets them go.
//! Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/ and the Namespace API's conditions.

use controller_kit::{Condition, Meta, time};
use oarlock_sdk::controller::{
    Cluster, DeleteOptions, Description, Error, Key, Outcome, Permission, Query, Reconciler, Watch,
};
use serde::Deserialize;
use serde_json::{Value, json};

const NAMESPACES: &str = "v1/namespaces";
const FINALIZER: &str = "kubernetes";
/// How soon what is still there is looked at again.
const RETRY_MS: u64 = 300;

#[derive(Debug, Default)]
pub struct NamespaceController;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Namespace {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    finalizers: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    metadata: Meta,
}

/// What is left of one kind.
struct Left {
    /// `pods.` or `deployments.apps`, as the conditions' messages name it.
    resource: String,
    count: usize,
    finalizers: Vec<String>,
}

impl Reconciler for NamespaceController {
    fn describe(&self) -> Description {
        let watches = vec![
            Watch::of(NAMESPACES).relevant(&["/metadata/deletionTimestamp", "/spec/finalizers"]),
        ];
        let permissions = vec![Permission::to("*", "*", "*")];
        Description::new("namespace-controller", watches, permissions).concurrent(2)
    }

    fn reconcile(&self, cluster: &Cluster<'_>, key: &Key) -> Result<Outcome, Error> {
        let Some(namespace) = cluster.get_as::<Namespace>(NAMESPACES, key)? else {
            return Ok(Outcome::Done);
        };
        if !namespace.metadata.terminating()
            || !namespace.spec.finalizers.iter().any(|f| f == FINALIZER)
        {
            return Ok(Outcome::Done);
        }
        let left = empty(cluster, &key.name)?;
        if !left.is_empty() {
            report(cluster, key, &namespace, &left)?;
            return Ok(Outcome::RequeueAfter(RETRY_MS));
        }
        let Some(mut object) = cluster.get_live_as::<Value>(NAMESPACES, key)? else {
            return Ok(Outcome::Done);
        };
        if let Some(finalizers) = object
            .pointer_mut("/spec/finalizers")
            .and_then(Value::as_array_mut)
        {
            finalizers.retain(|f| f != FINALIZER);
        }
        match cluster.update_as::<Value>(NAMESPACES, "finalize", &object) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

/// Deletes everything in the namespace; gives what is still there.
fn empty(cluster: &Cluster<'_>, namespace: &str) -> Result<Vec<Left>, Error> {
    let mut left = Vec::new();
    for kind in cluster
        .raw()
        .discover()
        .into_iter()
        .filter(|r| r.namespaced && r.deletable)
    {
        let query = Query::namespace(namespace).parts(&[
            "/metadata/name",
            "/metadata/namespace",
            "/metadata/deletionTimestamp",
            "/metadata/finalizers",
        ]);
        let objects: Vec<Content> = match cluster.list_as(&kind.resource, &query) {
            Err(error) if matches!(error.code(), 404 | 405) => continue,
            other => other?,
        };
        if objects.is_empty() {
            continue;
        }
        let doomed: Vec<Key> = objects
            .iter()
            .filter(|o| !o.metadata.terminating())
            .map(|o| o.metadata.key())
            .collect();
        let results = cluster
            .raw()
            .delete_many(&kind.resource, &doomed, &DeleteOptions::default());
        let refused = results
            .into_iter()
            .filter_map(Result::err)
            .find(|failure| failure.code != 404);
        if let Some(failure) = refused {
            return Err(failure.into());
        }
        let finalizers = objects
            .iter()
            .flat_map(|o| o.metadata.finalizers.clone())
            .collect();
        left.push(Left {
            resource: shown(&kind.resource),
            count: objects.len(),
            finalizers,
        });
    }
    Ok(left)
}

/// `apps/v1/deployments` as `deployments.apps`, `v1/pods` as `pods.`.
fn shown(resource: &str) -> String {
    let mut parts = resource.rsplit('/');
    let name = parts.next().unwrap_or_default();
    let group = parts.nth(1).unwrap_or_default();
    format!("{name}.{group}")
}

/// Writes the conditions that tell what keeps the namespace.
fn report(
    cluster: &Cluster<'_>,
    key: &Key,
    namespace: &Namespace,
    left: &[Left],
) -> Result<(), Error> {
    let content: Vec<String> = left
        .iter()
        .map(|l| format!("{} has {} resource instances", l.resource, l.count))
        .collect();
    let mut by_finalizer: Vec<(String, usize)> = Vec::new();
    for finalizer in left.iter().flat_map(|l| &l.finalizers) {
        match by_finalizer.iter_mut().find(|(name, _)| name == finalizer) {
            Some((_, count)) => *count += 1,
            None => by_finalizer.push((finalizer.clone(), 1)),
        }
    }
    let held: Vec<String> = by_finalizer
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    let now = time::now();
    let fine = |kind: &str, reason: &str, message: &str| {
        Condition::new(kind, "False", reason, message, &now)
    };
    let conditions = vec![
        fine(
            "NamespaceDeletionDiscoveryFailure",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        fine(
            "NamespaceDeletionGroupVersionParsingFailure",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        fine(
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        Condition::new(
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {}", content.join(", ")),
            &now,
        ),
        match held.is_empty() {
            true => fine(
                "NamespaceFinalizersRemaining",
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
            false => Condition::new(
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    held.join(", ")
                ),
                &now,
            ),
        },
    ];
    let same = |a: &Condition, b: &Condition| {
        a.kind == b.kind && a.status == b.status && a.message == b.message
    };
    let old = &namespace.status.conditions;
    if old.len() == conditions.len() && conditions.iter().all(|c| old.iter().any(|o| same(o, c))) {
        return Ok(());
    }
    match cluster.merge_status(
        NAMESPACES,
        key,
        &json!({"status": {"conditions": conditions}}),
    ) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

oarlock_sdk::export_controller!(NamespaceController);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_kinds() {
        assert_eq!(shown("v1/pods"), "pods.");
        assert_eq!(shown("apps/v1/deployments"), "deployments.apps");
    }
}
