//! kube-scheduler's default plugins that place pods, as one bundle with one mirror. Pure: the same code is the component
//! (`component`, on wasm) and a native library for tests and benchmarks.

pub mod api;
pub mod bundle;
pub mod describe;
mod mirror;
mod objects;
pub mod plugins;
mod queue;
mod selector;

pub use bundle::Bundle;

#[cfg(target_family = "wasm")]
mod component;
