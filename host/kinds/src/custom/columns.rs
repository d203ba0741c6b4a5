//! Printer columns of custom resources.

use jiff::Timestamp;
use oarlock_model::time;
use serde_json::{Value, json};

use super::jsonpath::JsonPath;
use super::{Custom, Row};
use crate::columns::{CREATED_TEXT, NAME_TEXT};

#[derive(Clone, Debug)]
pub struct PrinterColumn {
    pub name: String,
    /// `integer`, `number`, `string`, `boolean`, `date`.
    pub ty: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    /// `None`: the path is none; the cells stay empty.
    path: Option<JsonPath>,
}

impl PrinterColumn {
    pub(super) fn parse(column: &Value) -> Self {
        let text = |field: &str| {
            column
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let path = text("jsonPath");
        let mut description = text("description");
        if description.is_empty() {
            description = format!("Custom resource definition column (in JSONPath format): {path}");
        }
        Self {
            name: text("name"),
            ty: text("type"),
            format: text("format"),
            description,
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or(0),
            path: JsonPath::parse(&path),
        }
    }

    fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.ty, "format": self.format, "description": self.description, "priority": self.priority})
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.as_ref().and_then(|p| p.first(object)) else {
            return Value::Null;
        };
        match (self.ty.as_str(), value) {
            ("integer", Value::Number(n)) => n
                .as_i64()
                .map_or_else(|| json!(n.as_f64().map(|f| f as i64)), Value::from),
            ("number", Value::Number(n)) => Value::Number(n.clone()),
            ("boolean", Value::Bool(flag)) => Value::Bool(*flag),
            ("string", Value::String(text)) => Value::String(text.clone()),
            ("string", Value::Null) => Value::String("<nil>".to_owned()),
            ("string", other) => Value::String(other.to_string()),
            ("date", Value::String(text)) => Value::String(match time::parse_time(text) {
                Some(since) => time::human_duration(now.as_second() - since.as_second()),
                None => "<invalid>".to_owned(),
            }),
            _ => Value::Null,
        }
    }
}

/// The column of kinds that name none.
pub(super) fn age() -> PrinterColumn {
    PrinterColumn {
        description: CREATED_TEXT.to_owned(),
        ..PrinterColumn::parse(
            &json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}),
        )
    }
}

impl Custom {
    /// The columns of a Table, as `columnDefinitions` lists them.
    pub fn column_definitions(&self) -> Vec<Value> {
        let name = json!({"name": "Name", "type": "string", "format": "name", "description": NAME_TEXT, "priority": 0});
        std::iter::once(name)
            .chain(self.columns.iter().map(PrinterColumn::definition))
            .collect()
    }

    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object
            .pointer("/metadata/name")
            .cloned()
            .unwrap_or_default();
        std::iter::once(name)
            .chain(self.columns.iter().map(|c| c.cell(object, now)))
            .collect()
    }
}

impl Row {
    /// The column definitions of a row that a definition has made.
    pub fn custom_columns(&self) -> Option<Vec<Value>> {
        self.custom.as_ref().map(|c| c.column_definitions())
    }
}
