//! Queue, snapshot, cycle and binding; does not know where the cluster is.
//!
//! Invariant: what decides (queue, snapshot, queries, profile, core) is plain state fed with events and an explicit time;
//! threads, tokio and the clock are in `run` and its neighbours alone.

mod config;
mod core;
mod engine;
mod load;
mod member;
mod metrics;
mod node_events;
mod pod;
mod profile;
mod profiles;
mod project;
mod query;
mod queue;
mod ranking;
mod report;
mod run;
mod score;
mod shape;
mod snapshot;
mod usage;

pub use crate::core::{Action, Candidate, Core, Ended, Input, Receipt, apply};
pub use config::{DEFAULT_COMPONENT, ProfileSpec};
pub use engine::PlacementEngine;
pub use member::{Enabled, FailurePolicy, Member, SetupError};
pub use metrics::Metrics;
pub use pod::PodInfo;
pub use profile::{Outcome, Profile};
pub use query::{Diagnosis, Query};
pub use queue::{Attempt, Counts, Queue};
pub use run::{Handle, Scheduler, SchedulerConfig};
pub use score::{MAX_NODE_SCORE, normalize};
pub use snapshot::{Slot, Snapshot, Uid};
pub use usage::{NodeUsage, PodUsage};
