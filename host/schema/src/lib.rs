//! One structural-schema engine for built-in kinds and CRDs alike; knows no kind by name.
//!
//! Modules: `types` (the schema itself), `decode` (bytes to a tree: type checks, unknown fields, duplicate keys), `canonical`
//! (empty fields, defaults, pruning), `patch` (JSON patch, merge patch, strategic merge), `apply` (server-side apply and
//! managed fields), `structural` (the schemas of CustomResourceDefinitions: pruning, defaults, checks). OpenAPI is written by the room above, which knows kinds.

pub mod apply;
mod canonical;
mod decode;
pub mod patch;
pub mod structural;
mod types;

pub use canonical::{apply_defaults, canonicalize, is_zero, prune, zero};
pub use decode::{
    DecodeError, Decoded, MAX_DEPTH, MAX_STRICT_ERRORS, TypeMeta, decode, decode_untyped,
    decode_value, type_meta,
};
pub use types::{
    ListType, MapType, PatchStrategy, Presence, Property, Schema, SchemaRef, Type, Union,
    UnionMember, schema_of,
};
