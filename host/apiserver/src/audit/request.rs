//! One request as audit follows it: what is known of it by and by, and an event at each stage that is not left out.
//!
//! Invariant: whatever happens to a request, its last event is made: when the last that holds an [`Audited`] lets go of it (for a
//! watch: its body).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;
use http::header::USER_AGENT;
use http::request::Parts;
use jiff::Timestamp;
use oarlock_model::{Reason, meta};
use oarlock_registry::{Trail, User};
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Audit;
use super::event::{Event, Facts, ObjectRef, Status};
use super::policy::{Level, Stage, Verdict};
use crate::auth::{Attributes, Decision};
use crate::flow::LONG_RUNNING;

const MAX_AGENT_BYTES: usize = 1024;
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";

/// A request that came, before anything is decided.
pub(crate) struct Asked<'a> {
    pub parts: &'a Parts,
    pub source: SocketAddr,
    pub id: &'a str,
    /// `None`: whoever it is did not get in.
    pub user: Option<&'a Arc<User>>,
    pub attributes: &'a Attributes<'a>,
    pub received: Timestamp,
}

/// How many events a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Received and complete.
    Short,
    /// Received, started, complete.
    Long,
    /// Not let in: only that it is answered.
    Refused,
}

#[derive(Debug)]
pub(crate) struct Audited {
    audit: Arc<Audit>,
    verdict: Verdict,
    facts: Arc<Facts>,
    life: Life,
    /// Annotations, from wherever the request comes by.
    pub trail: Arc<Trail>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    impersonated: Option<(Arc<User>, String)>,
    object: Option<ObjectRef>,
    status: Option<Status>,
    request: Option<Arc<RawValue>>,
    response: Option<Arc<RawValue>>,
    answered: bool,
    panicked: bool,
}

impl Audit {
    /// `None`: the policy says that it is not recorded.
    pub(crate) fn begin(self: &Arc<Self>, asked: &Asked<'_>) -> Option<Arc<Audited>> {
        let attributes = asked.attributes;
        let verdict = self
            .policy
            .judge(asked.user.map(|user| &**user), attributes);
        if let Some(counter) = self.counters.levels.get(verdict.level as usize) {
            counter.fetch_add(1, Relaxed);
        }
        if verdict.level == Level::None {
            return None;
        }
        let at = attributes.resource;
        let long = attributes.verb == "watch"
            || at.is_some_and(|at| LONG_RUNNING.contains(&at.first_subresource()));
        let object = at.map(|at| ObjectRef {
            resource: at.resource.to_owned(),
            namespace: at.namespace.to_owned(),
            name: at.name.to_owned(),
            api_group: at.group.to_owned(),
            api_version: at.version.to_owned(),
            subresource: at.first_subresource().to_owned(),
            ..ObjectRef::default()
        });
        let uri = &asked.parts.uri;
        let audited = Audited {
            audit: Arc::clone(self),
            verdict,
            facts: Arc::new(Facts {
                id: asked.id.to_owned(),
                level: verdict.level,
                uri: uri
                    .path_and_query()
                    .map_or_else(|| uri.to_string(), ToString::to_string),
                verb: attributes.verb.to_owned(),
                user: asked.user.map(Arc::clone),
                ips: source_ips(&asked.parts.headers, asked.source),
                agent: agent(&asked.parts.headers),
                received: asked.received,
            }),
            life: match (asked.user, long) {
                (None, _) => Life::Refused,
                (_, true) => Life::Long,
                (_, false) => Life::Short,
            },
            trail: Arc::default(),
            state: Mutex::new(State {
                object,
                ..State::default()
            }),
        };
        if audited.life != Life::Refused {
            audited.emit(Stage::RequestReceived, asked.received);
        }
        Some(Arc::new(audited))
    }
}

impl Audited {
    pub fn impersonated(&self, user: &Arc<User>, constraint: &str) {
        let who = (Arc::clone(user), constraint.to_owned());
        self.state.lock().impersonated = Some(who);
    }

    pub fn decided(&self, decision: &Decision) {
        let (what, Decision::Allow(why) | Decision::Deny(why) | Decision::NoOpinion(why)) =
            match decision {
                Decision::Allow(_) => ("allow", decision),
                _ => ("forbid", decision),
            };
        self.trail.note(DECISION, what);
        self.trail.note(REASON, why);
    }

