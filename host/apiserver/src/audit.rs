//! Audit: which requests are recorded, how much of them, and where to. `policy` decides, `request` follows one request, `event` is
//! what is written, `queue` takes it off the request's path, `log` and `hook` are the ends.
//! Source: <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>
//!
//! Cost: without a policy nothing but a test for it. With one, a request that is recorded pays for its rule, an event or two and
//! a try at a bounded queue; what does not fit is dropped and counted, never waited for.

mod event;
mod hook;
mod log;
mod policy;
mod queue;
mod request;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use event::Event;
use policy::{Level, Policy};
use queue::{Limits, Queue};

pub use log::LogFormat;
pub(crate) use request::{Asked, Audited};

/// What the flags say; plain data.
#[derive(Clone, Debug, Default)]
pub struct AuditConfig {
    /// A `Policy` of `audit.k8s.io/v1`. Without one nothing is recorded.
    pub policy_file: Option<PathBuf>,
    pub log: Option<AuditLogConfig>,
    pub webhook: Option<AuditWebhookConfig>,
}

#[derive(Clone, Debug)]
pub struct AuditLogConfig {
    /// `-`: standard output.
    pub path: PathBuf,
    pub format: LogFormat,
    /// Old files are removed after so many days; 0: never.
    pub max_age_days: u32,
    /// So many old files are kept; 0: all.
    pub max_backups: usize,
    /// A file that would become larger is put aside; 0: 100 MiB.
    pub max_size_mib: u64,
}

#[derive(Clone, Debug)]
pub struct AuditWebhookConfig {
    /// Where events are sent, as a kubeconfig.
    pub kubeconfig: PathBuf,
    /// Events that go out together at most.
    pub max_batch: usize,
    /// How long a batch waits for more.
    pub max_wait: Duration,
}

impl AuditWebhookConfig {
    /// With upstream's limits.
    pub fn new(kubeconfig: PathBuf) -> Self {
        Self {
            kubeconfig,
            max_batch: 400,
            max_wait: Duration::from_secs(30),
        }
    }
}

/// Why there can be no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit policy {file} cannot be used: {what}")]
    Policy { file: PathBuf, what: String },
    #[error("the audit log {file} cannot be written: {source}")]
    Log {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("the audit webhook's kubeconfig {file} cannot be used: {what}")]
    Webhook { file: PathBuf, what: String },
    #[error("the audit's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    events: AtomicU64,
    levels: [AtomicU64; Level::ALL.len()],
    dropped: AtomicU64,
    log_errors: AtomicU64,
    webhook_errors: AtomicU64,
}

/// One for each server; what it has been given is written when [`Audit::stop`] returns.
#[derive(Debug)]
pub struct Audit {
    policy: Policy,
    queues: Vec<Queue>,
    counters: Arc<Counters>,
}

impl Audit {
    /// `None`: there is nothing to record, or nowhere to.
    pub fn start(config: &AuditConfig) -> Result<Option<Arc<Self>>, AuditError> {
        let Some(file) = &config.policy_file else {
            return Ok(None);
        };
        let policy = std::fs::read(file)
            .map_err(|error| error.to_string())
            .and_then(|text| Policy::read(&text))
            .map_err(|what| AuditError::Policy {
                file: file.clone(),
                what,
            })?;
        let counters = Arc::new(Counters::default());
        let mut queues = Vec::new();
        if let Some(config) = &config.log {
            let log = log::LogFile::open(config.clone()).map_err(|source| AuditError::Log {
                file: config.path.clone(),
                source,
            })?;
            let limits = Limits {
                events: 400,
                wait: Duration::ZERO,
            };
            queues.push(Queue::start(log, limits, &counters).map_err(AuditError::Thread)?);
        }
        if let Some(config) = &config.webhook {
            let hook = hook::Hook::new(&config.kubeconfig).map_err(|what| AuditError::Webhook {
                file: config.kubeconfig.clone(),
                what,
            })?;
            let limits = Limits {
                events: config.max_batch.max(1),
                wait: config.max_wait,
            };
            queues.push(Queue::start(hook, limits, &counters).map_err(AuditError::Thread)?);
        }
        Ok((!queues.is_empty()).then(|| {
            Arc::new(Self {
                policy,
                queues,
                counters,
            })
        }))
    }

    fn send(&self, event: Event) {
        self.counters.events.fetch_add(1, Relaxed);
        let event = Arc::new(event);
        for queue in &self.queues {
            if !queue.put(&event) {
                self.counters.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// Waits until what was recorded before has been written, or given up. Later events are dropped.
    pub async fn stop(self: Arc<Self>) {
        // That the task fails would mean that a worker panicked, which has been told.
        let _ = tokio::task::spawn_blocking(move || {
            for queue in &self.queues {
                queue.stop();
            }
        })
        .await;
    }

    /// `apiserver_audit_*`, as Prometheus text.
    pub fn metrics(&self) -> String {
        let counters = &*self.counters;
        let mut out = String::new();
        let mut family = |name: &str, help: &str, series: &[(String, u64)]| {
            let _ = writeln!(
                out,
                "# HELP apiserver_audit_{name} {help}\n# TYPE apiserver_audit_{name} counter"
            );
            for (labels, value) in series {
                let _ = writeln!(out, "apiserver_audit_{name}{labels} {value}");
            }
        };
        let events = counters.events.load(Relaxed);
        family(
            "event_total",
            "Audit events made, one for each stage that is not left out.",
            &[(String::new(), events)],
        );
        let errors = [
            ("buffered", &counters.dropped),
            ("log", &counters.log_errors),
            ("webhook", &counters.webhook_errors),
        ];
        family(
            "error_total",
            "Audit events lost: dropped from a full queue, or not taken by the log or the webhook.",
            &errors.map(|(plugin, count)| (format!("{{plugin={plugin:?}}}"), count.load(Relaxed))),
        );
        let levels: Vec<(String, u64)> = Level::ALL
            .iter()
            .zip(&counters.levels)
            .map(|(level, count)| {
                (
                    format!("{{level=\"{}\"}}", level.as_str()),
                    count.load(Relaxed),
                )
            })
            .collect();
        family(
            "level_total",
            "Requests by the level that the policy gave them.",
            &levels,
        );
        family(
            "requests_rejected_total",
            "Requests refused because they could not be recorded; here none is.",
            &[(String::new(), 0)],
        );
        out
    }
}
