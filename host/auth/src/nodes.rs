//! What a node may do: its own objects, and those that its pods need.
//!
//! Cost of a question: a few hash look-ups (for a secret, one more for each volume that needs it), whatever else there is.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/node/>

mod graph;

use oarlock_model::FieldSelector;

pub use graph::{Graph, Thing};

use crate::{Answer, Ask, Rule};

const LEASES: &str = "kube-node-lease";

/// What nodes may ask for at all, in rules.
pub fn rules() -> Vec<Rule> {
    crate::defaults::node_rules()
}

/// Whether `node` may; `rules` are for what is not narrowed down here. `fields`: what a list, a watch or the deletion of a
/// collection is limited to.
pub fn decide(
    graph: &Graph,
    rules: &[Rule],
    node: &str,
    ask: &Ask<'_>,
    fields: Option<&FieldSelector>,
) -> Answer {
    let question = Question {
        graph,
        node,
        ask,
        fields,
    };
    let by_kind = if ask.is_resource {
        question.by_kind()
    } else {
        None
    };
    match by_kind {
        Some(Ok(())) => Answer::Allowed(String::new()),
        Some(Err(why)) => Answer::NoOpinion(why),
        None if rules.iter().any(|rule| rule.allows(ask)) => Answer::Allowed(String::new()),
        None => Answer::NoOpinion(String::new()),
    }
}

type Outcome = Result<(), String>;

fn refused(why: &str) -> Outcome {
    Err(why.to_owned())
}

struct Question<'a> {
    graph: &'a Graph,
    node: &'a str,
    ask: &'a Ask<'a>,
    fields: Option<&'a FieldSelector>,
}

