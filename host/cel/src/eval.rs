//! Walks a checked tree. Counts cost as cel-go's tracker does and stops where the limit is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::ast::{Comprehension, Kind, Literal, MAP_INSERT, NOT_STRICTLY_FALSE, Node};
use crate::cost;
use crate::decl::Implementation;
use crate::program::Program;
use crate::value::{EvalError, List, Map, OwnedMap, Struct, Text, Value};

pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// What the names of an expression stand for. `variables.x` is evaluated when it is first asked for, and once.
#[derive(Debug, Default)]
pub struct Activation<'a> {
    values: HashMap<&'a str, Value<'a>>,
    variables: &'a [(String, Program)],
    memo: RefCell<HashMap<usize, Outcome<'a>>>,
    /// What is left of a budget that expressions share, if they do.
    cost: RefCell<u64>,
}

impl<'a> Activation<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.values.insert(name, value);
        self
    }

    pub fn set(&mut self, name: &'a str, value: Value<'a>) {
        self.values.insert(name, value);
    }

    /// The expressions behind `variables.NAME`; each may use those before it.
    #[must_use]
    pub fn with_variables(mut self, variables: &'a [(String, Program)]) -> Self {
        self.variables = variables;
        self
    }

    /// What all evaluations with this activation have cost together.
    pub fn cost(&self) -> u64 {
        *self.cost.borrow()
    }

    fn variable(&self, name: &str, limit: u64) -> Option<Outcome<'a>> {
        let index = self.variables.iter().position(|(n, _)| n == name)?;
        if let Some(known) = self.memo.borrow().get(&index) {
            return Some(known.clone());
        }
        let outcome = self.variables[index].1.eval_limited(self, limit);
        self.memo.borrow_mut().insert(index, outcome.clone());
        Some(outcome)
    }
}

pub(crate) fn eval<'a>(program: &'a Program, names: &Activation<'a>, limit: u64) -> Outcome<'a> {
    let mut run = Run {
        program,
        names,
        scopes: Vec::new(),
        cost: 0,
        limit,
    };
    let outcome = run.node(&program.root);
    *names.cost.borrow_mut() += run.cost;
    outcome
}

struct Run<'a, 'n> {
    program: &'a Program,
    names: &'n Activation<'a>,
    scopes: Vec<(&'a str, Outcome<'a>)>,
    cost: u64,
    limit: u64,
}

