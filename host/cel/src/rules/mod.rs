//! `x-kubernetes-validations`: the rules that a CustomResourceDefinition's schema has. `schema` checks them when the
//! definition is made, `Rules` checks objects by them.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>

mod path;
mod schema;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_model::Cause;
use serde_json::Value as Json;

use crate::value::{EvalError, Value};
use crate::{Activation, Env, PER_CALL_LIMIT, Program, Shape, Type};

pub use schema::check_schema;

/// What the rules of an object may cost together.
const OBJECT_BUDGET: u64 = 10_000_000;
const MAX_MESSAGE_BYTES: usize = 5 * 1024;

/// The rules of a schema, compiled. Values below which there are none are not looked at.
#[derive(Debug, Default)]
pub struct Rules {
    root: Option<Node>,
}

#[derive(Debug)]
struct Node {
    shape: Arc<Shape>,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
    /// `x-kubernetes-list-map-keys`, if the list is a map by them.
    keys: Vec<String>,
    /// `x-kubernetes-map-type: atomic`: what is below has no old value.
    atomic: bool,
}

#[derive(Debug)]
struct Rule {
    program: Program,
    uses_old: bool,
    optional_old: bool,
    message: String,
    message_program: Option<Program>,
    /// Empty: `FieldValueInvalid`.
    reason: String,
    /// Where the failure is, below the value that the rule is of.
    path: String,
}

/// What the rules say of an object.
#[derive(Debug, Default)]
pub struct Verdict {
    pub causes: Vec<Cause>,
    /// Failures of values that an update leaves as they were.
    pub warnings: Vec<String>,
}

impl Rules {
    /// Of a version's `openAPIV3Schema`. Rules that do not compile are left out: the definition was not accepted with them.
    pub fn of(schema: &Json) -> Self {
        Self {
            root: Node::of(schema, true),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Costs what the rules cost, and nothing if there are none.
    pub fn check(&self, object: &Json, old: Option<&Json>) -> Verdict {
        let mut run = Run {
            verdict: Verdict::default(),
            budget: Some(OBJECT_BUDGET),
        };
        if let Some(root) = &self.root {
            run.node(root, object, old, &mut Path::default());
        }
        run.verdict
    }
}

impl Node {
    fn of(schema: &Json, is_resource: bool) -> Option<Self> {
        schema.as_object()?;
        let is_resource = is_resource || schema["x-kubernetes-embedded-resource"] == true;
        let below = |schema: &Json| Self::of(schema, false);
        let properties: BTreeMap<String, Self> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, schema)| Some((name.clone(), below(schema)?)))
            .collect();
        let additional = below(&schema["additionalProperties"]).map(Box::new);
        let items = below(&schema["items"]).map(Box::new);
        let written = schema["x-kubernetes-validations"].as_array();
        let written = written.map_or(&[][..], Vec::as_slice);
        if written.is_empty() && properties.is_empty() && additional.is_none() && items.is_none() {
            return None;
        }
        let shape = Shape::of(schema, schema::TYPE_NAME, is_resource)?;
        let rules = written
            .iter()
            .filter_map(|rule| Rule::of(rule, schema, &shape.ty))
            .collect();
        let is_map = schema["x-kubernetes-list-type"] == "map";
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        Some(Self {
            shape: Arc::new(shape),
            rules,
            properties,
            additional,
            items,
            keys: keys
                .into_iter()
                .flatten()
                .filter(|_| is_map)
                .filter_map(|key| Some(key.as_str()?.to_owned()))
                .collect(),
            atomic: schema["x-kubernetes-map-type"] == "atomic",
        })
    }
}

impl Rule {
    fn of(rule: &Json, schema: &Json, ty: &Type) -> Option<Self> {
        let text = |field: &str| rule[field].as_str().unwrap_or_default();
        let optional_old = rule["optionalOldSelf"] == true;
        let env = env_of(ty, optional_old);
        let program = Program::compile(text("rule"), &env).ok()?;
        let message_program = match text("messageExpression") {
            "" => None,
            expression => Program::compile(expression, &env).ok(),
        };
        Some(Self {
            uses_old: program.uses("oldSelf"),
            program,
            optional_old,
            message: match text("message").trim() {
                "" => format!("failed rule: {}", text("rule").trim()),
                message => message.to_owned(),
            },
            message_program,
            reason: text("reason").to_owned(),
            path: match text("fieldPath") {
                "" => String::new(),
                path => path::normalized(path, schema)?,
            },
        })
    }

    /// What messages about evaluation call the rule: its message, or else its text.
    fn name(&self) -> &str {
        self.message
            .strip_prefix("failed rule: ")
            .unwrap_or(&self.message)
    }
}

pub(crate) fn env_of(ty: &Type, optional_old: bool) -> Env {
    let old = if optional_old {
        Type::optional(ty.clone())
    } else {
        ty.clone()
    };
    Env::new()
        .with_variable("self", ty.clone())
        .with_variable("oldSelf", old)
}

/// Where in the object: parts are written out only when there is something to say.
#[derive(Default)]
struct Path<'a>(Vec<Part<'a>>);

enum Part<'a> {
    Field(&'a str),
    Key(&'a str),
    Index(usize),
}

impl Path<'_> {
    fn text(&self, below: &str) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Field(name) if text.is_empty() => text.push_str(name),
                Part::Field(name) => text.extend([".", name]),
                Part::Key(name) => text.extend(["[", name, "]"]),
                Part::Index(at) => text.push_str(&format!("[{at}]")),
            }
        }
        if !below.is_empty() && !text.is_empty() {
            text.push('.');
        }
        text.push_str(below);
        // The root has a name of its own in field paths.
        if text.is_empty() {
            "<nil>".to_owned()
        } else {
            text
        }
    }
}

