//! Queue, snapshot, cycle and binding; does not know where the cluster is.

mod engine;
mod score;
mod usage;

pub use engine::PlacementEngine;
pub use score::{MAX_NODE_SCORE, normalize};
pub use usage::{NodeUsage, PodUsage};
