//! Turns recorded requests into calls of the registry, as an HTTP front would.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, FieldSelector, LabelSelector, Reason};
use oarlock_registry::{
    Body, Config, Context, DeleteOptions, Deleted, EventType, FieldValidation, ListOptions,
    ListParameters, PatchKind, Registry, Target, User, WatchOptions,
};
use oarlock_store::StoreOptions;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::compare::Bindings;

#[derive(Debug, Deserialize)]
pub struct Step {
    pub scenario: String,
    pub step: usize,
    pub request: Request,
    pub response: Response,
}

#[derive(Debug, Deserialize)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: serde_json::Map<String, Value>,
    pub body: Option<Value>,
    #[serde(default)]
    pub background: bool,
    /// Seconds within which the answer must have become what was recorded.
    #[serde(default)]
    pub poll: f64,
}

#[derive(Debug, Deserialize)]
pub struct Response {
    pub status: u16,
    pub body: Value,
}

#[derive(Debug, Default)]
pub struct Report {
    pub agreed: usize,
    pub skipped: usize,
    pub differences: Vec<String>,
}

/// How long a polled answer is waited for, whatever was recorded, and how often it is looked at.
const MAX_POLL_SECONDS: f64 = 1.0;
const POLL_PERIOD: Duration = Duration::from_millis(10);

pub struct Player {
    registry: Arc<Registry>,
}

/// What a recorded URL asks for.
struct Asked {
    target: Target,
    query: Vec<(String, String)>,
}

impl Asked {
    fn get(&self, name: &str) -> &str {
        self.query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
            .unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        self.query.iter().any(|(n, _)| n == name)
    }

    fn watches(&self) -> bool {
        self.has("watch")
            && !matches!(self.get("watch"), "false" | "0")
            && self.target.name.is_empty()
    }
}

enum Outcome {
    Answer(u16, Value),
    NotOurs,
}

impl Player {
    pub async fn start() -> Self {
        let store = oarlock_store::open(StoreOptions::memory()).expect("a store");
        let config = Config {
            store,
            kinds: Arc::new(Kinds::builtin()),
            admission: Vec::new(),
        };
        let registry = Registry::open(config, jiff::Timestamp::now())
            .await
            .expect("a registry");
        Self { registry }
    }

    pub async fn play(&self, steps: &[Step]) -> Report {
        let mut bindings = Bindings::default();
        let mut report = Report::default();
        for step in steps {
            if step.request.background {
                report.skipped += 1;
                continue;
            }
            let patience = Duration::from_secs_f64(step.request.poll.min(MAX_POLL_SECONDS));
            let deadline = tokio::time::Instant::now() + patience;
            let outcome = loop {
                let (outcome, bound) = self.try_step(step, &bindings).await;
                let done = matches!(outcome, Some(None));
                if done || tokio::time::Instant::now() >= deadline {
                    bindings = bound;
                    break outcome;
                }
                tokio::time::sleep(POLL_PERIOD).await;
            };
            let Some(difference) = outcome else {
                // What later steps need is bound all the same.
                report.skipped += 1;
                continue;
            };
            match difference {
                None => report.agreed += 1,
                Some(text) => report.differences.push(format!(
                    "step {} {} {}: {text}",
                    step.step, step.request.method, step.request.path
                )),
            }
        }
        report
    }

    /// `None`: not the registry's; else what differs. With the bindings that the answer has made.
    async fn try_step(
        &self,
        step: &Step,
        bindings: &Bindings,
    ) -> (Option<Option<String>>, Bindings) {
        let mut bindings = bindings.clone();
        let (status, body) = match self.ask(&step.request, &bindings).await {
            Outcome::Answer(status, body) => (status, body),
            Outcome::NotOurs => return (None, bindings),
        };
        let difference = if status == step.response.status {
            bindings.compare(&step.response.body, &body, "")
        } else {
            let text = body["message"].as_str().unwrap_or_default().to_owned();
            let want = step.response.body["message"].as_str().unwrap_or_default();
            Some(format!(
                "status {} {want:?} expected, found {status} {text:?}",
                step.response.status
            ))
        };
        (Some(difference), bindings)
    }

