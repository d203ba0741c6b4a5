//! Table columns and their cells: what kubectl prints. Kinds not listed get a name and the time of creation.
//!
//! A cell function never fails: what is absent or ill-typed prints as Kubernetes prints the absent.

mod cells;
mod cluster;
mod pods;
mod policies;
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

/// Upstream's words about an object's name and time, which are an interface to those who read column definitions.
pub(crate) const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
pub(crate) const CREATED_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    description: NAME_TEXT,
    priority: 0,
};
const AGE: Column = col("Age", "string", CREATED_TEXT);

/// Name and Created At, as Kubernetes prints kinds that it knows nothing of.
pub fn default_columns() -> Columns {
    Columns {
        columns: vec![NAME, col("Created At", "date", CREATED_TEXT)],
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
        .or_else(|| policies::find(group, kind))
        .map_or_else(default_columns, |(columns, cells)| Columns {
            columns: described(group, kind, columns),
            cells,
        })
}

/// (group/Kind, column, text), for columns that are described as a field is.
static TEXTS: &[(&str, &str, &str)] = &include!(concat!(env!("OUT_DIR"), "/column_texts.rs"));

/// The columns, those that show a field with the field's own description.
pub(crate) fn described(group: &str, kind: &str, columns: &[Column]) -> Vec<Column> {
    let wanted = format!("{group}/{kind}");
    let text = |column: &Column| {
        TEXTS
            .iter()
            .find(|(kind, name, _)| *kind == wanted && *name == column.name)
            .map_or(column.description, |(.., text)| *text)
    };
    columns
        .iter()
        .map(|column| Column {
            description: text(column),
            ..*column
        })
        .collect()
}

/// The columns of a `Scale`, whatever is scaled.
pub fn scale_columns() -> Columns {
    const COLUMNS: [Column; 4] = [
        Column { format: "", ..NAME },
        col("Desired", "integer", ""),
        col("Available", "integer", ""),
        AGE,
    ];
    Columns {
        columns: described("autoscaling", "Scale", &COLUMNS),
        cells: |object, now| {
            vec![
                cells::name(object),
                json!(cells::int(object, "/spec/replicas")),
                json!(cells::int(object, "/status/replicas")),
                cells::age(object, now),
            ]
        },
    }
}

#[cfg(test)]
mod tests;
