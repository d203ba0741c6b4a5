//! What plugin authors use: scheduling plugins, controllers and admission policies as WebAssembly components.
//!
//! A plugin is a plain library: its logic is unit-tested natively (see [`scheduling::testing`], [`controller::testing`] and
//! [`admission::testing`]), and one line (`oarlock_sdk::export_plugins!`, `export_bundle!`, `export_controller!` or
//! `export_policy!`) makes the same code a component when it is built for `wasm32-unknown-unknown`. Nothing is exported
//! natively, so plugins link beside each other.
//!
//! Invariant: a guest of ours imports `oarlock:host` (and controllers `oarlock:controller/objects`), and nothing else.

pub mod admission;
#[doc(hidden)]
pub mod bindings;
pub mod controller;
pub mod host;
pub mod scheduling;

pub use oarlock_model as model;
pub use serde_json;

#[doc(hidden)]
pub mod __private {
    //! What the macros expand to needs; no part of the interface.
    pub use crate::admission::PolicyComponent;
    pub use crate::bindings;
    pub use crate::controller::glue::ControllerComponent;
    pub use crate::host::install_panic_hook;
    pub use crate::scheduling::glue::{PlacementComponent, QueueComponent};
}
