//! The one create/get/list/watch/update/patch/delete path for every kind; knows no HTTP.

mod admission;
mod api;
mod registry;

pub use admission::{Admission, AdmissionRequest, Operation};
pub use api::*;
pub use registry::{Config, Registry, WatchStream};
