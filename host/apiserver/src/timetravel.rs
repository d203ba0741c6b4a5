//! Time travel: `?asOf=` a revision or a time, for get and list, and `&diffTo=` for what changed between two of them.
//!
//! Revisions carry no time, so the newest one is noted four times a second; a time means the state at the last note before it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use oarlock_model::ApiError;
use oarlock_registry::{ListOptions, Registry, Stored, Target, VersionMatch};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::handler::Call;

const NOTE_INTERVAL: Duration = Duration::from_millis(250);

/// When revisions were the newest.
#[derive(Debug)]
pub(crate) struct Timeline {
    /// Ascending; the first is at or before the oldest revision that the store can read.
    notes: Arc<Mutex<VecDeque<(Timestamp, u64)>>>,
    task: JoinHandle<()>,
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Timeline {
    pub fn start(registry: &Arc<Registry>) -> Self {
        let notes = Arc::new(Mutex::new(VecDeque::new()));
        let (written, registry) = (Arc::clone(&notes), Arc::downgrade(registry));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(NOTE_INTERVAL);
            loop {
                ticks.tick().await;
                let Some(registry) = registry.upgrade() else {
                    return;
                };
                let store = registry.store();
                note(
                    &mut written.lock(),
                    Timestamp::now(),
                    store.revision(),
                    store.oldest(),
                );
            }
        });
        Self { notes, task }
    }

    /// The revision at a time; nothing if that is before all notes.
    fn at(&self, time: Timestamp) -> Option<u64> {
        revision_at(&self.notes.lock(), time)
    }
}

fn note(notes: &mut VecDeque<(Timestamp, u64)>, now: Timestamp, newest: u64, oldest: u64) {
    if notes.back().is_none_or(|&(_, last)| last < newest) {
        notes.push_back((now, newest));
    }
    while notes.get(1).is_some_and(|&(_, next)| next <= oldest) {
        notes.pop_front();
    }
}

fn revision_at(notes: &VecDeque<(Timestamp, u64)>, time: Timestamp) -> Option<u64> {
    let after = notes.partition_point(|&(noted, _)| noted <= time);
    notes
        .get(after.checked_sub(1)?)
        .map(|&(_, revision)| revision)
}

/// The revision that a parameter names, if it is there; it can be read when this was asked.
fn revision(call: &Call<'_>, parameter: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = call.query.get(parameter) else {
        return Ok(None);
    };
    let store = call.api.registry.store();
    let (oldest, newest) = (store.oldest(), store.revision());
    let gone = || {
        let text =
            format!("{parameter}: {text} is no longer kept; the oldest revision is {oldest}");
        Failure::from(ApiError::expired(text))
    };
    let revision = if let Ok(revision) = text.parse::<u64>() {
        if revision == 0 || revision > newest {
            return Err(Failure::bad_request(format!(
                "{parameter}: there is no revision {revision} yet; the newest is {newest}"
            )));
        }
        revision
    } else if let Ok(time) = text.parse::<Timestamp>() {
        if time > call.now {
            return Err(Failure::bad_request(format!(
                "{parameter}: {text} is in the future"
            )));
        }
        call.api.timeline.at(time).ok_or_else(gone)?
    } else {
        return Err(Failure::bad_request(format!(
            "{parameter}: {text:?} is neither a revision nor an RFC 3339 time"
        )));
    };
    if revision < oldest {
        return Err(gone());
    }
    Ok(Some(revision))
}

/// What a get answers.
pub(crate) enum Got {
    Object(Stored),
    Diff(Value),
}

/// The answer of a get that travels; nothing: it does not.
pub(crate) async fn get(call: &Call<'_>, target: &Target) -> Result<Option<Got>, Failure> {
    let Some(from) = revision(call, "asOf")? else {
        if call.query.get("diffTo").is_some() {
            return Err(Failure::bad_request("diffTo needs asOf"));
        }
        return Ok(None);
    };
    if !target.subresource.is_empty() || call.query.get("resourceVersion").is_some() {
        let text = "asOf can be neither with a subresource nor with resourceVersion";
        return Err(Failure::bad_request(text));
    }
    let registry = &call.api.registry;
    let Some(to) = revision(call, "diffTo")? else {
        return Ok(Some(Got::Object(registry.get_as_of(target, from).await?)));
    };
    let (before, after) = (
        read(registry, target, from).await?,
        read(registry, target, to).await?,
    );
    Ok(Some(Got::Diff(json!({
        "kind": "Diff", "apiVersion": "oarlock.dev/v1alpha1", "from": from.to_string(), "to": to.to_string(),
        "existed": {"from": !before.is_null(), "to": !after.is_null()},
        "mergePatch": merge_patch(&before, &after).unwrap_or_else(|| json!({})),
    }))))
}

/// The object, or null if there was none.
async fn read(registry: &Registry, target: &Target, at: u64) -> Result<Value, Failure> {
    match registry.get_as_of(target, at).await {
        Ok(stored) => Ok(stored.to_value().map_err(ApiError::internal)?),
        Err(error) if error.reason == oarlock_model::Reason::NotFound => Ok(Value::Null),
        Err(error) => Err(error.into()),
    }
}

/// A list's options, exact at the revision that is asked for.
pub(crate) fn list_options(call: &Call<'_>) -> Result<ListOptions, Failure> {
    let mut options = call.query.list_options()?;
    if let Some(revision) = revision(call, "asOf")? {
        if !options.resource_version.is_empty() || !options.continue_token.is_empty() {
            let text = "asOf can be neither with resourceVersion nor with continue, which says the revision itself";
            return Err(Failure::bad_request(text));
        }
        options.resource_version = revision.to_string();
        options.version_match = Some(VersionMatch::Exact);
    }
    Ok(options)
}

/// The merge patch (RFC 7386) that makes `after` of `before`; nothing if they are the same.
fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Some(after.clone());
    };
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let mut patch: Map<String, Value> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in after {
        let old = before.get(key).unwrap_or(&Value::Null);
        if let Some(change) = merge_patch(old, value) {
            patch.insert(key.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_last_note_before_it() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut notes = VecDeque::new();
        for (second, newest) in [(10, 5), (11, 5), (12, 9), (13, 20)] {
            note(&mut notes, at(second), newest, 1);
        }
        for (second, expect) in [
            (9, None),
            (10, Some(5)),
            (11, Some(5)),
            (12, Some(9)),
            (99, Some(20)),
        ] {
            assert_eq!(revision_at(&notes, at(second)), expect, "{second}");
        }
        note(&mut notes, at(14), 20, 12);
        assert_eq!(revision_at(&notes, at(11)), None);
        assert_eq!(revision_at(&notes, at(12)), Some(9));
    }

    #[test]
    fn patches_say_what_changed() {
        let before = json!({"a": 1, "b": {"c": 1, "d": [1]}, "e": 1});
        let after = json!({"a": 1, "b": {"c": 2, "d": [1]}, "f": {}});
        let patch = merge_patch(&before, &after).unwrap();
        assert_eq!(patch, json!({"b": {"c": 2}, "e": null, "f": {}}));
        assert!(merge_patch(&after, &after).is_none());
    }
}
