//! The table of kinds: one row a kind, and rules for the few kinds that need them. A CRD is a row made at run time.

mod autoscalers;
mod builtin;
pub mod columns;
pub mod custom;
mod events;
mod facts;
pub mod go_text;
pub mod openapi;
pub mod own;
pub mod protobuf;
mod row;
pub mod rules;
mod table;

pub use row::{Column, Columns, Conversion, Hooks, Propagation, Row, Subresource, ValidateFn};
pub use rules::{ephemeral_update, finalize_update, resize_update, service_addresses};
pub use table::{Kinds, schema_of_kind};
