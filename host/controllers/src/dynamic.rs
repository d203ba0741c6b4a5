//! Controllers that `Controller` objects name: started, replaced and stopped as the objects come, change and go.
//! A component that does not run is reported in the object's status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use oarlock_client::{Key, Object, fetch_component};
use oarlock_model::{Gvr, meta, time::format_time};
use oarlock_wasm::Limits;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::cache::{Change, Depth, Listener};
use crate::host::{ControllerState, Shared, Source, open_caches, prepare};
use crate::runner::Runner;

/// How often a refused component is tried again, and statuses are looked over.
const REVIEW_MS: u64 = 5_000;

struct Running {
    uid: String,
    generation: i64,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
    state: Arc<Mutex<ControllerState>>,
    component: String,
    digest: String,
    /// As last written.
    reported: Value,
    generation_failed: bool,
}

struct Wake(Arc<Notify>);

impl Listener for Wake {
    fn changed(&self, _: &Gvr, change: &Change) {
        // A status that we wrote ourselves is no news.
        let spec = |object: &Option<Object>| {
            object
                .as_ref()
                .map(|o| (meta::uid(o).to_owned(), meta::generation(o)))
        };
        if spec(&change.old) != spec(&change.new) {
            self.0.notify_one();
        }
    }
}

pub(crate) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let kind = Gvr::new("oarlock.dev", "v1alpha1", "controllers");
    let components = Gvr::new("oarlock.dev", "v1alpha1", "components");
    let wake = Arc::new(Notify::new());
    let cache = shared.caches.open(&kind, Depth::Full);
    cache.listen(Arc::new(Wake(Arc::clone(&wake))));
    // A component pushed after the controller that names it, or pushed anew.
    shared
        .caches
        .open(&components, Depth::Full)
        .listen(Arc::new(Wake(Arc::clone(&wake))));
    let mut running: HashMap<String, Running> = HashMap::new();
    loop {
        if *stopped.borrow() {
            break;
        }
        if cache.is_synced() {
            review(
                &shared,
                &kind,
                cache.read(|store| store.all()),
                &mut running,
                &stopped,
            )
            .await;
        }
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = wake.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(REVIEW_MS)) => {}
        }
    }
    for (_, one) in running {
        end(one).await;
    }
}

async fn end(one: Running) {
    let _gone = one.stop.send(true);
    if let Some(task) = one.task {
        let _ended = task.await;
    }
}

async fn review(
    shared: &Arc<Shared>,
    kind: &Gvr,
    objects: Vec<Object>,
    running: &mut HashMap<String, Running>,
    stopped: &watch::Receiver<bool>,
) {
    let gone: Vec<String> = running
        .keys()
        .filter(|name| {
            !objects
                .iter()
                .any(|o| meta::name(o) == *name && !meta::is_terminating(o))
        })
        .cloned()
        .collect();
    for name in gone {
        if let Some(one) = running.remove(&name) {
            end(one).await;
            shared.states.lock().remove(&format!("controller/{name}"));
        }
    }
    for object in objects.iter().filter(|o| !meta::is_terminating(o)) {
        let name = meta::name(object).to_owned();
        let digest = digest_of(shared, object);
        let current = running.get(&name).is_some_and(|one| {
            one.uid == meta::uid(object)
                && one.generation == meta::generation(object)
                && one.digest == digest
                && !one.generation_failed
        });
        if !current {
            // The old one works on while the new one is compiled; it stops when the new one is fit to start.
            let next = start(shared, object, digest, stopped).await;
            if let Some(old) = running.remove(&name) {
                if next.task.is_none() && old.task.is_some() && old.uid == next.uid {
                    let reported = old.reported.clone();
                    let kept = Running {
                        generation: next.generation,
                        digest: next.digest,
                        generation_failed: true,
                        reported,
                        ..old
                    };
                    kept.state.lock().last_error = next.state.lock().refused.clone();
                    running.insert(name.clone(), kept);
                    report(shared, kind, object, running.get_mut(&name)).await;
                    continue;
                }
                end(old).await;
            }
            running.insert(name.clone(), next);
        }
        report(shared, kind, object, running.get_mut(&name)).await;
    }
}

