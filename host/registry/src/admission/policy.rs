//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that refuse or change writes.
//!
//! `snapshot` holds the compiled policies, brought up to date from committed events before a request is looked at; `compiled`
//! is one policy; `names` is what its expressions see of a request; `params` finds parameters; `evaluate` is what they come to;
//! `mutation` changes objects; `typing` warns of expressions that do not fit their kinds.
//!
//! Cost: without policies a write pays for looking whether there are new events (well below a microsecond); with some, for
//! comparing its kind with each policy's rules. Only what matches is evaluated.

mod compiled;
mod evaluate;
mod mutation;
mod names;
mod params;
mod snapshot;
mod typing;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult, Cause, Reason, meta};
use oarlock_store::Store;
use serde::Serialize;

pub use names::Authorize;
pub(crate) use names::{Names, describe, in_version};
pub use typing::expression_warnings;

use super::{Admission, AdmissionRequest, Operation, matching};
use crate::{Registry, Target};
use compiled::{Binding, Policy};
use evaluate::{Failed, evaluate};
use names::Seen;
use snapshot::Snapshot;

pub(crate) fn mutating(store: &Arc<dyn Store>, kinds: &Kinds) -> Option<Arc<dyn Admission>> {
    let snapshot = Snapshot::mutating(store, kinds)?;
    Some(Arc::new(mutation::MutatingPolicies::new(snapshot)))
}

pub(crate) fn validating(store: &Arc<dyn Store>, kinds: &Kinds) -> Option<Arc<dyn Admission>> {
    let snapshot = Snapshot::validating(store, kinds)?;
    Some(Arc::new(ValidatingPolicies { snapshot }))
}

/// What a policy says of a request.
struct Denial<'p> {
    policy: &'p Policy,
    binding: Option<&'p Binding>,
    message: String,
    /// Empty: `Invalid`.
    reason: String,
}

#[derive(Debug)]
struct ValidatingPolicies {
    snapshot: Snapshot,
}

#[async_trait]
impl Admission for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        self.snapshot.handles(target, operation)
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let mut denials: Vec<Denial<'_>> = Vec::new();
        let policies = self.snapshot.current();
        for (policy, bindings) in policies.iter() {
            let row = match policy.matching.fitting(registry, request) {
                Ok(Some(row)) => row,
                Ok(None) => continue,
                Err(why) => {
                    denials.extend(misconfigured(policy, None, &why));
                    continue;
                }
            };
            if let Some(why) = policy.lacks_params(registry) {
                denials.extend(misconfigured(policy, None, &why));
                continue;
            }
            let seen = Seen::of(request, &row);
            // By key, the values in the order in which they came.
            let mut notes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for binding in bindings {
                let params = match binding.params(registry, policy, request) {
                    Ok(Some(params)) => params,
                    Ok(None) => continue,
                    Err(why) => {
                        denials.extend(misconfigured(policy, Some(binding), &why));
                        continue;
                    }
                };
                for param in &params {
                    let mut names = Names::new(registry, request, param.as_ref());
                    if let Some(seen) = &seen {
                        names.see(seen);
                    }
                    let outcome = evaluate(policy, &names);
                    let deny = |message, reason| Denial {
                        policy,
                        binding: Some(binding),
                        message,
                        reason,
                    };
                    for failed in outcome.failed {
                        binding.act(registry, request, policy, &failed);
                        if binding.denies {
                            denials.push(deny(failed.message, failed.reason));
                        }
                    }
                    for (key, value) in outcome.notes {
                        let values = notes.entry(key).or_default();
                        if !values.contains(&value) {
                            values.push(value);
                        }
                    }
                    let broken = outcome.broken_notes.into_iter();
                    denials.extend(broken.map(|why| deny(why, String::new())));
                }
            }
            for (key, values) in notes {
                let key = format!("{}/{key}", policy.name);
                request.context.annotate(&key, || values.join(", "));
            }
        }
        match denials.first() {
            None => Ok(()),
            Some(first) => Err(denied(request, first)),
        }
    }
}

/// What a policy says that cannot be used as it is.
fn misconfigured<'p>(
    policy: &'p Policy,
    binding: Option<&'p Binding>,
    why: &str,
) -> Option<Denial<'p>> {
    let what = if binding.is_some() {
        "binding"
    } else {
        "policy"
    };
    (!policy.ignores_failures).then(|| Denial {
        policy,
        binding,
        message: format!("failed to configure {what}: {why}"),
        reason: String::new(),
    })
}

const FAILURE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What the audit is told of a validation that failed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

impl Binding {
    /// Warns, and tells the audit, if the binding says so; counts.
    fn act(
        &self,
        registry: &Registry,
        request: &AdmissionRequest<'_>,
        policy: &Policy,
        failed: &Failed,
    ) {
        let (context, message) = (request.context, &failed.message);
        for (does, action) in [
            (self.denies, "deny"),
            (self.warns, "warn"),
            (self.audits, "audit"),
        ] {
            if does {
                let meter = registry.meter();
                meter.checked(&policy.name, &self.name, failed.is_error, action);
            }
        }
        if self.warns {
            let (policy, binding) = (&policy.name, &self.name);
            context.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
            ));
        }
        if self.audits {
            context.annotate(FAILURE, || {
                let told = Told {
                    message,
                    policy: &self.policy,
                    binding: &self.name,
                    expression_index: failed.index,
                    validation_actions: &self.actions,
                };
                // Texts and a number are always JSON.
                serde_json::to_string(&[told]).unwrap_or_default()
            });
        }
    }
}

fn denied(request: &AdmissionRequest<'_>, denial: &Denial<'_>) -> ApiError {
    let Denial {
        policy,
        binding,
        message,
        reason,
    } = denial;
    let policy = &policy.name;
    let message = match binding {
        Some(Binding { name, .. }) => format!(
            "ValidatingAdmissionPolicy '{policy}' with binding '{name}' denied request: {message}"
        ),
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
    };
    let mut error = forbidden(request, &message);
    error.reason = match reason.as_str() {
        "Unauthorized" => Reason::Unauthorized,
        "Forbidden" => Reason::Forbidden,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    };
    error.causes.push(Cause::new("", "", message));
    error
}

fn forbidden(request: &AdmissionRequest<'_>, why: &str) -> ApiError {
    let (row, object) = (&request.target.row, request.object.as_deref());
    let name = match object.or(request.old).map(meta::name) {
        Some("") | None => &request.target.name,
        Some(name) => name,
    };
    ApiError::forbidden(&row.group, &row.resource, name, why)
}

/// Whether policies look at such requests at all.
fn is_judged(target: &Target) -> bool {
    !matching::is_exempt(target)
}
