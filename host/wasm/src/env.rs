//! Where guests' time and chance come from.
//!
//! Invariant: guests see a clock and randomness only through this trait, so that a recording can replay them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The host's clock and randomness, as guests see them. Read at most once a call for the clock.
pub trait HostEnv: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// 64 random bits.
    fn random(&self) -> u64;
}

/// The machine's own clock and randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemEnv;

impl HostEnv for SystemEnv {
    fn now_ms(&self) -> u64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "edge: the clock that guests read"
        )]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    fn random(&self) -> u64 {
        rand::random()
    }
}

/// A clock that is set by hand, and numbers drawn from a seed (SplitMix64): for tests and replays.
#[derive(Debug, Default)]
pub struct FixedEnv {
    now_ms: AtomicU64,
    seed: AtomicU64,
}

impl FixedEnv {
    /// A clock that stands at `now_ms`, and the sequence that `seed` gives.
    pub fn new(now_ms: u64, seed: u64) -> Self {
        Self {
            now_ms: AtomicU64::new(now_ms),
            seed: AtomicU64::new(seed),
        }
    }

    /// Moves the clock.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl HostEnv for FixedEnv {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn random(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .seed
            .fetch_add(GOLDEN, Ordering::Relaxed)
            .wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
