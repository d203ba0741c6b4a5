//! Watch: the store's events as one watcher sees them.
//!
//! Cost: an event that no selector looks at costs each watcher a reference count (its encoding is shared through the
//! event's memo); a selector costs about 1 µs an event. A watcher owns nothing but its place in the store's log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_model::{ApiError, ApiResult};
use oarlock_store::{Event, ReadError, Record, Revision, Store, Watch};
use tokio::time::{Interval, MissedTickBehavior};

use crate::codec::{shown, stored, stored_record};
use crate::conversion;
use crate::errors::{self, parse_version};
use crate::remote::WebhookClient;
use crate::select::Selector;
use crate::{
    Context, EventType, ListOptions, Registry, Stored, Target, WatchItem, WatchOptions, keys,
};

/// How many events one batch holds at most (but whole revisions).
const MAX_BATCH: usize = 1024;
/// How often an idle watch that asked for bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

enum Source {
    Running(Box<dyn Watch>),
    /// Starts when this revision has been reached.
    From(Revision),
    /// Told once, as an event of the stream: a watch that was let in fails in its stream, not before it.
    Failed(ApiError),
    Ended,
}

/// Events of one watch, selectors applied. Dropping it ends the watch.
pub struct WatchStream {
    store: Arc<dyn Store>,
    webhook_client: Option<Arc<dyn WebhookClient>>,
    selector: Selector,
    prefix: String,
    initial: VecDeque<WatchItem>,
    /// On their way through a webhook that converts; kept here so that nothing is lost if the wait is given up.
    converting: Vec<WatchItem>,
    source: Source,
    bookmarks: Option<Interval>,
    /// Everything up to here has been handed out.
    progress: Revision,
}

impl std::fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream")
            .field("prefix", &self.prefix)
            .field("progress", &self.progress)
            .finish()
    }
}

impl Registry {
    /// A named target is watched alone. The options must have passed [`crate::ListParameters::check`].
    pub async fn watch(
        &self,
        ctx: &Context,
        target: &Target,
        options: &WatchOptions,
    ) -> ApiResult<WatchStream> {
        let mut fields = options.fields.clone();
        if !target.name.is_empty() {
            fields
                .requirements
                .push(oarlock_model::selector::FieldRequirement {
                    field: "metadata.name".to_owned(),
                    value: target.name.clone(),
                    equal: true,
                });
        }
        let selector = Selector::new(&target.row, &options.labels, &fields)?;
        let version = parse_version(&options.resource_version)?;
        let mut stream = WatchStream {
            store: Arc::clone(self.store()),
            webhook_client: self.webhook_client().map(Arc::clone),
            selector,
            prefix: keys::prefix(&target.row, &target.namespace),
            initial: VecDeque::new(),
            converting: Vec::new(),
            source: Source::Ended,
            bookmarks: options.bookmarks.then(bookmark_timer),
            progress: 0,
        };
        let initial_events = options
            .send_initial_events
            .unwrap_or(version.unwrap_or(0) == 0);
        if !initial_events {
            let from = match version {
                Some(revision) if revision != 0 => revision,
                _ => self.store().revision(),
            };
            stream.source = Source::From(from);
            stream.progress = from;
            return Ok(stream);
        }
        if let Err(error) = self.wait_for(version).await {
            stream.source = Source::Failed(error);
            return Ok(stream);
        }
        let collection = Target {
            name: String::new(),
            ..target.clone()
        };
        let list = ListOptions {
            labels: options.labels.clone(),
            fields,
            ..ListOptions::default()
        };
        let list = self.list(ctx, &collection, &list).await?;
        stream.initial = list
            .items
            .into_iter()
            .map(|object| WatchItem {
                kind: EventType::Added,
                object,
                event: None,
            })
            .collect();
        if options.bookmarks {
            stream.initial.push_back(bookmark(list.revision, true));
        }
        stream.source = Source::From(list.revision);
        stream.progress = list.revision;
        Ok(stream)
    }
}

fn bookmark_timer() -> Interval {
    let mut timer = tokio::time::interval(BOOKMARK_PERIOD);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; a bookmark right at the start says nothing.
    timer.reset();
    timer
}

fn bookmark(revision: Revision, initial_end: bool) -> WatchItem {
    let object = Stored {
        json: Bytes::new(),
        hole: 0,
        revision,
    };
    WatchItem {
        kind: EventType::Bookmark { initial_end },
        object,
        event: None,
    }
}

