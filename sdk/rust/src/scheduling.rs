//! Scheduling plugins.
//!
//! Two ways to write one:
//!
//! * [`Plugin`] with [`Filter`] and/or [`Score`]: a function over one pod and one node; the SDK mirrors the cluster.
//!   Exported by [`export_plugins!`](crate::export_plugins).
//! * [`Bundle`] (and [`Queue`]): the contract itself, for whoever keeps a mirror of his own and answers for many nodes at
//!   once. Exported by [`export_bundle!`](crate::export_bundle).
//!
//! Invariant: in a component there is one instance of the bundle, made at the first call; calls never overlap.

pub(crate) mod glue;
mod mirror;
mod objects;
mod simple;
pub mod testing;

pub use crate::bindings::plugin::exports::oarlock::scheduler::placement::{
    Candidates, Events, NodeSet, Normalization, Opened, PluginInfo, Points, Scope,
};
pub use crate::bindings::plugin::exports::oarlock::scheduler::snapshot::{
    Amount, Change, HostPort, Interest, Node as NodeChange, OtherObject, PlacedPod, Source, Usage,
};
pub use crate::bindings::plugin::oarlock::scheduler::types::Verdict;
pub use mirror::{Mirror, NodeInfo};
pub use objects::{Container, Node, Pod, Taint, Toleration};
pub use simple::{Entry, Filter, Plugin, Plugins, Refusal, Score};

/// The usage of a node with so many pods that request nothing.
pub fn usage_of(pods: u32) -> Usage {
    Usage {
        id: 0,
        pods,
        cpu_milli: 0,
        memory: 0,
        ephemeral_storage: 0,
        nonzero_cpu_milli: 0,
        nonzero_memory: 0,
        others: Vec::new(),
        ports: Vec::new(),
    }
}

/// The answer of `filter` for a slot without a node.
pub const NO_NODE: u32 = u32::MAX;

/// The code of `filter` for a node that `plugin` refuses; `detail` (24 bits) is the guest's own, and comes back to `why`.
pub const fn code(plugin: u32, detail: u32) -> u32 {
    (plugin + 1) << 24 | (detail & 0x00ff_ffff)
}

/// The plugin and the detail of a code made by [`code`].
pub const fn decode(code: u32) -> (u32, u32) {
    ((code >> 24) - 1, code & 0x00ff_ffff)
}

/// The contract (`wit/scheduler`: `snapshot` and `placement`), as a trait. Indices are places in what `plugins` returns.
pub trait Bundle: 'static {
    /// A bundle that mirrors nothing yet.
    fn new() -> Self
    where
        Self: Sized;
    /// What to mirror. Asked after `configure`.
    fn interests(&mut self) -> Vec<Interest>;
    /// Changes of the cluster, in order.
    fn apply(&mut self, changes: Vec<Change>);
    /// The plugins. Constant.
    fn plugins(&mut self) -> Vec<PluginInfo>;
    /// A plugin's arguments, as JSON.
    fn configure(&mut self, plugin: u32, args: &str) -> Result<(), String>;
    /// Compiles a pod for these plugins.
    fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Opened, Verdict>;
    /// For each node asked about: 0, or a [`code`], or [`NO_NODE`].
    fn filter(&mut self, query: u32, nodes: NodeSet) -> Vec<u32>;
    /// For each scoring plugin of the query in turn, for each node asked about: the raw score.
    fn score(&mut self, query: u32, nodes: NodeSet) -> Vec<i64>;
    /// What a code means.
    fn why(&mut self, query: u32, code: u32) -> Verdict;
    /// Every plugin that refuses this node, each asked alone.
    fn explain(&mut self, query: u32, node: u32) -> Vec<Verdict>;
    /// Frees a query.
    fn close(&mut self, query: u32);
}

/// The contract of `wit/scheduler`'s `queue`, for bundles that take part in queueing.
pub trait Queue: Bundle {
    /// Whether the pod may enter the queue.
    fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Option<Verdict>;
    /// The pod's place in the queue, ascending. `queued_at` is in milliseconds since 1970.
    fn sort_key(&mut self, pod: &str, plugin: u32, queued_at: u64) -> (i64, u64);
}

