//! Reviews: kinds whose creation asks a question about who and may, answers it, and keeps nothing.
//! `kubectl auth whoami` and `kubectl auth can-i` live on them.

mod checks;

use http::StatusCode;
use oarlock_kinds::Row;
use oarlock_registry::{Body, Context, Target, User};
use oarlock_schema::{decode, decode_value};
use serde_json::{Map, Value, json};

use oarlock_model::selector::FieldRequirement;
use oarlock_model::{FieldSelector, meta, time};

use crate::auth::{Attributes, Decision};
use crate::failure::Failure;
use crate::handler::Call;
use crate::route::ResourcePath;

/// Whether a kind is one of these.
pub(crate) fn handles(row: &Row) -> bool {
    !row.stored
        && matches!(
            (row.group.as_str(), row.resource.as_str()),
            (
                "authentication.k8s.io",
                "selfsubjectreviews" | "tokenreviews"
            ) | (
                "authorization.k8s.io",
                "localsubjectaccessreviews"
                    | "selfsubjectaccessreviews"
                    | "selfsubjectrulesreviews"
                    | "subjectaccessreviews"
            )
        )
}

/// The review with its `status`.
pub(crate) async fn answer(
    call: &Call<'_>,
    context: &Context,
    target: &Target,
    body: Body,
) -> Result<(StatusCode, Value), Failure> {
    let row = &*target.row;
    let decoded = match &body {
        Body::Json(text) => decode(&row.schema, text),
        Body::Value(value) => decode_value(&row.schema, value),
    };
    let mut review = decoded.map_err(|why| unreadable(row, &why))?.value;
    if !review.is_object() {
        review = json!({});
    }
    meta::set_type(&mut review, row.api_version(), row.kind.clone());
    if !review.get("metadata").is_some_and(Value::is_object) {
        review["metadata"] = json!({});
    }
    if row.namespaced {
        checks::namespace(target, &mut review)?;
    }
    oarlock_registry::track_created(context, &row.schema, "", &mut review);
    let spec = review.get("spec").cloned().unwrap_or(Value::Null);
    review["status"] = match row.resource.as_str() {
        "selfsubjectreviews" => {
            review["metadata"]["creationTimestamp"] = Value::String(time::format_time(call.now));
            json!({"userInfo": user_info(&call.user)})
        }
        "tokenreviews" => token_status(call, &spec).await?,
        "selfsubjectrulesreviews" => rules_status(call, &spec)?,
        resource => {
            checks::access(row, &review, &spec, &target.namespace)?;
            if resource == "selfsubjectaccessreviews" {
                access_status(call, &call.user, &spec)
            } else {
                access_status(call, &subject(&spec), &spec)
            }
        }
    };
    Ok((StatusCode::CREATED, review))
}

fn unreadable(row: &Row, why: &impl std::fmt::Display) -> Failure {
    let (kind, version) = (&row.kind, &row.version);
    Failure::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    ))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    for (key, values) in &user.extra {
        info["extra"][key] = json!(values);
    }
    info
}

async fn token_status(call: &Call<'_>, spec: &Value) -> Result<Value, Failure> {
    let token = text(spec, "token");
    if token.is_empty() {
        return Err(Failure::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences = strings(spec, "audiences");
    Ok(
        match call.api.access.review(token, &audiences, call.now).await {
            Ok(found) => {
                let mut status = json!({"authenticated": true, "user": user_info(&found.user)});
                if !found.audiences.is_empty() {
                    status["audiences"] = json!(found.audiences);
                }
                status
            }
            Err(why) => json!({"user": {}, "error": why}),
        },
    )
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn strings(value: &Value, field: &str) -> Vec<String> {
    value
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn subject(spec: &Value) -> User {
    let extra = spec.get("extra").and_then(Value::as_object);
    User {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: strings(spec, "groups"),
        extra: extra
            .into_iter()
            .flat_map(Map::iter)
            .map(|(key, _)| (key.clone(), strings(&spec["extra"], key)))
            .collect(),
    }
}

fn access_status(call: &Call<'_>, user: &User, spec: &Value) -> Value {
    let given = |field: &str| spec.get(field).filter(|v| v.is_object());
    let access = &call.api.access;
    let decision = if let Some(wanted) = given("resourceAttributes") {
        let at = ResourcePath {
            group: text(wanted, "group"),
            version: text(wanted, "version"),
            namespace: text(wanted, "namespace"),
            resource: text(wanted, "resource"),
            name: text(wanted, "name"),
            subresource: text(wanted, "subresource"),
            ..ResourcePath::default()
        };
        access.decide(
            user,
            &Attributes {
                verb: text(wanted, "verb"),
                path: "",
                resource: Some(at),
                fields: Some(&fields(&wanted["fieldSelector"])),
            },
        )
    } else {
        let wanted = given("nonResourceAttributes").unwrap_or(&Value::Null);
        access.decide(
            user,
            &Attributes {
                verb: text(wanted, "verb"),
                path: text(wanted, "path"),
                ..Attributes::default()
            },
        )
    };
    let (mut status, reason) = match decision {
        Decision::Allow(why) => (json!({"allowed": true}), why),
        Decision::NoOpinion(why) => (json!({"allowed": false}), why),
        Decision::Deny(why) => (json!({"allowed": false, "denied": true}), why),
    };
    if !reason.is_empty() {
        status["reason"] = Value::String(reason);
    }
    status
}

/// What of a review's selector can be said as a field selector; the rest limits nothing that an authorizer here knows.
fn fields(selector: &Value) -> FieldSelector {
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return FieldSelector::parse(raw).unwrap_or_default();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let requirements = requirements.filter_map(|requirement| {
        let [value] = requirement["values"].as_array()?.as_slice() else {
            return None;
        };
        let equal = match text(requirement, "operator") {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        Some(FieldRequirement {
            field: text(requirement, "key").to_owned(),
            value: value.as_str()?.to_owned(),
            equal,
        })
    });
    FieldSelector {
        requirements: requirements.collect(),
    }
}

/// What the authorizers that work by rules know of the caller.
fn rules_status(call: &Call<'_>, spec: &Value) -> Result<Value, Failure> {
    let namespace = text(spec, "namespace");
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let (mut resources, mut urls, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for authorizer in &call.api.access.authorizers {
        let Some(found) = authorizer.rules(&call.user, namespace) else {
            continue;
        };
        for rule in found.rules {
            let value = rule.to_value();
            if rule.resources.is_empty() {
                urls.push(value);
            } else {
                resources.push(value);
            }
        }
        problems.extend(found.problems);
    }
    let mut status = json!({
        "resourceRules": resources, "nonResourceRules": urls, "incomplete": !problems.is_empty(),
    });
    if !problems.is_empty() {
        status["evaluationError"] = Value::String(problems.join(", "));
    }
    Ok(status)
}
