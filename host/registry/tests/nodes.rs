//! What a node may write, against the memory store: refusals are upstream's.

#![expect(clippy::unwrap_used, reason = "a test may fail here")]

mod house;

use std::sync::Arc;

use oarlock_model::{ApiResult, meta};
use oarlock_registry::{
    AuthorizationAttributes, AuthorizationDecision, Authorize, Body, Context, DeleteOptions,
    Target, User,
};
use serde_json::{Value, json};

use house::*;

fn node(name: &str) -> Context {
    let user = User {
        name: format!("system:node:{name}"),
        groups: vec!["system:nodes".to_owned()],
        ..User::default()
    };
    Context::new(Arc::new(user), now())
}

struct Nodes {
    house: House,
    uid: String,
}

impl Nodes {
    /// A node `n1`, and the pods `mine` on it and `other` on another.
    async fn new() -> Self {
        let house = House::new().await;
        let made = house
            .create("", "nodes", json!({"metadata": {"name": "n1"}}))
            .await
            .unwrap();
        for (name, of) in [("mine", "n1"), ("other", "n2")] {
            let mut pod = pod(name);
            pod["spec"]["nodeName"] = json!(of);
            house.create("", "pods", pod).await.unwrap();
        }
        let lease = json!({"metadata": {"name": "n1", "namespace": "kube-node-lease"}});
        let row = house
            .registry
            .kinds()
            .resource("coordination.k8s.io", "v1", "leases")
            .unwrap();
        let at = Target::new(&row, "kube-node-lease", "");
        house
            .registry
            .create(&ctx(), &at, Body::Value(lease))
            .await
            .unwrap();
        let uid = meta::uid(&made).to_owned();
        Self { house, uid }
    }

    async fn create(&self, group: &str, resource: &str, object: Value) -> ApiResult<Value> {
        let target = self.house.target(group, resource, "");
        self.house
            .registry
            .create(&node("n1"), &target, Body::Value(object))
            .await
            .map(|object| object.to_value().unwrap())
    }

    async fn update(&self, at: &str, change: impl FnOnce(&mut Value)) -> ApiResult<()> {
        let (resource, rest) = at.split_once('/').unwrap();
        let (name, subresource) = rest.split_once('/').unwrap_or((rest, ""));
        let mut object = self.house.get(resource, name).await.unwrap();
        change(&mut object);
        let mut target = self.house.target("", resource, name);
        subresource.clone_into(&mut target.subresource);
        self.house
            .registry
            .update(&node("n1"), &target, Body::Value(object))
            .await
            .map(drop)
    }

    async fn post(&self, at: &str, body: Value) -> ApiResult<()> {
        let [resource, name, subresource] = at.split('/').collect::<Vec<_>>()[..] else {
            panic!("{at}");
        };
        let mut target = self.house.target("", resource, name);
        subresource.clone_into(&mut target.subresource);
        if subresource == "token" {
            let mut body = body;
            return self
                .house
                .registry
                .admit_sub(&node("n1"), &target, &mut body)
                .await;
        }
        self.house
            .registry
            .create_sub(&node("n1"), &target, Body::Value(body))
            .await
            .map(drop)
    }

    fn mirror(&self, change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({
            "metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}, "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": self.uid, "controller": true,
            }]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
        });
        change(&mut pod);
        pod
    }
}

fn told<T: std::fmt::Debug>(outcome: ApiResult<T>) -> String {
    match outcome {
        Ok(_) => "yes".to_owned(),
        Err(error) => error.message,
    }
}

