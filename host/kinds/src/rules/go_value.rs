//! Structs as field errors print them: upstream marshals its internal types, whose fields have no JSON names, so they
//! appear in the order and spelling of Go, with nulls and zeros where nothing was said.

use serde_json::Value;

use super::path::some;

/// What stands in a field of a Go struct.
#[derive(Clone, Copy)]
pub enum Go {
    /// A value without a pointer: its zero (as JSON text) where nothing is said.
    Zero(&'static str),
    /// A pointer, map, or list of scalars: null where nothing is said.
    Nil,
    Struct(&'static [Field]),
    Pointer(&'static [Field]),
    List(&'static [Field]),
    /// Fields of this object, printed as if they stood here (metadata, whose fields have JSON names).
    Inline(&'static [Field]),
}

/// A field: its Go name, its JSON name, what it holds.
pub type Field = (&'static str, &'static str, Go);

/// The text of a struct.
pub fn show(value: &Value, fields: &[Field]) -> String {
    let mut parts = Vec::new();
    members(&mut parts, value, fields);
    format!("{{{}}}", parts.join(","))
}

fn members(parts: &mut Vec<String>, value: &Value, fields: &[Field]) {
    for (go, json, kind) in fields {
        let inner = some(value, json);
        let text = match (kind, inner) {
            (Go::Inline(fields), _) => {
                for (name, json, _) in *fields {
                    if let Some(inner) = inner.and_then(|i| some(i, json)) {
                        parts.push(format!("{name:?}:{inner}"));
                    }
                }
                continue;
            }
            (Go::Zero(zero), None) => (*zero).to_owned(),
            (Go::Struct(fields), inner) => show(inner.unwrap_or(&Value::Null), fields),
            (_, None) => "null".to_owned(),
            (Go::Zero(_) | Go::Nil, Some(inner)) => inner.to_string(),
            (Go::Pointer(fields), Some(inner)) => show(inner, fields),
            (Go::List(fields), Some(inner)) => {
                let items: Vec<String> = inner
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|item| show(item, fields))
                    .collect();
                format!("[{}]", items.join(","))
            }
        };
        parts.push(format!("{go:?}:{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn structs_show_what_was_not_said() {
        const INNER: &[Field] = &[("Name", "name", Go::Zero("\"\"")), ("Map", "map", Go::Nil)];
        const OUTER: &[Field] = &[
            ("", "metadata", Go::Inline(&[("labels", "labels", Go::Nil)])),
            ("Count", "count", Go::Zero("0")),
            ("One", "one", Go::Struct(INNER)),
            ("Maybe", "maybe", Go::Pointer(INNER)),
            ("Many", "many", Go::List(INNER)),
        ];
        let check = |value: Value, expect: &str| assert_eq!(show(&value, OUTER), expect);
        check(
            json!({}),
            r#"{"Count":0,"One":{"Name":"","Map":null},"Maybe":null,"Many":null}"#,
        );
        check(
            json!({"metadata": {"labels": {"a": "b"}}, "count": 3, "maybe": {"map": {"x": 1}}, "many": [{"name": "n"}]}),
            r#"{"labels":{"a":"b"},"Count":3,"One":{"Name":"","Map":null},"Maybe":{"Name":"","Map":{"x":1}},"Many":[{"Name":"n","Map":null}]}"#,
        );
    }
}
