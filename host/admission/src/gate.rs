//! The gate: what the registry asks about every write. Matching, asking in order, and what an answer or a failure means.
//!
//! Cost of a write that nothing matches: an atomic load, and a comparison with each rule where there are policies.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use oarlock_client::{Cluster, ListQuery};
use oarlock_model::{ApiError, ApiResult, Cause, Gvr, Reason, meta};
use oarlock_registry::{Admission, AdmissionRequest, Operation, Registry, Target};
use oarlock_wasm::admission::{self as wit, Denial, Request};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::apply;
use crate::rules::{Rule, bit, is_exempt};
use crate::spec::{FailurePolicy, Mode, PolicySpec, described_rules};
use crate::version::{Answer, Stage, Version};

/// How long a write waits for a policy that is being loaded while the server starts.
const MAX_LOADING: Duration = Duration::from_secs(10);

pub(crate) fn policies_gvr() -> Gvr {
    Gvr::new("oarlock.dev", "v1alpha1", "admissionpolicies")
}

/// Who decides for a policy.
#[derive(Clone, Debug)]
pub(crate) enum Decider {
    /// Nobody yet: the server starts.
    Loading,
    /// Nobody, and why: the failure policy decides.
    Broken(String),
    Active(Arc<Version>),
}

/// A policy as the gate sees it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub spec: PolicySpec,
    /// What its component looks at, if that is known.
    pub described: Option<Vec<Rule>>,
    pub decider: Decider,
}

impl Entry {
    /// A policy without an active version; `None` if nobody knows what it would look at.
    pub fn without_version(object: &Value, decider: Decider) -> Option<Self> {
        let spec = PolicySpec::parse(object.get("spec")?).ok()?;
        let described = described_rules(object);
        (spec.rules.is_some() || described.is_some()).then(|| Self {
            name: meta::name(object).to_owned(),
            spec,
            described,
            decider,
        })
    }

    pub fn of(version: &Arc<Version>) -> Self {
        Self {
            name: version.parts.policy.clone(),
            spec: version.parts.spec.clone(),
            described: Some(version.rules.clone()),
            decider: Decider::Active(Arc::clone(version)),
        }
    }

    fn covers(&self, target: &Target, operation: Operation) -> bool {
        let mut sets = [&self.spec.rules, &self.described].into_iter().flatten();
        sets.all(|rules| rules.iter().any(|rule| rule.covers(target, operation)))
    }

    fn operations(&self) -> u8 {
        let of = |rules: &Vec<Rule>| rules.iter().fold(0, |mask, rule| mask | rule.operations());
        let sets = [&self.spec.rules, &self.described].into_iter().flatten();
        sets.fold(u8::MAX, |mask, rules| mask & of(rules))
    }
}

/// All policies, in the order in which they are asked.
#[derive(Debug, Default)]
struct Matcher {
    entries: Vec<Arc<Entry>>,
    /// The operations that any of them looks at.
    operations: u8,
}

