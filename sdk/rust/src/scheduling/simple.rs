//! Plugins as functions over one pod and one node, and what makes a bundle of them.
//!
//! Invariant: a plugin's panic is the component's trap; nothing here hides it.

use std::any::Any;
use std::collections::HashMap;

use super::{
    Change, Events, Interest, Mirror, NO_NODE, NodeInfo, NodeSet, Normalization, Opened,
    PluginInfo, Pod, Points, Scope, Verdict, code, decode,
};

/// What every plugin has.
pub trait Plugin: Default + 'static {
    /// Its name in profiles: `CostAware`.
    const NAME: &'static str;
    /// Parts of nodes, as JSON Pointers, that it reads with [`NodeInfo::part`].
    const NODE_POINTERS: &'static [&'static str] = &[];
    /// Whether it reads [`NodeInfo::pods`].
    const WANTS_PODS: bool = false;

    /// Takes its arguments (`args` of a profile's `pluginConfig`, as JSON; `{}` if there are none), or says what is wrong.
    fn configure(&mut self, _args: &str) -> Result<(), String> {
        Ok(())
    }

    /// Whether it has a say about this pod at all.
    fn applies(&self, _pod: &Pod) -> bool {
        true
    }
}

/// A plugin that says which nodes a pod may not be on.
pub trait Filter: Plugin {
    /// `NodeLocal`, unless an answer depends on more than the pod, the node's object and its usage.
    const SCOPE: Scope = Scope::NodeLocal;

    /// Which changes may make a refused pod fit.
    fn wakes_on() -> Events {
        Events::NODE_ADD
            | Events::NODE_LABEL
            | Events::NODE_ANNOTATION
            | Events::NODE_ALLOCATABLE
            | Events::POD_DELETE
            | Events::POD_UPDATE
    }

    /// Whether the pod may be on the node.
    fn filter(&self, pod: &Pod, node: &NodeInfo) -> Result<(), Refusal>;
}

/// A plugin that says how good a node is for a pod.
pub trait Score: Plugin {
    /// `NodeLocal`, unless an answer depends on more than the pod, the node's object and its usage.
    const SCOPE: Scope = Scope::NodeLocal;
    /// How scores become 0 to 100. With `None` they are taken as they are, and those outside are cut.
    const NORMALIZATION: Normalization = Normalization::None;
    /// The weight if a profile gives none.
    const WEIGHT: u32 = 1;

    /// How good the node is; more is better (unless the normalization reverses it).
    fn score(&self, pod: &Pod, node: &NodeInfo) -> i64;
}

/// Why a pod may not be on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As an operator reads it: `node(s) were too expensive`.
    pub reason: String,
    /// Evicting pods cannot help.
    pub unresolvable: bool,
}

impl Refusal {
    /// A refusal that evicting pods might lift.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            unresolvable: false,
        }
    }

    /// A refusal that evicting pods cannot lift.
    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            unresolvable: true,
        }
    }
}

type FilterFn = fn(&dyn Any, &Pod, &NodeInfo) -> Result<(), Refusal>;
type ScoreFn = fn(&dyn Any, &Pod, &NodeInfo) -> i64;

/// One plugin of a component, with the points that it takes part in.
pub struct Entry {
    plugin: Box<dyn Any>,
    info: PluginInfo,
    pointers: &'static [&'static str],
    wants_pods: bool,
    configure: fn(&mut dyn Any, &str) -> Result<(), String>,
    applies: fn(&dyn Any, &Pod) -> bool,
    filter: Option<FilterFn>,
    score: Option<ScoreFn>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entry").field(&self.info.name).finish()
    }
}

fn of<P: Plugin>(plugin: &dyn Any) -> &P {
    plugin
        .downcast_ref()
        .expect("an entry's functions are those of its plugin")
}

