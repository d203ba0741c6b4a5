//! What is wrong with the rules of a schema: looked at when a definition is made or changed.

use oarlock_model::Cause;
use serde_json::{Value as Json, json};

use super::env_of;
use crate::estimate::{self, Bounds};
use crate::types::Type;
use crate::{Program, Shape};

/// What messages call the type of `self`. Upstream's has a number that differs each time.
pub(super) const TYPE_NAME: &str = "selfType";

/// What an expression may be expected to cost at most, and all of a schema together.
const EXPRESSION_LIMIT: u64 = 10_000_000;
const SCHEMA_LIMIT: u64 = 100_000_000;
/// Expressions that are named when all together cost too much.
const MAX_BLAMED: usize = 4;

/// What compiling says of the rules of a whole schema, and what they may cost. `is_wrong`: something else is wrong with the
/// schema at this path or below it, so that its rules are not looked at yet. Rules that are empty are not this one's affair.
pub fn check_schema(schema: &Json, path: &str, is_wrong: &dyn Fn(&str) -> bool) -> Vec<Cause> {
    let mut walk = Walk {
        is_wrong,
        out: Vec::new(),
        total: 0,
        costs: Vec::new(),
    };
    let place = Place {
        is_resource: true,
        times: Some(1),
        uncorrelatable: None,
    };
    walk.node(schema, path, place);
    if walk.total > SCHEMA_LIMIT {
        walk.costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in walk.costs.iter().take(MAX_BLAMED) {
            let why = "contributed to estimated rule & messageExpression cost total exceeding cost limit for entire OpenAPIv3 schema";
            walk.out.push(Cause::forbidden(path.clone(), why));
        }
        let what = "estimated rule & messageExpression cost total for entire OpenAPIv3 schema";
        let why = too_costly(what, walk.total, SCHEMA_LIMIT);
        walk.out.push(Cause::forbidden(path, &why));
    }
    walk.out
}

fn rules_of(node: &Json) -> impl Iterator<Item = (usize, &Json)> {
    let rules = node["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().enumerate()
}

/// Where a node is in its schema.
#[derive(Clone, Default)]
struct Place {
    is_resource: bool,
    /// How often the node's value can be there; `None`: there is no telling.
    times: Option<u64>,
    /// The list above whose items cannot be told apart: rules below it have no old value.
    uncorrelatable: Option<String>,
}

struct Walk<'a> {
    is_wrong: &'a dyn Fn(&str) -> bool,
    out: Vec<Cause>,
    total: u64,
    costs: Vec<(String, u64)>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Json, path: &str, place: Place) {
        let shape = Shape::of(node, TYPE_NAME, place.is_resource);
        let most = shape.as_ref().map(|shape| shape.max_elements);
        let repeated = |place: &Place| Place {
            is_resource: false,
            times: place
                .times
                .zip(most)
                .map(|(times, most)| times.saturating_mul(most)),
            uncorrelatable: place.uncorrelatable.clone(),
        };
        let embedded = |node: &Json| node["x-kubernetes-embedded-resource"] == true;
        for (name, below) in node["properties"].as_object().into_iter().flatten() {
            let place = Place {
                is_resource: embedded(below),
                ..place.clone()
            };
            self.node(below, &format!("{path}.properties[{name}]"), place);
        }
        let below = &node["additionalProperties"];
        if below.is_object() {
            let place = repeated(&place);
            self.node(below, &format!("{path}.additionalProperties"), place);
        }
        let below = &node["items"];
        if below.is_object() {
            let mut place = repeated(&place);
            if node["x-kubernetes-list-type"] != "map" && place.uncorrelatable.is_none() {
                place.uncorrelatable = Some(path.to_owned());
            }
            self.node(below, &format!("{path}.items"), place);
        }
        let rules = rules_of(node).filter(|(_, rule)| {
            let text = rule["rule"].as_str().unwrap_or_default();
            !text.trim().is_empty()
        });
        let mut rules = rules.peekable();
        if let (Some(_), Some(shape), false) = (rules.peek(), shape, (self.is_wrong)(path)) {
            for (index, rule) in rules {
                let path = format!("{path}.x-kubernetes-validations[{index}]");
                self.rule(rule, &path, &shape, &place);
            }
        }
    }

    fn rule(&mut self, rule: &Json, path: &str, shape: &Shape, place: &Place) {
        let text = |field: &str| rule[field].as_str().unwrap_or_default();
        let env = env_of(&shape.ty, rule["optionalOldSelf"] == true);
        let at = |field: &str| format!("{path}.{field}");
        let mut uses_old = false;
        match Program::compile(text("rule"), &env) {
            Ok(program) => {
                uses_old = program.uses("oldSelf");
                if matches!(program.result(), Type::Bool) {
                    self.cost(&program, at("rule"), "estimated rule cost", shape, place);
                } else {
                    let why = "cel expression must evaluate to a bool";
                    self.out.push(invalid(at("rule"), rule, why));
                }
            }
            Err(errors) => {
                let why = format!("compilation failed: {errors}");
                self.out.push(invalid(at("rule"), rule, &why));
            }
        }
        if !text("messageExpression").is_empty() {
            match Program::compile(text("messageExpression"), &env) {
                Ok(program) if matches!(program.result(), Type::String) => {
                    let what = "estimated messageExpression cost";
                    self.cost(&program, at("messageExpression"), what, shape, place);
                }
                Ok(_) => {
                    let why = "messageExpression must evaluate to a string";
                    self.out.push(invalid(at("messageExpression"), rule, why));
                }
                Err(errors) => {
                    let why = format!("messageExpression compilation failed: {errors}");
                    self.out.push(invalid(at("messageExpression"), rule, &why));
                }
            }
        }
        if uses_old {
            if let Some(list) = &place.uncorrelatable {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
                );
                self.out
                    .push(Cause::invalid(at("rule"), &rule["rule"], &why));
            }
        } else if rule["optionalOldSelf"].is_boolean() {
            let why = "may not be set if oldSelf is not used in rule";
            let value = &rule["optionalOldSelf"];
            self.out
                .push(Cause::invalid(at("optionalOldSelf"), value, why));
        }
    }

    fn cost(&mut self, program: &Program, path: String, what: &str, shape: &Shape, place: &Place) {
        let bounds = Bounds::new(&[("self", shape), ("oldSelf", shape)]);
        let once = estimate::most(program, &bounds);
        let cost = place
            .times
            .map_or(u64::MAX, |times| once.saturating_mul(times));
        if cost > EXPRESSION_LIMIT {
            let why = too_costly(what, cost, EXPRESSION_LIMIT);
            self.out.push(Cause::forbidden(path.clone(), &why));
        }
        self.total = self.total.saturating_add(cost);
        self.costs.push((path, cost));
    }
}

fn too_costly(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// `Invalid value: RULE: WHY`, the rule as upstream's struct.
fn invalid(field: String, rule: &Json, why: &str) -> Cause {
    let text = |field: &str| json!(rule[field].as_str().unwrap_or_default());
    let given = |field: &str| rule.get(field).unwrap_or(&Json::Null);
    let (condition, message) = (text("rule"), text("message"));
    let (expression, path) = (text("messageExpression"), text("fieldPath"));
    let (reason, optional) = (given("reason"), given("optionalOldSelf"));
    let message = format!(
        "Invalid value: {{\"Rule\":{condition},\"Message\":{message},\"MessageExpression\":{expression},\"Reason\":{reason},\"FieldPath\":{path},\"OptionalOldSelf\":{optional}}}: {why}"
    );
    Cause::new("FieldValueInvalid", field, message)
}
