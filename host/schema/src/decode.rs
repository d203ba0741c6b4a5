//! Decoding outside bytes into a tree by a schema, as Kubernetes' JSON decoder does it: one pass, every error a value.
//!
//! The text of an error is an interface fact (clients show it), so the rules follow Go's encoding/json as
//! k8s.io/apimachinery uses it: a syntax error anywhere wins over a type error; of several type errors the first is told;
//! names are case-sensitive; `null` means absent; empty values are dropped or kept as the Go type would
//! ([`crate::Presence`]), so that an object reads the same however it was spelled.

mod go_time;
mod leaf;
mod scan;
mod type_meta;
mod untyped;

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::canonical::{is_zero, zero};
use crate::{Presence, Property, Schema, SchemaRef, Type};
use scan::{Scan, Text};
pub use type_meta::{TypeMeta, type_meta};
pub use untyped::decode_untyped;

/// A tree that fits its schema, and what a strict decoder would have refused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "metadata"`, in order; at most [`MAX_STRICT_ERRORS`].
    pub strict: Vec<String>,
}

/// More strict errors than that are not told.
pub const MAX_STRICT_ERRORS: usize = 100;

/// Values nested deeper are refused; bounds the stack.
pub const MAX_DEPTH: usize = 256;

/// Why bytes or a tree are not a value of the schema. Displayed as Kubernetes says it; the caller puts
/// `Pod in version "v1" cannot be handled as a Pod: ` before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON: `invalid character '}' after top-level value`, `unexpected end of JSON input`.
    #[error("{0}")]
    Syntax(String),
    /// JSON of the wrong shape: `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON text. Unknown fields are dropped and told in [`Decoded::strict`].
pub fn decode(schema: &SchemaRef, json: &[u8]) -> Result<Decoded, DecodeError> {
    let text: Cow<'_, str> = String::from_utf8_lossy(json);
    let mut decoder = Decoder {
        text: Text::new(&text),
        error: None,
        strict: Vec::new(),
        path: Vec::new(),
        struct_name: "",
    };
    let value = decoder
        .document(schema)
        .map_err(|e| DecodeError::Syntax(e.0))?;
    match decoder.error {
        Some(error) => Err(DecodeError::Type(error)),
        None => Ok(Decoded {
            value,
            strict: decoder.strict,
        }),
    }
}

/// The same for a tree (a patch's result, a YAML document).
pub fn decode_value(schema: &SchemaRef, value: &Value) -> Result<Decoded, DecodeError> {
    let text = serde_json::to_vec(value).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    decode(schema, &text)
}

