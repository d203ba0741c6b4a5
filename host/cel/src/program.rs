//! A compiled expression.

use crate::ast::{Kind, Literal, Node};
use crate::check::{self, Checked};
use crate::env::Env;
use crate::eval::{self, Activation};
use crate::parse;
use crate::source::CompileErrors;
use crate::types::Type;
use crate::value::{EvalError, Value};

/// What one expression may cost at run time, unless it is said otherwise.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// The operator of `a.?b`.
const OPTIONAL_SELECT: &str = "_?._";

/// An expression, parsed and checked. Compiling costs some 50 µs; evaluating, what the expression does.
#[derive(Debug)]
pub struct Program {
    pub(crate) root: Node,
    pub(crate) checked: Checked,
    text: String,
}

impl Program {
    pub fn compile(text: &str, env: &Env) -> Result<Self, CompileErrors> {
        let (mut root, nodes) = parse::parse(text)?;
        let checked = check::check(env, text, &mut root, nodes)?;
        Ok(Self {
            root,
            checked,
            text: text.to_owned(),
        })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn result(&self) -> &Type {
        &self.checked.types[self.root.id]
    }

    pub fn eval<'a>(&'a self, names: &Activation<'a>) -> Result<Value<'a>, EvalError> {
        self.eval_limited(names, PER_CALL_LIMIT)
    }

    /// With a limit of its own, or what is left of one that is shared.
    pub fn eval_limited<'a>(
        &'a self,
        names: &Activation<'a>,
        limit: u64,
    ) -> Result<Value<'a>, EvalError> {
        eval::eval(self, names, limit)
    }

    /// Whether the expression selects this field of a variable (`claims.email`, `claims.?email`, `has(claims.email)`).
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        any_node(&self.root, &mut |node| match &node.kind {
            Kind::Select {
                operand,
                field: selected,
                ..
            } => selected == field && is_ident(operand, variable),
            Kind::Call { function, args, .. } => match args.as_slice() {
                [of, selected] if function == OPTIONAL_SELECT => {
                    is_ident(of, variable) && is_text(selected, field)
                }
                _ => false,
            },
            _ => false,
        })
    }

    /// Whether the expression mentions a variable.
    pub fn uses(&self, variable: &str) -> bool {
        any_node(&self.root, &mut |node| is_ident(node, variable))
    }
}

fn is_ident(node: &Node, name: &str) -> bool {
    matches!(&node.kind, Kind::Ident(ident) if ident == name)
}

fn is_text(node: &Node, text: &str) -> bool {
    matches!(&node.kind, Kind::Literal(Literal::String(literal)) if **literal == *text)
}

/// Whether this node or one below it is so.
fn any_node(node: &Node, is: &mut dyn FnMut(&Node) -> bool) -> bool {
    if is(node) {
        return true;
    }
    let mut any = |node: &Node| any_node(node, is);
    match &node.kind {
        Kind::Literal(_) | Kind::Ident(_) => false,
        Kind::Select { operand, .. } => any(operand),
        Kind::Call { target, args, .. } => {
            target.as_deref().is_some_and(&mut any) || args.iter().any(any)
        }
        Kind::List(all) => all.iter().any(|e| any(&e.value)),
        Kind::Map(all) => all.iter().any(|e| any(&e.key) || any(&e.value)),
        Kind::Struct { fields, .. } => fields.iter().any(|f| any(&f.value)),
        Kind::Comprehension(all) => [
            &all.range,
            &all.init,
            &all.condition,
            &all.step,
            &all.result,
        ]
        .into_iter()
        .any(any),
    }
}
