//! Which type may stand for which, and what type parameters turn out to be. By cel-go's rules.

use std::collections::HashMap;
use std::sync::Arc;

use crate::types::Type;

/// What is known of type parameters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping(HashMap<Arc<str>, Type>);

impl Mapping {
    fn find(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Param(name) => self.0.get(name),
            _ => None,
        }
    }

    fn add(&mut self, parameter: &Type, ty: Type) {
        if let Type::Param(name) = parameter {
            self.0.insert(Arc::clone(name), ty);
        }
    }

    /// The type with what is known put in; what is not stays, or becomes `dyn`.
    pub fn substitute(&self, ty: &Type, unknown_is_dyn: bool) -> Type {
        if let Some(known) = self.find(ty) {
            return self.substitute(known, unknown_is_dyn);
        }
        if unknown_is_dyn && matches!(ty, Type::Param(_)) {
            return Type::Dyn;
        }
        ty.with_parameters(|part| self.substitute(part, unknown_is_dyn))
    }

    /// Whether `inside` mentions the parameter (which would make it endless).
    fn mentions(&self, parameter: &Type, inside: &Type) -> bool {
        if parameter == inside {
            return true;
        }
        match inside {
            Type::Param(_) => self
                .find(inside)
                .is_some_and(|known| self.mentions(parameter, known)),
            other => other
                .parameters()
                .into_iter()
                .any(|part| self.mentions(parameter, part)),
        }
    }
}

/// Whether each of the first types agrees with its counterpart; if so, what that says of parameters is kept.
pub(crate) fn assignable(mapping: &mut Mapping, one: &[Type], other: &[Type]) -> bool {
    let mut trial = mapping.clone();
    let agree =
        one.len() == other.len() && one.iter().zip(other).all(|(a, b)| agrees(&mut trial, a, b));
    if agree {
        *mapping = trial;
    }
    agree
}

fn agrees(mapping: &mut Mapping, one: &Type, other: &Type) -> bool {
    if matches!(other, Type::Param(_)) {
        let (valid, known) = stands_for(mapping, one, other);
        if valid {
            return true;
        }
        if known {
            return false;
        }
    }
    if matches!(one, Type::Param(_)) {
        return stands_for(mapping, other, one).0;
    }
    if one.is_dyn_or_error() || other.is_dyn_or_error() {
        return true;
    }
    match (one, other) {
        (Type::Null, ty) | (ty, Type::Null) => matches!(
            ty,
            Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp
        ),
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(_), Type::List(_))
        | (Type::Map(_), Type::Map(_))
        | (Type::Opaque(..), Type::Opaque(..)) => {
            let (a, b) = (one.parameters(), other.parameters());
            one.runtime_name() == other.runtime_name()
                && a.len() == b.len()
                && a.into_iter().zip(b).all(|(a, b)| agrees(mapping, a, b))
        }
        _ => one == other,
    }
}

/// Whether a type may be what a parameter stands for, and whether something was known of the parameter.
fn stands_for(mapping: &mut Mapping, ty: &Type, parameter: &Type) -> (bool, bool) {
    if ty == parameter {
        return (true, true);
    }
    if let Some(known) = mapping.find(parameter).cloned() {
        if *ty == known {
            return (true, true);
        }
        if agrees(mapping, ty, &known) {
            let general = most_general(ty, &known);
            if !mapping.mentions(parameter, &general) {
                mapping.add(parameter, general);
            }
            return (true, true);
        }
        return (false, true);
    }
    if mapping.mentions(parameter, ty) {
        return (false, false);
    }
    mapping.add(parameter, ty.clone());
    (true, false)
}

pub(crate) fn most_general(one: &Type, other: &Type) -> Type {
    if is_no_more_specific(one, other) {
        one.clone()
    } else {
        other.clone()
    }
}

fn is_no_more_specific(one: &Type, other: &Type) -> bool {
    if matches!(one, Type::Dyn | Type::Param(_)) {
        return true;
    }
    if matches!(other, Type::Dyn | Type::Param(_)) {
        return false;
    }
    match (one, other) {
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(_), Type::List(_))
        | (Type::Map(_), Type::Map(_))
        | (Type::Opaque(..), Type::Opaque(..)) => {
            let (a, b) = (one.parameters(), other.parameters());
            one.runtime_name() == other.runtime_name()
                && a.len() == b.len()
                && a.into_iter().zip(b).all(|(a, b)| is_no_more_specific(a, b))
        }
        _ => one == other,
    }
}
