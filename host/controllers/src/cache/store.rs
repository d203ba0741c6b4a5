//! Objects by key with indexes by owner, by absence of a controller and by node; and selections over them. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use oarlock_client::{Key, Object};
use oarlock_model::{LabelSelector, meta};
use serde_json::{Map, Value};

use super::Change;
use super::task::Incoming;

#[derive(Debug, Default)]
pub struct ObjectStore {
    objects: BTreeMap<Arc<Key>, Object>,
    /// By the uid of every owner (controller or not).
    by_owner: HashMap<String, BTreeSet<Arc<Key>>, RandomState>,
    without_controller: BTreeSet<Arc<Key>>,
    by_node: Option<HashMap<String, BTreeSet<Arc<Key>>, RandomState>>,
}

/// Which objects; all conditions must hold.
#[derive(Debug, Default)]
pub struct Selection<'a> {
    /// Empty: all.
    pub namespace: &'a str,
    pub labels: LabelSelector,
    /// Empty: any.
    pub owner_uid: &'a str,
    /// Whether the owner must be the controller.
    pub controlled: bool,
    /// `(dotted path, value)`; [`CONTROLLER_FIELD`] is the uid of the controller, empty if there is none.
    pub fields: Vec<(&'a str, &'a str)>,
}

/// A field that objects do not have: the uid of their controller, or nothing.
pub const CONTROLLER_FIELD: &str = "metadata.controller";
const NODE_FIELD: &str = "spec.nodeName";

