//! Values while an expression runs. JSON is looked at where it lies; only what an expression makes is owned.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value as Json;

use crate::shape::{Form, Shape};
use crate::types::Type;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    NoSuchOverload,
    /// The expression, or the budget it shares, ran out of cost.
    CostExceeded,
    Other(String),
}

impl EvalError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }

    pub(crate) fn no_such_key(key: &str) -> Self {
        Self::Other(format!("no such key: {key}"))
    }
}

impl std::fmt::Display for EvalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchOverload => f.write_str("no such overload"),
            Self::CostExceeded => f.write_str("operation cancelled: actual cost limit exceeded"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for EvalError {}

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    Timestamp(jiff::Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Struct(Rc<Struct<'a>>),
    Type(Type),
    Optional(Option<Rc<Value<'a>>>),
    Opaque(Rc<crate::library::Opaque<'a>>),
}

/// Text that is cheap to copy.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], Option<&'a Shape>),
    Owned(Rc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>, Option<&'a Shape>),
    Owned(Rc<OwnedMap<'a>>),
}

/// A map in the order in which it was written.
#[derive(Clone, Debug, Default)]
pub struct OwnedMap<'a> {
    entries: Vec<(Value<'a>, Value<'a>)>,
    index: HashMap<Key, usize>,
}

/// An object that an expression made: `Object.spec{replicas: 3}`.
#[derive(Clone, Debug)]
pub struct Struct<'a> {
    pub name: &'a str,
    pub fields: Vec<(&'a str, Value<'a>)>,
}

/// What a map's key is compared by: numbers of any type by value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    Text(String),
}

impl Key {
    pub fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(v) => Self::Bool(*v),
            Value::Int(v) => Self::Number((*v).into()),
            Value::Uint(v) => Self::Number((*v).into()),
            Value::Double(v) if v.fract() == 0.0 && v.abs() < 1e19 => Self::Number(*v as i128),
            Value::String(v) => Self::Text(v.to_string()),
            _ => return None,
        })
    }
}

impl<'a> OwnedMap<'a> {
    /// False if the key is there already.
    pub fn insert(&mut self, key: Value<'a>, value: Value<'a>) -> Result<(), EvalError> {
        let index = Key::of(&key)
            .filter(|_| !matches!(key, Value::Double(_)))
            .ok_or_else(|| EvalError::new("unsupported key type"))?;
        if self.index.contains_key(&index) {
            let text = key.as_key_text();
            return Err(EvalError::new(format!("Failed with repeated key: {text}")));
        }
        self.index.insert(index, self.entries.len());
        self.entries.push((key, value));
        Ok(())
    }

    pub fn entries(&self) -> &[(Value<'a>, Value<'a>)] {
        &self.entries
    }
}

