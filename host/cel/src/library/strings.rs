//! The strings extension: `charAt`, `indexOf`, `join`, `replace`, `split`, `substring`, `trim`, … By characters, not bytes.

use super::{Outcome, holds, no_overload};
use crate::decl::Library;
use crate::value::{EvalError, Value};

pub(super) const LIBRARY: Library = &[
    ("string: charAt(int) -> string", |args| match args {
        [Value::String(text), Value::Int(at)] => {
            let length = text.chars().count() as i64;
            if !(0..=length).contains(at) {
                return Err(EvalError::new(format!("index out of range: {at}")));
            }
            let c = text.chars().nth(*at as usize);
            Ok(Value::text(c.map(String::from).unwrap_or_default()))
        }
        _ => no_overload(),
    }),
    (
        "string: indexOf(string) -> int
        string: indexOf(string, int) -> int",
        |args| match args {
            [Value::String(text), Value::String(part)] => Ok(find(text, part, 0)),
            [Value::String(text), Value::String(part), Value::Int(from)] => {
                Ok(find(text, part, in_range(text, *from)?))
            }
            _ => no_overload(),
        },
    ),
    (
        "string: lastIndexOf(string) -> int
        string: lastIndexOf(string, int) -> int",
        |args| match args {
            [Value::String(text), Value::String(part)] => Ok(find_last(text, part, usize::MAX)),
            [Value::String(text), Value::String(part), Value::Int(until)] => {
                Ok(find_last(text, part, in_range(text, *until)?))
            }
            _ => no_overload(),
        },
    ),
    (
        "list(string): join() -> string
        list(string): join(string) -> string",
        |args| {
            let (Some(Value::List(list)), separator) = (args.first(), args.get(1)) else {
                return no_overload();
            };
            let separator = separator.and_then(Value::as_str).unwrap_or_default();
            let mut size = 0;
            for part in list.iter() {
                let Some(part) = part.as_str() else {
                    return no_overload();
                };
                size += part.len() + separator.len();
                holds(size)?;
            }
            let parts = list.iter().map(|part| part.as_str().map(str::to_owned));
            let parts: Option<Vec<String>> = parts.collect();
            let Some(parts) = parts else {
                return no_overload();
            };
            Ok(Value::text(parts.join(separator)))
        },
    ),
    (
        "string: replace(string, string) -> string
        string: replace(string, string, int) -> string",
        |args| match args {
            [Value::String(text), Value::String(from), Value::String(to)] => {
                replaced_size(text, from, to, usize::MAX)?;
                Ok(Value::text(text.replace(&**from, to)))
            }
            [
                Value::String(text),
                Value::String(from),
                Value::String(to),
                Value::Int(most),
            ] => {
                replaced_size(text, from, to, usize::try_from(*most).unwrap_or(usize::MAX))?;
                let replaced = match usize::try_from(*most) {
                    Ok(most) => text.replacen(&**from, to, most),
                    Err(_) => text.replace(&**from, to),
                };
                Ok(Value::text(replaced))
            }
            _ => no_overload(),
        },
    ),
    (
        "string: split(string) -> list(string)
        string: split(string, int) -> list(string)",
        |args| match args {
            [Value::String(text), Value::String(by)] => Ok(split(text, by, -1)),
            [Value::String(text), Value::String(by), Value::Int(most)] => {
                Ok(split(text, by, *most))
            }
            _ => no_overload(),
        },
    ),
    (
        "string: substring(int) -> string
        string: substring(int, int) -> string",
        |args| match args {
            [Value::String(text), Value::Int(from)] => {
                substring(text, *from, text.chars().count() as i64)
            }
            [Value::String(text), Value::Int(from), Value::Int(to)] => substring(text, *from, *to),
            _ => no_overload(),
        },
    ),
    ("string: trim() -> string", |args| {
        mapped(args, |text| text.trim().to_owned())
    }),
    ("string: lowerAscii() -> string", |args| {
        mapped(args, |text| text.to_ascii_lowercase())
    }),
    ("string: upperAscii() -> string", |args| {
        mapped(args, |text| text.to_ascii_uppercase())
    }),
    ("strings.quote(string) -> string", |args| {
        mapped(args, quoted)
    }),
    ("jsonpatch.escapeKey(string) -> string", |args| {
        mapped(args, |text| text.replace('~', "~0").replace('/', "~1"))
    }),
];

fn mapped<'a>(args: &[Value<'a>], to: fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(Value::text(to(text))),
        _ => no_overload(),
    }
}

/// Refuses a replacement whose result no text may be as large as.
fn replaced_size(text: &str, from: &str, to: &str, most: usize) -> Result<(), EvalError> {
    let times = text.matches(from).take(most).count();
    holds(text.len().saturating_add(times.saturating_mul(to.len())))
}

fn in_range(text: &str, at: i64) -> Result<usize, EvalError> {
    usize::try_from(at)
        .ok()
        .filter(|at| *at <= text.chars().count())
        .ok_or_else(|| EvalError::new(format!("index out of range: {at}")))
}

fn byte_of(text: &str, at: usize) -> usize {
    text.char_indices()
        .nth(at)
        .map_or(text.len(), |(byte, _)| byte)
}

fn find<'a>(text: &str, part: &str, from: usize) -> Value<'a> {
    let start = byte_of(text, from);
    match text[start..].find(part) {
        Some(byte) => Value::Int((from + text[start..start + byte].chars().count()) as i64),
        None => Value::Int(-1),
    }
}

/// The last occurrence that begins at `until` or before.
fn find_last<'a>(text: &str, part: &str, until: usize) -> Value<'a> {
    let end = (byte_of(text, until) + part.len()).min(text.len());
    let end = (end..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    match text[..end].rfind(part) {
        Some(byte) => Value::Int(text[..byte].chars().count() as i64),
        None => Value::Int(-1),
    }
}

fn split<'a>(text: &str, by: &str, most: i64) -> Value<'a> {
    let parts: Vec<String> = match (by.is_empty(), usize::try_from(most)) {
        (_, Ok(0)) => Vec::new(),
        (true, Ok(most)) => {
            let mut parts: Vec<String> = text.chars().map(String::from).collect();
            if parts.len() > most {
                let rest = parts.split_off(most - 1).concat();
                parts.push(rest);
            }
            parts
        }
        (true, Err(_)) => text.chars().map(String::from).collect(),
        (false, Ok(most)) => text.splitn(most, by).map(str::to_owned).collect(),
        (false, Err(_)) => text.split(by).map(str::to_owned).collect(),
    };
    Value::list(parts.into_iter().map(Value::text).collect())
}

fn substring<'a>(text: &str, from: i64, to: i64) -> Outcome<'a> {
    let (start, end) = (in_range(text, from)?, in_range(text, to)?);
    if start > end {
        let why = format!("invalid substring range. start: {from}, end: {to}");
        return Err(EvalError::new(why));
    }
    Ok(Value::text(
        text.chars()
            .skip(start)
            .take(end - start)
            .collect::<String>(),
    ))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
