//! What an expression may cost at most, before it has run: by the bounds that schemas give. As cel-go's cost estimator, of
//! which Kubernetes uses the upper bounds.

use crate::Program;
use crate::ast::{Comprehension, Kind, Literal, Node};
use crate::shape::Shape;
use crate::types::Type;

/// What is known of variables.
pub(crate) struct Bounds<'a> {
    variables: Vec<(&'a str, &'a Shape)>,
}

impl<'a> Bounds<'a> {
    pub fn new(variables: &[(&'a str, &'a Shape)]) -> Self {
        Self {
            variables: variables.to_vec(),
        }
    }
}

pub(crate) fn most(program: &Program, bounds: &Bounds<'_>) -> u64 {
    let mut estimate = Estimate {
        program,
        scopes: bounds
            .variables
            .iter()
            .map(|(name, shape)| (*name, of_shape(shape)))
            .collect(),
    };
    estimate.node(&program.root).0
}

/// A value's largest size, and what its parts are bounded by, if that is known.
#[derive(Clone, Copy, Debug)]
struct Known<'a> {
    size: u64,
    shape: Option<&'a Shape>,
}

const SCALAR: Known<'_> = Known {
    size: 1,
    shape: None,
};

fn of_shape(shape: &Shape) -> Known<'_> {
    Known {
        size: shape.max_elements,
        shape: Some(shape),
    }
}

/// Nothing is known but the type.
fn of_type<'a>(ty: &Type) -> Known<'a> {
    match ty {
        Type::String | Type::Bytes | Type::List(_) | Type::Map(_) | Type::Dyn => Known {
            size: u64::MAX,
            shape: None,
        },
        _ => SCALAR,
    }
}

struct Estimate<'a> {
    program: &'a Program,
    scopes: Vec<(&'a str, Known<'a>)>,
}

impl<'a> Estimate<'a> {
    /// The cost, and what is known of the value.
    fn node(&mut self, node: &'a Node) -> (u64, Known<'a>) {
        let unknown = of_type(&self.program.checked.types[node.id]);
        match &node.kind {
            Kind::Literal(literal) => {
                let size = match literal {
                    Literal::String(text) => text.chars().count() as u64,
                    Literal::Bytes(bytes) => bytes.len() as u64,
                    _ => 1,
                };
                (0, Known { size, shape: None })
            }
            Kind::Ident(name) => {
                let bound = self.scopes.iter().rev().find(|(bound, _)| bound == name);
                (1, bound.map_or(unknown, |(_, known)| *known))
            }
            Kind::Select { operand, field, .. } => {
                let (cost, known) = self.node(operand);
                let field = known.shape.and_then(|shape| shape.field(field));
                let found = field.map_or(unknown, |(_, shape)| of_shape(shape));
                (cost.saturating_add(1), found)
            }
            Kind::List(elements) => {
                let cost = self.sum(elements.iter().map(|e| &e.value));
                let size = elements.len() as u64;
                (cost.saturating_add(10), Known { size, shape: None })
            }
            Kind::Map(entries) => {
                let cost = self.sum(entries.iter().flat_map(|e| [&e.key, &e.value]));
                let size = entries.len() as u64;
                (cost.saturating_add(30), Known { size, shape: None })
            }
            Kind::Struct { fields, .. } => {
                let cost = self.sum(fields.iter().map(|f| &f.value));
                (cost.saturating_add(40), SCALAR)
            }
            Kind::Comprehension(all) => self.comprehension(all, unknown),
            Kind::Call {
                function,
                target,
                args,
            } => {
                let mut cost = 0u64;
                let mut known = Vec::with_capacity(args.len() + 1);
                let mut costs = Vec::with_capacity(args.len() + 1);
                for arg in target.as_deref().into_iter().chain(args) {
                    let (one, bounds) = self.node(arg);
                    cost = cost.saturating_add(one);
                    costs.push(one);
                    known.push(bounds);
                }
                if let ("_?_:_", [condition, yes, no]) = (function.as_str(), costs.as_slice()) {
                    cost = condition.saturating_add(*yes.max(no));
                }
                let is_text = |at: usize| {
                    let arg = target.as_deref().into_iter().chain(args).nth(at);
                    arg.is_some_and(|arg| {
                        matches!(
                            self.program.checked.types[arg.id],
                            Type::String | Type::Bytes | Type::Dyn
                        )
                    })
                };
                let own = of_call(function, &known, is_text(0));
                (
                    cost.saturating_add(own),
                    result_of(function, &known, unknown),
                )
            }
        }
    }

    fn sum(&mut self, nodes: impl Iterator<Item = &'a Node>) -> u64 {
        nodes.fold(0, |sum, node| sum.saturating_add(self.node(node).0))
    }

