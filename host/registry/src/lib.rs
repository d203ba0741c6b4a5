//! The one create/get/list/watch/update/patch/delete path for every kind; knows no HTTP.

mod admission;
mod api;
mod batch;
mod bootstrap;
mod codec;
mod decode;
mod definitions;
mod delete;
mod errors;
mod expiry;
mod families;
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod managed;
mod metadata;
mod patch;
mod prepare;
mod read;
mod registry;
pub mod scan;
mod select;
mod services;
mod strategy;
mod sub;
mod token;
mod trees;
mod watch;
mod write;

pub use admission::policy::Authorize;
pub use admission::{Admission, AdmissionRequest, Operation, readmit};
pub use api::*;
pub use codec::MAX_OBJECT_BYTES;
pub use expiry::EVENT_TTL;
pub use managed::track_created;
pub use oarlock_cel::{Attributes as AuthorizationAttributes, Decision as AuthorizationDecision};
pub use read::ListParameters;
pub use registry::{Config, Registry};
pub use watch::WatchStream;
