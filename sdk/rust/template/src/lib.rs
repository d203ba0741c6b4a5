//! MyPlugin: keeps pods off nodes with too many of them, and prefers nodes with few.
//!
//! Replace this rule with yours. Arguments come from the profile: `pluginConfig: [{name: MyPlugin, args: {maxPods: 50}}]`.

use oarlock_sdk::scheduling::{Filter, NodeInfo, Normalization, Plugin, Pod, Refusal, Score};

/// The plugin's arguments; an unknown one is an error.
#[derive(Debug, serde::Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Args {
    max_pods: u32,
}

impl Default for Args {
    fn default() -> Self {
        Self { max_pods: 100 }
    }
}

/// The plugin.
#[derive(Debug, Default)]
pub struct MyPlugin {
    args: Args,
}

impl Plugin for MyPlugin {
    const NAME: &'static str = "MyPlugin";

    fn configure(&mut self, args: &str) -> Result<(), String> {
        self.args = serde_json::from_str(args).map_err(|error| error.to_string())?;
        Ok(())
    }
}

impl Filter for MyPlugin {
    fn filter(&self, _pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
        if node.usage.pods < self.args.max_pods {
            return Ok(());
        }
        Err(Refusal::new(format!(
            "node(s) had {} pods already",
            self.args.max_pods
        )))
    }
}

impl Score for MyPlugin {
    // Few pods are better: the emptiest node gets 100.
    const NORMALIZATION: Normalization = Normalization::ByMaximumReversed;

    fn score(&self, _pod: &Pod, node: &NodeInfo) -> i64 {
        i64::from(node.usage.pods)
    }
}

oarlock_sdk::export_plugins!(MyPlugin: Filter + Score);

#[cfg(test)]
mod tests {
    use oarlock_sdk::scheduling::testing::{Answer, TestCluster};
    use oarlock_sdk::scheduling::usage_of;
    use serde_json::json;

    use super::component_plugins;

    #[test]
    fn crowded_nodes_are_refused() {
        let mut cluster = TestCluster::new(component_plugins());
        cluster
            .configure("MyPlugin", r#"{"maxPods": 3}"#)
            .expect("good arguments");
        cluster.node(json!({"metadata": {"name": "empty"}}));
        cluster.node(json!({"metadata": {"name": "full"}}));
        cluster.usage("full", usage_of(3));
        let answers = cluster.ask(json!({"metadata": {"name": "pod"}}));
        assert_eq!(answers[0], ("empty".to_owned(), Answer::Fits(vec![0])));
        assert_eq!(
            answers[1],
            (
                "full".to_owned(),
                Answer::Refused(
                    "MyPlugin".to_owned(),
                    "node(s) had 3 pods already".to_owned()
                )
            )
        );
    }

    #[test]
    fn unknown_arguments_are_refused() {
        let mut cluster = TestCluster::new(component_plugins());
        assert!(cluster.configure("MyPlugin", r#"{"maximum": 3}"#).is_err());
    }
}
