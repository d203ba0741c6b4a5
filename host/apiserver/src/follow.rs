//! Keeps something up with the objects of a kind: all that are there, then every change.
//!
//! Invariant: after a watch that ended, what was deleted meanwhile is forgotten too.

use std::sync::{Arc, Weak};
use std::time::Duration;

use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason};
use oarlock_registry::{Context, EventType, ListOptions, Registry, Stored, Target, WatchOptions};
use tokio::task::JoinHandle;

/// Pause before a watch that ended is begun anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is told.
pub(crate) trait Follows: Send + Sync + 'static {
    /// An object as it is now, or as it was when it was deleted.
    fn take(&self, row: &Row, object: &Stored, there: bool);

    /// Everything of this kind may be out of date; what is there is told next.
    fn forget(&self, row: &Row);
}

/// Tells what is there before it returns, and the changes from then on, until the registry closes, `who` is dropped or the
/// task is aborted. `None`: this kind is not served.
pub(crate) async fn start<T: Follows>(
    who: &Arc<T>,
    registry: &Arc<Registry>,
    group: &str,
    resource: &str,
) -> ApiResult<Option<JoinHandle<()>>> {
    let Some(row) = registry.kinds().resource(group, "v1", resource) else {
        return Ok(None);
    };
    let from = load(&**who, registry, &row).await?;
    let follower = Follower {
        who: Arc::downgrade(who),
        registry: Arc::clone(registry),
        row,
    };
    Ok(Some(tokio::spawn(follower.run(from))))
}

/// Edge: reading has a time.
fn context() -> Context {
    Context::new(Arc::default(), jiff::Timestamp::now())
}

async fn load(who: &impl Follows, registry: &Registry, row: &Arc<Row>) -> ApiResult<u64> {
    let all = Target::new(row, "", "");
    let list = registry
        .list(&context(), &all, &ListOptions::default())
        .await?;
    who.forget(row);
    for object in &list.items {
        who.take(row, object, true);
    }
    Ok(list.revision)
}

struct Follower<T> {
    who: Weak<T>,
    registry: Arc<Registry>,
    row: Arc<Row>,
}

impl<T: Follows> Follower<T> {
    async fn run(self, mut from: u64) {
        while let Err(error) = self.follow(&mut from).await {
            if error.reason == Reason::ServiceUnavailable {
                return;
            }
            let resource = &self.row.resource;
            tracing::warn!(resource, %error, "a watch ended, starting over");
            tokio::time::sleep(PAUSE).await;
            let Some(who) = self.who.upgrade() else {
                return;
            };
            if let Ok(revision) = load(&*who, &self.registry, &self.row).await {
                from = revision;
            }
        }
    }

    /// Ends without an error when nobody is left to be told.
    async fn follow(&self, from: &mut u64) -> Result<(), ApiError> {
        let options = WatchOptions {
            resource_version: from.to_string(),
            send_initial_events: Some(false),
            ..WatchOptions::default()
        };
        let all = Target::new(&self.row, "", "");
        let mut events = self.registry.watch(&context(), &all, &options).await?;
        loop {
            for item in events.next_batch().await? {
                *from = item.object.revision;
                let there = match item.kind {
                    EventType::Added | EventType::Modified => true,
                    EventType::Deleted => false,
                    EventType::Bookmark { .. } => continue,
                };
                let Some(who) = self.who.upgrade() else {
                    return Ok(());
                };
                who.take(&self.row, &item.object, there);
            }
        }
    }
}
