//! What a review of access must look like; upstream's texts. Its refusals leave the kind out.

use oarlock_kinds::Row;
use oarlock_model::{ApiError, Cause, meta};
use oarlock_registry::Target;
use serde_json::{Value, json};

use super::text;
use crate::failure::Failure;

/// The namespace of the path goes into the review, which must not name another.
pub(super) fn namespace(target: &Target, review: &mut Value) -> Result<(), Failure> {
    let own = meta::namespace(review);
    if !own.is_empty() && own != target.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::set(review, "namespace", target.namespace.clone());
    Ok(())
}

/// A SubjectAccessReview, or its Self or Local form.
pub(super) fn access(
    row: &Row,
    review: &Value,
    spec: &Value,
    namespace: &str,
) -> Result<(), Failure> {
    let local = row.resource == "localsubjectaccessreviews";
    let resource = spec.get("resourceAttributes").filter(|v| v.is_object());
    let other = spec.get("nonResourceAttributes").filter(|v| v.is_object());
    let mut causes = Vec::new();
    match (resource, other) {
        (Some(_), Some(other)) => causes.push(Cause::invalid(
            "spec.nonResourceAttributes",
            &json!({"Path": text(other, "path"), "Verb": text(other, "verb")}),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => causes.push(Cause::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let is_self = row.resource == "selfsubjectaccessreviews";
    let groups = spec.get("groups").and_then(Value::as_array);
    if !is_self && text(spec, "user").is_empty() && groups.is_none_or(Vec::is_empty) {
        let why = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &json!(""), why));
    }
    if let Some(resource) = resource {
        for field in ["fieldSelector", "labelSelector"] {
            if let Some(of) = resource.get(field).filter(|v| v.is_object()) {
                selector(&mut causes, of, &format!("spec.resourceAttributes.{field}"));
            }
        }
    }
    let extra_metadata = review["metadata"].as_object().is_some_and(|metadata| {
        metadata
            .keys()
            .any(|key| !["namespace", "managedFields"].contains(&key.as_str()))
    });
    if extra_metadata {
        let detail = if local {
            "must be empty except for namespace"
        } else {
            "must be empty"
        };
        causes.push(Cause::invalid("metadata", &review["metadata"], detail));
    }
    if local {
        if let Some(wanted) = resource
            && text(wanted, "namespace") != namespace
        {
            causes.push(Cause::invalid(
                "spec.resourceAttributes.namespace",
                &json!(text(wanted, "namespace")),
                "must match metadata.namespace",
            ));
        }
        if let Some(other) = other {
            causes.push(Cause::invalid(
                "spec.nonResourceAttributes",
                &json!({"Path": text(other, "path"), "Verb": text(other, "verb")}),
                "disallowed on this kind of request",
            ));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&row.group, "", "", causes).into())
}

fn selector(causes: &mut Vec<Cause>, selector: &Value, at: &str) {
    let raw = text(selector, "rawSelector");
    let requirements = selector.get("requirements").and_then(Value::as_array);
    let count = requirements.map_or(0, Vec::len);
    if !raw.is_empty() && count > 0 {
        causes.push(Cause::invalid(
            format!("{at}.rawSelector"),
            &json!(raw),
            "may not specified at the same time as requirements",
        ));
    }
    if raw.is_empty() && count == 0 {
        causes.push(Cause::required(
            format!("{at}.requirements"),
            &format!("when {at} is specified, requirements or rawSelector is required"),
        ));
    }
    for (i, requirement) in requirements.into_iter().flatten().enumerate() {
        let at = format!("{at}.requirements[{i}]");
        let values = requirement.get("values").and_then(Value::as_array);
        let given = values.is_some_and(|v| !v.is_empty());
        match text(requirement, "operator") {
            "In" | "NotIn" if !given => causes.push(Cause::required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if given => causes.push(Cause::forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "" => causes.push(Cause::required(
                format!("{at}.operator"),
                "a valid selector operator must be specified",
            )),
            _ => {}
        }
        if text(requirement, "key").is_empty() {
            causes.push(Cause::required(format!("{at}.key"), "must be specified"));
        }
    }
}
