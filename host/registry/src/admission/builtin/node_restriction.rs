//! What a node may write: its own objects, mirror pods of its own, the states of its pods and claims, tokens for its pods.
//!
//! Cost: for whoever is no node, one look at the first letters of the user's name. Certificate requests of nodes are looked
//! at where they can be read (`apiserver`).
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>

mod token;

use async_trait::async_trait;
use oarlock_model::{ApiError, ApiResult, meta, pod_references};
use serde_json::Value;

use super::{MIRROR, list, members, one, spec_text};
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, User};

const LEASES: &str = "kube-node-lease";
/// Whose labels a node never sets.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Of Kubernetes' own labels, those that a kubelet sets.
const KUBELET_LABELS: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const KUBERNETES_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
/// What a node writes into the status of a claim, besides what nobody compares.
const CLAIM_STATUS: [&str; 4] = [
    "allocatedResourceStatuses",
    "allocatedResources",
    "capacity",
    "conditions",
];

#[derive(Debug)]
pub(super) struct NodeRestriction;

type Outcome = Result<(), String>;

fn refused(why: &str) -> Outcome {
    Err(why.to_owned())
}

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        let row = &target.row;
        operation != Operation::Connect
            && matches!(
                (row.group.as_str(), row.resource.as_str()),
                (
                    "",
                    "pods" | "nodes" | "persistentvolumeclaims" | "serviceaccounts"
                ) | ("coordination.k8s.io", "leases")
                    | ("storage.k8s.io", "csinodes")
                    | ("resource.k8s.io", "resourceslices")
            )
    }

    fn concerns(&self, user: &User) -> bool {
        user.node().is_some()
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let Some(node) = request.context.user.node() else {
            return Ok(());
        };
        let by_kind = if node.is_empty() {
            let user = &request.context.user.name;
            Ok(Err(format!("could not determine node from user {user:?}")))
        } else {
            judge(registry, request, node)
        };
        let (row, name) = (&request.target.row, &request.target.name);
        by_kind?.map_err(|why| ApiError::forbidden(&row.group, &row.resource, name, &why))
    }
}

