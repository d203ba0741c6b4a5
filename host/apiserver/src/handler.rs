//! The life of one request: authentication, impersonation, authorization, then a path outside the API (`outside`) or a
//! verb on a resource (`verbs`); at the end metrics, the audit record and the log line.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use jiff::Timestamp;
use oarlock_model::{ApiError, FieldSelector, Reason};
use oarlock_registry::{Registry, User};
use tokio::sync::watch;

use crate::aggregate::Aggregator;
use crate::audit::{Asked, Audit, Audited};
use crate::auth::{Access, Attributes, anonymous};
use crate::discovery::Discovery;
use crate::failure::Failure;
use crate::flow::{Flow, Schema};
use crate::health::Health;
use crate::metrics::{Gauge, Key, Metrics, MoreMetrics};
use crate::openapi::OpenApi;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::{ResourcePath, Verb, decode_path, resource_path};
use crate::served::{Newest, Served, ServedKind};
use crate::timetravel::Timeline;
use crate::tls::Peer;
use crate::{outside, verbs};

/// A request that is no watch is given up after this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests that read, and requests that write (both without watches), that are answered at the same time; more are told to come
/// back.
const MAX_IN_FLIGHT: i64 = 4096;
/// Watches open at the same time.
const MAX_WATCHES: i64 = 65_536;

/// What every request needs. One for each server.
#[derive(Debug)]
pub(crate) struct Api {
    pub registry: Arc<Registry>,
    pub newest: Newest,
    pub access: Access,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    pub openapi: OpenApi,
    pub flow: Arc<Flow>,
    pub aggregator: Arc<Aggregator>,
    pub timeline: Timeline,
    pub audit: Option<Arc<Audit>>,
    pub more_metrics: MoreMetrics,
    pub stopping: watch::Receiver<bool>,
    pub address: SocketAddr,
    /// CBOR is served, too.
    pub cbor: bool,
}

/// What every request of a connection shares.
#[derive(Debug)]
pub(crate) struct Connection {
    pub api: Arc<Api>,
    pub peer: Peer,
    pub source: SocketAddr,
}

/// One request, authorized.
pub(crate) struct Call<'a> {
    pub api: &'a Api,
    /// The kinds as they are when the request comes.
    pub served: &'a Served,
    pub headers: &'a HeaderMap,
    pub method: &'a http::Method,
    pub query: &'a Query<'a>,
    /// Decoded.
    pub path: &'a str,
    pub user: Arc<User>,
    pub now: Timestamp,
    /// `None`: it is not recorded.
    pub audited: Option<Arc<Audited>>,
}

impl Call<'_> {
    /// What is served, here and elsewhere.
    pub fn discovery(&self) -> Cow<'_, Discovery> {
        match self.api.aggregator.discovery(self.served.kinds()) {
            Some(all) => Cow::Shared(all),
            None => Cow::Own(self.served.discovery()),
        }
    }
}

/// A document of one table of kinds, or one that is shared.
pub(crate) enum Cow<'a, T> {
    Own(&'a T),
    Shared(Arc<T>),
}

impl<T> std::ops::Deref for Cow<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(it) => it,
            Self::Shared(it) => it,
        }
    }
}

