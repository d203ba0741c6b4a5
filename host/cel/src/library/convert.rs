//! Conversions between types, and functions of plain texts: `int(x)`, `string(x)`, `contains`, `matches`, …

use std::rc::Rc;

use super::{Opaque, Outcome, no_overload, time};
use crate::decl::Library;
use crate::value::{EvalError, Value};

pub(super) const LIBRARY: Library = &[
    (
        "bool(bool) -> bool\nbool(string) -> bool",
        |args| match args {
            [Value::Bool(v)] => Ok(Value::Bool(*v)),
            [Value::String(v)] => match &**v {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => failed("string", "bool"),
            },
            _ => no_overload(),
        },
    ),
    (
        "bytes(bytes) -> bytes\nbytes(string) -> bytes",
        |args| match args {
            [Value::Bytes(v)] => Ok(Value::Bytes(Rc::clone(v))),
            [Value::String(v)] => Ok(Value::Bytes(v.as_bytes().into())),
            _ => no_overload(),
        },
    ),
    (
        "double(double) -> double
        double(int) -> double
        double(string) -> double
        double(uint) -> double",
        |args| match args {
            [Value::Double(v)] => Ok(Value::Double(*v)),
            [Value::Int(v)] => Ok(Value::Double(*v as f64)),
            [Value::Uint(v)] => Ok(Value::Double(*v as f64)),
            [Value::String(v)] => match v.parse() {
                Ok(number) => Ok(Value::Double(number)),
                Err(_) => failed("string", "double"),
            },
            _ => no_overload(),
        },
    ),
    (
        "duration(duration) -> duration
        duration(int) -> duration
        duration(string) -> duration",
        |args| match args {
            [Value::Duration(v)] => Ok(Value::Duration(*v)),
            [Value::Int(v)] => Ok(Value::Duration(*v)),
            [Value::String(v)] => match time::parse_duration(v) {
                Some(nanos) => Ok(Value::Duration(nanos)),
                None => failed("string", "google.protobuf.Duration"),
            },
            _ => no_overload(),
        },
    ),
    (
        "int(int) -> int
        int(double) -> int
        int(duration) -> int
        int(string) -> int
        int(timestamp) -> int
        int(uint) -> int",
        |args| match args {
            [Value::Int(v)] => Ok(Value::Int(*v)),
            [Value::Double(v)] if v.abs() < 9_223_372_036_854_775_807.0 => {
                Ok(Value::Int(*v as i64))
            }
            [Value::Double(_)] => super::operators::int(None),
            [Value::Duration(v)] => Ok(Value::Int(*v)),
            [Value::String(v)] => match v.parse() {
                Ok(number) => Ok(Value::Int(number)),
                Err(_) => failed("string", "int"),
            },
            [Value::Timestamp(v)] => Ok(Value::Int(v.as_second())),
            [Value::Uint(v)] => super::operators::int(i64::try_from(*v).ok()),
            _ => no_overload(),
        },
    ),
    (
        "uint(uint) -> uint
        uint(double) -> uint
        uint(int) -> uint
        uint(string) -> uint",
        |args| match args {
            [Value::Uint(v)] => Ok(Value::Uint(*v)),
            [Value::Double(v)] if *v >= 0.0 && *v < 18_446_744_073_709_551_615.0 => {
                Ok(Value::Uint(*v as u64))
            }
            [Value::Double(_)] => super::operators::uint(None),
            [Value::Int(v)] => super::operators::uint(u64::try_from(*v).ok()),
            [Value::String(v)] => match v.parse() {
                Ok(number) => Ok(Value::Uint(number)),
                Err(_) => failed("string", "uint"),
            },
            _ => no_overload(),
        },
    ),
    (
        "string(string) -> string
        string(bool) -> string
        string(bytes) -> string
        string(double) -> string
        string(duration) -> string
        string(int) -> string
        string(timestamp) -> string
        string(uint) -> string
        string(net.IP) -> string
        string(net.CIDR) -> string",
        |args| match args {
            [Value::String(v)] => Ok(Value::String(v.clone())),
            [Value::Bytes(v)] => match std::str::from_utf8(v) {
                Ok(text) => Ok(Value::text(text)),
                Err(_) => Err(EvalError::new(
                    "invalid UTF-8 in bytes, cannot convert to string",
                )),
            },
            [Value::Opaque(v)] => match &**v {
                Opaque::Ip(_) | Opaque::Cidr(..) => {
                    Ok(Value::text(v.as_text().unwrap_or_default()))
                }
                _ => no_overload(),
            },
            [value] => text_of(value).map_or_else(no_overload, |text| Ok(Value::text(text))),
            _ => no_overload(),
        },
    ),
    (
        "timestamp(int) -> timestamp
        timestamp(string) -> timestamp
        timestamp(timestamp) -> timestamp",
        |args| match args {
            [Value::Timestamp(v)] => Ok(Value::Timestamp(*v)),
            [Value::Int(v)] => jiff::Timestamp::from_second(*v)
                .map(Value::Timestamp)
                .map_err(|_| EvalError::new("timestamp overflow")),
            [Value::String(v)] => match time::parse_timestamp(v) {
                Some(at) => Ok(Value::Timestamp(at)),
                None => failed("string", "google.protobuf.Timestamp"),
            },
            _ => no_overload(),
        },
    ),
    ("string: contains(string) -> bool", |args| {
        texts(args, |a, b| a.contains(b))
    }),
    ("string: startsWith(string) -> bool", |args| {
        texts(args, |a, b| a.starts_with(b))
    }),
    ("string: endsWith(string) -> bool", |args| {
        texts(args, |a, b| a.ends_with(b))
    }),
    (
        "string: matches(string) -> bool
        matches(string, string) -> bool",
        |args| match args {
            [Value::String(text), Value::String(pattern)] => {
                Ok(Value::Bool(super::regex::compiled(pattern)?.is_match(text)))
            }
            _ => no_overload(),
        },
    ),
];

fn texts<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(a), Value::String(b)] => Ok(Value::Bool(holds(a, b))),
        _ => no_overload(),
    }
}

fn failed<'a>(from: &str, to: &str) -> Outcome<'a> {
    let why = format!("type conversion error from '{from}' to '{to}'");
    Err(EvalError::new(why))
}

/// `string(x)` of scalars.
pub(super) fn text_of(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Uint(v) => v.to_string(),
        Value::Double(v) => double_text(*v),
        Value::String(v) => v.to_string(),
        Value::Timestamp(v) => time::rfc3339(*v),
        Value::Duration(v) => time::seconds_text(*v),
        _ => return None,
    })
}

/// As Go's `%g`: the shortest digits, with an exponent below 10^-4 and from 10^21 on.
pub(super) fn double_text(v: f64) -> String {
    if v.is_nan() {
        return "NaN".to_owned();
    }
    if v.is_infinite() {
        return if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if v != 0.0 && (v.abs() < 1e-4 || v.abs() >= 1e21) {
        let text = format!("{v:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = match exponent.strip_prefix('-') {
                    Some(exponent) => ('-', exponent),
                    None => ('+', exponent),
                };
                format!("{digits}e{sign}{exponent:0>2}")
            }
            None => text,
        };
    }
    v.to_string()
}
