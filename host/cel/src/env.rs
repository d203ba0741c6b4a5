//! What an expression may name: variables with their types, and types by name.

use std::collections::BTreeMap;

use crate::types::{Fields, ObjectType, Type};

/// Declarations that an expression is checked against. Functions are the same for all: every library of Kubernetes.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<String, Type>,
    types: BTreeMap<String, Type>,
}

impl Env {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with_variable(mut self, name: &str, ty: Type) -> Self {
        self.variables.insert(name.to_owned(), ty);
        self
    }

    #[must_use]
    pub fn without_variable(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// Makes a type with fields known by name, so that expressions can build it (`JSONPatch{op: …}`).
    #[must_use]
    pub fn with_type(mut self, ty: Type) -> Self {
        self.types.insert(ty.runtime_name().to_owned(), ty);
        self
    }

    /// A field more for a variable that is an object with known fields (`variables`).
    pub fn add_field(&mut self, variable: &str, field: &str, ty: Type) {
        let Some(Type::Object(object)) = self.variables.get(variable) else {
            return;
        };
        let Fields::Known(known) = &object.fields else {
            return;
        };
        let mut known = known.clone();
        known.insert(field.to_owned(), ty);
        let name = object.name.clone();
        let fields = Fields::Known(known);
        let object = Type::Object(ObjectType { name, fields }.into());
        self.variables.insert(variable.to_owned(), object);
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    pub(crate) fn named_type(&self, name: &str) -> Option<Type> {
        let ty = match name {
            "null_type" => Type::Null,
            "bool" => Type::Bool,
            "int" => Type::Int,
            "uint" => Type::Uint,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "google.protobuf.Duration" => Type::Duration,
            "type" => Type::Type(None),
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "dyn" => Type::Dyn,
            "optional_type" => Type::optional(Type::Dyn),
            "net.IP"
            | "net.CIDR"
            | "kubernetes.URL"
            | "kubernetes.Quantity"
            | "kubernetes.Semver"
            | "kubernetes.NamedFormat" => Type::opaque(name),
            _ => {
                if let Some(ty) = self.types.get(name) {
                    return Some(ty.clone());
                }
                // `Object.metadata` is there if `Object` is, and open.
                let (root, _) = name.split_once('.')?;
                return match self.types.get(root) {
                    Some(Type::Object(object)) if matches!(object.fields, Fields::Open) => {
                        Some(Type::open_object(name))
                    }
                    _ => None,
                };
            }
        };
        Some(ty)
    }
}