/// Makes a [`Bundle`] the component of this crate: `export_bundle!(MyBundle)`, or `export_bundle!(MyBundle: Queue)` for one
/// that takes part in queueing too. Expands to nothing natively.
#[macro_export]
macro_rules! export_bundle {
    ($bundle:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            type OarlockComponent = $crate::__private::PlacementComponent<$bundle>;
            $crate::__private::bindings::plugin::export_placement_raw!(
                OarlockComponent with_types_in $crate::__private::bindings::plugin
            );
            impl $crate::scheduling::Exported for $bundle {
                fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R {
                    std::thread_local! {
                        static THE_ONE: std::cell::RefCell<Option<$bundle>> = const { std::cell::RefCell::new(None) };
                    }
                    THE_ONE.with_borrow_mut(|one| {
                        ask(one.get_or_insert_with(|| {
                            $crate::__private::install_panic_hook();
                            <$bundle as $crate::scheduling::Bundle>::new()
                        }))
                    })
                }
            }
        };
    };
    ($bundle:ty: Queue) => {
        $crate::export_bundle!($bundle);
        #[cfg(target_family = "wasm")]
        const _: () = {
            type OarlockComponent = $crate::__private::QueueComponent<$bundle>;
            $crate::__private::bindings::queueing::export_queue_raw!(
                OarlockComponent with_types_in $crate::__private::bindings::queueing
            );
        };
    };
}

/// Makes plugins written with [`Filter`] and [`Score`] the component of this crate:
/// `export_plugins!(CostAware: Score, NodeAnnotation: Filter, Both: Filter + Score)`. Expands natively to a function
/// `component_plugins()` that the tests of [`testing`] take.
#[macro_export]
macro_rules! export_plugins {
    ($($plugin:ty: $first:ident $(+ $more:ident)*),+ $(,)?) => {
        /// The plugins of this crate, as its component has them.
        pub fn component_plugins() -> $crate::scheduling::Plugins {
            $crate::scheduling::Plugins::of(vec![$(
                $crate::export_plugins!(@entry $crate::scheduling::Entry::of::<$plugin>(), $plugin, $first $(, $more)*)
            ),+])
        }
        #[cfg(target_family = "wasm")]
        const _: () = {
            /// The bundle that wraps them.
            pub struct TheBundle($crate::scheduling::Plugins);
            $crate::delegate_bundle!(TheBundle, component_plugins);
            $crate::export_bundle!(TheBundle);
        };
    };
    (@entry $entry:expr, $plugin:ty $(,)?) => { $entry };
    (@entry $entry:expr, $plugin:ty, Filter $(, $more:ident)*) => {
        $crate::export_plugins!(@entry $entry.filtering::<$plugin>(), $plugin $(, $more)*)
    };
    (@entry $entry:expr, $plugin:ty, Score $(, $more:ident)*) => {
        $crate::export_plugins!(@entry $entry.scoring::<$plugin>(), $plugin $(, $more)*)
    };
}

/// Implements [`Bundle`] for a wrapper of [`Plugins`].
#[doc(hidden)]
#[macro_export]
macro_rules! delegate_bundle {
    ($bundle:ty, $make:path) => {
        impl $crate::scheduling::Bundle for $bundle {
            fn new() -> Self {
                Self($make())
            }
            fn interests(&mut self) -> Vec<$crate::scheduling::Interest> {
                self.0.interests()
            }
            fn apply(&mut self, changes: Vec<$crate::scheduling::Change>) {
                self.0.apply(changes);
            }
            fn plugins(&mut self) -> Vec<$crate::scheduling::PluginInfo> {
                self.0.plugins()
            }
            fn configure(&mut self, plugin: u32, args: &str) -> Result<(), String> {
                self.0.configure(plugin, args)
            }
            fn open(
                &mut self,
                pod: &str,
                plugins: &[u32],
            ) -> Result<$crate::scheduling::Opened, $crate::scheduling::Verdict> {
                self.0.open(pod, plugins)
            }
            fn filter(&mut self, query: u32, nodes: $crate::scheduling::NodeSet) -> Vec<u32> {
                self.0.filter(query, nodes)
            }
            fn score(&mut self, query: u32, nodes: $crate::scheduling::NodeSet) -> Vec<i64> {
                self.0.score(query, nodes)
            }
            fn why(&mut self, query: u32, code: u32) -> $crate::scheduling::Verdict {
                self.0.why(query, code)
            }
            fn explain(&mut self, query: u32, node: u32) -> Vec<$crate::scheduling::Verdict> {
                self.0.explain(query, node)
            }
            fn close(&mut self, query: u32) {
                self.0.close(query);
            }
        }
    };
}

/// The one instance of a component's bundle. Implemented by the macros.
#[doc(hidden)]
pub trait Exported: Bundle {
    /// Asks the one instance, which is made when it is first asked.
    fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R;
}