    /// Whether the objects of requests are recorded.
    pub fn wants_request(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    /// Whether answers are recorded.
    pub fn wants_response(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// The object that a request brings says more of what it is about.
    pub fn brought(&self, mut object: Value) {
        let mut state = self.state.lock();
        let about = state.object.get_or_insert_default();
        for (field, text) in [
            (&mut about.namespace, meta::namespace(&object)),
            (&mut about.name, meta::name(&object)),
            (&mut about.uid, meta::uid(&object)),
            (&mut about.resource_version, meta::resource_version(&object)),
        ] {
            if field.is_empty() {
                text.clone_into(field);
            }
        }
        if self.wants_request() {
            self.tidy(&mut object);
            state.request = raw(object.to_string());
        }
    }

    /// A patch, or options: what a request brings that is no object with a name.
    pub fn sent(&self, body: &[u8]) {
        if self.wants_request()
            && let Ok(value) = serde_json::from_slice::<Value>(body)
        {
            self.state.lock().request = raw(value.to_string());
        }
    }

    /// The JSON text of an answer that is not a Status.
    pub fn returned(&self, text: Vec<u8>) {
        if !self.wants_response() {
            return;
        }
        if !self.verdict.omits_managed_fields {
            let text = String::from_utf8(text).ok();
            self.state.lock().response =
                text.and_then(|text| raw(text.trim_end_matches('\n').to_owned()));
            return;
        }
        if let Ok(mut value) = serde_json::from_slice(&text) {
            self.tidy(&mut value);
            self.state.lock().response = raw(value.to_string());
        }
    }

    /// An answer that may be a Status.
    pub fn returned_value(&self, value: &Value) {
        if value["kind"] == "Status" && value["apiVersion"] == "v1" {
            self.state.lock().status = Some(Status::of(value));
        }
        if self.wants_response() && self.facts.user.is_some() {
            self.returned(value.to_string().into_bytes());
        }
    }

    /// The head of the answer is made.
    pub fn answered(&self, code: u16) {
        let mut state = self.state.lock();
        state.status.get_or_insert_default().code = code;
        let first = !std::mem::replace(&mut state.answered, true);
        drop(state);
        if first && self.life != Life::Short {
            self.emit(Stage::ResponseStarted, Timestamp::now());
        }
    }

    /// What carried the request out has panicked.
    pub fn panicked(&self, why: &(dyn std::any::Any + Send)) {
        let why = why
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| why.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        let mut state = self.state.lock();
        state.panicked = true;
        state.status = Some(Status {
            status: "Failure".to_owned(),
            message: format!("APIServer panic'd: {why}"),
            reason: Reason::InternalError.as_str().to_owned(),
            code: 500,
            ..Status::default()
        });
    }

    /// Without managed fields, if the policy says so; in lists and tables, too.
    fn tidy(&self, object: &mut Value) {
        if !self.verdict.omits_managed_fields {
            return;
        }
        forget(object);
        for (list, inside) in [("items", ""), ("rows", "/object")] {
            let items = object.get_mut(list).and_then(Value::as_array_mut);
            for item in items.into_iter().flatten() {
                item.pointer_mut(inside).into_iter().for_each(forget);
            }
        }
    }

    fn emit(&self, stage: Stage, at: Timestamp) {
        if self.verdict.omitted.has(stage) {
            return;
        }
        let state = self.state.lock();
        let event = Event {
            facts: Arc::clone(&self.facts),
            stage,
            at,
            impersonated: state.impersonated.clone(),
            object: state.object.clone(),
            status: state.status.clone(),
            request: state.request.clone(),
            response: state.response.clone(),
            annotations: self.trail.notes(),
        };
        drop(state);
        self.audit.send(event);
    }
}

impl Drop for Audited {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.panicked {
            self.emit(Stage::Panic, Timestamp::now());
            return;
        }
        if !state.answered {
            // The caller went away, as upstream tells it.
            state.status = Some(Status {
                status: "Success".to_owned(),
                message: "Connection closed early".to_owned(),
                code: 200,
                ..Status::default()
            });
            if self.life == Life::Long {
                self.emit(Stage::ResponseStarted, Timestamp::now());
            }
        }
        if self.life != Life::Refused {
            self.emit(Stage::ResponseComplete, Timestamp::now());
        }
    }
}

fn raw(text: String) -> Option<Arc<RawValue>> {
    RawValue::from_string(text).ok().map(Arc::from)
}

fn forget(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

fn agent(headers: &HeaderMap) -> String {
    let Some(agent) = headers.get(USER_AGENT) else {
        return String::new();
    };
    let bytes = agent.as_bytes();
    match bytes.get(..MAX_AGENT_BYTES) {
        Some(head) if bytes.len() > head.len() => {
            format!("{}...TRUNCATED", String::from_utf8_lossy(head))
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Whom proxies name, and the peer itself last: all but that can be made up.
fn source_ips(headers: &HeaderMap, peer: SocketAddr) -> Vec<IpAddr> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
    };
    let mut ips: Vec<IpAddr> = text("x-forwarded-for")
        .split(',')
        .filter_map(|part| part.trim().parse().ok())
        .collect();
    if let Ok(ip) = text("x-real-ip").parse()
        && !ips.contains(&ip)
    {
        ips.push(ip);
    }
    let peer = peer.ip().to_canonical();
    if ips.last() != Some(&peer) {
        ips.push(peer);
    }
    ips
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::policy::Policy;
    use crate::route::resource_path;

    fn audit() -> Arc<Audit> {
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse, omitManagedFields: true}]";
        Arc::new(Audit {
            policy: Policy::read(policy.as_bytes()).unwrap(),
            queues: Vec::new(),
            counters: Arc::default(),
        })
    }

    fn begin(user: Option<&Arc<User>>, verb: &str) -> Arc<Audited> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.uri = "https://host/api/v1/pods?watch=1".parse().unwrap();
        let agent = "x".repeat(MAX_AGENT_BYTES + 1);
        parts.headers.insert(USER_AGENT, agent.parse().unwrap());
        let forwarded = "1.2.3.4, nonsense, ::1";
        parts
            .headers
            .insert("x-forwarded-for", forwarded.parse().unwrap());
        parts
            .headers
            .insert("x-real-ip", "1.2.3.4".parse().unwrap());
        let attributes = Attributes {
            verb,
            path: "/api/v1/pods",
            resource: resource_path("/api/v1/pods"),
            ..Attributes::default()
        };
        let audited = audit().begin(&Asked {
            parts: &parts,
            source: "[::ffff:9.9.9.9]:1".parse().unwrap(),
            id: "i",
            user,
            attributes: &attributes,
            received: "2026-11-24T10:00:00Z".parse().unwrap(),
        });
        audited.unwrap()
    }

