//! Operators: equality, order, arithmetic, membership, indexes, `size`, `type`.

use std::cmp::Ordering;

use super::{Opaque, Outcome, no_overload};
use crate::decl::Library;
use crate::shape::ListKind;
use crate::value::{EvalError, List, Map, Value};

macro_rules! ordered {
    ($name:literal) => {
        concat!(
            $name,
            "(bool, bool) -> bool\n",
            $name,
            "(int, int) -> bool\n",
            $name,
            "(int, double) -> bool\n",
            $name,
            "(int, uint) -> bool\n",
            $name,
            "(uint, uint) -> bool\n",
            $name,
            "(uint, double) -> bool\n",
            $name,
            "(uint, int) -> bool\n",
            $name,
            "(double, double) -> bool\n",
            $name,
            "(double, int) -> bool\n",
            $name,
            "(double, uint) -> bool\n",
            $name,
            "(string, string) -> bool\n",
            $name,
            "(bytes, bytes) -> bool\n",
            $name,
            "(timestamp, timestamp) -> bool\n",
            $name,
            "(duration, duration) -> bool\n",
        )
    };
}
pub(super) const LIBRARY: Library = &[
    (
        "_&&_(bool, bool) -> bool\n_||_(bool, bool) -> bool\n@not_strictly_false(bool) -> bool",
        |_| no_overload(),
    ),
    ("_?_:_(bool, A, A) -> A", |_| no_overload()),
    ("!_(bool) -> bool", |args| match args {
        [Value::Bool(v)] => Ok(Value::Bool(!v)),
        _ => no_overload(),
    }),
    ("_==_(A, A) -> bool", |args| {
        Ok(Value::Bool(equal(&args[0], &args[1])))
    }),
    ("_!=_(A, A) -> bool", |args| {
        Ok(Value::Bool(!equal(&args[0], &args[1])))
    }),
    (ordered!("_<_"), |args| order(args, Ordering::is_lt)),
    (ordered!("_<=_"), |args| order(args, Ordering::is_le)),
    (ordered!("_>_"), |args| order(args, Ordering::is_gt)),
    (ordered!("_>=_"), |args| order(args, Ordering::is_ge)),
    (
        "_+_(bytes, bytes) -> bytes
        _+_(double, double) -> double
        _+_(duration, duration) -> duration
        _+_(duration, timestamp) -> timestamp
        _+_(timestamp, duration) -> timestamp
        _+_(int, int) -> int
        _+_(list(A), list(A)) -> list(A)
        _+_(string, string) -> string
        _+_(uint, uint) -> uint",
        add,
    ),
    (
        "_-_(double, double) -> double
        _-_(duration, duration) -> duration
        _-_(int, int) -> int
        _-_(timestamp, duration) -> timestamp
        _-_(timestamp, timestamp) -> duration
        _-_(uint, uint) -> uint",
        subtract,
    ),
    (
        "_*_(double, double) -> double
        _*_(int, int) -> int
        _*_(uint, uint) -> uint",
        |args| match args {
            [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
            [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
            [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
            _ => no_overload(),
        },
    ),
    (
        "_/_(double, double) -> double
        _/_(int, int) -> int
        _/_(uint, uint) -> uint",
        |args| match args {
            [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
                Err(EvalError::new("division by zero"))
            }
            [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
            [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
            [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
            _ => no_overload(),
        },
    ),
    (
        "_%_(int, int) -> int
        _%_(uint, uint) -> uint",
        |args| match args {
            [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => {
                Err(EvalError::new("modulus by zero"))
            }
            [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
            [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
            _ => no_overload(),
        },
    ),
    (
        "-_(double) -> double
        -_(int) -> int",
        |args| match args {
            [Value::Int(a)] => int(a.checked_neg()),
            [Value::Double(a)] => Ok(Value::Double(-a)),
            _ => no_overload(),
        },
    ),
    (
        "@in(A, list(A)) -> bool
        @in(A, map(A, B)) -> bool",
        |args| match args {
            [wanted, Value::List(list)] => {
                Ok(Value::Bool(list.iter().any(|one| equal(wanted, &one))))
            }
            [key, Value::Map(map)] => Ok(Value::Bool(map.get(key).is_some())),
            _ => no_overload(),
        },
    ),
    (
        "_[_](list(A), int) -> A
        _[_](map(A, B), A) -> B",
        |args| match index(args) {
            Ok(Some(value)) => Ok(value),
            Ok(None) if matches!(args[0], Value::List(_)) => {
                let at = args[1].as_key_text();
                Err(EvalError::new(format!("index out of bounds: {at}")))
            }
            Ok(None) => Err(EvalError::no_such_key(&args[1].as_key_text())),
            Err(error) => Err(error),
        },
    ),
    (
        "_[_](optional(list(A)), int) -> optional(A)
        _[_](optional(map(A, B)), A) -> optional(B)
        _[?_](list(A), int) -> optional(A)
        _[?_](map(A, B), A) -> optional(B)
        _[?_](optional(list(A)), int) -> optional(A)
        _[?_](optional(map(A, B)), A) -> optional(B)",
        |args| match args {
            [Value::Optional(None), _] => Ok(Value::Optional(None)),
            [Value::Optional(Some(inside)), at] => {
                let found = index(&[(**inside).clone(), at.clone()])?;
                Ok(Value::Optional(found.map(Into::into)))
            }
            _ => Ok(Value::Optional(index(args)?.map(Into::into))),
        },
    ),
    (
        "size(bytes) -> int
        bytes: size() -> int
        size(list(A)) -> int
        list(A): size() -> int
        size(map(A, B)) -> int
        map(A, B): size() -> int
        size(string) -> int
        string: size() -> int",
        |args| match args {
            [Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_)] => {
                Ok(Value::Int(args[0].size() as i64))
            }
            _ => no_overload(),
        },
    ),
    ("type(A) -> type(A)", |args| {
        Ok(Value::Type(args[0].runtime_type()))
    }),
    ("dyn(A) -> dyn", |args| Ok(args[0].clone())),
    (
        "cel.@mapInsert(map(A, B), A, B) -> map(A, B)
        cel.@mapInsert(map(A, B), map(A, B)) -> map(A, B)",
        |_| no_overload(),
    ),
];

pub(super) fn int<'a>(value: Option<i64>) -> Outcome<'a> {
    value
        .map(Value::Int)
        .ok_or_else(|| EvalError::new("integer overflow"))
}

pub(super) fn uint<'a>(value: Option<u64>) -> Outcome<'a> {
    value
        .map(Value::Uint)
        .ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn duration<'a>(value: Option<i64>) -> Outcome<'a> {
    value
        .map(Value::Duration)
        .ok_or_else(|| EvalError::new("duration overflow"))
}

fn timestamp<'a>(at: &jiff::Timestamp, nanos: i64) -> Outcome<'a> {
    at.checked_add(jiff::SignedDuration::from_nanos(nanos))
        .map(Value::Timestamp)
        .map_err(|_| EvalError::new("timestamp overflow"))
}

fn add<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => Ok(Value::text(format!("{}{}", &**a, &**b))),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([&**a, &**b].concat().into())),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_add(*b)),
        [Value::Timestamp(at), Value::Duration(by)]
        | [Value::Duration(by), Value::Timestamp(at)] => timestamp(at, *by),
        [Value::List(a), Value::List(b)] => Ok(Value::list(concatenation(a, b))),
        _ => no_overload(),
    }
}

/// Sets keep what is new only; of keyed lists the right side's items take the places of those with the same keys.
fn concatenation<'a>(a: &List<'a>, b: &List<'a>) -> Vec<Value<'a>> {
    let mut all: Vec<Value<'a>> = a.iter().collect();
    let kind = match a {
        List::Json(_, Some(shape)) => shape.list_kind(),
        _ => &ListKind::Atomic,
    };
    for item in b.iter() {
        let place = match kind {
            ListKind::Atomic => None,
            ListKind::Set => all.iter().position(|one| equal(one, &item)),
            ListKind::Map(keys) => all.iter().position(|one| same_keys(keys, one, &item)),
        };
        match place {
            Some(place) => all[place] = item,
            None => all.push(item),
        }
    }
    all
}

fn same_keys(keys: &[String], a: &Value<'_>, b: &Value<'_>) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else {
        return false;
    };
    keys.iter().all(|key| {
        let name = crate::shape::escape(key).unwrap_or_default();
        match (a.field(&name), b.field(&name)) {
            (Some(a), Some(b)) => equal(&a, &b),
            (None, None) => true,
            _ => false,
        }
    })
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_sub(*b)),
        [Value::Timestamp(at), Value::Duration(by)] => timestamp(at, by.wrapping_neg()),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            duration(a.duration_since(*b).as_nanos().try_into().ok())
        }
        _ => no_overload(),
    }
}

/// An element; `None` if there is none.
fn index<'a>(args: &[Value<'a>]) -> Result<Option<Value<'a>>, EvalError> {
    match args {
        [Value::List(list), Value::Int(at)] => {
            Ok(usize::try_from(*at).ok().and_then(|at| list.get(at)))
        }
        [Value::List(list), Value::Uint(at)] => {
            Ok(usize::try_from(*at).ok().and_then(|at| list.get(at)))
        }
        [Value::List(list), Value::Double(at)] if at.fract() == 0.0 && *at >= 0.0 => {
            Ok(list.get(*at as usize))
        }
        [Value::Map(map), key] => Ok(map.get(key)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn order<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    let [a, b] = args else {
        return no_overload();
    };
    if let (Value::Double(a), Value::Double(b)) = (a, b)
        && (a.is_nan() || b.is_nan())
    {
        return Ok(Value::Bool(false));
    }
    compare(a, b)
        .map(|ordering| Value::Bool(holds(ordering)))
        .ok_or(EvalError::NoSuchOverload)
}

/// The order of two values of types that have one; numbers of any types.
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some((**a).cmp(&**b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Opaque(a), Value::Opaque(b)) => match (&**a, &**b) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => Some(a.cmp(b)),
            (Opaque::Semver(a), Opaque::Semver(b)) => Some(a.compare(b)),
            _ => None,
        },
        _ => numbers(a, b),
    }
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |v: &Value<'_>| match v {
        Value::Int(v) => Some(i128::from(*v)),
        Value::Uint(v) => Some(i128::from(*v)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => {
            let b = whole(b)?;
            double_to_whole(*a, b)
        }
        (a, Value::Double(b)) => {
            let a = whole(a)?;
            double_to_whole(*b, a).map(Ordering::reverse)
        }
        _ => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn double_to_whole(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // The cast saturates, far beyond all integers there are.
    let floor = double.floor() as i128;
    Some(floor.cmp(&whole).then(if double.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Greater
    }))
}

/// CEL's equality: of different types is false, but numbers are compared by value.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => lists_equal(a, b),
        (Value::Map(a), Value::Map(b)) => maps_equal(a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => equal(a, b),
            _ => false,
        },
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        (Value::Struct(a), Value::Struct(b)) => {
            a.name == b.name
                && a.fields.len() == b.fields.len()
                && a.fields.iter().all(|(name, value)| {
                    b.fields
                        .iter()
                        .any(|(other, same)| name == other && equal(value, same))
                })
        }
        _ => compare(a, b).is_some_and(Ordering::is_eq),
    }
}

fn lists_equal(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let kind = match (a, b) {
        (List::Json(_, Some(shape)), _) | (_, List::Json(_, Some(shape))) => shape.list_kind(),
        _ => &ListKind::Atomic,
    };
    match kind {
        ListKind::Atomic => a.iter().zip(b.iter()).all(|(a, b)| equal(&a, &b)),
        // The order of sets and of keyed lists does not count.
        _ => a
            .iter()
            .all(|one| b.iter().any(|other| equal(&one, &other))),
    }
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(key, value)| b.get(&key).is_some_and(|other| equal(&value, &other)))
}
