//! The default plugins as a native engine: what the WASM component is compared with.

use default_scheduler::Bundle;
use default_scheduler::api;
use default_scheduler::plugins as p;
use oarlock_scheduler::PlacementEngine;
use oarlock_wasm::Error;
use oarlock_wasm::scheduler::{
    Candidates, Change, Events, Interest, NodeSet, Normalization, Opened, PluginInfo, Points,
    Scope, Source, Verdict,
};

pub struct NativeEngine {
    bundle: Bundle,
    plugins: Vec<PluginInfo>,
}

impl NativeEngine {
    pub fn new() -> Self {
        Self {
            bundle: Bundle::new(),
            plugins: plugins(),
        }
    }
}

fn plugins() -> Vec<PluginInfo> {
    default_scheduler::describe::all()
        .into_iter()
        .map(|d| {
            let flag = |on: bool, points: Points| if on { points } else { Points::empty() };
            let wakes = |on: bool, events: Events| if on { events } else { Events::empty() };
            PluginInfo {
                name: d.name.to_owned(),
                points: flag(d.pre_enqueue, Points::PRE_ENQUEUE)
                    | flag(d.queue_sort, Points::QUEUE_SORT)
                    | flag(d.pre_filter, Points::PRE_FILTER)
                    | flag(d.filter, Points::FILTER)
                    | flag(d.pre_score, Points::PRE_SCORE)
                    | flag(d.score, Points::SCORE),
                filter_scope: Scope::NodeLocal,
                score_scope: if d.score_by_node_objects {
                    Scope::NodeObjects
                } else {
                    Scope::NodeLocal
                },
                normalization: match d.normalization {
                    default_scheduler::describe::Normalization::None => Normalization::None,
                    default_scheduler::describe::Normalization::ByMaximum => {
                        Normalization::ByMaximum
                    }
                    default_scheduler::describe::Normalization::ByMaximumReversed => {
                        Normalization::ByMaximumReversed
                    }
                },
                default_weight: d.weight,
                wakes_on: wakes(d.wakes.node_add, Events::NODE_ADD)
                    | wakes(d.wakes.allocatable, Events::NODE_ALLOCATABLE)
                    | wakes(d.wakes.label, Events::NODE_LABEL)
                    | wakes(d.wakes.taint, Events::NODE_TAINT)
                    | wakes(d.wakes.pod_delete, Events::POD_DELETE)
                    | wakes(d.wakes.pod_update, Events::POD_UPDATE),
            }
        })
        .collect()
}

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

impl PlacementEngine for NativeEngine {
    fn plugins(&self) -> &[PluginInfo] {
        &self.plugins
    }
    fn configure(&mut self, plugin: u32, args: &str) -> Result<Result<(), String>, Error> {
        Ok(self.bundle.configure(plugin, args))
    }
    fn interests(&mut self) -> Result<Vec<Interest>, Error> {
        let pointers = default_scheduler::describe::NODE_POINTERS
            .iter()
            .map(|p| (*p).to_owned())
            .collect();
        Ok(vec![
            Interest {
                source: Source::Nodes,
                pointers,
            },
            Interest {
                source: Source::Usage,
                pointers: Vec::new(),
            },
        ])
    }
    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        for change in changes {
            match change {
                Change::NodeSet(node) => self.bundle.set_node(node.id, &node.name, &node.object),
                Change::NodeGone(id) => self.bundle.remove_node(*id),
                Change::UsageSet(u) => {
                    let ports = u.ports.iter();
                    let usage = api::Usage {
                        pods: u.pods,
                        cpu_milli: u.cpu_milli,
                        memory: u.memory,
                        ephemeral_storage: u.ephemeral_storage,
                        nonzero_cpu_milli: u.nonzero_cpu_milli,
                        nonzero_memory: u.nonzero_memory,
                        others: u
                            .others
                            .iter()
                            .map(|a| (a.resource.clone(), a.value))
                            .collect(),
                        ports: ports
                            .map(|p| api::HostPort {
                                ip: p.ip.clone(),
                                protocol: p.protocol.clone(),
                                port: p.port,
                            })
                            .collect(),
                    };
                    self.bundle.set_usage(u.id, usage);
                }
                _ => {}
            }
        }
        Ok(())
    }
    fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Result<Opened, Verdict>, Error> {
        Ok(self
            .bundle
            .open(pod, plugins)
            .map_err(verdict)
            .map(|o| Opened {
                query: o.query,
                filters: o.filters,
                scores: o.scores,
                candidates: o
                    .candidates
                    .map(|(nodes, plugins)| Candidates { nodes, plugins }),
            }))
    }
    fn filter(&mut self, opened: &Opened, set: &NodeSet) -> Result<Vec<u32>, Error> {
        Ok(self.bundle.filter(opened.query, nodes(set)))
    }
    fn score(&mut self, opened: &Opened, set: &NodeSet) -> Result<Vec<i64>, Error> {
        Ok(self.bundle.score(opened.query, nodes(set)))
    }
    fn why(&mut self, query: u32, code: u32) -> Result<Verdict, Error> {
        Ok(verdict(self.bundle.why(query, code)))
    }
    fn explain(&mut self, query: u32, node: u32) -> Result<Vec<Verdict>, Error> {
        Ok(self
            .bundle
            .explain(query, node)
            .into_iter()
            .map(verdict)
            .collect())
    }
    fn close(&mut self, query: u32) -> Result<(), Error> {
        self.bundle.close(query);
        Ok(())
    }
    fn has_queue(&self) -> bool {
        true
    }
    fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Result<Option<Verdict>, Error> {
        Ok(self.bundle.pre_enqueue(pod, plugins).map(verdict))
    }
    fn sort_key(&mut self, pod: &str, plugin: u32, queued_at_ms: u64) -> Result<(i64, u64), Error> {
        debug_assert_eq!(plugin, p::PRIORITY_SORT);
        Ok(self.bundle.sort_key(pod, queued_at_ms))
    }
    fn respawn(&self) -> Result<Box<dyn PlacementEngine>, Error> {
        Ok(Box::new(Self::new()))
    }
}
