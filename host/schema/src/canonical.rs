//! The canonical form of a tree: empty fields dropped or shown as the Go types would when they are written out.

use serde_json::{Map, Value};

use crate::{Presence, Property, Schema, Type};

/// What Go's `omitempty` drops.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A Go zero value as it is written out: structs with the fields that are always there, slices and maps as null.
pub fn zero(schema: &Schema) -> Value {
    match schema.ty {
        Type::Any | Type::Map | Type::Array | Type::Time | Type::MicroTime | Type::Bytes => {
            Value::Null
        }
        Type::Object => {
            let fields: Map<String, Value> = schema
                .always()
                .map(|p| (String::from(&*p.name), p.zero()))
                .collect();
            Value::Object(fields)
        }
        Type::String => Value::String(String::new()),
        Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => Value::from(0),
        Type::Boolean => Value::Bool(false),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Duration => Value::String("0s".to_owned()),
    }
}

impl Schema {
    /// The fields that are written out even when nothing was given.
    pub fn always(&self) -> impl Iterator<Item = &Property> {
        self.properties
            .iter()
            .filter(|p| matches!(p.presence, Presence::Always | Presence::AlwaysNull))
    }
}

impl Property {
    /// What an absent field that is always there is written as.
    pub fn zero(&self) -> Value {
        match self.presence {
            Presence::AlwaysNull => Value::Null,
            _ => zero(&self.schema),
        }
    }
}

/// Brings a tree that was changed after decoding (status dropped, a field emptied) into the form that decoding gives:
/// fields that are always there are added, empty ones that are omitted are dropped. Types are not checked.
pub fn canonicalize(schema: &Schema, value: &mut Value) {
    match (schema.ty, value) {
        (Type::Object, Value::Object(map)) => {
            for property in schema.properties.iter() {
                match map.get_mut(&*property.name) {
                    Some(field) => {
                        canonicalize(&property.schema, field);
                        let drop = match property.presence {
                            Presence::OmitZero => is_zero(field),
                            Presence::AsGiven => field.is_null() && !property.schema.nullable,
                            Presence::Always | Presence::AlwaysNull => false,
                        };
                        if drop {
                            map.remove(&*property.name);
                        }
                    }
                    None if matches!(
                        property.presence,
                        Presence::Always | Presence::AlwaysNull
                    ) =>
                    {
                        map.insert(String::from(&*property.name), property.zero());
                    }
                    None => {}
                }
            }
        }
        (Type::Map, Value::Object(map)) => {
            if let Some(values) = schema.additional.as_ref().filter(|s| !s.ty.is_scalar()) {
                map.values_mut().for_each(|v| canonicalize(values, v));
            }
        }
        (Type::Array, Value::Array(items)) => {
            if let Some(of) = schema.items.as_ref().filter(|s| !s.ty.is_scalar()) {
                items.iter_mut().for_each(|item| canonicalize(of, item));
            }
        }
        _ => {}
    }
}

/// Fills in the schema's defaults below fields that are there. Idempotent.
pub fn apply_defaults(schema: &Schema, value: &mut Value) {
    match (schema.ty, value) {
        (Type::Object, Value::Object(map)) => {
            for property in schema.properties.iter() {
                if let Some(default) = &property.default
                    && map
                        .get(&*property.name)
                        .is_none_or(|v| v.is_null() && !property.schema.nullable)
                {
                    map.insert(String::from(&*property.name), default.clone());
                }
                if property.schema.ty.is_scalar() {
                    continue;
                }
                if let Some(field) = map.get_mut(&*property.name) {
                    apply_defaults(&property.schema, field);
                }
            }
        }
        (Type::Map, Value::Object(map)) => {
            if let Some(values) = schema.additional.as_ref().filter(|s| !s.ty.is_scalar()) {
                map.values_mut().for_each(|v| apply_defaults(values, v));
            }
        }
        (Type::Array, Value::Array(items)) => {
            if let Some(of) = schema.items.as_ref().filter(|s| !s.ty.is_scalar()) {
                items.iter_mut().for_each(|item| apply_defaults(of, item));
            }
        }
        _ => {}
    }
}

/// Drops every field that the schema does not know; what is `preserve_unknown` stays.
pub fn prune(schema: &Schema, value: &mut Value) {
    match (schema.ty, value) {
        (Type::Object, Value::Object(map)) => {
            if !schema.preserve_unknown && schema.additional.is_none() {
                map.retain(|name, _| schema.property(name).is_some());
            }
            for (name, field) in map.iter_mut() {
                if let Some(below) = schema.field(name) {
                    prune(below, field);
                }
            }
        }
        (Type::Map, Value::Object(map)) => {
            if let Some(values) = &schema.additional {
                map.values_mut().for_each(|v| prune(values, v));
            }
        }
        (Type::Array, Value::Array(items)) => {
            if let Some(of) = &schema.items {
                items.iter_mut().for_each(|item| prune(of, item));
            }
        }
        _ => {}
    }
}
