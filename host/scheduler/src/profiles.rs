//! SchedulerProfile objects: watched, set up beside the active ones, and told in their status what became of them.
//!
//! Invariant: a version of a profile (its spec and its components' digests) is tried once; one that failed is not tried
//! again until something about it changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use oarlock_client::{Cluster, Delta, ListQuery, Object, Patch, Reflector};
use oarlock_model::time::format_time;
use oarlock_model::{Gvr, Reason, meta};
use oarlock_wasm::{HostEnv, SystemEnv};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::{DEFAULT_COMPONENT, ProfileSpec};
use crate::core::{Input, Receipt};
use crate::load::Loader;
use crate::pod::DEFAULT_SCHEDULER_NAME;
use crate::run::{Inbox, generation, named, timestamp};

/// How long to wait before the default profile's object is tried to be made again.
const RETRY: Duration = Duration::from_millis(500);

/// What the core says of profiles.
#[derive(Debug)]
pub(crate) enum ProfileNews {
    Switched(Receipt),
    Refused {
        profile: String,
        component: String,
        message: String,
    },
    RolledBack {
        profile: String,
        component: String,
        to: Option<String>,
        message: String,
    },
    GuestFailed {
        profile: String,
        component: String,
        message: String,
        traps: u32,
    },
}

fn profiles_gvr() -> Gvr {
    Gvr::new("oarlock.dev", "v1alpha1", "schedulerprofiles")
}

struct Profiles {
    cluster: Arc<dyn Cluster>,
    loader: Loader,
    inbox: Arc<Inbox>,
    objects: HashMap<String, Object>,
    /// Digests of Component objects by name.
    digests: HashMap<String, String>,
    /// The version that was last tried, by profile.
    tried: HashMap<String, String>,
    previous: HashMap<String, String>,
}

pub(crate) async fn run(
    cluster: Arc<dyn Cluster>,
    loader: Loader,
    mut news: mpsc::UnboundedReceiver<ProfileNews>,
    inbox: Arc<Inbox>,
) {
    let mut state = Profiles {
        cluster: Arc::clone(&cluster),
        loader,
        inbox,
        objects: HashMap::new(),
        digests: HashMap::new(),
        tried: HashMap::new(),
        previous: HashMap::new(),
    };
    let mut components = Reflector::start(
        Arc::clone(&cluster),
        Gvr::new("oarlock.dev", "v1alpha1", "components"),
        ListQuery::default(),
    );
    let mut profiles = Reflector::start(cluster, profiles_gvr(), ListQuery::default());
    let (mut components_synced, mut profiles_synced) = (false, false);
    loop {
        tokio::select! {
            Some(delta) = components.deltas.recv() => match delta {
                Delta::Synced => components_synced = true,
                Delta::Added(object) | Delta::Updated { new: object, .. } => {
                    let digest = object["spec"]["digest"].as_str().unwrap_or("").to_owned();
                    state.digests.insert(meta::name(&object).to_owned(), digest);
                }
                Delta::Deleted(object) => {
                    state.digests.remove(meta::name(&object));
                }
            },
            Some(delta) = profiles.deltas.recv() => match delta {
                Delta::Synced => {
                    profiles_synced = true;
                    if !state.has_default() {
                        state.create_default().await;
                    }
                }
                Delta::Added(object) | Delta::Updated { new: object, .. } => {
                    state.objects.insert(meta::name(&object).to_owned(), object);
                }
                Delta::Deleted(object) => {
                    let name = meta::name(&object);
                    state.objects.remove(name);
                    state.tried.remove(name);
                    state.inbox.push(Input::ProfileGone(name.to_owned()));
                }
            },
            Some(item) = news.recv() => state.tell(item).await,
            else => return,
        }
        if components_synced && profiles_synced {
            state.reconcile().await;
        }
    }
}

impl Profiles {
    fn has_default(&self) -> bool {
        let is_default = |o: &Object| match ProfileSpec::parse(&o["spec"]) {
            Ok(spec) => spec.scheduler_name() == DEFAULT_SCHEDULER_NAME,
            Err(_) => false,
        };
        self.objects.values().any(is_default)
    }

