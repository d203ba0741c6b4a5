//! Strategic merge patch: a merge patch whose lists are merged by the schema's merge keys, steered by directives
//! (`$patch`, `$retainKeys`, `$setElementOrder/LIST`, `$deleteFromPrimitiveList/LIST`).
//!
//! Semantics: <https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/> and
//! sig-api-machinery's strategic-merge-patch.md. Merge keys are not the keys of server-side apply (FACTS: ports).

use serde_json::{Map, Value};

use super::{MAX_DEPTH, PatchError, go_kind, go_text};
use crate::types::{PatchStrategy, Schema, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Result<T> = std::result::Result<T, PatchError>;

/// Applies `patch` to `target`, an object of `schema`, in place. On an error `target` is in an undefined state.
pub fn strategic_merge_patch(schema: &Schema, target: &mut Value, patch: &Value) -> Result<()> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_kind(patch)
        )));
    };
    let original = std::mem::take(oarlock_model::meta::as_map_mut(target));
    *target = Value::Object(merge_map(Some(schema), original, patch.clone(), 0)?);
    Ok(())
}

fn contradiction<T>(text: impl Into<String>) -> Result<T> {
    Err(PatchError::Contradiction(text.into()))
}

fn no_merge_key<T>(map: &Map<String, Value>, key: &str) -> Result<T> {
    let text = go_text(&Value::Object(map.clone()));
    contradiction(format!(
        "map: {text} does not contain declared merge key: {key}"
    ))
}

fn bad_directive<T>(directive: &Value, map: &Map<String, Value>) -> Result<T> {
    let text = go_text(&Value::Object(map.clone()));
    contradiction(format!(
        "unknown patch type: {} in map: {text}",
        go_text(directive)
    ))
}

fn merge_map(
    schema: Option<&Schema>,
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    depth: usize,
) -> Result<Map<String, Value>> {
    if depth > MAX_DEPTH {
        return contradiction("patch is nested too deeply");
    }
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Map::new()),
            _ => bad_directive(directive, &patch),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    let ordered: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in ordered {
        set_element_order(schema, &mut original, &mut patch, &directive, depth)?;
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut original, list, &value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let field = schema.and_then(|s| s.field(&name)).map(|s| &**s);
        let merged = match (original.remove(&name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                Value::Object(match field.map(|f| f.patch_strategy).unwrap_or_default() {
                    PatchStrategy { replace: true, .. } => new,
                    _ => merge_map(field, old, new, depth + 1)?,
                })
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(field, old, new, depth)?)
            }
            (_, mut new) => {
                discard_nulls(&mut new, depth)?;
                new
            }
        };
        original.insert(name, merged);
    }
    Ok(original)
}

/// What is new is taken as it is, without the nulls (and directives) of its maps.
fn discard_nulls(value: &mut Value, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return contradiction("patch is nested too deeply");
    }
    match value {
        Value::Object(map) => {
            match map.get(DIRECTIVE).and_then(Value::as_str) {
                Some("delete") => map.clear(),
                Some("replace") => {
                    map.remove(DIRECTIVE);
                }
                _ => {}
            }
            map.retain(|name, v| {
                !v.is_null()
                    && name != RETAIN_KEYS
                    && !name.starts_with(ELEMENT_ORDER)
                    && !name.starts_with(DELETE_FROM_LIST)
            });
            map.values_mut()
                .try_for_each(|v| discard_nulls(v, depth + 1))
        }
        Value::Array(items) => {
            let directed = |v: &Value| {
                matches!(
                    v.get(DIRECTIVE).and_then(Value::as_str),
                    Some("delete" | "replace")
                )
            };
            items.retain(|v| !directed(v));
            items
                .iter_mut()
                .try_for_each(|v| discard_nulls(v, depth + 1))
        }
        _ => Ok(()),
    }
}

fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = "invalid patch format of retainKeys directive";
    let Value::Array(keys) = directive else {
        return contradiction(malformed);
    };
    let listed = |name: &str| keys.iter().any(|k| k.as_str() == Some(name));
    for (name, value) in patch.iter() {
        let directive = name.starts_with(ELEMENT_ORDER) || name.starts_with(DELETE_FROM_LIST);
        if !value.is_null() && !directive && !listed(name) {
            return contradiction(malformed);
        }
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

fn delete_from_list(original: &mut Map<String, Value>, list: &str, gone: &Value) -> Result<()> {
    let Value::Array(gone) = gone else {
        return contradiction(format!("expected a slice but got: {}", go_text(gone)));
    };
    if let Some(Value::Array(items)) = original.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// The part of an item that tells it from others: its merge key's value, or itself in a list of scalars.
fn identity<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    if key.is_empty() {
        Some(item)
    } else {
        item.get(key)
    }
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    let wanted = identity(item, key)?;
    list.iter()
        .position(|other| identity(other, key) == Some(wanted))
}

fn merge_list(
    schema: Option<&Schema>,
    original: Vec<Value>,
    patch: Vec<Value>,
    depth: usize,
) -> Result<Vec<Value>> {
    let strategy = schema.map(|s| s.patch_strategy).unwrap_or_default();
    let Some(schema) = schema.filter(|s| strategy.merge && s.ty == Type::Array) else {
        return Ok(patch);
    };
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = original.iter().chain(&patch).any(Value::is_object);
    if !maps {
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(in_order(merged, &patch, &original, ""));
    }
    let key = &*schema.merge_key;
    if key.is_empty() {
        return contradiction(format!(
            "cannot merge lists without merge key for {}",
            schema.go_type
        ));
    }
    let (original, patch) = directed_elements(original, patch, key)?;
    let mut merged = original.clone();
    for item in &patch {
        let Value::Object(map) = item else {
            return contradiction(format!("expected a map but got: {}", go_text(item)));
        };
        if !map.contains_key(key) {
            return no_merge_key(map, key);
        }
        match position(&merged, item, key) {
            Some(at) => {
                let old = std::mem::take(oarlock_model::meta::as_map_mut(&mut merged[at]));
                let items = schema.items.as_deref();
                merged[at] = Value::Object(merge_map(items, old, map.clone(), depth + 1)?);
            }
            None => {
                let mut new = item.clone();
                discard_nulls(&mut new, depth + 1)?;
                merged.push(new);
            }
        }
    }
    Ok(in_order(merged, &patch, &original, key))
}

/// Carries out the `$patch` directives among a list's items; what remains is to be merged.
fn directed_elements(
    original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut original = original;
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else {
            return contradiction(format!("expected a map but got: {}", go_text(&item)));
        };
        let Some(directive) = map.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let Some(gone) = map.get(key) else {
                    return no_merge_key(map, key);
                };
                original.retain(|o| o.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return contradiction("merging lists cannot yet be specified in the patch");
            }
            _ => return bad_directive(directive, map),
        }
    }
    Ok(if replace {
        (Vec::new(), plain)
    } else {
        (original, plain)
    })
}

fn set_element_order(
    schema: Option<&Schema>,
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    directive: &str,
    depth: usize,
) -> Result<()> {
    let Some(order) = patch.remove(directive) else {
        return Ok(());
    };
    let name = directive.strip_prefix(ELEMENT_ORDER).unwrap_or_default();
    let field = schema.and_then(|s| s.field(name)).map(|s| &**s);
    let key = field.map(|f| &*f.merge_key).unwrap_or_default();
    let Value::Array(order) = order else {
        return contradiction(format!("expected a slice but got: {}", go_text(&order)));
    };
    let list = |from: Option<&Value>| match from {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(other) => contradiction(format!("expected a slice but got: {}", go_text(other))),
    };
    let old = list(original.get(name))?;
    let new = list(patch.get(name))?;
    if let Some(new) = &new {
        check_order(new, &order, key, name)?;
    }
    let merged = match (old.clone(), new) {
        (None, None) => return Ok(()),
        (Some(old), None) => old,
        (None, Some(new)) => {
            let mut new = Value::Array(new);
            discard_nulls(&mut new, depth)?;
            match new {
                Value::Array(items) => items,
                _ => Vec::new(),
            }
        }
        (Some(old), Some(new)) => merge_list(field, old, new, depth)?,
    };
    let merged = in_order(merged, &order, &old.unwrap_or_default(), key);
    original.insert(name.to_owned(), Value::Array(merged));
    patch.remove(name);
    Ok(())
}

/// The patch's items must stand in the order that `$setElementOrder` says.
fn check_order(patch: &[Value], order: &[Value], key: &str, name: &str) -> Result<()> {
    let mut at = 0;
    for item in patch {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        match order[at..]
            .iter()
            .position(|o| identity(o, key).is_some() && identity(o, key) == identity(item, key))
        {
            Some(offset) => at += offset + 1,
            None => {
                return contradiction(format!(
                    "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER}{name} list:\n{}\n",
                    go_text(&Value::Array(patch.to_vec())),
                    go_text(&Value::Array(order.to_vec()))
                ));
            }
        }
    }
    Ok(())
}

/// Items that `order` names, in its order, interleaved with the others as the live list had them.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: &str) -> Vec<Value> {
    let mut named: Vec<(usize, Value)> = Vec::new();
    let mut others: Vec<(usize, Value)> = Vec::new();
    for item in merged {
        match position(order, &item, key) {
            Some(at) => named.push((at, item)),
            None => others.push((position(live, &item, key).unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(at, _)| *at);
    others.sort_by_key(|(at, _)| *at);
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, item) in named {
        while let (Some((other, _)), Some(here)) = (others.peek(), position(live, &item, key)) {
            if *other >= here {
                break;
            }
            result.extend(others.next().map(|(_, other)| other));
        }
        result.push(item);
    }
    result.extend(others.map(|(_, item)| item));
    result
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
