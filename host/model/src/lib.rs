//! Object envelope, group/version/kind/resource, selectors, quantities, Status and time; pure: no I/O, no clock.

pub mod deep;
pub mod gvk;
pub mod meta;
pub mod names;
pub mod pattern;
pub mod pod_references;
pub mod pod_requests;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod time;

pub use gvk::{GroupVersion, Gvk, Gvr};
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{ApiError, ApiResult, Cause, Reason};
