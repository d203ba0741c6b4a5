//! The committer: one thread that drains the queue of transactions, makes each batch durable, shows it, and only then
//! tells the writers.
//!
//! An fsync costs milliseconds whatever it syncs, so throughput is the batch: when several writers are at work, the
//! committer waits a moment for those that it has just answered to come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, oneshot};

use crate::disk::Disk;
use crate::memory::Memory;
use crate::pipeline::Pipeline;
use crate::{Action, Committed, Op, TxnError};

/// A batch takes no more transactions than this, and no more bytes, but always one.
const MAX_BATCH_TXNS: usize = 4_096;
const MAX_BATCH_BYTES: usize = 8 << 20;
/// With fewer writers than this there is nobody to wait for.
const MIN_GATHERED_TXNS: usize = 4;
/// Nobody is waited for any more when no transaction has come for so long, or after half the time of a flush, or after
/// the longest wait.
const GATHER_GAP: Duration = Duration::from_micros(250);
const MAX_GATHER: Duration = Duration::from_millis(3);
/// After a failed write, the disk is tried again at most this often.
const RECOVERY_INTERVAL_MS: u64 = 250;
/// How often an idle store looks for history to forget: this many times a window, within these bounds.
const EXPIRIES_PER_WINDOW: u32 = 16;
const MIN_EXPIRY_INTERVAL: Duration = Duration::from_millis(20);
const MAX_EXPIRY_INTERVAL: Duration = Duration::from_secs(20);

type Answer = Result<Committed, TxnError>;

struct Pending {
    ops: Vec<Op>,
    bytes: usize,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) txns: usize,
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct Waiting {
    txns: VecDeque<Pending>,
    bytes: usize,
    /// The committer wants to know when there are so many.
    wanted: usize,
    closing: bool,
    finished: bool,
}

/// Where transactions wait for the committer.
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    finished: Notify,
    limits: QueueLimits,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            finished: Notify::new(),
            limits,
        }
    }

    /// Hands a transaction to the committer. It is carried out even if nobody waits for the answer.
    pub(crate) fn push(&self, ops: Vec<Op>) -> Result<oneshot::Receiver<Answer>, TxnError> {
        let bytes = ops.iter().map(op_bytes).sum();
        let (answer, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.closing {
            return Err(TxnError::Closed);
        }
        if waiting.txns.len() >= self.limits.txns || waiting.bytes + bytes > self.limits.bytes {
            return Err(TxnError::Overloaded);
        }
        waiting.bytes += bytes;
        waiting.txns.push_back(Pending { ops, bytes, answer });
        if waiting.txns.len() == 1 || waiting.txns.len() == waiting.wanted {
            self.arrived.notify_one();
        }
        Ok(receiver)
    }

    /// No more transactions; the committer ends when those that wait are done.
    pub(crate) fn close(&self) {
        self.waiting.lock().closing = true;
        self.arrived.notify_one();
    }

    pub(crate) async fn finished(&self) {
        loop {
            let finished = self.finished.notified();
            let mut finished = std::pin::pin!(finished);
            finished.as_mut().enable();
            if self.waiting.lock().finished {
                return;
            }
            finished.await;
        }
    }
}

fn op_bytes(op: &Op) -> usize {
    let value = match &op.action {
        Action::Put(value) => value.len(),
        Action::Delete | Action::Check => 0,
    };
    size_of::<Op>() + op.key.len() + value
}

/// Marks the queue as finished however the thread ends, so that nobody waits for a committer that is gone.
struct Finish(Arc<Queue>, Arc<Memory>);

impl Drop for Finish {
    fn drop(&mut self) {
        {
            let mut waiting = self.0.waiting.lock();
            waiting.closing = true;
            waiting.finished = true;
            waiting.txns.clear();
        }
        self.1.close();
        self.0.finished.notify_waiters();
    }
}

pub(crate) struct Committer {
    queue: Arc<Queue>,
    memory: Arc<Memory>,
    disk: Box<dyn Disk>,
    pipeline: Pipeline,
    clock: Clock,
    expiry_interval: Duration,
    /// How many transactions the last batches had, and how long the last flushes took.
    recent_txns: usize,
    recent_flush: Duration,
    broken: Option<Broken>,
}

/// The disk cannot be written.
struct Broken {
    reason: String,
    tried_ms: u64,
}

impl Committer {
    pub(crate) fn new(
        queue: Arc<Queue>,
        memory: Arc<Memory>,
        disk: Box<dyn Disk>,
        clock: Clock,
        history_window: Duration,
    ) -> Self {
        Self {
            pipeline: Pipeline::new(memory.revision()),
            queue,
            memory,
            disk,
            clock,
            expiry_interval: (history_window / EXPIRIES_PER_WINDOW)
                .clamp(MIN_EXPIRY_INTERVAL, MAX_EXPIRY_INTERVAL),
            recent_txns: 0,
            recent_flush: Duration::ZERO,
            broken: None,
        }
    }