    fn route(&self, path: &str) -> Option<Asked> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                (unescape(name), unescape(value))
            })
            .collect();
        let parts: Vec<String> = path.trim_matches('/').split('/').map(unescape).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let row = |resource: &str| self.registry.kinds().resource(group, version, resource);
        let target = match rest {
            ["namespaces", ns, resource, rest @ ..]
                if row(resource).is_some_and(|r| r.namespaced) =>
            {
                let row = row(resource)?;
                let (name, sub) = (rest.first().unwrap_or(&""), rest.get(1).unwrap_or(&""));
                Target::sub(&row, ns, name, sub)
            }
            [resource, rest @ ..] => {
                let (name, sub) = (rest.first().unwrap_or(&""), rest.get(1).unwrap_or(&""));
                Target::sub(&row(resource)?, "", name, sub)
            }
            [] => return None,
        };
        Some(Asked { target, query })
    }

    async fn ask(&self, request: &Request, bindings: &Bindings) -> Outcome {
        let Some(asked) = self.route(&bindings.fill(&request.path)) else {
            return Outcome::NotOurs;
        };
        let accept = request
            .headers
            .get("accept")
            .and_then(Value::as_str)
            .unwrap_or("application/json");
        let odd_headers = request
            .headers
            .keys()
            .any(|k| !matches!(k.as_str(), "accept" | "content-type"));
        let content = request
            .headers
            .get("content-type")
            .and_then(Value::as_str)
            .unwrap_or("application/json");
        let json_body = !matches!(request.body, Some(Value::String(_)));
        if accept != "application/json" || odd_headers || !json_body {
            return Outcome::NotOurs;
        }
        let body = request.body.as_ref().map(|body| bindings.fill_value(body));
        let ctx = context(&asked);
        if ["exec", "attach", "log", "proxy", "portforward", "token"]
            .contains(&asked.target.subresource.as_str())
        {
            return Outcome::NotOurs;
        }
        let text = |body: &Option<Value>| {
            Bytes::from(
                body.as_ref()
                    .map(|b| serde_json::to_vec(b).expect("json"))
                    .unwrap_or_default(),
            )
        };
        let result = match request.method.as_str() {
            "GET" if asked.watches() => self.watch(&ctx, &asked).await,
            "GET" if !asked.target.name.is_empty() => self
                .registry
                .get(&ctx, &asked.target, asked.get("resourceVersion"))
                .await
                .map(|o| (200, o.to_value().expect("json"))),
            "GET" => self.list(&ctx, &asked).await,
            "POST" if !asked.target.subresource.is_empty() => self
                .registry
                .create_sub(&ctx, &asked.target, Body::Json(text(&body)))
                .await
                .map(|v| (201, v)),
            "POST" if asked.target.row.namespaced && asked.target.namespace.is_empty() => {
                return Outcome::NotOurs;
            }
            "POST" => self
                .registry
                .create(&ctx, &asked.target, Body::Json(text(&body)))
                .await
                .map(|o| (201, o.to_value().expect("json"))),
            "PUT" => self
                .registry
                .update(&ctx, &asked.target, Body::Json(text(&body)))
                .await
                .map(answer),
            "PATCH" => {
                let kind = match content {
                    "application/json-patch+json" => PatchKind::Json,
                    "application/merge-patch+json" => PatchKind::Merge,
                    "application/strategic-merge-patch+json" => PatchKind::Strategic,
                    c if c.starts_with("application/apply-patch") => PatchKind::Apply {
                        force: asked.get("force") == "true",
                    },
                    _ => return Outcome::NotOurs,
                };
                self.registry
                    .patch(&ctx, &asked.target, kind, text(&body))
                    .await
                    .map(answer)
            }
            "DELETE" => match delete_options(&asked, &body) {
                Some((options, dry_run)) => {
                    let ctx = Context {
                        dry_run: ctx.dry_run || dry_run,
                        ..ctx
                    };
                    self.delete(&ctx, &asked, &options).await
                }
                None => return Outcome::NotOurs,
            },
            _ => return Outcome::NotOurs,
        };
        match result {
            Ok((status, body)) => Outcome::Answer(status, body),
            Err(error) if error.reason == Reason::MethodNotAllowed => Outcome::NotOurs,
            Err(error) => Outcome::Answer(error.code(), error.to_status()),
        }
    }

    async fn list(&self, ctx: &Context, asked: &Asked) -> Result<(u16, Value), ApiError> {
        let options = list_options(asked)?;
        let list = self.registry.list(ctx, &asked.target, &options).await?;
        Ok((200, list_body(asked, &list)))
    }

    async fn delete(
        &self,
        ctx: &Context,
        asked: &Asked,
        options: &DeleteOptions,
    ) -> Result<(u16, Value), ApiError> {
        if asked.target.name.is_empty() {
            let list = self
                .registry
                .delete_collection(ctx, &asked.target, &list_options(asked)?, options)
                .await?;
            return Ok((200, list_body(asked, &list)));
        }
        let row = &asked.target.row;
        let object = match self.registry.delete(ctx, &asked.target, options).await? {
            Deleted::Gone(object) => {
                let object = object.to_value().expect("json");
                let whole = [
                    "Pod",
                    "Service",
                    "PersistentVolume",
                    "PersistentVolumeClaim",
                    "ServiceAccount",
                    "PodTemplate",
                    "ResourceQuota",
                ];
                if !whole.contains(&row.kind.as_str()) {
                    let mut details = json!({"name": asked.target.name, "kind": row.resource, "uid": object["metadata"]["uid"]});
                    if !row.group.is_empty() {
                        details["group"] = json!(row.group);
                    }
                    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                    return Ok((200, status));
                }
                object
            }
            Deleted::Pending(object) => object.to_value().expect("json"),
        };
        Ok((200, object))
    }

    async fn watch(&self, ctx: &Context, asked: &Asked) -> Result<(u16, Value), ApiError> {
        let version_match = ListParameters {
            watch: true,
            resource_version: asked.get("resourceVersion"),
            version_match: asked.get("resourceVersionMatch"),
            continue_token: asked.get("continue"),
            send_initial_events: asked
                .has("sendInitialEvents")
                .then(|| asked.get("sendInitialEvents") == "true"),
        }
        .check()?;
        let options = WatchOptions {
            labels: LabelSelector::parse(asked.get("labelSelector"))
                .map_err(|e| ApiError::bad_request(e.0))?,
            fields: FieldSelector::parse(asked.get("fieldSelector"))
                .map_err(|e| ApiError::bad_request(e.0))?,
            resource_version: asked.get("resourceVersion").to_owned(),
            version_match,
            send_initial_events: asked
                .has("sendInitialEvents")
                .then(|| asked.get("sendInitialEvents") == "true"),
            bookmarks: asked.get("allowWatchBookmarks") == "true",
        };
        let mut stream = self.registry.watch(ctx, &asked.target, &options).await?;
        let mut events = Vec::new();
        // All that is to come is there already: nobody else writes.
        while let Ok(batch) =
            tokio::time::timeout(Duration::from_millis(30), stream.next_batch()).await
        {
            for item in batch? {
                let row = &asked.target.row;
                events.push(match item.kind {
                    EventType::Added => {
                        json!({"type": "ADDED", "object": item.object.to_value().expect("json")})
                    }
                    EventType::Modified => {
                        json!({"type": "MODIFIED", "object": item.object.to_value().expect("json")})
                    }
                    EventType::Deleted => {
                        json!({"type": "DELETED", "object": item.object.to_value().expect("json")})
                    }
                    EventType::Bookmark { initial_end: true } => {
                        json!({"type": "BOOKMARK", "object": {
                        "kind": row.kind, "apiVersion": row.api_version(), "metadata": {
                            "resourceVersion": item.object.revision.to_string(),
                            "annotations": {"k8s.io/initial-events-end": "true"}}}})
                    }
                    EventType::Bookmark { initial_end: false } => continue,
                });
            }
        }
        Ok((200, Value::Array(events)))
    }
}