impl ObjectStore {
    pub fn new(by_node: bool) -> Self {
        Self {
            by_node: by_node.then(HashMap::default),
            ..Self::default()
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn all(&self) -> Vec<Object> {
        self.objects.values().map(Arc::clone).collect()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.objects.keys()
    }

    pub fn all_keys(&self) -> Vec<Key> {
        self.objects.keys().map(|key| Key::clone(key)).collect()
    }

    /// Takes in a list as it is.
    pub fn fill(&mut self, objects: Vec<Object>) {
        for object in objects {
            self.apply(Incoming::Present(object));
        }
    }

    /// In order of namespace and name.
    pub fn select(&self, selection: &Selection<'_>) -> Vec<Object> {
        let fits = |key: &Key, object: &Object| selection.fits(key, object);
        let from_index = |keys: Option<&BTreeSet<Arc<Key>>>| -> Vec<Object> {
            keys.into_iter()
                .flatten()
                .filter_map(|key| Some((key, self.objects.get(key)?)))
                .filter(|(key, object)| fits(key, object))
                .map(|(_, object)| Arc::clone(object))
                .collect()
        };
        if !selection.owner_uid.is_empty() {
            return from_index(self.by_owner.get(selection.owner_uid));
        }
        for (path, value) in &selection.fields {
            match (*path, &self.by_node) {
                (CONTROLLER_FIELD, _) if value.is_empty() => {
                    return from_index(Some(&self.without_controller));
                }
                (CONTROLLER_FIELD, _) => return from_index(self.by_owner.get(*value)),
                (NODE_FIELD, Some(by_node)) if !value.is_empty() => {
                    return from_index(by_node.get(*value));
                }
                ("metadata.name", _) if !selection.namespace.is_empty() => {
                    let key = Key {
                        namespace: selection.namespace.to_owned(),
                        name: (*value).to_owned(),
                    };
                    return self
                        .get(&key)
                        .filter(|o| fits(&key, o))
                        .map(Arc::clone)
                        .into_iter()
                        .collect();
                }
                _ => {}
            }
        }
        if selection.namespace.is_empty() {
            return self
                .objects
                .iter()
                .filter(|(k, o)| fits(k, o))
                .map(|(_, o)| Arc::clone(o))
                .collect();
        }
        let start = Key {
            namespace: selection.namespace.to_owned(),
            name: String::new(),
        };
        self.objects
            .range(start..)
            .take_while(|(key, _)| key.namespace == selection.namespace)
            .filter(|(key, object)| fits(key, object))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// The change that this makes, if it makes one: news that are older than what is here make none.
    pub(super) fn apply(&mut self, incoming: Incoming) -> Option<Change> {
        match incoming {
            Incoming::Present(object) => {
                let key = Arc::new(Key {
                    namespace: meta::namespace(&object).to_owned(),
                    name: meta::name(&object).to_owned(),
                });
                let old = self.objects.get(&key).map(Arc::clone);
                if old
                    .as_ref()
                    .is_some_and(|o| meta::resource_version(o) == meta::resource_version(&object))
                {
                    return None;
                }
                // A deletion may have been missed between two lists: it is told for its own sake.
                if let Some(old) = &old {
                    self.unindex(&key, old);
                }
                self.index(&key, &object);
                self.objects.insert(key, Arc::clone(&object));
                Some(Change {
                    old,
                    new: Some(object),
                })
            }
            Incoming::Gone(key, last) => {
                let (key, old) = self.objects.remove_entry(&key)?;
                self.unindex(&key, &old);
                Some(Change {
                    old: Some(last.unwrap_or(old)),
                    new: None,
                })
            }
        }
    }

    fn index(&mut self, key: &Arc<Key>, object: &Value) {
        let mut controlled = false;
        each_owner(object, |uid, controller| {
            controlled |= controller;
            self.by_owner
                .entry(uid.to_owned())
                .or_default()
                .insert(Arc::clone(key));
        });
        if !controlled {
            self.without_controller.insert(Arc::clone(key));
        }
        if let (Some(by_node), Some(node)) = (&mut self.by_node, node_of(object)) {
            by_node
                .entry(node.to_owned())
                .or_default()
                .insert(Arc::clone(key));
        }
    }

    fn unindex(&mut self, key: &Arc<Key>, object: &Value) {
        each_owner(object, |uid, _| remove(&mut self.by_owner, uid, key));
        self.without_controller.remove(key);
        if let (Some(by_node), Some(node)) = (&mut self.by_node, node_of(object)) {
            remove(by_node, node, key);
        }
    }
}

fn remove(
    index: &mut HashMap<String, BTreeSet<Arc<Key>>, RandomState>,
    value: &str,
    key: &Arc<Key>,
) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

fn node_of(object: &Value) -> Option<&str> {
    object
        .get("spec")?
        .get("nodeName")?
        .as_str()
        .filter(|name| !name.is_empty())
}

fn each_owner(object: &Value, mut visit: impl FnMut(&str, bool)) {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    for owner in owners.into_iter().flatten() {
        if let Some(uid) = owner["uid"].as_str() {
            visit(uid, owner["controller"] == true);
        }
    }
}

pub(crate) fn controller_uid(object: &Value) -> &str {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    owners
        .into_iter()
        .flatten()
        .find(|o| o["controller"] == true)
        .and_then(|o| o["uid"].as_str())
        .unwrap_or("")
}

impl Selection<'_> {
    fn fits(&self, key: &Key, object: &Value) -> bool {
        (self.namespace.is_empty() || key.namespace == self.namespace)
            && (!self.controlled
                || self.owner_uid.is_empty()
                || controller_uid(object) == self.owner_uid)
            && self.labels.matches(meta::labels(object))
            && self
                .fields
                .iter()
                .all(|(path, value)| field_is(object, path, value))
    }
}

fn field_is(object: &Value, path: &str, value: &str) -> bool {
    if path == CONTROLLER_FIELD {
        return controller_uid(object) == value;
    }
    let found = path.split('.').try_fold(object, |at, step| at.get(step));
    match found {
        None | Some(Value::Null) => value.is_empty(),
        Some(Value::String(text)) => text == value,
        Some(Value::Bool(bool)) => value == if *bool { "true" } else { "false" },
        Some(Value::Number(number)) => number.to_string() == value,
        Some(_) => false,
    }
}

/// Only the parts at these JSON Pointers; none: everything. Parts that are absent are left out.
pub fn project(object: &Value, pointers: &[String]) -> Value {
    if pointers.is_empty() {
        return object.clone();
    }
    let mut out = Map::new();
    for pointer in pointers {
        if let Some(value) = object.pointer(pointer) {
            put(&mut out, pointer, value.clone());
        }
    }
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, pointer: &str, value: Value) {
    let mut steps: Vec<String> = pointer
        .split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    let Some(last) = steps.pop() else { return };
    let mut at = out;
    for step in steps {
        at = meta::child_map_mut(at, &step);
    }
    at.insert(last, value);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, node: &str, owner: &str, version: u64) -> Object {
        let owners = if owner.is_empty() {
            json!([])
        } else {
            json!([{"uid": owner, "controller": true}])
        };
        Arc::new(json!({
            "metadata": {"namespace": "d", "name": name, "resourceVersion": version.to_string(), "ownerReferences": owners,
                "labels": {"app": name}},
            "spec": {"nodeName": node},
        }))
    }

    fn names(objects: &[Object]) -> Vec<&str> {
        objects.iter().map(|o| meta::name(o)).collect()
    }

    #[test]
    fn selections_use_indexes_that_follow_changes() {
        let mut store = ObjectStore::new(true);
        for object in [
            pod("b", "n1", "u1", 1),
            pod("a", "n1", "u1", 2),
            pod("c", "", "", 3),
        ] {
            assert!(store.apply(Incoming::Present(object)).is_some());
        }
        assert!(
            store
                .apply(Incoming::Present(pod("c", "", "", 3)))
                .is_none()
        );
        let check = |store: &ObjectStore, selection: Selection<'_>, expect: &[&str]| {
            assert_eq!(names(&store.select(&selection)), expect, "{selection:?}");
        };
        let owned = || Selection {
            owner_uid: "u1",
            controlled: true,
            ..Selection::default()
        };
        let on = |node| Selection {
            fields: vec![("spec.nodeName", node)],
            ..Selection::default()
        };
        check(&store, owned(), &["a", "b"]);
        check(&store, on("n1"), &["a", "b"]);
        check(&store, on(""), &["c"]);
        check(
            &store,
            Selection {
                fields: vec![(CONTROLLER_FIELD, "")],
                namespace: "d",
                ..Selection::default()
            },
            &["c"],
        );
        check(
            &store,
            Selection {
                namespace: "e",
                ..Selection::default()
            },
            &[],
        );
        check(
            &store,
            Selection {
                namespace: "d",
                fields: vec![("metadata.name", "b")],
                ..Selection::default()
            },
            &["b"],
        );
        let labels = LabelSelector::parse("app in (a,c)").unwrap();
        check(
            &store,
            Selection {
                namespace: "d",
                labels,
                ..Selection::default()
            },
            &["a", "c"],
        );
        store.apply(Incoming::Present(pod("a", "n2", "", 4)));
        check(&store, owned(), &["b"]);
        check(&store, on("n2"), &["a"]);
        store.apply(Incoming::Gone(
            Key {
                namespace: "d".into(),
                name: "b".into(),
            },
            None,
        ));
        check(&store, owned(), &[]);
        check(&store, on("n1"), &[]);
    }

    #[test]
    fn projections() {
        let object = json!({"metadata": {"name": "a", "labels": {"x/y": "1"}}, "spec": {"replicas": 2, "other": 1}});
        let check = |pointers: &[&str], expect: Value| {
            let pointers: Vec<String> = pointers.iter().map(|p| (*p).to_owned()).collect();
            assert_eq!(project(&object, &pointers), expect);
        };
        check(
            &["/metadata/name", "/spec/replicas", "/spec/absent"],
            json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}}),
        );
        check(
            &["/metadata/labels/x~1y"],
            json!({"metadata": {"labels": {"x/y": "1"}}}),
        );
        check(&[], object.clone());
    }
}
