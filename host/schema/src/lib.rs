//! One structural-schema engine for built-in kinds and CRDs alike; knows no kind by name.
//!
//! Modules: `types` (the schema itself), `decode` (type checks, unknown fields, duplicate keys), `default`, `prune`,
//! `patch` (JSON patch, merge patch, strategic merge), `apply` (server-side apply and managed fields), `openapi` (out).

mod decode;
mod types;

pub use decode::{DecodeError, Decoded, MAX_STRICT_ERRORS, decode, decode_value};
pub use types::{
    ListType, MapType, PatchStrategy, Presence, Property, Schema, SchemaRef, Type, Union,
    UnionMember, schema_of,
};
