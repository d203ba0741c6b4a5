//! Admission policies as components: the gate that every write passes, and the host that keeps it up to date.
//!
//! Invariants: a request that no policy matches costs an atomic load (and, where there are policies, a comparison with their
//! rules). Whatever a guest does, a request ends within the policy's deadline, by an answer or by the failure policy; a
//! request's thread is never held for longer than a tick (10 ms) by a guest. Writes of policies and components themselves
//! are never matched, so that no policy can lock its own removal out.

mod apply;
mod gate;
mod host;
mod load;
mod metrics;
mod rules;
mod spec;
mod status;
mod version;

pub use gate::Gate;
pub use host::{AdmissionConfig, Handle, PolicyHost};
pub use metrics::Metrics;

/// The user that the host's own writes are made by; no policy is asked about them.
pub const USER: &str = "system:oarlock-admission";