#[tokio::test]
async fn a_node_makes_mirror_pods_that_name_nothing() {
    let nodes = Nodes::new().await;
    let with = |pointer: &'static str, value: Value| {
        nodes.mirror(|pod| {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[field] = value;
        })
    };
    let volume = |volume: Value| with("/spec/volumes", json!([volume]));
    for (pod, why) in [
        (
            with("/metadata/annotations", json!({})),
            r#"pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods"#,
        ),
        (
            with("/spec/nodeName", json!("n2")),
            r#"node "n1" can only create pods with spec.nodeName set to itself"#,
        ),
        (
            with("/metadata/ownerReferences", json!([])),
            r#"node "n1" can only create pods with an owner reference set to itself"#,
        ),
        (
            with("/metadata/ownerReferences/0/name", json!("n2")),
            r#"node "n1" can only create pods with an owner reference set to itself"#,
        ),
        (
            with("/metadata/ownerReferences/0/controller", json!(false)),
            r#"node "n1" can only create pods with a controller owner reference set to itself"#,
        ),
        (
            with(
                "/metadata/ownerReferences/0/blockOwnerDeletion",
                json!(true),
            ),
            r#"node "n1" must not set blockOwnerDeletion on an owner reference"#,
        ),
        (
            with("/spec/serviceAccountName", json!("default")),
            "a mirror pod may not reference service accounts",
        ),
        (
            volume(json!({"name": "v", "secret": {"secretName": "s"}})),
            "a mirror pod may not reference secrets",
        ),
        (
            volume(json!({"name": "v", "configMap": {"name": "s"}})),
            r#"node "n1" can not create pods that reference configmaps"#,
        ),
        (
            volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "s"}})),
            r#"node "n1" can not create pods that reference persistentvolumeclaims"#,
        ),
    ] {
        let name = meta::name(&pod).to_owned();
        assert_eq!(
            told(nodes.create("", "pods", pod).await),
            format!("pods {name:?} is forbidden: {why}")
        );
    }
    let mut stranger = nodes.mirror(|_| {});
    stranger["metadata"]["ownerReferences"][0]["uid"] = json!("u");
    assert_eq!(
        told(nodes.create("", "pods", stranger).await),
        format!(
            r#"pods "m" is forbidden: node n1 UID mismatch: expected u got {}"#,
            nodes.uid
        )
    );
    assert_eq!(
        told(nodes.create("", "pods", nodes.mirror(|_| {})).await),
        "yes"
    );
}

