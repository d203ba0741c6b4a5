//! Table columns and their cells: what kubectl prints. Kinds not listed get a name and the time of creation.
//!
//! A cell function never fails: what is absent or ill-typed prints as Kubernetes prints the absent.

mod cells;
mod cluster;
mod pods;
mod storage;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Column, Columns};
use cells::text;

type Cells = fn(&Value, Timestamp) -> Vec<Value>;

/// A column shown always.
const fn col(name: &'static str, ty: &'static str, description: &'static str) -> Column {
    Column {
        name,
        ty,
        format: "",
        description,
        priority: 0,
    }
}

/// A column shown with `-o wide` only.
const fn wide(name: &'static str, ty: &'static str, description: &'static str) -> Column {
    Column {
        name,
        ty,
        format: "",
        description,
        priority: 1,
    }
}

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    description: "The object's name, unique among those of its kind in its namespace.",
    priority: 0,
};
const AGE: Column = col("Age", "string", "Time since the object was created.");

/// Name and Created At, as Kubernetes prints kinds that it knows nothing of.
pub fn default_columns() -> Columns {
    Columns {
        columns: vec![
            NAME,
            col("Created At", "date", "When the object was created."),
        ],
        cells: |object, _now| {
            vec![
                json!(text(object, "/metadata/name")),
                object["metadata"]["creationTimestamp"].clone(),
            ]
        },
    }
}

/// The columns of a built-in kind.
pub fn columns(group: &str, kind: &str) -> Columns {
    workloads::find(group, kind)
        .or_else(|| pods::find(group, kind))
        .or_else(|| cluster::find(group, kind))
        .or_else(|| storage::find(group, kind))
        .map_or_else(default_columns, |(columns, cells)| Columns {
            columns: columns.to_vec(),
            cells,
        })
}

#[cfg(test)]
mod tests;
