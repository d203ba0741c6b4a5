//! Aggregation: group versions that other servers answer for (APIService), as metrics-server does.
//! Source: <https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/>
//!
//! One task follows the APIServices, keeps one for each group version that is served here, and looks every ten seconds whether
//! the others' servers answer. Requests below a group version of theirs go to them with who asks in `X-Remote-*` headers, after
//! authentication and authorization here.
//!
//! Cost for other requests: one look into a table that is mostly empty.

mod available;
mod forward;
mod keep;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use oarlock_kinds::{Kinds, Row};
use oarlock_model::meta;
use oarlock_registry::remote::ServiceReference;
use oarlock_registry::{Context, ListOptions, Registry, Target, User, WatchOptions};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::discovery::{Discovery, Foreign};
use crate::outbound::{Outbound, Trust};
use crate::pki::Pki;

const GROUP: &str = "apiregistration.k8s.io";
/// How often it is looked whether servers answer.
const PERIOD: Duration = Duration::from_secs(10);
/// Pause before a watch that ended is begun anew.
const PAUSE: Duration = Duration::from_secs(1);
/// Whose certificate our requests to other servers carry.
const PROXY_USER: &str = "front-proxy-client";

/// The server's own reads and writes.
pub(crate) fn context() -> Context {
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec![oarlock_auth::MASTERS.to_owned()],
        ..User::default()
    };
    let mut context = Context::new(Arc::new(user), Timestamp::now());
    "kube-apiserver".clone_into(&mut context.field_manager);
    context
}

/// A group version that another server answers for.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    pub group: String,
    pub version: String,
    pub service: ServiceReference,
    pub trust: Trust,
    pub available: bool,
    /// What it said of its resources.
    pub resources: Vec<Value>,
}

impl Elsewhere {
    /// `None`: it is served here.
    fn of(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        let service = spec["service"].as_object()?;
        let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let field = |name: &str| text(service.get(name).unwrap_or(&Value::Null));
        let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
        let service = ServiceReference {
            namespace: field("namespace"),
            name: field("name"),
            port: u16::try_from(port).unwrap_or(443),
            path: String::new(),
        };
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.decode(text(&spec["caBundle"]));
        Some(Self {
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            trust: Trust {
                ca: ca.unwrap_or_default(),
                name: format!("{}.{}.svc", service.name, service.namespace),
                insecure: spec["insecureSkipTLSVerify"] == true,
                identified: true,
            },
            service,
            available: false,
            resources: Vec::new(),
        })
    }
}

/// By `group/version`.
type Table = HashMap<String, Arc<Elsewhere>>;

/// Discovery, and of what it was made.
type Made = (Arc<Kinds>, Arc<Table>, Arc<Discovery>);

