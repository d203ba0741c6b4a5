//! What readers and watchers see: the newest snapshot, the logs of past events, and who waits for what.
//!
//! Fed only with durable batches, in order, by one thread. An event is in its log before its revision is published, and a
//! watcher hands out nothing beyond the published revision; so whoever learns of a change can also read it. Locks are
//! taken in the order ledger, topics, log, and none is held while a tree is walked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::history::{HistoryLimits, Ledger, Log, retained_bytes};
use crate::key::{self, KeyRange};
use crate::pipeline::Batch;
use crate::snapshot::{Snapshot, Undone};
use crate::topic::{Topic, TopicIndex};
use crate::watcher::Watcher;
use crate::{Event, Page, RangeQuery, ReadError, Record, Revision};

/// One collection's events and watchers.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    pub(crate) topics: Mutex<TopicIndex>,
    pub(crate) log: RwLock<Log>,
}

#[derive(Debug)]
pub(crate) struct Memory {
    published: RwLock<Arc<Snapshot>>,
    /// The published snapshot's revision.
    revision: AtomicU64,
    oldest: AtomicU64,
    ledger: Mutex<Ledger>,
    channels: RwLock<HashMap<Arc<str>, Arc<Channel>, RandomState>>,
    advanced: Notify,
    closed: AtomicBool,
}

impl Memory {
    /// `history`: events that led to the snapshot from the state at revision `oldest`.
    pub(crate) fn new(
        snapshot: Snapshot,
        history: VecDeque<Arc<Event>>,
        oldest: Revision,
        limits: HistoryLimits,
        now_ms: u64,
    ) -> Self {
        let memory = Self {
            revision: AtomicU64::new(snapshot.revision),
            published: RwLock::new(Arc::new(snapshot)),
            oldest: AtomicU64::new(oldest),
            ledger: Mutex::new(Ledger::new(limits)),
            channels: RwLock::default(),
            advanced: Notify::new(),
            closed: AtomicBool::new(false),
        };
        {
            let mut ledger = memory.ledger.lock();
            let mut rest = history.iter().peekable();
            while let Some(event) = rest.next() {
                let (mut bytes, mut events) = (retained_bytes(event), 1);
                while let Some(other) = rest.next_if(|other| other.revision == event.revision) {
                    bytes += retained_bytes(other);
                    events += 1;
                }
                ledger.add(event.revision, bytes, events, now_ms);
            }
        }
        for event in history {
            memory
                .channel(key::collection(&event.key))
                .log
                .write()
                .push(event);
        }
        memory.expire(now_ms);
        memory
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn oldest(&self) -> Revision {
        self.oldest.load(Ordering::Acquire)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.read())
    }

    pub(crate) fn get_at(&self, key: &str, at: Revision) -> Result<Option<Arc<Record>>, ReadError> {
        let snapshot = self.snapshot();
        self.check_revision(at, snapshot.revision)?;
        let record = snapshot.get(key);
        if at == snapshot.revision || record.is_some_and(|record| record.modified <= at) {
            return Ok(record.cloned());
        }
        let Some(channel) = self.existing_channel(key::collection(key)) else {
            return Ok(record.cloned());
        };
        let log = channel.log.read();
        self.check_revision(at, snapshot.revision)?;
        match log.after(at).find(|item| *item.event().key == *key) {
            Some(item) => Ok(item.event().before.clone()),
            None => Ok(record.cloned()),
        }
    }

    pub(crate) fn range(&self, query: &RangeQuery) -> Result<Page, ReadError> {
        let snapshot = self.snapshot();
        let Some(at) = query.at else {
            return Ok(snapshot.page(query));
        };
        self.check_revision(at, snapshot.revision)?;
        let undone = if at == snapshot.revision {
            Undone::new()
        } else {
            self.undo(query, at, snapshot.revision)?
        };
        if undone.is_empty() {
            let mut page = snapshot.page(query);
            page.revision = at;
            return Ok(page);
        }
        Ok(snapshot.page_before(query, at, &undone))
    }

