//! A policy and a binding, ready to be used.

use oarlock_cel::policy::{self, Wanted};
use oarlock_cel::{Env, Program};
use oarlock_model::{LabelSelector, meta};
use serde_json::Value;

use crate::admission::AdmissionRequest;
use crate::admission::matching::Matching;
use crate::{Registry, Target};

#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    pub matching: Matching,
    /// What cannot be evaluated is as if it were not there.
    pub ignores_failures: bool,
    /// apiVersion and kind of parameters.
    pub param_kind: Option<(String, String)>,
    pub conditions: Vec<Program>,
    pub variables: Vec<(String, Program)>,
    pub validations: Vec<Validation>,
    /// Keys, and what makes their values.
    pub notes: Vec<(String, Program)>,
    pub mutations: Vec<Mutation>,
    pub reinvoked: bool,
    /// Why an expression does not compile. (Validation lets no such policy in; an older version may have.)
    pub broken: Option<String>,
}

#[derive(Debug)]
pub(super) struct Validation {
    pub program: Program,
    pub message: String,
    pub message_program: Option<Program>,
    pub reason: String,
}

#[derive(Debug)]
pub(super) enum Mutation {
    Apply(Program),
    JsonPatch(Program),
}

#[derive(Debug)]
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    matching: Matching,
    params: Option<ParamRef>,
    pub denies: bool,
    pub warns: bool,
    pub audits: bool,
    /// All of them, as they are written.
    pub actions: Vec<String>,
}

#[derive(Debug)]
pub(super) struct ParamRef {
    pub name: String,
    pub namespace: String,
    pub selector: Option<LabelSelector>,
    pub required: bool,
}

/// Compiles the expressions of a policy and remembers what went wrong first.
struct Compiler {
    env: Env,
    broken: Option<String>,
}

impl Compiler {
    fn program(&mut self, text: &Value, wanted: Wanted) -> Option<Program> {
        let compiled = policy::compile(text.as_str().unwrap_or_default(), &self.env, wanted);
        compiled
            .map_err(|why| self.broken = self.broken.take().or(Some(why)))
            .ok()
    }
}

fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

impl Policy {
    pub fn validating(object: &Value) -> Self {
        let (mut policy, mut compiler) = Self::common(object, false);
        let mut messages = Compiler {
            env: policy::without_authorizer(compiler.env.clone()),
            broken: None,
        };
        for one in list(&object["spec"]["validations"]) {
            let Some(program) = compiler.program(&one["expression"], Wanted::Bool) else {
                continue;
            };
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            let message = &one["messageExpression"];
            let has_message = message.as_str().is_some_and(|text| !text.is_empty());
            policy.validations.push(Validation {
                program,
                message: text("message"),
                message_program: has_message
                    .then(|| messages.program(message, Wanted::Text))
                    .flatten(),
                reason: text("reason"),
            });
        }
        for one in list(&object["spec"]["auditAnnotations"]) {
            let program = compiler.program(&one["valueExpression"], Wanted::TextOrNull);
            let key = one["key"].as_str().unwrap_or_default().to_owned();
            policy.notes.extend(program.map(|program| (key, program)));
        }
        policy.broken = policy.broken.or(compiler.broken).or(messages.broken);
        policy
    }

    pub fn mutating(object: &Value) -> Self {
        let (mut policy, mut compiler) = Self::common(object, true);
        for one in list(&object["spec"]["mutations"]) {
            let mutation = if one["patchType"] == "JSONPatch" {
                let text = &one["jsonPatch"]["expression"];
                compiler
                    .program(text, Wanted::JsonPatch)
                    .map(Mutation::JsonPatch)
            } else {
                let text = &one["applyConfiguration"]["expression"];
                compiler.program(text, Wanted::Object).map(Mutation::Apply)
            };
            policy.mutations.extend(mutation);
        }
        policy.reinvoked = object["spec"]["reinvocationPolicy"] == "IfNeeded";
        policy.broken = policy.broken.or(compiler.broken);
        policy
    }

    fn common(object: &Value, mutates: bool) -> (Self, Compiler) {
        let spec = &object["spec"];
        let param_kind = spec["paramKind"]["kind"].as_str().map(|kind| {
            let version = spec["paramKind"]["apiVersion"].as_str().unwrap_or_default();
            (version.to_owned(), kind.to_owned())
        });
        let mut compiler = Compiler {
            env: policy::env(param_kind.is_some()),
            broken: None,
        };
        let mut variables = Vec::new();
        let conditions = list(&spec["matchConditions"])
            .iter()
            .filter_map(|one| compiler.program(&one["expression"], Wanted::Bool))
            .collect();
        if !list(&spec["variables"]).is_empty() {
            compiler.env = policy::with_variables(compiler.env);
        }
        if mutates {
            compiler.env = policy::with_mutations(compiler.env);
        }
        for one in list(&spec["variables"]) {
            let name = one["name"].as_str().unwrap_or_default();
            if let Some(program) = compiler.program(&one["expression"], Wanted::Any) {
                let ty = policy::field_type(program.result());
                compiler.env.add_field("variables", name, ty);
                variables.push((name.to_owned(), program));
            }
        }
        let (matching, broken) = match Matching::of(&spec["matchConstraints"]) {
            Ok(matching) => (matching, None),
            Err(why) => (Matching::nothing(), Some(why)),
        };
        let policy = Self {
            name: meta::name(object).to_owned(),
            matching,
            ignores_failures: spec["failurePolicy"] == "Ignore",
            param_kind,
            conditions,
            variables,
            validations: Vec::new(),
            notes: Vec::new(),
            mutations: Vec::new(),
            reinvoked: false,
            broken,
        };
        (policy, compiler)
    }
}

impl Binding {
    pub fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let acts = |action: &str| list(&spec["validationActions"]).iter().any(|a| a == action);
        let reference = &spec["paramRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let selector = match &reference["selector"] {
            Value::Null => None,
            selector => LabelSelector::from_object(selector).ok(),
        };
        Self {
            name: meta::name(object).to_owned(),
            policy: spec["policyName"].as_str().unwrap_or_default().to_owned(),
            matching: Matching::of(&spec["matchResources"]).unwrap_or_else(|_| Matching::nothing()),
            params: reference.is_object().then(|| ParamRef {
                name: text("name"),
                namespace: text("namespace"),
                selector,
                required: reference["parameterNotFoundAction"] == "Deny",
            }),
            denies: acts("Deny"),
            warns: acts("Warn"),
            audits: acts("Audit"),
            actions: list(&spec["validationActions"])
                .iter()
                .filter_map(|action| action.as_str().map(str::to_owned))
                .collect(),
        }
    }

    /// The parameters that a policy is evaluated with, one after another; `None`: the binding is not about this request.
    pub fn params(
        &self,
        registry: &Registry,
        policy: &Policy,
        request: &AdmissionRequest<'_>,
    ) -> Result<Option<Vec<Option<Value>>>, String> {
        if self.matching.fitting(registry, request)?.is_none() {
            return Ok(None);
        }
        let (Some((version, kind)), Some(reference)) = (&policy.param_kind, &self.params) else {
            return Ok(Some(vec![None]));
        };
        let target: &Target = request.target;
        super::params::find(registry, version, kind, reference, &target.namespace).map(Some)
    }
}
