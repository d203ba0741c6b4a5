//! Kinds that a CustomResourceDefinition makes: a row for each version that is served, and what its schema does to an object
//! on the way in and out. (Rules of the definition itself are in `rules::definition`.)
//!
//! Cost: a write prunes, defaults and checks by walking the schema. A read is parsed only if the definition has changed since
//! objects may have been stored, or has several versions; otherwise stored text goes out as it is.

mod check;
mod columns;
pub mod jsonpath;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_cel::rules::Rules;
use oarlock_model::{Cause, meta};
use oarlock_schema::structural::{Node, drop_nulls, fill_defaults, prune_unknown};
use oarlock_schema::{DecodeError, SchemaRef, decode_value};
use serde_json::{Value, json};

pub use columns::PrinterColumn;
pub use rows::{SCALE_KIND, fingerprint, has_condition, is_served, rows};

use crate::Row;
use crate::facts::facts;

/// Paths of a `scale` subresource, without their leading dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    pub label_selector: Option<Vec<String>>,
}

/// What a row of a CustomResourceDefinition has beyond other rows.
#[derive(Debug)]
pub struct Custom {
    pub group: String,
    /// The version of this row.
    pub version: String,
    pub kind: String,
    pub storage_version: String,
    /// The schema of this version.
    pub node: Arc<Node>,
    /// The schema's rules in CEL.
    pub rules: Arc<Rules>,
    /// The schemas of all versions, as the document had them.
    pub nodes: Arc<BTreeMap<String, Arc<Node>>>,
    /// `openAPIV3Schema` of this version, for OpenAPI.
    pub document: Value,
    pub columns: Vec<PrinterColumn>,
    pub scale: Option<ScalePaths>,
    /// What users of a deprecated version are told.
    pub deprecation: Option<String>,
    pub status_subresource: bool,
    /// What the rows were made of: the same fingerprint, the same rows.
    pub fingerprint: String,
    /// On its way out: nothing new is made.
    pub terminating: bool,
    /// `spec.conversion.webhook`: a server outside turns versions into each other.
    pub webhook: Option<Arc<Value>>,
    /// Stored text is what is shown.
    pub verbatim: bool,
}

/// The schema of an object's metadata.
pub fn metadata_schema() -> SchemaRef {
    let definition = facts().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    definition.map_or_else(SchemaRef::any, |d| d.schema.clone())
}

impl Custom {
    fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }

    /// A decoded body, fitted to the schema: metadata read as metadata, unknown fields dropped (their paths are returned),
    /// nulls that mean nothing dropped. An error is told as it stands.
    pub fn fit(&self, object: &mut Value) -> Result<Vec<String>, String> {
        let mut unknown = fit_metadata(object, "")?;
        let of_this = meta::kind(object) == self.kind;
        let version = meta::api_version(object)
            .strip_prefix(self.group.as_str())
            .and_then(|v| v.strip_prefix('/'));
        if let (true, Some(node)) = (of_this, version.and_then(|v| self.nodes.get(v))) {
            unknown.extend(prune_unknown(node, object));
            drop_nulls(node, object);
            let mut below = Vec::new();
            fit_embedded(node, object, "", &mut below)?;
            below.sort();
            unknown.extend(below);
        }
        Ok(unknown)
    }

    pub fn fill_defaults(&self, object: &mut Value) {
        if meta::kind(object) == self.kind {
            fill_defaults(&self.node, object);
        }
    }

    /// From the stored form: fitted to the schema of today, with its defaults, in this version.
    pub fn read(&self, object: &mut Value) {
        if self.verbatim {
            return;
        }
        let stored = self.fit_stored(object);
        self.turn_into(object, &stored, &self.version);
    }

    /// Fits an object as it is stored to the schema of its version, which is returned.
    pub fn fit_stored(&self, object: &mut Value) -> String {
        let stored = meta::api_version(object).rsplit('/').next();
        let stored = stored.unwrap_or_default().to_owned();
        if let Some(node) = self.nodes.get(&stored) {
            prune_unknown(node, object);
            drop_nulls(node, object);
            fill_defaults(node, object);
        }
        stored
    }

    /// Drops what a version does not know.
    pub fn fit_version(&self, object: &mut Value, version: &str) {
        if let Some(node) = self.nodes.get(version) {
            prune_unknown(node, object);
            drop_nulls(node, object);
        }
    }

    /// Into the stored form.
    pub fn write(&self, object: &mut Value) {
        self.turn_into(object, &self.version, &self.storage_version);
    }

    /// Strategy `None` (webhooks are asked by the registry): only apiVersion changes, and what the other version does not know goes.
    fn turn_into(&self, object: &mut Value, from: &str, to: &str) {
        if from == to {
            return;
        }
        let api_version = self.api_version(to);
        meta::as_map_mut(object).insert("apiVersion".to_owned(), Value::String(api_version));
        self.fit_version(object, to);
    }

    /// What is wrong with an object. `subresource`: what it is written through.
    pub fn validate(&self, new: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        check::check(self, new, old, subresource)
    }

    pub fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        check::warnings(self, new, old)
    }

    /// Whether the two differ in what `metadata.generation` counts.
    pub fn generation_changed(&self, new: &Value, old: &Value) -> bool {
        let rest = |object: &Value| -> BTreeMap<String, Value> {
            let fields = object.as_object().into_iter().flatten();
            let counted = fields.filter(|(name, _)| {
                *name != "metadata" && (*name != "status" || !self.status_subresource)
            });
            counted
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        rest(new) != rest(old)
    }
}