/// The outer error is an answer of its own: something is not there.
fn judge(registry: &Registry, request: &AdmissionRequest<'_>, node: &str) -> ApiResult<Outcome> {
    let (target, operation) = (request.target, request.operation);
    let subresource = target.subresource.as_str();
    let (new, old) = (request.object.as_deref(), request.old);
    let (new, old) = (new.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
    Ok(match (target.row.resource.as_str(), subresource) {
        ("pods", "") => match operation {
            Operation::Create => return mirror(registry, node, new),
            Operation::Delete if spec_text(old, "nodeName") != node => Err(format!(
                "node {node:?} can only delete pods with spec.nodeName set to itself"
            )),
            Operation::Delete => Ok(()),
            _ => Err(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                operation.as_str()
            )),
        },
        ("pods", "status") => pod_status(node, new, old),
        ("pods", "eviction") => {
            let pod = pod(registry, target, &target.name)?;
            if spec_text(&pod, "nodeName") == node {
                Ok(())
            } else {
                Err(format!(
                    "node {node} can only evict pods with spec.nodeName set to itself"
                ))
            }
        }
        ("pods", other) => Err(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
        ("nodes", _) => own_node(node, target, operation, new, old),
        ("persistentvolumeclaims", "status") => claim_status(node, new, old),
        ("persistentvolumeclaims", _) => refused("may only update PVC status"),
        ("serviceaccounts", "token") if operation == Operation::Create => {
            return token::judge(registry, request, node, new);
        }
        ("leases", _) if target.namespace != LEASES => Err(format!(
            "can only access leases in the {LEASES:?} system namespace"
        )),
        ("leases", _) if target.name != node => {
            refused("can only access node lease with the same name as the requesting node")
        }
        ("csinodes", _) if target.name != node => {
            refused("can only access CSINode with the same name as the requesting node")
        }
        ("resourceslices", _) => match operation {
            Operation::Create if spec_text(new, "nodeName") != node => refused(
                "can only create ResourceSlice with the same NodeName as the requesting node",
            ),
            Operation::Delete if spec_text(old, "nodeName") != node => refused(
                "can only delete ResourceSlice with the same NodeName as the requesting node",
            ),
            _ => Ok(()),
        },
        _ => Ok(()),
    })
}

/// A pod of the target's namespace; upstream's caches say `pod`, not `pods`.
fn pod(registry: &Registry, target: &Target, name: &str) -> ApiResult<Value> {
    one(registry, "", "pods", &target.namespace, name)
        .ok_or_else(|| ApiError::not_found("", "pod", name))
}

/// A node makes no pods but such as mirror its own files, and these name nothing of the cluster's.
fn mirror(registry: &Registry, node: &str, pod: &Value) -> ApiResult<Outcome> {
    if meta::annotation(pod, MIRROR).is_none() {
        return Ok(Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        )));
    }
    let only = |what: &str| {
        Ok(Err(format!(
            "node {node:?} can only create pods with {what}"
        )))
    };
    if spec_text(pod, "nodeName") != node {
        return only("spec.nodeName set to itself");
    }
    let owner = match list(pod, "/metadata/ownerReferences") {
        [owner] => owner,
        [] => return only("an owner reference set to itself"),
        _ => return only("a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return only("an owner reference set to itself");
    }
    if owner["controller"] != true {
        return only("a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return Ok(Err(format!(
            "node {node:?} must not set blockOwnerDeletion on an owner reference"
        )));
    }
    let found = one(registry, "", "nodes", "", node)
        .ok_or_else(|| ApiError::not_found("", "node", node))?;
    let uid = owner["uid"].as_str().unwrap_or_default();
    if uid != meta::uid(&found) {
        let own = meta::uid(&found);
        return Ok(Err(format!(
            "node {node} UID mismatch: expected {uid} got {own}"
        )));
    }
    let volumes = |has: fn(&Value) -> bool| pod_references::volumes(pod).any(has);
    let what = if !spec_text(pod, "serviceAccountName").is_empty() {
        "a service account"
    } else if !pod_references::secrets(pod).is_empty() {
        "secrets"
    } else if !pod_references::config_maps(pod).is_empty() {
        "configmaps"
    } else if volumes(|volume| {
        list(volume, "/projected/sources")
            .iter()
            .any(|source| source["clusterTrustBundle"].is_object())
    }) {
        "clustertrustbundles"
    } else if volumes(|volume| volume["persistentVolumeClaim"].is_object()) {
        "persistentvolumeclaims"
    } else {
        return Ok(Ok(()));
    };
    Ok(Err(format!(
        "node {node:?} can not create pods that reference {what}"
    )))
}

/// Nobody makes a mirror pod that has credentials, a node or not.
pub(super) fn credentials_of_mirror(pod: &Value) -> Option<&'static str> {
    let token = |volume: &Value| {
        list(volume, "/projected/sources")
            .iter()
            .any(|source| source["serviceAccountToken"].is_object())
    };
    if !spec_text(pod, "serviceAccountName").is_empty() {
        Some("a mirror pod may not reference service accounts")
    } else if !pod_references::secrets(pod).is_empty() {
        Some("a mirror pod may not reference secrets")
    } else if pod_references::volumes(pod).any(token) {
        Some("a mirror pod may not use ServiceAccountToken volume projections")
    } else {
        None
    }
}

