//! Quantities: `quantity("1Gi").isGreaterThan(quantity("1Mi"))`.

use oarlock_model::Quantity;

use super::{Opaque, Outcome, no_overload, opaque};
use crate::decl::Library;
use crate::value::{EvalError, Value};

pub(super) const LIBRARY: Library = &[
    ("isQuantity(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        _ => no_overload(),
    }),
    (
        "quantity(string) -> kubernetes.Quantity",
        |args| match args {
            [Value::String(text)] => match text.parse() {
                Ok(quantity) => Ok(opaque(Opaque::Quantity(quantity))),
                Err(error) => Err(EvalError::new(error.to_string())),
            },
            _ => no_overload(),
        },
    ),
    ("kubernetes.Quantity: sign() -> int", |args| {
        let quantity = of(args.first())?;
        Ok(Value::Int(if quantity.is_negative() {
            -1
        } else {
            i64::from(!quantity.is_zero())
        }))
    }),
    ("kubernetes.Quantity: isInteger() -> bool", |args| {
        Ok(Value::Bool(of(args.first())?.is_integer()))
    }),
    ("kubernetes.Quantity: asInteger() -> int", |args| {
        let quantity = of(args.first())?;
        if quantity.is_integer() {
            Ok(Value::Int(quantity.value()))
        } else {
            Err(EvalError::new("cannot convert value to integer"))
        }
    }),
    (
        "kubernetes.Quantity: asApproximateFloat() -> double",
        |args| {
            let quantity = of(args.first())?;
            let rest = quantity.minus(Quantity::from_units(quantity.value()));
            Ok(Value::Double(
                quantity.value() as f64 + rest.milli_value() as f64 / 1000.0,
            ))
        },
    ),
    (
        "kubernetes.Quantity: add(kubernetes.Quantity) -> kubernetes.Quantity
        kubernetes.Quantity: add(int) -> kubernetes.Quantity",
        |args| combined(args, Quantity::plus),
    ),
    (
        "kubernetes.Quantity: sub(kubernetes.Quantity) -> kubernetes.Quantity
        kubernetes.Quantity: sub(int) -> kubernetes.Quantity",
        |args| combined(args, Quantity::minus),
    ),
    (
        "kubernetes.Quantity: isGreaterThan(kubernetes.Quantity) -> bool",
        |args| Ok(Value::Bool(of(args.first())? > of(args.get(1))?)),
    ),
    (
        "kubernetes.Quantity: isLessThan(kubernetes.Quantity) -> bool",
        |args| Ok(Value::Bool(of(args.first())? < of(args.get(1))?)),
    ),
    (
        "kubernetes.Quantity: compareTo(kubernetes.Quantity) -> int",
        |args| Ok(Value::Int(of(args.first())?.cmp(&of(args.get(1))?) as i64)),
    ),
];

fn of(value: Option<&Value<'_>>) -> Result<Quantity, EvalError> {
    match value {
        Some(Value::Opaque(value)) => match &**value {
            Opaque::Quantity(quantity) => Ok(*quantity),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn combined<'a>(args: &[Value<'a>], by: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    let other = match args.get(1) {
        Some(Value::Int(units)) => Quantity::from_units(*units),
        other => of(other)?,
    };
    Ok(opaque(Opaque::Quantity(by(of(args.first())?, other))))
}
