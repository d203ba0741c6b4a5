//! Structural schemas as CEL sees them: the types of fields, and how JSON is read by them.
//! Source: k8s.io/apiserver/pkg/cel/common, schemas.go (documented in KEP-2876).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::library::time;
use crate::types::{Fields, ObjectType, Type};
use crate::value::{Text, Value};

/// Bytes that a request may have; what is not bounded by a schema is bounded by it.
pub(crate) const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;

/// A schema, ready to be checked against and to read by.
#[derive(Debug)]
pub struct Shape {
    pub ty: Type,
    pub(crate) form: Form,
    /// Characters, elements or entries that there can be at most.
    pub max_elements: u64,
    /// Bytes of the smallest JSON.
    pub min_bytes: u64,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// Read as it is: scalars, and what has either of two types.
    Plain,
    Double,
    Bytes,
    Date,
    DateTime,
    Duration,
    List {
        items: Arc<Shape>,
        kind: ListKind,
    },
    Map {
        values: Arc<Shape>,
    },
    Object {
        /// By the name in CEL: the name in JSON, and the field's shape.
        fields: BTreeMap<String, (String, Arc<Shape>)>,
    },
}

/// `x-kubernetes-list-type`: how lists are compared and added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

impl Form {
    pub fn read_text<'a>(&self, text: &'a str) -> Value<'a> {
        let plain = Value::String(Text::Borrowed(text));
        match self {
            Self::Bytes => {
                use base64::Engine as _;
                match base64::engine::general_purpose::STANDARD.decode(text) {
                    Ok(bytes) => Value::Bytes(Rc::from(bytes)),
                    Err(_) => plain,
                }
            }
            Self::Date => time::parse_date(text).map_or(plain, Value::Timestamp),
            Self::DateTime => time::parse_timestamp(text).map_or(plain, Value::Timestamp),
            Self::Duration => time::parse_duration(text).map_or(plain, Value::Duration),
            _ => plain,
        }
    }
}

