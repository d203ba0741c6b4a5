//! A bounded queue in front of a backend, which has a thread of its own: requests put, the thread takes in batches.
//!
//! Invariant: putting never waits; a queue that is full (in events or in bytes) takes nothing until it has been worked off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Counters;
use super::event::Event;

/// Events that wait at most, as upstream.
const MAX_EVENTS: usize = 10_000;
/// Bytes of objects that wait at most.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// How events are put together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub events: usize,
    /// How long the first of a batch waits for others.
    pub wait: Duration,
}

/// Where events end.
pub(super) trait Backend: Send + 'static {
    const NAME: &'static str;

    /// Where events are counted that were not taken.
    fn errors(counters: &Counters) -> &std::sync::atomic::AtomicU64;

    /// `stopping`: nothing is to be tried again.
    fn write(&mut self, events: &[Arc<Event>], stopping: &AtomicBool) -> Result<(), String>;
}

enum Message {
    Event(Arc<Event>),
    Stop,
}

#[derive(Debug)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    stopping: AtomicBool,
    /// Events are being dropped, which has been told.
    overflows: AtomicBool,
}

impl Queue {
    pub fn start<B: Backend>(
        backend: B,
        limits: Limits,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_EVENTS);
        let shared = Arc::new(Shared::default());
        let (of_worker, counters) = (Arc::clone(&shared), Arc::clone(counters));
        let worker = std::thread::Builder::new()
            .name(format!("audit-{}", B::NAME))
            .spawn(move || run(&receiver, backend, limits, &of_worker, &counters))?;
        Ok(Self {
            sender,
            shared,
            worker: Mutex::new(Some(worker)),
        })
    }

    /// False: it was dropped.
    pub fn put(&self, event: &Arc<Event>) -> bool {
        let weight = event.weight();
        let before = self.shared.bytes.fetch_add(weight, Ordering::Relaxed);
        let fits = before + weight <= MAX_BYTES || before == 0;
        let taken = fits
            && self
                .sender
                .try_send(Message::Event(Arc::clone(event)))
                .is_ok();
        if !taken {
            self.shared.bytes.fetch_sub(weight, Ordering::Relaxed);
        }
        if self.shared.overflows.swap(!taken, Ordering::Relaxed) == taken && !taken {
            tracing::error!("the audit queue is full: events are dropped");
        }
        taken
    }

    /// Waits until what was put before has been written.
    pub fn stop(&self) {
        let Some(worker) = self.worker.lock().take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::Relaxed);
        // A worker that is gone takes nothing more.
        let _ = self.sender.send(Message::Stop);
        let _ = worker.join();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "edge: how long a batch waits for more"
)]
fn run<B: Backend>(
    receiver: &Receiver<Message>,
    mut backend: B,
    limits: Limits,
    shared: &Shared,
    counters: &Counters,
) {
    let mut batch = Vec::new();
    let mut open = true;
    while open {
        let Ok(Message::Event(first)) = receiver.recv() else {
            return;
        };
        batch.push(first);
        let deadline = Instant::now() + limits.wait;
        while batch.len() < limits.events {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = if left.is_zero() {
                receiver.try_recv().ok()
            } else {
                receiver.recv_timeout(left).ok()
            };
            match next {
                Some(Message::Event(event)) => batch.push(event),
                Some(Message::Stop) => {
                    open = false;
                    break;
                }
                None => break,
            }
        }
        if let Err(why) = backend.write(&batch, &shared.stopping) {
            let lost = batch.len();
            B::errors(counters).fetch_add(lost as u64, Ordering::Relaxed);
            tracing::error!(to = B::NAME, lost, %why, "audit events were not written");
        }
        let freed = batch.drain(..).map(|event| event.weight()).sum();
        shared.bytes.fetch_sub(freed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::event::tests::event;
    use std::sync::mpsc::{Sender, channel};

    /// Takes a batch only when it is told to.
    struct Slow {
        gate: Receiver<()>,
        told: Sender<usize>,
    }

    impl Backend for Slow {
        const NAME: &'static str = "slow";

        fn errors(counters: &Counters) -> &std::sync::atomic::AtomicU64 {
            &counters.log_errors
        }

        fn write(&mut self, events: &[Arc<Event>], _: &AtomicBool) -> Result<(), String> {
            self.gate.recv().map_err(|e| e.to_string())?;
            self.told.send(events.len()).map_err(|e| e.to_string())
        }
    }

    #[test]
    fn a_full_queue_drops_and_a_stopped_one_has_written_all() {
        let (open, gate) = channel();
        let (told, batches) = channel();
        let counters = Arc::new(Counters::default());
        let limits = Limits {
            events: 100,
            wait: Duration::from_millis(1),
        };
        let queue = Queue::start(Slow { gate, told }, limits, &counters).unwrap();
        let one = Arc::new(event("i"));
        let mut taken = 0;
        while queue.put(&one) {
            taken += 1;
        }
        // What waits, and up to a batch that the worker has already.
        assert!((MAX_EVENTS..=MAX_EVENTS + 100).contains(&taken), "{taken}");
        for _ in 0..=taken {
            open.send(()).unwrap();
        }
        queue.stop();
        assert!(batches.try_iter().sum::<usize>() >= taken);
        assert!(!queue.put(&one));
    }
}
