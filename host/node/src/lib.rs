//! Node agent: simulated nodes that run what was bound; does not know the API server.
//!
//! The core ([`core::Core`]) is a state machine fed watch events, write results and an explicit `now`; it answers with
//! writes to make. [`NodeSim`] is its edge: two watches (nodes, pods), one clock, and batched writes, however many nodes.

mod config;
pub mod core;
mod ids;
mod node_object;
mod pod_status;
mod runtime;
mod timers;

pub use config::{NodeCapacity, NodeSimConfig};
pub use runtime::{Handle, NodeSim};

/// On a Node: `off` silences it, as if its machine had died (no lease, no status, no work on its pods).
pub const HEARTBEAT_ANNOTATION: &str = "sim.oarlock.dev/heartbeat";
/// On a Pod: its containers end after so long (`2s`, `500ms`, `1m`).
pub const COMPLETE_AFTER_ANNOTATION: &str = "sim.oarlock.dev/complete-after";
/// On a Pod: the exit code of containers that end by themselves. 0 if absent.
pub const EXIT_CODE_ANNOTATION: &str = "sim.oarlock.dev/exit-code";
/// On a Pod: its containers become ready only after so long (`never`: not at all).
pub const READY_AFTER_ANNOTATION: &str = "sim.oarlock.dev/ready-after";
/// On every simulated Node.
pub const SIMULATED_LABEL: &str = "oarlock.dev/simulated";
