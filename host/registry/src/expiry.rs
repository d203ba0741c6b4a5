//! Events are news, not state: an hour after it was last seen, one is dropped. Without this the store would only grow.

use jiff::{SignedDuration, Timestamp};
use oarlock_model::{ApiResult, time};
use oarlock_store::{Action, Expect, Op, RangeQuery, Record, TxnError};

use crate::codec::stored_record;
use crate::{Registry, errors, keys, scan};

/// How long an event is kept (kube-apiserver's `--event-ttl`).
pub const EVENT_TTL: SignedDuration = SignedDuration::from_hours(1);
/// How many records are looked at, and deleted in one commit, at a time.
const STEP: usize = 500;

impl Registry {
    /// Deletes the events whose time is over; how many there were. To be called about every minute.
    pub async fn expire_events(&self, now: Timestamp) -> ApiResult<usize> {
        let Some(row) = self.row("", "events") else {
            return Ok(0);
        };
        let Ok(horizon) = now.checked_sub(EVENT_TTL) else {
            return Ok(0);
        };
        let (mut after, mut count) = (None, 0);
        loop {
            let query = RangeQuery {
                prefix: keys::prefix(&row, ""),
                after,
                limit: STEP,
                at: None,
            };
            let page = self.store().range(&query).map_err(errors::list_read)?;
            let ops: Vec<Op> = page
                .records
                .iter()
                .filter(|r| is_over(r, horizon))
                .map(delete)
                .collect();
            let expired = ops.len();
            if expired > 0 {
                match self.store().commit(ops).await {
                    Ok(_) => count += expired,
                    // One of them was seen again just now: the next round looks anew.
                    Err(TxnError::Conflict { .. }) => {}
                    Err(error) => return Err(errors::txn(error)),
                }
            }
            match page.records.last() {
                Some(last) if page.remaining > 0 => after = Some(last.key.to_string()),
                _ => return Ok(count),
            }
        }
    }
}

fn delete(record: &std::sync::Arc<Record>) -> Op {
    Op {
        key: record.key.to_string(),
        expect: Expect::Revision(record.modified),
        action: Action::Delete,
    }
}

/// An event's time is that of its last sighting; one that gives no time at all was made when it was stored.
fn is_over(record: &Record, horizon: Timestamp) -> bool {
    let json = stored_record(record).json;
    let paths: [&[&str]; 4] = [
        &["series", "lastObservedTime"],
        &["lastTimestamp"],
        &["eventTime"],
        &["metadata", "creationTimestamp"],
    ];
    let seen = paths
        .iter()
        .filter_map(|path| time::parse_time(&scan::text(&json, path)))
        .max();
    seen.is_some_and(|seen| seen < horizon)
}
