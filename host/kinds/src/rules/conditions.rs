//! Conditions of the common form (`metav1.Condition`).

use oarlock_model::Cause;
use serde_json::Value;

use super::names::qualified_name;
use super::path::{Causes, Path, items, some, text};

const MAX_REASON_BYTES: usize = 1024;
const MAX_MESSAGE_BYTES: usize = 32 * 1024;
const BAD_REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// The `conditions` of a status at `at`.
pub fn conditions(out: &mut Causes, status: &Value, at: &Path<'_>) {
    let list_at = at.field("conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in items(status, "conditions") {
        let at = list_at.index(i);
        let kind = text(condition, "type");
        if seen.contains(&kind) {
            at.field("type").duplicate(out, kind);
        }
        seen.push(kind);
        one(out, condition, &at);
    }
}

fn one(out: &mut Causes, condition: &Value, at: &Path<'_>) {
    let kind = text(condition, "type");
    at.field("type")
        .all_invalid(out, kind, qualified_name(kind));
    at.field("status").one_of(
        out,
        text(condition, "status"),
        &["False", "True", "Unknown"],
    );
    let generation = condition.get("observedGeneration").and_then(Value::as_i64);
    if let Some(generation) = generation.filter(|g| *g < 0) {
        at.field("observedGeneration").invalid(
            out,
            &Value::from(generation),
            "must be greater than or equal to zero",
        );
    }
    if some(condition, "lastTransitionTime").is_none() {
        at.field("lastTransitionTime").required(out, "");
    }
    let reason = text(condition, "reason");
    if reason.is_empty() {
        at.field("reason").required(out, "");
    } else {
        if !is_reason(reason) {
            at.field("reason").invalid_text(out, reason, BAD_REASON);
        }
        if reason.len() > MAX_REASON_BYTES {
            out.push(Cause::too_long(
                at.field("reason").to_string(),
                MAX_REASON_BYTES,
            ));
        }
    }
    if text(condition, "message").len() > MAX_MESSAGE_BYTES {
        out.push(Cause::too_long(
            at.field("message").to_string(),
            MAX_MESSAGE_BYTES,
        ));
    }
}

fn is_reason(text: &str) -> bool {
    let bytes = text.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(word)
        && bytes.iter().all(|b| word(b) || matches!(b, b',' | b':'))
}