impl<'a> Run<'a, '_> {
    fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit {
            return Err(EvalError::CostExceeded);
        }
        Ok(())
    }

    fn node(&mut self, node: &'a Node) -> Outcome<'a> {
        match &node.kind {
            Kind::Literal(literal) => Ok(constant(literal)),
            Kind::Ident(name) => {
                self.spend(1)?;
                self.ident(name)
            }
            Kind::Select {
                operand,
                field,
                test,
            } => self.select(operand, field, *test),
            Kind::List(elements) => {
                self.spend(10)?;
                let mut list = Vec::with_capacity(elements.len());
                for element in elements {
                    let value = self.node(&element.value)?;
                    match value {
                        Value::Optional(inside) if element.optional => {
                            list.extend(inside.map(|v| (*v).clone()));
                        }
                        value => list.push(value),
                    }
                }
                Ok(Value::list(list))
            }
            Kind::Map(entries) => {
                self.spend(30)?;
                let mut map = OwnedMap::default();
                for entry in entries {
                    let key = self.node(&entry.key)?;
                    match self.node(&entry.value)? {
                        Value::Optional(inside) if entry.optional => {
                            if let Some(value) = inside {
                                map.insert(key, (*value).clone())?;
                            }
                        }
                        value => map.insert(key, value)?,
                    }
                }
                Ok(Value::Map(Map::Owned(Rc::new(map))))
            }
            Kind::Struct { name, fields } => {
                self.spend(40)?;
                let mut made = Vec::with_capacity(fields.len());
                for field in fields {
                    match self.node(&field.value)? {
                        Value::Optional(inside) if field.optional => {
                            made.extend(inside.map(|v| (field.name.as_str(), (*v).clone())));
                        }
                        value => made.push((field.name.as_str(), value)),
                    }
                }
                Ok(Value::Struct(Rc::new(Struct { name, fields: made })))
            }
            Kind::Comprehension(all) => self.comprehension(all),
            Kind::Call {
                function,
                target,
                args,
            } => self.call(node, function, target.as_deref(), args),
        }
    }

    fn ident(&mut self, name: &str) -> Outcome<'a> {
        if let Some((_, value)) = self.scopes.iter().rev().find(|(bound, _)| *bound == name) {
            return value.clone();
        }
        self.names
            .values
            .get(name)
            .cloned()
            .ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
    }

    fn select(&mut self, operand: &'a Node, field: &'a str, test: bool) -> Outcome<'a> {
        self.spend(1)?;
        if let Kind::Ident(name) = &operand.kind
            && name == "variables"
            && !self.names.variables.is_empty()
            && !self.names.values.contains_key("variables")
        {
            let left = self.limit.saturating_sub(self.cost);
            return match self.names.variable(field, left) {
                Some(_) if test => Ok(Value::Bool(true)),
                Some(outcome) => outcome,
                None => Err(EvalError::no_such_key(field)),
            };
        }
        let operand = self.node(operand)?;
        let found = select_field(&operand, field)?;
        match (found, &operand) {
            (found, Value::Optional(_)) if !test => Ok(Value::Optional(found.map(Rc::new))),
            (found, _) if test => Ok(Value::Bool(found.is_some())),
            (Some(value), _) => Ok(value),
            (None, _) => Err(EvalError::no_such_key(field)),
        }
    }

    fn call(
        &mut self,
        node: &'a Node,
        function: &str,
        target: Option<&'a Node>,
        args: &'a [Node],
    ) -> Outcome<'a> {
        match (function, args) {
            ("_&&_", [left, right]) => self.logic(left, right, false),
            ("_||_", [left, right]) => self.logic(left, right, true),
            ("_?_:_", [condition, yes, no]) => match self.node(condition)? {
                Value::Bool(true) => self.node(yes),
                Value::Bool(false) => self.node(no),
                _ => Err(EvalError::NoSuchOverload),
            },
            (NOT_STRICTLY_FALSE, [arg]) => match self.node(arg) {
                Err(EvalError::CostExceeded) => Err(EvalError::CostExceeded),
                Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
                _ => Ok(Value::Bool(true)),
            },
            _ => {
                let mut given = Vec::with_capacity(args.len() + 1);
                for arg in target.into_iter().chain(args) {
                    given.push(self.node(arg)?);
                }
                if matches!(function, "orValue" | "or") {
                    self.spend(1)?;
                }
                self.spend(cost::of_call(function, &given))?;
                apply(&self.program.checked.calls[node.id], &given)
            }
        }
    }

    /// `&&` and `||`: an error on one side does not count if the other side decides.
    fn logic(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Outcome<'a> {
        let mut failed = None;
        for side in [left, right] {
            match self.node(side) {
                Err(EvalError::CostExceeded) => return Err(EvalError::CostExceeded),
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(EvalError::NoSuchOverload)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn comprehension(&mut self, all: &'a Comprehension) -> Outcome<'a> {
        let range = self.node(&all.range)?;
        let init = self.node(&all.init);
        let base = self.scopes.len();
        self.scopes.push((&all.accumulator, init));
        let two = all.second.is_some();
        match &range {
            Value::List(list) => {
                for (index, value) in list.iter().enumerate() {
                    let pair = if two {
                        (Value::Int(index as i64), value)
                    } else {
                        (value, Value::Null)
                    };
                    if !self.step(all, base, pair)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for pair in map.iter() {
                    if !self.step(all, base, pair)? {
                        break;
                    }
                }
            }
            _ => {
                self.scopes.truncate(base);
                return Err(EvalError::NoSuchOverload);
            }
        }
        self.scopes.truncate(base + 1);
        let result = self.node(&all.result);
        self.scopes.truncate(base);
        result
    }

    /// One turn; false if the condition ends the comprehension.
    fn step(
        &mut self,
        all: &'a Comprehension,
        base: usize,
        pair: (Value<'a>, Value<'a>),
    ) -> Result<bool, EvalError> {
        self.scopes.truncate(base + 1);
        self.scopes.push((&all.variable, Ok(pair.0)));
        if let Some(second) = &all.second {
            self.scopes.push((second, Ok(pair.1)));
        }
        match self.node(&all.condition) {
            Err(EvalError::CostExceeded) => return Err(EvalError::CostExceeded),
            Ok(Value::Bool(false)) => return Ok(false),
            _ => {}
        }
        let next = self.grow(&all.step, &all.accumulator, base);
        let next = next?;
        self.scopes.truncate(base + 1);
        if let Some(next) = next {
            self.scopes[base].1 = next;
        }
        Ok(true)
    }

    /// The accumulator's next value; `None` if it was changed where it is. What only adds to it (`accu + [x]`, an insertion,
    /// either behind a filter) does so in place: a list of n costs n, not n².
    fn grow(
        &mut self,
        step: &'a Node,
        accumulator: &str,
        base: usize,
    ) -> Result<Option<Outcome<'a>>, EvalError> {
        let is_it = |node: &Node| matches!(&node.kind, Kind::Ident(name) if name == accumulator);
        let checked = |outcome: Outcome<'a>| match outcome {
            Err(EvalError::CostExceeded) => Err(EvalError::CostExceeded),
            outcome => Ok(outcome),
        };
        if let Kind::Call { function, args, .. } = &step.kind {
            match (function.as_str(), args.as_slice()) {
                ("_?_:_", [condition, yes, no]) if is_it(no) => {
                    return match checked(self.node(condition))? {
                        Ok(Value::Bool(true)) => self.grow(yes, accumulator, base),
                        Ok(Value::Bool(false)) => {
                            self.spend(1)?;
                            Ok(None)
                        }
                        Ok(_) => Ok(Some(Err(EvalError::NoSuchOverload))),
                        Err(error) => Ok(Some(Err(error))),
                    };
                }
                ("_+_", [left, right]) if is_it(left) && matches!(right.kind, Kind::List(_)) => {
                    self.spend(2)?;
                    let more = match checked(self.node(right))? {
                        Ok(Value::List(more)) => more,
                        Ok(_) => return Ok(Some(Err(EvalError::NoSuchOverload))),
                        Err(error) => return Ok(Some(Err(error))),
                    };
                    if let Ok(Value::List(List::Owned(list))) = &mut self.scopes[base].1 {
                        Rc::make_mut(list).extend(more.iter());
                        return Ok(None);
                    }
                }
                (MAP_INSERT, [map, rest @ ..]) if is_it(map) => {
                    self.spend(2)?;
                    let mut given = Vec::with_capacity(rest.len());
                    for node in rest {
                        match checked(self.node(node))? {
                            Ok(value) => given.push(value),
                            Err(error) => return Ok(Some(Err(error))),
                        }
                    }
                    if let Ok(Value::Map(Map::Owned(map))) = &mut self.scopes[base].1 {
                        let inserted = insert_all(Rc::make_mut(map), given);
                        return Ok(inserted.err().map(Err));
                    }
                }
                _ => {}
            }
        }
        checked(self.node(step)).map(Some)
    }
}

fn insert_all<'a>(map: &mut OwnedMap<'a>, given: Vec<Value<'a>>) -> Result<(), EvalError> {
    let repeated = |_| EvalError::new("insert failed: key already exists");
    let mut given = given.into_iter();
    match (given.next(), given.next()) {
        (Some(key), Some(value)) => {
            let text = key.as_key_text();
            map.insert(key, value)
                .map_err(|_| EvalError::new(format!("insert failed: key {text} already exists")))
        }
        (Some(Value::Map(more)), None) => more
            .iter()
            .try_for_each(|(key, value)| map.insert(key, value))
            .map_err(repeated),
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// The first of the candidates that is for such arguments decides.
fn apply<'a>(candidates: &[Implementation], given: &[Value<'a>]) -> Outcome<'a> {
    for implementation in candidates {
        match implementation(given) {
            Err(EvalError::NoSuchOverload) => {}
            outcome => return outcome,
        }
    }
    Err(EvalError::NoSuchOverload)
}

/// A field's value; `None` if it is not there.
pub(crate) fn select_field<'a>(
    operand: &Value<'a>,
    field: &str,
) -> Result<Option<Value<'a>>, EvalError> {
    match operand {
        Value::Map(map) => Ok(map.field(field)),
        Value::Struct(made) => Ok(made
            .fields
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, value)| value.clone())),
        Value::Optional(None) => Ok(None),
        Value::Optional(Some(inside)) => select_field(inside, field),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn constant(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(v) => Value::Bool(*v),
        Literal::Int(v) => Value::Int(*v),
        Literal::Uint(v) => Value::Uint(*v),
        Literal::Double(v) => Value::Double(*v),
        Literal::String(v) => Value::String(Text::Borrowed(v)),
        Literal::Bytes(v) => Value::Bytes(Rc::from(v.as_slice())),
        Literal::Type(ty) => Value::Type(ty.clone()),
    }
}
