//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: servers outside that change or refuse writes.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>
//!
//! `hook` is one webhook and which writes it is about; `review` is what it is told and what its answer means. Mutating
//! webhooks are asked one after another (by the names of their configurations), validating ones all at once.
//!
//! Cost: without webhooks a write pays for looking whether there are some now (well below a microsecond); with some, for
//! comparing its kind with their rules. An asked webhook costs its round trip and the serialized object.

mod hook;
mod review;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use oarlock_kinds::{Kinds, Row};
use oarlock_model::{ApiError, ApiResult};
use oarlock_store::Store;
use serde_json::Value;

use super::policy::in_version;
use super::{Admission, AdmissionRequest, Operation, readmit};
use crate::mirror::{Fold, Mirror};
use crate::{Registry, Target, keys};
use hook::Hook;
use review::Verdict;

const GROUP: &str = "admissionregistration.k8s.io";

/// The webhooks of one kind of configuration, in the order in which they are asked.
#[derive(Debug)]
struct Hooks(Mirror<Feed>);

#[derive(Default)]
struct Feed(BTreeMap<String, Vec<Arc<Hook>>>);

impl Hooks {
    /// `None`: there is no such kind.
    fn new(store: &Arc<dyn Store>, kinds: &Kinds, resource: &str) -> Option<Self> {
        let row = kinds.resource(GROUP, "v1", resource)?;
        let prefixes = vec![keys::prefix(&row, "")];
        Some(Self(Mirror::new(
            Arc::clone(store),
            prefixes,
            Feed::default(),
        )))
    }

    /// Whether a webhook may look at such a request.
    fn handles(&self, target: &Target, operation: Operation) -> bool {
        let hooks = self.0.current();
        !hooks.is_empty()
            && !is_exempt(target)
            && hooks.iter().any(|hook| hook.may_concern(target, operation))
    }
}

impl Fold for Feed {
    type Made = Vec<Arc<Hook>>;

    fn clear(&mut self) {
        self.0.clear();
    }

    fn put(&mut self, _: usize, name: &str, object: Option<Value>) {
        match object {
            Some(object) => {
                self.0.insert(name.to_owned(), Hook::all_of(name, &object));
            }
            None => drop(self.0.remove(name)),
        }
    }

    fn made(&self) -> Self::Made {
        self.0.values().flatten().map(Arc::clone).collect()
    }
}

/// What decides about requests is not decided about: a broken webhook could not be mended.
fn is_exempt(target: &Target) -> bool {
    let kind = target.row.kind.as_str();
    target.row.group == GROUP
        && (kind.ends_with("WebhookConfiguration") || kind.contains("AdmissionPolicy"))
}

/// What comes of asking a webhook that does not simply agree.
enum Trouble {
    /// It could not be asked, or its answer makes no sense: its failure policy decides.
    Calling(String),
    Refused(ApiError),
}

impl Hook {
    /// What trouble means for the write.
    fn weigh(&self, trouble: Trouble) -> ApiResult<()> {
        match trouble {
            Trouble::Refused(error) => Err(error),
            Trouble::Calling(why) => {
                let name = oarlock_model::status::quote(&self.name);
                let told = format!("failed calling webhook {name}: {why}");
                if self.ignores_failures {
                    tracing::warn!(webhook = self.name, why, "failed open");
                    return Ok(());
                }
                Err(ApiError::internal(told))
            }
        }
    }

