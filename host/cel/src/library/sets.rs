//! `sets.contains`, `sets.equivalent`, `sets.intersects`.

use super::{Outcome, no_overload, operators::equal};
use crate::decl::Library;
use crate::value::{List, Value};

pub(super) const LIBRARY: Library = &[
    ("sets.contains(list(A), list(A)) -> bool", |args| {
        holds(args, contains)
    }),
    ("sets.equivalent(list(A), list(A)) -> bool", |args| {
        holds(args, |a, b| contains(a, b) && contains(b, a))
    }),
    ("sets.intersects(list(A), list(A)) -> bool", |args| {
        holds(args, |a, b| b.iter().any(|one| has(a, &one)))
    }),
];

fn has(list: &List<'_>, wanted: &Value<'_>) -> bool {
    list.iter().any(|one| equal(&one, wanted))
}

fn contains(a: &List<'_>, b: &List<'_>) -> bool {
    b.iter().all(|one| has(a, &one))
}

fn holds<'a>(args: &[Value<'a>], test: fn(&List<'_>, &List<'_>) -> bool) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(test(a, b))),
        _ => no_overload(),
    }
}
