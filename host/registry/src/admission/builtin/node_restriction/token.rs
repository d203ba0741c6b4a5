//! Tokens that a node asks for: bound to one of its pods, for an audience that the pod names or that the node was granted.

use oarlock_model::{ApiResult, meta, pod_references};
use serde_json::Value;

use super::{Outcome, pod, refused};
use crate::admission::AdmissionRequest;
use crate::admission::builtin::{list, one, spec_text};
use crate::{AuthorizationAttributes, Registry};

const GRANTED: &str = "request-serviceaccounts-token-audience";

pub(super) fn judge(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
    node: &str,
    asked: &Value,
) -> ApiResult<Outcome> {
    let bound = &asked["spec"]["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    let (name, uid) = (text("name"), text("uid"));
    if text("apiVersion") != "v1" || text("kind") != "Pod" || name.is_empty() {
        return Ok(refused("node requested token not bound to a pod"));
    }
    if uid.is_empty() {
        return Ok(refused(
            "node requested token with a pod binding without a uid",
        ));
    }
    let pod = pod(registry, request.target, name)?;
    if uid != meta::uid(&pod) {
        return Ok(Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if spec_text(&pod, "nodeName") != node {
        return Ok(refused(
            "node requested token bound to a pod scheduled on a different node",
        ));
    }
    Ok(audience(registry, request, &pod, asked))
}

fn audience(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
    pod: &Value,
    asked: &Value,
) -> Outcome {
    let audience = match list(asked, "/spec/audiences") {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refused("node may only request 0 or 1 audiences"),
    };
    match named_by(registry, pod, audience) {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(why) => return Err(format!("error validating audience {audience:?}: {why}")),
    }
    let (user, target) = (&request.context.user, request.target);
    let granted = AuthorizationAttributes {
        verb: GRANTED.to_owned(),
        resource: audience.to_owned(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        ..AuthorizationAttributes::default()
    };
    if registry
        .authorizer()
        .is_some_and(|authorizer| authorizer.decide(user, &granted).allowed)
    {
        return Ok(());
    }
    Err(format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        user.name
    ))
}

/// Whether a volume of the pod is to have a token for this audience: by itself, or by its driver.
fn named_by(registry: &Registry, pod: &Value, audience: &str) -> Result<bool, String> {
    let is = |of: &Value| of["audience"].as_str().unwrap_or_default() == audience;
    let mut problems = Vec::new();
    for volume in pod_references::volumes(pod) {
        let projected = list(volume, "/projected/sources").iter().any(|source| {
            source["serviceAccountToken"].is_object() && is(&source["serviceAccountToken"])
        });
        if projected {
            return Ok(true);
        }
        let driver = match pod_references::claim(pod, volume) {
            Some(claim) => match driver_of_claim(registry, meta::namespace(pod), &claim) {
                Ok(driver) => driver,
                Err(why) => {
                    problems.push(why);
                    continue;
                }
            },
            None => volume["csi"]["driver"].as_str().map(str::to_owned),
        };
        let has = driver
            .and_then(|name| one(registry, "storage.k8s.io", "csidrivers", "", &name))
            .is_some_and(|driver| list(&driver, "/spec/tokenRequests").iter().any(is));
        if has {
            return Ok(true);
        }
    }
    if problems.is_empty() {
        return Ok(false);
    }
    Err(super::super::aggregate(&problems))
}

/// The driver of the volume that a claim is bound to.
fn driver_of_claim(
    registry: &Registry,
    namespace: &str,
    claim: &str,
) -> Result<Option<String>, String> {
    let found = one(registry, "", "persistentvolumeclaims", namespace, claim)
        .ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
    let name = spec_text(&found, "volumeName");
    let volume = one(registry, "", "persistentvolumes", "", name)
        .ok_or_else(|| format!("persistentvolume {name:?} not found"))?;
    Ok(volume["spec"]["csi"]["driver"].as_str().map(str::to_owned))
}