impl Question<'_> {
    /// `None`: all nodes alike, by the rules.
    fn by_kind(&self) -> Option<Outcome> {
        let ask = self.ask;
        Some(match (ask.group, ask.resource) {
            ("", "secrets") => self.read(Thing::Secret),
            ("", "configmaps") => self.read(Thing::ConfigMap),
            ("", "persistentvolumeclaims") if ask.subresource == "status" => {
                self.update_status(Thing::Claim)
            }
            ("", "persistentvolumeclaims") => self.get(Thing::Claim),
            ("", "persistentvolumes") => self.get(Thing::Volume),
            ("resource.k8s.io", "resourceclaims") => self.get(Thing::ResourceClaim),
            ("storage.k8s.io", "volumeattachments") => self.get(Thing::Attachment),
            ("", "serviceaccounts") => self.account(),
            ("coordination.k8s.io", "leases") => self.lease(),
            ("storage.k8s.io", "csinodes") => self.csi_node(),
            ("resource.k8s.io", "resourceslices") => self.slice(),
            ("", "nodes") => self.nodes(),
            ("", "pods") => self.pods(),
            _ => return None,
        })
    }

    fn verb_is(&self, verbs: &[&str]) -> bool {
        verbs.contains(&self.ask.verb)
    }

    fn selects(&self, field: &str) -> bool {
        self.fields
            .is_some_and(|fields| fields.exact(field) == Some(self.node))
    }

    fn related(&self, thing: Thing) -> Outcome {
        let (namespace, name) = (self.ask.namespace, self.ask.name);
        if name.is_empty() {
            return refused("No Object name found");
        }
        if self.graph.related(self.node, thing, namespace, name) {
            return Ok(());
        }
        Err(format!(
            "no relationship found between node '{}' and this object",
            self.node
        ))
    }

    fn read(&self, thing: Thing) -> Outcome {
        if !self.verb_is(&["get", "list", "watch"]) {
            return refused("can only read resources of this type");
        }
        if !self.ask.subresource.is_empty() {
            return refused("cannot read subresource");
        }
        if self.ask.namespace.is_empty() {
            return refused("can only read namespaced object of this type");
        }
        self.related(thing)
    }

    fn get(&self, thing: Thing) -> Outcome {
        if self.ask.verb != "get" {
            return refused("can only get individual resources of this type");
        }
        if !self.ask.subresource.is_empty() {
            return refused("cannot get subresource");
        }
        self.related(thing)
    }

    fn update_status(&self, thing: Thing) -> Outcome {
        if !self.verb_is(&["update", "patch"]) {
            return refused("can only get/update/patch this type");
        }
        self.related(thing)
    }

    fn account(&self) -> Outcome {
        let ask = self.ask;
        if ask.verb == "get" && ask.subresource.is_empty() {
            return self.get(Thing::ServiceAccount);
        }
        if ask.verb != "create" || ask.name.is_empty() {
            return refused("can only create tokens for individual service accounts");
        }
        if ask.subresource != "token" {
            return refused("can only create token subresource of serviceaccount");
        }
        self.related(Thing::ServiceAccount)
    }

    fn lease(&self) -> Outcome {
        if !self.verb_is(&["get", "create", "update", "patch", "delete"]) {
            return refused("can only get, create, update, patch, or delete a node lease");
        }
        if self.ask.namespace != LEASES {
            return Err(format!(
                "can only access leases in the {LEASES:?} system namespace"
            ));
        }
        // Admission looks at the name of one that is made.
        if self.ask.verb != "create" && self.ask.name != self.node {
            return refused("can only access node lease with the same name as the requesting node");
        }
        Ok(())
    }

    fn csi_node(&self) -> Outcome {
        if !self.verb_is(&["get", "create", "update", "patch", "delete"]) {
            return refused("can only get, create, update, patch, or delete a CSINode");
        }
        if !self.ask.subresource.is_empty() {
            return refused("cannot authorize CSINode subresources");
        }
        if self.ask.verb != "create" && self.ask.name != self.node {
            return refused("can only access CSINode with the same name as the requesting node");
        }
        Ok(())
    }

    fn slice(&self) -> Outcome {
        if !self.ask.subresource.is_empty() {
            return refused("cannot authorize ResourceSlice subresources");
        }
        match self.ask.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(Thing::Slice),
            "watch" | "list" | "deletecollection" if self.selects("spec.nodeName") => Ok(()),
            "watch" | "list" | "deletecollection" => refused(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => refused(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn nodes(&self) -> Outcome {
        let node = self.node;
        match (self.ask.subresource, self.ask.verb) {
            // Admission sees to it that it is the node's own.
            ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
            // By name: a kubelet looks for its object before it makes it.
            ("", "get" | "list" | "watch") => match self.ask.name {
                name if name == node => Ok(()),
                "" => Err(format!(
                    "node '{node}' cannot read all nodes, only its own Node object"
                )),
                name => Err(format!(
                    "node '{node}' cannot read '{name}', only its own Node object"
                )),
            },
            _ => refused(""),
        }
    }

    fn pods(&self) -> Outcome {
        match (self.ask.subresource, self.ask.verb) {
            ("", "get") => self.get(Thing::Pod),
            ("", "list" | "watch") => {
                if self.selects("spec.nodeName") {
                    return Ok(());
                }
                if !self.ask.name.is_empty() {
                    return self.related(Thing::Pod);
                }
                refused("can only list/watch pods with spec.nodeName field selector")
            }
            // Admission narrows them down to pods of the node.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                Ok(())
            }
            _ => refused(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph() -> Graph {
        let mut graph = Graph::default();
        let pod = json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {
            "nodeName": "n1", "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "s"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "w", "configMap": {"name": "m"}}],
        }});
        graph.set_pod("ns", "p", Some((&pod, 0)));
        let volume = json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"},
            "csi": {"nodeStageSecretRef": {"namespace": "far", "name": "vs"}}}});
        graph.set_volume("pv", Some(&volume));
        graph.set_attachment("va", Some("n1"));
        graph.set_slice("slice", Some("n1"));
        graph
    }

    /// `verb group resource[/sub] namespace name [field=value]`, with `-` for nothing.
    fn why(node: &str, line: &str) -> String {
        let graph = graph();
        let words: Vec<&str> = line
            .split(' ')
            .map(|w| if w == "-" { "" } else { w })
            .collect();
        let (resource, subresource) = words[2].split_once('/').unwrap_or((words[2], ""));
        let ask = Ask {
            verb: words[0],
            is_resource: true,
            group: words[1],
            resource,
            subresource,
            namespace: words[3],
            name: words[4],
            path: "",
        };
        let fields = words.get(5).map(|text| FieldSelector::parse(text).unwrap());
        match decide(&graph, &rules(), node, &ask, fields.as_ref()) {
            Answer::Allowed(_) => "yes".to_owned(),
            Answer::NoOpinion(why) => why,
        }
    }

    #[test]
    fn a_node_has_what_its_pods_need() {
        for line in [
            "get - secrets ns s",
            "list - secrets ns s",
            "watch - configmaps ns m",
            "get - persistentvolumeclaims ns c",
            "patch - persistentvolumeclaims/status ns c",
            "get - persistentvolumes - pv",
            "get - secrets far vs",
            "get storage.k8s.io volumeattachments - va",
            "get - serviceaccounts ns sa",
            "create - serviceaccounts/token ns sa",
            "get - pods ns p",
            "watch - pods ns p",
            "update resource.k8s.io resourceslices - slice",
        ] {
            assert_eq!(why("n1", line), "yes", "{line}");
            assert_eq!(
                why("n2", line),
                "no relationship found between node 'n2' and this object",
                "{line}"
            );
        }
    }

    #[test]
    fn a_node_has_what_is_its_own_and_what_all_have() {
        for line in [
            "create - nodes - -",
            "get - nodes - n1",
            "watch - nodes - n1",
            "patch - nodes/status - n1",
            "list - pods - - spec.nodeName=n1",
            "create - pods ns -",
            "delete - pods ns other",
            "update - pods/status ns other",
            "create - pods/eviction ns other",
            "create coordination.k8s.io leases kube-node-lease -",
            "update coordination.k8s.io leases kube-node-lease n1",
            "create storage.k8s.io csinodes - -",
            "get storage.k8s.io csinodes - n1",
            "create resource.k8s.io resourceslices - -",
            "deletecollection resource.k8s.io resourceslices - - spec.nodeName=n1",
            "list - services - -",
            "create - events ns -",
            "create certificates.k8s.io certificatesigningrequests - -",
            "create authentication.k8s.io tokenreviews - -",
            "create authorization.k8s.io subjectaccessreviews - -",
            "watch node.k8s.io runtimeclasses - -",
            "list storage.k8s.io csidrivers - -",
        ] {
            assert_eq!(why("n1", line), "yes", "{line}");
        }
    }

    #[test]
    fn refusals_are_upstreams() {
        for (line, expect) in [
            (
                "update - secrets ns s",
                "can only read resources of this type",
            ),
            ("get - secrets/x ns s", "cannot read subresource"),
            (
                "list - secrets - -",
                "can only read namespaced object of this type",
            ),
            ("list - secrets ns -", "No Object name found"),
            (
                "list - persistentvolumes - -",
                "can only get individual resources of this type",
            ),
            (
                "get - persistentvolumes/status - pv",
                "cannot get subresource",
            ),
            (
                "get - persistentvolumeclaims/status ns c",
                "can only get/update/patch this type",
            ),
            (
                "list - serviceaccounts ns -",
                "can only create tokens for individual service accounts",
            ),
            (
                "create - serviceaccounts/other ns sa",
                "can only create token subresource of serviceaccount",
            ),
            (
                "list coordination.k8s.io leases kube-node-lease -",
                "can only get, create, update, patch, or delete a node lease",
            ),
            (
                "get coordination.k8s.io leases ns n1",
                r#"can only access leases in the "kube-node-lease" system namespace"#,
            ),
            (
                "get coordination.k8s.io leases kube-node-lease n2",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "list storage.k8s.io csinodes - -",
                "can only get, create, update, patch, or delete a CSINode",
            ),
            (
                "get storage.k8s.io csinodes/status - n1",
                "cannot authorize CSINode subresources",
            ),
            (
                "get storage.k8s.io csinodes - n2",
                "can only access CSINode with the same name as the requesting node",
            ),
            (
                "get resource.k8s.io resourceslices/status - slice",
                "cannot authorize ResourceSlice subresources",
            ),
            (
                "list resource.k8s.io resourceslices - - spec.nodeName=n2",
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            (
                "proxy resource.k8s.io resourceslices - slice",
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
            (
                "list - nodes - -",
                "node 'n1' cannot read all nodes, only its own Node object",
            ),
            (
                "get - nodes - n2",
                "node 'n1' cannot read 'n2', only its own Node object",
            ),
            ("delete - nodes - n1", ""),
            (
                "list - pods ns -",
                "can only list/watch pods with spec.nodeName field selector",
            ),
            (
                "list - pods - - spec.nodeName=n2",
                "can only list/watch pods with spec.nodeName field selector",
            ),
            ("create - pods/exec ns p", ""),
            ("list apps deployments - -", ""),
        ] {
            assert_eq!(why("n1", line), expect, "{line}");
        }
    }
}