/// Reads `metadata` of an object as metadata; the paths of its unknown fields.
fn fit_metadata(object: &mut Value, path: &str) -> Result<Vec<String>, String> {
    let Some(metadata) = object.get("metadata") else {
        return Ok(Vec::new());
    };
    let decoded = decode_value(&metadata_schema(), metadata).map_err(|e| match e {
        DecodeError::Syntax(text) | DecodeError::Type(text) => text,
    })?;
    let prefix = if path.is_empty() {
        "metadata".to_owned()
    } else {
        format!("{path}.metadata")
    };
    let unknown = decoded.strict.iter().map(|text| {
        let name = text.split('"').nth(1).unwrap_or_default();
        format!("{prefix}.{name}")
    });
    let unknown = unknown.collect();
    let value = if decoded.value.is_null() {
        json!({})
    } else {
        decoded.value
    };
    meta::as_map_mut(object).insert("metadata".to_owned(), value);
    Ok(unknown)
}

/// The same for objects inside the object.
fn fit_embedded(
    node: &Node,
    value: &mut Value,
    path: &str,
    unknown: &mut Vec<String>,
) -> Result<(), String> {
    match value {
        Value::Object(_) => {
            if node.embedded_resource {
                for field in ["apiVersion", "kind"] {
                    if let Some(odd) = value.get(field).filter(|v| !v.is_string()) {
                        return Err(format!(
                            "{path}.{field}: Invalid value: {odd}: must be a string"
                        ));
                    }
                }
                let shown = value
                    .get("metadata")
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let told = fit_metadata(value, path)
                    .map_err(|why| format!("{path}.metadata: Invalid value: {shown}: {why}"))?;
                unknown.extend(told);
            }
            for (name, field) in value.as_object_mut().into_iter().flatten() {
                if let Some(below) = node.field(name) {
                    let named = node.properties.contains_key(name);
                    let at = match (named, path.is_empty()) {
                        (_, true) => name.clone(),
                        (true, false) => format!("{path}.{name}"),
                        (false, false) => format!("{path}[{name}]"),
                    };
                    fit_embedded(below, field, &at, unknown)?;
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &node.items {
                for (at, item) in items.iter_mut().enumerate() {
                    fit_embedded(of, item, &format!("{path}[{at}]"), unknown)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

impl Row {
    /// Whether the stored form is another than the shown one.
    pub fn converts(&self) -> bool {
        self.conversion.is_some() || self.custom.as_ref().is_some_and(|c| !c.verbatim)
    }

    /// Turns the stored form into this row's.
    pub fn show(&self, object: &mut Value) {
        if let Some(conversion) = &self.conversion {
            (conversion.from_stored)(object);
        } else if let Some(custom) = &self.custom {
            custom.read(object);
        }
    }

    /// Turns this row's form into the stored one.
    pub fn store(&self, object: &mut Value) {
        if let Some(conversion) = &self.conversion {
            (conversion.to_stored)(object);
        } else if let Some(custom) = &self.custom {
            custom.write(object);
        }
    }
}

#[cfg(test)]
mod tests;
