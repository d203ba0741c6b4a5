//! Patches: JSON patch, JSON merge patch and strategic merge patch, with the leniencies and texts of Kubernetes.
//!
//! A patch is applied to a whole object; the result is not decoded, pruned, defaulted or validated here.

mod json;
mod strategic;

use oarlock_model::{ApiError, Reason};
use serde_json::Value;

pub use json::{MAX_OPERATIONS, json_patch};
pub use strategic::strategic_merge_patch;

/// Deeper nesting than any object may have; a patch or object beyond it is refused.
pub(crate) const MAX_DEPTH: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// The operations cannot be carried out on this object (a failed `test`, a missing path).
    #[error("the server rejected our request due to an error in our request")]
    DoesNotApply,
    #[error(
        "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {0}"
    )]
    TooManyOperations(usize),
    /// A strategic merge patch that contradicts the schema or itself.
    #[error("{0}")]
    Contradiction(String),
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let reason = match error {
            PatchError::Malformed(_) => Reason::BadRequest,
            PatchError::DoesNotApply => Reason::Invalid,
            PatchError::TooManyOperations(_) => Reason::RequestEntityTooLarge,
            PatchError::Contradiction(_) => Reason::Unknown,
        };
        Self::new(reason, error.to_string())
    }
}

/// JSON merge patch (RFC 7396) in place. The patch must be a map.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        let kind = go_kind(patch);
        return Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )));
    }
    merge_value(target, patch, 0);
    Ok(())
}

fn merge_value(target: &mut Value, patch: &Value, depth: usize) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if depth > MAX_DEPTH {
        return;
    }
    let map = oarlock_model::meta::as_map_mut(target);
    for (name, value) in fields {
        match value {
            Value::Null => {
                map.remove(name);
            }
            Value::Object(_) => {
                let below = map.entry(name.clone()).or_insert(Value::Null);
                merge_value(below, value, depth + 1);
            }
            other => {
                map.insert(name.clone(), other.clone());
            }
        }
    }
}

/// What Go's JSON decoder calls a value.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`. Error texts contain it.
pub(crate) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            format!(
                "[{}]",
                items.iter().map(go_text).collect::<Vec<_>>().join(" ")
            )
        }
        Value::Object(map) => {
            let fields: Vec<String> = map
                .iter()
                .map(|(k, v)| format!("{k}:{}", go_text(v)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges() {
        let check = |target: Value, patch: Value, expect: Value| {
            let mut target = target;
            merge_patch(&mut target, &patch).unwrap();
            assert_eq!(target, expect);
        };
        check(json!({"a": 1}), json!({"a": 2}), json!({"a": 2}));
        check(json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2}));
        check(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}));
        check(
            json!({"a": "x"}),
            json!({"a": {"b": 1, "c": null}}),
            json!({"a": {"b": 1}}),
        );
        check(json!({}), json!({"a": {"b": null}}), json!({"a": {}}));
        let error = merge_patch(&mut json!({}), &json!([])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }
}
