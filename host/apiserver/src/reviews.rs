//! Reviews: kinds whose creation asks a question about who and may, answers it, and keeps nothing.
//! `kubectl auth whoami` and `kubectl auth can-i` live on them.

use http::StatusCode;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, Cause, time};
use oarlock_registry::{Body, User};
use oarlock_schema::{decode, decode_value};
use serde_json::{Value, json};

use crate::auth::Attributes;
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
pub(crate) fn answer(
    call: &Call<'_>,
    row: &Row,
    body: Body,
) -> Result<(StatusCode, Value), Failure> {
    let decoded = match &body {
        Body::Json(text) => decode(&row.schema, text),
        Body::Value(value) => decode_value(&row.schema, value),
    };
    let mut review = decoded.map_err(|why| unreadable(row, &why))?.value;
    if !review.is_object() {
        review = json!({});
    }
    oarlock_model::meta::set_type(&mut review, row.api_version(), row.kind.clone());
    if !review.get("metadata").is_some_and(Value::is_object) {
        review["metadata"] = json!({});
    }
    let spec = review.get("spec").cloned().unwrap_or(Value::Null);
    review["status"] = match row.resource.as_str() {
        "selfsubjectreviews" => {
            review["metadata"]["creationTimestamp"] = Value::String(time::format_time(call.now));
            json!({"userInfo": user_info(&call.user)})
        }
        "tokenreviews" => token_status(call, &spec)?,
        "selfsubjectrulesreviews" => rules_status(call, &spec),
        "selfsubjectaccessreviews" => access_status(call, row, &call.user, &spec)?,
        _ => access_status(call, row, &subject(row, &spec)?, &spec)?,
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
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    for (key, values) in &user.extra {
        info["extra"][key] = json!(values);
    }
    info
}

fn token_status(call: &Call<'_>, spec: &Value) -> Result<Value, Failure> {
    let token = text(spec, "token");
    if token.is_empty() {
        return Err(Failure::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let tokens = &call.api.access.tokens;
    Ok(
        match tokens.iter().find_map(|t| t.authenticate(token, call.now)) {
            Some(user) => json!({"authenticated": true, "user": user_info(&user)}),
            None => json!({"user": {}, "error": "invalid bearer token"}),
        },
    )
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

/// Upstream leaves the kind out of these refusals.
fn invalid(row: &Row, cause: Cause) -> Failure {
    ApiError::invalid(&row.group, "", "", vec![cause]).into()
}

fn subject(row: &Row, spec: &Value) -> Result<User, Failure> {
    let groups: Vec<String> = spec
        .get("groups")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|g| g.as_str().map(str::to_owned))
        .collect();
    let name = text(spec, "user").to_owned();
    if name.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(invalid(row, Cause::invalid("spec.user", &json!(""), why)));
    }
    Ok(User {
        name,
        groups,
        ..User::default()
    })
}

fn access_status(call: &Call<'_>, row: &Row, user: &User, spec: &Value) -> Result<Value, Failure> {
    let given = |field: &str| spec.get(field).filter(|v| v.is_object());
    let allowed = match (given("resourceAttributes"), given("nonResourceAttributes")) {
        (None, None) => {
            let why =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(invalid(
                row,
                Cause::invalid("spec.resourceAttributes", &Value::Null, why),
            ));
        }
        (Some(_), Some(other)) => {
            let shown = json!({"Path": text(other, "path"), "Verb": text(other, "verb")});
            let why = "cannot be specified in combination with resourceAttributes";
            return Err(invalid(
                row,
                Cause::invalid("spec.nonResourceAttributes", &shown, why),
            ));
        }
        (Some(wanted), None) => {
            let at = ResourcePath {
                group: text(wanted, "group"),
                version: text(wanted, "version"),
                namespace: text(wanted, "namespace"),
                resource: text(wanted, "resource"),
                name: text(wanted, "name"),
                subresource: text(wanted, "subresource"),
                ..ResourcePath::default()
            };
            let attributes = Attributes {
                verb: text(wanted, "verb"),
                path: "",
                resource: Some(at),
            };
            call.api.access.authorize(user, &attributes)
        }
        (None, Some(wanted)) => {
            let attributes = Attributes {
                verb: text(wanted, "verb"),
                path: text(wanted, "path"),
                resource: None,
            };
            call.api.access.authorize(user, &attributes)
        }
    };
    Ok(json!({"allowed": allowed.is_ok()}))
}

/// Everything or nothing: the authorizers there are so far know no single rules.
fn rules_status(call: &Call<'_>, spec: &Value) -> Value {
    let at = ResourcePath {
        namespace: text(spec, "namespace"),
        resource: "*",
        group: "*",
        ..ResourcePath::default()
    };
    let all = Attributes {
        verb: "*",
        path: "",
        resource: Some(at),
    };
    if call.api.access.authorize(&call.user, &all).is_err() {
        return json!({"resourceRules": [], "nonResourceRules": [], "incomplete": true});
    }
    json!({
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": false,
    })
}