impl Shape {
    /// Of a schema in JSON (`openAPIV3Schema` or a part of it); `None` if it says no type.
    /// `name` is what messages call the type; a root (`is_resource`) has `apiVersion`, `kind` and names always.
    pub fn of(schema: &Json, name: &str, is_resource: bool) -> Option<Self> {
        if schema["x-kubernetes-int-or-string"] == true {
            return Some(Self::plain(Type::Dyn, MAX_REQUEST_BYTES - 2, 1));
        }
        let number = |field: &str| schema[field].as_i64().map(|n| n.max(0) as u64);
        let is_embedded = |of: &Json| of["x-kubernetes-embedded-resource"] == true;
        match schema["type"].as_str().unwrap_or_default() {
            "array" => {
                let items = &schema["items"];
                let items = Self::of(items, &format!("{name}.@idx"), is_embedded(items))?;
                let most =
                    number("maxItems").unwrap_or((MAX_REQUEST_BYTES - 2) / (items.min_bytes + 1));
                let kind = match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => ListKind::Set,
                    Some("map") => ListKind::Map(
                        schema["x-kubernetes-list-map-keys"]
                            .as_array()
                            .into_iter()
                            .flatten()
                            .filter_map(Json::as_str)
                            .map(str::to_owned)
                            .collect(),
                    ),
                    _ => ListKind::Atomic,
                };
                Some(Self {
                    ty: Type::list(items.ty.clone()),
                    max_elements: most,
                    min_bytes: 2,
                    form: Form::List {
                        items: Arc::new(items),
                        kind,
                    },
                })
            }
            "object" if schema["additionalProperties"].is_object() && !is_resource => {
                let values = &schema["additionalProperties"];
                let values = Self::of(values, &format!("{name}.@elem"), is_embedded(values))?;
                let most = number("maxProperties")
                    .unwrap_or((MAX_REQUEST_BYTES - 2) / (values.min_bytes + 6));
                Some(Self {
                    ty: Type::map(Type::String, values.ty.clone()),
                    max_elements: most,
                    min_bytes: 2,
                    form: Form::Map {
                        values: Arc::new(values),
                    },
                })
            }
            "object" => Some(Self::object(schema, name, is_resource)),
            "string" => Some(Self::string(schema)),
            "boolean" => Some(Self::plain(Type::Bool, 1, 4)),
            "integer" => Some(Self::plain(Type::Int, 1, 1)),
            "number" => Some(Self {
                form: Form::Double,
                ..Self::plain(Type::Double, 1, 1)
            }),
            _ => None,
        }
    }

    fn plain(ty: Type, max_elements: u64, min_bytes: u64) -> Self {
        Self {
            ty,
            form: Form::Plain,
            max_elements,
            min_bytes,
        }
    }

    fn string(schema: &Json) -> Self {
        let (ty, form, longest, min_bytes) = match schema["format"].as_str().unwrap_or_default() {
            "byte" => (Type::Bytes, Form::Bytes, MAX_REQUEST_BYTES - 2, 2),
            "duration" => return Self::text(Type::Duration, Form::Duration, 32, 4),
            "date" => return Self::text(Type::Timestamp, Form::Date, 12, 12),
            "date-time" => return Self::text(Type::Timestamp, Form::DateTime, 37, 22),
            _ => (Type::String, Form::Plain, MAX_REQUEST_BYTES - 2, 2),
        };
        let is_text = matches!(ty, Type::String);
        let enumerated = schema["enum"].as_array().filter(|all| !all.is_empty());
        let longest = match (schema["maxLength"].as_i64(), enumerated) {
            // A character has up to four bytes.
            (Some(n), _) => n.max(0) as u64 * if is_text { 4 } else { 1 },
            (None, Some(all)) if is_text => {
                let lengths = all.iter().filter_map(Json::as_str).map(str::len);
                lengths.max().unwrap_or(0) as u64
            }
            _ => longest,
        };
        Self::text(ty, form, longest, min_bytes)
    }

    fn text(ty: Type, form: Form, max_elements: u64, min_bytes: u64) -> Self {
        Self {
            ty,
            form,
            max_elements,
            min_bytes,
        }
    }

    fn object(schema: &Json, name: &str, is_resource: bool) -> Self {
        let mut fields = BTreeMap::new();
        let mut min_bytes = 2;
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        let mut add = |property: &str, shape: Self| {
            if let Some(escaped) = escape(property) {
                fields.insert(escaped, (property.to_owned(), Arc::new(shape)));
            }
        };
        for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
            let is_embedded = schema["x-kubernetes-embedded-resource"] == true;
            let Some(shape) = Self::of(schema, &format!("{name}.{property}"), is_embedded) else {
                continue;
            };
            if required.contains(&property.as_str()) && schema.get("default").is_none() {
                min_bytes += property.len() as u64 + shape.min_bytes + 4;
            }
            add(property, shape);
        }
        if is_resource {
            let text = serde_json::json!({"type": "string"});
            add("apiVersion", Self::string(&text));
            add("kind", Self::string(&text));
            let names = serde_json::json!({
                "type": "object",
                "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
            });
            add(
                "metadata",
                Self::object(&names, &format!("{name}.metadata"), false),
            );
        }
        let known = fields
            .iter()
            .map(|(name, (_, shape))| (name.clone(), shape.ty.clone()))
            .collect();
        Self {
            ty: Type::Object(Arc::new(ObjectType {
                name: name.to_owned(),
                fields: Fields::Known(known),
            })),
            form: Form::Object { fields },
            max_elements: 1,
            min_bytes,
        }
    }

    pub fn items(&self) -> Option<&Self> {
        match &self.form {
            Form::List { items, .. } => Some(items),
            _ => None,
        }
    }

    pub(crate) fn list_kind(&self) -> &ListKind {
        match &self.form {
            Form::List { kind, .. } => kind,
            _ => &ListKind::Atomic,
        }
    }

    /// What a property or key has, by its name in CEL: the name in JSON if it may be another, and the shape.
    pub fn field(&self, name: &str) -> Option<(Option<&str>, &Self)> {
        match &self.form {
            Form::Map { values } => Some((None, values)),
            Form::Object { fields } => {
                let (json, shape) = fields.get(name)?;
                Some((Some(json), shape))
            }
            _ => None,
        }
    }

    /// By the name in JSON: the name in CEL, and the shape.
    pub fn field_of_json<'a>(&'a self, name: &'a str) -> Option<(&'a str, &'a Self)> {
        match &self.form {
            Form::Map { values } => Some((name, values)),
            Form::Object { fields } => {
                let (cel, (_, shape)) = fields.iter().find(|(_, (json, _))| json == name)?;
                Some((cel, shape))
            }
            _ => None,
        }
    }
}

const KEYWORDS: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A property's name as CEL has it; `None` if it cannot be named.
/// Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-path>
pub fn escape(name: &str) -> Option<String> {
    if KEYWORDS.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            escaped.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            'a'..='z' | 'A'..='Z' | '_' => escaped.push(c),
            '0'..='9' if !escaped.is_empty() => escaped.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    (!escaped.is_empty()).then_some(escaped)
}
