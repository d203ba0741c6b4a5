//! The table of kinds: one row a kind, and rules for the few kinds that need them.

use std::sync::Arc;

/// One kind. (Filled in by this crate; fields are public and plain.)
#[derive(Debug)]
pub struct Row {
    pub group: String,
    /// The served and stored version.
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    /// Plural, lower case: `deployments`.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
}

/// All kinds served now. Looking a row up is a hash look-up.
#[derive(Debug, Default)]
pub struct Kinds {
    rows: Vec<Arc<Row>>,
}

impl Kinds {
    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }
}
