//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that refuse or change writes.
//!
//! `snapshot` holds the compiled policies, brought up to date from committed events before a request is looked at; `compiled`
//! is one policy; `names` is what its expressions see of a request; `params` finds parameters; `mutation` changes objects.
//!
//! Cost: without policies a write pays for looking whether there are new events (well below a microsecond); with some, for
//! comparing its kind with each policy's rules. Only what matches is evaluated.

mod compiled;
mod mutation;
mod names;
mod params;
mod snapshot;

use std::sync::Arc;

use async_trait::async_trait;
use oarlock_cel::Value as Cel;
use oarlock_kinds::Kinds;
use oarlock_model::{ApiError, ApiResult, Cause, Reason, meta};
use oarlock_store::Store;

pub use names::Authorize;
pub(crate) use names::{Names, describe};

use super::{Admission, AdmissionRequest, Operation, matching};
use crate::{Registry, Target};
use compiled::{Binding, Policy, Validation};
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
            match policy.matching.fits(registry, request) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(why) => {
                    denials.extend(misconfigured(policy, None, &why));
                    continue;
                }
            }
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
                    let names = Names::new(registry, request, param.as_ref());
                    for (message, reason) in decide(policy, &names) {
                        binding.act(request, policy, &message);
                        if binding.denies {
                            denials.push(Denial {
                                policy,
                                binding: Some(binding),
                                message,
                                reason,
                            });
                        }
                    }
                }
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

impl Binding {
    /// Warns, if the binding says so. (Annotations of the audit log are not kept.)
    fn act(&self, request: &AdmissionRequest<'_>, policy: &Policy, message: &str) {
        if self.warns {
            let (policy, binding) = (&policy.name, &self.name);
            request.context.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
            ));
        }
    }
}

/// What does not hold: messages and reasons.
fn decide(policy: &Policy, names: &Names<'_>) -> Vec<(String, String)> {
    let activation = names.activation(&policy.variables);
    let on_error = |message: String| {
        if policy.ignores_failures {
            Vec::new()
        } else {
            vec![(message, String::new())]
        }
    };
    let conditions = policy.conditions.iter();
    match oarlock_cel::policy::matches(conditions, &activation, policy.ignores_failures) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(why) => return on_error(why),
    }
    if let Some(why) = &policy.broken {
        return on_error(why.clone());
    }
    let mut failed = Vec::new();
    let before = activation.cost();
    for validation in &policy.validations {
        let spent = activation.cost() - before;
        let left = oarlock_cel::policy::POLICY_BUDGET.saturating_sub(spent);
        match validation.program.eval_limited(&activation, left) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => failed.push((message(validation, &activation), validation.reason.clone())),
            Err(error) => {
                let text = validation.program.text();
                failed.extend(on_error(oarlock_cel::policy::failed(text, &error)));
            }
        }
    }
    failed
}

/// What a failed validation tells: what its expression says, else its message, else the expression itself.
fn message<'a>(validation: &'a Validation, activation: &oarlock_cel::Activation<'a>) -> String {
    const MAX_BYTES: usize = 5 * 1024;
    let told = validation.message_program.as_ref();
    let told = told.and_then(|program| program.eval(activation).ok());
    let told = told
        .as_ref()
        .and_then(Cel::as_str)
        .unwrap_or_default()
        .trim();
    if !told.is_empty() && told.len() <= MAX_BYTES && !told.contains('\n') {
        return told.to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.program.text().trim()),
        message => message.to_owned(),
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
