//! The bundle as a component: from the contract's types to ours and back.

use oarlock_sdk::scheduling::{
    Bundle, Candidates, Change, Events, Interest, NodeSet, Normalization, Opened, PluginInfo,
    Points, Queue, Scope, Source, Verdict,
};

use crate::describe::{self, Description};
use crate::{api, bundle};

pub struct Component(bundle::Bundle);

oarlock_sdk::export_bundle!(Component: Queue);

fn nodes(set: &NodeSet) -> api::Nodes<'_> {
    match set {
        NodeSet::All => api::Nodes::All,
        NodeSet::Some(list) => api::Nodes::Some(list),
    }
}

fn verdict(v: api::Verdict) -> Verdict {
    Verdict {
        plugin: v.plugin,
        unresolvable: v.unresolvable,
        reasons: v.reasons,
    }
}

fn info(d: Description) -> PluginInfo {
    let points = [
        (d.pre_enqueue, Points::PRE_ENQUEUE),
        (d.queue_sort, Points::QUEUE_SORT),
        (d.pre_filter, Points::PRE_FILTER),
        (d.filter, Points::FILTER),
        (d.pre_score, Points::PRE_SCORE),
        (d.score, Points::SCORE),
    ];
    let wakes = [
        (d.wakes.node_add, Events::NODE_ADD),
        (d.wakes.allocatable, Events::NODE_ALLOCATABLE),
        (d.wakes.label, Events::NODE_LABEL),
        (d.wakes.taint, Events::NODE_TAINT),
        (d.wakes.pod_delete, Events::POD_DELETE),
        (d.wakes.pod_update, Events::POD_UPDATE),
    ];
    PluginInfo {
        name: d.name.to_owned(),
        points: points
            .iter()
            .filter(|p| p.0)
            .fold(Points::empty(), |all, p| all | p.1),
        filter_scope: Scope::NodeLocal,
        score_scope: if d.score_by_node_objects {
            Scope::NodeObjects
        } else {
            Scope::NodeLocal
        },
        normalization: match d.normalization {
            describe::Normalization::None => Normalization::None,
            describe::Normalization::ByMaximum => Normalization::ByMaximum,
            describe::Normalization::ByMaximumReversed => Normalization::ByMaximumReversed,
        },
        default_weight: d.weight,
        wakes_on: wakes
            .iter()
            .filter(|w| w.0)
            .fold(Events::empty(), |all, w| all | w.1),
    }
}

impl Bundle for Component {
    fn new() -> Self {
        Self(bundle::Bundle::new())
    }

    fn interests(&mut self) -> Vec<Interest> {
        let pointers = describe::NODE_POINTERS
            .iter()
            .map(|p| (*p).to_owned())
            .collect();
        vec![
            Interest {
                source: Source::Nodes,
                pointers,
            },
            Interest {
                source: Source::Usage,
                pointers: Vec::new(),
            },
        ]
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::NodeSet(node) => self.0.set_node(node.id, &node.name, &node.object),
                Change::NodeGone(id) => self.0.remove_node(id),
                Change::UsageSet(u) => {
                    let ports = u.ports.into_iter();
                    let usage = api::Usage {
                        pods: u.pods,
                        cpu_milli: u.cpu_milli,
                        memory: u.memory,
                        ephemeral_storage: u.ephemeral_storage,
                        nonzero_cpu_milli: u.nonzero_cpu_milli,
                        nonzero_memory: u.nonzero_memory,
                        others: u
                            .others
                            .into_iter()
                            .map(|a| (a.resource, a.value))
                            .collect(),
                        ports: ports
                            .map(|p| api::HostPort {
                                ip: p.ip,
                                protocol: p.protocol,
                                port: p.port,
                            })
                            .collect(),
                    };
                    self.0.set_usage(u.id, usage);
                }
                Change::PodPlaced(_)
                | Change::PodGone(_)
                | Change::ObjectSet(_)
                | Change::ObjectGone(_) => {}
            }
        }
    }

    fn plugins(&mut self) -> Vec<PluginInfo> {
        describe::all().into_iter().map(info).collect()
    }

    fn configure(&mut self, plugin: u32, args: &str) -> Result<(), String> {
        self.0.configure(plugin, args)
    }

    fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Opened, Verdict> {
        self.0.open(pod, plugins).map_err(verdict).map(|o| Opened {
            query: o.query,
            filters: o.filters,
            scores: o.scores,
            candidates: o
                .candidates
                .map(|(nodes, plugins)| Candidates { nodes, plugins }),
        })
    }

    fn filter(&mut self, query: u32, set: NodeSet) -> Vec<u32> {
        self.0.filter(query, nodes(&set))
    }

    fn score(&mut self, query: u32, set: NodeSet) -> Vec<i64> {
        self.0.score(query, nodes(&set))
    }

    fn why(&mut self, query: u32, code: u32) -> Verdict {
        verdict(self.0.why(query, code))
    }

    fn explain(&mut self, query: u32, node: u32) -> Vec<Verdict> {
        self.0
            .explain(query, node)
            .into_iter()
            .map(verdict)
            .collect()
    }

    fn close(&mut self, query: u32) {
        self.0.close(query);
    }
}

impl Queue for Component {
    fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Option<Verdict> {
        self.0.pre_enqueue(pod, plugins).map(verdict)
    }

    fn sort_key(&mut self, pod: &str, _plugin: u32, queued_at: u64) -> (i64, u64) {
        self.0.sort_key(pod, queued_at)
    }
}
