//! `find`, `findAll`, and the patterns of `matches`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::no_overload;
use crate::decl::Library;
use crate::value::{EvalError, Value};

pub(super) const LIBRARY: Library = &[
    ("string: find(string) -> string", |args| match args {
        [Value::String(text), Value::String(pattern)] => {
            let found = compiled(pattern)?.find(text).map(|m| m.as_str().to_owned());
            Ok(Value::text(found.unwrap_or_default()))
        }
        _ => no_overload(),
    }),
    (
        "string: findAll(string) -> list(string)
        string: findAll(string, int) -> list(string)",
        |args| {
            let (Some(Value::String(text)), Some(Value::String(pattern))) =
                (args.first(), args.get(1))
            else {
                return no_overload();
            };
            let most = match args.get(2) {
                Some(Value::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let pattern = compiled(pattern)?;
            let found = pattern.find_iter(text).take(most);
            Ok(Value::list(
                found.map(|m| Value::text(m.as_str())).collect(),
            ))
        },
    ),
];

/// Patterns that a thread remembers.
const MAX_KEPT: usize = 64;

thread_local! {
    static KEPT: RefCell<HashMap<String, Rc<regex::Regex>>> = RefCell::default();
}

pub(super) fn compiled(pattern: &str) -> Result<Rc<regex::Regex>, EvalError> {
    KEPT.with_borrow_mut(|kept| {
        if let Some(known) = kept.get(pattern) {
            return Ok(Rc::clone(known));
        }
        if oarlock_model::pattern::is_too_large(pattern) {
            let why = oarlock_model::pattern::TOO_LARGE;
            return Err(EvalError::new(format!(
                "error parsing regexp: {why}: `{pattern}`"
            )));
        }
        let made = regex::Regex::new(pattern)
            .map_err(|error| EvalError::new(format!("error parsing regexp: {error}")))?;
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        let made = Rc::new(made);
        kept.insert(pattern.to_owned(), Rc::clone(&made));
        Ok(made)
    })
}
