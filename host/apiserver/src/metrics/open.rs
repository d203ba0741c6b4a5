//! Watches by kind: how many are open, and how many events they were sent.
//!
//! A watch looks its kind up once; an event costs a relaxed counter.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use oarlock_kinds::Row;
use parking_lot::RwLock;

use super::{Key, MAX_SERIES, NO_DRY_RUN, head, labels};

#[derive(Debug, Default)]
pub(crate) struct Series {
    labels: String,
    /// Of the events: the kind alone.
    kind: String,
    open: AtomicI64,
    events: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Watches(RwLock<HashMap<Key, Arc<Series>>>);

/// One watch, open for as long as this lives.
#[derive(Debug)]
pub(crate) struct Open(Arc<Series>);

impl Open {
    pub fn sent(&self, events: u64) {
        self.0.events.fetch_add(events, Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

impl Watches {
    pub fn open(&self, key: Key, row: &Row) -> Open {
        let known = self.0.read().get(&key).map(Arc::clone);
        let series = known.unwrap_or_else(|| self.add(key, row));
        series.open.fetch_add(1, Relaxed);
        Open(series)
    }

    fn add(&self, key: Key, row: &Row) -> Arc<Series> {
        let mut all = self.0.write();
        let made = || {
            let (group, version, resource) = (&row.group, &row.version, &row.resource);
            Arc::new(Series {
                labels: labels(key, Some(row)),
                kind: format!("group=\"{group}\",version=\"{version}\",resource=\"{resource}\""),
                ..Series::default()
            })
        };
        if all.len() >= MAX_SERIES && !all.contains_key(&key) {
            // Counted for nobody.
            return made();
        }
        Arc::clone(all.entry(key).or_insert_with(made))
    }

    pub fn render(&self, out: &mut String) {
        let mut open = BTreeMap::new();
        let mut events: BTreeMap<String, u64> = BTreeMap::new();
        for series in self.0.read().values() {
            open.insert(series.labels.clone(), series.open.load(Relaxed));
            *events.entry(series.kind.clone()).or_default() += series.events.load(Relaxed);
        }
        let name = "apiserver_longrunning_requests";
        head(out, name, "gauge", "Watches open now.");
        for (labels, count) in open {
            // Whether a watch is a dry run is no question.
            let labels = labels.trim_end_matches(NO_DRY_RUN);
            let _ = writeln!(out, "{name}{{{labels}}} {count}");
        }
        let name = "apiserver_watch_events_total";
        head(out, name, "counter", "Events sent to watchers.");
        for (labels, count) in events {
            let _ = writeln!(out, "{name}{{{labels}}} {count}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Verb;
    use oarlock_kinds::Kinds;

    #[test]
    fn watches_are_counted_while_they_are_open() {
        let row = Kinds::builtin().resource("", "v1", "pods").unwrap();
        let key = |namespaced| Key {
            kind: 1,
            sub: 0,
            verb: Verb::Watch,
            apply: false,
            dry_run: false,
            namespaced,
            single: false,
            code: 0,
        };
        let watches = Watches::default();
        let one = watches.open(key(false), &row);
        let two = watches.open(key(true), &row);
        one.sent(2);
        two.sent(3);
        drop(two);
        let mut text = String::new();
        watches.render(&mut text);
        for line in [
            r#"apiserver_longrunning_requests{verb="WATCH",group="",version="v1",resource="pods",subresource="",scope="cluster",component="apiserver"} 1"#,
            r#"scope="namespace",component="apiserver"} 0"#,
            r#"apiserver_watch_events_total{group="",version="v1",resource="pods"} 5"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
