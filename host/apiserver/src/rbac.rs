//! RBAC in force: an index of roles and bindings that follows the store, the default roles made at start, aggregated
//! roles brought up to date, and the refusal of writes that grant more than their caller holds.
//!
//! Cost: a question reads the index under a shared lock; nothing is listed for it. A committed role or binding costs its
//! parse, once.

mod escalation;
mod signers;

use std::sync::{Arc, Weak};
use std::time::Duration;

use oarlock_auth::{Answer, Ask, GROUP, Index, SubjectRules, aggregate, defaults};
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_registry::{
    Admission, Body, Context, EventType, ListOptions, Registry, Target, User, WatchItem,
    WatchOptions,
};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::auth::{Attributes, Authorizer, Decision};

const RESOURCES: [&str; 4] = [
    "clusterroles",
    "clusterrolebindings",
    "roles",
    "rolebindings",
];
/// Pause before a watch that ended is begun anew.
const PAUSE: Duration = Duration::from_secs(1);
const AGGREGATOR: &str = "clusterrole-aggregation-controller";

/// See the module. Made before the registry (whose admission it takes part in), started after it.
#[derive(Debug, Default)]
pub struct Rbac {
    index: RwLock<Index>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Rbac {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        match self.answer(user, &attributes.ask()) {
            Answer::Allowed(why) => Decision::Allow(why),
            Answer::NoOpinion(why) => Decision::NoOpinion(why),
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> Option<SubjectRules> {
        Some(self.rules_of(user, namespace))
    }
}

impl Rbac {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Refuses writes that grant more than the caller holds.
    pub fn admission(self: &Arc<Self>) -> Arc<dyn Admission> {
        Arc::new(escalation::Escalation(Arc::clone(self)))
    }

    /// Refuses who may not approve, sign or attest for a signer (without `rbac`: nobody), and requests for certificates
    /// of cluster administrators.
    pub fn signers(rbac: Option<&Arc<Self>>) -> Arc<dyn Admission> {
        Arc::new(signers::Signers(rbac.map(Arc::clone)))
    }

    fn answer(&self, user: &User, ask: &Ask<'_>) -> Answer {
        self.index.read().answer(&user.name, &user.groups, ask)
    }

    fn rules_of(&self, user: &User, namespace: &str) -> SubjectRules {
        let index = self.index.read();
        index.rules_of(&user.name, &user.groups, namespace)
    }

    /// Makes the default roles and bindings, reads all there are, and follows their changes from now on.
    /// With `aggregate`, cluster roles with an aggregation rule are kept up to date too (a controller's work upstream).
    pub async fn start(
        self: &Arc<Self>,
        registry: &Arc<Registry>,
        now: jiff::Timestamp,
        aggregate: bool,
    ) -> ApiResult<()> {
        bootstrap(registry, now).await?;
        for resource in RESOURCES {
            let Some(row) = registry.kinds().resource(GROUP, "v1", resource) else {
                continue;
            };
            let from = self.load(registry, &row, now).await?;
            let follower = Follower {
                rbac: Arc::downgrade(self),
                registry: Arc::clone(registry),
                row,
                aggregates: aggregate && resource == "clusterroles",
            };
            self.tasks.lock().push(tokio::spawn(follower.run(from)));
        }
        Ok(())
    }

    /// Takes in all objects of a kind; the revision that they are as of.
    async fn load(
        &self,
        registry: &Registry,
        row: &Arc<Row>,
        now: jiff::Timestamp,
    ) -> ApiResult<u64> {
        let ctx = Context::new(Arc::default(), now);
        let all = Target::new(row, "", "");
        let list = registry.list(&ctx, &all, &ListOptions::default()).await?;
        for stored in &list.items {
            let object = stored.to_value().map_err(ApiError::internal)?;
            self.take(row, &object, true);
        }
        Ok(list.revision)
    }

    fn take(&self, row: &Row, object: &Value, there: bool) {
        let (namespace, name) = (meta::namespace(object), meta::name(object));
        let object = there.then_some(object);
        let mut index = self.index.write();
        if row.resource.ends_with("bindings") {
            index.set_binding(namespace, name, object);
        } else {
            index.set_role(namespace, name, object);
        }
    }
}

/// Brings the index up with one kind.
struct Follower {
    rbac: Weak<Rbac>,
    registry: Arc<Registry>,
    row: Arc<Row>,
    aggregates: bool,
}

impl Follower {
    async fn run(self, mut from: u64) {
        loop {
            if self.aggregates {
                self.aggregate().await;
            }
            let Err(error) = self.follow(&mut from).await;
            if error.reason == Reason::ServiceUnavailable {
                return;
            }
            tracing::warn!(resource = self.row.resource, %error, "watching roles ended, starting over");
            tokio::time::sleep(PAUSE).await;
            let Some(rbac) = self.rbac.upgrade() else {
                return;
            };
            if let Ok(revision) = rbac.load(&self.registry, &self.row, now()).await {
                from = revision;
            }
        }
    }

    async fn follow(&self, from: &mut u64) -> Result<std::convert::Infallible, ApiError> {
        let options = WatchOptions {
            resource_version: from.to_string(),
            send_initial_events: Some(false),
            ..WatchOptions::default()
        };
        let all = Target::new(&self.row, "", "");
        let ctx = Context::new(Arc::default(), now());
        let mut events = self.registry.watch(&ctx, &all, &options).await?;
        loop {
            for item in events.next_batch().await? {
                *from = item.object.revision;
                self.take(&item)?;
            }
            if self.aggregates {
                self.aggregate().await;
            }
        }
    }

    fn take(&self, item: &WatchItem) -> ApiResult<()> {
        let there = match item.kind {
            EventType::Added | EventType::Modified => true,
            EventType::Deleted => false,
            EventType::Bookmark { .. } => return Ok(()),
        };
        let object = item.object.to_value().map_err(ApiError::internal)?;
        if let Some(rbac) = self.rbac.upgrade() {
            rbac.take(&self.row, &object, there);
        }
        Ok(())
    }

    /// Writes the rules of cluster roles with an aggregation rule, where they are not what they must be.
    async fn aggregate(&self) {
        let ctx = context(
            oarlock_auth::account_user("kube-system", AGGREGATOR),
            AGGREGATOR,
        );
        let all = Target::new(&self.row, "", "");
        let listed = self
            .registry
            .list(&ctx, &all, &ListOptions::default())
            .await;
        let roles: Vec<Value> = listed
            .iter()
            .flat_map(|list| &list.items)
            .filter_map(|stored| stored.to_value().ok())
            .collect();
        for role in &roles {
            let Some(rules) = aggregate::rules(role, roles.iter()) else {
                continue;
            };
            if role.get("rules").and_then(Value::as_array) == Some(&rules)
                || (rules.is_empty() && role.get("rules").is_none_or(Value::is_null))
            {
                continue;
            }
            let mut wanted = role.clone();
            wanted["rules"] = Value::Array(rules);
            let target = Target::new(&self.row, "", meta::name(role));
            // A conflict means another change of the role, and so another event.
            if let Err(error) = self
                .registry
                .update(&ctx, &target, Body::Value(wanted))
                .await
                && error.reason != Reason::Conflict
            {
                tracing::warn!(role = meta::name(role), %error, "cannot aggregate a role");
            }
        }
    }
}

/// Edge: the aggregator's writes have a time.
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A part of the server that writes under its own name.
fn context(user: String, manager: &str) -> Context {
    let user = User {
        name: user,
        groups: vec![oarlock_auth::MASTERS.to_owned()],
        ..User::default()
    };
    let mut ctx = Context::new(Arc::new(user), now());
    manager.clone_into(&mut ctx.field_manager);
    ctx
}

/// Makes what is missing of the default roles and bindings, and gives back what was taken from them.
async fn bootstrap(registry: &Registry, now: jiff::Timestamp) -> ApiResult<()> {
    let mut ctx = context("system:apiserver".to_owned(), "kube-apiserver");
    ctx.now = now;
    let all = defaults::all();
    // Issued together, so that they share commits.
    let each = all.iter().map(|default| reconcile(registry, &ctx, default));
    futures::future::try_join_all(each).await.map(drop)
}

async fn reconcile(
    registry: &Registry,
    ctx: &Context,
    default: &defaults::Default,
) -> ApiResult<()> {
    let Some(row) = registry.kinds().resource(GROUP, "v1", default.resource) else {
        return Ok(());
    };
    let name = meta::name(&default.object);
    let target = Target::new(&row, default.namespace, name);
    match registry.get(ctx, &target, "").await {
        Ok(found) => {
            let found = found.to_value().map_err(ApiError::internal)?;
            let Some(object) = defaults::completed(&found, &default.object) else {
                return Ok(());
            };
            registry.update(ctx, &target, Body::Value(object)).await?;
        }
        Err(error) if error.reason == Reason::NotFound => {
            let place = Target::new(&row, default.namespace, "");
            let made = registry
                .create(ctx, &place, Body::Value(default.object.clone()))
                .await;
            match made {
                Err(error) if error.reason != Reason::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
