//! From a changed object to the keys that it concerns, by what the controller described. Pure.

use oarlock_client::{Key, Object};
use oarlock_model::{LabelSelector, meta};
use oarlock_wasm::controller::{Mapping, Watch};
use serde_json::Value;

use crate::cache::{Change, project};
use crate::resource;

/// One watch of a controller, parsed.
#[derive(Debug)]
pub struct WatchRule {
    pub target: Target,
    labels: LabelSelector,
    mapping: Mapping,
    relevant: Vec<String>,
}

/// What a watch looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Kind(oarlock_model::Gvr),
    /// Every kind, metadata only.
    Every,
}

/// What a change leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Mapped {
    Keys(Vec<Key>),
    /// The guest must be asked, once for each of these objects (true: it is gone).
    Ask(Vec<(Object, bool)>),
    /// Every object of the first watch's kind, in this namespace (`None`: in all).
    AllPrimary(Option<String>),
}

impl WatchRule {
    pub fn parse(watch: &Watch) -> Result<Self, String> {
        let target = if watch.resource == "*" {
            Target::Every
        } else {
            Target::Kind(
                resource::parse(&watch.resource)
                    .ok_or_else(|| format!("{:?} is no resource", watch.resource))?,
            )
        };
        let labels = LabelSelector::parse(&watch.labels).map_err(|e| e.to_string())?;
        Ok(Self {
            target,
            labels,
            mapping: watch.mapping.clone(),
            relevant: watch.relevant.clone(),
        })
    }

    /// `None`: the change does not count.
    pub fn map(&self, change: &Change) -> Option<Mapped> {
        let fits = |object: &&Object| self.labels.matches(meta::labels(object));
        let old = change.old.as_ref().filter(fits);
        let new = change.new.as_ref().filter(fits);
        let replaced =
            matches!((old, new), (Some(old), Some(new)) if meta::uid(old) != meta::uid(new));
        if let (Some(old), Some(new)) = (old, new)
            && !replaced
            && !self.relevant.is_empty()
            && self
                .relevant
                .iter()
                .all(|pointer| old.pointer(pointer) == new.pointer(pointer))
        {
            return None;
        }
        // An object that leaves the selection is gone as far as the controller is concerned.
        let gone = old.filter(|_| new.is_none() || replaced);
        if old.is_none() && new.is_none() {
            return None;
        }
        match &self.mapping {
            Mapping::Custom => {
                let objects = gone.map(|o| (Object::clone(o), true)).into_iter();
                Some(Mapped::Ask(
                    objects
                        .chain(new.map(|o| (Object::clone(o), false)))
                        .collect(),
                ))
            }
            Mapping::AllPrimary => {
                let namespace = new
                    .or(old)
                    .map(|o| meta::namespace(o))
                    .filter(|ns| !ns.is_empty());
                Some(Mapped::AllPrimary(namespace.map(str::to_owned)))
            }
            _ => {
                // Both states count: an object that changed its owner concerns the old one and the new one.
                let mut keys: Vec<Key> = Vec::new();
                for object in old.into_iter().chain(new) {
                    for key in self.keys(object) {
                        if !keys.contains(&key) {
                            keys.push(key);
                        }
                    }
                }
                (!keys.is_empty()).then_some(Mapped::Keys(keys))
            }
        }
    }

    /// What the guest is shown of an object that it is asked about: all of it, or, if it said what is relevant, that and
    /// the object's identity.
    pub fn shown(&self, object: &Value) -> String {
        const IDENTITY: [&str; 5] = [
            "/apiVersion",
            "/kind",
            "/metadata/name",
            "/metadata/namespace",
            "/metadata/uid",
        ];
        if self.relevant.is_empty() {
            return object.to_string();
        }
        let pointers: Vec<String> = IDENTITY
            .iter()
            .map(|p| (*p).to_owned())
            .chain(self.relevant.iter().cloned())
            .collect();
        project(object, &pointers).to_string()
    }

