//! Functions of lists: Kubernetes' own (`isSorted`, `sum`, `min`, …) and CEL's extension (`slice`, `sort`, `flatten`, …).

use std::cmp::Ordering;

use super::operators::{compare, equal};
use super::{Outcome, no_overload};
use crate::decl::Library;
use crate::value::{EvalError, List, Value};

macro_rules! of_each {
    ($result:literal, $name:literal, $($ty:literal),+) => {
        concat!($("list(", $ty, "): ", $name, "() -> ", $result, "\n"),+)
    };
}
macro_rules! of_same {
    ($name:literal, $($ty:literal),+) => {
        concat!($("list(", $ty, "): ", $name, "() -> ", $ty, "\n"),+)
    };
}
macro_rules! of_list {
    ($name:literal, $($ty:literal),+) => {
        concat!($("list(", $ty, "): ", $name, "() -> list(", $ty, ")\n"),+)
    };
}

/// Elements that `lists.range` makes at most.
const MAX_RANGE: i64 = 1_000_000;

pub(super) const LIBRARY: Library = &[
    (
        of_each!(
            "bool",
            "isSorted",
            "int",
            "uint",
            "double",
            "bool",
            "duration",
            "timestamp",
            "string",
            "bytes"
        ),
        |args| {
            let list = list(args)?;
            for at in 1..list.len() {
                if ordering(&list[at - 1], &list[at])? == Ordering::Greater {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        },
    ),
    (of_same!("sum", "int", "uint", "double", "duration"), sum),
    (
        of_same!(
            "min",
            "int",
            "uint",
            "double",
            "bool",
            "duration",
            "timestamp",
            "string",
            "bytes"
        ),
        |args| extreme(args, "min", Ordering::Less),
    ),
    (
        of_same!(
            "max",
            "int",
            "uint",
            "double",
            "bool",
            "duration",
            "timestamp",
            "string",
            "bytes"
        ),
        |args| extreme(args, "max", Ordering::Greater),
    ),
    ("list(A): indexOf(A) -> int", |args| match args {
        [Value::List(list), wanted] => Ok(position(list.iter().position(|v| equal(&v, wanted)))),
        _ => no_overload(),
    }),
    ("list(A): lastIndexOf(A) -> int", |args| match args {
        [Value::List(list), wanted] => {
            let found = list.iter().enumerate().filter(|(_, v)| equal(v, wanted));
            Ok(position(found.last().map(|(at, _)| at)))
        }
        _ => no_overload(),
    }),
    ("list(A): slice(int, int) -> list(A)", |args| match args {
        [Value::List(list), Value::Int(from), Value::Int(to)] => slice(list, *from, *to),
        _ => no_overload(),
    }),
    (
        "list(list(A)): flatten() -> list(A)
        list(dyn): flatten(int) -> list(dyn)",
        |args| match args {
            [Value::List(list)] => Ok(Value::list(flattened(list, 1))),
            [Value::List(_), Value::Int(depth)] if *depth < 0 => {
                Err(EvalError::new("level must be non-negative"))
            }
            [Value::List(list), Value::Int(depth)] => Ok(Value::list(flattened(list, *depth))),
            _ => no_overload(),
        },
    ),
    ("lists.range(int) -> list(int)", |args| match args {
        [Value::Int(n)] if *n > MAX_RANGE => Err(EvalError::CostExceeded),
        [Value::Int(n)] => Ok(Value::list((0..*n).map(Value::Int).collect())),
        _ => no_overload(),
    }),
    ("list(A): distinct() -> list(A)", |args| {
        let mut kept: Vec<Value<'_>> = Vec::new();
        for value in list(args)? {
            if !kept.iter().any(|one| equal(one, &value)) {
                kept.push(value);
            }
        }
        Ok(Value::list(kept))
    }),
    (
        of_list!(
            "sort",
            "int",
            "uint",
            "double",
            "bool",
            "duration",
            "timestamp",
            "string",
            "bytes"
        ),
        |args| {
            let list = list(args)?;
            sorted(list.iter().cloned().zip(list.iter().cloned()).collect())
        },
    ),
    (
        "list(A): @sortByAssociatedKeys(list(B)) -> list(A)",
        |args| match args {
            [Value::List(list), Value::List(keys)] => {
                sorted(keys.iter().zip(list.iter()).collect())
            }
            _ => no_overload(),
        },
    ),
    ("list(A): reverse() -> list(A)", |args| {
        let mut list = list(args)?;
        list.reverse();
        Ok(Value::list(list))
    }),
    ("list(A): first() -> optional(A)", |args| {
        Ok(Value::Optional(
            list(args)?.into_iter().next().map(Into::into),
        ))
    }),
    ("list(A): last() -> optional(A)", |args| {
        Ok(Value::Optional(list(args)?.pop().map(Into::into)))
    }),
];

fn list<'a>(args: &[Value<'a>]) -> Result<Vec<Value<'a>>, EvalError> {
    match args {
        [Value::List(list)] => Ok(list.iter().collect()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn position<'a>(found: Option<usize>) -> Value<'a> {
    Value::Int(found.map_or(-1, |at| at as i64))
}

fn ordering(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    compare(a, b).ok_or(EvalError::NoSuchOverload)
}

fn sum<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut items = list(args)?.into_iter();
    let Some(mut total) = items.next() else {
        return Ok(Value::Int(0));
    };
    for item in items {
        total = match (&total, &item) {
            (Value::Int(a), Value::Int(b)) => super::operators::int(a.checked_add(*b))?,
            (Value::Uint(a), Value::Uint(b)) => super::operators::uint(a.checked_add(*b))?,
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => Value::Duration(
                a.checked_add(*b)
                    .ok_or_else(|| EvalError::new("duration overflow"))?,
            ),
            _ => return no_overload(),
        };
    }
    Ok(total)
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let mut items = list(args)?.into_iter();
    let Some(mut best) = items.next() else {
        return Err(EvalError::new(format!("{name} called on empty list")));
    };
    for item in items {
        if ordering(&item, &best)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Outcome<'a> {
    let wrong = |why: String| Err(EvalError::new(why));
    let (Ok(start), Ok(end)) = (usize::try_from(from), usize::try_from(to)) else {
        return wrong(format!(
            "cannot slice({from}, {to}), negative indexes not supported"
        ));
    };
    if start > end {
        return wrong(format!(
            "cannot slice({from}, {to}), start index must be less than or equal to end index"
        ));
    }
    if end > list.len() {
        let length = list.len();
        return wrong(format!(
            "cannot slice({from}, {to}), list is length {length}"
        ));
    }
    Ok(Value::list(
        (start..end).filter_map(|at| list.get(at)).collect(),
    ))
}

fn flattened<'a>(list: &List<'a>, depth: i64) -> Vec<Value<'a>> {
    let mut all = Vec::new();
    for item in list.iter() {
        match item {
            Value::List(inner) if depth > 0 => all.extend(flattened(&inner, depth - 1)),
            item => all.push(item),
        }
    }
    all
}

/// Values in the order of their keys.
fn sorted<'a>(mut pairs: Vec<(Value<'a>, Value<'a>)>) -> Outcome<'a> {
    if let Some((first, _)) = pairs.first()
        && pairs.iter().any(|(key, _)| compare(key, first).is_none())
    {
        return Err(EvalError::new("list elements must have the same type"));
    }
    pairs.sort_by(|(a, _), (b, _)| compare(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(
        pairs.into_iter().map(|(_, value)| value).collect(),
    ))
}
