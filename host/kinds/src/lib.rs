//! The table of kinds: one row a kind, and rules for the few kinds that need them. A CRD is a row made at run time.

pub mod columns;
mod row;
pub mod rules;
mod table;

pub use row::{Column, Columns, Hooks, Propagation, Row, Subresource, ValidateFn};
pub use table::Kinds;
