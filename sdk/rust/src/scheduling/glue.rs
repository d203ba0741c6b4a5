//! From the generated traits, which know no `self`, to the one instance of a bundle.

use std::marker::PhantomData;

use super::{Change, Exported, Interest, NodeSet, Opened, PluginInfo, Queue, Verdict};
use crate::bindings::plugin::exports::oarlock::scheduler::{placement, snapshot};
use crate::bindings::queueing::exports::oarlock::scheduler::queue;

/// Exports `snapshot` and `placement`.
#[derive(Debug)]
pub struct PlacementComponent<B>(PhantomData<B>);

impl<B: Exported> snapshot::Guest for PlacementComponent<B> {
    fn interests() -> Vec<Interest> {
        B::with(|bundle| bundle.interests())
    }

    fn apply(changes: Vec<Change>) {
        B::with(|bundle| bundle.apply(changes));
    }
}

impl<B: Exported> placement::Guest for PlacementComponent<B> {
    fn plugins() -> Vec<PluginInfo> {
        B::with(|bundle| bundle.plugins())
    }

    fn configure(plugin: u32, args: String) -> Result<(), String> {
        B::with(|bundle| bundle.configure(plugin, &args))
    }

    fn open(pod: String, plugins: Vec<u32>) -> Result<Opened, Verdict> {
        B::with(|bundle| bundle.open(&pod, &plugins))
    }

    fn filter(query: u32, nodes: NodeSet) -> Vec<u32> {
        B::with(|bundle| bundle.filter(query, nodes))
    }

    fn score(query: u32, nodes: NodeSet) -> Vec<i64> {
        B::with(|bundle| bundle.score(query, nodes))
    }

    fn why(query: u32, code: u32) -> Verdict {
        B::with(|bundle| bundle.why(query, code))
    }

    fn explain(query: u32, node: u32) -> Vec<Verdict> {
        B::with(|bundle| bundle.explain(query, node))
    }

    fn close(query: u32) {
        B::with(|bundle| bundle.close(query));
    }
}

/// Exports `queue`.
#[derive(Debug)]
pub struct QueueComponent<B>(PhantomData<B>);

impl<B: Exported + Queue> queue::Guest for QueueComponent<B> {
    fn pre_enqueue(pod: String, plugins: Vec<u32>) -> Option<Verdict> {
        B::with(|bundle| bundle.pre_enqueue(&pod, &plugins))
    }

    fn sort_key(pod: String, plugin: u32, queued_at: u64) -> (i64, u64) {
        B::with(|bundle| bundle.sort_key(&pod, plugin, queued_at))
    }
}