#[tokio::test]
async fn a_node_writes_the_state_of_its_own() {
    let nodes = Nodes::new().await;
    let phase = |pod: &mut Value| pod["status"]["phase"] = json!("Running");
    assert_eq!(told(nodes.update("pods/mine/status", phase).await), "yes");
    assert_eq!(
        told(nodes.update("pods/other/status", phase).await),
        r#"pods "other" is forbidden: node "n1" can only update pod status for pods with spec.nodeName set to itself"#
    );
    let labels = |pod: &mut Value| pod["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(
        told(nodes.update("pods/mine/status", labels).await),
        r#"pods "mine" is forbidden: node "n1" cannot update labels through pod status"#
    );
    let claims = |pod: &mut Value| {
        pod["status"]["resourceClaimStatuses"] = json!([{"name": "a", "resourceClaimName": "b"}]);
    };
    assert_eq!(
        told(nodes.update("pods/mine/status", claims).await),
        r#"pods "mine" is forbidden: node "n1" cannot update resource claim statues"#
    );
    assert_eq!(
        told(nodes.update("pods/mine", labels).await),
        r#"pods "mine" is forbidden: unexpected operation "UPDATE", node "n1" can only create and delete mirror pods"#
    );
    assert_eq!(
        told(nodes.update("pods/mine/ephemeralcontainers", |_| {}).await),
        r#"pods "mine" is forbidden: unexpected pod subresource "ephemeralcontainers", only 'status' and 'eviction' are allowed"#
    );
    for (name, why) in [
        ("mine", "yes"),
        (
            "other",
            r#"pods "other" is forbidden: node n1 can only evict pods with spec.nodeName set to itself"#,
        ),
        ("none", r#"pod "none" not found"#),
    ] {
        let body = json!({"metadata": {"name": name}});
        assert_eq!(
            told(nodes.post(&format!("pods/{name}/eviction"), body).await),
            why
        );
    }
    let other = nodes.house.target("", "pods", "other");
    let gone = nodes
        .house
        .registry
        .delete(&node("n1"), &other, &DeleteOptions::default())
        .await;
    assert_eq!(
        told(gone),
        r#"pods "other" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself"#
    );
}

#[tokio::test]
async fn a_node_is_itself() {
    let nodes = Nodes::new().await;
    assert_eq!(
        told(
            nodes
                .create("", "nodes", json!({"metadata": {"name": "n2"}}))
                .await
        ),
        r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#
    );
    let taints = |node: &mut Value| node["spec"]["taints"] = json!([]);
    assert_eq!(
        told(nodes.update("nodes/n1", taints).await),
        r#"nodes "n1" is forbidden: node "n1" is not allowed to modify taints"#
    );
    let labels = |node: &mut Value| {
        node["metadata"]["labels"] =
            json!({"kubernetes.io/os": "linux", "kubernetes.io/x": "y", "own": "z"});
    };
    for at in ["nodes/n1", "nodes/n1/status"] {
        assert_eq!(
            told(nodes.update(at, labels).await),
            r#"nodes "n1" is forbidden: is not allowed to modify labels: kubernetes.io/x"#
        );
    }
    let fine = |node: &mut Value| {
        node["metadata"]["labels"] = json!({"kubernetes.io/os": "linux", "own": "z"});
        node["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    };
    assert_eq!(told(nodes.update("nodes/n1/status", fine).await), "yes");
    assert_eq!(
        told(
            nodes
                .create(
                    "storage.k8s.io",
                    "csinodes",
                    json!({"metadata": {"name": "n2"}, "spec": {"drivers": []}})
                )
                .await
        ),
        r#"csinodes.storage.k8s.io "n2" is forbidden: can only access CSINode with the same name as the requesting node"#
    );
    assert_eq!(
        told(
            nodes
                .create(
                    "coordination.k8s.io",
                    "leases",
                    json!({"metadata": {"name": "n1"}})
                )
                .await
        ),
        r#"leases.coordination.k8s.io "n1" is forbidden: can only access leases in the "kube-node-lease" system namespace"#
    );
    let slice = |node: &str| {
        json!({"metadata": {"name": format!("s-{node}")}, "spec": {"nodeName": node, "driver": "d.example",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
    };
    assert_eq!(
        told(
            nodes
                .create("resource.k8s.io", "resourceslices", slice("n2"))
                .await
        ),
        r#"resourceslices.resource.k8s.io "s-n2" is forbidden: can only create ResourceSlice with the same NodeName as the requesting node"#
    );
    assert_eq!(
        told(
            nodes
                .create("resource.k8s.io", "resourceslices", slice("n1"))
                .await
        ),
        "yes"
    );
    let mut unnamed = node("");
    unnamed.user = Arc::new(User {
        name: "system:node:".to_owned(),
        ..(*unnamed.user).clone()
    });
    let target = nodes.house.target("", "nodes", "n1");
    let gone = nodes
        .house
        .registry
        .delete(&unnamed, &target, &DeleteOptions::default())
        .await;
    assert_eq!(
        told(gone),
        r#"nodes "n1" is forbidden: could not determine node from user "system:node:""#
    );
}

#[tokio::test]
async fn a_node_has_tokens_for_its_pods() {
    #[derive(Debug)]
    struct Granted;
    impl Authorize for Granted {
        fn decide(&self, _: &User, asked: &AuthorizationAttributes) -> AuthorizationDecision {
            AuthorizationDecision {
                allowed: asked.verb == "request-serviceaccounts-token-audience"
                    && asked.resource == "granted"
                    && asked.name == "default",
                ..AuthorizationDecision::default()
            }
        }
    }
    let nodes = Nodes::new().await;
    nodes.house.registry.set_authorizer(Arc::new(Granted));
    let uid = |pod: &Value| meta::uid(pod).to_owned();
    let mine = uid(&nodes.house.get("pods", "mine").await.unwrap());
    let other = uid(&nodes.house.get("pods", "other").await.unwrap());
    let bound = |name: &str, uid: &str, audiences: Value| {
        json!({"spec": {"audiences": audiences,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}})
    };
    for (body, why) in [
        (
            json!({"spec": {}}),
            "node requested token not bound to a pod",
        ),
        (
            bound("mine", "", json!([])),
            "node requested token with a pod binding without a uid",
        ),
        (
            bound("mine", "u", json!([])),
            "the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (
            bound("other", &other, json!([])),
            "node requested token bound to a pod scheduled on a different node",
        ),
        (
            bound("mine", &mine, json!(["a", "b"])),
            "node may only request 0 or 1 audiences",
        ),
        (
            bound("mine", &mine, json!(["far"])),
            r#"audience "far" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"#,
        ),
    ] {
        assert_eq!(
            told(nodes.post("serviceaccounts/default/token", body).await),
            format!(r#"serviceaccounts "default" is forbidden: {why}"#)
        );
    }
    // Its pod's own volume asks for a token for this server.
    for audiences in [json!([]), json!(["granted"])] {
        let body = bound("mine", &mine, audiences);
        assert_eq!(
            told(nodes.post("serviceaccounts/default/token", body).await),
            "yes"
        );
    }
    let body = bound("none", "u", json!([]));
    assert_eq!(
        told(nodes.post("serviceaccounts/default/token", body).await),
        r#"pod "none" not found"#
    );
}