    fn keys(&self, object: &Value) -> Vec<Key> {
        let namespace = meta::namespace(object);
        let same = |name: &str| Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let owners = |kind: &str, controller_only: bool| -> Vec<Key> {
            meta::owner_references(object)
                .iter()
                .filter(|owner| {
                    owner.kind == kind && (!controller_only || owner.controller == Some(true))
                })
                .map(|owner| same(&owner.name))
                .collect()
        };
        match &self.mapping {
            Mapping::Itself => vec![same(meta::name(object))],
            Mapping::ControllerOwner(kind) => owners(kind, true),
            Mapping::AnyOwner(kind) => owners(kind, false),
            Mapping::Label(label) => meta::label(object, label).map(same).into_iter().collect(),
            Mapping::Field(pointer) => {
                let name = object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .filter(|name| !name.is_empty());
                name.map(same).into_iter().collect()
            }
            Mapping::NamespaceOf if namespace.is_empty() => Vec::new(),
            Mapping::NamespaceOf => vec![Key {
                namespace: String::new(),
                name: namespace.to_owned(),
            }],
            Mapping::AllPrimary | Mapping::Custom => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn watch(mapping: Mapping, labels: &str, relevant: &[&str]) -> WatchRule {
        WatchRule::parse(&Watch {
            resource: "v1/pods".to_owned(),
            labels: labels.to_owned(),
            mapping,
            relevant: relevant.iter().map(|p| (*p).to_owned()).collect(),
        })
        .unwrap()
    }

    fn pod(uid: &str, owner: &str, phase: &str) -> Object {
        Arc::new(json!({
            "metadata": {"namespace": "d", "name": "p", "uid": uid, "labels": {"app": "x", "job": "j"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": owner, "uid": "o", "controller": true}]},
            "spec": {"nodeName": "n1"}, "status": {"phase": phase},
        }))
    }

    fn keys(names: &[(&str, &str)]) -> Option<Mapped> {
        let key = |(namespace, name): &(&str, &str)| Key {
            namespace: (*namespace).into(),
            name: (*name).into(),
        };
        Some(Mapped::Keys(names.iter().map(key).collect()))
    }

    #[test]
    fn mappings() {
        let change = Change {
            old: Some(pod("1", "a", "Pending")),
            new: Some(pod("1", "b", "Running")),
        };
        let check = |mapping: Mapping, expect: Option<Mapped>| {
            assert_eq!(
                watch(mapping.clone(), "", &[]).map(&change),
                expect,
                "{mapping:?}"
            );
        };
        check(Mapping::Itself, keys(&[("d", "p")]));
        check(
            Mapping::ControllerOwner("ReplicaSet".into()),
            keys(&[("d", "a"), ("d", "b")]),
        );
        check(Mapping::ControllerOwner("Job".into()), None);
        check(Mapping::Label("job".into()), keys(&[("d", "j")]));
        check(
            Mapping::Field("/spec/nodeName".into()),
            keys(&[("d", "n1")]),
        );
        check(Mapping::NamespaceOf, keys(&[("", "d")]));
        check(
            Mapping::AllPrimary,
            Some(Mapped::AllPrimary(Some("d".into()))),
        );
    }

    #[test]
    fn what_counts() {
        let update = |from: &str, to: &str| Change {
            old: Some(pod("1", "a", from)),
            new: Some(pod("1", "a", to)),
        };
        let rule = watch(Mapping::Itself, "app=x", &["/status/phase"]);
        assert_eq!(rule.map(&update("Pending", "Running")), keys(&[("d", "p")]));
        assert_eq!(rule.map(&update("Running", "Running")), None);
        assert_eq!(
            watch(Mapping::Itself, "app=y", &[]).map(&update("a", "b")),
            None
        );
        let replaced = Change {
            old: Some(pod("1", "a", "x")),
            new: Some(pod("2", "a", "x")),
        };
        assert_eq!(rule.map(&replaced), keys(&[("d", "p")]));
        let Some(Mapped::Ask(asked)) = watch(Mapping::Custom, "", &[]).map(&replaced) else {
            panic!("not asked")
        };
        assert_eq!(
            asked
                .iter()
                .map(|(o, gone)| (meta::uid(o), *gone))
                .collect::<Vec<_>>(),
            [("1", true), ("2", false)]
        );
    }
}