pub(crate) async fn serve(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    #[expect(clippy::disallowed_methods, reason = "edge: how long a request took")]
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let path = decode_path(parts.uri.path());
    let at = resource_path(&path);
    let api = &*connection.api;
    let served = api.newest.of(&api.registry.kinds());
    let mut trace = Trace {
        verb: Verb::Other,
        user: None,
        apply: false,
        dry_run: false,
        waited: Duration::ZERO,
        schema: None,
        name: None,
        audited: None,
    };
    // Boxed, since the compiler cannot see through so many lifetimes that the future may move between threads.
    let handled: BoxFuture<'_, _> = Box::pin(handle(
        &connection,
        &served,
        &parts,
        &path,
        at,
        body,
        &mut trace,
    ));
    let handled = if api.audit.is_some() {
        match AssertUnwindSafe(handled).catch_unwind().await {
            Ok(handled) => handled,
            Err(panic) => {
                if let Some(audited) = &trace.audited {
                    audited.panicked(&*panic);
                }
                std::panic::resume_unwind(panic);
            }
        }
    } else {
        handled.await
    };
    let mut answer = match handled {
        Ok(answer) => answer,
        Err(failure) => {
            if matches!(&failure, Failure::Api(error) if error.reason == Reason::InternalError) {
                let body = failure
                    .body()
                    .map(|s| s["message"].clone())
                    .unwrap_or_default();
                tracing::error!(verb = trace.verb.as_str(), path = &*path, %body, "request failed");
            }
            if let Some(audited) = &trace.audited
                && let Ok(status) = failure.body()
            {
                audited.returned_value(&status);
            }
            respond::failure(&failure, &parts.headers)
        }
    };
    let name = trace.name.take();
    let name = name.or_else(|| respond::request_name(&parts.headers));
    respond::name_request(&mut answer, name);
    if let Some(audited) = trace.audited.take() {
        audited.answered(answer.status().as_u16());
        answer.body_mut().keep(audited);
    }
    if let Some(schema) = &trace.schema {
        schema.mark(&mut answer);
    }
    finish(
        &connection,
        &served,
        &path,
        at,
        &trace,
        answer.status().as_u16(),
        started.elapsed(),
    );
    Ok(answer)
}

/// What is learnt on the way, for the record at the end.
struct Trace {
    verb: Verb,
    user: Option<Arc<User>>,
    apply: bool,
    dry_run: bool,
    /// For a seat.
    waited: Duration,
    schema: Option<Arc<Schema>>,
    /// The request's name in its answer, if it is known already.
    name: Option<http::HeaderValue>,
    audited: Option<Arc<Audited>>,
}

impl Trace {
    /// Begins to record the request, if the policy says so. `user`: `None` if who asks did not get in.
    fn audit(
        &mut self,
        connection: &Connection,
        parts: &Parts,
        user: Option<&Arc<User>>,
        attributes: &Attributes<'_>,
        received: Timestamp,
    ) {
        let Some(audit) = &connection.api.audit else {
            return;
        };
        self.name = respond::request_name(&parts.headers);
        let name = self.name.as_ref().and_then(|name| name.to_str().ok());
        self.audited = audit.begin(&Asked {
            parts,
            source: connection.source,
            id: name.unwrap_or_default(),
            user,
            attributes,
            received,
        });
    }
}

