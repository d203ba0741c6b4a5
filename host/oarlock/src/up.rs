//! `oarlock up`: everything in one process, wired together. Starts from the store upwards, stops from the top down.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use oarlock_admission::{AdmissionConfig, Gate, PolicyHost};
use oarlock_apiserver::{
    AlwaysAllow, Audit, Authorizer, KeyRing, Nodes, Rbac, Server, ServerConfig, ServiceAccounts,
    StaticTokens,
};
use oarlock_client::LocalCluster;
use oarlock_controllers::{Controllers, ControllersConfig, Discover, Served};
use oarlock_kinds::{Kinds, Row};
use oarlock_node::{NodeSim, NodeSimConfig};
use oarlock_registry::{Admission, Registry};
use oarlock_scheduler::{Handle, Scheduler, SchedulerConfig};
use oarlock_store::{Backend, StoreOptions};
use oarlock_wasm::{Engine, EngineConfig};
use serde_json::{Value, json};

use crate::audit::AuditFlags;
use crate::issuers::Issuers;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Controllers,
    Scheduler,
    Nodes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    /// On disk, durable.
    Redb,
    /// Gone when the process ends.
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuthorizationMode {
    /// Nodes, by what their pods need.
    #[value(name = "Node")]
    Node,
    #[value(name = "RBAC")]
    Rbac,
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
}

#[derive(Debug, Args)]
pub struct Up {
    /// Where the store, certificates and compiled guests are kept [default: ~/.oarlock]
    #[arg(long, env = "OARLOCK_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the API is served; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// Where compiled guests are kept; several processes may share it [default: DATA_DIR/code]
    #[arg(long, env = "OARLOCK_CODE_CACHE", value_name = "DIR")]
    code_cache: Option<PathBuf>,
    /// Where the kubeconfig is written [default: DATA_DIR/kubeconfig]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How many simulated nodes to run
    #[arg(long, default_value_t = 3, value_name = "N")]
    nodes: usize,
    /// Parts to leave out
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    disable: Vec<Part>,
    /// What the store is kept in
    #[arg(long, value_enum, default_value_t = StoreKind::Redb)]
    store: StoreKind,
    /// Whether callers without credentials are let in, as system:anonymous
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, value_name = "BOOL")]
    anonymous_auth: bool,
    /// File of tokens, one line each: token,user,uid,"group,group"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    #[command(flatten)]
    issuers: Issuers,
    /// Who decides what callers over HTTP may do, in this order; the kubeconfig's user may do everything
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "Node,RBAC",
        value_name = "MODE"
    )]
    authorization_mode: Vec<AuthorizationMode>,
    /// How long history is kept for watches and lists at a revision, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    history: u64,
    /// How many requests that read may run at the same time; priority levels share out the sum of this and the next
    #[arg(long, default_value_t = 400, value_name = "N")]
    max_requests_inflight: u32,
    /// How many requests that write may run at the same time
    #[arg(long, default_value_t = 200, value_name = "N")]
    max_mutating_requests_inflight: u32,
    /// Features that are off unless they are switched on: CBORServingAndStorage=true
    #[arg(long, value_delimiter = ',', value_name = "NAME=BOOL", value_parser = feature_gate)]
    feature_gates: Vec<bool>,
    #[command(flatten)]
    audit: AuditFlags,
}

const CBOR_GATE: &str = "CBORServingAndStorage";

/// Whether CBOR is served: the only gate there is.
fn feature_gate(text: &str) -> Result<bool, String> {
    let (name, value) = text.split_once('=').ok_or("say NAME=true or NAME=false")?;
    if name != CBOR_GATE {
        return Err(format!("unknown feature; there is {CBOR_GATE}"));
    }
    value
        .parse()
        .map_err(|_| "say NAME=true or NAME=false".to_owned())
}

