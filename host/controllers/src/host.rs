//! Starts controllers, keeps their state for all to see, and stops them.

use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_client::Cluster;
use oarlock_wasm::{Engine, HostEnv, Limits, Loaded, ObjectsHost};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cache::{Caches, Depth};
use crate::events::Recorder;
use crate::mapping::{Target, WatchRule};
use crate::metrics::Metrics;
use crate::objects::{ControllerObjects, Parts};
use crate::permissions::Permissions;
use crate::runner::{self, Runner, Spec};
use crate::{ControllersConfig, Discover, dynamic};

/// How one controller fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerState {
    /// Its caches are filled and its workers work.
    pub running: bool,
    pub reconciles: u64,
    pub errors: u64,
    /// Instances that had to be replaced.
    pub traps: u64,
    /// Empty: none so far.
    pub last_error: String,
    /// Why it does not run at all; empty: it does.
    pub refused: String,
}

pub struct Controllers;

/// Running controllers.
pub struct Handle {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// What all controllers of a process have in common.
pub(crate) struct Shared {
    pub cluster: Arc<dyn Cluster>,
    pub engine: Engine,
    pub limits: Limits,
    pub env: Arc<dyn HostEnv>,
    pub discover: Discover,
    pub caches: Arc<Caches>,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub states: Mutex<BTreeMap<String, Arc<Mutex<ControllerState>>>>,
    pub runtime: tokio::runtime::Handle,
}

/// What to run, wherever it comes from.
pub(crate) struct Source {
    pub name: String,
    pub bytes: Arc<[u8]>,
    pub config: String,
    pub limits: Limits,
    /// 0: as described.
    pub workers: u32,
    /// Empty: `system:serviceaccount:kube-system:NAME`.
    pub account: String,
}

impl Controllers {
    /// Starts on the current tokio runtime and returns at once: components are compiled in the background.
    pub fn start(config: ControllersConfig) -> Handle {
        let shared = Arc::new(Shared {
            caches: Arc::new(Caches::new(Arc::clone(&config.cluster))),
            recorder: Recorder::start(Arc::clone(&config.cluster)),
            cluster: config.cluster,
            engine: config.engine,
            limits: config.limits.clone(),
            env: config.env,
            discover: config.discover,
            metrics: Metrics::default(),
            states: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        let (stop, stopped) = watch::channel(false);
        let builtin = {
            let (shared, stopped, limits) = (Arc::clone(&shared), stopped.clone(), config.limits);
            let sources: Vec<Source> = config
                .builtin
                .into_iter()
                .map(|builtin| Source {
                    name: builtin.name,
                    bytes: builtin.bytes,
                    config: builtin.config.to_string(),
                    limits: limits.clone(),
                    workers: 0,
                    account: String::new(),
                })
                .collect();
            tokio::spawn(run_builtin(shared, sources, stopped))
        };
        let mut tasks = vec![builtin];
        if config.dynamic {
            tasks.push(tokio::spawn(dynamic::run(Arc::clone(&shared), stopped)));
        }
        Handle {
            stop,
            tasks,
            shared,
        }
    }
}

impl Handle {
    /// How each controller fares, by name.
    pub fn states(&self) -> BTreeMap<String, ControllerState> {
        self.shared
            .states
            .lock()
            .iter()
            .map(|(name, state)| (name.clone(), state.lock().clone()))
            .collect()
    }

    /// The metrics, to be read while the handle is elsewhere.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics.clone()
    }

    /// Stops taking work, waits for what is under way.
    pub async fn stop(mut self) {
        // Without receivers there is nothing left to stop.
        let _none_left = self.stop.send(true);
        for task in std::mem::take(&mut self.tasks) {
            let _ended = task.await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn run_builtin(shared: Arc<Shared>, sources: Vec<Source>, stopped: watch::Receiver<bool>) {
    // All are prepared before the first runs: whoever watches everything must find the full caches of the others open.
    let prepared = futures::future::join_all(sources.into_iter().map(|source| {
        let shared = Arc::clone(&shared);
        async move {
            let name = source.name.clone();
            (name, prepare(&shared, source).await)
        }
    }))
    .await;
    let mut specs = Vec::new();
    for (name, spec) in prepared {
        match spec {
            Ok(spec) => specs.push(spec),
            Err(message) => {
                tracing::error!(controller = name, message, "a controller does not run");
                shared.state(&name).lock().refused = message;
            }
        }
    }
    for spec in &specs {
        open_caches(&shared.caches, spec);
    }
    let runners = specs.into_iter().filter_map(|spec| {
        let state = Arc::clone(&spec.state);
        match Runner::new(spec, Arc::clone(&shared.caches)) {
            Ok(runner) => Some(tokio::spawn(runner.run(stopped.clone()))),
            Err(message) => {
                state.lock().refused = message;
                None
            }
        }
    });
    futures::future::join_all(runners.collect::<Vec<_>>()).await;
}

/// Opens the full caches that a controller needs.
pub(crate) fn open_caches(caches: &Caches, spec: &Spec) {
    for watch in &spec.description.watches {
        if let Ok(WatchRule {
            target: Target::Kind(kind),
            ..
        }) = WatchRule::parse(watch)
        {
            caches.open(&kind, Depth::Full);
        }
    }
}

impl Shared {
    pub fn state(&self, name: &str) -> Arc<Mutex<ControllerState>> {
        Arc::clone(self.states.lock().entry(name.to_owned()).or_default())
    }

    fn objects(&self, name: &str, permissions: Permissions, account: &str) -> ControllerObjects {
        ControllerObjects::new(Parts {
            name: name.to_owned(),
            cluster: self.cluster.as_user(account),
            caches: Arc::clone(&self.caches),
            discover: Arc::clone(&self.discover),
            permissions,
            recorder: self.recorder.named(name),
            runtime: self.runtime.clone(),
        })
    }
}

/// Compiles a component and asks it what it is. On a blocking thread, since both take their time.
pub(crate) async fn prepare(shared: &Arc<Shared>, source: Source) -> Result<Spec, String> {
    let shared = Arc::clone(shared);
    let prepared = tokio::task::spawn_blocking(move || {
        let loaded = shared
            .engine
            .load(&source.name, &source.bytes)
            .map_err(|e| e.to_string())?;
        describe(&shared, source, loaded)
    });
    prepared.await.map_err(|e| e.to_string())?
}

fn describe(shared: &Arc<Shared>, source: Source, loaded: Loaded) -> Result<Spec, String> {
    // Asked before it may do anything.
    let nothing: Arc<dyn ObjectsHost> =
        Arc::new(shared.objects(&source.name, Permissions::default(), "system:anonymous"));
    let mut probe = runner::instance(
        &loaded,
        &source.limits,
        &shared.env,
        nothing,
        &source.config,
    )
    .map_err(|error| error.to_string())?;
    let description = probe.describe().map_err(|error| error.to_string())?;
    let name = description.name.clone();
    let account = match source.account.is_empty() {
        true => format!("system:serviceaccount:kube-system:{name}"),
        false => source.account,
    };
    let permissions = Permissions::new(description.permissions.clone(), account.clone());
    Ok(Spec {
        loaded,
        limits: source.limits,
        env: Arc::clone(&shared.env),
        config: source.config,
        objects: Arc::new(shared.objects(&name, permissions, &account)),
        state: shared.state(&source.name),
        metrics: shared.metrics.clone(),
        workers: source.workers,
        description,
    })
}