impl Entry {
    /// A plugin without any points yet.
    pub fn of<P: Plugin>() -> Self {
        Self {
            plugin: Box::new(P::default()),
            info: PluginInfo {
                name: P::NAME.to_owned(),
                points: Points::empty(),
                filter_scope: Scope::NodeLocal,
                score_scope: Scope::NodeLocal,
                normalization: Normalization::None,
                default_weight: 1,
                wakes_on: Events::empty(),
            },
            pointers: P::NODE_POINTERS,
            wants_pods: P::WANTS_PODS,
            configure: |plugin, args| {
                let plugin: &mut P = plugin
                    .downcast_mut()
                    .expect("an entry's functions are those of its plugin");
                plugin.configure(args)
            },
            applies: |plugin, pod| of::<P>(plugin).applies(pod),
            filter: None,
            score: None,
        }
    }

    /// The same plugin, which also filters.
    pub fn filtering<P: Filter>(mut self) -> Self {
        self.info.points |= Points::FILTER;
        self.info.filter_scope = P::SCOPE;
        self.info.wakes_on = P::wakes_on();
        self.filter = Some(|plugin, pod, node| of::<P>(plugin).filter(pod, node));
        self
    }

    /// The same plugin, which also scores.
    pub fn scoring<P: Score>(mut self) -> Self {
        self.info.points |= Points::SCORE;
        self.info.score_scope = P::SCOPE;
        self.info.normalization = P::NORMALIZATION;
        self.info.default_weight = P::WEIGHT;
        self.score = Some(if P::NORMALIZATION == Normalization::None {
            |plugin, pod, node| of::<P>(plugin).score(pod, node).clamp(0, 100)
        } else {
            |plugin, pod, node| of::<P>(plugin).score(pod, node)
        });
        self
    }
}

struct Query {
    pod: Pod,
    filters: Vec<u32>,
    scores: Vec<u32>,
    /// Refusals that were given out, by the number in their codes.
    refusals: Vec<Refusal>,
}

/// The most distinct refusals of one query; what comes after is told as the last one.
const MAX_REFUSALS: usize = 1 << 16;

/// Plugins with one mirror: what a component of [`Filter`]s and [`Score`]s is.
#[derive(Default)]
pub struct Plugins {
    entries: Vec<Entry>,
    mirror: Mirror,
    queries: HashMap<u32, Query>,
    last_query: u32,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Plugins").field(&self.entries).finish()
    }
}

