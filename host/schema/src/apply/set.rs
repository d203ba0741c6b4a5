//! Field sets in the form in which they are stored: FieldsV1 trees (`f:`, `k:`, `v:` elements as JSON maps).
//!
//! A node that is `{}`, or has an entry `.`, is itself a member; its other entries are its children. A node is never
//! without both. The root is never a member: an empty root is the empty set. Working on this form saves decoding and
//! encoding the sets of every manager on every write.

use serde_json::{Map, Value};

pub type Set = Map<String, Value>;

pub const SELF: &str = ".";

pub fn is_member(node: &Set) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn child_count(node: &Set) -> usize {
    node.len() - usize::from(node.contains_key(SELF))
}

fn as_set(value: &Value) -> Option<&Set> {
    value.as_object()
}

/// The node for these children; `None` if it is neither a member nor has children.
pub fn node(member: bool, mut children: Set) -> Option<Set> {
    if children.is_empty() {
        return member.then_some(children);
    }
    if member {
        children.insert(SELF.to_owned(), Value::Object(Set::new()));
    }
    Some(children)
}

/// Puts a node below `set`, unless there is none.
pub fn put(set: &mut Set, element: String, node: Option<Set>) {
    if let Some(node) = node {
        set.insert(element, Value::Object(node));
    }
}

