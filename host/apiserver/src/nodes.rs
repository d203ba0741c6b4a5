//! The node authorizer in force: a graph of what the pods of each node need, which follows the store.
//!
//! Cost: a caller that is no node pays a look at the first letters of its name; a node's question, a few look-ups under a
//! shared lock. A pod costs its parse when it gets its node and when what it names changes; other events of it a scan.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/node/>

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use oarlock_auth::nodes::{Graph, decide, rules};
use oarlock_auth::{Answer, Rule};
use oarlock_kinds::Row;
use oarlock_model::ApiResult;
use oarlock_registry::{Registry, Stored, User, scan};
use parking_lot::{Mutex, RwLock};
use tokio::task::JoinHandle;

use crate::auth::{Attributes, Authorizer, Decision};
use crate::follow::{self, Follows};

const KINDS: [(&str, &str); 4] = [
    ("", "pods"),
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
];
/// What of a pod may change what its node needs for it, once it has one.
const VARIABLE: [&[&str]; 5] = [
    &["metadata", "uid"],
    &["spec", "nodeName"],
    &["spec", "ephemeralContainers"],
    &["status", "resourceClaimStatuses"],
    &["status", "extendedResourceClaimStatus"],
];

/// See the module. Knows nothing before [`Nodes::start`].
#[derive(Debug)]
pub struct Nodes {
    graph: RwLock<Graph>,
    rules: Vec<Rule>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl Nodes {
    /// Reads what is there, and follows its changes from now on.
    pub async fn start(registry: &Arc<Registry>) -> ApiResult<Arc<Self>> {
        let nodes = Arc::new(Self {
            graph: RwLock::default(),
            rules: rules(),
            tasks: Mutex::default(),
        });
        for (group, resource) in KINDS {
            let task = follow::start(&nodes, registry, group, resource).await?;
            nodes.tasks.lock().extend(task);
        }
        Ok(nodes)
    }

    fn take_pod(&self, pod: &Stored, there: bool) {
        let text = |path: &[&str]| scan::text(&pod.json, path);
        let (namespace, name) = (
            text(&["metadata", "namespace"]),
            text(&["metadata", "name"]),
        );
        let known = self.graph.read().stamp_of_pod(&namespace, &name);
        if !there || text(&["spec", "nodeName"]).is_empty() {
            if known.is_some() {
                self.graph.write().set_pod(&namespace, &name, None);
            }
            return;
        }
        let stamp = stamp(&pod.json);
        if known == Some(stamp) {
            return;
        }
        // What is stored can be parsed.
        if let Ok(pod) = serde_json::from_slice(&pod.json) {
            let mut graph = self.graph.write();
            graph.set_pod(&namespace, &name, Some((&pod, stamp)));
        }
    }
}

fn stamp(pod: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in VARIABLE {
        scan::at(pod, path).hash(&mut hasher);
    }
    hasher.finish()
}

impl Follows for Nodes {
    fn take(&self, row: &Row, object: &Stored, there: bool) {
        let text = |path: &[&str]| scan::text(&object.json, path);
        let name = text(&["metadata", "name"]);
        match row.resource.as_str() {
            "pods" => self.take_pod(object, there),
            "persistentvolumes" => {
                let volume = serde_json::from_slice(&object.json).ok().filter(|_| there);
                self.graph.write().set_volume(&name, volume.as_ref());
            }
            resource => {
                let node = text(&["spec", "nodeName"]);
                let node = Some(&*node).filter(|_| there);
                let mut graph = self.graph.write();
                if resource == "volumeattachments" {
                    graph.set_attachment(&name, node);
                } else {
                    graph.set_slice(&name, node);
                }
            }
        }
    }

    fn forget(&self, row: &Row) {
        self.graph.write().forget(&row.resource);
    }
}

impl Authorizer for Nodes {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = user.node() else {
            return Decision::NoOpinion(String::new());
        };
        if node.is_empty() {
            return Decision::NoOpinion(format!("unknown node for user {:?}", user.name));
        }
        let ask = attributes.ask();
        let graph = self.graph.read();
        match decide(&graph, &self.rules, node, &ask, attributes.fields) {
            Answer::Allowed(why) => Decision::Allow(why),
            Answer::NoOpinion(why) => Decision::NoOpinion(why),
        }
    }

    /// What a node may cannot be told in rules.
    fn rules(&self, user: &User, _: &str) -> Option<oarlock_auth::SubjectRules> {
        user.node()?;
        Some(oarlock_auth::SubjectRules {
            problems: vec!["node authorizer does not support user rule resolution".to_owned()],
            ..oarlock_auth::SubjectRules::default()
        })
    }
}
