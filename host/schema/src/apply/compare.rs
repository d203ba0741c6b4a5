//! What differs between two versions of an object, as field sets. Equal parts cost one comparison and no allocation.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::set::{Set, node, put};
use super::shape::{
    Shape, field_element, field_schema, is_empty, item_elements, shape, shape_items,
};
use crate::types::{Presence, Schema, Type};

/// The older side of a comparison.
#[derive(Clone, Copy)]
pub enum Old<'a> {
    Absent,
    /// What a new, empty object of this type has here: the fields that are always present, with their zero values.
    Zero,
    Is(&'a Value),
}

#[derive(Debug, Default)]
pub struct Diff {
    pub added: Set,
    pub removed: Set,
    pub modified: Set,
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.modified.is_empty()
    }
}

/// The three nodes of one value; `None`: nothing in it or below it.
#[derive(Default)]
struct Nodes {
    added: Option<Set>,
    removed: Option<Set>,
    modified: Option<Set>,
}

/// Where in an object: some fields of the envelope belong to the server and are never owned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Root,
    Metadata,
    Below,
}

impl Level {
    fn below(self, name: &str) -> Self {
        if self == Self::Root && name == "metadata" {
            Self::Metadata
        } else {
            Self::Below
        }
    }

    /// True for fields that nobody owns.
    fn skips(self, name: &str) -> bool {
        match self {
            Self::Below => false,
            Self::Root => matches!(name, "apiVersion" | "kind"),
            Self::Metadata => super::UNOWNED_METADATA.contains(&name),
        }
    }
}

/// Compares two objects; what nobody can own is left out.
pub fn compare(schema: &Schema, old: Old<'_>, new: &Value) -> Diff {
    let nodes = both(Some(schema), old, new, Level::Root);
    Diff {
        added: nodes.added.unwrap_or_default(),
        removed: nodes.removed.unwrap_or_default(),
        modified: nodes.modified.unwrap_or_default(),
    }
}

/// The node of a value that is there on one side only: itself and all its parts.
pub fn whole(schema: Option<&Schema>, value: &Value) -> Set {
    let kind = shape(schema, value);
    let mut children = Set::new();
    match (kind, value) {
        (Shape::Leaf, _) => {}
        (Shape::Fields(_) | Shape::Untyped, Value::Object(map)) => {
            for (name, below) in map {
                let element = field_element(name);
                children.insert(
                    element,
                    Value::Object(whole(field_schema(schema, name), below)),
                );
            }
        }
        (_, Value::Array(items)) => {
            let elements = item_elements(kind, items);
            for (element, item) in elements.into_iter().zip(items) {
                // Of items that are named alike no one can say whose what is in them is.
                let below = if children.contains_key(&element) {
                    Set::new()
                } else {
                    whole(shape_items(kind), item)
                };
                children.insert(element, Value::Object(below));
            }
        }
        _ => {}
    }
    node(true, children).unwrap_or_default()
}

fn leaf_modified(differs: bool) -> Nodes {
    Nodes {
        modified: differs.then(Set::new),
        ..Nodes::default()
    }
}

fn both(schema: Option<&Schema>, old: Old<'_>, new: &Value, level: Level) -> Nodes {
    match old {
        Old::Absent => Nodes {
            added: Some(whole(schema, new)),
            ..Nodes::default()
        },
        Old::Zero => from_zero(schema, new, level),
        Old::Is(old) => versions(schema, old, new, level),
    }
}

fn from_zero(schema: Option<&Schema>, new: &Value, level: Level) -> Nodes {
    match (shape(schema, new), new) {
        (Shape::Fields(fields), Value::Object(map))
            if fields.ty == Type::Object && !map.is_empty() =>
        {
            let mut nodes = Children::default();
            for (name, value) in map.iter().filter(|(name, _)| !level.skips(name)) {
                let below = level.below(name);
                let property = fields.property(name);
                let always = property
                    .is_some_and(|p| matches!(p.presence, Presence::Always | Presence::AlwaysNull))
                    || below == Level::Metadata;
                let old = if always { Old::Zero } else { Old::Absent };
                nodes.put(
                    field_element(name),
                    both(field_schema(schema, name), old, value, below),
                );
            }
            nodes.into_nodes()
        }
        // An absent list or map reads as null, which is there: only its parts are new.
        (Shape::Fields(_) | Shape::Keyed(_) | Shape::Set, value) if !is_empty(value) => {
            let mut children = whole(schema, value);
            children.remove(super::set::SELF);
            Nodes {
                added: node(false, children),
                ..Nodes::default()
            }
        }
        (_, value) => leaf_modified(!is_zero(schema, value)),
    }
}

/// True for what a new object has here: an empty list or map is something else than an absent one.
fn is_zero(schema: Option<&Schema>, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0",
        Value::Array(_) => false,
        Value::Object(map) => map.is_empty() && schema.is_none_or(|s| s.ty == Type::Object),
    }
}

