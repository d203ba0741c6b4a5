//! Engine, component store, ahead-of-time cache, limits, metering, swap and the bindings; knows no Kubernetes.
//!
//! Invariant: nothing that a guest does (trap, spin, allocate, lie) is more than an [`Error`] value here. An instance that
//! trapped is dead and answers [`Error::Dead`] from then on; its owner replaces it by `respawn`.

pub mod admission;
pub mod author;
mod bindings;
mod cache;
mod call;
pub mod compile;
mod component;
pub mod controller;
mod engine;
mod env;
mod error;
pub mod inspect;
mod limits;
mod meter;
pub mod scheduler;
mod state;
pub mod toolchain;
mod wasi;

pub use admission::{AdmissionInstance, AdmissionPlugin};
pub use component::{ExtensionPoint, Loaded};
pub use controller::{ControllerInstance, ControllerPlugin, ObjectsHost};
pub use engine::{Engine, EngineConfig};
pub use env::{FixedEnv, HostEnv, SystemEnv};
pub use error::Error;
pub use limits::Limits;
pub use meter::{Meter, Reading};
pub use scheduler::{SchedulerInstance, SchedulerPlugin};