/// The digest of the component that a controller names, as far as is known.
fn digest_of(shared: &Shared, controller: &Value) -> String {
    let kind = Gvr::new("oarlock.dev", "v1alpha1", "components");
    let name = controller["spec"]["component"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let key = Key {
        namespace: String::new(),
        name,
    };
    let digest = |object: &Object| {
        object["spec"]["digest"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    shared
        .caches
        .get(&kind)
        .and_then(|cache| cache.read(|store| store.get(&key).map(digest)))
        .unwrap_or_default()
}

async fn start(
    shared: &Arc<Shared>,
    object: &Value,
    digest: String,
    _: &watch::Receiver<bool>,
) -> Running {
    let name = meta::name(object);
    let (stop, stopping) = watch::channel(false);
    let component = object["spec"]["component"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut one = Running {
        uid: meta::uid(object).to_owned(),
        generation: meta::generation(object),
        stop,
        task: None,
        state: shared.state(&format!("controller/{name}")),
        component: component.clone(),
        digest,
        reported: Value::Null,
        generation_failed: false,
    };
    match launch(shared, object, &component, stopping).await {
        Ok(task) => {
            *one.state.lock() = ControllerState::default();
            one.task = Some(task);
        }
        Err(message) => {
            one.generation_failed = true;
            one.state.lock().refused = message;
        }
    }
    one
}

async fn launch(
    shared: &Arc<Shared>,
    object: &Value,
    component: &str,
    stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, String> {
    let fetched = fetch_component(&*shared.cluster, component)
        .await
        .map_err(|e| e.message)?;
    let spec = &object["spec"];
    let source = Source {
        name: format!("controller/{}", meta::name(object)),
        bytes: fetched.bytes.into(),
        config: spec
            .get("config")
            .filter(|c| !c.is_null())
            .map_or_else(|| "{}".to_owned(), Value::to_string),
        limits: limits(&shared.limits, &spec["limits"]),
        workers: spec["workers"].as_u64().unwrap_or(0) as u32,
        account: spec["serviceAccountName"]
            .as_str()
            .filter(|name| !name.is_empty())
            .map(|name| format!("system:serviceaccount:kube-system:{name}"))
            .unwrap_or_default(),
    };
    let spec = prepare(shared, source).await?;
    let digest = spec.loaded.digest();
    if digest != fetched.digest {
        return Err(format!(
            "the component's bytes are {digest}, not {}",
            fetched.digest
        ));
    }
    open_caches(&shared.caches, &spec);
    Ok(tokio::spawn(
        Runner::new(spec, Arc::clone(&shared.caches))?.run(stopping),
    ))
}

/// An object may lower the host's limits, not raise them.
fn limits(host: &Limits, wanted: &Value) -> Limits {
    let lower = |field: &str, limit: u64| {
        wanted[field]
            .as_u64()
            .filter(|w| *w > 0)
            .map_or(limit, |w| w.min(limit))
    };
    Limits {
        memory_mib: lower("memoryMiB", host.memory_mib as u64) as usize,
        deadline_ms: lower("deadlineMilliseconds", host.deadline_ms),
        ..host.clone()
    }
}

async fn report(shared: &Shared, kind: &Gvr, object: &Value, one: Option<&mut Running>) {
    let Some(one) = one else { return };
    let state = one.state.lock().clone();
    let (status, reason, message) = match (&one.task, state.refused.is_empty(), state.traps) {
        (None, ..) => ("False", "NotStarted", state.refused.clone()),
        (Some(_), _, 0) if one.generation_failed => {
            ("True", "NewComponentRefused", state.last_error.clone())
        }
        (Some(_), _, 0) => ("True", "Running", String::new()),
        (Some(_), ..) => ("True", "Trapping", state.last_error.clone()),
    };
    let core = json!([status, reason, message, state.traps, one.generation]);
    if one.reported == core {
        return;
    }
    let since = object
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .and_then(|list| {
            list.iter()
                .find(|c| c["type"] == "Ready" && c["status"] == status)
        })
        .and_then(|c| c["lastTransitionTime"].as_str().map(str::to_owned))
        .unwrap_or_else(|| format_time(Timestamp::now()));
    let patch = json!({"status": {
        "observedGeneration": one.generation,
        "activeComponent": if one.task.is_some() { one.component.as_str() } else { "" },
        "traps": state.traps,
        "conditions": [{
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since, "observedGeneration": one.generation,
        }],
    }});
    let key = Key {
        namespace: String::new(),
        name: meta::name(object).to_owned(),
    };
    let written = shared
        .cluster
        .patch_statuses(kind, vec![(key, patch)])
        .await;
    match written.into_iter().next() {
        Some(Ok(_)) => one.reported = core,
        Some(Err(error)) => {
            tracing::debug!(%error, controller = meta::name(object), "a controller's status was not written");
        }
        None => {}
    }
}
