//! `PlacementEngine`: what a profile asks its plugins through. A WASM instance is one; a native library can be one too, so
//! that the two can be compared.
//!
//! Invariant: after any `Err` the engine's state is worthless; it is replaced by `respawn` and its mirror is filled anew.

use oarlock_wasm::scheduler::{Change, Interest, NodeSet, Opened, PluginInfo, Verdict};
use oarlock_wasm::{Error, SchedulerInstance};

pub trait PlacementEngine: Send {
    /// The component's plugins; a plugin's place here is its index.
    fn plugins(&self) -> &[PluginInfo];
    /// The inner error is the plugin's complaint about its arguments.
    fn configure(&mut self, plugin: u32, args: &str) -> Result<Result<(), String>, Error>;
    fn interests(&mut self) -> Result<Vec<Interest>, Error>;
    fn apply(&mut self, changes: &[Change]) -> Result<(), Error>;
    /// The inner error is a refusal of the pod on all nodes.
    fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Result<Opened, Verdict>, Error>;
    fn filter(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<u32>, Error>;
    fn score(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<i64>, Error>;
    fn why(&mut self, query: u32, code: u32) -> Result<Verdict, Error>;
    fn explain(&mut self, query: u32, node: u32) -> Result<Vec<Verdict>, Error>;
    fn close(&mut self, query: u32) -> Result<(), Error>;
    fn has_queue(&self) -> bool;
    fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Result<Option<Verdict>, Error>;
    fn sort_key(&mut self, pod: &str, plugin: u32, queued_at_ms: u64) -> Result<(i64, u64), Error>;
    /// A fresh engine of the same kind: nothing configured, nothing mirrored, no query open.
    fn respawn(&self) -> Result<Box<dyn PlacementEngine>, Error>;
}

impl PlacementEngine for SchedulerInstance {
    fn plugins(&self) -> &[PluginInfo] {
        Self::plugins(self)
    }
    fn configure(&mut self, plugin: u32, args: &str) -> Result<Result<(), String>, Error> {
        Self::configure(self, plugin, args)
    }
    fn interests(&mut self) -> Result<Vec<Interest>, Error> {
        Self::interests(self)
    }
    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        Self::apply(self, changes)
    }
    fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Result<Opened, Verdict>, Error> {
        Self::open(self, pod, plugins)
    }
    fn filter(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<u32>, Error> {
        Self::filter(self, opened, nodes)
    }
    fn score(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<i64>, Error> {
        Self::score(self, opened, nodes)
    }
    fn why(&mut self, query: u32, code: u32) -> Result<Verdict, Error> {
        Self::why(self, query, code)
    }
    fn explain(&mut self, query: u32, node: u32) -> Result<Vec<Verdict>, Error> {
        Self::explain(self, query, node)
    }
    fn close(&mut self, query: u32) -> Result<(), Error> {
        Self::close(self, query)
    }
    fn has_queue(&self) -> bool {
        Self::has_queue(self)
    }
    fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Result<Option<Verdict>, Error> {
        Self::pre_enqueue(self, pod, plugins)
    }
    fn sort_key(&mut self, pod: &str, plugin: u32, queued_at_ms: u64) -> Result<(i64, u64), Error> {
        Self::sort_key(self, pod, plugin, queued_at_ms)
    }
    fn respawn(&self) -> Result<Box<dyn PlacementEngine>, Error> {
        Ok(Box::new(Self::respawn(self)?))
    }
}
