//! The host's log, clock and randomness; natively, stand-ins that a test can set.
//!
//! Invariant: natively nothing here is random and no clock runs, so that a test gives the same answer twice.

#[cfg(target_family = "wasm")]
mod here {
    use crate::bindings::plugin::oarlock::host::{clock, log, random};

    use super::Level;

    pub(super) fn write(level: Level, message: &str) {
        let level = match level {
            Level::Error => log::Level::Error,
            Level::Warn => log::Level::Warn,
            Level::Info => log::Level::Info,
            Level::Debug => log::Level::Debug,
        };
        log::write(level, message);
    }

    pub(super) fn panicked(message: &str) {
        log::panicked(message);
    }

    pub(super) fn now_ms() -> u64 {
        clock::now()
    }

    pub(super) fn random() -> u64 {
        random::next()
    }
}

#[cfg(not(target_family = "wasm"))]
mod here {
    use std::cell::Cell;

    use super::Level;

    thread_local! {
        pub(super) static NOW_MS: Cell<u64> = const { Cell::new(0) };
        pub(super) static SEED: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn write(level: Level, message: &str) {
        eprintln!("{level:?}: {message}");
    }

    pub(super) fn panicked(_message: &str) {}

    pub(super) fn now_ms() -> u64 {
        NOW_MS.get()
    }

    /// SplitMix64.
    pub(super) fn random() -> u64 {
        let seed = SEED.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        SEED.set(seed);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A person must look.
    Error,
    /// Something is odd, and the work goes on.
    Warn,
    /// What an operator wants to see.
    Info,
    /// What an author wants to see.
    Debug,
}

/// Writes a line to the host's log.
pub fn log(level: Level, message: &str) {
    here::write(level, message);
}

/// Writes a line that an operator wants to see.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Writes a line about something odd.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Milliseconds since 1970; constant during one call.
pub fn now_ms() -> u64 {
    here::now_ms()
}

/// 64 random bits.
pub fn random() -> u64 {
    here::random()
}

/// Sets the clock that [`now_ms`] shows to this thread's tests.
#[cfg(not(target_family = "wasm"))]
pub fn set_now_ms(now_ms: u64) {
    here::NOW_MS.set(now_ms);
}

/// Starts this thread's [`random`] anew.
#[cfg(not(target_family = "wasm"))]
pub fn set_seed(seed: u64) {
    here::SEED.set(seed);
}

/// Hands the text of a panic to the host just before the guest traps.
#[doc(hidden)]
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| here::panicked(&panic.to_string())));
}