impl Up {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.serve())
    }

    fn data_dir(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.clone());
        }
        let home = std::env::var_os("HOME").context("HOME is not set: say --data-dir DIR")?;
        Ok(Path::new(&home).join(".oarlock"))
    }

    fn runs(&self, part: Part) -> bool {
        !self.disable.contains(&part)
    }

    async fn serve(self) -> Result<()> {
        let dir = self.data_dir()?;
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot make the data directory {}", dir.display()))?;
        let lock = lock(&dir)?;
        let stop = stop_signal()?;
        let audit = Audit::start(&self.audit.config())?;

        // The store and the guests' code have nothing to do with each other: both at once.
        let engine_dir = self.code_cache.clone().unwrap_or_else(|| dir.join("code"));
        let engine = tokio::task::spawn_blocking(move || {
            Engine::new(EngineConfig {
                cache_dir: Some(engine_dir),
                // This very program, even if its file was replaced meanwhile.
                compiler: Some(PathBuf::from("/proc/self/exe")).filter(|exe| exe.exists()),
                ..EngineConfig::default()
            })
        });
        let backend = match self.store {
            StoreKind::Redb => Backend::Redb {
                path: dir.join("store.redb"),
            },
            StoreKind::Memory => Backend::Memory,
        };
        let mut options = StoreOptions::new(backend);
        options.history_window = std::time::Duration::from_secs(self.history);
        let opened =
            tokio::task::spawn_blocking(move || (oarlock_store::open(options), Kinds::builtin()));
        let (store, kinds) = opened.await?;
        let store = store.context("cannot open the store")?;
        let rbac = Rbac::new();
        let by_roles = self.authorization_mode.contains(&AuthorizationMode::Rbac);
        let gate = Arc::new(Gate::default());
        let mut admission = vec![Arc::clone(&gate) as Arc<dyn Admission>];
        if by_roles {
            admission.push(rbac.admission());
        }
        admission.push(Rbac::signers(by_roles.then_some(&rbac)));
        let config = oarlock_registry::Config {
            store: Arc::clone(&store),
            kinds: Arc::new(kinds),
            admission,
        };
        let registry = Registry::open(config, jiff::Timestamp::now())
            .await
            .context("cannot start the registry")?;
        rbac.start(&registry, jiff::Timestamp::now(), true)
            .await
            .context("cannot make the default roles")?;
        // What policies of the last run will look at waits for them.
        gate.close(&LocalCluster::new(
            Arc::clone(&registry),
            "oarlock-admission",
        ))
        .await
        .context("cannot read the admission policies")?;

        let pki = oarlock_apiserver::pki::ensure(&dir, self.listen)
            .context("cannot make certificates")?;
        let pki = Arc::new(pki);
        let ca = pki.ca_pem().to_owned();
        let mut server = ServerConfig::new(self.listen, Arc::clone(&registry), Arc::clone(&pki));
        server.access.anonymous = self.anonymous_auth;
        server.audit = audit;
        server.cbor = self.feature_gates.last() == Some(&true);
        server.max_in_flight = self
            .max_requests_inflight
            .saturating_add(self.max_mutating_requests_inflight);
        let keys = KeyRing::ensure(&dir, jiff::Timestamp::now())
            .context("cannot make keys for service accounts' tokens")?;
        let accounts = ServiceAccounts::new(Arc::clone(&registry), keys);
        if let Some(file) = &self.token_auth_file {
            let tokens = StaticTokens::read(file)
                .with_context(|| format!("cannot use the tokens of {}", file.display()))?;
            server.access.tokens.push(tokens);
        }
        self.issuers.admit(&mut server.access)?;
        let mut keeping = accounts
            .keep_secrets(&ca)
            .await
            .context("cannot read the secrets of tokens")?;
        server.access.with_accounts(accounts);
        for mode in &self.authorization_mode {
            server.access.authorizers.push(match mode {
                AuthorizationMode::Node => Nodes::start(&registry)
                    .await
                    .context("cannot read what nodes need")?
                    as Arc<dyn Authorizer>,
                AuthorizationMode::Rbac => Arc::clone(&rbac) as Arc<dyn Authorizer>,
                AuthorizationMode::AlwaysAllow => Arc::new(AlwaysAllow),
            });
        }
        let signing = tokio::spawn(oarlock_apiserver::sign_requests(
            Arc::clone(&registry),
            Arc::clone(&pki),
        ));
        let checking = tokio::spawn(oarlock_apiserver::check_policies(Arc::clone(&registry)));
        let metrics = server.more_metrics.clone();
        let server = Server::bind(server).await?;
        let address = server.local_addr();
        let kubeconfig = self
            .kubeconfig
            .clone()
            .unwrap_or_else(|| dir.join("kubeconfig"));
        pki.write_kubeconfig(&kubeconfig, address)
            .context("cannot write the kubeconfig")?;
        let (stop_server, server_stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(async move {
            let _ = server_stopped.await;
        }));

        let engine = engine
            .await?
            .context("cannot start the WebAssembly engine")?;
        let cluster =
            |component: &str| Arc::new(LocalCluster::new(Arc::clone(&registry), component));
        let policies = PolicyHost::start(AdmissionConfig::new(
            cluster("oarlock-admission"),
            engine.clone(),
            by_name(oarlock_guests::ADMISSION),
            gate,
        ));
        let source = policies.metrics();
        metrics.add(move || source.text());
        let controllers = self.runs(Part::Controllers).then(|| {
            let cluster = cluster("kube-controller-manager");
            Controllers::start(ControllersConfig::new(
                cluster,
                engine.clone(),
                controller_guests(),
                configs(&ca),
                discover(&registry),
            ))
        });
        let scheduler = if self.runs(Part::Scheduler) {
            let config = SchedulerConfig::new(
                cluster("kube-scheduler"),
                engine.clone(),
                by_name(oarlock_guests::SCHEDULING),
            );
            Some(Scheduler::start(config).context("cannot start the scheduler")?)
        } else {
            None
        };
        if let Some(source) = controllers
            .as_ref()
            .map(oarlock_controllers::Handle::metrics)
        {
            metrics.add(move || source.text());
        }
        if let Some(source) = scheduler.as_ref().map(Handle::metrics) {
            metrics.add(move || source.text());
        }
        let nodes = self
            .runs(Part::Nodes)
            .then(|| NodeSim::start(NodeSimConfig::new(cluster("node-simulator"), self.nodes)));

        let expiring = tokio::spawn(expire_events(Arc::clone(&registry)));

        println!(
            "Oarlock {} is ready at https://{address}",
            env!("CARGO_PKG_VERSION")
        );
        println!("  export KUBECONFIG={}", kubeconfig.display());
        println!("  kubectl get nodes");
        println!("Ctrl-C stops it.");
        stop.await;

        println!("stopping");
        expiring.abort();
        signing.abort();
        checking.abort();
        keeping.drain(..).for_each(|task| task.abort());
        if let Some(nodes) = nodes {
            nodes.stop().await;
        }
        if let Some(scheduler) = scheduler {
            scheduler.stop().await;
        }
        if let Some(controllers) = controllers {
            controllers.stop().await;
        }
        policies.stop().await;
        let _ = stop_server.send(());
        serving.await?;
        store.close().await;
        drop(lock);
        Ok(())
    }
}

