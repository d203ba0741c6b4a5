//! Scheduling plugins: a component's instance and its questions, with every answer checked.
//!
//! Invariant: an answer that gets out of here has the length that was asked for and names only plugins that exist.

use std::sync::Arc;

use crate::bindings::exports::oarlock::scheduler::{
    placement as place, queue as line, snapshot as snap,
};
use crate::call::Guest;
use crate::{Error, ExtensionPoint, HostEnv, Limits, Loaded};

pub use crate::bindings::exports::oarlock::scheduler::placement::{
    Candidates, Events, NodeSet, Normalization, Opened, PluginInfo, Points, Scope,
};
pub use crate::bindings::exports::oarlock::scheduler::snapshot::{
    Amount, Change, HostPort, Interest, Node, OtherObject, PlacedPod, Source, Usage,
};
pub use crate::bindings::oarlock::scheduler::types::Verdict;

/// The answer of `filter` for a slot without a node.
pub const NO_NODE: u32 = u32::MAX;
/// The most changes that `apply` hands over in one call; it splits what is longer.
pub const MAX_CHANGES: usize = 250;
/// The most plugins in a component: a code has 8 bits for them, and two values are taken.
pub const MAX_PLUGINS: usize = 254;

/// Scheduling components, as such.
#[derive(Debug)]
pub struct SchedulerPlugin;

impl SchedulerPlugin {
    /// A fresh instance. The component must export `snapshot` and `placement`, and may export `queue`.
    pub fn instantiate(
        loaded: &Loaded,
        limits: &Limits,
        env: Arc<dyn HostEnv>,
    ) -> Result<SchedulerInstance, Error> {
        loaded.demand(ExtensionPoint::Snapshot)?;
        loaded.demand(ExtensionPoint::Placement)?;
        let (mut guest, instance) = Guest::new(loaded, limits, env, None)?;
        let pre = loaded.pre();
        let snapshot =
            snap::GuestIndices::new(pre).and_then(|found| found.load(guest.store(), &instance));
        let snapshot = snapshot.map_err(|e| guest.unlinked(&e))?;
        let placement =
            place::GuestIndices::new(pre).and_then(|found| found.load(guest.store(), &instance));
        let placement = placement.map_err(|e| guest.unlinked(&e))?;
        let queue = if loaded.has(ExtensionPoint::Queue) {
            let queue =
                line::GuestIndices::new(pre).and_then(|found| found.load(guest.store(), &instance));
            Some(queue.map_err(|e| guest.unlinked(&e))?)
        } else {
            None
        };
        let mut made = SchedulerInstance {
            guest,
            snapshot,
            placement,
            queue,
            plugins: Vec::new(),
            slots: 0,
        };
        made.plugins = made.ask_plugins()?;
        Ok(made)
    }
}

/// One instance, with its mirror. Its calls block; give it a thread of its own.
pub struct SchedulerInstance {
    guest: Guest,
    snapshot: snap::Guest,
    placement: place::Guest,
    queue: Option<line::Guest>,
    plugins: Vec<PluginInfo>,
    /// One more than the highest slot that the mirror was ever given.
    slots: usize,
}

impl std::fmt::Debug for SchedulerInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerInstance")
            .field("plugin", &self.guest.loaded().name())
            .finish_non_exhaustive()
    }
}

impl SchedulerInstance {
    /// What it is an instance of.
    pub fn loaded(&self) -> &Loaded {
        self.guest.loaded()
    }

    /// Whether it failed and must be replaced.
    pub fn is_dead(&self) -> bool {
        self.guest.is_dead()
    }

    /// A fresh instance of the same component: nothing configured, nothing mirrored, no query open.
    pub fn respawn(&self) -> Result<Self, Error> {
        SchedulerPlugin::instantiate(self.guest.loaded(), self.guest.limits(), self.guest.env())
    }

    /// The component's plugins; a plugin's place here is its index.
    pub fn plugins(&self) -> &[PluginInfo] {
        &self.plugins
    }

    /// Whether it takes part in queueing.
    pub fn has_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// How many answers `NodeSet::All` gives.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Gives a plugin its arguments (JSON); the inner error is the plugin's complaint about them.
    pub fn configure(&mut self, plugin: u32, args: &str) -> Result<Result<(), String>, Error> {
        let guest = &self.placement;
        self.guest.call("configure", |store| {
            guest.call_configure(store, plugin, args)
        })
    }

    /// What the component wants mirrored.
    pub fn interests(&mut self) -> Result<Vec<Interest>, Error> {
        let guest = &self.snapshot;
        self.guest
            .call("interests", |store| guest.call_interests(store))
    }

