//! MutatingAdmissionPolicy: apply configurations and JSON patches that expressions make.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/>

use std::sync::Arc;

use async_trait::async_trait;
use oarlock_cel::policy::{POLICY_BUDGET, failed, matches};
use oarlock_kinds::Row;
use oarlock_model::{ApiResult, Cause, Reason};
use oarlock_schema::apply;
use oarlock_schema::patch::json_patch;
use serde_json::Value;

use super::compiled::{Binding, Mutation, Policy};
use super::names::{Names, Seen, in_version};
use super::snapshot::Snapshot;
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, prepare};

#[derive(Debug)]
pub(super) struct MutatingPolicies {
    snapshot: Snapshot,
}

impl MutatingPolicies {
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot }
    }
}

/// Why a policy could not do what it should have.
struct Failure {
    message: String,
    reason: Reason,
}

#[async_trait]
impl Admission for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        // There is nothing to change of what goes.
        operation != Operation::Delete && self.snapshot.handles(target, operation)
    }

    async fn mutate(
        &self,
        registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let policies = self.snapshot.current();
        let mut failures = Vec::new();
        let again = request.rounds.again;
        if again {
            let object = request.object.as_deref();
            request.rounds.policies.begin_again(object);
        }
        for (policy, bindings) in policies.iter() {
            for binding in bindings {
                let who = format!("{}/{}", policy.name, binding.name);
                if again && !request.rounds.policies.is_due(&who) {
                    continue;
                }
                let told = failures.len();
                let changed = invoke(registry, request, policy, binding, &mut failures);
                if policy.ignores_failures {
                    failures.truncate(told);
                }
                if changed {
                    request.rounds.policies.changed();
                    request.rounds.wanted = true;
                }
                if policy.reinvoked {
                    request.rounds.policies.invoked(&who);
                }
            }
        }
        request.rounds.policies.leave(request.object.as_deref());
        let Some(first) = failures.first() else {
            return Ok(());
        };
        let mut error = super::forbidden(request, "");
        error.message.clone_from(&first.message);
        // Upstream keeps the code of a refusal.
        let code = error.code();
        error.reason = first.reason;
        error.status_code = Some(code);
        let causes = failures.into_iter();
        error.causes = causes.map(|f| Cause::new("", "", f.message)).collect();
        Err(error)
    }
}

/// Runs the mutations of a policy for each parameter; true if the object is another than before.
fn invoke(
    registry: &Registry,
    request: &mut AdmissionRequest<'_>,
    policy: &Policy,
    binding: &Binding,
    failures: &mut Vec<Failure>,
) -> bool {
    let mut fail = |by: Option<&Binding>, why: String, reason| {
        let policy = &policy.name;
        let message = match by {
            Some(Binding { name, .. }) => {
                format!("policy '{policy}' with binding '{name}' denied request: {why}")
            }
            None => format!("policy '{policy}' denied request: {why}"),
        };
        failures.push(Failure { message, reason });
    };
    let row = match policy.matching.fitting(registry, request) {
        Ok(Some(row)) => row,
        Ok(None) => return false,
        Err(why) => {
            fail(
                None,
                format!("failed to configure policy: {why}"),
                Reason::Invalid,
            );
            return false;
        }
    };
    let params = match binding.params(registry, policy, request) {
        Ok(Some(params)) => params,
        Ok(None) => return false,
        Err(why) => {
            let why = format!("failed to configure binding: {why}");
            fail(Some(binding), why, Reason::Invalid);
            return false;
        }
    };
    let mut changed = false;
    for param in &params {
        match applies(registry, request, policy, &row, param.as_ref()) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                fail(Some(binding), why, Reason::Invalid);
                continue;
            }
        }
        for mutation in &policy.mutations {
            match patched(registry, request, policy, &row, mutation, param.as_ref()) {
                Ok(Some(mut object)) => {
                    prepare::default(&request.target.row, &mut object);
                    if let Some(current) = request.object.as_deref_mut()
                        && *current != object
                    {
                        *current = object;
                        changed = true;
                    }
                }
                Ok(None) => {}
                Err(why) => fail(Some(binding), why, Reason::Invalid),
            }
        }
    }
    changed
}

fn applies(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
    policy: &Policy,
    row: &Arc<Row>,
    param: Option<&Value>,
) -> Result<bool, String> {
    if let Some(why) = &policy.broken {
        return Err(why.clone());
    }
    let seen = Seen::of(request, row);
    let mut names = Names::new(registry, request, param);
    if let Some(seen) = &seen {
        names.see(seen);
    }
    let activation = names.activation(&policy.variables);
    matches(
        policy.conditions.iter(),
        &activation,
        policy.ignores_failures,
    )
}

/// The object as a mutation makes it. `row`: the version of its kind that the policy is about.
fn patched(
    registry: &Registry,
    request: &AdmissionRequest<'_>,
    policy: &Policy,
    row: &Arc<Row>,
    mutation: &Mutation,
    param: Option<&Value>,
) -> Result<Option<Value>, String> {
    let Some(object) = request.object.as_deref() else {
        return Ok(None);
    };
    let seen = Seen::of(request, row);
    let mut names = Names::new(registry, request, param);
    if let Some(seen) = &seen {
        names.see(seen);
    }
    let object = seen.as_ref().map_or(object, |seen| seen.object(object));
    let activation = names.activation(&policy.variables);
    let (Mutation::JsonPatch(program) | Mutation::Apply(program)) = mutation;
    let made = program
        .eval_limited(&activation, POLICY_BUDGET)
        .and_then(|value| value.to_json())
        .map_err(|error| failed(program.text(), &error))?;
    let mut new = object.clone();
    match mutation {
        Mutation::JsonPatch(_) => {
            json_patch(&mut new, &made).map_err(|e| format!("JSON Patch: {e}"))?;
        }
        Mutation::Apply(_) => {
            new = apply::lay_over(&row.schema, new, &made).map_err(|why| {
                format!(
                    "error applying patch: failed to convert patch object to typed object: {why}"
                )
            })?;
        }
    }
    if seen.is_some() {
        new = in_version(&new, row, &request.target.row);
    }
    Ok(Some(new))
}