    /// What the keys that changed after `at` were then: what their first event since then replaced.
    fn undo(
        &self,
        query: &RangeQuery,
        at: Revision,
        newest: Revision,
    ) -> Result<Undone, ReadError> {
        let keys = KeyRange::new(&query.prefix, query.after.as_deref());
        let mut undone = Undone::new();
        let Some(channel) = self.existing_channel(key::collection(&query.prefix)) else {
            return Ok(undone);
        };
        let log = channel.log.read();
        self.check_revision(at, newest)?;
        for item in log.after(at) {
            let event = item.event();
            if keys.contains(&event.key) && !undone.contains_key(&event.key) {
                undone.insert(Arc::clone(&event.key), event.before.clone());
            }
        }
        Ok(undone)
    }

    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: &str,
        after: Revision,
    ) -> Result<Watcher, ReadError> {
        self.check_revision(after, self.revision())?;
        let channel = self.channel(key::collection(prefix));
        let topic = {
            let mut topics = channel.topics.lock();
            let newest = channel.log.read().newest();
            topics.join(prefix, newest)
        };
        // From here on, what is compacted is noted in the topic; the watcher leaves it when it is dropped.
        let watcher = Watcher::new(Arc::clone(self), channel, topic, after);
        self.check_revision(after, self.revision())?;
        Ok(watcher)
    }

    fn check_revision(&self, wanted: Revision, current: Revision) -> Result<(), ReadError> {
        if wanted > current {
            return Err(ReadError::Future { wanted, current });
        }
        let oldest = self.oldest();
        if wanted < oldest {
            return Err(ReadError::Compacted { wanted, oldest });
        }
        Ok(())
    }

    fn existing_channel(&self, collection: &str) -> Option<Arc<Channel>> {
        self.channels.read().get(collection).map(Arc::clone)
    }

    fn channel(&self, collection: &str) -> Arc<Channel> {
        if let Some(channel) = self.existing_channel(collection) {
            return channel;
        }
        Arc::clone(self.channels.write().entry(collection.into()).or_default())
    }

    /// Shows a batch to readers. The watchers that it concerns are to be woken by the caller, once it has told the writers.
    #[must_use]
    pub(crate) fn publish(&self, batch: &Batch, now_ms: u64) -> Vec<Arc<Topic>> {
        let mut next = Snapshot::clone(&self.snapshot());
        let mut by_collection: HashMap<&str, Vec<&Arc<Event>>, RandomState> = HashMap::default();
        let mut bytes = 0;
        for event in &batch.events {
            next.apply(event);
            bytes += retained_bytes(event);
            by_collection
                .entry(key::collection(&event.key))
                .or_default()
                .push(event);
        }
        next.revision = batch.revision;

        let channels: Vec<_> = by_collection
            .into_iter()
            .map(|(collection, events)| (self.channel(collection), events))
            .collect();
        let mut woken = Vec::new();
        // Held until the revision is published: a watcher that joins meanwhile would see unpublished events and wait for
        // a wake-up that it was too late for.
        let mut joining = Vec::with_capacity(channels.len());
        for (channel, events) in &channels {
            let topics = channel.topics.lock();
            let mut log = channel.log.write();
            for event in events {
                topics.note(&event.key, event.revision, batch.first, &mut woken);
                log.push(Arc::clone(event));
            }
            joining.push(topics);
        }
        let previous = std::mem::replace(&mut *self.published.write(), Arc::new(next));
        self.revision.store(batch.revision, Ordering::Release);
        drop(joining);
        drop(previous);
        self.advanced.notify_waiters();
        self.ledger
            .lock()
            .add(batch.revision, bytes, batch.events.len(), now_ms);
        self.expire(now_ms);
        woken
    }

    /// Forgets what is too old or too much. Returns whether any history is left.
    pub(crate) fn expire(&self, now_ms: u64) -> bool {
        let mut ledger = self.ledger.lock();
        if let Some(through) = ledger.due(now_ms) {
            self.forget(through);
        }
        !ledger.is_empty()
    }

    pub(crate) fn compact(&self, through: Revision) {
        let mut ledger = self.ledger.lock();
        let through = through.min(self.revision());
        ledger.forget(through);
        self.forget(through);
    }

    /// The ledger's lock is held.
    fn forget(&self, through: Revision) {
        if through <= self.oldest() {
            return;
        }
        self.oldest.store(through, Ordering::Release);
        let channels: Vec<_> = self.channels.read().values().map(Arc::clone).collect();
        for channel in channels {
            let forgotten = {
                let topics = channel.topics.lock();
                let mut log = channel.log.write();
                let forgotten = log.forget(through);
                for event in &forgotten {
                    topics.note_lost(&event.key, event.revision);
                }
                forgotten
            };
            drop(forgotten);
        }
    }

    pub(crate) async fn reached(&self, revision: Revision) {
        while self.revision() < revision {
            let advanced = self.advanced.notified();
            let mut advanced = std::pin::pin!(advanced);
            advanced.as_mut().enable();
            if self.revision() >= revision {
                return;
            }
            advanced.await;
        }
    }

    /// Ends all watches, once they have handed out what is published.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let channels: Vec<_> = self.channels.read().values().map(Arc::clone).collect();
        for channel in channels {
            channel.topics.lock().wake_all();
        }
    }
}
