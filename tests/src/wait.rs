//! Waiting on a condition with a deadline; no test sleeps for a fixed time.

use std::fmt::Display;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);

/// Polls until `probe` gives a value; panics with the last refusal after `seconds`.
#[expect(
    clippy::disallowed_methods,
    reason = "edge: tests wait on real processes"
)]
pub fn eventually_ok<T, E: Display>(
    what: &str,
    seconds: u64,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(e) if Instant::now() >= deadline => panic!("{what}: not within {seconds} s: {e}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Polls until `probe` is true; panics after `seconds`.
pub fn eventually(what: &str, seconds: u64, mut probe: impl FnMut() -> bool) {
    eventually_ok(what, seconds, || {
        if probe() { Ok(()) } else { Err("still false") }
    });
}