/// One process a data directory: the lock goes with the process.
fn lock(dir: &Path) -> Result<std::fs::File> {
    let file = std::fs::File::create(dir.join("lock"))?;
    if file.try_lock().is_err() {
        anyhow::bail!(
            "another `oarlock up` uses {}: stop it, or say --data-dir DIR",
            dir.display()
        );
    }
    Ok(file)
}

/// Resolves at the first Ctrl-C or SIGTERM.
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Drops old Events, once a minute.
async fn expire_events(registry: Arc<Registry>) {
    let mut minute = tokio::time::interval(std::time::Duration::from_secs(60));
    loop {
        minute.tick().await;
        if let Err(error) = registry.expire_events(jiff::Timestamp::now()).await {
            tracing::warn!(%error, "old events were not dropped");
        }
    }
}

/// Components that profiles and policies may name without pushing them first.
fn by_name(guests: &[oarlock_guests::Guest]) -> HashMap<String, Arc<[u8]>> {
    guests
        .iter()
        .map(|guest| (guest.name.to_owned(), guest.bytes.into()))
        .collect()
}

fn controller_guests() -> Vec<(String, Arc<[u8]>)> {
    oarlock_guests::CONTROLLERS
        .iter()
        .map(|guest| (guest.name.to_owned(), guest.bytes.into()))
        .collect()
}

/// Configurations of the built-in controllers, by guest.
fn configs(ca_pem: &str) -> BTreeMap<String, Value> {
    BTreeMap::from([("root-ca".to_owned(), json!({"certificate": ca_pem}))])
}

/// What the cluster serves, for controllers that look at every kind.
fn discover(registry: &Arc<Registry>) -> Discover {
    let registry = Arc::clone(registry);
    Arc::new(move || {
        let can = |row: &Row, verb: &str| row.verbs.iter().any(|v| v == verb);
        let kinds = registry.kinds();
        let rows = kinds
            .rows()
            .iter()
            .filter(|row| row.stored && can(row, "list"));
        rows.map(|row| Served {
            kind: row.gvr(),
            object_kind: row.kind.clone(),
            namespaced: row.namespaced,
            deletable: can(row, "delete"),
            watchable: can(row, "watch"),
        })
        .collect()
    })
}
