//! An audit event and its two written forms: upstream's JSON, field by field in its order, and the one-line legacy format.
//! Source: <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/#audit-k8s-io-v1-Event>

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use oarlock_model::time::format_micro_time;
use oarlock_registry::User;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::policy::{Level, Stage};

/// What an event weighs besides its objects, at least.
const BASE_BYTES: usize = 1024;

/// What all events of a request have in common.
#[derive(Debug)]
pub(super) struct Facts {
    pub id: String,
    pub level: Level,
    pub uri: String,
    pub verb: String,
    pub user: Option<Arc<User>>,
    pub ips: Vec<IpAddr>,
    pub agent: String,
    pub received: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// `responseStatus`: what of a Status is kept.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Status {
    pub metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    pub code: u16,
}

impl Status {
    /// Of a Status object; the code is known later.
    pub fn of(status: &Value) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        Self {
            status: text("status"),
            message: text("message"),
            reason: text("reason"),
            details: status.get("details").filter(|d| d.is_object()).cloned(),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Event {
    pub facts: Arc<Facts>,
    pub stage: Stage,
    pub at: Timestamp,
    /// The user, and the constraint that allowed to become that one (empty: none).
    pub impersonated: Option<(Arc<User>, String)>,
    pub object: Option<ObjectRef>,
    pub status: Option<Status>,
    pub request: Option<Arc<RawValue>>,
    pub response: Option<Arc<RawValue>>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct WrittenUser<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<&'a str, &'a [String]>,
}

impl<'a> WrittenUser<'a> {
    fn of(user: Option<&'a User>) -> Self {
        let Some(user) = user else {
            return Self {
                username: "",
                uid: "",
                groups: &[],
                extra: BTreeMap::new(),
            };
        };
        let extra = user.extra.iter();
        Self {
            username: &user.name,
            uid: &user.uid,
            groups: &user.groups,
            extra: extra.map(|(k, v)| (k.as_str(), v.as_slice())).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Constraint<'a> {
    impersonation_constraint: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    level: &'static str,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: WrittenUser<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<WrittenUser<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authentication_metadata: Option<Constraint<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[IpAddr]>::is_empty")]
    source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<&'a ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<&'a Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<&'a RawValue>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Event {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        let object = |raw: &Option<Arc<RawValue>>| raw.as_ref().map_or(0, |raw| raw.get().len());
        BASE_BYTES + object(&self.request) + object(&self.response)
    }

    /// In a list (`alone` is false) it does not say what it is.
    pub fn write_json(&self, out: &mut Vec<u8>, alone: bool) {
        let facts = &*self.facts;
        let written = Written {
            kind: alone.then_some("Event"),
            api_version: alone.then_some("audit.k8s.io/v1"),
            level: facts.level.as_str(),
            audit_id: &facts.id,
            stage: self.stage.as_str(),
            request_uri: &facts.uri,
            verb: &facts.verb,
            user: WrittenUser::of(facts.user.as_deref()),
            impersonated_user: self
                .impersonated
                .as_ref()
                .map(|(user, _)| WrittenUser::of(Some(user))),
            authentication_metadata: self
                .impersonated
                .as_ref()
                .filter(|(_, constraint)| !constraint.is_empty())
                .map(|(_, constraint)| Constraint {
                    impersonation_constraint: constraint,
                }),
            source_ips: &facts.ips,
            user_agent: &facts.agent,
            object_ref: self.object.as_ref(),
            response_status: self.status.as_ref(),
            request_object: self.request.as_deref(),
            response_object: self.response.as_deref(),
            request_received_timestamp: format_micro_time(facts.received),
            stage_timestamp: format_micro_time(self.at),
            annotations: &self.annotations,
        };
        let start = out.len();
        // Writing to memory does not fail, and every part can be JSON.
        if serde_json::to_writer(&mut *out, &written).is_err() {
            out.truncate(start);
        }
    }

    /// One line of the legacy format.
    pub fn write_line(&self, out: &mut String) {
        let facts = &*self.facts;
        let groups = |groups: &[String]| {
            let quoted: Vec<String> = groups.iter().map(|g| format!("{g:?}")).collect();
            quoted.join(",")
        };
        let user = facts.user.as_deref().filter(|user| !user.name.is_empty());
        let namespace = self.object.as_ref().map(|o| o.namespace.as_str());
        let _ = write!(
            out,
            "{} AUDIT: id={:?} stage={:?} ip={:?} method={:?} user={:?} groups={:?} as={:?} asgroups={:?} user-agent={:?} \
             namespace={:?} uri={:?} response=\"{}\"",
            facts.received,
            facts.id,
            self.stage.as_str(),
            facts
                .ips
                .first()
                .map_or_else(|| "<unknown>".to_owned(), IpAddr::to_string),
            facts.verb,
            user.map_or("<none>", |user| &user.name),
            user.filter(|user| !user.groups.is_empty())
                .map_or_else(|| "<none>".to_owned(), |user| groups(&user.groups)),
            self.impersonated
                .as_ref()
                .map_or("<self>", |(user, _)| &user.name),
            self.impersonated
                .as_ref()
                .map_or_else(|| "<lookup>".to_owned(), |(user, _)| groups(&user.groups)),
            facts.agent,
            namespace.filter(|n| !n.is_empty()).unwrap_or("<none>"),
            facts.uri,
            self.status
                .as_ref()
                .map_or_else(|| "<deferred>".to_owned(), |status| status.code.to_string()),
        );
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub fn event(id: &str) -> Event {
        let user = User {
            name: "kelp".to_owned(),
            groups: vec!["a".to_owned(), "b".to_owned()],
            extra: vec![("k".to_owned(), vec!["v".to_owned()])],
            ..User::default()
        };
        Event {
            facts: Arc::new(Facts {
                id: id.to_owned(),
                level: Level::Request,
                uri: "/api/v1/namespaces/n/configmaps?x=1".to_owned(),
                verb: "create".to_owned(),
                user: Some(Arc::new(user)),
                ips: vec!["10.0.0.1".parse().unwrap()],
                agent: "otter/1".to_owned(),
                received: "2026-11-24T10:00:00.1234567Z".parse().unwrap(),
            }),
            stage: Stage::ResponseComplete,
            at: "2026-11-24T10:00:01Z".parse().unwrap(),
            impersonated: None,
            object: Some(ObjectRef {
                resource: "configmaps".to_owned(),
                namespace: "n".to_owned(),
                api_version: "v1".to_owned(),
                ..ObjectRef::default()
            }),
            status: Some(Status {
                code: 403,
                ..Status::of(
                    &json!({"status": "Failure", "message": "no", "reason": "Forbidden", "details": {"kind": "x"}}),
                )
            }),
            request: Some(
                RawValue::from_string("{\"data\":{}}".to_owned())
                    .unwrap()
                    .into(),
            ),
            response: None,
            annotations: BTreeMap::from([(
                "authorization.k8s.io/decision".to_owned(),
                "forbid".to_owned(),
            )]),
        }
    }

    #[test]
    fn json_has_upstreams_order() {
        let mut out = Vec::new();
        event("i").write_json(&mut out, true);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"i","stage":"ResponseComplete","#,
                r#""requestURI":"/api/v1/namespaces/n/configmaps?x=1","verb":"create","#,
                r#""user":{"username":"kelp","groups":["a","b"],"extra":{"k":["v"]}},"sourceIPs":["10.0.0.1"],"#,
                r#""userAgent":"otter/1","objectRef":{"resource":"configmaps","namespace":"n","apiVersion":"v1"},"#,
                r#""responseStatus":{"metadata":{},"status":"Failure","message":"no","reason":"Forbidden","details":{"kind":"x"},"code":403},"#,
                r#""requestObject":{"data":{}},"requestReceivedTimestamp":"2026-11-24T10:00:00.123456Z","#,
                r#""stageTimestamp":"2026-11-24T10:00:01.000000Z","annotations":{"authorization.k8s.io/decision":"forbid"}}"#,
            )
        );
    }

    #[test]
    fn the_legacy_line() {
        let mut out = String::new();
        let mut of = event("i");
        of.impersonated = Some((Arc::new(User::default()), "c".to_owned()));
        of.write_line(&mut out);
        assert_eq!(
            out,
            "2026-11-24T10:00:00.1234567Z AUDIT: id=\"i\" stage=\"ResponseComplete\" ip=\"10.0.0.1\" method=\"create\" user=\"kelp\" \
             groups=\"\\\"a\\\",\\\"b\\\"\" as=\"\" asgroups=\"\" user-agent=\"otter/1\" namespace=\"n\" \
             uri=\"/api/v1/namespaces/n/configmaps?x=1\" response=\"403\""
        );
    }
}