/// What the registry asks about every write.
#[derive(Debug)]
pub struct Gate {
    matcher: ArcSwap<Matcher>,
    changes: watch::Sender<()>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            matcher: ArcSwap::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Gate {
    /// Closes the gate for writes that policies of the cluster will look at once they are loaded: such writes wait. To be
    /// called before the first request is served.
    pub async fn close(&self, cluster: &dyn Cluster) -> ApiResult<()> {
        let list = cluster.list(&policies_gvr(), &ListQuery::default()).await?;
        let entries = list.items.iter();
        self.set(
            entries
                .filter_map(|object| Entry::without_version(object, Decider::Loading))
                .collect(),
        );
        Ok(())
    }

    /// From now on these policies are asked.
    pub(crate) fn set(&self, mut entries: Vec<Entry>) {
        entries.sort_by(|a, b| (a.spec.order, &a.name).cmp(&(b.spec.order, &b.name)));
        let operations = entries.iter().fold(0, |mask, e| mask | e.operations());
        self.matcher.store(Arc::new(Matcher {
            entries: entries.into_iter().map(Arc::new).collect(),
            operations,
        }));
        self.changes.send_replace(());
    }

    /// The policies that are to be asked about such a write, none of them being loaded.
    async fn covering(&self, target: &Target, operation: Operation) -> Vec<Arc<Entry>> {
        let found = || -> Vec<Arc<Entry>> {
            let matcher = self.matcher.load();
            let covers = |entry: &&Arc<Entry>| entry.covers(target, operation);
            matcher.entries.iter().filter(covers).cloned().collect()
        };
        let loading = |entries: &[Arc<Entry>]| {
            let mut deciders = entries.iter().map(|entry| &entry.decider);
            deciders.any(|decider| matches!(decider, Decider::Loading))
        };
        let entries = found();
        if !loading(&entries) {
            return entries;
        }
        let mut changes = self.changes.subscribe();
        let settled = changes.wait_for(|()| !loading(&found()));
        let _ = tokio::time::timeout(MAX_LOADING, settled).await;
        found()
    }

    /// The policies to ask now, and the labels of the write's namespace.
    async fn hits(
        &self,
        registry: &Registry,
        request: &AdmissionRequest<'_>,
        stage: Stage,
    ) -> ApiResult<(Vec<Arc<Entry>>, Vec<(String, String)>)> {
        if request.context.user.name == crate::USER {
            return Ok(Default::default());
        }
        let mut entries = self.covering(request.target, request.operation).await;
        entries.retain(|entry| match &entry.decider {
            Decider::Active(version) => version.asked_at(stage),
            // A failure is told once.
            _ => stage == Stage::Validate,
        });
        if entries.is_empty() {
            return Ok(Default::default());
        }
        let labels = namespace_labels(registry, request).await?;
        if let Some(labels) = &labels {
            let label = |key: &str| {
                let mut all = labels.iter();
                all.find(|(name, _)| name == key).map(|(_, v)| v.as_str())
            };
            entries.retain(|entry| entry.spec.namespaces.matches_with(label));
        }
        Ok((entries, labels.unwrap_or_default()))
    }
}

/// Whether one of the write's objects has the labels.
fn selected(entry: &Entry, request: &AdmissionRequest<'_>) -> bool {
    let selector = &entry.spec.objects;
    let has = |object: &Value| selector.matches(meta::labels(object));
    selector.is_everything()
        || request.object.as_deref().is_some_and(has)
        || request.old.is_some_and(has)
}

/// `None`: namespaces have no say.
async fn namespace_labels(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
) -> ApiResult<Option<Vec<(String, String)>>> {
    let (target, own) = (request.target, request.object.as_deref().or(request.old));
    let pairs = |labels: Option<&Map<String, Value>>| {
        let pair =
            |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        labels.into_iter().flatten().filter_map(pair).collect()
    };
    if target.row.group.is_empty() && target.row.resource == "namespaces" {
        return Ok(Some(pairs(own.and_then(meta::labels))));
    }
    if !target.row.namespaced {
        return Ok(None);
    }
    let Some(row) = registry.kinds().resource("", "v1", "namespaces") else {
        return Ok(None);
    };
    let at = Target::new(&row, "", &target.namespace);
    let namespace = registry.get(request.context, &at, "").await?;
    let found = oarlock_registry::scan::at(&namespace.json, &["metadata", "labels"]);
    let labels: Option<Map<String, Value>> = found.and_then(|t| serde_json::from_slice(t).ok());
    Ok(Some(pairs(labels.as_ref())))
}

/// An object without `metadata.managedFields`.
struct Shown<'a>(&'a Map<String, Value>, bool);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        for (name, value) in self.0 {
            match value {
                Value::Object(metadata) if self.1 && name == "metadata" => {
                    members.serialize_entry(name, &Shown(metadata, false))?;
                }
                _ if !self.1 && name == "managedFields" => {}
                _ => members.serialize_entry(name, value)?,
            }
        }
        members.end()
    }
}

fn text(object: &Value) -> Option<String> {
    serde_json::to_string(&Shown(object.as_object()?, true)).ok()
}