fn answer(written: oarlock_registry::Written) -> (u16, Value) {
    (
        if written.created { 201 } else { 200 },
        written.object.to_value().expect("json"),
    )
}

fn context(asked: &Asked) -> Context {
    let user = User {
        name: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), jiff::Timestamp::now());
    ctx.field_manager = if asked.has("fieldManager") {
        asked.get("fieldManager").to_owned()
    } else {
        "golden-player".to_owned()
    };
    ctx.dry_run = asked.get("dryRun") == "All";
    ctx.field_validation = match asked.get("fieldValidation") {
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        _ => FieldValidation::Warn,
    };
    ctx
}

fn list_options(asked: &Asked) -> Result<ListOptions, ApiError> {
    let version_match = ListParameters {
        watch: false,
        resource_version: asked.get("resourceVersion"),
        version_match: asked.get("resourceVersionMatch"),
        continue_token: asked.get("continue"),
        send_initial_events: asked.has("sendInitialEvents").then_some(true),
    }
    .check()?;
    Ok(ListOptions {
        labels: LabelSelector::parse(asked.get("labelSelector"))
            .map_err(|e| ApiError::bad_request(e.0))?,
        fields: FieldSelector::parse(asked.get("fieldSelector"))
            .map_err(|e| ApiError::bad_request(e.0))?,
        limit: asked.get("limit").parse().unwrap_or(0),
        continue_token: asked.get("continue").to_owned(),
        resource_version: asked.get("resourceVersion").to_owned(),
        version_match,
    })
}

