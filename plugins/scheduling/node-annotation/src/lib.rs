//! An example of a filter: a node's annotation must equal the pod's.
//!
//! A pod that carries the annotation `oarlock.dev/pool` (or the one that `args` name: `{"annotation": "…"}`) goes only to
//! nodes that carry the same one with the same value. Other pods go anywhere.

use oarlock_sdk::scheduling::{Events, Filter, NodeInfo, Plugin, Pod, Refusal};

/// The plugin's arguments.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Args {
    annotation: String,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            annotation: "oarlock.dev/pool".to_owned(),
        }
    }
}

/// The plugin.
#[derive(Debug, Default)]
pub struct NodeAnnotation {
    args: Args,
}

impl Plugin for NodeAnnotation {
    const NAME: &'static str = "NodeAnnotation";

    fn configure(&mut self, args: &str) -> Result<(), String> {
        self.args = serde_json::from_str(args).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn applies(&self, pod: &Pod) -> bool {
        pod.annotation(&self.args.annotation).is_some()
    }
}

impl Filter for NodeAnnotation {
    fn wakes_on() -> Events {
        Events::NODE_ADD | Events::NODE_ANNOTATION | Events::POD_UPDATE
    }

    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
        let key = &self.args.annotation;
        if node.annotation(key) == pod.annotation(key) {
            return Ok(());
        }
        // No eviction changes a node's annotations.
        Err(Refusal::unresolvable(format!(
            "node(s) didn't match the pod's annotation {key}"
        )))
    }
}

oarlock_sdk::export_plugins!(NodeAnnotation: Filter);

#[cfg(test)]
mod tests {
    use oarlock_sdk::scheduling::testing::{Answer, TestCluster};
    use serde_json::json;

    use super::component_plugins;

    #[test]
    fn pods_go_to_nodes_with_their_annotation() {
        let refused = || {
            let reason = "node(s) didn't match the pod's annotation oarlock.dev/pool";
            Answer::Refused("NodeAnnotation".to_owned(), reason.to_owned())
        };
        let fits = || Answer::Fits(vec![]);
        let check = |pod, expect: [Answer; 3]| {
            let mut cluster = TestCluster::new(component_plugins());
            cluster
                .configure("NodeAnnotation", "{}")
                .expect("good arguments");
            cluster
                .node(json!({"metadata": {"name": "a", "annotations": {"oarlock.dev/pool": "a"}}}));
            cluster
                .node(json!({"metadata": {"name": "b", "annotations": {"oarlock.dev/pool": "b"}}}));
            cluster.node(json!({"metadata": {"name": "none"}}));
            assert_eq!(
                cluster
                    .ask(pod)
                    .into_iter()
                    .map(|(_, answer)| answer)
                    .collect::<Vec<_>>(),
                expect
            );
        };
        check(
            json!({"metadata": {"annotations": {"oarlock.dev/pool": "a"}}}),
            [fits(), refused(), refused()],
        );
        check(
            json!({"metadata": {"annotations": {"oarlock.dev/pool": "c"}}}),
            [refused(), refused(), refused()],
        );
        check(
            json!({"metadata": {"annotations": {"else": "a"}}}),
            [fits(), fits(), fits()],
        );
    }
}
