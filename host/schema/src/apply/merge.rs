//! Merging an applied configuration into the live object, and taking away what is no longer applied.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::set::{SELF, Set, is_member, node, put, subtract, union};
use super::shape::{
    Shape, field_element, field_schema, is_empty, item_elements, shape, shape_items,
};
use super::typed::field_set;
use crate::types::Schema;

/// `live` with `config` laid over it: the configuration's leaves win, its order of list items holds.
pub fn merge(schema: Option<&Schema>, live: Value, config: &Value) -> Value {
    let kind = shape(schema, config);
    match (kind, live, config) {
        (_, live, config) if is_empty(&live) && is_empty(config) => config.clone(),
        (Shape::Fields(_) | Shape::Untyped, Value::Object(mut map), Value::Object(over)) => {
            for (name, value) in over {
                let merged = match map.remove(name) {
                    Some(old) => merge(field_schema(schema, name), old, value),
                    None => value.clone(),
                };
                map.insert(name.clone(), merged);
            }
            Value::Object(map)
        }
        (Shape::Keyed(_) | Shape::Set, Value::Array(old), Value::Array(over)) => {
            Value::Array(merge_items(kind, old, over))
        }
        // A null for something with parts says nothing about the parts.
        (Shape::Fields(_) | Shape::Keyed(_) | Shape::Set, live, Value::Null) => live,
        (_, _, config) => config.clone(),
    }
}

/// Live items keep their place between the applied ones; applied items come in the configuration's order.
fn merge_items(kind: Shape<'_>, live: Vec<Value>, config: &[Value]) -> Vec<Value> {
    let items = shape_items(kind);
    let live_names = item_elements(kind, &live);
    let config_names = item_elements(kind, config);
    let in_config: HashSet<&str> = config_names.iter().map(String::as_str).collect();
    let in_live: HashSet<&str> = live_names.iter().map(String::as_str).collect();
    let mut shared = config_names
        .iter()
        .filter(|n| in_live.contains(n.as_str()))
        .peekable();
    let mut merged: HashSet<&str> = HashSet::new();
    let mut live: Vec<Option<Value>> = live.into_iter().map(Some).collect();
    let mut result = Vec::with_capacity(live.len().max(config.len()));
    let (mut l, mut c) = (0, 0);
    let take = |at: usize, live: &mut Vec<Option<Value>>| {
        let name = &config_names[at];
        let old = live_names
            .iter()
            .position(|n| n == name)
            .and_then(|i| live[i].take());
        match old {
            Some(old) => merge(items, old, &config[at]),
            None => config[at].clone(),
        }
    };
    while l < live_names.len() || c < config_names.len() {
        if l < live_names.len() && c < config_names.len() {
            let name = &live_names[l];
            if *name == config_names[c] {
                merged.insert(name);
                result.push(take(c, &mut live));
                l += 1;
                c += 1;
                shared.next();
                continue;
            }
            if in_config.contains(name.as_str()) && shared.peek().is_some_and(|next| *next != name)
            {
                l += 1;
                continue;
            }
        }
        if let Some(name) = live_names.get(l) {
            if !in_config.contains(name.as_str()) {
                result.extend(live[l].take());
                l += 1;
                continue;
            }
            if merged.contains(name.as_str()) {
                l += 1;
            }
        }
        if c < config_names.len() {
            let name = &config_names[c];
            merged.insert(name);
            result.push(take(c, &mut live));
            c += 1;
            shared.next_if(|next| *next == name);
        }
    }
    result
}

