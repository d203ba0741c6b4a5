//! A little cluster for unit tests of controllers: natively, in no time, without a host.
//!
//! Invariant: what a controller could come to rely on is as in the real thing: uid, resourceVersion, generation, conflicts,
//! finalizers, the split between an object and its status, order of lists. Nothing else is (no schemas, no other controllers).

use std::cell::RefCell;
use std::collections::BTreeMap;

use oarlock_model::{LabelSelector, meta};
use serde_json::{Value, json};

use super::{
    Cluster, DeleteOptions, Error, Failure, Key, Objects, Outcome, PatchKind, Query, Reconciler,
    ResourceInfo,
};

/// Objects in memory.
#[derive(Debug, Default)]
pub struct FakeCluster {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<(String, String, String), Value>,
    resources: Vec<ResourceInfo>,
    events: Vec<String>,
    revision: u64,
    calls: u64,
}

fn failure(code: u16, reason: &str, message: String) -> Failure {
    Failure {
        code,
        reason: reason.to_owned(),
        message,
    }
}

fn place(resource: &str, namespace: &str, name: &str) -> (String, String, String) {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

fn missing(resource: &str, name: &str) -> Failure {
    failure(
        404,
        "NotFound",
        format!(
            "{} {name:?} not found",
            resource.rsplit('/').next().unwrap_or_default()
        ),
    )
}

impl FakeCluster {
    /// A cluster without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an object there, as if someone had created it; gives it as stored.
    pub fn given(&self, resource: &str, object: Value) -> Value {
        let namespace = meta::namespace(&object).to_owned();
        self.state
            .borrow_mut()
            .create(resource, &namespace, object)
            .expect("a test's object can be created")
    }

    /// Says that a resource is served.
    pub fn serves(&self, resource: &str, kind: &str, namespaced: bool) {
        let info = ResourceInfo {
            resource: resource.to_owned(),
            kind: kind.to_owned(),
            namespaced,
            deletable: true,
        };
        self.state.borrow_mut().resources.push(info);
    }

    /// An object; none if it is not there.
    pub fn at(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.state
            .borrow()
            .objects
            .get(&place(resource, namespace, name))
            .cloned()
    }

    /// All objects of a resource, in order.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        let state = self.state.borrow();
        state
            .objects
            .iter()
            .filter(|((kind, ..), _)| kind == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Changes an object behind the controller's back.
    pub fn change(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) {
        let mut state = self.state.borrow_mut();
        let revision = state.next_revision();
        let object = state
            .objects
            .get_mut(&place(resource, namespace, name))
            .expect("the test names an object that is there");
        change(object);
        meta::set(object, "resourceVersion", revision.to_string());
    }

    /// Takes an object away, finalizers or not.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.state
            .borrow_mut()
            .objects
            .remove(&place(resource, namespace, name));
    }

    /// The events recorded so far: `Normal REASON MESSAGE`.
    pub fn events(&self) -> Vec<String> {
        self.state.borrow().events.clone()
    }

    /// How many writes there were so far.
    pub fn writes(&self) -> u64 {
        self.state.borrow().revision
    }

    /// How many calls a controller has made so far.
    pub fn calls(&self) -> u64 {
        self.state.borrow().calls
    }

    /// One step of a controller.
    pub fn reconcile(
        &self,
        reconciler: &impl Reconciler,
        namespace: &str,
        name: &str,
    ) -> Result<Outcome, Error> {
        reconciler.reconcile(&Cluster::new(self), &Key::new(namespace, name))
    }

    /// Steps until one writes nothing: the controller is content. Panics if that takes more than `limit` steps.
    pub fn settle(&self, reconciler: &impl Reconciler, namespace: &str, name: &str, limit: usize) {
        for _ in 0..limit {
            let before = self.writes();
            match self.reconcile(reconciler, namespace, name) {
                Ok(_) if self.writes() == before => return,
                Ok(_) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => panic!("{namespace}/{name}: {error}"),
            }
        }
        panic!("{namespace}/{name} is not settled after {limit} steps");
    }
}

impl State {
    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn create(
        &mut self,
        resource: &str,
        namespace: &str,
        mut object: Value,
    ) -> Result<Value, Failure> {
        let revision = self.next_revision();
        if meta::name(&object).is_empty() {
            let name = format!("{}{revision:05}", meta::generate_name(&object));
            meta::set(&mut object, "name", name);
        }
        if !namespace.is_empty() {
            meta::set(&mut object, "namespace", namespace);
        }
        let at = place(resource, namespace, meta::name(&object));
        if self.objects.contains_key(&at) {
            return Err(failure(
                409,
                "AlreadyExists",
                format!("{resource} {:?} already exists", at.2),
            ));
        }
        if meta::uid(&object).is_empty() {
            meta::set(&mut object, "uid", format!("uid-{revision}"));
        }
        if object
            .pointer("/metadata/creationTimestamp")
            .is_none_or(Value::is_null)
        {
            meta::set(&mut object, "creationTimestamp", "2026-01-01T00:00:00Z");
        }
        meta::set(&mut object, "resourceVersion", revision.to_string());
        meta::metadata_mut(&mut object).insert("generation".to_owned(), json!(1));
        self.objects.insert(at, object.clone());
        Ok(object)
    }

    fn replace(
        &mut self,
        resource: &str,
        subresource: &str,
        object: Value,
    ) -> Result<Value, Failure> {
        let at = place(resource, meta::namespace(&object), meta::name(&object));
        let old = self
            .objects
            .get(&at)
            .ok_or_else(|| missing(resource, &at.2))?;
        let given = meta::resource_version(&object);
        if !given.is_empty() && given != meta::resource_version(old) {
            return Err(failure(
                409,
                "Conflict",
                format!("{} has been modified", at.2),
            ));
        }
        let mut new = if subresource == "status" {
            old.clone()
        } else {
            object.clone()
        };
        if subresource == "status" {
            new["status"] = object.get("status").cloned().unwrap_or_else(|| json!({}));
        } else {
            if let (Some(map), status) = (new.as_object_mut(), old.get("status").cloned()) {
                map.remove("status");
                map.extend(status.map(|status| ("status".to_owned(), status)));
            }
            for field in [
                "uid",
                "creationTimestamp",
                "generation",
                "deletionTimestamp",
            ] {
                if let Some(kept) = old["metadata"].get(field) {
                    meta::metadata_mut(&mut new).insert(field.to_owned(), kept.clone());
                }
            }
            meta::set(&mut new, "resourceVersion", meta::resource_version(old));
        }
        if new == *old {
            return Ok(new);
        }
        if new.get("spec") != old.get("spec") {
            let generation = meta::generation(old) + 1;
            meta::metadata_mut(&mut new).insert("generation".to_owned(), json!(generation));
        }
        let revision = self.next_revision();
        meta::set(&mut new, "resourceVersion", revision.to_string());
        if meta::is_terminating(&new) && meta::finalizers(&new).is_empty() {
            self.objects.remove(&at);
        } else {
            self.objects.insert(at, new.clone());
        }
        Ok(new)
    }

    fn delete(
        &mut self,
        resource: &str,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<(), Failure> {
        let at = place(resource, &key.namespace, &key.name);
        let object = self
            .objects
            .get(&at)
            .ok_or_else(|| missing(resource, &key.name))?;
        let stale = (!options.uid.is_empty() && options.uid != meta::uid(object))
            || (!options.resource_version.is_empty()
                && options.resource_version != meta::resource_version(object));
        if stale {
            return Err(failure(
                409,
                "Conflict",
                format!("{} is not the one to delete", key.name),
            ));
        }
        let held = !meta::finalizers(object).is_empty();
        let revision = self.next_revision();
        if !held {
            self.objects.remove(&at);
        } else if let Some(object) = self
            .objects
            .get_mut(&at)
            .filter(|object| !meta::is_terminating(object))
        {
            meta::set(object, "deletionTimestamp", "2026-01-01T00:00:00Z");
            meta::set(object, "resourceVersion", revision.to_string());
        }
        Ok(())
    }
}

fn matches(object: &Value, query: &Query) -> Result<bool, Failure> {
    let selector = LabelSelector::parse(&query.labels)
        .map_err(|error| failure(400, "BadRequest", error.to_string()))?;
    let field = match query.fields.split_once('=') {
        None => true,
        Some((path, value)) => {
            let pointer = format!("/{}", path.replace('.', "/"));
            object
                .pointer(&pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                == value
        }
    };
    Ok(field
        && (query.namespace.is_empty() || meta::namespace(object) == query.namespace)
        && selector.matches(meta::labels(object))
        && (query.owner_uid.is_empty()
            || meta::controller_of(object).is_some_and(|owner| owner.uid == query.owner_uid)))
}

/// The parts that these pointers name, at their own places.
fn project(object: &Value, pointers: &[String]) -> Value {
    if pointers.is_empty() {
        return object.clone();
    }
    let mut parts = json!({});
    for pointer in pointers {
        let Some(part) = object.pointer(pointer) else {
            continue;
        };
        let mut at = &mut parts;
        for token in pointer.split('/').skip(1) {
            at = &mut at[token.replace("~1", "/").replace("~0", "~")];
        }
        *at = part.clone();
    }
    parts
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (field, value) in patch {
        if value.is_null() {
            meta::as_map_mut(into).remove(field);
        } else {
            merge(&mut into[field.as_str()], value);
        }
    }
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| failure(400, "BadRequest", error.to_string()))
}

impl Objects for FakeCluster {
    fn get(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        self.state.borrow_mut().calls += 1;
        let object = self.at(resource, &key.namespace, &key.name);
        object
            .map(|object| object.to_string())
            .ok_or_else(|| missing(resource, &key.name))
    }

    fn list(&self, resource: &str, query: &Query) -> Result<Vec<String>, Failure> {
        self.state.borrow_mut().calls += 1;
        let mut found = Vec::new();
        for object in self.all(resource) {
            if matches(&object, query)? {
                found.push(project(&object, &query.pointers).to_string());
            }
        }
        Ok(found)
    }

    fn get_live(&self, resource: &str, key: &Key) -> Result<String, Failure> {
        self.get(resource, key)
    }

    fn create(&self, resource: &str, namespace: &str, object: &str) -> Result<String, Failure> {
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        state
            .create(resource, namespace, parse(object)?)
            .map(|object| object.to_string())
    }

    fn create_many(
        &self,
        resource: &str,
        namespace: &str,
        all: &[String],
    ) -> Vec<Result<String, Failure>> {
        all.iter()
            .map(|object| self.create(resource, namespace, object))
            .collect()
    }

    fn update(&self, resource: &str, subresource: &str, object: &str) -> Result<String, Failure> {
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        state
            .replace(resource, subresource, parse(object)?)
            .map(|object| object.to_string())
    }

    /// Merge patches; strategic and apply patches are merged too, and JSON patches are refused.
    fn patch(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        kind: PatchKind,
        body: &str,
    ) -> Result<String, Failure> {
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        if kind == PatchKind::Json {
            return Err(failure(
                415,
                "UnsupportedMediaType",
                "the fake cluster takes no JSON patches".to_owned(),
            ));
        }
        let patch = parse(body)?;
        let Some(mut object) = state
            .objects
            .get(&place(resource, &key.namespace, &key.name))
            .cloned()
        else {
            if kind == PatchKind::Apply && subresource.is_empty() {
                return state
                    .create(resource, &key.namespace, patch)
                    .map(|object| object.to_string());
            }
            return Err(missing(resource, &key.name));
        };
        merge(&mut object, &patch);
        state
            .replace(resource, subresource, object)
            .map(|object| object.to_string())
    }

    fn delete(&self, resource: &str, key: &Key, options: &DeleteOptions) -> Result<(), Failure> {
        let mut state = self.state.borrow_mut();
        state.calls += 1;
        state.delete(resource, key, options)
    }

    fn delete_many(
        &self,
        resource: &str,
        keys: &[Key],
        options: &DeleteOptions,
    ) -> Vec<Result<(), Failure>> {
        keys.iter()
            .map(|key| self.delete(resource, key, options))
            .collect()
    }

    /// Evictions delete; other subresource objects are echoed.
    fn create_sub(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        object: &str,
    ) -> Result<String, Failure> {
        if subresource == "eviction" {
            self.delete(resource, key, &DeleteOptions::default())?;
        }
        Ok(object.to_owned())
    }

    fn discover(&self) -> Vec<ResourceInfo> {
        self.state.borrow().resources.clone()
    }

    fn event(&self, _about: &str, warning: bool, reason: &str, message: &str) {
        let level = if warning { "Warning" } else { "Normal" };
        self.state
            .borrow_mut()
            .events
            .push(format!("{level} {reason} {message}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "v1/configmaps";

    #[test]
    fn the_fake_cluster_keeps_kubernetes_promises() {
        let fake = FakeCluster::new();
        let cluster = Cluster::new(&fake);
        let key = Key::new("ns", "a");
        let made: Value = cluster
            .create_as(
                MAPS,
                "ns",
                &json!({"metadata": {"name": "a", "finalizers": ["f"]}}),
            )
            .expect("created");
        assert_eq!(
            cluster
                .create(MAPS, "ns", &made)
                .map_err(|e| e.reason().to_owned()),
            Err("AlreadyExists".into())
        );
        cluster
            .merge(MAPS, &key, &json!({"spec": {"x": 1}, "status": {"y": 1}}))
            .expect("merged");
        cluster
            .merge_status(MAPS, &key, &json!({"status": {"z": 2}}))
            .expect("merged");
        let now = fake.at(MAPS, "ns", "a").expect("there");
        assert_eq!(
            (now["spec"].clone(), now["status"].clone()),
            (json!({"x": 1}), json!({"z": 2}))
        );
        assert_eq!(meta::generation(&now), 2);
        let stale: Result<Value, _> = cluster.update_as(MAPS, "", &made);
        assert!(stale.is_err_and(|e| e.is_conflict()));
        assert_eq!(
            cluster.delete(MAPS, &key, &DeleteOptions::default()),
            Ok(true)
        );
        assert!(meta::is_terminating(
            &fake.at(MAPS, "ns", "a").expect("the finalizer holds it")
        ));
        cluster
            .merge(MAPS, &key, &json!({"metadata": {"finalizers": null}}))
            .expect("merged");
        assert_eq!(cluster.get_as::<Value>(MAPS, &key), Ok(None));
        assert_eq!(
            cluster.delete(MAPS, &key, &DeleteOptions::default()),
            Ok(false)
        );
    }

    #[test]
    fn lists_select_and_project() {
        let fake = FakeCluster::new();
        fake.given(MAPS, json!({"metadata": {"namespace": "m", "name": "b", "labels": {"l": "1"}}, "data": {"k": "v"}}));
        fake.given(MAPS, json!({"metadata": {"namespace": "n", "name": "a",
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "u", "controller": true}]}}));
        let check = |query: Query, expect: &[&str]| {
            let found: Vec<Value> = Cluster::new(&fake)
                .list_as(MAPS, &query.parts(&["/metadata/name"]))
                .expect("listed");
            assert_eq!(
                found,
                expect
                    .iter()
                    .map(|name| json!({"metadata": {"name": name}}))
                    .collect::<Vec<_>>()
            );
        };
        check(Query::all(), &["b", "a"]);
        check(Query::namespace("n"), &["a"]);
        check(Query::all().labelled("l=1"), &["b"]);
        check(Query::all().owned_by("u"), &["a"]);
        check(Query::all().field("data.k", "v"), &["b"]);
    }
}
