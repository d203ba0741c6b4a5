//! Which objects the pods of which node need, kept up with one change at a time.
//!
//! Invariant: `users` counts, for each object, the pods of each node that name it; a pod that changes or goes takes back
//! exactly what it added. Cost of a change: what the pod (or the volume) names.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use oarlock_model::{meta, pod_references};
use serde_json::Value;

type Map<K, V> = HashMap<K, V, RandomState>;
/// By namespace and name.
type Named<V> = Map<Box<str>, Map<Box<str>, V>>;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a node may be related to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
    Pod,
    Volume,
    Attachment,
    Slice,
}

/// How many kinds of objects pods name: those that come first in [`Thing`].
const NAMED_BY_PODS: usize = 5;

/// Nodes, with the number of their pods that name the object.
type Users = Map<Arc<str>, u32>;

#[derive(Debug)]
struct Pod {
    node: Arc<str>,
    stamp: u64,
    names: Vec<(Thing, Box<str>)>,
}

#[derive(Debug)]
struct Volume {
    claim: (Box<str>, Box<str>),
    secrets: Vec<(Box<str>, Box<str>)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Graph {
    pods: Named<Pod>,
    users: [Named<Users>; NAMED_BY_PODS],
    volumes: Map<Box<str>, Volume>,
    volumes_of_secret: Named<BTreeSet<Box<str>>>,
    attachments: Map<Box<str>, Box<str>>,
    slices: Map<Box<str>, Box<str>>,
}

fn find<'a, V>(of: &'a Named<V>, namespace: &str, name: &str) -> Option<&'a V> {
    of.get(namespace)?.get(name)
}

fn entry<'a, V: Default>(of: &'a mut Named<V>, namespace: &str, name: &str) -> &'a mut V {
    of.entry(namespace.into())
        .or_default()
        .entry(name.into())
        .or_default()
}

fn remove<V>(of: &mut Named<V>, namespace: &str, name: &str) -> Option<V> {
    let names = of.get_mut(namespace)?;
    let removed = names.remove(name);
    if names.is_empty() {
        of.remove(namespace);
    }
    removed
}

impl Graph {
    pub fn related(&self, node: &str, thing: Thing, namespace: &str, name: &str) -> bool {
        match thing {
            Thing::Pod => find(&self.pods, namespace, name).is_some_and(|pod| *pod.node == *node),
            Thing::Volume => self.needs_volume(node, name),
            Thing::Attachment => self.attachments.get(name).is_some_and(|of| **of == *node),
            Thing::Slice => self.slices.get(name).is_some_and(|of| **of == *node),
            Thing::Secret => {
                self.names(node, thing, namespace, name)
                    || find(&self.volumes_of_secret, namespace, name).is_some_and(|volumes| {
                        volumes.iter().any(|volume| self.needs_volume(node, volume))
                    })
            }
            _ => self.names(node, thing, namespace, name),
        }
    }

    fn names(&self, node: &str, thing: Thing, namespace: &str, name: &str) -> bool {
        self.users
            .get(thing as usize)
            .and_then(|users| find(users, namespace, name))
            .is_some_and(|users| users.contains_key(node))
    }

    fn needs_volume(&self, node: &str, name: &str) -> bool {
        self.volumes.get(name).is_some_and(|volume| {
            let (namespace, claim) = &volume.claim;
            self.names(node, Thing::Claim, namespace, claim)
        })
    }

    /// What [`Self::set_pod`] was told of a pod that is here.
    pub fn stamp_of_pod(&self, namespace: &str, name: &str) -> Option<u64> {
        find(&self.pods, namespace, name).map(|pod| pod.stamp)
    }

    /// A pod that has a node, and a number that changes with what it names; `None`: it has none, or is gone.
    pub fn set_pod(&mut self, namespace: &str, name: &str, pod: Option<(&Value, u64)>) {
        if let Some(old) = remove(&mut self.pods, namespace, name) {
            for (thing, of) in &old.names {
                self.release(*thing, namespace, of, &old.node);
            }
        }
        let Some((pod, stamp)) = pod else { return };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = node.into();
        let names = needs(pod);
        for (thing, of) in &names {
            if let Some(users) = self.users.get_mut(*thing as usize) {
                *entry(users, namespace, of)
                    .entry(Arc::clone(&node))
                    .or_default() += 1;
            }
        }
        let pod = Pod { node, stamp, names };
        self.pods
            .entry(namespace.into())
            .or_default()
            .insert(name.into(), pod);
    }

