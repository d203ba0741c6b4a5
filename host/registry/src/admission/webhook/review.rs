//! AdmissionReview: what a webhook is told, and what its answer means.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#request>

use std::collections::BTreeMap;

use base64::Engine as _;
use oarlock_kinds::Row;
use oarlock_model::status::quote;
use oarlock_model::{ApiError, Cause, Reason};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::AdmissionRequest;
use crate::admission::policy::{describe, in_version};

const GROUP: &str = "admission.k8s.io";

/// The text that is sent.
pub(super) fn body(request: &AdmissionRequest<'_>, row: &Row, version: &str, uid: &str) -> Vec<u8> {
    let own = &request.target.row;
    let mut told = describe(request);
    told["uid"] = json!(uid);
    told["kind"] = json!({"group": row.group, "version": row.version, "kind": row.kind});
    told["resource"] =
        json!({"group": row.group, "version": row.version, "resource": row.resource});
    let shown =
        |object: Option<&Value>| object.map_or(Value::Null, |object| in_version(object, own, row));
    told["object"] = shown(request.object.as_deref());
    told["oldObject"] = shown(request.old);
    if told.get("options").is_none() {
        told["options"] = Value::Null;
    }
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": told,
    });
    review.to_string().into_bytes()
}

/// What came back, before anybody believes it.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// What a webhook says.
#[derive(Debug)]
pub(super) struct Verdict {
    pub allowed: bool,
    /// A Status; null: none.
    pub result: Value,
    /// A JSON patch that has something in it.
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    /// For the audit.
    pub annotations: BTreeMap<String, String>,
}

pub(super) fn read(text: &[u8]) -> Result<Answer, String> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|why| format!("couldn't get version/kind; json parse error: {why}"))?;
    let shown = || String::from_utf8_lossy(text.get(..1024).unwrap_or(text)).into_owned();
    if value["kind"].as_str().unwrap_or_default().is_empty() {
        return Err(format!("Object 'Kind' is missing in '{}'", shown()));
    }
    if value["apiVersion"].as_str().unwrap_or_default().is_empty() {
        return Err(format!("Object 'apiVersion' is missing in '{}'", shown()));
    }
    serde_json::from_value(value).map_err(|why| why.to_string())
}

pub(super) fn verify(
    answer: Answer,
    version: &str,
    uid: &str,
    mutates: bool,
) -> Result<Verdict, String> {
    let Some(response) = answer.response else {
        return Err("webhook response was absent".to_owned());
    };
    let v1 = version == "v1";
    if v1 && response.uid != uid {
        let (wanted, got) = (quote(uid), quote(&response.uid));
        return Err(format!("expected response.uid={wanted}, got {got}"));
    }
    if answer.api_version != format!("{GROUP}/{version}") || answer.kind != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of {GROUP}/{version}, Kind=AdmissionReview, got {}, Kind={}",
            answer.api_version, answer.kind
        ));
    }
    let patch = response.patch.as_deref().unwrap_or_default();
    let kind = response.patch_type.as_deref();
    if v1 && mutates {
        match (patch.is_empty(), kind) {
            (false, None) => {
                return Err("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".to_owned());
            }
            (_, Some("")) => {
                return Err("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            _ => {}
        }
    } else if v1 && !patch.is_empty() {
        return Err("validating webhook may not return response.patch".to_owned());
    } else if v1 && kind.is_some() {
        return Err("validating webhook may not return response.patchType".to_owned());
    }
    let mut verdict = Verdict {
        allowed: response.allowed,
        result: response.status.unwrap_or_default(),
        patch: None,
        warnings: response.warnings.unwrap_or_default(),
        annotations: response.audit_annotations.unwrap_or_default(),
    };
    if mutates && !patch.is_empty() && verdict.allowed {
        if v1 && kind != Some("JSONPatch") {
            return Err(format!(
                "unsupported patch type {}",
                quote(kind.unwrap_or_default())
            ));
        }
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(patch)
            .map_err(|why| format!("response.patch: {why}"))?;
        let patch: Value =
            serde_json::from_slice(&bytes).map_err(|why| format!("response.patch: {why}"))?;
        verdict.patch = Some(patch).filter(|p| p.as_array().is_none_or(|ops| !ops.is_empty()));
    }
    Ok(verdict)
}

/// What the sender is told of a refusal: the webhook's own Status, and whose it is.
pub(super) fn refusal(name: &str, result: &Value) -> ApiError {
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or_default().to_owned();
    let denied = format!("admission webhook {} denied the request", quote(name));
    let (message, reason) = (text(result, "message"), text(result, "reason"));
    let told = match (message.as_str(), reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let known = Reason::ALL.iter().find(|known| known.as_str() == reason);
    let mut error = ApiError::new(known.copied().unwrap_or(Reason::Unknown), told);
    let code = result["code"].as_u64().and_then(|c| u16::try_from(c).ok());
    error.status_code = Some(code.unwrap_or(0).clamp(400, 599));
    let details = &result["details"];
    error.group = text(details, "group");
    error.kind = text(details, "kind");
    error.name = text(details, "name");
    error.uid = text(details, "uid");
    let seconds = details["retryAfterSeconds"].as_u64();
    error.retry_after_seconds = seconds.and_then(|s| u32::try_from(s).ok());
    let causes = details["causes"].as_array().into_iter().flatten();
    error.causes = causes
        .map(|c| {
            let field = text(c, "field");
            Cause::new(&text(c, "reason"), field, text(c, "message"))
        })
        .collect();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(response: Value, mutates: bool) -> Result<Verdict, String> {
        let text = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        verify(read(text.to_string().as_bytes())?, "v1", "u", mutates)
    }

    #[test]
    fn answers_that_make_no_sense_are_told() {
        let check = |response: Value, mutates: bool, expect: &str| {
            assert_eq!(verdict(response, mutates).unwrap_err(), expect);
        };
        check(Value::Null, true, "webhook response was absent");
        check(
            json!({"uid": "x"}),
            true,
            r#"expected response.uid="u", got "x""#,
        );
        let patch = "W10=";
        check(
            json!({"uid": "u", "allowed": true, "patch": patch}),
            true,
            "webhook returned response.patch but not response.patchType",
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": patch}),
            false,
            "validating webhook may not return response.patch",
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "Merge"}),
            true,
            r#"unsupported patch type "Merge""#,
        );
        assert_eq!(read(b"{}").unwrap_err(), "Object 'Kind' is missing in '{}'");
        let other = json!({"kind": "X", "apiVersion": "v1", "response": {"uid": "u"}}).to_string();
        assert_eq!(
            verify(read(other.as_bytes()).unwrap(), "v1", "u", true).unwrap_err(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=X"
        );
    }

    #[test]
    fn refusals() {
        let check = |result: Value, code: u16, reason: &str, message: &str| {
            let error = refusal("h", &result);
            assert_eq!((error.code(), error.reason.as_str()), (code, reason));
            assert_eq!(
                error.message,
                format!("admission webhook \"h\" denied the request{message}")
            );
        };
        check(Value::Null, 400, "", " without explanation");
        check(json!({"code": 200, "message": "no"}), 400, "", ": no");
        check(
            json!({"code": 403, "reason": "Forbidden"}),
            403,
            "Forbidden",
            ": Forbidden",
        );
    }
}
