//! Leaves: texts, numbers and booleans into what the schema wants, in the canonical spelling that Kubernetes stores.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oarlock_model::Quantity;
use serde_json::Value;

use super::scan::number_value;
use super::{Decoder, go_time};
use crate::{Schema, Type};

impl Decoder<'_> {
    /// A value that no rule of its type accepts. Types with a decoder of their own in Go have texts of their own.
    pub(super) fn wrong_shape(&mut self, schema: &Schema, what: &str) {
        match schema.ty {
            Type::Quantity => self.fail(|| oarlock_model::quantity::ParseQuantityError.to_string()),
            Type::Time | Type::MicroTime | Type::Duration => self.cannot(what, "string"),
            Type::IntOrString => self.cannot(what, "int32"),
            _ => self.cannot(what, go_name(schema)),
        }
    }

    pub(super) fn string_leaf(&mut self, schema: &Schema, text: Cow<'_, str>) -> Option<Value> {
        match schema.ty {
            Type::String | Type::IntOrString | Type::Any => Some(Value::String(text.into_owned())),
            Type::Quantity => match text.trim().parse::<Quantity>() {
                Ok(quantity) => Some(Value::String(quantity.to_string())),
                Err(error) => self.refuse(error.to_string()),
            },
            Type::Time => match go_time::parse(&text, go_time::Precision::Seconds) {
                Ok(time) => Some(Value::String(time)),
                Err(error) => self.refuse(error),
            },
            Type::MicroTime => match go_time::parse(&text, go_time::Precision::Micros) {
                Ok(time) => Some(Value::String(time)),
                Err(error) => self.refuse(error),
            },
            Type::Duration => match go_time::canonical_duration(&text) {
                Ok(text) => Some(Value::String(text)),
                Err(error) => self.refuse(error),
            },
            Type::Bytes => match canonical_base64(text) {
                Ok(text) => Some(Value::String(text)),
                Err(at) => self.refuse(format!("illegal base64 data at input byte {at}")),
            },
            Type::Object
            | Type::Map
            | Type::Array
            | Type::Int32
            | Type::Int64
            | Type::Double
            | Type::Boolean => {
                self.wrong_shape(schema, "string");
                None
            }
        }
    }

    pub(super) fn bool_leaf(&mut self, schema: &Schema, value: bool) -> Option<Value> {
        if matches!(schema.ty, Type::Boolean | Type::Any) {
            return Some(Value::Bool(value));
        }
        self.wrong_shape(schema, "bool");
        None
    }

    pub(super) fn number_leaf(&mut self, schema: &Schema, token: &str) -> Option<Value> {
        match schema.ty {
            Type::Any => Some(number_value(token)),
            Type::Int32 => match token.parse::<i32>() {
                Ok(number) => Some(number.into()),
                Err(_) => self.bad_number(schema, token),
            },
            Type::Int64 => match token.parse::<i64>() {
                Ok(number) => Some(number.into()),
                Err(_) => self.bad_number(schema, token),
            },
            Type::Double => match token.parse::<f64>() {
                Ok(number) if number.is_finite() => Some(number_value(token)),
                _ => self.bad_number(schema, token),
            },
            Type::IntOrString => match token.parse::<i32>() {
                Ok(number) => Some(number.into()),
                Err(_) => {
                    self.cannot(&format!("number {token}"), "int32");
                    None
                }
            },
            Type::Quantity => match token.parse::<Quantity>() {
                Ok(quantity) => Some(Value::String(quantity.to_string())),
                Err(error) => self.refuse(error.to_string()),
            },
            _ => {
                self.wrong_shape(schema, "number");
                None
            }
        }
    }

    fn bad_number(&mut self, schema: &Schema, token: &str) -> Option<Value> {
        self.cannot(&format!("number {token}"), go_name(schema));
        None
    }

    fn refuse(&mut self, message: String) -> Option<Value> {
        self.fail(|| message);
        None
    }
}

/// The Go type of a node; of nodes that were not given one, the plain type's.
fn go_name(schema: &Schema) -> &str {
    if !schema.go_type.is_empty() {
        return &schema.go_type;
    }
    match schema.ty {
        Type::Any | Type::IntOrString | Type::Quantity => "interface {}",
        Type::Object | Type::Map => "map[string]interface {}",
        Type::Array => "[]interface {}",
        Type::String | Type::Time | Type::MicroTime | Type::Duration => "string",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Double => "float64",
        Type::Boolean => "bool",
        Type::Bytes => "[]uint8",
    }
}

/// Base64 as Go's standard decoder reads it (line breaks ignored, trailing bits free), written canonically.
/// The error is the offset that Go reports.
fn canonical_base64(text: Cow<'_, str>) -> Result<String, usize> {
    if STANDARD.decode(text.as_bytes()).is_ok() {
        return Ok(text.into_owned());
    }
    lenient_base64(text.as_bytes()).map(|bytes| STANDARD.encode(bytes))
}

/// Go's `base64.StdEncoding`, for the spellings that are not canonical and for the offsets of its errors.
fn lenient_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut at = 0;
    loop {
        let (mut quantum, mut have) = (0u32, 0);
        while have < 4 {
            let Some(&byte) = text.get(at) else {
                return if have == 0 { Ok(out) } else { Err(at - have) };
            };
            at += 1;
            match byte {
                b'\r' | b'\n' => {}
                b'=' => {
                    if have < 2 {
                        return Err(at - 1);
                    }
                    padding(text, at, have)?;
                    out.push((quantum >> (6 * (have - 1) - 2)) as u8);
                    if have == 3 {
                        let last = out.len() - 1;
                        out[last] = (quantum >> 10) as u8;
                        out.push((quantum >> 2) as u8);
                    }
                    return Ok(out);
                }
                _ => {
                    quantum = quantum << 6 | u32::from(sextet(byte).ok_or(at - 1)?);
                    have += 1;
                }
            }
        }
        out.extend_from_slice(&quantum.to_be_bytes()[1..]);
    }
}

/// Behind the first `=`: the second one if two digits came before, and nothing else but line breaks.
fn padding(text: &[u8], mut at: usize, have: usize) -> Result<(), usize> {
    let skip = |at: &mut usize| {
        while let Some(b'\r' | b'\n') = text.get(*at) {
            *at += 1;
        }
    };
    if have == 2 {
        skip(&mut at);
        match text.get(at) {
            Some(b'=') => at += 1,
            Some(_) => return Err(at),
            None => return Err(text.len()),
        }
    }
    skip(&mut at);
    if at < text.len() { Err(at) } else { Ok(()) }
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_go_reads_it() {
        let check = |text: &str, expect: Result<&str, usize>| {
            assert_eq!(
                canonical_base64(text.into()).as_deref().map_err(|e| *e),
                expect,
                "{text:?}"
            );
        };
        check("", Ok(""));
        check("YWJj", Ok("YWJj"));
        check("YWJ\njZA==", Ok("YWJjZA=="));
        check("YWJjZB==", Ok("YWJjZA=="));
        check("YWJjZGV=", Ok("YWJjZGU="));
        check("YWJ", Err(0));
        check("YWJjZA", Err(4));
        check("YW!j", Err(2));
        check("YWJjZA=x", Err(7));
        check("YWJjZA=", Err(7));
        check("YQ==x", Err(4));
        check("Y===", Err(1));
    }
}
