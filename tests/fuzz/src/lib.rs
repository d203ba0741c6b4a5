//! A small mutation fuzzer for everything that reads what clients send: decoders, patches, schemas, expressions, rules.
//!
//! No instrumentation: an input is new if what the target says of it is (`targets` say it in a number). Runs are the same for
//! the same seed. What no input may do: panic, break a law that the target states, run for seconds, or take memory
//! out of proportion. `engine` runs, `mutate` and `grow` make inputs, `memory` counts, `watch` looks at the clock.

mod engine;
mod grow;
mod memory;
mod mutate;
mod random;
pub mod targets;
mod watch;

pub use engine::{Limit, Report, run};
pub use watch::keep_input_in;

/// What is fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    /// Inputs are JSON, and mutated as trees.
    pub tree: bool,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Large inputs made to hurt, each tried once as it is; about as many bytes as said.
    pub hostile: fn(usize) -> Vec<Vec<u8>>,
    /// Words that mutations put in.
    pub words: &'static [&'static str],
    /// A mutation by what the target knows of its inputs.
    pub grow: Option<fn(&mut random::Random, &mut serde_json::Value)>,
    pub run: fn(&[u8]) -> Verdict,
}

/// What a target said of an input, as a number; or the law that it broke.
pub type Verdict = Result<u64, String>;
