//! A watch on its way out: batches of frames, made only when the caller can take them.
//!
//! Invariant: nothing is buffered for a slow watcher but one chunk; what it has not read stays in the store's window, and
//! once it has fallen out of that, the watch ends with a 410.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use oarlock_registry::{WatchItem, WatchStream};
use tokio::sync::watch;
use tokio::time::Sleep;

use crate::encode::{Framer, error_frame};
use crate::metrics::{Gauge, Open};
use crate::outgoing::CHUNK_BYTES;

/// A watch that names no time ends after this, plus up to as much again, so that clients spread over servers.
const DEFAULT_SECONDS: u64 = 1800;

/// How long a watch lasts.
pub(crate) fn lifetime(wanted_seconds: Option<u64>, now: Timestamp) -> Duration {
    // The sub-second part of the clock is chance enough to spread the ends of watches.
    let spread = u64::from(now.subsec_nanosecond().unsigned_abs()) % DEFAULT_SECONDS;
    Duration::from_secs(
        wanted_seconds
            .unwrap_or(DEFAULT_SECONDS + spread)
            .min(u64::from(u32::MAX)),
    )
}

struct Watching {
    stream: WatchStream,
    framer: Framer,
    deadline: Pin<Box<Sleep>>,
    stopping: watch::Receiver<bool>,
    /// Events of the last batch that did not fit into its chunk.
    rest: VecDeque<WatchItem>,
    ended: bool,
    open: Open,
    _gauge: Gauge,
}

/// The body of a watch.
pub(crate) fn body(
    stream: WatchStream,
    framer: Framer,
    lifetime: Duration,
    stopping: watch::Receiver<bool>,
    open: Open,
    gauge: Gauge,
) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
    let state = Watching {
        stream,
        framer,
        deadline: Box::pin(tokio::time::sleep(lifetime)),
        stopping,
        rest: VecDeque::new(),
        ended: false,
        open,
        _gauge: gauge,
    };
    Box::pin(futures::stream::unfold(state, |mut state| async move {
        let chunk = state.next_chunk().await?;
        Some((chunk, state))
    }))
}

impl Watching {
    async fn next_chunk(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                batch = self.stream.next_batch() => match batch {
                    Ok(items) => self.rest = items.into(),
                    Err(error) => {
                        self.ended = true;
                        return Some(error_frame(&error, self.framer.format()));
                    }
                },
                () = &mut self.deadline => {
                    self.ended = true;
                    self.rest.extend(self.stream.final_bookmark());
                }
                _ = self.stopping.wait_for(|stop| *stop) => return None,
            }
        }
        self.frames()
    }

    /// As many events as fit into a chunk; a single one is handed on without a copy.
    fn frames(&mut self) -> Option<Bytes> {
        let now = Timestamp::now();
        let first = self.framer.frame(&self.rest.pop_front()?, now);
        let mut count = 1;
        let chunk = if self.rest.is_empty() || first.len() >= CHUNK_BYTES {
            first
        } else {
            let mut out =
                Vec::with_capacity((first.len() * (self.rest.len() + 1)).min(2 * CHUNK_BYTES));
            out.extend_from_slice(&first);
            while out.len() < CHUNK_BYTES
                && let Some(item) = self.rest.pop_front()
            {
                out.extend_from_slice(&self.framer.frame(&item, now));
                count += 1;
            }
            Bytes::from(out)
        };
        self.open.sent(count);
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        let now: Timestamp = "2026-01-01T00:00:00.123456789Z".parse().unwrap();
        assert_eq!(lifetime(Some(3), now), Duration::from_secs(3));
        let own = lifetime(None, now).as_secs();
        assert!(
            (DEFAULT_SECONDS..2 * DEFAULT_SECONDS).contains(&own),
            "{own}"
        );
    }
}
