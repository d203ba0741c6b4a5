//! Who waits for what: watchers of one prefix share a topic, and a commit wakes only the topics that it concerns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::Revision;

/// Shared by all watchers of one prefix.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) prefix: Arc<str>,
    pub(crate) wake: Notify,
    /// No event after this revision matches (among those in the logs).
    newest: AtomicU64,
    /// The newest matching event that has been compacted: a watcher that has not got as far has missed something.
    lost: AtomicU64,
}

impl Topic {
    pub(crate) fn newest(&self) -> Revision {
        self.newest.load(Ordering::Acquire)
    }

    pub(crate) fn lost(&self) -> Revision {
        self.lost.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
struct Entry {
    topic: Arc<Topic>,
    watchers: usize,
}

/// The topics of one collection. A key's topics are found by trying each length that a watched prefix has.
#[derive(Debug, Default)]
pub(crate) struct TopicIndex {
    by_prefix: HashMap<Arc<str>, Entry, RandomState>,
    /// How many topics have a prefix of this length.
    lengths: BTreeMap<usize, usize>,
}

impl TopicIndex {
    /// Joins a prefix's topic. `newest`: the collection's newest event, from which a new topic starts.
    pub(crate) fn join(&mut self, prefix: &str, newest: Revision) -> Arc<Topic> {
        if let Some(entry) = self.by_prefix.get_mut(prefix) {
            entry.watchers += 1;
            return Arc::clone(&entry.topic);
        }
        let prefix: Arc<str> = prefix.into();
        let topic = Arc::new(Topic {
            prefix: Arc::clone(&prefix),
            wake: Notify::new(),
            newest: AtomicU64::new(newest),
            lost: AtomicU64::new(0),
        });
        *self.lengths.entry(prefix.len()).or_default() += 1;
        self.by_prefix.insert(
            prefix,
            Entry {
                topic: Arc::clone(&topic),
                watchers: 1,
            },
        );
        topic
    }

    pub(crate) fn leave(&mut self, topic: &Topic) {
        let Some(entry) = self.by_prefix.get_mut(&topic.prefix) else {
            return;
        };
        entry.watchers -= 1;
        if entry.watchers > 0 {
            return;
        }
        self.by_prefix.remove(&topic.prefix);
        if let Some(count) = self.lengths.get_mut(&topic.prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&topic.prefix.len());
            }
        }
    }

    /// Notes an event of a key; collects the topics that no event since `batch_first` had concerned yet.
    pub(crate) fn note(
        &self,
        key: &str,
        revision: Revision,
        batch_first: Revision,
        woken: &mut Vec<Arc<Topic>>,
    ) {
        self.for_each_match(key, |topic| {
            if topic.newest.swap(revision, Ordering::AcqRel) < batch_first {
                woken.push(Arc::clone(topic));
            }
        });
    }

    /// Notes that an event of a key is compacted.
    pub(crate) fn note_lost(&self, key: &str, revision: Revision) {
        self.for_each_match(key, |topic| {
            topic.lost.fetch_max(revision, Ordering::AcqRel);
        });
    }

    pub(crate) fn wake_all(&self) {
        for entry in self.by_prefix.values() {
            entry.topic.wake.notify_waiters();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_prefix.len()
    }

    fn for_each_match(&self, key: &str, mut visit: impl FnMut(&Arc<Topic>)) {
        for &len in self.lengths.keys() {
            let Some(prefix) = key.get(..len) else {
                if len > key.len() {
                    break;
                }
                continue;
            };
            if let Some(entry) = self.by_prefix.get(prefix) {
                visit(&entry.topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_wakes_the_topics_that_it_concerns() {
        let mut index = TopicIndex::default();
        let topics: Vec<_> = ["pods/", "pods/a/", "pods/b/", "pods/a/x", "pods/ä"]
            .iter()
            .map(|prefix| index.join(prefix, 0))
            .collect();
        let check = |key: &str, expect: &[&str]| {
            let mut woken = Vec::new();
            index.note(key, 1, 1, &mut woken);
            let prefixes: Vec<&str> = woken.iter().map(|topic| &*topic.prefix).collect();
            assert_eq!(prefixes, expect, "{key}");
            topics
                .iter()
                .for_each(|topic| topic.newest.store(0, Ordering::Relaxed));
        };
        check("pods/a/x", &["pods/", "pods/a/", "pods/a/x"]);
        check("pods/a/xy", &["pods/", "pods/a/", "pods/a/x"]);
        check("pods/c/x", &["pods/"]);
        check("pods/ä/x", &["pods/", "pods/ä"]);
        check("pods/é", &["pods/"]);
    }

    #[test]
    fn a_topic_goes_with_its_last_watcher() {
        let mut index = TopicIndex::default();
        let first = index.join("pods/", 5);
        let second = index.join("pods/", 9);
        assert!(Arc::ptr_eq(&first, &second));
        index.leave(&first);
        assert_eq!(index.len(), 1);
        index.leave(&second);
        assert_eq!(index.len(), 0);
        assert!(index.lengths.is_empty());
    }
}
