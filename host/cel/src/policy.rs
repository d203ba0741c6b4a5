//! The expressions of admission policies and webhooks: what they may name, and what they must come to.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>

use serde_json::Value as Json;

use crate::types::Type;
use crate::value::{EvalError, Value};
use crate::{AUTHORIZER, Activation, Env, Program, RESOURCE_CHECK};

/// What the match conditions of a policy or webhook may cost together at run time.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// What the expressions of a policy may cost together for one request.
pub const POLICY_BUDGET: u64 = 10_000_000;

/// What an expression must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    Bool,
    Text,
    /// A text, or null for nothing.
    TextOrNull,
    /// An apply configuration.
    Object,
    JsonPatch,
}

impl Wanted {
    fn types(self) -> Vec<Type> {
        match self {
            Self::Any => Vec::new(),
            Self::Bool => vec![Type::Bool],
            Self::Text => vec![Type::String],
            Self::TextOrNull => vec![Type::String, Type::Null],
            Self::Object => vec![Type::open_object("Object")],
            Self::JsonPatch => vec![Type::list(Type::open_object("JSONPatch"))],
        }
    }
}

/// Compiles an expression that must come to something; the error is what a field error's detail says.
pub fn compile(text: &str, env: &Env, wanted: Wanted) -> Result<Program, String> {
    let program = Program::compile(text, env).map_err(|e| format!("compilation failed: {e}"))?;
    let types = wanted.types();
    if types.is_empty() || types.contains(program.result()) {
        return Ok(program);
    }
    Err(match types.as_slice() {
        [one] => {
            let (one, found) = (one.long_name(), program.result().long_name());
            format!("must evaluate to {one} but got {found}")
        }
        all => {
            let all: Vec<String> = all.iter().map(Type::long_name).collect();
            format!("must evaluate to one of [{}]", all.join(" "))
        }
    })
}

/// What expressions of admission may name: `object`, `oldObject`, `request`, `namespaceObject`, `authorizer`, and `params` if the
/// policy has some.
pub fn env(has_params: bool) -> Env {
    let env = Env::new()
        .with_variable("object", Type::Dyn)
        .with_variable("oldObject", Type::Dyn)
        .with_variable("request", request())
        .with_variable("namespaceObject", namespace())
        .with_variable("authorizer", Type::opaque(AUTHORIZER))
        .with_variable("authorizer.requestResource", Type::opaque(RESOURCE_CHECK));
    if has_params {
        env.with_variable("params", Type::Dyn)
    } else {
        env
    }
}

/// As messages may not ask: without an authorizer.
#[must_use]
pub fn without_authorizer(env: Env) -> Env {
    env.without_variable("authorizer")
        .without_variable("authorizer.requestResource")
}

/// The type that a variable has for those who use it: what an object of a known type is made of is forgotten.
pub fn field_type(ty: &Type) -> Type {
    match ty {
        Type::List(_) | Type::Map(_) => ty.with_parameters(field_type),
        Type::Bool
        | Type::Int
        | Type::Uint
        | Type::Double
        | Type::String
        | Type::Bytes
        | Type::Null
        | Type::Timestamp
        | Type::Duration => ty.clone(),
        _ => Type::Dyn,
    }
}

/// Like [`env`] with the variables of a policy's `spec`, but with types of objects and parameters; for warnings alone.
pub fn typed_env(spec: &Json, object: Type, params: Option<Type>) -> Env {
    let mut names = env(false)
        .with_variable("object", object.clone())
        .with_variable("oldObject", object);
    if let Some(params) = params {
        names = names.with_variable("params", params);
    }
    let variables = spec["variables"].as_array().map_or(&[][..], Vec::as_slice);
    if !variables.is_empty() {
        names = with_variables(names);
    }
    declare(&mut names, variables);
    names
}

/// What compiling an expression says of it, whatever it comes to.
pub fn warning_of(text: &str, env: &Env) -> Option<String> {
    Program::compile(text, env).err().map(|why| why.to_string())
}

/// Gives `variables` its fields.
fn declare(names: &mut Env, variables: &[Json]) {
    for variable in variables {
        let (Some(name), Some(expression)) =
            (variable["name"].as_str(), variable["expression"].as_str())
        else {
            continue;
        };
        // What does not compile is told once, where it stands.
        let ty = Program::compile(expression, names)
            .map_or(Type::Dyn, |program| field_type(program.result()));
        names.add_field("variables", name, ty);
    }
}

/// With `variables`, which have no fields until [`Env::add_field`] gives them some.
#[must_use]
pub fn with_variables(env: Env) -> Env {
    env.with_variable("variables", Type::object("kubernetes.variables", []))
}

