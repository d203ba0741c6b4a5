//! Expressions in objects of built-in kinds: where each stands and what it may name. The one place that compiles them.

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

/// Says what is wrong with an expression that is there. `stored`: it was in the object before, so it is taken as it is.
pub fn check(
    _out: &mut Causes,
    _at: &Path<'_>,
    _expression: &str,
    _purpose: Purpose<'_>,
    _stored: bool,
) {
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
