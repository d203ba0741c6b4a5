//! `Cluster`: what schedulers, controllers and node agents see of a cluster, and caches over it.
//! Nobody above this crate knows whether the cluster is in the same process or far away.

mod api;

pub use api::*;