/// `set` becomes `set` ∪ `other`.
pub fn union(set: &mut Set, other: &Set) {
    for (element, theirs) in other {
        let (false, Some(theirs)) = (element == SELF, as_set(theirs)) else {
            continue;
        };
        match set.get_mut(element) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                union(ours, theirs);
                if member && child_count(ours) > 0 && !ours.contains_key(SELF) {
                    ours.insert(SELF.to_owned(), Value::Object(Set::new()));
                }
            }
            _ => {
                set.insert(element.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

/// `set` becomes `set` − `other`: members of `other` go, their children stay.
pub fn subtract(set: &mut Set, other: &Set) {
    for (element, theirs) in other {
        let (false, Some(theirs)) = (element == SELF, as_set(theirs)) else {
            continue;
        };
        let Some(Value::Object(ours)) = set.get_mut(element) else {
            continue;
        };
        let member = is_member(ours) && !is_member(theirs);
        subtract(ours, theirs);
        ours.remove(SELF);
        match (member, ours.is_empty()) {
            (false, true) => {
                set.remove(element);
            }
            (true, false) => {
                ours.insert(SELF.to_owned(), Value::Object(Set::new()));
            }
            _ => {}
        }
    }
}

/// True if the two have a member in common.
pub fn intersects(set: &Set, other: &Set) -> bool {
    set.iter().any(|(element, ours)| {
        if element == SELF {
            return false;
        }
        match (as_set(ours), other.get(element).and_then(as_set)) {
            (Some(ours), Some(theirs)) => {
                (is_member(ours) && is_member(theirs)) || intersects(ours, theirs)
            }
            _ => false,
        }
    })
}

pub fn intersection(set: &Set, other: &Set) -> Set {
    let mut result = Set::new();
    for (element, ours) in set {
        let (false, Some(ours)) = (element == SELF, as_set(ours)) else {
            continue;
        };
        if let Some(theirs) = other.get(element).and_then(as_set) {
            let member = is_member(ours) && is_member(theirs);
            put(
                &mut result,
                element.clone(),
                node(member, intersection(ours, theirs)),
            );
        }
    }
    result
}

/// True if every member of `set` is one of `other`.
pub fn is_subset(set: &Set, other: &Set) -> bool {
    let mut rest = set.clone();
    subtract(&mut rest, other);
    rest.is_empty()
}

/// Removes the node at a path of elements, with all below it; nodes left with nothing go too.
pub fn remove_path(set: &mut Set, path: &[&str]) {
    match path {
        [] => {}
        [last] => {
            set.remove(*last);
        }
        [first, rest @ ..] => {
            if let Some(Value::Object(below)) = set.get_mut(*first) {
                let member = is_member(below);
                remove_path(below, rest);
                let alone = child_count(below) == 0;
                if alone {
                    below.remove(SELF);
                    if !member {
                        set.remove(*first);
                    }
                }
            }
        }
    }
}

pub fn contains_path(set: &Set, path: &[&str]) -> bool {
    match path {
        [] => false,
        [first, rest @ ..] => match set.get(*first).and_then(as_set) {
            Some(below) => (rest.is_empty() && is_member(below)) || contains_path(below, rest),
            None => false,
        },
    }
}

/// Calls `visit` with the text of each member's path (`.spec.containers[name="a"].image`): at each level members first.
pub fn each_path(set: &Set, visit: &mut dyn FnMut(&str)) {
    walk(set, &mut String::new(), visit);
}

fn walk(set: &Set, path: &mut String, visit: &mut dyn FnMut(&str)) {
    let length = path.len();
    let children = || {
        set.iter()
            .filter(|(element, _)| *element != SELF)
            .filter_map(|(e, n)| Some((e, as_set(n)?)))
    };
    for (element, node) in children() {
        if is_member(node) {
            push_element(path, element);
            visit(path);
            path.truncate(length);
        }
    }
    for (element, node) in children() {
        push_element(path, element);
        walk(node, path, visit);
        path.truncate(length);
    }
}

fn push_element(path: &mut String, element: &str) {
    match element.split_at_checked(2) {
        Some(("f:", name)) => {
            path.push('.');
            path.push_str(name);
        }
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let texts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            path.push_str(&format!("[{}]", texts.join(",")));
        }
        Some(("v:", value)) => path.push_str(&format!("[={value}]")),
        Some(("i:", at)) => path.push_str(&format!("[{at}]")),
        _ => path.push_str(element),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(value: Value) -> Set {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn set_algebra() {
        let check = |op: fn(&mut Set, &Set), a: Value, b: Value, expect: Value| {
            let mut a = set(a);
            op(&mut a, &set(b));
            assert_eq!(Value::Object(a), expect);
        };
        check(
            union,
            json!({"f:a": {}}),
            json!({"f:a": {"f:b": {}}}),
            json!({"f:a": {".": {}, "f:b": {}}}),
        );
        check(
            union,
            json!({"f:a": {"f:b": {}}}),
            json!({"f:a": {}}),
            json!({"f:a": {".": {}, "f:b": {}}}),
        );
        check(
            subtract,
            json!({"f:a": {".": {}, "f:b": {}}}),
            json!({"f:a": {}}),
            json!({"f:a": {"f:b": {}}}),
        );
        check(
            subtract,
            json!({"f:a": {".": {}, "f:b": {}}}),
            json!({"f:a": {"f:b": {}}}),
            json!({"f:a": {}}),
        );
        check(
            subtract,
            json!({"f:a": {"f:b": {}}}),
            json!({"f:a": {"f:b": {}}}),
            json!({}),
        );
    }

    #[test]
    fn paths_as_conflicts_print_them() {
        let fields = set(json!({"f:spec": {
            "f:template": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}},
            "f:replicas": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}, "f:set": {"v:\"x\"": {}},
        }}));
        let mut paths = Vec::new();
        each_path(&fields, &mut |p| paths.push(p.to_owned()));
        assert_eq!(
            paths,
            [
                ".spec.replicas",
                ".spec.ports[port=80,protocol=\"TCP\"].name",
                ".spec.set[=\"x\"]",
                ".spec.template.containers[name=\"c\"]",
                ".spec.template.containers[name=\"c\"].image",
            ]
        );
    }

    fn sets() -> impl Strategy<Value = Set> {
        let paths = proptest::collection::vec(proptest::collection::vec("f:[a-c]", 1..4), 0..6);
        paths.prop_map(|paths| {
            let mut all = Set::new();
            for path in paths {
                let mut one: Option<Set> = Some(Set::new());
                for element in path.into_iter().rev() {
                    let mut parent = Set::new();
                    put(&mut parent, element, one);
                    one = Some(parent);
                }
                union(&mut all, &one.unwrap_or_default());
            }
            all
        })
    }

    fn members(set: &Set) -> std::collections::BTreeSet<String> {
        let mut all = std::collections::BTreeSet::new();
        each_path(set, &mut |p| {
            all.insert(p.to_owned());
        });
        all
    }

    proptest! {
        /// The tree operations are those of plain sets of paths.
        #[test]
        fn trees_behave_as_sets(a in sets(), b in sets()) {
            let (pa, pb) = (members(&a), members(&b));
            let mut joined = a.clone();
            union(&mut joined, &b);
            prop_assert_eq!(members(&joined), &pa | &pb);
            let mut rest = a.clone();
            subtract(&mut rest, &b);
            prop_assert_eq!(members(&rest), &pa - &pb);
            prop_assert_eq!(members(&intersection(&a, &b)), &pa & &pb);
            prop_assert_eq!(intersects(&a, &b), !(&pa & &pb).is_empty());
            prop_assert_eq!(is_subset(&a, &b), pa.is_subset(&pb));
        }
    }
}
