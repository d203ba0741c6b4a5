//! The authorizer: `authorizer.group('').resource('pods').check('get').allowed()`. Who decides is behind a trait.

use std::rc::Rc;

use super::{Opaque, Outcome, no_overload, opaque};
use crate::decl::Library;
use crate::value::{EvalError, Value};

/// What is asked: of a resource or, if `path` is set, of a path that is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// Decides for a user that is fixed: the one of the request, or a service account.
pub trait Authorizer: std::fmt::Debug {
    fn check(&self, attributes: &Attributes) -> Decision;

    /// The same question for another user.
    fn of_service_account<'a>(&'a self, namespace: &str, name: &str) -> Rc<dyn Authorizer + 'a>;
}

/// How far an expression has come on its way to a decision.
#[derive(Clone, Debug)]
pub enum Step<'a> {
    Authorizer(Rc<dyn Authorizer + 'a>),
    Path(Rc<dyn Authorizer + 'a>, Attributes),
    Group(Rc<dyn Authorizer + 'a>, Attributes),
    Resource(Rc<dyn Authorizer + 'a>, Attributes),
    Decision(Decision),
}

/// The type of `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// The type of `authorizer.requestResource`.
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

impl Step<'_> {
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(_) => AUTHORIZER,
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => RESOURCE_CHECK,
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

macro_rules! of {
    ($of:literal, $rest:literal) => {
        concat!("kubernetes.authorization.", $of, ": ", $rest)
    };
    ($of:literal, $rest:literal, $result:literal) => {
        concat!(
            "kubernetes.authorization.",
            $of,
            ": ",
            $rest,
            " -> kubernetes.authorization.",
            $result
        )
    };
}

pub(super) const LIBRARY: Library = &[
    (of!("Authorizer", "path(string)", "PathCheck"), |args| {
        step(args, |step, text| match step {
            Step::Authorizer(by) if !text.is_empty() => Ok(Step::Path(
                by,
                Attributes {
                    path: text,
                    ..Attributes::default()
                },
            )),
            Step::Authorizer(_) => Err(EvalError::new("path must not be empty")),
            _ => Err(EvalError::NoSuchOverload),
        })
    }),
    (of!("Authorizer", "group(string)", "GroupCheck"), |args| {
        step(args, |step, text| match step {
            Step::Authorizer(by) => Ok(Step::Group(
                by,
                Attributes {
                    group: text,
                    ..Attributes::default()
                },
            )),
            _ => Err(EvalError::NoSuchOverload),
        })
    }),
    (
        of!("Authorizer", "serviceAccount(string, string)", "Authorizer"),
        |args| match args {
            [
                Value::Opaque(value),
                Value::String(namespace),
                Value::String(name),
            ] => match &**value {
                Opaque::Authorization(Step::Authorizer(by)) => {
                    let other = service_account(by, namespace, name);
                    Ok(opaque(Opaque::Authorization(Step::Authorizer(other))))
                }
                _ => no_overload(),
            },
            _ => no_overload(),
        },
    ),
    (
        of!("GroupCheck", "resource(string)", "ResourceCheck"),
        |args| {
            step(args, |step, text| match step {
                Step::Group(by, attributes) => Ok(Step::Resource(
                    by,
                    Attributes {
                        resource: text,
                        ..attributes
                    },
                )),
                _ => Err(EvalError::NoSuchOverload),
            })
        },
    ),
    (
        of!("ResourceCheck", "subresource(string)", "ResourceCheck"),
        |args| narrowed(args, |a| &mut a.subresource),
    ),
    (
        of!("ResourceCheck", "namespace(string)", "ResourceCheck"),
        |args| narrowed(args, |a| &mut a.namespace),
    ),
    (
        of!("ResourceCheck", "name(string)", "ResourceCheck"),
        |args| narrowed(args, |a| &mut a.name),
    ),
    (
        of!("ResourceCheck", "fieldSelector(string)", "ResourceCheck"),
        |args| narrowed(args, |a| &mut a.field_selector),
    ),
    (
        of!("ResourceCheck", "labelSelector(string)", "ResourceCheck"),
        |args| narrowed(args, |a| &mut a.label_selector),
    ),
    (
        concat!(
            "kubernetes.authorization.PathCheck: check(string) -> kubernetes.authorization.Decision\n",
            "kubernetes.authorization.ResourceCheck: check(string) -> kubernetes.authorization.Decision"
        ),
        |args| {
            step(args, |step, text| match step {
                Step::Path(by, attributes) | Step::Resource(by, attributes) => {
                    Ok(Step::Decision(by.check(&Attributes {
                        verb: text,
                        ..attributes
                    })))
                }
                _ => Err(EvalError::NoSuchOverload),
            })
        },
    ),
    (of!("Decision", "errored() -> bool"), |args| {
        Ok(Value::Bool(decision(args)?.error.is_some()))
    }),
    (of!("Decision", "error() -> string"), |args| {
        Ok(Value::text(
            decision(args)?.error.clone().unwrap_or_default(),
        ))
    }),
    (of!("Decision", "allowed() -> bool"), |args| {
        Ok(Value::Bool(decision(args)?.allowed))
    }),
    (of!("Decision", "reason() -> string"), |args| {
        Ok(Value::text(decision(args)?.reason.clone()))
    }),
];

/// The value of `authorizer`.
pub fn authorizer<'a>(by: Rc<dyn Authorizer + 'a>) -> Value<'a> {
    opaque(Opaque::Authorization(Step::Authorizer(by)))
}

/// The value of `authorizer.requestResource`.
pub fn request_resource<'a>(by: Rc<dyn Authorizer + 'a>, attributes: Attributes) -> Value<'a> {
    opaque(Opaque::Authorization(Step::Resource(by, attributes)))
}

fn service_account<'a>(
    by: &Rc<dyn Authorizer + 'a>,
    namespace: &str,
    name: &str,
) -> Rc<dyn Authorizer + 'a> {
    Rc::new(Impersonating {
        by: Rc::clone(by),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Asks an authorizer for a service account.
#[derive(Debug)]
struct Impersonating<'a> {
    by: Rc<dyn Authorizer + 'a>,
    namespace: String,
    name: String,
}

impl Authorizer for Impersonating<'_> {
    fn check(&self, attributes: &Attributes) -> Decision {
        self.by
            .of_service_account(&self.namespace, &self.name)
            .check(attributes)
    }

    fn of_service_account<'a>(&'a self, namespace: &str, name: &str) -> Rc<dyn Authorizer + 'a> {
        self.by.of_service_account(namespace, name)
    }
}

fn step<'a>(
    args: &[Value<'a>],
    next: impl Fn(Step<'a>, String) -> Result<Step<'a>, EvalError>,
) -> Outcome<'a> {
    match args {
        [Value::Opaque(value), Value::String(text)] => match &**value {
            Opaque::Authorization(step) => {
                let next = next(step.clone(), text.to_string())?;
                Ok(opaque(Opaque::Authorization(next)))
            }
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn narrowed<'a>(args: &[Value<'a>], field: fn(&mut Attributes) -> &mut String) -> Outcome<'a> {
    step(args, |step, text| match step {
        Step::Resource(by, mut attributes) => {
            *field(&mut attributes) = text;
            Ok(Step::Resource(by, attributes))
        }
        _ => Err(EvalError::NoSuchOverload),
    })
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    match args.first() {
        Some(Value::Opaque(value)) => match &**value {
            Opaque::Authorization(Step::Decision(decision)) => Ok(decision),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}
