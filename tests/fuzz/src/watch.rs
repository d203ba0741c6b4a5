//! What runs now, and the clock on it: an execution that does not end is told, with its input, and ends the process.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Builds without optimization get more time.
const LONGEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 2 });
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// More of an input is not printed.
const SHOWN_BYTES: usize = 4096;
/// How a process ends that found something.
const FOUND: i32 = 1;

#[derive(Default)]
struct Running {
    target: &'static str,
    seed: u64,
    number: u64,
    input: Vec<u8>,
    since: Option<Instant>,
}

fn running() -> &'static Mutex<Running> {
    static RUNNING: OnceLock<Mutex<Running>> = OnceLock::new();
    RUNNING.get_or_init(Mutex::default)
}

static KEPT: OnceLock<File> = OnceLock::new();

/// Keeps each input in a file (a name for memory) before it is tried, for whoever sees this process die by a signal.
pub fn keep_input_in(file: File) {
    let _ = KEPT.set(file);
}

#[expect(
    clippy::disallowed_methods,
    reason = "edge: how long an execution takes"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn started(target: &'static str, seed: u64, number: u64, input: &[u8]) {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        std::thread::spawn(watch);
    });
    if let Some(file) = KEPT.get() {
        let length = (input.len() as u64).to_le_bytes();
        // A file that cannot be written costs a report its input.
        let _ = file.write_all_at(&length, 0);
        let _ = file.write_all_at(input, length.len() as u64);
    }
    let mut running = running().lock().unwrap_or_else(PoisonError::into_inner);
    let mut kept = std::mem::take(&mut running.input);
    kept.clear();
    kept.extend_from_slice(input);
    *running = Running {
        target,
        seed,
        number,
        input: kept,
        since: Some(now()),
    };
}

/// How long it took.
pub(crate) fn ended() -> Duration {
    let mut running = running().lock().unwrap_or_else(PoisonError::into_inner);
    running
        .since
        .take()
        .map_or(Duration::ZERO, |since| since.elapsed())
}

fn watch() {
    loop {
        std::thread::park_timeout(LOOK_EVERY);
        let since = running()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .since;
        if since.is_some_and(|since| since.elapsed() > LONGEST) {
            end(&format!("does not end within {LONGEST:?}"));
        }
    }
}

/// Tells what the running execution did, and ends the process.
pub(crate) fn end(what: &str) {
    let running = running().lock().unwrap_or_else(PoisonError::into_inner);
    let (target, seed, number) = (running.target, running.seed, running.number);
    let told = format!(
        "FOUND in {target} (seed {seed}, execution {number}): {what}\n  input: {}\n",
        literal(&running.input)
    );
    // Not by a macro: a harness of tests keeps what those print, and this process has no time left to show it.
    let _ = std::io::stderr().write_all(told.as_bytes());
    std::process::exit(FOUND);
}

/// An input as a literal of Rust.
pub fn literal(input: &[u8]) -> String {
    let shown = input.get(..SHOWN_BYTES).unwrap_or(input);
    let more = input.len() - shown.len();
    let more = if more > 0 {
        format!(" and {more} bytes more")
    } else {
        String::new()
    };
    format!("b\"{}\"{more}", shown.escape_ascii())
}
