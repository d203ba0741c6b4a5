//! The Common Expression Language as Kubernetes has it: parser, type checker, evaluator, cost, and every library.
//!
//! An expression is compiled against an [`Env`] once and evaluated many times over JSON that stays where it is. Messages of
//! the parser and of the checker are cel-go's, word for word: clients see them.

mod ast;
mod check;
mod cost;
mod decl;
mod env;
mod estimate;
mod eval;
mod library;
mod parse;
pub mod policy;
mod program;
pub mod rules;
mod shape;
mod source;
mod types;
mod unify;
mod value;

pub use env::Env;
pub use eval::Activation;
pub use library::authorization::{
    AUTHORIZER, Attributes, Authorizer, Decision, RESOURCE_CHECK, authorizer, request_resource,
};
pub use program::{PER_CALL_LIMIT, Program};
pub use shape::{Shape, escape};
pub use source::{CompileErrors, Issue};
pub use types::{Fields, ObjectType, Type};
pub use value::{EvalError, List, Map, OwnedMap, Struct, Text, Value};

#[cfg(test)]
mod tests;
