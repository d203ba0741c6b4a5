//! Work queues, watches and the reconciler host; does not know which controllers exist.
//!
//! Controllers are guests ([`oarlock_wasm`]): those that the binary hands over, and those that `Controller` objects name.
//! The host owns one watch cache per kind, a work queue per controller, back-off, concurrency, and the `objects` interface.
//! Leader election has its place in [`host`]: a controller's workers start when its caches are filled, and would
//! start when its lease is held.
//!
//! Invariant: a controller that fails (does not load, traps, spins) is reported and retried; no other controller notices.

pub mod cache;
mod dynamic;
pub mod events;
pub mod host;
mod mapping;
mod metrics;
pub mod objects;
mod permissions;
pub mod queue;
mod resource;
mod runner;

use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_client::Cluster;
use oarlock_model::Gvr;
use oarlock_wasm::{Engine, HostEnv, Limits, SystemEnv};
use serde_json::Value;

pub use host::{ControllerState, Controllers, Handle};
pub use metrics::Metrics;

/// A served resource, as the cluster's discovery tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub kind: Gvr,
    /// `Deployment`
    pub object_kind: String,
    pub namespaced: bool,
    /// Whether `delete` is served.
    pub deletable: bool,
    /// Whether `list` and `watch` are served.
    pub watchable: bool,
}

/// What the cluster serves now.
pub type Discover = Arc<dyn Fn() -> Vec<Served> + Send + Sync>;

/// A controller that ships with the binary.
#[derive(Clone, Debug)]
pub struct Builtin {
    /// The component's name, for logs; the controller's own name is in its description.
    pub name: String,
    pub bytes: Arc<[u8]>,
    /// Its configuration; `{}` if it takes none.
    pub config: Value,
}

#[derive(Clone)]
pub struct ControllersConfig {
    /// Seen as the controllers' host itself; each controller acts as its own service account.
    pub cluster: Arc<dyn Cluster>,
    pub engine: Engine,
    pub builtin: Vec<Builtin>,
    pub discover: Discover,
    /// Limits of each controller's instances; `Controller` objects may lower them.
    pub limits: Limits,
    pub env: Arc<dyn HostEnv>,
    /// Whether `Controller` objects are obeyed.
    pub dynamic: bool,
}

impl ControllersConfig {
    /// With the usual limits. `builtin` as (name, bytes), `configs` by name.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        engine: Engine,
        builtin: Vec<(String, Arc<[u8]>)>,
        mut configs: BTreeMap<String, Value>,
        discover: Discover,
    ) -> Self {
        let builtin = builtin
            .into_iter()
            .map(|(name, bytes)| {
                let config = configs
                    .remove(&name)
                    .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                Builtin {
                    name,
                    bytes,
                    config,
                }
            })
            .collect();
        Self {
            cluster,
            engine,
            builtin,
            discover,
            limits: Limits {
                memory_mib: 256,
                deadline_ms: 5_000,
                ..Limits::default()
            },
            env: Arc::new(SystemEnv),
            dynamic: true,
        }
    }
}