impl WatchStream {
    /// Waits for the next events; never an empty list. An error (410 Expired, the store closed) ends the watch.
    /// Cancel-safe.
    pub async fn next_batch(&mut self) -> Result<Vec<WatchItem>, ApiError> {
        if !self.initial.is_empty() {
            let count = self.initial.len().min(MAX_BATCH);
            return Ok(self.initial.drain(..count).collect());
        }
        if !self.converting.is_empty() {
            return self.converted().await;
        }
        loop {
            let watch = match &mut self.source {
                Source::Running(watch) => watch,
                Source::From(revision) => {
                    let revision = *revision;
                    self.store.reached(revision).await;
                    self.source = match self.store.watch(&self.prefix, revision) {
                        Ok(watch) => Source::Running(watch),
                        Err(ReadError::Compacted { oldest, .. }) => {
                            Source::Failed(errors::too_old_watch(revision, oldest))
                        }
                        Err(ReadError::Future { .. }) => Source::From(revision),
                    };
                    continue;
                }
                Source::Failed(_) | Source::Ended => {
                    let ended = std::mem::replace(&mut self.source, Source::Ended);
                    return Err(match ended {
                        Source::Failed(error) => error,
                        _ => ApiError::expired("the watch has ended"),
                    });
                }
            };
            let batch = tokio::select! {
                batch = watch.next(MAX_BATCH) => batch,
                () = tick(&mut self.bookmarks) => {
                    self.progress = self.progress.max(watch.progress());
                    return Ok(vec![bookmark(self.progress, false)]);
                }
            };
            match batch {
                Ok(batch) => {
                    self.progress = batch.progress;
                    let items: Vec<_> = batch
                        .events
                        .iter()
                        .filter_map(|event| self.translate(event))
                        .collect();
                    if items.is_empty() {
                        continue;
                    }
                    if conversion::hooked(self.selector.row()).is_none() {
                        return Ok(items);
                    }
                    self.converting = items;
                    return self.converted().await;
                }
                Err(end) => self.source = Source::Failed(errors::watch_end(end, self.progress)),
            }
        }
    }

    async fn converted(&mut self) -> Result<Vec<WatchItem>, ApiError> {
        if let Some(custom) = conversion::hooked(self.selector.row()) {
            let objects = self.converting.iter_mut().map(|item| &mut item.object);
            let client = self.webhook_client.as_ref();
            conversion::show_stored(client, custom, objects).await?;
        }
        Ok(std::mem::take(&mut self.converting))
    }

    /// The bookmark to send when the watch's time is over; `None` if none were asked for or the watch has not begun.
    pub fn final_bookmark(&mut self) -> Option<WatchItem> {
        self.bookmarks.as_ref()?;
        let Source::Running(watch) = &mut self.source else {
            return None;
        };
        self.progress = self.progress.max(watch.progress());
        Some(bookmark(self.progress, false))
    }

    fn translate(&self, event: &Arc<Event>) -> Option<WatchItem> {
        let (before, after) = (event.before.as_deref(), event.after.as_deref());
        let row = self.selector.row();
        let natural = match (before, after) {
            (_, None) => EventType::Deleted,
            (None, Some(_)) => EventType::Added,
            (Some(_), Some(_)) => EventType::Modified,
        };
        let seen = |record: Option<&Record>| {
            record.is_some_and(|r| {
                self.selector.is_everything()
                    || self.selector.matches(&r.key, &stored_record(r).json)
            })
        };
        let kind = match (seen(before), seen(after)) {
            (false, false) => return None,
            (false, true) => EventType::Added,
            (true, true) => EventType::Modified,
            (true, false) => EventType::Deleted,
        };
        let record = if kind == EventType::Deleted {
            before
        } else {
            after
        }?;
        Some(WatchItem {
            kind,
            // What a webhook converts is converted with the rest of its batch.
            object: match conversion::hooked(row) {
                Some(_) => stored(&record.value, event.revision),
                None => shown(row, &record.value, event.revision).ok()?,
            },
            // The shared encodings are those of the kind that is stored.
            event: (kind == natural && !row.converts()).then(|| Arc::clone(event)),
        })
    }
}

async fn tick(timer: &mut Option<Interval>) {
    match timer {
        Some(timer) => {
            timer.tick().await;
        }
        None => std::future::pending().await,
    }
}