fn pod_status(node: &str, new: &Value, old: &Value) -> Outcome {
    if spec_text(old, "nodeName") != node {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !changed_labels(new, old).is_empty() {
        return Err(format!(
            "node {node:?} cannot update labels through pod status"
        ));
    }
    if claims_made(new) != claims_made(old) {
        return Err(format!(
            "node {node:?} cannot update resource claim statues"
        ));
    }
    let extended = |pod: &Value| pod["status"]["extendedResourceClaimStatus"].clone();
    if extended(new) != extended(old) {
        return Err(format!(
            "node {node:?} cannot update extended resource claim status"
        ));
    }
    Ok(())
}

/// The claims that were made for a pod, in order.
fn claims_made(pod: &Value) -> Vec<(&Value, &Value)> {
    list(pod, "/status/resourceClaimStatuses")
        .iter()
        .map(|made| (&made["name"], &made["resourceClaimName"]))
        .collect()
}

fn own_node(
    node: &str,
    target: &Target,
    operation: Operation,
    new: &Value,
    old: &Value,
) -> Outcome {
    let name = &target.name;
    if name != node {
        return Err(format!(
            "node {node:?} is not allowed to modify node {name:?}"
        ));
    }
    let source = |of: &Value| of["spec"]["configSource"].clone();
    match operation {
        Operation::Create => {
            if !source(new).is_null() {
                return Err(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let labels = forbidden_labels(new, &Value::Null);
            if !labels.is_empty() {
                return Err(format!(
                    "node {node:?} is not allowed to set the following labels: {}",
                    labels.join(", ")
                ));
            }
        }
        Operation::Update => {
            if !source(new).is_null() && source(new) != source(old) {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            for (at, what) in [
                ("/spec/taints", "taints"),
                ("/metadata/ownerReferences", "ownerReferences"),
            ] {
                if list(new, at) != list(old, at) {
                    return Err(format!("node {node:?} is not allowed to modify {what}"));
                }
            }
            let labels = forbidden_labels(new, old);
            if !labels.is_empty() {
                return Err(format!(
                    "is not allowed to modify labels: {}",
                    labels.join(", ")
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Labels that differ, sorted.
fn changed_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let of = |object: &'a Value| members(object, "/metadata/labels");
    let (new, old) = (of(new), of(old));
    let mut changed: Vec<&str> = new
        .iter()
        .filter(|label| !old.contains(label))
        .chain(old.iter().filter(|label| !new.contains(label)))
        .map(|(key, _)| *key)
        .collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn forbidden_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let mut labels = changed_labels(new, old);
    labels.retain(|label| {
        let domain = label.split_once('/').map_or("", |(domain, _)| domain);
        let kubernetes = KUBERNETES_DOMAINS.iter().any(|of| within(domain, of));
        let kubelet =
            KUBELET_LABELS.contains(label) || KUBELET_DOMAINS.iter().any(|of| within(domain, of));
        within(domain, RESTRICTED) || (kubernetes && !kubelet)
    });
    labels
}

/// Whether a domain is another, or one of its own.
fn within(domain: &str, of: &str) -> bool {
    domain
        .strip_suffix(of)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Upstream appends a difference in Go's notation; this one names the fields that differ.
fn claim_status(node: &str, new: &Value, old: &Value) -> Outcome {
    let compared = |claim: &Value| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            meta::metadata_mut(&mut claim).remove(field);
        }
        if let Some(status) = claim.get_mut("status").and_then(Value::as_object_mut) {
            status.retain(|field, _| !CLAIM_STATUS.contains(&field.as_str()));
        }
        claim
    };
    let (new, old) = (compared(new), compared(old));
    let mut different = Vec::new();
    for part in ["metadata", "spec", "status"] {
        let fields = |of: &Value| of[part].as_object().cloned().unwrap_or_default();
        let (new, old) = (fields(&new), fields(&old));
        let mut names: Vec<&String> = new.keys().chain(old.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let differs = |name: &&&String| new.get(**name) != old.get(**name);
        different.extend(
            names
                .iter()
                .filter(differs)
                .map(|name| format!("{part}.{name}")),
        );
    }
    if different.is_empty() {
        return Ok(());
    }
    Err(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions: {}",
        different.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_of_a_node() {
        let labelled = |labels: Value| json!({"metadata": {"labels": labels}});
        let old = labelled(
            json!({"kubernetes.io/hostname": "a", "role": "x", "node-restriction.kubernetes.io/a": "1"}),
        );
        let new = labelled(json!({
            "kubernetes.io/hostname": "b", "team": "y", "kubernetes.io/role": "master",
            "x.node.kubernetes.io/y": "1", "kubelet.kubernetes.io/z": "1", "a.k8s.io/b": "1", "xk8s.io/c": "1",
            "sub.node-restriction.kubernetes.io/q": "1",
        }));
        assert_eq!(
            forbidden_labels(&new, &old),
            [
                "a.k8s.io/b",
                "kubernetes.io/role",
                "node-restriction.kubernetes.io/a",
                "sub.node-restriction.kubernetes.io/q",
            ]
        );
    }

    #[test]
    fn the_status_of_a_claim() {
        let old = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound"}});
        let mut new = old.clone();
        new["status"]["capacity"] = json!({"storage": "1Gi"});
        new["status"]["conditions"] = json!([]);
        assert_eq!(claim_status("n", &new, &old), Ok(()));
        new["status"]["phase"] = json!("Lost");
        new["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(
            claim_status("n", &new, &old).unwrap_err(),
            r#"node "n" is not allowed to update fields other than status.quantity and status.conditions: metadata.labels, status.phase"#
        );
    }
}