impl Plugins {
    /// These plugins, with an empty mirror.
    pub fn of(entries: Vec<Entry>) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }

    /// The nodes.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// See [`Bundle`](super::Bundle), here and below.
    pub fn interests(&mut self) -> Vec<Interest> {
        let pointers: Vec<_> = self
            .entries
            .iter()
            .flat_map(|entry| entry.pointers)
            .copied()
            .collect();
        let pods = self.entries.iter().any(|entry| entry.wants_pods);
        self.mirror.interests(&pointers, pods)
    }

    pub fn apply(&mut self, changes: Vec<Change>) {
        self.mirror.apply(changes);
    }

    pub fn plugins(&self) -> Vec<PluginInfo> {
        self.entries
            .iter()
            .map(|entry| entry.info.clone())
            .collect()
    }

    pub fn configure(&mut self, plugin: u32, args: &str) -> Result<(), String> {
        let entry = self
            .entries
            .get_mut(plugin as usize)
            .ok_or_else(|| format!("there is no plugin {plugin}"))?;
        (entry.configure)(&mut *entry.plugin, args)
    }

    pub fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Opened, Verdict> {
        let pod = Pod::parse(pod).map_err(|error| Verdict {
            plugin: plugins.first().copied().unwrap_or_default(),
            unresolvable: true,
            reasons: vec![format!("the pod cannot be read: {error}")],
        })?;
        let applying = |has: fn(&Entry) -> bool| -> Vec<u32> {
            let asked = plugins.iter().copied();
            asked
                .filter(|&plugin| {
                    self.entries
                        .get(plugin as usize)
                        .is_some_and(|e| has(e) && (e.applies)(&*e.plugin, &pod))
                })
                .collect()
        };
        let filters = applying(|entry| entry.filter.is_some());
        let scores = applying(|entry| entry.score.is_some());
        self.last_query = self.last_query.wrapping_add(1).max(1);
        let query = self.last_query;
        let opened = Opened {
            query,
            filters: filters.clone(),
            scores: scores.clone(),
            candidates: None,
        };
        self.queries.insert(
            query,
            Query {
                pod,
                filters,
                scores,
                refusals: Vec::new(),
            },
        );
        Ok(opened)
    }

    pub fn filter(&mut self, query: u32, nodes: NodeSet) -> Vec<u32> {
        let nodes = self.ids(nodes);
        let Self {
            entries,
            mirror,
            queries,
            ..
        } = self;
        let query = queries
            .get_mut(&query)
            .expect("the host asks by open queries");
        nodes.map_ids(|id| {
            let Some(node) = mirror.at(id) else {
                return NO_NODE;
            };
            for &plugin in &query.filters {
                let entry = &entries[plugin as usize];
                let filter = entry.filter.expect("open listed plugins that filter");
                if let Err(refusal) = filter(&*entry.plugin, &query.pod, node) {
                    let number = query
                        .refusals
                        .iter()
                        .rposition(|known| *known == refusal)
                        .unwrap_or_else(|| {
                            if query.refusals.len() < MAX_REFUSALS {
                                query.refusals.push(refusal);
                            }
                            query.refusals.len() - 1
                        });
                    return code(plugin, u32::try_from(number).unwrap_or_default());
                }
            }
            0
        })
    }

    pub fn score(&mut self, query: u32, nodes: NodeSet) -> Vec<i64> {
        let nodes = self.ids(nodes);
        let query = self
            .queries
            .get(&query)
            .expect("the host asks by open queries");
        let mut scores = Vec::new();
        for &plugin in &query.scores {
            let entry = &self.entries[plugin as usize];
            let score = entry.score.expect("open listed plugins that score");
            scores.extend(nodes.map_ids(|id| {
                self.mirror
                    .at(id)
                    .map_or(0, |node| score(&*entry.plugin, &query.pod, node))
            }));
        }
        scores
    }

    pub fn why(&mut self, query: u32, code: u32) -> Verdict {
        let (plugin, number) = decode(code);
        let query = self
            .queries
            .get(&query)
            .expect("the host asks by open queries");
        let refusal = &query.refusals[number as usize];
        Verdict {
            plugin,
            unresolvable: refusal.unresolvable,
            reasons: vec![refusal.reason.clone()],
        }
    }

    pub fn explain(&mut self, query: u32, node: u32) -> Vec<Verdict> {
        let query = self
            .queries
            .get(&query)
            .expect("the host asks by open queries");
        let Some(node) = self.mirror.at(node) else {
            return Vec::new();
        };
        let refusals = query.filters.iter().filter_map(|&plugin| {
            let entry = &self.entries[plugin as usize];
            let filter = entry.filter.expect("open listed plugins that filter");
            let refusal = filter(&*entry.plugin, &query.pod, node).err()?;
            Some(Verdict {
                plugin,
                unresolvable: refusal.unresolvable,
                reasons: vec![refusal.reason],
            })
        });
        refusals.collect()
    }

    pub fn close(&mut self, query: u32) {
        self.queries.remove(&query);
    }

    fn ids(&self, nodes: NodeSet) -> Ids {
        match nodes {
            NodeSet::All => Ids::All(self.mirror.slots()),
            NodeSet::Some(ids) => Ids::Some(ids),
        }
    }
}

enum Ids {
    All(u32),
    Some(Vec<u32>),
}

impl Ids {
    fn map_ids<R>(&self, each: impl FnMut(u32) -> R) -> Vec<R> {
        match self {
            Self::All(slots) => (0..*slots).map(each).collect(),
            Self::Some(ids) => ids.iter().copied().map(each).collect(),
        }
    }
}
