//! Where in an object a rule looks. A path is written out only when something is wrong there.

use std::fmt;

use oarlock_model::Cause;
use serde_json::{Map, Value};

pub type Causes = Vec<Cause>;

#[derive(Clone, Copy)]
enum Part<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A field path such as `spec.containers[0].resources.limits[cpu]`.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

impl<'a> Path<'a> {
    pub fn new(field: &'a str) -> Self {
        Self {
            parent: None,
            part: Part::Field(field),
        }
    }

    pub fn field(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            part: Part::Field(name),
        }
    }

    pub fn index(&'a self, at: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            part: Part::Index(at),
        }
    }

    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            part: Part::Key(key),
        }
    }

    pub fn required(&self, out: &mut Causes, detail: &str) {
        out.push(Cause::required(self.to_string(), detail));
    }

    pub fn invalid(&self, out: &mut Causes, value: &Value, detail: &str) {
        out.push(Cause::invalid(self.to_string(), value, detail));
    }

    pub fn invalid_text(&self, out: &mut Causes, value: &str, detail: &str) {
        self.invalid(out, &Value::String(value.to_owned()), detail);
    }

    /// One cause for each error text.
    pub fn all_invalid(&self, out: &mut Causes, value: &str, details: Vec<String>) {
        for detail in details {
            self.invalid_text(out, value, &detail);
        }
    }

    pub fn forbidden(&self, out: &mut Causes, detail: &str) {
        out.push(Cause::forbidden(self.to_string(), detail));
    }

    pub fn unsupported(&self, out: &mut Causes, value: &str, supported: &[&str]) {
        out.push(Cause::not_supported(
            self.to_string(),
            &Value::String(value.to_owned()),
            supported,
        ));
    }

    pub fn duplicate(&self, out: &mut Causes, value: &str) {
        out.push(Cause::duplicate(
            self.to_string(),
            &Value::String(value.to_owned()),
        ));
    }

    pub fn not_found(&self, out: &mut Causes, value: &str) {
        out.push(Cause::not_found(
            self.to_string(),
            &Value::String(value.to_owned()),
        ));
    }

    /// The text must be one of these, which are printed in this order.
    pub fn one_of(&self, out: &mut Causes, value: &str, supported: &[&str]) -> bool {
        let fine = supported.contains(&value);
        if !fine {
            self.unsupported(out, value, supported);
        }
        fine
    }

    /// The number, if there is one, must not be negative.
    pub fn not_negative(&self, out: &mut Causes, value: Option<&Value>) {
        self.at_least(out, value, 0);
    }

    pub fn at_least(&self, out: &mut Causes, value: Option<&Value>, least: i64) {
        if let Some(number) = value.and_then(Value::as_i64).filter(|n| *n < least) {
            self.invalid(
                out,
                &Value::from(number),
                &format!("must be greater than or equal to {least}"),
            );
        }
    }

    /// The number, if there is one, must lie between these, both included.
    pub fn between(&self, out: &mut Causes, value: Option<&Value>, least: i64, most: i64) {
        if let Some(number) = value
            .and_then(Value::as_i64)
            .filter(|n| !(least..=most).contains(n))
        {
            self.invalid(
                out,
                &Value::from(number),
                &format!("must be between {least} and {most}, inclusive"),
            );
        }
    }

    /// Immutable: `new` must equal `old`.
    pub fn same(&self, out: &mut Causes, new: Option<&Value>, old: Option<&Value>) {
        if new != old {
            self.invalid(out, new.unwrap_or(&Value::Null), "field is immutable");
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.part {
            Part::Field(name) if self.parent.is_none() => f.write_str(name),
            Part::Field(name) => write!(f, ".{name}"),
            Part::Index(at) => write!(f, "[{at}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The text of a field; empty if there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

/// A field that is there and not null.
pub fn some<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|v| !v.is_null())
}

pub fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The items of a list with their places.
pub fn items<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    list(object, field).iter().enumerate()
}

pub fn fields<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}

pub fn flag(object: &Value, field: &str) -> bool {
    object.get(field).and_then(Value::as_bool).unwrap_or(false)
}