/// With the types that mutations are made of.
#[must_use]
pub fn with_mutations(env: Env) -> Env {
    env.with_type(Type::open_object("Object"))
        .with_type(Type::object(
            "JSONPatch",
            [
                ("op", Type::String),
                ("path", Type::String),
                ("from", Type::String),
                ("value", Type::Dyn),
            ],
        ))
}

/// A selector of devices: `device.driver == "x" && device.attributes["x"].model == "y"`.
pub fn compile_device(text: &str) -> Result<Program, String> {
    let by_domain = |of: Type| Type::map(Type::String, Type::map(Type::String, of));
    let device = Type::object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("attributes", by_domain(Type::Dyn)),
            ("capacity", by_domain(Type::opaque("kubernetes.Quantity"))),
            ("allowMultipleAllocations", Type::Bool),
        ],
    );
    let env = Env::new().with_variable("device", device);
    let program = compile(text, &env, Wanted::Any)?;
    match program.result() {
        Type::Bool | Type::Dyn => Ok(program),
        found => {
            let found = found.long_name();
            Err(format!(
                "must evaluate to bool or the unknown type, not {found}"
            ))
        }
    }
}

/// Where an expression stands in a policy, which decides what it may name and what it must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    MatchCondition,
    /// The variable at this index may name those before it.
    Variable(usize),
    Validation,
    Message,
    AuditAnnotation,
    ApplyConfiguration,
    JsonPatch,
}

/// Compiles an expression of a policy's `spec` (of a webhook's match condition: null), with the variables that it has.
pub fn compile_part(spec: &Json, part: Part, text: &str) -> Result<Program, String> {
    let base = env(spec["paramKind"].is_object());
    let (index, wanted) = match part {
        Part::MatchCondition => return compile(text, &base, Wanted::Bool),
        Part::Variable(index) => (index, Wanted::Any),
        Part::Validation => (usize::MAX, Wanted::Bool),
        Part::Message => (usize::MAX, Wanted::Text),
        Part::AuditAnnotation => (usize::MAX, Wanted::TextOrNull),
        Part::ApplyConfiguration => (usize::MAX, Wanted::Object),
        Part::JsonPatch => (usize::MAX, Wanted::JsonPatch),
    };
    let mut names = base;
    if spec["mutations"].is_array() {
        names = with_mutations(names);
    }
    let variables = spec["variables"].as_array().map_or(&[][..], Vec::as_slice);
    if !variables.is_empty() {
        names = with_variables(names);
    }
    declare(&mut names, &variables[..index.min(variables.len())]);
    if part == Part::Message {
        names = without_authorizer(names);
    }
    compile(text, &names, wanted)
}

fn texts() -> Type {
    Type::list(Type::String)
}

fn labels() -> Type {
    Type::map(Type::String, Type::String)
}

fn request() -> Type {
    let all = |name: &str, fields: &[&'static str]| {
        Type::object(name, fields.iter().map(|field| (*field, Type::String)))
    };
    let kind = || all("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = || {
        all(
            "kubernetes.GroupVersionResource",
            &["group", "version", "resource"],
        )
    };
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", texts()),
            ("extra", Type::map(Type::String, texts())),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace() -> Type {
    let condition = Type::object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", labels()),
            ("annotations", labels()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", texts()),
        ],
    );
    let status = Type::object(
        "kubernetes.NamespaceStatus",
        [
            ("phase", Type::String),
            ("conditions", Type::list(condition)),
        ],
    );
    Type::object(
        "kubernetes.Namespace",
        [
            ("metadata", metadata),
            (
                "spec",
                Type::object("kubernetes.NamespaceSpec", [("finalizers", texts())]),
            ),
            ("status", status),
        ],
    )
}

/// What an evaluation of a policy's expression says that failed.
pub fn failed(text: &str, error: &EvalError) -> String {
    match error {
        EvalError::CostExceeded => {
            "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
        }
        error => format!("expression '{text}' resulted in error: {error}"),
    }
}

/// Whether all match conditions hold: one that is false decides, whatever others fail. `ignore`: failing is as good as false.
pub fn matches<'a>(
    conditions: impl IntoIterator<Item = &'a Program>,
    names: &Activation<'a>,
    ignore: bool,
) -> Result<bool, String> {
    let mut errors = Vec::new();
    let before = names.cost();
    for program in conditions {
        let left = CONDITIONS_BUDGET.saturating_sub(names.cost() - before);
        match program.eval_limited(names, left.min(crate::PER_CALL_LIMIT)) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(error) => errors.push(failed(program.text(), &error)),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        _ if ignore => Ok(false),
        [one] => Err(one.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}
