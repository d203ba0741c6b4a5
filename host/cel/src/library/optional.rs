//! Optional values: `optional.of(x)`, `a.?b`, `a[?0]`, `x.orValue(y)`.

use super::{Outcome, no_overload, operators::equal};
use crate::decl::Library;
use crate::eval::select_field;
use crate::value::{EvalError, Value};

pub(super) const LIBRARY: Library = &[
    ("optional.of(A) -> optional(A)", |args| {
        Ok(Value::some(args[0].clone()))
    }),
    ("optional.ofNonZeroValue(A) -> optional(A)", |args| {
        if is_zero(&args[0]) {
            return Ok(Value::Optional(None));
        }
        Ok(Value::some(args[0].clone()))
    }),
    ("optional.none() -> optional(A)", |_| {
        Ok(Value::Optional(None))
    }),
    ("optional(A): value() -> A", |args| match args {
        [Value::Optional(Some(inside))] => Ok((**inside).clone()),
        [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
        _ => no_overload(),
    }),
    ("optional(A): hasValue() -> bool", |args| match args {
        [Value::Optional(inside)] => Ok(Value::Bool(inside.is_some())),
        _ => no_overload(),
    }),
    (
        "optional(A): or(optional(A)) -> optional(A)",
        |args| match args {
            [Value::Optional(None), other] => Ok(other.clone()),
            [Value::Optional(_), _] => Ok(args[0].clone()),
            _ => no_overload(),
        },
    ),
    ("optional(A): orValue(A) -> A", |args| match args {
        [Value::Optional(None), other] => Ok(other.clone()),
        [Value::Optional(Some(inside)), _] => Ok((**inside).clone()),
        _ => no_overload(),
    }),
    ("_?._(dyn, string) -> optional(dyn)", select),
    (
        "optional.unwrap(list(optional(A))) -> list(A)\nlist(optional(A)): unwrapOpt() -> list(A)",
        |args| {
            let [Value::List(list)] = args else {
                return no_overload();
            };
            let mut kept = Vec::new();
            for item in list.iter() {
                match item {
                    Value::Optional(inside) => kept.extend(inside.map(|v| (*v).clone())),
                    _ => return no_overload(),
                }
            }
            Ok(Value::list(kept))
        },
    ),
];

/// `operand.?field`.
pub(crate) fn select<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [operand, Value::String(field)] => Ok(Value::Optional(
            select_field(operand, field)?.map(Into::into),
        )),
        _ => no_overload(),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Struct(made) => made.fields.is_empty(),
        Value::Bool(v) => !v,
        Value::Duration(v) => *v == 0,
        other => equal(other, &Value::Int(0)),
    }
}
