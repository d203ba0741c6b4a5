//! `Cluster`: what schedulers, controllers and node agents see of a cluster, and caches over it.
//! Nobody above this crate knows whether the cluster is in the same process or far away.

mod api;
mod components;
pub mod http;
mod local;
mod reflector;

pub use api::*;
pub use components::{ComponentBytes, chunk_name, fetch_component};
pub use local::LocalCluster;
pub use reflector::{Cache, CacheHandle, Delta, MAX_WAITING_DELTAS, Reflector, ReflectorTask};