    /// So that operators see, and can change, the profile that is built in.
    async fn create_default(&self) {
        let object = json!({
            "apiVersion": "oarlock.dev/v1alpha1", "kind": "SchedulerProfile",
            "metadata": {"name": DEFAULT_SCHEDULER_NAME},
            "spec": {"schedulerName": DEFAULT_SCHEDULER_NAME, "component": DEFAULT_COMPONENT},
        });
        loop {
            match self
                .cluster
                .create(&profiles_gvr(), "", object.clone())
                .await
            {
                Ok(_) => return,
                Err(error) if error.reason == Reason::AlreadyExists => return,
                Err(error) => {
                    tracing::warn!(%error, "the default scheduler profile was not made; it is tried again");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Sets up every profile whose version was not tried yet.
    async fn reconcile(&mut self) {
        let objects: Vec<Object> = self.objects.values().map(Arc::clone).collect();
        for object in objects {
            let name = meta::name(&object).to_owned();
            let parsed = ProfileSpec::parse(&object["spec"]);
            let version = self.version(&object, parsed.as_ref().ok());
            if self.tried.get(&name) == Some(&version) {
                continue;
            }
            self.tried.insert(name.clone(), version.clone());
            let loaded = match parsed {
                Ok(spec) => {
                    self.loader
                        .load(self.cluster.as_ref(), &name, &spec, version.clone())
                        .await
                }
                Err(message) => Err(message),
            };
            match loaded {
                Ok(candidate) => self.inbox.push(Input::Candidate(Box::new(candidate))),
                Err(message) => {
                    let component = object["spec"]["component"]
                        .as_str()
                        .unwrap_or(DEFAULT_COMPONENT)
                        .to_owned();
                    self.tell(ProfileNews::Refused {
                        profile: name,
                        component,
                        message,
                    })
                    .await;
                }
            }
        }
    }

    /// What the profile is made from.
    fn version(&self, object: &Object, spec: Option<&ProfileSpec>) -> String {
        let mut version = object["spec"].to_string();
        for component in spec.and_then(|s| s.components().ok()).into_iter().flatten() {
            version.push('\n');
            version.push_str(&component);
            version.push('@');
            version.push_str(self.digests.get(&component).map_or("", String::as_str));
        }
        version
    }

    async fn tell(&mut self, news: ProfileNews) {
        let now = format_time(timestamp(SystemEnv.now_ms()));
        let condition = |status: bool, reason: &str, message: &str| {
            let status = if status { "True" } else { "False" };
            json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now})
        };
        let (name, mut status, warning) = match news {
            ProfileNews::Switched(receipt) => {
                self.previous
                    .insert(receipt.profile.clone(), receipt.from.clone());
                let status = json!({
                    "conditions": [condition(true, "Active", "")],
                    "activeComponent": receipt.component,
                    "previousComponent": receipt.from,
                    "traps": 0,
                    "receipt": {
                        "digest": receipt.component.rsplit_once('@').map_or("", |(_, digest)| digest),
                        "component": receipt.component, "from": receipt.from, "at": now,
                        "compileMilliseconds": receipt.compile_ms, "warmMilliseconds": receipt.warm_ms,
                        "cyclesOnOld": receipt.cycles_on_old,
                    },
                });
                (receipt.profile, status, None)
            }
            ProfileNews::Refused {
                profile,
                component,
                message,
            } => {
                tracing::warn!(%profile, %component, %message, "a version of a scheduler profile does not become active");
                let status =
                    json!({"conditions": [condition(false, "ComponentRefused", &message)]});
                (profile, status, Some(("ComponentRefused", message)))
            }
            ProfileNews::RolledBack {
                profile,
                component,
                to,
                message,
            } => {
                let text = format!(
                    "component {component} {message}; back to {}",
                    to.as_deref().unwrap_or("nothing")
                );
                let status = json!({
                    "conditions": [condition(false, "RolledBack", &text)],
                    "activeComponent": to, "previousComponent": component,
                });
                (profile, status, Some(("RolledBack", text)))
            }
            ProfileNews::GuestFailed {
                profile,
                component,
                message,
                traps,
            } => {
                let status = json!({"traps": traps, "details": {"lastFailure": {"component": component, "message": message, "at": now}}});
                (profile, status, None)
            }
        };
        if let Some(object) = self.objects.get(&name) {
            status["observedGeneration"] = json!(generation(object));
        }
        let patch = Patch::Merge(json!({"status": status}));
        if let Err(error) = self
            .cluster
            .patch(&profiles_gvr(), &named(&name), "status", patch)
            .await
        {
            tracing::debug!(%error, profile = %name, "the status of a scheduler profile was not written");
        }
        if let Some((reason, message)) = warning {
            self.event(&name, reason, &message).await;
        }
    }

    async fn event(&self, profile: &str, reason: &str, message: &str) {
        let now = timestamp(SystemEnv.now_ms());
        let uid = self.objects.get(profile).map_or("", |o| meta::uid(o));
        let event: Value = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": format!("{profile}.{:x}", now.as_nanosecond() as u64), "namespace": "default"},
            "eventTime": oarlock_model::time::format_micro_time(now),
            "reportingController": "oarlock-scheduler", "reportingInstance": "oarlock-scheduler",
            "action": "Swap", "reason": reason, "note": message, "type": "Warning",
            "regarding": {"apiVersion": "oarlock.dev/v1alpha1", "kind": "SchedulerProfile", "name": profile, "uid": uid},
        });
        if let Err(error) = self
            .cluster
            .create(&Gvr::new("events.k8s.io", "v1", "events"), "default", event)
            .await
        {
            tracing::debug!(%error, "an event was not written");
        }
    }
}