    fn release(&mut self, thing: Thing, namespace: &str, name: &str, node: &str) {
        let Some(of) = self.users.get_mut(thing as usize) else {
            return;
        };
        let users = entry(of, namespace, name);
        if let Some(count) = users.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                users.remove(node);
            }
        }
        if users.is_empty() {
            remove(of, namespace, name);
        }
    }

    /// A persistent volume; `None`: it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<&Value>) {
        if let Some(old) = self.volumes.remove(name) {
            for (namespace, secret) in &old.secrets {
                let volumes = entry(&mut self.volumes_of_secret, namespace, secret);
                volumes.remove(name);
                if volumes.is_empty() {
                    remove(&mut self.volumes_of_secret, namespace, secret);
                }
            }
        }
        let Some(volume) = volume else { return };
        let claim = &volume["spec"]["claimRef"];
        let (Some(of), Some(claim)) = (claim["namespace"].as_str(), claim["name"].as_str()) else {
            return;
        };
        let secrets: Vec<(Box<str>, Box<str>)> = pod_references::volume_secrets(volume)
            .into_iter()
            .map(|(namespace, secret)| (namespace.into(), secret.into()))
            .collect();
        for (namespace, secret) in &secrets {
            entry(&mut self.volumes_of_secret, namespace, secret).insert(name.into());
        }
        let claim = (of.into(), claim.into());
        self.volumes.insert(name.into(), Volume { claim, secrets });
    }

    /// The node that a VolumeAttachment is for; `None`: it is gone.
    pub fn set_attachment(&mut self, name: &str, node: Option<&str>) {
        set(&mut self.attachments, name, node);
    }

    /// The node whose devices a ResourceSlice describes; `None`: it is gone.
    pub fn set_slice(&mut self, name: &str, node: Option<&str>) {
        set(&mut self.slices, name, node);
    }

    /// Drops what is known from a kind.
    pub fn forget(&mut self, resource: &str) {
        match resource {
            "pods" => {
                self.pods.clear();
                self.users.iter_mut().for_each(Map::clear);
            }
            "persistentvolumes" => {
                self.volumes.clear();
                self.volumes_of_secret.clear();
            }
            "volumeattachments" => self.attachments.clear(),
            _ => self.slices.clear(),
        }
    }

    /// How many pods, volumes, attachments and slices are known.
    pub fn len(&self) -> usize {
        let pods: usize = self.pods.values().map(Map::len).sum();
        pods + self.volumes.len() + self.attachments.len() + self.slices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn set(of: &mut Map<Box<str>, Box<str>>, name: &str, node: Option<&str>) {
    match node.filter(|node| !node.is_empty()) {
        Some(node) => of.insert(name.into(), node.into()),
        None => of.remove(name),
    };
}

/// What a node needs for a pod. A mirror pod gives its node nothing: the node made it.
fn needs(pod: &Value) -> Vec<(Thing, Box<str>)> {
    if meta::annotation(pod, MIRROR).is_some() {
        return Vec::new();
    }
    let mut names: Vec<(Thing, Box<str>)> = Vec::new();
    let account = pod["spec"]["serviceAccountName"].as_str();
    if let Some(account) = account.filter(|account| !account.is_empty()) {
        names.push((Thing::ServiceAccount, account.into()));
    }
    let mut add = |thing: Thing, all: Vec<&str>| {
        names.extend(all.into_iter().map(|name| (thing, name.into())));
    };
    add(Thing::Secret, pod_references::secrets(pod));
    add(Thing::ConfigMap, pod_references::config_maps(pod));
    add(Thing::ResourceClaim, pod_references::resource_claims(pod));
    for volume in pod_references::volumes(pod) {
        if let Some(claim) = pod_references::claim(pod, volume) {
            names.push((Thing::Claim, claim.into()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(node: &str, secret: &str) -> Value {
        json!({"spec": {"nodeName": node, "imagePullSecrets": [{"name": secret}]}})
    }

    #[test]
    fn what_pods_name_is_counted() {
        let mut graph = Graph::default();
        let has = |graph: &Graph, node: &str| graph.related(node, Thing::Secret, "ns", "s");
        graph.set_pod("ns", "a", Some((&pod("n1", "s"), 1)));
        graph.set_pod("ns", "b", Some((&pod("n1", "s"), 1)));
        assert!(has(&graph, "n1") && !has(&graph, "n2"));
        assert!(!graph.related("n1", Thing::Secret, "other", "s"));
        assert_eq!(graph.stamp_of_pod("ns", "a"), Some(1));
        graph.set_pod("ns", "a", None);
        assert!(has(&graph, "n1"));
        // The same name, another pod on another node.
        graph.set_pod("ns", "b", Some((&pod("n2", "s"), 2)));
        assert!(!has(&graph, "n1") && has(&graph, "n2"));
        graph.set_pod("ns", "b", Some((&pod("", "s"), 3)));
        assert!(!has(&graph, "n2"));
        assert!(graph.is_empty() && graph.users.iter().all(Map::is_empty));
    }

    #[test]
    fn a_volume_leads_to_its_claims_pods() {
        let mut graph = Graph::default();
        let volume = |claim: &str| {
            json!({"spec": {"claimRef": {"namespace": "ns", "name": claim},
                "rbd": {"secretRef": {"name": "s"}}}})
        };
        graph.set_volume("pv", Some(&volume("c")));
        let pod = json!({"spec": {"nodeName": "n1", "volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}});
        graph.set_pod("ns", "p", Some((&pod, 0)));
        assert!(graph.related("n1", Thing::Volume, "", "pv"));
        assert!(graph.related("n1", Thing::Secret, "ns", "s"));
        graph.set_volume("pv", Some(&volume("other")));
        assert!(!graph.related("n1", Thing::Volume, "", "pv"));
        assert!(!graph.related("n1", Thing::Secret, "ns", "s"));
        graph.set_volume("pv", None);
        assert!(graph.volumes_of_secret.is_empty());
    }

    #[test]
    fn a_mirror_pod_gives_its_node_nothing() {
        let mut graph = Graph::default();
        let mut mirror = pod("n1", "s");
        mirror["metadata"] = json!({"annotations": {MIRROR: "x"}});
        graph.set_pod("ns", "p", Some((&mirror, 0)));
        assert!(graph.related("n1", Thing::Pod, "ns", "p"));
        assert!(!graph.related("n1", Thing::Secret, "ns", "s"));
    }
}
