//! What a caller says and gets: contexts, options, targets and stored objects.

use std::sync::Arc;

use bytes::Bytes;
use oarlock_kinds::Row;
use oarlock_model::{FieldSelector, LabelSelector};
use oarlock_store::Revision;
use serde_json::Value;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// The node that this user is; empty: one that does not say which.
    pub fn node(&self) -> Option<&str> {
        let node = self.name.strip_prefix("system:node:")?;
        self.groups
            .iter()
            .any(|group| group == "system:nodes")
            .then_some(node)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What holds for one request, whatever its verb. `now` is read once at the edge.
#[derive(Clone, Debug)]
pub struct Context {
    pub user: Arc<User>,
    pub now: jiff::Timestamp,
    /// The field manager of this write, already defaulted from the user agent.
    pub field_manager: String,
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Texts for `Warning` headers, gathered on the way.
    pub warnings: Arc<parking_lot::Mutex<Vec<String>>>,
    /// Takes annotations for the audit of the request, if it is audited.
    pub trail: Option<Arc<crate::Trail>>,
}

impl Context {
    /// A context without field manager or special options.
    pub fn new(user: Arc<User>, now: jiff::Timestamp) -> Self {
        Self {
            user,
            now,
            field_manager: String::new(),
            dry_run: false,
            field_validation: FieldValidation::default(),
            warnings: Arc::default(),
            trail: None,
        }
    }

    pub fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }
}

/// What a write carries: JSON text as it came (so that duplicate keys are seen), or a tree.
#[derive(Clone, Debug)]
pub enum Body {
    Json(Bytes),
    Value(Value),
}

/// What is addressed: a kind, a namespace (empty for cluster-scoped kinds, and for all namespaces in lists), a name
/// (empty for collections), a subresource (empty for the object itself).
#[derive(Clone, Debug)]
pub struct Target {
    pub row: Arc<Row>,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
}

impl Target {
    pub fn new(row: &Arc<Row>, namespace: &str, name: &str) -> Self {
        Self {
            row: Arc::clone(row),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: String::new(),
        }
    }

    pub fn sub(row: &Arc<Row>, namespace: &str, name: &str, subresource: &str) -> Self {
        Self {
            subresource: subresource.to_owned(),
            ..Self::new(row, namespace, name)
        }
    }
}

/// A stored object: canonical JSON without `metadata.resourceVersion`, and where to put it in.
/// Reading it as a tree costs a parse; writing it out costs a copy.
#[derive(Clone, Debug)]
pub struct Stored {
    pub json: Bytes,
    /// Byte offset just behind `"metadata":{`, where `"resourceVersion":"N",` belongs.
    pub hole: usize,
    /// 0: there is none yet (a dry-run create); then no resourceVersion is written.
    pub revision: Revision,
}

impl Stored {
    /// The complete JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.json.len() + 48);
        self.write_json(&mut out);
        out
    }

    pub fn write_json(&self, out: &mut Vec<u8>) {
        if self.revision == 0 {
            out.extend_from_slice(&self.json);
            return;
        }
        let (head, tail) = self.json.split_at(self.hole);
        out.extend_from_slice(head);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(self.revision.to_string().as_bytes());
        out.extend_from_slice(if tail.first() == Some(&b'}') {
            b"\""
        } else {
            b"\","
        });
        out.extend_from_slice(tail);
    }

    /// The tree, with resourceVersion.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut value: Value = oarlock_model::deep::from_stored(&self.json)?;
        if self.revision != 0 {
            oarlock_model::meta::set(&mut value, "resourceVersion", self.revision.to_string());
        }
        Ok(value)
    }
}

/// What an update, a patch or an apply answers.
#[derive(Clone, Debug)]
pub struct Written {
    pub object: Stored,
    /// True if the write made the object (201).
    pub created: bool,
}

/// A pod to be bound to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindRequest {
    pub namespace: String,
    pub name: String,
    /// The pod must still have this uid; empty: any.
    pub uid: String,
    pub node: String,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    NotOlderThan,
    Exact,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// 0: no limit.
    pub limit: usize,
    /// A continue token; empty: none.
    pub continue_token: String,
    /// Empty, `0` or a revision.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
}

#[derive(Clone, Debug)]
pub struct List {
    pub items: Vec<Stored>,
    pub revision: Revision,
    /// Empty: this was the last page.
    pub continue_token: String,
    pub remaining: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    /// Empty, `0` or a revision.
    pub resource_version: String,
    pub version_match: Option<VersionMatch>,
    pub send_initial_events: Option<bool>,
    pub bookmarks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    /// `initial_end`: carries the annotation `k8s.io/initial-events-end`.
    Bookmark {
        initial_end: bool,
    },
}

/// One event as a watcher sees it (selectors applied). For a bookmark `object` has only the revision.
#[derive(Clone, Debug)]
pub struct WatchItem {
    pub kind: EventType,
    pub object: Stored,
    /// The store's event, for its memo of encodings, when this item is exactly that event (no selector turned it).
    pub event: Option<Arc<oarlock_store::Event>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply { force: bool },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// `Orphan`, `Background` or `Foreground`; `None`: the kind's default.
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub precondition_uid: Option<String>,
    pub precondition_resource_version: Option<String>,
}

/// What a delete answers: the object that is still there (finalizers, grace), or the one that is gone.
#[derive(Clone, Debug)]
pub enum Deleted {
    Pending(Stored),
    Gone(Stored),
}