impl<'a> Value<'a> {
    pub fn text(text: impl Into<Rc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    pub fn list(of: Vec<Value<'a>>) -> Self {
        Self::List(List::Owned(Rc::new(of)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// JSON without a schema, as admission policies see it.
    pub fn json(json: &'a Json) -> Self {
        Self::of(json, None)
    }

    /// JSON read by its schema.
    pub fn shaped(json: &'a Json, shape: &'a Shape) -> Self {
        Self::of(json, Some(shape))
    }

    pub(crate) fn of(json: &'a Json, shape: Option<&'a Shape>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(v) => Self::Bool(*v),
            Json::Number(number) => {
                let is_double = shape.is_some_and(|s| matches!(s.form, Form::Double));
                match (number.as_i64(), number.as_u64()) {
                    (Some(v), _) if !is_double => Self::Int(v),
                    (None, Some(v)) if !is_double => Self::Uint(v),
                    _ => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                }
            }
            Json::String(text) => match shape.map(|s| &s.form) {
                Some(form) => form.read_text(text),
                None => Self::String(Text::Borrowed(text)),
            },
            Json::Array(all) => Self::List(List::Json(
                all,
                shape.filter(|s| matches!(s.form, Form::List { .. })),
            )),
            Json::Object(all) => Self::Map(Map::Json(
                all,
                shape.filter(|s| matches!(s.form, Form::Map { .. } | Form::Object { .. })),
            )),
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(*v),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(v) => Some(v),
            _ => None,
        }
    }

    /// As messages about keys write it.
    pub(crate) fn as_key_text(&self) -> String {
        match self {
            Self::Bool(v) => v.to_string(),
            Self::Int(v) => v.to_string(),
            Self::Uint(v) => v.to_string(),
            Self::Double(v) => v.to_string(),
            Self::String(v) => v.to_string(),
            other => format!("{{{}}}", other.runtime_type().runtime_name()),
        }
    }

    pub fn runtime_type(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Duration(_) => Type::Duration,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(Map::Json(_, Some(shape))) => match &shape.ty {
                object @ Type::Object(_) => object.clone(),
                _ => Type::map(Type::Dyn, Type::Dyn),
            },
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Struct(made) => Type::open_object(made.name),
            Self::Type(_) => Type::Type(None),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Opaque(opaque) => Type::opaque(opaque.type_name()),
        }
    }

    /// What cost is counted by: characters, bytes, elements; 1 for all else.
    pub fn size(&self) -> u64 {
        match self {
            Self::String(v) => v.chars().count() as u64,
            Self::Bytes(v) => v.len() as u64,
            Self::List(v) => v.len() as u64,
            Self::Map(v) => v.len() as u64,
            _ => 1,
        }
    }

    /// JSON of the value, as far as it has any.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        Ok(match self {
            Self::Null | Self::Optional(None) => Json::Null,
            Self::Bool(v) => (*v).into(),
            Self::Int(v) => (*v).into(),
            Self::Uint(v) => (*v).into(),
            Self::Double(v) => (*v).into(),
            Self::String(v) => v.to_string().into(),
            Self::Bytes(v) => {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.encode(v).into()
            }
            Self::Timestamp(v) => crate::library::time::rfc3339(*v).into(),
            Self::Duration(v) => crate::library::time::seconds_text(*v).into(),
            Self::List(v) => {
                let items: Result<Vec<Json>, _> = v.iter().map(|item| item.to_json()).collect();
                Json::Array(items?)
            }
            Self::Map(v) => {
                let mut object = serde_json::Map::new();
                for (key, value) in v.iter() {
                    object.insert(key.as_key_text(), value.to_json()?);
                }
                Json::Object(object)
            }
            Self::Struct(made) => {
                let mut object = serde_json::Map::new();
                for (name, value) in &made.fields {
                    object.insert((*name).to_owned(), value.to_json()?);
                }
                Json::Object(object)
            }
            Self::Optional(Some(v)) => v.to_json()?,
            Self::Opaque(opaque) => match opaque.as_text() {
                Some(text) => text.into(),
                None => return Err(EvalError::new("unsupported type")),
            },
            Self::Type(_) => return Err(EvalError::new("unsupported type")),
        })
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(all, _) => all.len(),
            Self::Owned(all) => all.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(all, shape) => all
                .get(index)
                .map(|json| Value::of(json, shape.and_then(Shape::items))),
            Self::Owned(all) => all.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(all, _) => all.len(),
            Self::Owned(all) => all.entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Json(..), Value::String(name)) => self.field(name),
            (Self::Json(..), _) => None,
            (Self::Owned(all), _) => {
                let index = *all.index.get(&Key::of(key)?)?;
                all.entries.get(index).map(|(_, value)| value.clone())
            }
        }
    }

    /// The value of a text key; of an object with a schema, of a field by the name that CEL has for it.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(all, None) => all.get(name).map(Value::json),
            Self::Json(all, Some(shape)) => {
                let (json_name, shape) = shape.field(name)?;
                all.get(json_name.unwrap_or(name))
                    .map(|json| Value::of(json, Some(shape)))
            }
            Self::Owned(all) => {
                let index = *all.index.get(&Key::Text(name.to_owned()))?;
                all.entries.get(index).map(|(_, value)| value.clone())
            }
        }
    }

    pub fn iter(&self) -> Box<dyn Iterator<Item = (Value<'a>, Value<'a>)> + '_> {
        match self {
            Self::Json(all, None) => Box::new(
                all.iter()
                    .map(|(name, json)| (Value::String(Text::Borrowed(name)), Value::json(json))),
            ),
            Self::Json(all, Some(shape)) => {
                let shape = *shape;
                Box::new(all.iter().filter_map(move |(name, json)| {
                    let (name, shape) = shape.field_of_json(name)?;
                    Some((
                        Value::String(Text::Borrowed(name)),
                        Value::of(json, Some(shape)),
                    ))
                }))
            }
            Self::Owned(all) => Box::new(all.entries.iter().cloned()),
        }
    }
}