    /// Asks, in the version of the kind that it understands.
    async fn ask(
        &self,
        registry: &Registry,
        request: &AdmissionRequest<'_>,
        row: &Arc<Row>,
        mutates: bool,
    ) -> Result<Verdict, Trouble> {
        if request.context.dry_run && !self.dry_runs {
            let name = oarlock_model::status::quote(&self.name);
            let why = format!("admission webhook {name} does not support dry run");
            return Err(Trouble::Refused(ApiError::bad_request(why)));
        }
        let Some(version) = self.review_version else {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview \
                 versions (v1, v1beta1)";
            return Err(Trouble::Calling(why.to_owned()));
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let body = review::body(request, row, version, &uid);
        let Some(client) = registry.webhook_client() else {
            let why = "could not get REST client: this server makes no calls";
            return Err(Trouble::Calling(why.to_owned()));
        };
        let answer = client
            .post(&self.client, self.timeout, body.into())
            .await
            .map_err(|why| Trouble::Calling(format!("failed to call webhook: {why}")))?;
        let answer = review::read(&answer)
            .map_err(|why| Trouble::Calling(format!("failed to call webhook: {why}")))?;
        let verdict = review::verify(answer, version, &uid, mutates)
            .map_err(|why| Trouble::Calling(format!("received invalid webhook response: {why}")))?;
        for text in &verdict.warnings {
            request.context.warn(text.clone());
        }
        for (key, value) in &verdict.annotations {
            let key = format!("{}/{key}", self.name);
            request.context.annotate(&key, || value.clone());
        }
        if verdict.allowed {
            Ok(verdict)
        } else {
            Err(Trouble::Refused(review::refusal(
                &self.name,
                &verdict.result,
            )))
        }
    }
}

/// The plugins, mutating first.
pub(crate) fn mutating(store: &Arc<dyn Store>, kinds: &Kinds) -> Option<Arc<dyn Admission>> {
    let hooks = Hooks::new(store, kinds, "mutatingwebhookconfigurations")?;
    Some(Arc::new(Mutating { hooks }))
}

pub(crate) fn validating(store: &Arc<dyn Store>, kinds: &Kinds) -> Option<Arc<dyn Admission>> {
    let hooks = Hooks::new(store, kinds, "validatingwebhookconfigurations")?;
    Some(Arc::new(Validating { hooks }))
}

#[derive(Debug)]
struct Mutating {
    hooks: Hooks,
}

#[async_trait]
impl Admission for Mutating {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        self.hooks.handles(target, operation)
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let hooks = self.hooks.0.current();
        let again = request.rounds.again;
        if again {
            let object = request.object.as_deref();
            request.rounds.webhooks.begin_again(object);
        }
        for (at, hook) in hooks.iter().enumerate() {
            let Some(row) = hook.concerned(registry, request)? else {
                continue;
            };
            if again && !request.rounds.webhooks.is_due(&hook.uid) {
                continue;
            }
            let changed = match hook.ask(registry, request, &row, true).await {
                Ok(verdict) => change(hook, request, &row, verdict),
                Err(trouble) => Err(trouble),
            };
            if let Ok(mutated) = changed {
                let round = u8::from(again);
                let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{at}");
                let (configuration, webhook) = (&hook.configuration, &hook.name);
                request.context.annotate(&key, || {
                    let told = serde_json::json!({"configuration": configuration, "webhook": webhook, "mutated": mutated});
                    told.to_string()
                });
            }
            if let Ok(true) = changed {
                request.rounds.webhooks.changed();
                request.rounds.wanted = true;
            }
            if hook.reinvoked {
                request.rounds.webhooks.invoked(&hook.uid);
            }
            if let Err(trouble) = changed {
                hook.weigh(trouble)?;
            }
        }
        request.rounds.webhooks.leave(request.object.as_deref());
        Ok(())
    }
}

/// Applies a webhook's patch; true if the object is another now.
fn change(
    hook: &Hook,
    request: &mut AdmissionRequest<'_>,
    row: &Arc<Row>,
    verdict: Verdict,
) -> Result<bool, Trouble> {
    let Some(patch) = verdict.patch else {
        return Ok(false);
    };
    let internal = |why: String| Trouble::Refused(ApiError::internal(why));
    let Some(object) = request.object.as_deref_mut() else {
        let name = oarlock_model::status::quote(&hook.name);
        return Err(internal(format!(
            "admission webhook {name} attempted to modify the object, which is not supported for this operation"
        )));
    };
    let target = request.target;
    let mut changed = in_version(object, &target.row, row);
    oarlock_schema::patch::json_patch(&mut changed, &patch)
        .map_err(|why| internal(why.to_string()))?;
    let changed = in_version(&changed, row, &target.row);
    let changed = readmit(target, &changed, request.old).map_err(internal)?;
    if *object == changed {
        return Ok(false);
    }
    *object = changed;
    Ok(true)
}

#[derive(Debug)]
struct Validating {
    hooks: Hooks,
}

#[async_trait]
impl Admission for Validating {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        self.hooks.handles(target, operation)
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let hooks = self.hooks.0.current();
        let mut asked = Vec::new();
        for hook in hooks.iter() {
            if let Some(row) = hook.concerned(registry, request)? {
                asked.push((hook, row));
            }
        }
        let answers = asked.iter().map(async |(hook, row)| {
            match hook.ask(registry, request, row, false).await {
                Ok(_) => Ok(()),
                Err(trouble) => hook.weigh(trouble),
            }
        });
        join_all(answers).await.into_iter().collect()
    }
}
