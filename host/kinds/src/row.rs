//! One kind: everything that the generic rooms need to serve it. Plain data and function pointers.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use jiff::Timestamp;
use oarlock_model::{Cause, GroupVersion, Gvk, Gvr};
use oarlock_schema::SchemaRef;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::custom::Custom;

/// A rule's warning or printed cell may need the time; rules never read a clock.
pub type ValidateFn = fn(new: &Value, old: Option<&Value>) -> Vec<Cause>;

/// The few things in which kinds differ in code. Every hook defaults to doing nothing.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// Fills in defaults that depend on more than the schema. Idempotent; runs after generic defaulting.
    pub default: fn(&mut Value),
    /// Before a create: drops what a caller may not set (status, when there is a status subresource, is dropped generically).
    pub prepare_create: fn(&mut Value),
    /// Before an update: keeps or drops fields by the old object.
    pub prepare_update: fn(new: &mut Value, old: &Value),
    pub validate: ValidateFn,
    /// After validation: what upstream fills in when it reads the object back.
    pub settle: fn(&mut Value),
    /// Texts for `Warning` headers on a create or an update.
    pub warn: fn(new: &Value, old: Option<&Value>) -> Vec<String>,
    /// What `metadata.generation` counts, if not "everything but metadata and status": true if the two differ in it.
    pub generation_changed: Option<fn(new: &Value, old: &Value) -> bool>,
    /// Seconds of grace of a delete that names none. `None`: the object goes at once.
    pub grace_seconds: fn(&Value) -> Option<i64>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            default: |_| {},
            prepare_create: |_| {},
            prepare_update: |_, _| {},
            validate: |_, _| Vec::new(),
            settle: |_| {},
            warn: |_, _| Vec::new(),
            generation_changed: None,
            grace_seconds: |_| None,
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooks")
    }
}

/// One column of a Table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub ty: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0: always shown; more: only with `-o wide`.
    pub priority: i32,
}

/// How a kind is printed as a Table.
#[derive(Clone)]
pub struct Columns {
    pub columns: Vec<Column>,
    /// One cell a column, of the object and the time now.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Default for Columns {
    fn default() -> Self {
        crate::columns::default_columns()
    }
}

impl fmt::Debug for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Columns").field(&self.columns).finish()
    }
}

/// What lies below an object: `pods/status`, `pods/binding`, `deployments/scale`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `binding`, `eviction`, `ephemeralcontainers`, `resize`, `token`, `approval`, `finalize`, `log`,
    /// `exec`, `attach`, `portforward`, `proxy`.
    pub name: String,
    /// The kind that bodies have; group and version are empty where discovery leaves them out (same as the row's).
    pub kind: Gvk,
    pub verbs: Vec<String>,
}

/// Turns an object of a row into the form of its `storage_kind` (apiVersion and kind included), and back.
#[derive(Clone, Copy)]
pub struct Conversion {
    pub to_stored: fn(&mut Value),
    pub from_stored: fn(&mut Value),
}

impl fmt::Debug for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conversion")
    }
}

/// What a delete that says nothing does to the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Propagation {
    #[default]
    Background,
    /// ReplicationController; Jobs of batch/v1 are Background too.
    Orphan,
}

/// One kind.
#[derive(Clone, Debug)]
pub struct Row {
    pub group: String,
    /// The served and stored version.
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    /// Plural, lower case: `deployments`.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// As discovery lists them: `create delete deletecollection get list patch update watch`.
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    /// `status` is written through its own subresource only.
    pub status_subresource: bool,
    /// Objects are kept. False for reviews (`tokenreviews`): a create answers and leaves nothing.
    pub stored: bool,
    /// `metadata.generation` is counted.
    pub generation: bool,
    /// First part of the storage key: `pods`, `deployments.apps`. Two rows of one storage (`events`) share it.
    pub storage_prefix: String,
    /// The kind that objects are stored as; this row's own but for rows with a `conversion`.
    pub storage_kind: Gvk,
    /// Between this row's form and the stored one. `None`: they are the same.
    pub conversion: Option<Conversion>,
    pub schema: SchemaRef,
    /// Field paths that a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<String>,
    pub default_propagation: Propagation,
    pub columns: Columns,
    pub hooks: Hooks,
    /// Of a row that a CustomResourceDefinition has made.
    pub custom: Option<Arc<Custom>>,
}

impl Row {
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.group.clone(), self.version.clone(), self.kind.clone())
    }

    pub fn gvr(&self) -> Gvr {
        Gvr::new(
            self.group.clone(),
            self.version.clone(),
            self.resource.clone(),
        )
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group.clone(), self.version.clone())
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `deployments.apps`, as error texts write it.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// As discovery shows it: of the stored kind, eight bytes of SHA-256 in base64.
    pub fn storage_version_hash(&self) -> String {
        let Gvk {
            group,
            version,
            kind,
        } = &self.storage_kind;
        let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
        base64::engine::general_purpose::STANDARD.encode(&digest[..8])
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The text that a field selector on `path` compares with; absent reads as empty.
    pub fn selectable_value(object: &Value, path: &str) -> String {
        let mut at = object;
        for part in path.split('.') {
            match at.get(part) {
                Some(below) => at = below,
                None => return String::new(),
            }
        }
        match at {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => at.to_string(),
            _ => String::new(),
        }
    }
}