/// One step from the root to the value being read.
#[derive(Clone, Copy)]
enum Step<'a> {
    /// A field of a struct.
    Field(&'a Property),
    /// A key of a map.
    Key(&'a str),
    Index(usize),
}

struct Decoder<'a> {
    text: Text<'a>,
    /// The first type error.
    error: Option<String>,
    strict: Vec<String>,
    path: Vec<Step<'a>>,
    /// The Go name of the innermost struct.
    struct_name: &'a str,
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() && !name.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// `v1.PodSpec` is `PodSpec` to error texts.
fn bare_name(go_type: &str) -> &str {
    go_type.rsplit('.').next().unwrap_or(go_type)
}

impl<'a> Decoder<'a> {
    fn document(&mut self, schema: &'a Schema) -> Scan<Value> {
        let value = self.value(schema)?;
        self.text.end()?;
        Ok(value.unwrap_or_else(|| zero(schema)))
    }

    /// Reads one value. `None`: null, or a value of the wrong type (`self.error` tells).
    fn value(&mut self, schema: &'a Schema) -> Scan<Option<Value>> {
        match self.text.begin_value()? {
            b'{' => match schema.ty {
                Type::Object => self.object(schema).map(Some),
                Type::Map => self.map(schema).map(Some),
                Type::Any => self.text.any().map(Some),
                _ => self.misfit(schema, "object"),
            },
            b'[' => match schema.ty {
                Type::Array => self.array(schema).map(Some),
                Type::Any => self.text.any().map(Some),
                _ => self.misfit(schema, "array"),
            },
            b'"' => {
                let text = self.text.string()?;
                Ok(self.string_leaf(schema, text))
            }
            b'n' => {
                self.text.literal("null")?;
                Ok(schema.nullable.then_some(Value::Null))
            }
            b't' => {
                self.text.literal("true")?;
                Ok(self.bool_leaf(schema, true))
            }
            b'f' => {
                self.text.literal("false")?;
                Ok(self.bool_leaf(schema, false))
            }
            _ => {
                let token = self.text.number()?;
                Ok(self.number_leaf(schema, token))
            }
        }
    }

    /// Skips a value that does not fit and says so.
    fn misfit(&mut self, schema: &Schema, what: &str) -> Scan<Option<Value>> {
        self.text.skip()?;
        self.wrong_shape(schema, what);
        Ok(None)
    }

    fn object(&mut self, schema: &'a Schema) -> Scan<Value> {
        let outer = self.struct_name;
        self.struct_name = bare_name(&schema.go_type);
        let mut map = Map::new();
        let mut seen = Seen::default();
        self.text.open(b'{')?;
        let mut first = true;
        while let Some(key) = self.text.next_key(&mut first)? {
            match schema.property_index(&key) {
                Some(at) => {
                    let property = &schema.properties[at];
                    let again = seen.again(at);
                    if again {
                        self.tell("duplicate", &property.name);
                    }
                    self.path.push(Step::Field(property));
                    let value = self.value(&property.schema)?;
                    self.path.pop();
                    let Some(value) = value else { continue };
                    let value = match again.then(|| map.remove(&*property.name)).flatten() {
                        Some(before) => merge_duplicate(before, value),
                        None => value,
                    };
                    if property.presence != Presence::OmitZero || !is_zero(&value) {
                        map.insert(String::from(&*property.name), value);
                    }
                }
                None => self.unnamed_field(schema, key, &mut map)?,
            }
        }
        for property in schema.always() {
            if !map.contains_key(&*property.name) {
                map.insert(String::from(&*property.name), property.zero());
            }
        }
        self.struct_name = outer;
        Ok(Value::Object(map))
    }

    fn unnamed_field(
        &mut self,
        schema: &'a Schema,
        key: Cow<'a, str>,
        map: &mut Map<String, Value>,
    ) -> Scan<()> {
        if let Some(values) = &schema.additional {
            self.entry(values, key, map)
        } else if schema.preserve_unknown {
            if map.contains_key(&*key) {
                self.tell("duplicate", &key);
            }
            let value = self.text.any()?;
            map.insert(key.into_owned(), value);
            Ok(())
        } else {
            self.tell("unknown", &key);
            self.text.skip()
        }
    }

    fn map(&mut self, schema: &'a Schema) -> Scan<Value> {
        let mut map = Map::new();
        self.text.open(b'{')?;
        let mut first = true;
        while let Some(key) = self.text.next_key(&mut first)? {
            match &schema.additional {
                Some(values) => self.entry(values, key, &mut map)?,
                None => {
                    let value = self.text.any()?;
                    map.insert(key.into_owned(), value);
                }
            }
        }
        Ok(Value::Object(map))
    }

    fn entry(
        &mut self,
        values: &'a Schema,
        key: Cow<'a, str>,
        map: &mut Map<String, Value>,
    ) -> Scan<()> {
        if map.contains_key(&*key) {
            self.tell("duplicate", &key);
        }
        self.path.push(Step::Key(match &key {
            Cow::Borrowed(text) => text,
            Cow::Owned(_) => "",
        }));
        let value = self.value(values)?;
        self.path.pop();
        map.insert(key.into_owned(), value.unwrap_or_else(|| zero(values)));
        Ok(())
    }

    fn array(&mut self, schema: &'a Schema) -> Scan<Value> {
        let mut items = Vec::new();
        self.text.open(b'[')?;
        while self.text.next_item(items.is_empty())? {
            let item = match &schema.items {
                Some(of) => {
                    self.path.push(Step::Index(items.len()));
                    let item = self.value(of)?;
                    self.path.pop();
                    item.unwrap_or_else(|| zero(of))
                }
                None => self.text.any()?,
            };
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    /// `unknown field "spec.containers[0].foo"`.
    fn tell(&mut self, what: &str, key: &str) {
        if self.strict.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(Property { name, .. }) => push_name(&mut path, name),
                Step::Key(name) => push_name(&mut path, name),
                Step::Index(at) => path.push_str(&format!("[{at}]")),
            }
        }
        if !path.is_empty() {
            path.push('.');
        }
        self.strict.push(format!("{what} field \"{path}{key}\""));
    }

    fn fail(&mut self, message: impl FnOnce() -> String) {
        if self.error.is_none() {
            self.error = Some(message());
        }
    }

    /// Go's `UnmarshalTypeError`: `json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32`.
    fn cannot(&mut self, what: &str, go_type: &str) {
        if self.error.is_some() {
            return;
        }
        let mut fields = String::new();
        for step in &self.path {
            if let Step::Field(property) = step {
                push_name(&mut fields, &property.embedded_in);
                push_name(&mut fields, &property.name);
            }
        }
        let message = if self.struct_name.is_empty() && fields.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {go_type}")
        } else {
            let name = self.struct_name;
            format!(
                "json: cannot unmarshal {what} into Go struct field {name}.{fields} of type {go_type}"
            )
        };
        self.error = Some(message);
    }
}

/// Which properties an object has had; exact for the first 256, which is more than any built-in kind has.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// Marks a property; true if it was marked before.
    fn again(&mut self, at: usize) -> bool {
        let Some(word) = self.0.get_mut(at / 64) else {
            return false;
        };
        let bit = 1 << (at % 64);
        let before = *word & bit != 0;
        *word |= bit;
        before
    }
}

/// Go decodes a field that comes twice into the same struct or map, so the second adds to the first.
fn merge_duplicate(before: Value, after: Value) -> Value {
    match (before, after) {
        (Value::Object(mut before), Value::Object(after)) => {
            before.extend(after);
            Value::Object(before)
        }
        (_, after) => after,
    }
}

#[cfg(test)]
mod tests;