fn versions(schema: Option<&Schema>, old: &Value, new: &Value, level: Level) -> Nodes {
    if is_empty(old) && is_empty(new) {
        return leaf_modified(old != new);
    }
    let kind = shape(schema, if new.is_null() { old } else { new });
    match (kind, old, new) {
        (Shape::Leaf, _, _) => leaf_modified(old != new),
        (Shape::Fields(_) | Shape::Untyped, Value::Object(old), Value::Object(new)) => {
            maps(schema, old, new, level)
        }
        (Shape::Keyed(_) | Shape::Set, Value::Array(old), Value::Array(new)) => {
            if old == new {
                Nodes::default()
            } else {
                lists(kind, old, new)
            }
        }
        // Null against something with parts: the parts come or go, the field itself stays.
        (_, Value::Null, there) => {
            let mut children = whole(schema, there);
            children.remove(super::set::SELF);
            Nodes {
                added: node(false, children),
                ..Nodes::default()
            }
        }
        (_, there, Value::Null) => {
            let mut children = whole(schema, there);
            children.remove(super::set::SELF);
            Nodes {
                removed: node(false, children),
                ..Nodes::default()
            }
        }
        _ => leaf_modified(old != new),
    }
}

#[derive(Default)]
struct Children {
    added: Set,
    removed: Set,
    modified: Set,
}

impl Children {
    fn put(&mut self, element: String, nodes: Nodes) {
        let Nodes {
            added,
            removed,
            modified,
        } = nodes;
        let present = [&added, &removed, &modified]
            .into_iter()
            .filter(|n| n.is_some())
            .count();
        if present == 0 {
            return;
        }
        // Nearly always one of the three: then the name is moved, not copied.
        if present == 1 {
            if added.is_some() {
                put(&mut self.added, element, added);
            } else if removed.is_some() {
                put(&mut self.removed, element, removed);
            } else {
                put(&mut self.modified, element, modified);
            }
            return;
        }
        put(&mut self.added, element.clone(), added);
        put(&mut self.removed, element.clone(), removed);
        put(&mut self.modified, element, modified);
    }

    fn into_nodes(self) -> Nodes {
        Nodes {
            added: node(false, self.added),
            removed: node(false, self.removed),
            modified: node(false, self.modified),
        }
    }
}

fn is_scalar(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn maps(
    schema: Option<&Schema>,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    level: Level,
) -> Nodes {
    let mut nodes = Children::default();
    let owned = |(name, _): &(&String, &Value)| !level.skips(name);
    let mut olds = old.iter().filter(owned).peekable();
    for (name, value) in new.iter().filter(owned) {
        while let Some((gone, was)) = olds.next_if(|(n, _)| *n < name) {
            put(
                &mut nodes.removed,
                field_element(gone),
                Some(whole(field_schema(schema, gone), was)),
            );
        }
        match olds.next_if(|(n, _)| *n == name) {
            Some((_, was)) if is_scalar(was) && was == value => {}
            Some((_, was)) => {
                let below = versions(field_schema(schema, name), was, value, level.below(name));
                if below.added.is_some() || below.removed.is_some() || below.modified.is_some() {
                    nodes.put(field_element(name), below);
                }
            }
            None => {
                put(
                    &mut nodes.added,
                    field_element(name),
                    Some(whole(field_schema(schema, name), value)),
                );
            }
        }
    }
    for (gone, was) in olds {
        put(
            &mut nodes.removed,
            field_element(gone),
            Some(whole(field_schema(schema, gone), was)),
        );
    }
    nodes.into_nodes()
}

/// Where each name stands first, and whether it stands there again.
fn index(names: &[String]) -> HashMap<&str, (usize, bool)> {
    let mut places: HashMap<&str, (usize, bool)> = HashMap::with_capacity(names.len());
    for (at, name) in names.iter().enumerate() {
        places
            .entry(name)
            .and_modify(|(_, again)| *again = true)
            .or_insert((at, false));
    }
    places
}

fn lists(kind: Shape<'_>, old: &[Value], new: &[Value]) -> Nodes {
    let items = shape_items(kind);
    let old_names = item_elements(kind, old);
    let new_names = item_elements(kind, new);
    let (old_places, new_places) = (index(&old_names), index(&new_names));
    let all = |names: &[String], list: &[Value], name: &str| -> Vec<Value> {
        names
            .iter()
            .zip(list)
            .filter(|(n, _)| *n == name)
            .map(|(_, v)| v.clone())
            .collect()
    };
    let mut nodes = Children::default();
    for (at, name) in new_names.iter().enumerate() {
        let (first, twice) = new_places
            .get(name.as_str())
            .copied()
            .unwrap_or((at, false));
        if first != at {
            continue;
        }
        match old_places.get(name.as_str()) {
            Some((was, false)) if !twice => nodes.put(
                name.clone(),
                versions(items, &old[*was], &new[at], Level::Below),
            ),
            None if !twice => put(&mut nodes.added, name.clone(), Some(whole(items, &new[at]))),
            None => put(&mut nodes.added, name.clone(), Some(Set::new())),
            // Duplicates are owned as one.
            Some(_) => {
                let differs = all(&old_names, old, name) != all(&new_names, new, name);
                nodes.put(name.clone(), leaf_modified(differs));
            }
        }
    }
    for (at, name) in old_names.iter().enumerate() {
        if !new_places.contains_key(name.as_str()) {
            put(
                &mut nodes.removed,
                name.clone(),
                Some(whole(items, &old[at])),
            );
        }
    }
    nodes.into_nodes()
}
