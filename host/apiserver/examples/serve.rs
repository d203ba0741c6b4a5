//! An API server by itself, in memory: no scheduler, no controllers, no nodes. For trying clients and replaying recordings.
//!
//! `serve [--listen ADDR:PORT] [--data-dir DIR] [--anonymous] [--authorize-nodes] [--token-auth-file FILE] [--max-requests-inflight N]
//! [--max-mutating-requests-inflight N] [--audit-policy-file FILE --audit-log-path FILE]`; prints the address and where the kubeconfig is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use oarlock_apiserver::{
    Audit, AuditConfig, AuditLogConfig, KeyRing, LogFormat, Nodes, Rbac, Server, ServerConfig,
    ServiceAccounts, StaticTokens, pki,
};
use oarlock_registry::{Config, Registry};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut listen: SocketAddr = "127.0.0.1:0".parse()?;
    let mut data_dir: Option<PathBuf> = None;
    let mut anonymous = false;
    let mut nodes = false;
    let mut token_file: Option<PathBuf> = None;
    let mut audit = AuditConfig::default();
    let (mut reads, mut writes) = (400_u32, 200_u32);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => {
                listen = arguments
                    .next()
                    .ok_or("--listen needs an address")?
                    .parse()?;
            }
            "--data-dir" => data_dir = arguments.next().map(PathBuf::from),
            "--max-requests-inflight" => {
                reads = arguments.next().ok_or("how many requests?")?.parse()?;
            }
            "--max-mutating-requests-inflight" => {
                writes = arguments.next().ok_or("how many requests?")?.parse()?;
            }
            "--audit-policy-file" => audit.policy_file = arguments.next().map(PathBuf::from),
            "--audit-log-path" => {
                audit.log = arguments.next().map(|path| AuditLogConfig {
                    path: path.into(),
                    format: LogFormat::Json,
                    max_age_days: 0,
                    max_backups: 0,
                    max_size_mib: 0,
                });
            }
            "--anonymous" => anonymous = true,
            "--authorize-nodes" => nodes = true,
            "--token-auth-file" => token_file = arguments.next().map(PathBuf::from),
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let data_dir = data_dir.unwrap_or_else(|| {
        std::env::temp_dir().join(format!("oarlock-serve-{}", std::process::id()))
    });
    let store = oarlock_store::open(oarlock_store::StoreOptions::memory())?;
    let kinds = Arc::new(oarlock_kinds::Kinds::builtin());
    let rbac = Rbac::new();
    let registry = Registry::open(
        Config {
            store,
            kinds,
            admission: vec![rbac.admission(), Rbac::signers(Some(&rbac))],
        },
        jiff::Timestamp::now(),
    )
    .await?;
    // Aggregating roles is a controller's work, and there are none here.
    rbac.start(&registry, jiff::Timestamp::now(), false).await?;
    let pki = Arc::new(pki::ensure(&data_dir, listen)?);
    let keys = KeyRing::ensure(&data_dir, jiff::Timestamp::now())?;
    let accounts = ServiceAccounts::new(Arc::clone(&registry), keys);
    let mut config = ServerConfig::new(listen, registry, Arc::clone(&pki));
    config.max_in_flight = reads.saturating_add(writes);
    config.access.with_accounts(accounts);
    if let Some(file) = &token_file {
        config.access.tokens.push(StaticTokens::read(file)?);
    }
    config.audit = Audit::start(&audit)?;
    config.access.anonymous = anonymous;
    if nodes {
        let nodes = Nodes::start(&config.registry).await?;
        config.access.authorizers.push(nodes);
    }
    config.access.authorizers.push(rbac);
    let server = Server::bind(config).await?;
    let kubeconfig = pki.default_kubeconfig();
    pki.write_kubeconfig(&kubeconfig, server.local_addr())?;
    println!("address {}", server.local_addr());
    println!("kubeconfig {}", kubeconfig.display());
    server
        .serve(async {
            // Without a signal handler the server runs until it is killed.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await;
    Ok(())
}
