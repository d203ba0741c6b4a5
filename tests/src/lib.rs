//! Shared parts of the cross-crate tests: the real binary, the real clients, and waiting on conditions.

pub mod clients;
pub mod process;
pub mod wait;

pub use process::{Oarlock, Options};
pub use wait::{eventually, eventually_ok};
