//! From an AdmissionPolicy to a version: its component's bytes, compiled, instantiated, configured and asked what it is.
//! Blocking work runs on blocking threads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use oarlock_client::{Cluster, fetch_component};
use oarlock_wasm::{Engine, HostEnv, Limits};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::spec::PolicySpec;
use crate::version::{Parts, Retired, Version};

/// What a loader needs.
#[derive(Clone)]
pub(crate) struct Loader {
    pub engine: Engine,
    pub env: Arc<dyn HostEnv>,
    pub limits: Limits,
    /// Components that ship with the binary, by name.
    pub builtin: Arc<HashMap<String, Arc<[u8]>>>,
    pub metrics: Metrics,
    pub retired: mpsc::UnboundedSender<Retired>,
}

/// A version, and what it took.
pub(crate) struct Candidate {
    pub version: Arc<Version>,
    pub compile_ms: u64,
    pub warm_ms: u64,
}

impl Loader {
    /// Sets a version of a policy up; `component` is the name of a `Component` or of one that ships. The error is for the
    /// policy's status.
    pub async fn load(
        &self,
        cluster: &dyn Cluster,
        policy: &str,
        key: String,
        spec: PolicySpec,
        component: &str,
    ) -> Result<Candidate, String> {
        let (bytes, digest): (Arc<[u8]>, _) = match fetch_component(cluster, component).await {
            Ok(fetched) => (fetched.bytes.into(), Some(fetched.digest)),
            Err(error) => match self.builtin.get(component) {
                Some(bytes) => (Arc::clone(bytes), None),
                None => return Err(format!("component {component}: {error}")),
            },
        };
        let (loader, policy, component) = (self.clone(), policy.to_owned(), component.to_owned());
        let build = move || loader.build(policy, key, spec, &component, &bytes, digest.as_deref());
        tokio::task::spawn_blocking(build)
            .await
            .map_err(|error| format!("setting the policy up failed: {error}"))?
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "edge: what a swap took is told in receipts"
    )]
    fn build(
        &self,
        policy: String,
        key: String,
        spec: PolicySpec,
        component: &str,
        bytes: &[u8],
        digest: Option<&str>,
    ) -> Result<Candidate, String> {
        let began = Instant::now();
        let loaded = self
            .engine
            .load(component, bytes)
            .map_err(|error| error.to_string())?;
        if let Some(digest) = digest.filter(|digest| *digest != loaded.digest()) {
            return Err(format!(
                "component {component}: its bytes are not those of {digest}"
            ));
        }
        let compiled = Instant::now();
        let parts = Parts {
            policy,
            key,
            shown: format!("{component}@{}", loaded.digest()),
            limits: spec.limits(&self.limits),
            spec,
            loaded,
            env: Arc::clone(&self.env),
            retired: self.retired.clone(),
        };
        let version = Version::new(parts, &self.metrics)
            .map_err(|message| format!("component {component}: {message}"))?;
        Ok(Candidate {
            version: Arc::new(version),
            compile_ms: (compiled - began).as_millis() as u64,
            warm_ms: compiled.elapsed().as_millis() as u64,
        })
    }
}
