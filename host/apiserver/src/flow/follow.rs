//! Follows flow schemas and priority levels, and says of each schema in its status whether its level exists.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_registry::{
    Body, Context, EventType, ListOptions, Registry, Target, User, WatchOptions,
};
use serde_json::{Value, json};

use super::{Flow, level_name};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Who writes the statuses, as upstream names it.
const FIELD_MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Pause before a watch that ended is begun anew.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn start(flow: &Arc<Flow>, registry: &Arc<Registry>) {
    let mut followers = Vec::new();
    for resource in ["prioritylevelconfigurations", "flowschemas"] {
        let Some(row) = registry.kinds().resource(GROUP, "v1", resource) else {
            continue;
        };
        let follower = Follower {
            flow: Arc::downgrade(flow),
            registry: Arc::clone(registry),
            row,
        };
        let from = follower.load().await.unwrap_or_else(|error| {
            tracing::warn!(resource, %error, "cannot read flow control's objects");
            None
        });
        followers.push((follower, from.unwrap_or(0)));
    }
    for (follower, from) in followers {
        flow.tasks.lock().push(tokio::spawn(follower.run(from)));
    }
}

struct Follower {
    flow: Weak<Flow>,
    registry: Arc<Registry>,
    row: Arc<Row>,
}

impl Follower {
    /// Takes in all objects; the revision that they are as of, or nothing if there is no more use for them.
    async fn load(&self) -> ApiResult<Option<u64>> {
        let list = self
            .registry
            .list(
                &context(),
                &Target::new(&self.row, "", ""),
                &ListOptions::default(),
            )
            .await?;
        let mut objects = Vec::with_capacity(list.items.len());
        for stored in &list.items {
            objects.push(stored.to_value().map_err(ApiError::internal)?);
        }
        let Some(flow) = self.flow.upgrade() else {
            return Ok(None);
        };
        let mut known = flow.known.lock();
        let map = if self.row.resource == "flowschemas" {
            &mut known.schemas
        } else {
            &mut known.levels
        };
        *map = objects
            .into_iter()
            .map(|object| (meta::name(&object).to_owned(), object))
            .collect();
        flow.rebuild(&mut known);
        Ok(Some(list.revision))
    }

    async fn run(self, mut from: u64) {
        loop {
            self.write_statuses().await;
            let Err(error) = self.follow(&mut from).await;
            if error.reason == Reason::ServiceUnavailable {
                return;
            }
            tracing::warn!(resource = self.row.resource, %error, "watching flow control ended, starting over");
            tokio::time::sleep(PAUSE).await;
            match self.load().await {
                Ok(Some(revision)) => from = revision,
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    async fn follow(&self, from: &mut u64) -> Result<Infallible, ApiError> {
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
                let object = item.object.to_value().map_err(ApiError::internal)?;
                self.take(object, there);
            }
            self.write_statuses().await;
        }
    }

    fn take(&self, object: Value, there: bool) {
        let Some(flow) = self.flow.upgrade() else {
            return;
        };
        let mut known = flow.known.lock();
        let map = if self.row.resource == "flowschemas" {
            &mut known.schemas
        } else {
            &mut known.levels
        };
        let name = meta::name(&object).to_owned();
        let before = if there {
            map.insert(name, object.clone())
        } else {
            map.remove(&name)
        };
        // A status alone changes nothing for requests.
        if !there
            || before
                .is_none_or(|b| b["spec"] != object["spec"] || meta::uid(&b) != meta::uid(&object))
        {
            flow.rebuild(&mut known);
        }
    }

    /// Writes the conditions that are not what they must be.
    async fn write_statuses(&self) {
        let Some(row) = self.registry.kinds().resource(GROUP, "v1", "flowschemas") else {
            return;
        };
        let stale: Vec<Value> = {
            let Some(flow) = self.flow.upgrade() else {
                return;
            };
            let known = flow.known.lock();
            let schemas = known.schemas.values();
            schemas
                .filter_map(|s| with_condition(s, known.levels.contains_key(level_name(s)), now()))
                .collect()
        };
        let context = context();
        let writes = stale.into_iter().map(|schema| {
            let mut target = Target::new(&row, "", meta::name(&schema));
            "status".clone_into(&mut target.subresource);
            let (registry, context) = (&self.registry, &context);
            async move { registry.update(context, &target, Body::Value(schema)).await }
        });
        for error in futures::future::join_all(writes)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            // Another change of the schema means another event.
            if !matches!(error.reason, Reason::Conflict | Reason::NotFound) {
                tracing::warn!(%error, "cannot write a flow schema's status");
            }
        }
    }
}

/// The schema with a true condition `Dangling`; nothing if it has it.
fn with_condition(schema: &Value, level_there: bool, now: Timestamp) -> Option<Value> {
    let level = level_name(schema);
    let said =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if level_there {
        ("False", "Found", format!("{said} and it exists"))
    } else {
        (
            "True",
            "NotFound",
            format!("{said} but there is no such object"),
        )
    };
    let conditions = schema["status"]["conditions"].as_array();
    let old = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Dangling"));
    if old.is_some_and(|c| {
        c["status"] == status && c["reason"] == reason && c["message"] == message.as_str()
    }) {
        return None;
    }
    let since = match old {
        Some(old) if old["status"] == status => old["lastTransitionTime"].clone(),
        _ => Value::String(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    };
    let mut all: Vec<Value> = conditions.cloned().unwrap_or_default();
    all.retain(|c| c["type"] != "Dangling");
    all.push(json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    }));
    let mut schema = schema.clone();
    schema["status"] = json!({"conditions": all});
    Some(schema)
}

/// Edge: statuses have a time.
fn now() -> Timestamp {
    Timestamp::now()
}

fn context() -> Context {
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec![oarlock_auth::MASTERS.to_owned()],
        ..User::default()
    };
    let mut context = Context::new(Arc::new(user), now());
    FIELD_MANAGER.clone_into(&mut context.field_manager);
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_once_and_keeps_its_time() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "reef"}}});
        let dangling = with_condition(&schema, false, at(0)).unwrap();
        let condition = &dangling["status"]["conditions"][0];
        assert_eq!(condition["status"], "True");
        assert_eq!(
            condition["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"reef\" but there is no such object"
        );
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert!(with_condition(&dangling, false, at(9)).is_none());
        let found = with_condition(&dangling, true, at(9)).unwrap();
        assert_eq!(
            found["status"]["conditions"][0]["lastTransitionTime"],
            "1970-01-01T00:00:09Z"
        );
        assert_eq!(found["status"]["conditions"].as_array().unwrap().len(), 1);
    }
}
