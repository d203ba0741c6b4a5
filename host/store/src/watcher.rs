//! A watcher: a cursor into its collection's log. It buffers nothing, so a slow one costs nothing; it ends when what it
//! has not read yet is compacted.

use std::sync::Arc;

use async_trait::async_trait;

use crate::memory::{Channel, Memory};
use crate::topic::Topic;
use crate::{Revision, Watch, WatchBatch, WatchEnd};

pub(crate) struct Watcher {
    memory: Arc<Memory>,
    channel: Arc<Channel>,
    topic: Arc<Topic>,
    /// Every matching event up to here has been handed out.
    cursor: Revision,
}

impl Watcher {
    pub(crate) fn new(
        memory: Arc<Memory>,
        channel: Arc<Channel>,
        topic: Arc<Topic>,
        after: Revision,
    ) -> Self {
        Self {
            memory,
            channel,
            topic,
            cursor: after,
        }
    }

    /// What there is to hand out now.
    fn poll(&mut self, max: usize) -> Result<Option<WatchBatch>, WatchEnd> {
        let closed = self.memory.is_closed();
        // Before the topic: it is told of an event before the event's revision is published.
        let published = self.memory.revision();
        if self.topic.newest() > self.cursor {
            let batch = self.read(published, max)?;
            if !batch.events.is_empty() {
                return Ok(Some(batch));
            }
        }
        self.cursor = self.cursor.max(published);
        if closed {
            Err(WatchEnd::Closed)
        } else {
            Ok(None)
        }
    }

    fn read(&mut self, published: Revision, max: usize) -> Result<WatchBatch, WatchEnd> {
        let mut batch = WatchBatch {
            events: Vec::new(),
            progress: published,
        };
        let log = self.channel.log.read();
        if self.topic.lost() > self.cursor {
            return Err(WatchEnd::Compacted {
                oldest: self.memory.oldest(),
            });
        }
        for item in log.after(self.cursor) {
            let event = item.event();
            if event.revision > published {
                break;
            }
            if !event.key.starts_with(&*self.topic.prefix) {
                continue;
            }
            if let Some(last) = batch.events.last()
                && batch.events.len() >= max
                && last.revision != event.revision
            {
                batch.progress = last.revision;
                break;
            }
            batch.events.push(item.share());
        }
        self.cursor = self.cursor.max(batch.progress);
        Ok(batch)
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self, max: usize) -> Result<WatchBatch, WatchEnd> {
        if let Some(batch) = self.poll(max)? {
            return Ok(batch);
        }
        let topic = Arc::clone(&self.topic);
        loop {
            let wake = topic.wake.notified();
            let mut wake = std::pin::pin!(wake);
            wake.as_mut().enable();
            if let Some(batch) = self.poll(max)? {
                return Ok(batch);
            }
            wake.await;
        }
    }

    fn progress(&mut self) -> Revision {
        let published = self.memory.revision();
        let next = if self.topic.newest() <= self.cursor {
            None
        } else {
            let log = self.channel.log.read();
            if self.topic.lost() > self.cursor {
                return self.cursor;
            }
            let next = log
                .after(self.cursor)
                .find(|item| item.event().key.starts_with(&*self.topic.prefix));
            next.map(|item| item.event().revision)
        };
        let reached = next.map_or(published, |next| published.min(next - 1));
        self.cursor = self.cursor.max(reached);
        self.cursor
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.channel.topics.lock().leave(&self.topic);
    }
}