#[derive(Debug)]
pub(crate) struct Aggregator {
    registry: Weak<Registry>,
    row: Option<Arc<Row>>,
    pub(crate) outbound: Arc<Outbound>,
    table: ArcSwap<Table>,
    /// Discovery with what others serve: of a table of kinds and a table of ours.
    discovery: Mutex<Option<Made>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Aggregator {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Aggregator {
    pub async fn start(registry: &Arc<Registry>, pki: &Pki) -> Arc<Self> {
        let identity = pki.issue_client(PROXY_USER, &[]);
        if let Err(error) = &identity {
            tracing::warn!(%error, "no certificate for requests to other API servers");
        }
        let this = Arc::new(Self {
            registry: Arc::downgrade(registry),
            row: registry.kinds().resource(GROUP, "v1", "apiservices"),
            outbound: Outbound::new(registry, identity.ok()),
            table: ArcSwap::default(),
            discovery: Mutex::default(),
            task: Mutex::default(),
        });
        registry.set_webhook_client(Arc::clone(&this.outbound) as Arc<_>);
        if let Err(error) = keep::authentication(registry, pki.ca_pem()).await {
            tracing::warn!(%error, "cannot tell other API servers whom to believe");
        }
        this.look(registry).await;
        let task = tokio::spawn(follow(Arc::downgrade(&this)));
        *this.task.lock() = Some(task.abort_handle());
        this
    }

    /// Who answers for a group version, if not we.
    pub fn elsewhere(&self, group_version: &str) -> Option<Arc<Elsewhere>> {
        let table = self.table.load();
        if table.is_empty() {
            return None;
        }
        table.get(group_version).map(Arc::clone)
    }

    /// What is served here and elsewhere; `None`: everything is here.
    pub fn discovery(&self, kinds: &Arc<Kinds>) -> Option<Arc<Discovery>> {
        let table = self.table.load_full();
        if table.is_empty() {
            return None;
        }
        let mut known = self.discovery.lock();
        if let Some((of, from, made)) = &*known
            && Arc::ptr_eq(of, kinds)
            && Arc::ptr_eq(from, &table)
        {
            return Some(Arc::clone(made));
        }
        let foreign: BTreeMap<(&str, &str), &[Value]> = table
            .values()
            .map(|e| {
                (
                    (e.group.as_str(), e.version.as_str()),
                    e.resources.as_slice(),
                )
            })
            .collect();
        let foreign: Vec<Foreign<'_>> = foreign
            .into_iter()
            .map(|((group, version), resources)| Foreign {
                group,
                version,
                resources,
            })
            .collect();
        let made = Arc::new(Discovery::with(kinds, &foreign));
        *known = Some((Arc::clone(kinds), table, Arc::clone(&made)));
        Some(made)
    }

    /// The group versions of others.
    pub fn group_versions(&self) -> Vec<String> {
        let mut all: Vec<String> = self.table.load().keys().cloned().collect();
        all.sort();
        all
    }

    /// Looks at all APIServices: those of what is served here are kept, the others' servers are asked.
    async fn look(&self, registry: &Arc<Registry>) {
        let Some(row) = &self.row else {
            return;
        };
        let all = Target::new(row, "", "");
        let listed = registry
            .list(&context(), &all, &ListOptions::default())
            .await;
        let Ok(list) = listed else {
            return;
        };
        let objects: Vec<Value> = list
            .items
            .iter()
            .filter_map(|stored| stored.to_value().ok())
            .collect();
        keep::local(registry, row, &objects).await;
        let before = self.table.load_full();
        let mut table = Table::new();
        let mut changed = false;
        for object in &objects {
            let Some(mut elsewhere) = Elsewhere::of(object) else {
                continue;
            };
            let key = format!("{}/{}", elsewhere.group, elsewhere.version);
            let verdict = available::judge(registry, &self.outbound, &elsewhere).await;
            let known = before.get(&key);
            match &verdict {
                Ok(resources) => {
                    elsewhere.available = true;
                    elsewhere.resources.clone_from(resources);
                }
                // What it served is still known of while it does not answer.
                Err(_) => {
                    elsewhere.resources = known.map(|k| k.resources.clone()).unwrap_or_default();
                }
            }
            keep::condition(registry, row, object, verdict.err()).await;
            let same = known.filter(|k| {
                k.available == elsewhere.available
                    && k.resources == elsewhere.resources
                    && k.service == elsewhere.service
                    && k.trust == elsewhere.trust
            });
            changed |= same.is_none();
            let entry = same.map_or_else(|| Arc::new(elsewhere), Arc::clone);
            table.insert(key, entry);
        }
        if changed || table.len() != before.len() {
            self.table.store(Arc::new(table));
        }
    }
}

/// Looks at every change of an APIService or of the kinds served here, and from time to time.
async fn follow(this: Weak<Aggregator>) {
    loop {
        let Some((registry, row)) = this.upgrade().and_then(|this| {
            let registry = this.registry.upgrade()?;
            Some((registry, Arc::clone(this.row.as_ref()?)))
        }) else {
            return;
        };
        let definitions =
            registry
                .kinds()
                .resource("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let options = WatchOptions {
            send_initial_events: Some(false),
            ..WatchOptions::default()
        };
        let own = Target::new(&row, "", "");
        let Ok(mut services) = registry.watch(&context(), &own, &options).await else {
            return;
        };
        let made = Target::new(definitions.as_ref().unwrap_or(&row), "", "");
        let Ok(mut definitions) = registry.watch(&context(), &made, &options).await else {
            return;
        };
        drop(registry);
        let mut fine = true;
        while fine {
            let aggregates = match this.upgrade() {
                Some(this) => !this.table.load().is_empty(),
                None => return,
            };
            fine = tokio::select! {
                batch = services.next_batch() => batch.is_ok(),
                batch = definitions.next_batch() => batch.is_ok(),
                () = tokio::time::sleep(PERIOD), if aggregates => true,
            };
            let Some(this) = this.upgrade() else {
                return;
            };
            let Some(registry) = this.registry.upgrade() else {
                return;
            };
            this.look(&registry).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The name of the APIService of a group version.
fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

fn is_named(object: &Value, name: &str) -> bool {
    meta::name(object) == name
}
