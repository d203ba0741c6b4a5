//! Table columns: name and age for every kind, more for those that kubectl shows more of.

use serde_json::{Value, json};

use crate::{Column, Columns};

/// Name and Created At, as Kubernetes prints kinds that it knows nothing of.
pub fn default_columns() -> Columns {
    Columns {
        columns: vec![
            Column {
                name: "Name",
                ty: "string",
                format: "name",
                description: "",
                priority: 0,
            },
            Column {
                name: "Created At",
                ty: "date",
                format: "",
                description: "",
                priority: 0,
            },
        ],
        cells: |object, _now| {
            let text = |field: &str| {
                object["metadata"][field]
                    .as_str()
                    .map_or(Value::Null, |t| json!(t))
            };
            vec![text("name"), text("creationTimestamp")]
        },
    }
}

/// The columns of a built-in kind.
pub fn columns(_group: &str, _kind: &str) -> Columns {
    default_columns()
}
