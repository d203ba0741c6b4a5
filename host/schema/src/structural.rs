//! The schemas of CustomResourceDefinitions: what a JSONSchemaProps document says, made ready for use. `node` is the schema,
//! `regular` and `formats` are what strings must look like, `value` checks a value, `lists` checks sets and keyed lists,
//! `shape` prunes and defaults, `typed` is the same schema as the rest of this crate (apply, OpenAPI) sees it.
//!
//! Invariant: a node is made from a document that was accepted; what is not understood in one is left out, never an error.

mod formats;
mod lists;
mod node;
mod regular;
mod shape;
mod typed;
mod value;

pub use formats::{is_known_format, matches_format};
pub use lists::check_lists;
pub use node::{Additional, Bounds, Node};
pub use regular::go_syntax_error;
pub use shape::{drop_nulls, fill_defaults, prune_unknown};
pub use value::{check_value, go_number};