    pub(crate) fn run(mut self) {
        let _finish = Finish(Arc::clone(&self.queue), Arc::clone(&self.memory));
        while let Some(txns) = self.gather() {
            self.recent_txns = txns.len().max(self.recent_txns * 3 / 4);
            self.commit(txns);
        }
        self.disk.close();
    }

    /// The next batch's transactions; `None` when the queue is closed and empty.
    fn gather(&self) -> Option<Vec<Pending>> {
        let queue = Arc::clone(&self.queue);
        let mut waiting = queue.waiting.lock();
        let mut has_history = true;
        while waiting.txns.is_empty() {
            if waiting.closing {
                return None;
            }
            if !has_history {
                queue.arrived.wait(&mut waiting);
            } else if queue
                .arrived
                .wait_for(&mut waiting, self.expiry_interval)
                .timed_out()
            {
                has_history =
                    MutexGuard::unlocked(&mut waiting, || self.memory.expire(self.clock.now_ms()));
            }
        }
        self.wait_for_others(&mut waiting);
        let (mut count, mut bytes) = (0, 0);
        for pending in &waiting.txns {
            if count > 0 && (count == MAX_BATCH_TXNS || bytes + pending.bytes > MAX_BATCH_BYTES) {
                break;
            }
            count += 1;
            bytes += pending.bytes;
        }
        waiting.bytes -= bytes;
        Some(waiting.txns.drain(..count).collect())
    }

    fn wait_for_others(&self, waiting: &mut MutexGuard<'_, Waiting>) {
        let patience = (self.recent_flush / 2).min(MAX_GATHER);
        if self.recent_txns < MIN_GATHERED_TXNS || self.broken.is_some() {
            return;
        }
        let mut waited = Duration::ZERO;
        while waiting.txns.len() < self.recent_txns && waited < patience && !waiting.closing {
            let before = waiting.txns.len();
            waiting.wanted = self.recent_txns;
            let gap = GATHER_GAP.min(patience - waited);
            self.queue.arrived.wait_for(waiting, gap);
            if waiting.txns.len() == before {
                break;
            }
            waited += gap;
        }
        waiting.wanted = 0;
    }

    fn commit(&mut self, txns: Vec<Pending>) {
        let published = self.memory.snapshot();
        let answers: Vec<(oneshot::Sender<Answer>, Answer)> = txns
            .into_iter()
            .map(|pending| {
                (
                    pending.answer,
                    self.pipeline.apply(&pending.ops, &published),
                )
            })
            .collect();
        let Some(batch) = self.pipeline.take() else {
            return answer(answers);
        };
        let began = self.clock.now();
        let flushed = self.repair().and_then(|()| {
            self.disk.append(&batch, &published).map_err(|error| {
                tracing::error!(%error, revision = batch.revision, "a batch could not be written");
                self.broken = Some(Broken {
                    reason: error.0.clone(),
                    tried_ms: self.clock.now_ms(),
                });
                error.0
            })
        });
        match flushed {
            Ok(()) => {
                self.recent_flush = (self.recent_flush * 3 + (self.clock.now() - began)) / 4;
                let woken = self.memory.publish(&batch, self.clock.now_ms());
                self.pipeline.landed();
                answer(answers);
                for topic in woken {
                    topic.wake.notify_waiters();
                }
            }
            Err(reason) => {
                self.pipeline.failed();
                for (sender, _) in answers {
                    // A writer that has gone away needs no answer.
                    let _ = sender.send(Err(TxnError::Unavailable(reason.clone())));
                }
            }
        }
    }

    /// Makes sure that the disk can be tried, or says why not.
    fn repair(&mut self) -> Result<(), String> {
        let Some(broken) = &mut self.broken else {
            return Ok(());
        };
        let now_ms = self.clock.now_ms();
        if now_ms < broken.tried_ms + RECOVERY_INTERVAL_MS {
            return Err(broken.reason.clone());
        }
        broken.tried_ms = now_ms;
        match self.disk.recover() {
            Ok(()) => {
                tracing::info!("the data file can be written again");
                self.broken = None;
                Ok(())
            }
            Err(error) => {
                broken.reason = error.0;
                Err(broken.reason.clone())
            }
        }
    }
}

fn answer(answers: Vec<(oneshot::Sender<Answer>, Answer)>) {
    for (sender, answer) in answers {
        // A writer that has gone away needs no answer.
        let _ = sender.send(answer);
    }
}

/// Time since the store was opened: the one clock that the cores are fed from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    opened: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "edge: the committer's clock")]
    pub(crate) fn start() -> Self {
        Self {
            opened: Instant::now(),
        }
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now().as_millis() as u64
    }
}