/// The write as a policy is told of it.
fn told(request: &AdmissionRequest<'_>, namespace_labels: Vec<(String, String)>) -> Request {
    let (context, target) = (request.context, request.target);
    let (row, user) = (&target.row, &context.user);
    let object = request.object.as_deref();
    let kind = object.map(meta::kind).filter(|kind| !kind.is_empty());
    Request {
        operation: match request.operation {
            Operation::Create => wit::Operation::Create,
            Operation::Update => wit::Operation::Update,
            Operation::Delete => wit::Operation::Delete,
            Operation::Connect => wit::Operation::Connect,
        },
        user: wit::User {
            name: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        },
        group: row.group.clone(),
        version: row.version.clone(),
        kind: kind.unwrap_or(&row.kind).to_owned(),
        resource: row.resource.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        namespace_labels,
        name: target.name.clone(),
        object: object.and_then(text),
        old_object: request.old.and_then(text),
        dry_run: context.dry_run,
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
}

/// What a refusal tells the sender; `Ok` if the policy only monitors.
fn refuse(version: &Version, stage: Stage, target: &Target, denial: Denial) -> ApiResult<()> {
    let spec = &version.parts.spec;
    count(&version.counts.denials);
    version.series(stage).denied.inc();
    if spec.mode == Mode::Monitor {
        *version.last_denial.lock() = Some(format!(
            "{} {}/{} would have been denied: {}",
            target.row.qualified_resource(),
            target.namespace,
            target.name,
            denial.message
        ));
        return Ok(());
    }
    let policy = &version.parts.policy;
    let why = if denial.message.is_empty() {
        format!("admission policy {policy:?} denied the request without explanation")
    } else {
        format!(
            "admission policy {policy:?} denied the request: {}",
            denial.message
        )
    };
    let row = &target.row;
    let mut error = match denial.code {
        400 => ApiError::bad_request(why),
        409 => ApiError::new(Reason::Conflict, why),
        422 => ApiError::new(Reason::Invalid, why),
        429 => ApiError::new(Reason::TooManyRequests, why),
        _ => ApiError::forbidden(&row.group, &row.resource, &target.name, &why),
    };
    let cause = |cause: wit::Cause| Cause::new("FieldValueForbidden", cause.field, cause.message);
    error.causes.extend(denial.causes.into_iter().map(cause));
    Err(error)
}

/// What a failure means for the write.
fn fail(entry: &Entry, message: &str) -> ApiResult<()> {
    let (policy, spec) = (&entry.name, &entry.spec);
    tracing::debug!(%policy, %message, "an admission policy failed");
    if spec.mode == Mode::Monitor || spec.failure == FailurePolicy::Ignore {
        return Ok(());
    }
    Err(ApiError::internal(format!(
        "failed calling admission policy {policy:?}: {message}"
    )))
}

/// The version that decides, or what its absence means.
fn decider(entry: &Entry) -> Result<&Arc<Version>, ApiResult<()>> {
    match &entry.decider {
        Decider::Active(version) => Ok(version),
        Decider::Broken(message) => Err(fail(entry, message)),
        Decider::Loading => Err(fail(entry, "it is not loaded yet")),
    }
}

#[async_trait]
impl Admission for Gate {
    fn name(&self) -> &'static str {
        "AdmissionPolicy"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        let matcher = self.matcher.load();
        matcher.operations & bit(operation) != 0
            && !is_exempt(target)
            && matcher.entries.iter().any(|e| e.covers(target, operation))
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        if request.object.is_none() || request.rounds.again {
            return Ok(());
        }
        let (entries, labels) = self.hits(registry, request, Stage::Mutate).await?;
        let mut said: Option<Arc<Request>> = None;
        for entry in entries {
            if !selected(&entry, request) {
                continue;
            }
            let version = match decider(&entry) {
                Ok(version) => version,
                Err(meaning) => {
                    meaning?;
                    continue;
                }
            };
            let ask = said.get_or_insert_with(|| Arc::new(told(request, labels.clone())));
            let series = version.series(Stage::Mutate);
            let failed = |message: &str| {
                series.failed.inc();
                fail(&entry, message)
            };
            let patch = match version.ask(Stage::Mutate, Arc::clone(ask)).await {
                Ok(Ok(Answer::Patch(Some(patch)))) => patch,
                Ok(Ok(_)) => {
                    series.allowed.inc();
                    continue;
                }
                Ok(Err(denial)) => {
                    refuse(version, Stage::Mutate, request.target, denial)?;
                    continue;
                }
                Err(message) => {
                    failed(&message)?;
                    continue;
                }
            };
            let Some(object) = request.object.as_deref_mut() else {
                continue;
            };
            match apply::patched(request.target, object, request.old, &patch) {
                Ok(None) => {
                    series.allowed.inc();
                }
                Ok(Some(changed)) => {
                    count(&version.counts.patches);
                    series.patched.inc();
                    if entry.spec.mode == Mode::Enforce {
                        *object = changed;
                        said = None;
                    }
                }
                Err(what) => failed(&version.lied(&what))?,
            }
        }
        Ok(())
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let (entries, labels) = self.hits(registry, request, Stage::Validate).await?;
        let mut said: Option<Arc<Request>> = None;
        for entry in entries {
            if !selected(&entry, request) {
                continue;
            }
            let version = match decider(&entry) {
                Ok(version) => version,
                Err(meaning) => {
                    meaning?;
                    continue;
                }
            };
            let ask = said.get_or_insert_with(|| Arc::new(told(request, labels.clone())));
            let series = version.series(Stage::Validate);
            match version.ask(Stage::Validate, Arc::clone(ask)).await {
                Ok(Ok(Answer::Warnings(warnings))) if entry.spec.mode == Mode::Enforce => {
                    series.allowed.inc();
                    for warning in warnings {
                        request.context.warn(warning);
                    }
                }
                Ok(Ok(_)) => {
                    series.allowed.inc();
                }
                Ok(Err(denial)) => refuse(version, Stage::Validate, request.target, denial)?,
                Err(message) => {
                    series.failed.inc();
                    fail(&entry, &message)?;
                }
            }
        }
        Ok(())
    }
}