    fn comprehension(&mut self, all: &'a Comprehension, unknown: Known<'a>) -> (u64, Known<'a>) {
        let (range_cost, range) = self.node(&all.range);
        let (init_cost, init) = self.node(&all.init);
        let is_map = matches!(self.program.checked.types[all.range.id], Type::Map(_));
        let element = match (range.shape.and_then(Shape::items), range.shape) {
            (Some(items), _) => Some(items),
            (None, Some(shape)) => shape.field("").map(|(_, shape)| shape),
            _ => None,
        };
        let value = element.map_or(of_type(&Type::Dyn), of_shape);
        // A key is not bounded by schemas.
        let first = match (is_map, &all.second) {
            (true, _) => of_type(&Type::String),
            (false, Some(_)) => SCALAR,
            (false, None) => value,
        };
        let outside = self.scopes.len();
        self.scopes.push((&all.accumulator, init));
        self.scopes.push((&all.variable, first));
        if let Some(second) = &all.second {
            self.scopes.push((second, value));
        }
        let condition = self.node(&all.condition).0;
        let step = self.node(&all.step).0;
        self.scopes.truncate(outside);
        // What grows by one with each element is as long as the range.
        let grown = Known {
            size: init.size.max(range.size),
            shape: range.shape,
        };
        let is_container = matches!(all.init.kind, Kind::List(_) | Kind::Map(_));
        let bound_value = matches!(&all.range.kind, Kind::List(none) if none.is_empty());
        let accumulated = if is_container && !bound_value {
            grown
        } else {
            init
        };
        self.scopes.push((&all.accumulator, accumulated));
        let (result, known) = self.node(&all.result);
        self.scopes.truncate(outside);
        let turns = range.size.saturating_mul(condition.saturating_add(step));
        let cost = [range_cost, init_cost, turns, result]
            .into_iter()
            .fold(0u64, u64::saturating_add);
        let known = if known.size == u64::MAX {
            unknown
        } else {
            known
        };
        (cost, known)
    }
}

fn part(size: u64, per: f64) -> u64 {
    if size == u64::MAX {
        // The bound of the largest request is far from the limits of numbers.
        return u64::MAX / 16;
    }
    (size as f64 * per).ceil() as u64
}

/// What the call itself costs.
fn of_call(function: &str, args: &[Known<'_>], is_text: bool) -> u64 {
    let size = |at: usize| args.get(at).map_or(0, |known| known.size);
    let walked = |size: u64| part(size, 0.1);
    match function {
        "_&&_" | "_||_" | "_?_:_" | "@not_strictly_false" => 0,
        "startsWith" | "endsWith" => walked(size(1)),
        "bytes" | "string" if is_text => walked(size(0)),
        "@in" => size(1),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => walked(size(0).min(size(1))),
        "_+_" if is_text => walked(size(0).saturating_add(size(1))),
        "matches" | "find" | "findAll" => {
            walked(size(0).saturating_add(1)).saturating_mul(part(size(1), 0.25))
        }
        "contains" if is_text => walked(size(0)).saturating_mul(walked(size(1))),
        "check" => 350_000,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" if !is_text => size(0),
        "url" | "isURL" | "ip" | "isIP" | "cidr" | "isCIDR" | "quantity" | "isQuantity"
        | "semver" | "isSemver" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "split"
        | "replace" | "indexOf" | "lastIndexOf" | "format" | "strings.quote" => {
            walked(size(0)).max(1)
        }
        "join" => size(0).saturating_add(1),
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)),
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2),
        "distinct" => size(0).saturating_mul(size(0)),
        "flatten" | "sort" | "reverse" | "slice" => size(0).saturating_add(1),
        _ => 1,
    }
}

fn result_of<'a>(function: &str, args: &[Known<'a>], unknown: Known<'a>) -> Known<'a> {
    let size = |at: usize| args.get(at).map_or(0, |known| known.size);
    match function {
        "_+_" => Known {
            size: size(0).saturating_add(size(1)),
            shape: args.first().and_then(|known| known.shape),
        },
        "_?_:_" => Known {
            size: size(1).max(size(2)),
            shape: args.get(1).and_then(|known| known.shape),
        },
        "_[_]" | "_[?_]" => {
            let within = args.first().and_then(|known| known.shape);
            let found = within.and_then(|shape| {
                shape
                    .items()
                    .or_else(|| shape.field("").map(|(_, shape)| shape))
            });
            found.map_or(unknown, of_shape)
        }
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "replace" | "find" | "string"
        | "bytes" | "split" | "findAll" | "sort" | "reverse" | "slice" | "distinct" | "value"
        | "orValue" | "optional.of" | "dyn" => args.first().copied().unwrap_or(unknown),
        _ => unknown,
    }
}
