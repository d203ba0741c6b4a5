//! A compiled expression.

use crate::ast::{Kind, Node};
use crate::check::{self, Checked};
use crate::env::Env;
use crate::eval::{self, Activation};
use crate::parse;
use crate::source::CompileErrors;
use crate::types::Type;
use crate::value::{EvalError, Value};

/// What one expression may cost at run time, unless it is said otherwise.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

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

    /// Whether the expression mentions a variable.
    pub fn uses(&self, variable: &str) -> bool {
        mentions(&self.root, variable)
    }
}

fn mentions(node: &Node, name: &str) -> bool {
    let any = |node: &Node| mentions(node, name);
    match &node.kind {
        Kind::Literal(_) => false,
        Kind::Ident(ident) => ident == name,
        Kind::Select { operand, .. } => any(operand),
        Kind::Call { target, args, .. } => {
            target.as_deref().is_some_and(any) || args.iter().any(any)
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