    /// Brings the mirror up to date, in calls of at most [`MAX_CHANGES`].
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let guest = &self.snapshot;
        for part in changes.chunks(MAX_CHANGES) {
            self.guest
                .call("apply", |store| guest.call_apply(store, part))?;
            let highest = part.iter().filter_map(|change| match change {
                Change::NodeSet(node) => Some(node.id as usize + 1),
                _ => None,
            });
            self.slots = highest.fold(self.slots, usize::max);
        }
        Ok(())
    }

    /// Compiles a pod (v1.Pod, JSON) for these plugins; the inner error is their refusal of it for all nodes.
    pub fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Result<Opened, Verdict>, Error> {
        let guest = &self.placement;
        let answer = self
            .guest
            .call("open", |store| guest.call_open(store, pod, plugins))?;
        let named = match &answer {
            Err(verdict) => vec![verdict.plugin],
            Ok(opened) => {
                let candidates = opened
                    .candidates
                    .iter()
                    .flat_map(|candidates| &candidates.plugins);
                opened
                    .filters
                    .iter()
                    .chain(&opened.scores)
                    .chain(candidates)
                    .copied()
                    .collect()
            }
        };
        if let Some(stranger) = named.into_iter().find(|plugin| !plugins.contains(plugin)) {
            return Err(self
                .guest
                .lie("open", format!("plugin {stranger} was not asked")));
        }
        if answer.as_ref().is_ok_and(|opened| opened.query == 0) {
            return Err(self.guest.lie("open", "a query is never 0".to_owned()));
        }
        Ok(answer)
    }

    /// For each node asked about, in order: 0, or a code for [`why`](Self::why), or [`NO_NODE`]. `filters` of the [`Opened`] say who may refuse.
    pub fn filter(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<u32>, Error> {
        let guest = &self.placement;
        let codes = self.guest.call("filter", |store| {
            guest.call_filter(store, opened.query, nodes)
        })?;
        let expect = self.asked(nodes);
        if codes.len() != expect {
            return Err(self.guest.lie(
                "filter",
                format!("{} verdicts on {expect} nodes", codes.len()),
            ));
        }
        // By the top 8 bits: 0 must be all zeros, 255 must be all ones, the others must be a filter of this query.
        let mut allowed = [false; 256];
        for plugin in &opened.filters {
            allowed[(*plugin as usize + 1).min(255)] = true;
        }
        let liar = codes.iter().find(|&&code| match code {
            0 | NO_NODE => false,
            code => !allowed[(code >> 24) as usize],
        });
        if let Some(code) = liar {
            return Err(self.guest.lie(
                "filter",
                format!("the code {code:#010x} names no plugin that filters this pod"),
            ));
        }
        Ok(codes)
    }

    /// For each scoring plugin of the query in turn, for each node asked about: the raw score.
    pub fn score(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<i64>, Error> {
        let guest = &self.placement;
        let scores = self.guest.call("score", |store| {
            guest.call_score(store, opened.query, nodes)
        })?;
        let expect = self.asked(nodes) * opened.scores.len();
        if scores.len() != expect {
            return Err(self.guest.lie(
                "score",
                format!("{} scores where {expect} were asked for", scores.len()),
            ));
        }
        Ok(scores)
    }

    /// What a code of `filter` means.
    pub fn why(&mut self, query: u32, code: u32) -> Result<Verdict, Error> {
        let guest = &self.placement;
        let verdict = self
            .guest
            .call("why", |store| guest.call_why(store, query, code))?;
        self.check_plugins("why", [verdict.plugin])?;
        Ok(verdict)
    }

    /// Every plugin that refuses this node, each asked alone.
    pub fn explain(&mut self, query: u32, node: u32) -> Result<Vec<Verdict>, Error> {
        let guest = &self.placement;
        let verdicts = self
            .guest
            .call("explain", |store| guest.call_explain(store, query, node))?;
        self.check_plugins("explain", verdicts.iter().map(|verdict| verdict.plugin))?;
        Ok(verdicts)
    }

    /// Frees a query.
    pub fn close(&mut self, query: u32) -> Result<(), Error> {
        let guest = &self.placement;
        self.guest
            .call("close", |store| guest.call_close(store, query))
    }

    /// Whether the pod may enter the queue; `None` if it may (or if the component has no say).
    pub fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Result<Option<Verdict>, Error> {
        let Some(guest) = &self.queue else {
            return Ok(None);
        };
        let verdict = self.guest.call("pre-enqueue", |store| {
            guest.call_pre_enqueue(store, pod, plugins)
        })?;
        self.check_plugins("pre-enqueue", verdict.iter().map(|verdict| verdict.plugin))?;
        Ok(verdict)
    }

    /// The pod's place in the queue, ascending.
    pub fn sort_key(
        &mut self,
        pod: &str,
        plugin: u32,
        queued_at_ms: u64,
    ) -> Result<(i64, u64), Error> {
        let Some(guest) = &self.queue else {
            return Err(Error::MissingExport {
                plugin: self.guest.loaded().name().to_owned(),
                interface: ExtensionPoint::Queue.interface().to_owned(),
            });
        };
        self.guest.call("sort-key", |store| {
            guest.call_sort_key(store, pod, plugin, queued_at_ms)
        })
    }

    fn ask_plugins(&mut self) -> Result<Vec<PluginInfo>, Error> {
        let guest = &self.placement;
        let plugins = self
            .guest
            .call("plugins", |store| guest.call_plugins(store))?;
        if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
            return Err(self
                .guest
                .lie("plugins", format!("{} plugins", plugins.len())));
        }
        let mut names: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!("two plugins named {:?}", twice[0]);
            return Err(self.guest.lie("plugins", what));
        }
        Ok(plugins)
    }

    fn asked(&self, nodes: &NodeSet) -> usize {
        match nodes {
            NodeSet::All => self.slots,
            NodeSet::Some(nodes) => nodes.len(),
        }
    }

    fn check_plugins(
        &mut self,
        call: &'static str,
        named: impl IntoIterator<Item = u32>,
    ) -> Result<(), Error> {
        match named
            .into_iter()
            .find(|&plugin| plugin as usize >= self.plugins.len())
        {
            Some(stranger) => Err(self
                .guest
                .lie(call, format!("there is no plugin {stranger}"))),
            None => Ok(()),
        }
    }
}
