//! From a SchedulerProfile to a candidate: its components' bytes, compiled, instantiated and configured. Blocking work runs on
//! blocking threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use oarlock_client::{Cluster, fetch_component};
use oarlock_wasm::{Engine, HostEnv, Limits, SchedulerPlugin};

use crate::config::{DEFAULT_MAX_TRAPS, ProfileSpec};
use crate::core::Candidate;
use crate::engine::PlacementEngine;
use crate::member::Member;
use crate::profile::Profile;

/// What a loader needs.
#[derive(Clone)]
pub struct Loader {
    pub engine: Engine,
    pub env: Arc<dyn HostEnv>,
    pub limits: Limits,
    /// Components that ship with the binary, by name.
    pub builtin: Arc<HashMap<String, Arc<[u8]>>>,
}

/// One component of a profile.
struct Part {
    name: String,
    bytes: Arc<[u8]>,
    /// `None`: built in.
    digest: Option<String>,
}

impl Loader {
    /// Sets a profile up. The error is for its status.
    pub async fn load(
        &self,
        cluster: &dyn Cluster,
        name: &str,
        spec: &ProfileSpec,
        version: String,
    ) -> Result<Candidate, String> {
        let mut parts = Vec::new();
        for component in spec.components()? {
            parts.push(self.part(cluster, component).await?);
        }
        let (loader, name, spec) = (self.clone(), name.to_owned(), spec.clone());
        let task = tokio::task::spawn_blocking(move || loader.build(&name, &spec, version, parts));
        task.await
            .map_err(|e| format!("setting the profile up failed: {e}"))?
    }

    /// A `Component` object of that name goes before a component that ships.
    async fn part(&self, cluster: &dyn Cluster, name: String) -> Result<Part, String> {
        match fetch_component(cluster, &name).await {
            Ok(fetched) => Ok(Part {
                name,
                bytes: fetched.bytes.into(),
                digest: Some(fetched.digest),
            }),
            Err(error) => match self.builtin.get(&name) {
                Some(bytes) => Ok(Part {
                    name,
                    bytes: Arc::clone(bytes),
                    digest: None,
                }),
                None => Err(format!("component {name}: {error}")),
            },
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "edge: compile time is told in receipts"
    )]
    fn build(
        &self,
        name: &str,
        spec: &ProfileSpec,
        version: String,
        parts: Vec<Part>,
    ) -> Result<Candidate, String> {
        let began = Instant::now();
        let mut limits = self.limits.clone();
        let given = spec.limits.unwrap_or_default();
        limits.memory_mib = given
            .memory_mib
            .map_or(limits.memory_mib, |mib| mib as usize);
        limits.deadline_ms = given.deadline_milliseconds.unwrap_or(limits.deadline_ms);
        let mut members = Vec::new();
        let mut shown = String::new();
        for part in parts {
            let loaded = self
                .engine
                .load(&part.name, &part.bytes)
                .map_err(|e| e.to_string())?;
            if part
                .digest
                .as_ref()
                .is_some_and(|digest| !same_digest(digest, &loaded.digest()))
            {
                return Err(format!(
                    "component {}: its bytes are not those of {}",
                    part.name,
                    part.digest.unwrap_or_default()
                ));
            }
            let instance = SchedulerPlugin::instantiate(&loaded, &limits, Arc::clone(&self.env))
                .map_err(|e| e.to_string())?;
            let enabled = spec.enabled(&part.name, PlacementEngine::plugins(&instance))?;
            let label: Arc<str> = part.name.as_str().into();
            let member = Member::new(Box::new(instance), label, enabled, spec.failure_policy()?);
            members.push(member.map_err(|e| format!("component {}: {e}", part.name))?);
            if shown.is_empty() {
                shown = format!("{}@{}", part.name, loaded.digest());
            }
        }
        let mut profile = Profile::new(name, spec.scheduler_name(), version, shown, members);
        profile.max_traps = given.max_traps.unwrap_or(DEFAULT_MAX_TRAPS);
        Ok(Candidate {
            profile,
            rounds: 0,
            compile_ms: began.elapsed().as_millis() as u64,
            began_ms: self.env.now_ms(),
        })
    }
}

/// Digests with and without their `sha256:`.
fn same_digest(a: &str, b: &str) -> bool {
    let bare = |d: &str| d.strip_prefix("sha256:").unwrap_or(d).to_ascii_lowercase();
    bare(a) == bare(b)
}
