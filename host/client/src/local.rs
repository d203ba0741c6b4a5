//! `LocalCluster`: the cluster in this process. No HTTP and no text: a change is parsed once for all who watch it.
//!
//! Cost over the registry's own: nothing for a binding, a parse (15 µs for a pod) for an object that is handed back and
//! that nobody in the process holds, a hash look-up where somebody does.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use oarlock_kinds::Row;
use oarlock_model::{ApiError, ApiResult, FieldSelector, Gvr, LabelSelector, Reason, meta};
use oarlock_registry::{
    BindRequest, Body, Context, EventType, ListOptions, PatchKind, Registry, Stored, Target, User,
    WatchItem, WatchOptions, WatchStream,
};
use serde_json::Value;

use crate::{
    Binding, Cluster, DeleteOptions, Key, ListQuery, ListResult, Object, Patch, Propagation,
    WatchEvent,
};

#[derive(Clone, Debug)]
pub struct LocalCluster {
    pub registry: Arc<Registry>,
    pub user: Arc<User>,
    field_manager: String,
}

impl LocalCluster {
    /// `component` names the caller (`kube-scheduler`): field manager and user `system:COMPONENT`.
    pub fn new(registry: Arc<Registry>, component: &str) -> Self {
        let user = User {
            name: format!("system:{component}"),
            groups: vec![
                "system:masters".to_owned(),
                "system:authenticated".to_owned(),
            ],
            ..User::default()
        };
        Self {
            registry,
            user: Arc::new(user),
            field_manager: component.to_owned(),
        }
    }

    fn context(&self) -> Context {
        let mut ctx = Context::new(Arc::clone(&self.user), jiff::Timestamp::now());
        self.field_manager.clone_into(&mut ctx.field_manager);
        // Components of this process send what they have read; what they do not know they must not drop loudly.
        ctx.field_validation = oarlock_registry::FieldValidation::Ignore;
        ctx
    }

    fn row(&self, kind: &Gvr) -> ApiResult<Arc<Row>> {
        self.registry.kinds().by_resource(kind).ok_or_else(|| {
            ApiError::new(
                Reason::NotFound,
                format!("the server could not find the requested resource: {kind}"),
            )
        })
    }

    fn target(&self, kind: &Gvr, key: &Key, subresource: &str) -> ApiResult<Target> {
        Ok(Target::sub(
            &self.row(kind)?,
            &key.namespace,
            &key.name,
            subresource,
        ))
    }

    fn tree(&self, row: &Row, stored: &Stored) -> ApiResult<Object> {
        self.registry.tree(&row.storage_prefix, stored)
    }

    /// What a write answers; a Scale is nobody else's and not shared.
    fn answer(&self, target: &Target, stored: &Stored) -> ApiResult<Object> {
        if target.subresource == "scale" {
            return stored.to_value().map(Arc::new).map_err(ApiError::internal);
        }
        self.tree(&target.row, stored)
    }
}

fn selectors(query: &ListQuery) -> ApiResult<(LabelSelector, FieldSelector)> {
    let labels = LabelSelector::parse(&query.labels).map_err(|e| ApiError::bad_request(e.0))?;
    let fields = FieldSelector::parse(&query.fields).map_err(|e| ApiError::bad_request(e.0))?;
    Ok((labels, fields))
}

#[async_trait]
impl Cluster for LocalCluster {
    async fn get(&self, kind: &Gvr, key: &Key) -> ApiResult<Object> {
        let target = self.target(kind, key, "")?;
        let stored = self.registry.get(&self.context(), &target, "").await?;
        self.tree(&target.row, &stored)
    }

    async fn list(&self, kind: &Gvr, query: &ListQuery) -> ApiResult<ListResult> {
        let row = self.row(kind)?;
        let target = Target::new(&row, query.namespace.as_deref().unwrap_or_default(), "");
        let (labels, fields) = selectors(query)?;
        let options = ListOptions {
            labels,
            fields,
            ..ListOptions::default()
        };
        let list = self
            .registry
            .list(&self.context(), &target, &options)
            .await?;
        let items = list
            .items
            .iter()
            .map(|stored| self.tree(&row, stored))
            .collect::<ApiResult<_>>()?;
        Ok(ListResult {
            items,
            revision: list.revision,
        })
    }