struct Run {
    verdict: Verdict,
    /// What is left; `None` when it ran out and nothing more is evaluated.
    budget: Option<u64>,
}

impl Run {
    fn node<'a>(
        &mut self,
        node: &'a Node,
        value: &'a Json,
        old: Option<&'a Json>,
        path: &mut Path<'a>,
    ) {
        if value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        for rule in &node.rules {
            if self.budget.is_none() {
                return;
            }
            self.rule(rule, node, value, old, path);
        }
        match value {
            Json::Object(fields) => {
                let old = old.filter(|_| !node.atomic);
                for (name, value) in fields {
                    let (below, part) = match (node.properties.get(name), &node.additional) {
                        (Some(below), _) => (below, Part::Field(name)),
                        (None, Some(below)) => (&**below, Part::Key(name)),
                        (None, None) => continue,
                    };
                    path.0.push(part);
                    self.node(below, value, old.and_then(|old| old.get(name)), path);
                    path.0.pop();
                }
            }
            Json::Array(items) => {
                let Some(below) = &node.items else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    let old = old
                        .filter(|_| !node.keys.is_empty())
                        .and_then(Json::as_array)
                        .and_then(|all| {
                            let same = |other: &&Json| {
                                node.keys.iter().all(|key| other.get(key) == item.get(key))
                            };
                            all.iter().find(same)
                        });
                    path.0.push(Part::Index(index));
                    self.node(below, item, old, path);
                    path.0.pop();
                }
            }
            _ => {}
        }
    }

    fn rule<'a>(
        &mut self,
        rule: &'a Rule,
        node: &'a Node,
        value: &'a Json,
        old: Option<&'a Json>,
        path: &Path<'_>,
    ) {
        if rule.uses_old && !rule.optional_old && old.is_none() {
            return;
        }
        let mut names = Activation::new().with("self", Value::shaped(value, &node.shape));
        let before = old.map(|old| Value::shaped(old, &node.shape));
        if rule.optional_old {
            names.set("oldSelf", Value::Optional(before.map(Into::into)));
        } else if let Some(before) = before {
            names.set("oldSelf", before);
        }
        let outcome = rule.program.eval(&names);
        if !self.spend(names.cost(), value, path) {
            return;
        }
        let name = rule.name();
        let wrong = match outcome {
            Ok(Value::Bool(true)) => return,
            Ok(_) => {
                let message = self.message(rule, &names);
                let cause = failure(rule, path.text(&rule.path), value, &message);
                let ratcheted = !rule.uses_old && old.is_some_and(|old| old == value);
                if ratcheted {
                    let text = format!("{}: {}", cause.field, cause.message);
                    self.verdict.warnings.push(text);
                } else {
                    self.verdict.causes.push(cause);
                }
                return;
            }
            Err(error @ EvalError::NoSuchOverload) => format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
            ),
            Err(error @ EvalError::CostExceeded) => {
                self.budget = None;
                format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
                )
            }
            Err(error) => format!("{error} evaluating rule: {name}"),
        };
        self.verdict
            .causes
            .push(invalid(path.text(""), value, &wrong));
    }

    /// False if the budget is used up by this.
    fn spend(&mut self, cost: u64, value: &Json, path: &Path<'_>) -> bool {
        let left = self.budget.and_then(|left| left.checked_sub(cost));
        if left.is_none() && self.budget.is_some() {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.verdict.causes.push(invalid(path.text(""), value, why));
        }
        self.budget = left;
        left.is_some()
    }

    fn message<'a>(&mut self, rule: &'a Rule, names: &Activation<'a>) -> Cow<'a, str> {
        let default = Cow::Borrowed(rule.message.as_str());
        let Some(program) = &rule.message_program else {
            return default;
        };
        let before = names.cost();
        let limit = PER_CALL_LIMIT.min(self.budget.unwrap_or(0));
        let outcome = program.eval_limited(names, limit);
        self.budget = self
            .budget
            .map(|left| left.saturating_sub(names.cost() - before));
        let text = match &outcome {
            Ok(value) => value.as_str().unwrap_or_default().trim(),
            Err(_) => "",
        };
        if text.is_empty() || text.len() > MAX_MESSAGE_BYTES || text.contains(['\n', '\r']) {
            return default;
        }
        Cow::Owned(text.to_owned())
    }
}

/// Values of scalars are shown, others are left out.
fn invalid(field: String, value: &Json, detail: &str) -> Cause {
    match value {
        Json::Object(_) | Json::Array(_) => Cause::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {detail}"),
        ),
        value => Cause::invalid(field, value, detail),
    }
}

fn failure(rule: &Rule, field: String, value: &Json, detail: &str) -> Cause {
    match rule.reason.as_str() {
        "FieldValueForbidden" => Cause::forbidden(field, detail),
        "FieldValueRequired" => Cause::required(field, detail),
        "FieldValueDuplicate" => match value {
            Json::Object(_) | Json::Array(_) => {
                Cause::new("FieldValueDuplicate", field, "Duplicate value")
            }
            value => Cause::duplicate(field, value),
        },
        _ => invalid(field, value, detail),
    }
}
