//! Which names of a definition are accepted, and the conditions that follow from that. Pure.
//!
//! Within a group a name belongs to who had it first. Names are accepted one by one; the definition is established when all
//! of its first names are.

use std::collections::BTreeSet;
use std::sync::Arc;

use oarlock_model::meta;
use serde_json::{Map, Value, json};

use super::approval;

/// Type, status, reason and message.
type Condition<'a> = (&'a str, &'a str, &'a str, &'a str);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

pub fn condition<'a>(definition: &'a Value, name: &str) -> Option<&'a Value> {
    let conditions = definition
        .pointer("/status/conditions")
        .and_then(Value::as_array)?;
    conditions.iter().find(|c| text(c, "type") == name)
}

/// Sets a condition of a status; its time changes only if its status does.
pub fn set_condition(status: &mut Value, (name, state, reason, message): Condition<'_>, now: &str) {
    let map = meta::as_map_mut(status);
    let conditions = map.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    let mut fresh = json!({"type": name, "status": state, "lastTransitionTime": now, "reason": reason, "message": message});
    match list.iter_mut().find(|c| text(c, "type") == name) {
        Some(old) => {
            if text(old, "status") == state {
                fresh["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if let Some(generation) = old.get("observedGeneration") {
                fresh["observedGeneration"] = generation.clone();
            }
            *old = fresh;
        }
        None => list.push(fresh),
    }
}

/// The status that a definition is to have next; `None`: it is as it should be.
pub fn next_status(definition: &Value, all: &[Arc<Value>], now: &str) -> Option<Value> {
    let mut status = definition
        .get("status")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let is = |definition: &Value, name: &str| {
        condition(definition, name).is_some_and(|c| text(c, "status") == "True")
    };
    let (names, conflict) = accepted(definition, all);
    let (state, reason, message) = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some((reason, message)) => ("False", *reason, message.clone()),
    };
    let told = condition(definition, "NamesAccepted").is_some_and(|c| {
        (text(c, "status"), text(c, "reason"), text(c, "message"))
            == (state, reason, message.as_str())
    });
    if !told || status.get("acceptedNames") != Some(&names) {
        meta::as_map_mut(&mut status).insert("acceptedNames".to_owned(), names);
        set_condition(&mut status, ("NamesAccepted", state, reason, &message), now);
        if !is(definition, "Established") {
            let not_yet = match conflict {
                None => (
                    "Established",
                    "False",
                    "Installing",
                    "the initial names have been accepted",
                ),
                Some(_) => (
                    "Established",
                    "False",
                    "NotAccepted",
                    "not all names are accepted",
                ),
            };
            if conflict.is_none() || condition(definition, "Established").is_none() {
                set_condition(&mut status, not_yet, now);
            }
        }
    } else if is(definition, "NamesAccepted") && !is(definition, "Established") {
        let text = "the initial names have been accepted";
        set_condition(
            &mut status,
            ("Established", "True", "InitialNamesAccepted", text),
            now,
        );
    } else if let Some((state, reason, message)) = approval(definition) {
        set_condition(
            &mut status,
            (
                "KubernetesAPIApprovalPolicyConformant",
                state,
                reason,
                &message,
            ),
            now,
        );
    }
    (definition.get("status") != Some(&status)).then_some(status)
}

/// The names that the definition gets, and the last conflict.
fn accepted(definition: &Value, all: &[Arc<Value>]) -> (Value, Option<(&'static str, String)>) {
    let spec = &definition["spec"];
    let (asked, held) = (&spec["names"], &definition["status"]["acceptedNames"]);
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for other in all.iter().filter(|d| d["spec"]["group"] == spec["group"]) {
        let names = &other["status"]["acceptedNames"];
        resources.extend([
            text(names, "plural").to_owned(),
            text(names, "singular").to_owned(),
        ]);
        resources.extend(texts(names, "shortNames"));
        kinds.extend([
            text(names, "kind").to_owned(),
            text(names, "listKind").to_owned(),
        ]);
    }
    let mut names = held.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let mut single =
        |names: &mut Map<String, Value>, field: &'static str, reason, taken: &BTreeSet<String>| {
            let name = text(asked, field);
            if name == text(held, field) || !taken.contains(name) {
                put(names, field, json!(name));
            } else {
                conflict = Some((reason, in_use(name)));
            }
        };
    single(&mut names, "plural", "PluralConflict", &resources);
    single(&mut names, "singular", "SingularConflict", &resources);
    let short = texts(asked, "shortNames");
    let ours = texts(held, "shortNames");
    let mut clashes: Vec<String> = Vec::new();
    for name in short
        .iter()
        .filter(|n| !ours.contains(n) && resources.contains(*n))
    {
        let clash = in_use(name);
        if !clashes.contains(&clash) {
            clashes.push(clash);
        }
    }
    let mut short_conflict = None;
    match clashes.as_slice() {
        [] => put(&mut names, "shortNames", json!(short)),
        [one] => short_conflict = Some(("ShortNamesConflict", one.clone())),
        many => short_conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    let mut late = None;
    let mut kind = |names: &mut Map<String, Value>, field: &'static str, reason| {
        let name = text(asked, field);
        if name == text(held, field) || !kinds.contains(name) {
            put(names, field, json!(name));
        } else {
            late = Some((reason, in_use(name)));
        }
    };
    kind(&mut names, "kind", "KindConflict");
    kind(&mut names, "listKind", "ListKindConflict");
    put(&mut names, "categories", json!(texts(asked, "categories")));
    // The kind is there even if it is empty.
    for field in ["plural", "kind"] {
        names.entry(field).or_insert_with(|| json!(""));
    }
    (Value::Object(names), late.or(short_conflict).or(conflict))
}

fn put(names: &mut Map<String, Value>, field: &str, value: Value) {
    let empty = value.as_array().is_some_and(Vec::is_empty) || value.as_str() == Some("");
    if empty {
        names.remove(field);
    } else {
        names.insert(field.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({"metadata": {"name": format!("{plural}.a.b")}, "spec": {"group": "a.b", "names": {
            "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")}},
            "status": {"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": ["v1"]}})
    }

    fn settled(mut definition: Value, others: &[Value]) -> Value {
        for _ in 0..5 {
            let all = others.iter().cloned().chain([definition.clone()]);
            let all: Vec<Arc<Value>> = all.map(Arc::new).collect();
            match next_status(&definition, &all, "now") {
                Some(status) => definition["status"] = status,
                None => return definition,
            }
        }
        panic!("never settles: {definition}");
    }

    #[test]
    fn names_are_accepted_and_the_kind_is_established() {
        let first = settled(definition("xs", "X"), &[]);
        let state = |d: &Value, name: &str| {
            let c = condition(d, name).cloned().unwrap_or_default();
            format!("{} {}", text(&c, "status"), text(&c, "reason"))
        };
        assert_eq!(state(&first, "NamesAccepted"), "True NoConflicts");
        assert_eq!(state(&first, "Established"), "True InitialNamesAccepted");
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        let second = settled(definition("xs2", "X"), std::slice::from_ref(&first));
        assert_eq!(state(&second, "NamesAccepted"), "False ListKindConflict");
        assert_eq!(state(&second, "Established"), "False NotAccepted");
        assert_eq!(
            second["status"]["acceptedNames"],
            json!({"plural": "xs2", "kind": ""})
        );
        let freed = settled(second, &[]);
        assert_eq!(state(&freed, "Established"), "True InitialNamesAccepted");
    }
}
