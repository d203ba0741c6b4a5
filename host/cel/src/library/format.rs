//! `"%s and %d".format([a, b])`.

use super::{convert, holds, no_overload};
use crate::decl::Library;
use crate::value::{EvalError, List, Value};

pub(super) const LIBRARY: Library = &[("string: format(list(dyn)) -> string", |args| match args {
    [Value::String(text), Value::List(list)] => format(text, list).map(Value::text),
    _ => no_overload(),
})];

const DEFAULT_PRECISION: usize = 6;
/// Rust writes no more; a double has some thousand.
const MAX_PRECISION: usize = u16::MAX as usize;

fn format(text: &str, args: &List<'_>) -> Result<String, EvalError> {
    let (mut out, mut next) = (String::with_capacity(text.len()), 0);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*digit);
                chars.next();
            }
            let wrong = || {
                EvalError::new(
                    "error while parsing precision: could not find end of precision specifier",
                )
            };
            let digits: usize = digits.parse().map_err(|_| wrong())?;
            if digits > MAX_PRECISION {
                return Err(wrong());
            }
            precision = Some(digits);
        }
        let Some(clause) = chars.next() else {
            return Err(EvalError::new("unexpected end of string"));
        };
        let Some(arg) = args.get(next) else {
            return Err(EvalError::new(format!("index {next} out of range")));
        };
        next += 1;
        out.push_str(&written(clause, precision, &arg)?);
        holds(out.len())?;
    }
    Ok(out)
}

fn written(clause: char, precision: Option<usize>, arg: &Value<'_>) -> Result<String, EvalError> {
    let wrong = |what: &str| {
        let ty = arg.runtime_type();
        let ty = ty.runtime_name();
        let name = match clause {
            'd' => "decimal",
            'f' => "fixed-point",
            'e' => "scientific",
            'b' => "binary",
            'o' => "octal",
            _ => "hexadecimal",
        };
        EvalError::new(format!(
            "error during formatting: {name} clause can only be used on {what}, was given {ty}"
        ))
    };
    let digits = precision.unwrap_or(DEFAULT_PRECISION);
    Ok(match (clause, arg) {
        ('s', arg) => string(arg)?,
        ('d', Value::Int(v)) => v.to_string(),
        ('d', Value::Uint(v)) => v.to_string(),
        ('d' | 'f' | 'e', Value::Double(v)) if !v.is_finite() => special(*v),
        ('d', _) => return Err(wrong("integers")),
        ('f', Value::Double(v)) => format!("{v:.digits$}"),
        ('f', Value::Int(v)) => format!("{:.digits$}", *v as f64),
        ('f', Value::Uint(v)) => format!("{:.digits$}", *v as f64),
        ('f', _) => return Err(wrong("doubles")),
        ('e', Value::Double(v)) => scientific(*v, digits),
        ('e', Value::Int(v)) => scientific(*v as f64, digits),
        ('e', Value::Uint(v)) => scientific(*v as f64, digits),
        ('e', _) => return Err(wrong("doubles")),
        ('b', Value::Bool(v)) => u8::from(*v).to_string(),
        ('b', Value::Int(v)) => signed(*v, |v| format!("{v:b}")),
        ('b', Value::Uint(v)) => format!("{v:b}"),
        ('b', _) => return Err(wrong("integers and bools")),
        ('o', Value::Int(v)) => signed(*v, |v| format!("{v:o}")),
        ('o', Value::Uint(v)) => format!("{v:o}"),
        ('o', _) => return Err(wrong("integers")),
        ('x', Value::Int(v)) => signed(*v, |v| format!("{v:x}")),
        ('X', Value::Int(v)) => signed(*v, |v| format!("{v:X}")),
        ('x', Value::Uint(v)) => format!("{v:x}"),
        ('X', Value::Uint(v)) => format!("{v:X}"),
        ('x', Value::String(v)) => v.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::String(v)) => v.bytes().map(|b| format!("{b:02X}")).collect(),
        ('x', Value::Bytes(v)) => v.iter().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Bytes(v)) => v.iter().map(|b| format!("{b:02X}")).collect(),
        ('x' | 'X', _) => return Err(wrong("integers, byte buffers, and strings")),
        _ => {
            let why = format!(
                "could not parse formatting clause: unrecognized formatting clause \"{clause}\""
            );
            return Err(EvalError::new(why));
        }
    })
}

fn signed(v: i64, digits: fn(u64) -> String) -> String {
    let sign = if v < 0 { "-" } else { "" };
    format!("{sign}{}", digits(v.unsigned_abs()))
}

fn special(v: f64) -> String {
    if v.is_nan() {
        "NaN".to_owned()
    } else if v > 0.0 {
        "Infinity".to_owned()
    } else {
        "-Infinity".to_owned()
    }
}

fn scientific(v: f64, digits: usize) -> String {
    let text = format!("{v:.digits$e}");
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{exponent:0>2}")
}

/// `%s` of anything.
fn string(arg: &Value<'_>) -> Result<String, EvalError> {
    Ok(match arg {
        Value::Null => "null".to_owned(),
        Value::Double(v) if !v.is_finite() => special(*v),
        Value::Bytes(v) => String::from_utf8_lossy(v).into_owned(),
        Value::Type(ty) => ty.runtime_name().to_owned(),
        Value::List(list) => {
            let parts: Result<Vec<String>, _> = list.iter().map(|v| string(&v)).collect();
            let parts = parts?;
            holds(parts.iter().map(|part| part.len() + 2).sum())?;
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => {
            let mut parts = Vec::with_capacity(map.len());
            for (key, value) in map.iter() {
                parts.push(format!("{}: {}", string(&key)?, string(&value)?));
            }
            holds(parts.iter().map(|part| part.len() + 2).sum())?;
            parts.sort();
            format!("{{{}}}", parts.join(", "))
        }
        other => convert::text_of(other).ok_or_else(|| {
            let ty = other.runtime_type();
            let ty = ty.runtime_name();
            EvalError::new(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {ty}"
            ))
        })?,
    })
}
