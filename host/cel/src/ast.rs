//! The tree of an expression, macros expanded. The checker resolves names in it; the evaluator walks it.

use crate::types::Type;

#[derive(Debug)]
pub(crate) struct Node {
    /// Index into the tables that the checker fills.
    pub id: usize,
    /// Where it is in the source, in characters.
    pub at: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Literal),
    Ident(String),
    Select {
        operand: Box<Node>,
        field: String,
        /// `has(operand.field)`.
        test: bool,
    },
    Call {
        function: String,
        target: Option<Box<Node>>,
        args: Vec<Node>,
    },
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<FieldInit>,
    },
    Comprehension(Box<Comprehension>),
}

#[derive(Clone, Debug)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// The name of a type, standing for it.
    Type(Type),
}

#[derive(Debug)]
pub(crate) struct Element {
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) struct FieldInit {
    pub at: usize,
    pub name: String,
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub(crate) struct Comprehension {
    pub range: Node,
    pub variable: String,
    pub second: Option<String>,
    pub accumulator: String,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

pub(crate) const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";
