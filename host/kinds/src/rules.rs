//! Rules: what a kind does that the table cannot say (defaults, preparation, validation, warnings).

use crate::Hooks;

/// The rules of a built-in kind.
pub fn hooks(_group: &str, _kind: &str) -> Hooks {
    Hooks::default()
}