    async fn watch(
        &self,
        kind: &Gvr,
        query: &ListQuery,
        revision: u64,
    ) -> ApiResult<BoxStream<'static, Result<WatchEvent, ApiError>>> {
        let row = self.row(kind)?;
        let target = Target::new(&row, query.namespace.as_deref().unwrap_or_default(), "");
        let (labels, fields) = selectors(query)?;
        let options = WatchOptions {
            labels,
            fields,
            resource_version: revision.to_string(),
            send_initial_events: Some(false),
            bookmarks: true,
            ..WatchOptions::default()
        };
        let events = self
            .registry
            .watch(&self.context(), &target, &options)
            .await?;
        let reader = Reader {
            registry: Arc::clone(&self.registry),
            row,
            events,
            waiting: VecDeque::new(),
        };
        Ok(Box::pin(stream::try_unfold(reader, Reader::next)))
    }

    async fn create(&self, kind: &Gvr, namespace: &str, object: Value) -> ApiResult<Object> {
        let target = Target::new(&self.row(kind)?, namespace, "");
        let stored = self
            .registry
            .create(&self.context(), &target, Body::Value(object))
            .await?;
        self.tree(&target.row, &stored)
    }

    async fn update(&self, kind: &Gvr, subresource: &str, object: Value) -> ApiResult<Object> {
        let key = Key {
            namespace: meta::namespace(&object).to_owned(),
            name: meta::name(&object).to_owned(),
        };
        let target = self.target(kind, &key, subresource)?;
        let written = self
            .registry
            .update(&self.context(), &target, Body::Value(object))
            .await?;
        self.answer(&target, &written.object)
    }

    async fn patch(
        &self,
        kind: &Gvr,
        key: &Key,
        subresource: &str,
        patch: Patch,
    ) -> ApiResult<Object> {
        let target = self.target(kind, key, subresource)?;
        let mut ctx = self.context();
        let (kind, patch) = match patch {
            Patch::Json(patch) => (PatchKind::Json, patch),
            Patch::Merge(patch) => (PatchKind::Merge, patch),
            Patch::Strategic(patch) => (PatchKind::Strategic, patch),
            Patch::Apply {
                body,
                manager,
                force,
            } => {
                ctx.field_manager = manager;
                (PatchKind::Apply { force }, body)
            }
        };
        let written = self
            .registry
            .patch_value(&ctx, &target, &kind, &patch)
            .await?;
        self.answer(&target, &written.object)
    }

    async fn delete(&self, kind: &Gvr, key: &Key, options: DeleteOptions) -> ApiResult<()> {
        let target = self.target(kind, key, "")?;
        let some = |text: String| (!text.is_empty()).then_some(text);
        let options = oarlock_registry::DeleteOptions {
            grace_period_seconds: options.grace_period_seconds,
            propagation_policy: options.propagation.map(|policy| {
                match policy {
                    Propagation::Orphan => "Orphan",
                    Propagation::Background => "Background",
                    Propagation::Foreground => "Foreground",
                }
                .to_owned()
            }),
            orphan_dependents: None,
            precondition_uid: some(options.uid),
            precondition_resource_version: some(options.resource_version),
        };
        self.registry
            .delete(&self.context(), &target, &options)
            .await
            .map(drop)
    }

    async fn create_sub(
        &self,
        kind: &Gvr,
        key: &Key,
        subresource: &str,
        object: Value,
    ) -> ApiResult<Value> {
        let target = self.target(kind, key, subresource)?;
        self.registry
            .create_sub(&self.context(), &target, Body::Value(object))
            .await
    }

    async fn bind(&self, bindings: Vec<Binding>) -> Vec<ApiResult<()>> {
        let requests: Vec<BindRequest> = bindings
            .into_iter()
            .map(|b| BindRequest {
                namespace: b.pod.namespace,
                name: b.pod.name,
                uid: b.uid,
                node: b.node,
            })
            .collect();
        self.registry
            .bind_many(&self.context(), &requests)
            .await
            .into_iter()
            .map(|r| r.map(drop))
            .collect()
    }

    async fn patch_statuses(
        &self,
        kind: &Gvr,
        patches: Vec<(Key, Value)>,
    ) -> Vec<ApiResult<Object>> {
        let row = match self.row(kind) {
            Ok(row) => row,
            Err(error) => return patches.iter().map(|_| Err(error.clone())).collect(),
        };
        let targets = patches
            .into_iter()
            .map(|(key, patch)| {
                (
                    Target::sub(&row, &key.namespace, &key.name, "status"),
                    patch,
                )
            })
            .collect();
        let results = self
            .registry
            .patch_status_many(&self.context(), targets)
            .await;
        results
            .into_iter()
            .map(|stored| self.tree(&row, &stored?))
            .collect()
    }

    fn as_user(&self, user: &str) -> Arc<dyn Cluster> {
        let manager = user.rsplit(':').next().unwrap_or(user);
        Arc::new(Self {
            registry: Arc::clone(&self.registry),
            user: Arc::new(User {
                name: user.to_owned(),
                groups: vec!["system:authenticated".to_owned()],
                ..User::default()
            }),
            field_manager: manager.to_owned(),
        })
    }
}

/// A registry's watch as a stream of events.
struct Reader {
    registry: Arc<Registry>,
    row: Arc<Row>,
    events: WatchStream,
    waiting: VecDeque<WatchItem>,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(WatchEvent, Self)>, ApiError> {
        loop {
            if let Some(item) = self.waiting.pop_front() {
                let event = self.event(&item)?;
                return Ok(Some((event, self)));
            }
            self.waiting = self.events.next_batch().await?.into();
        }
    }

    fn event(&self, item: &WatchItem) -> ApiResult<WatchEvent> {
        let tree = || self.registry.tree_of_event(&self.row.storage_prefix, item);
        Ok(match item.kind {
            EventType::Added => WatchEvent::Added(tree()?),
            EventType::Modified => WatchEvent::Modified(tree()?),
            EventType::Deleted => WatchEvent::Deleted(tree()?),
            EventType::Bookmark { .. } => WatchEvent::Bookmark(item.object.revision),
        })
    }
}