    fn made(audited: Arc<Audited>, after: impl FnOnce(&Audited)) -> u64 {
        let audit = Arc::clone(&audited.audit);
        after(&audited);
        drop(audited);
        audit.counters.events.load(Relaxed)
    }

    #[test]
    fn each_life_has_its_events() {
        let user = Arc::new(User::default());
        let lives = |verb: &str| begin(Some(&user), verb);
        assert_eq!(made(lives("list"), |a| a.answered(200)), 2);
        assert_eq!(made(lives("watch"), |a| a.answered(200)), 3);
        assert_eq!(made(lives("list"), |_| {}), 2);
        assert_eq!(made(lives("watch"), |_| {}), 3);
        assert_eq!(made(begin(None, "list"), |a| a.answered(401)), 1);
        assert_eq!(made(lives("watch"), |a| a.panicked(&"ouch")), 2);
    }

    #[test]
    fn what_is_known_of_a_request() {
        let user = Arc::new(User::default());
        let audited = begin(Some(&user), "create");
        assert_eq!(audited.facts.uri, "/api/v1/pods?watch=1");
        assert!(audited.facts.agent.ends_with("xx...TRUNCATED"));
        let ips: Vec<String> = audited.facts.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["1.2.3.4", "::1", "9.9.9.9"]);
        audited.brought(
            serde_json::json!({"metadata": {"name": "p", "uid": "u", "managedFields": []}}),
        );
        audited.returned(br#"{"items":[{"metadata":{"managedFields":[1],"name":"p"}}]}"#.to_vec());
        let state = audited.state.lock();
        let about = state.object.as_ref().unwrap();
        assert_eq!((about.name.as_str(), about.uid.as_str()), ("p", "u"));
        let text = |raw: &Option<Arc<RawValue>>| raw.as_ref().unwrap().get().to_owned();
        assert_eq!(
            text(&state.request),
            r#"{"metadata":{"name":"p","uid":"u"}}"#
        );
        assert_eq!(
            text(&state.response),
            r#"{"items":[{"metadata":{"name":"p"}}]}"#
        );
    }
}
