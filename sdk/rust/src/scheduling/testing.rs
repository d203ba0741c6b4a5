//! A little cluster for unit tests of plugins: natively, in no time, without a host.

use super::{Change, Events, NO_NODE, NodeChange, NodeSet, PlacedPod, Plugins, Usage};

/// Nodes, and the plugins that are asked about them.
#[derive(Debug)]
pub struct TestCluster {
    plugins: Plugins,
    names: Vec<String>,
}

/// What became of a pod on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It fits; the raw score of each scoring plugin.
    Fits(Vec<i64>),
    /// It does not: the plugin's name, and why.
    Refused(String, String),
}

impl TestCluster {
    /// A cluster without nodes: `TestCluster::new(component_plugins())`.
    pub fn new(mut plugins: Plugins) -> Self {
        plugins.interests();
        Self {
            plugins,
            names: Vec::new(),
        }
    }

    /// Gives a plugin its arguments.
    pub fn configure(&mut self, plugin: &str, args: &str) -> Result<(), String> {
        let index = self
            .plugins
            .plugins()
            .iter()
            .position(|info| info.name == plugin);
        let index = index.ok_or_else(|| format!("there is no plugin {plugin}"))?;
        self.plugins
            .configure(u32::try_from(index).unwrap_or(u32::MAX), args)
    }

    /// Adds a node (v1.Node as JSON), or replaces the one of the same name.
    pub fn node(&mut self, object: serde_json::Value) -> &mut Self {
        let name = object
            .pointer("/metadata/name")
            .and_then(|name| name.as_str())
            .unwrap_or_default()
            .to_owned();
        let id = self.slot(&name).unwrap_or_else(|| {
            self.names.push(name.clone());
            self.names.len() - 1
        });
        let change = NodeChange {
            id: u32::try_from(id).unwrap_or(u32::MAX),
            name,
            object: object.to_string(),
        };
        self.plugins.apply(vec![Change::NodeSet(change)]);
        self
    }

    /// Sets what pods use on a node.
    pub fn usage(&mut self, node: &str, mut usage: Usage) -> &mut Self {
        usage.id = self.id(node);
        self.plugins.apply(vec![Change::UsageSet(usage)]);
        self
    }

    /// Places a pod (v1.Pod as JSON) on a node.
    pub fn place(&mut self, node: &str, object: serde_json::Value) -> &mut Self {
        let uid = object
            .pointer("/metadata/uid")
            .and_then(|uid| uid.as_str())
            .unwrap_or_default()
            .to_owned();
        let placed = PlacedPod {
            uid,
            node: self.id(node),
            object: object.to_string(),
        };
        self.plugins.apply(vec![Change::PodPlaced(placed)]);
        self
    }

    /// Asks about a pod (v1.Pod as JSON) on every node, with all plugins enabled; by the order in which nodes were added.
    pub fn ask(&mut self, pod: serde_json::Value) -> Vec<(String, Answer)> {
        let infos = self.plugins.plugins();
        let all: Vec<u32> = (0..u32::try_from(infos.len()).unwrap_or(u32::MAX)).collect();
        let opened = self
            .plugins
            .open(&pod.to_string(), &all)
            .expect("a test's pod is readable");
        let codes = self.plugins.filter(opened.query, NodeSet::All);
        let scores = self.plugins.score(opened.query, NodeSet::All);
        let mut answers = Vec::new();
        for (slot, code) in codes.iter().copied().enumerate() {
            let answer = match code {
                NO_NODE => continue,
                0 => Answer::Fits(
                    scores
                        .iter()
                        .skip(slot)
                        .step_by(codes.len())
                        .copied()
                        .collect(),
                ),
                code => {
                    let verdict = self.plugins.why(opened.query, code);
                    Answer::Refused(
                        infos[verdict.plugin as usize].name.clone(),
                        verdict.reasons.join(", "),
                    )
                }
            };
            answers.push((self.names[slot].clone(), answer));
        }
        self.plugins.close(opened.query);
        answers
    }

    /// What wakes pods that a plugin refused.
    pub fn wakes_on(&self, plugin: &str) -> Events {
        let infos = self.plugins.plugins();
        infos
            .iter()
            .find(|info| info.name == plugin)
            .map_or(Events::empty(), |info| info.wakes_on)
    }

    fn slot(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    fn id(&self, name: &str) -> u32 {
        let slot = self
            .slot(name)
            .unwrap_or_else(|| panic!("there is no node {name}"));
        u32::try_from(slot).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scheduling::{Filter, NodeInfo, Plugin, Pod, Refusal, Score};

    #[derive(Default)]
    struct Zone;
    impl Plugin for Zone {
        const NAME: &'static str = "Zone";
    }
    impl Filter for Zone {
        fn filter(&self, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal> {
            match pod.label("zone") {
                Some(zone) if node.label("zone") != Some(zone) => {
                    Err(Refusal::new(format!("not in {zone}")))
                }
                _ => Ok(()),
            }
        }
    }
    #[derive(Default)]
    struct Crowd {
        limit: i64,
    }
    impl Plugin for Crowd {
        const NAME: &'static str = "Crowd";
        const WANTS_PODS: bool = true;
        fn configure(&mut self, args: &str) -> Result<(), String> {
            self.limit = args.parse().map_err(|_| "a number".to_owned())?;
            Ok(())
        }
    }
    impl Score for Crowd {
        fn score(&self, _pod: &Pod, node: &NodeInfo) -> i64 {
            self.limit - 60 * i64::try_from(node.pods.len()).expect("few")
        }
    }
    crate::export_plugins!(Zone: Filter, Crowd: Score);

    #[test]
    fn plugins_filter_and_score_what_is_mirrored() {
        let mut cluster = TestCluster::new(component_plugins());
        assert_eq!(
            cluster.configure("Crowd", "many"),
            Err("a number".to_owned())
        );
        cluster.configure("Crowd", "150").expect("configured");
        cluster.node(json!({"metadata": {"name": "a", "labels": {"zone": "x"}}}));
        cluster.node(json!({"metadata": {"name": "b", "labels": {"zone": "y"}}}));
        cluster
            .place("a", json!({"metadata": {"uid": "1"}}))
            .place("a", json!({"metadata": {"uid": "1"}}));
        let refused = Answer::Refused("Zone".into(), "not in x".into());
        let check = |cluster: &mut TestCluster, pod, expect: [Answer; 2]| {
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
            &mut cluster,
            json!({"metadata": {"labels": {"zone": "x"}}}),
            [Answer::Fits(vec![90]), refused],
        );
        check(
            &mut cluster,
            json!({}),
            [Answer::Fits(vec![90]), Answer::Fits(vec![100])],
        );
    }
}
