//! Expressions in objects of built-in kinds: where each stands and what it may name. The one place that compiles them.

use oarlock_cel::policy::{self, Part};
use serde_json::Value;

use super::path::{Causes, Path};

/// What an expression is for, which decides its variables and its result.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A match condition of a webhook, or of a policy (whose parameters it may name).
    MatchCondition {
        policy: Option<&'a Value>,
    },
    /// The variable at this place of a policy's `spec`; it may name those before it.
    Variable {
        policy: &'a Value,
        index: usize,
    },
    Validation {
        policy: &'a Value,
    },
    Message {
        policy: &'a Value,
    },
    AuditAnnotation {
        policy: &'a Value,
    },
    ApplyConfiguration {
        policy: &'a Value,
    },
    JsonPatch {
        policy: &'a Value,
    },
    /// A selector of devices.
    Device,
}

/// Says what is wrong with an expression that is there. (Upstream takes a stored expression with a newer compiler; there is
/// one compiler here, so it makes no difference whether it was there before.)
pub fn check(
    out: &mut Causes,
    at: &Path<'_>,
    expression: &str,
    purpose: Purpose<'_>,
    _stored: bool,
) {
    if let Err(why) = compile(expression, purpose) {
        at.invalid_text(out, expression, &why);
    }
}

fn compile(expression: &str, purpose: Purpose<'_>) -> Result<(), String> {
    let (spec, part) = match purpose {
        Purpose::MatchCondition { policy } => {
            (policy.unwrap_or(&Value::Null), Part::MatchCondition)
        }
        Purpose::Variable { policy, index } => (policy, Part::Variable(index)),
        Purpose::Validation { policy } => (policy, Part::Validation),
        Purpose::Message { policy } => (policy, Part::Message),
        Purpose::AuditAnnotation { policy } => (policy, Part::AuditAnnotation),
        Purpose::ApplyConfiguration { policy } => (policy, Part::ApplyConfiguration),
        Purpose::JsonPatch { policy } => (policy, Part::JsonPatch),
        Purpose::Device => return policy::compile_device(expression).map(drop),
    };
    policy::compile_part(spec, part, expression).map(drop)
}

/// A name that an expression can use.
pub fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 19] = [
        "as",
        "break",
        "const",
        "continue",
        "else",
        "false",
        "for",
        "function",
        "if",
        "import",
        "in",
        "let",
        "loop",
        "namespace",
        "null",
        "package",
        "return",
        "true",
        "var",
    ];
    let mut letters = name.bytes();
    let first = letters
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first
        && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !RESERVED.contains(&name)
        && !matches!(name, "void" | "while")
}
