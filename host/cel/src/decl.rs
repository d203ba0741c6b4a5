//! The functions there are: their overloads, written as declarations, and what computes them.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::library;
use crate::types::{self, Type};
use crate::value::{EvalError, Value};

/// Computes a function of its arguments, the receiver first. Arguments that it is not declared for are `NoSuchOverload`.
pub(crate) type Implementation = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// Declarations, one a line, and what computes all of them. `size(string) -> int`; with a receiver `string: size() -> int`.
/// A single capital letter is a type parameter.
pub(crate) type Library = &'static [(&'static str, Implementation)];

pub(crate) struct Function {
    pub name: &'static str,
    pub overloads: Vec<Overload>,
}

pub(crate) struct Overload {
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
    pub generic: bool,
    pub implementation: Implementation,
}

pub(crate) fn function(name: &str) -> Option<&'static Function> {
    static ALL: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(|| {
        let mut all: HashMap<&'static str, Function> = HashMap::new();
        for (declarations, implementation) in library::all() {
            let lines = declarations.lines().map(str::trim);
            for line in lines.filter(|line| !line.is_empty()) {
                let (name, overload) = read(line, *implementation);
                let function = all.entry(name).or_insert_with(|| Function {
                    name,
                    overloads: Vec::new(),
                });
                function.overloads.push(overload);
            }
        }
        all
    });
    ALL.get(name)
}

fn read(line: &'static str, implementation: Implementation) -> (&'static str, Overload) {
    let (receiver, rest) = match line.split_once(": ") {
        Some((receiver, rest)) => (Some(types::parse(receiver).0), rest),
        None => (None, line),
    };
    let (name, mut rest) = rest.split_once('(').unwrap_or((rest, ") -> dyn"));
    let member = receiver.is_some();
    let mut args: Vec<Type> = receiver.into_iter().collect();
    while !rest.starts_with(')') {
        let (arg, after) = types::parse(rest);
        args.push(arg);
        rest = after.strip_prefix(',').unwrap_or(after).trim_start();
    }
    let result = types::parse(rest.trim_start_matches(") -> ")).0;
    let generic = args.iter().chain([&result]).any(has_parameter);
    let overload = Overload {
        member,
        args,
        result,
        generic,
        implementation,
    };
    (name, overload)
}

fn has_parameter(ty: &Type) -> bool {
    matches!(ty, Type::Param(_)) || ty.parameters().into_iter().any(has_parameter)
}