async fn handle(
    connection: &Connection,
    served: &Served,
    parts: &Parts,
    path: &str,
    at: Option<ResourcePath<'_>>,
    body: Incoming,
    trace: &mut Trace,
) -> Result<Answer, Failure> {
    let api = &*connection.api;
    let query = Query::parse(parts.uri.query())?;
    let now = Timestamp::now();
    let verb = at.map_or(Verb::Other, |at| {
        at.verb(&parts.method, query.flag("watch"))
    });
    let lower;
    let word = if verb == Verb::Other {
        lower = parts.method.as_str().to_ascii_lowercase();
        &*lower
    } else {
        verb.as_str()
    };
    let mut attributes = Attributes {
        verb: word,
        path,
        resource: at,
        ..Attributes::default()
    };
    let login = async || {
        api.access
            .authenticate(&parts.headers, &connection.peer, path, now)
            .await
    };
    if at.is_none()
        && let Some(answer) = outside::open_to_all(api, parts, path, &query)
    {
        if api.audit.is_some() {
            let user = login().await.unwrap_or_else(|_| anonymous());
            trace.audit(connection, parts, Some(&user), &attributes, now);
        }
        return Ok(answer);
    }
    let mut user = match login().await {
        Ok(user) => user,
        Err(failure) => {
            trace.audit(connection, parts, None, &attributes, now);
            return Err(failure);
        }
    };
    trace.verb = verb;
    trace.user = Some(Arc::clone(&user));
    trace.audit(connection, parts, Some(&user), &attributes, now);
    let fields;
    if matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection)
        && let Some(text) = query.get("fieldSelector")
    {
        // One that cannot be read is told by the verb.
        fields = FieldSelector::parse(text).unwrap_or_default();
        attributes = attributes.limited_to(&fields);
    }
    if let Some((other, constraint)) = api.access.impersonate(&parts.headers, &user, &attributes)? {
        if let Some(audited) = &trace.audited {
            audited.impersonated(&other, &constraint);
        }
        user = other;
        trace.user = Some(Arc::clone(&user));
    }
    trace.schema = api.flow.classify(&user, word, path, at);
    // Held until there is an answer; a watch gives it back when it has begun.
    let seat = match &trace.schema {
        Some(schema) => Some(
            api.flow
                .seat(schema, &user, at.map_or("", |at| at.namespace))
                .await?,
        ),
        None => None,
    };
    trace.waited = seat.as_ref().map_or(Duration::ZERO, |seat| seat.waited);
    let decision = api.access.decide(&user, &attributes);
    if let Some(audited) = &trace.audited {
        audited.decided(&decision);
    }
    decision.carry_out(&user, &attributes)?;
    if let Some(to) = group_version(path).and_then(|gv| api.aggregator.elsewhere(gv)) {
        let sent = api.aggregator.forward(&to, parts, body, &user);
        if verb == Verb::Watch {
            return sent.await;
        }
        return match tokio::time::timeout(REQUEST_TIMEOUT, sent).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out()),
        };
    }
    let call = Call {
        api,
        served,
        headers: &parts.headers,
        method: &parts.method,
        query: &query,
        path,
        user,
        now,
        audited: trace.audited.clone(),
    };
    let Some(at) = at else {
        return outside::answer(&call).await;
    };
    if verb == Verb::Watch {
        let (gauge, open) = Gauge::raise(&api.metrics, |m| &m.watches);
        if open > MAX_WATCHES {
            return Err(Failure::too_many_requests());
        }
        return verbs::watch(&call, at, gauge).await;
    }
    let in_flight: fn(&Metrics) -> &_ = match verb {
        Verb::Get | Verb::List => |m| &m.reads_in_flight,
        _ => |m| &m.writes_in_flight,
    };
    let (_gauge, in_flight) = Gauge::raise(&api.metrics, in_flight);
    if in_flight > MAX_IN_FLIGHT {
        return Err(Failure::too_many_requests());
    }
    trace.dry_run = query.has("dryRun", "All");
    trace.apply = verb == Verb::Patch
        && crate::negotiate::patch_type(call.headers, api.cbor).is_ok_and(|t| t.is_apply());
    match tokio::time::timeout(REQUEST_TIMEOUT, verbs::answer(&call, at, verb, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> Failure {
    let text = "Timeout: request did not complete within the allotted timeout";
    ApiError::new(Reason::Timeout, text).into()
}

/// `apps/v1` of a path below `/apis/apps/v1`, or of its OpenAPI document.
fn group_version(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/openapi/v3").unwrap_or(path);
    let rest = rest.strip_prefix("/apis/")?;
    let slash = rest.find('/')?;
    let end = rest[slash + 1..]
        .find('/')
        .map_or(rest.len(), |at| slash + 1 + at);
    Some(&rest[..end])
}

fn finish(
    connection: &Connection,
    served: &Served,
    path: &str,
    at: Option<ResourcePath<'_>>,
    trace: &Trace,
    code: u16,
    took: Duration,
) {
    let api = &*connection.api;
    let kind: Option<&ServedKind> = at.and_then(|at| served.kind(at.group_version, at.resource));
    let sub = at.zip(kind).and_then(|(at, kind)| {
        let name = at.first_subresource();
        kind.row.subresources.iter().position(|s| s.name == name)
    });
    let key = Key {
        kind: kind.map_or(u32::MAX, |k| k.number),
        sub: sub.and_then(|at| u8::try_from(at + 1).ok()).unwrap_or(0),
        verb: trace.verb,
        apply: trace.apply,
        dry_run: trace.dry_run,
        namespaced: at.is_some_and(|at| !at.namespace.is_empty()),
        single: at.is_some_and(|at| !at.name.is_empty()),
        code,
    };
    api.metrics
        .observe(key, kind.map(|k| &*k.row), took, trace.waited);
    let at = at.unwrap_or_default();
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!(
            verb = trace.verb.as_str(),
            path,
            resource = at.resource,
            ns = at.namespace,
            name = at.name,
            code,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            user = trace.user.as_deref().map(|u| u.name.as_str()),
            "request"
        );
    }
}