fn list_body(asked: &Asked, list: &oarlock_registry::List) -> Value {
    let row = &asked.target.row;
    let items: Vec<Value> = list
        .items
        .iter()
        .map(|item| {
            let mut item = item.to_value().expect("json");
            let map = item.as_object_mut().expect("a map");
            if row.custom.is_none() {
                map.remove("kind");
                map.remove("apiVersion");
            }
            item
        })
        .collect();
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if row.custom.is_some() || !list.continue_token.is_empty() {
        metadata["continue"] = json!(list.continue_token);
    }
    if let Some(remaining) = list.remaining {
        metadata["remainingItemCount"] = json!(remaining);
    }
    json!({"kind": row.list_kind, "apiVersion": row.api_version(), "metadata": metadata, "items": items})
}

/// `None` where the front would refuse the body's form.
fn delete_options(asked: &Asked, body: &Option<Value>) -> Option<(DeleteOptions, bool)> {
    let body = body.clone().unwrap_or(json!({}));
    let map = body.as_object()?;
    let grace = match map.get("gracePeriodSeconds") {
        None => None,
        Some(value) => Some(value.as_i64()?),
    };
    if !matches!(
        map.get("kind").and_then(Value::as_str),
        None | Some("DeleteOptions")
    ) || map.get("preconditions").is_some_and(|p| !p.is_object())
    {
        return None;
    }
    let dry = map.get("dryRun").map(|d| d == &json!(["All"]));
    if dry == Some(false) || (asked.has("dryRun") && asked.get("dryRun") != "All") {
        return None;
    }
    let text = |pointer: &str| {
        body.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let query = |name: &str| asked.has(name).then(|| asked.get(name).to_owned());
    let from_query = match query("gracePeriodSeconds") {
        None => None,
        Some(text) => Some(text.parse().ok()?),
    };
    let options = DeleteOptions {
        grace_period_seconds: grace.or(from_query),
        propagation_policy: text("/propagationPolicy").or(query("propagationPolicy")),
        orphan_dependents: map
            .get("orphanDependents")
            .and_then(Value::as_bool)
            .or(query("orphanDependents").map(|t| t == "true")),
        precondition_uid: text("/preconditions/uid"),
        precondition_resource_version: text("/preconditions/resourceVersion"),
    };
    Some((options, dry == Some(true)))
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|h| u8::from_str_radix(h, 16).ok())
            })
            .flatten();
        match hex {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