/// What is left of `merged` when the manager that owned `last` now owns `owned_now` (with `others` owned by anyone else):
/// items of `last` that nobody owns any more go, with what is in them unless somebody owns that.
pub fn prune(schema: &Schema, merged: Value, last: &Set, owned: &Set) -> Value {
    let last = with_named_fields(Some(schema), last);
    let owned = with_named_fields(Some(schema), owned);
    let all = with_named_fields(Some(schema), &field_set(schema, &merged));
    // Everything that goes with `last`, but for what anyone owns.
    let first = remove(Some(schema), merged.clone(), &last);
    let mut gone = all.clone();
    subtract(
        &mut gone,
        &with_named_fields(Some(schema), &field_set(schema, &first)),
    );
    subtract(&mut gone, &owned);
    let second = remove(Some(schema), merged.clone(), &gone);
    // Of that, only what was in `last` itself: fields that nobody ever owned stay with their parents.
    let mut dangling = all;
    subtract(
        &mut dangling,
        &with_named_fields(Some(schema), &field_set(schema, &second)),
    );
    remove(
        Some(schema),
        merged,
        &super::set::intersection(&dangling, &last),
    )
}

/// Adds the struct fields on the way to each member.
fn with_named_fields(schema: Option<&Schema>, set: &Set) -> Set {
    let mut result = Set::new();
    for (element, below) in set {
        let (false, Value::Object(below)) = (element == SELF, below) else {
            continue;
        };
        let (named, next) = match (element.strip_prefix("f:"), schema) {
            (Some(name), Some(schema)) => (
                schema.property(name).is_some(),
                field_schema(Some(schema), name),
            ),
            (None, Some(schema)) => (false, schema.items.as_deref()),
            _ => (false, None),
        };
        put(
            &mut result,
            element.clone(),
            node(named || is_member(below), with_named_fields(next, below)),
        );
    }
    result
}

/// Removes the members of `set`, each with all below it. What is emptied by that becomes null.
fn remove(schema: Option<&Schema>, value: Value, set: &Set) -> Value {
    let kind = shape(schema, &value);
    match (kind, value) {
        (Shape::Fields(_) | Shape::Untyped, Value::Object(map)) => {
            let mut kept = Map::new();
            for (name, below) in map {
                match set.get(&field_element(&name)).and_then(Value::as_object) {
                    None => {
                        kept.insert(name, below);
                    }
                    Some(node) if is_member(node) => {}
                    Some(node) => {
                        let field = field_schema(schema, &name);
                        kept.insert(name, remove(field, below, node));
                    }
                }
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Object(kept)
            }
        }
        (Shape::Keyed(_) | Shape::Set, Value::Array(items)) => {
            let names = item_elements(kind, &items);
            let mut kept = Vec::with_capacity(items.len());
            for (name, item) in names.into_iter().zip(items) {
                match set.get(&name).and_then(Value::as_object) {
                    None => kept.push(item),
                    Some(node) if is_member(node) => {}
                    Some(node) => kept.push(remove(shape_items(kind), item, node)),
                }
            }
            if kept.is_empty() {
                Value::Null
            } else {
                Value::Array(kept)
            }
        }
        // Reached only with something to remove below a leaf, which has nothing below it: it goes as a whole.
        _ => Value::Null,
    }
}

/// Nulls that merging and removing leave behind mean "absent"; in maps of texts they mean the empty text.
pub fn drop_nulls(schema: Option<&Schema>, value: &mut Value) {
    use crate::types::Type;
    match value {
        Value::Object(map) => {
            let texts = schema
                .filter(|s| s.ty == Type::Map)
                .and_then(|s| s.additional.as_ref());
            let empty_text = texts.is_some_and(|s| s.ty == Type::String && !s.nullable);
            if empty_text {
                for value in map.values_mut().filter(|v| v.is_null()) {
                    *value = Value::String(String::new());
                }
            } else {
                map.retain(|name, v| {
                    !v.is_null() || field_schema(schema, name).is_some_and(|s| s.nullable)
                });
            }
            for (name, below) in map
                .iter_mut()
                .filter(|(_, v)| v.is_object() || v.is_array())
            {
                drop_nulls(field_schema(schema, name), below);
            }
        }
        Value::Array(items) => {
            let below = schema.and_then(|s| s.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(below, item));
        }
        _ => {}
    }
}

/// The union of several sets.
pub fn union_all<'a>(sets: impl Iterator<Item = &'a Set>) -> Set {
    let mut all = Set::new();
    for set in sets {
        union(&mut all, set);
    }
    all
}
