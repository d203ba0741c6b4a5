//! OpenAPI of the table: v3 documents by group and version, and the one v2 document. Made when asked for, kept by the
//! caller; descriptions are unpacked for the time of the making only.

mod custom;
mod descriptions;
mod paths;
mod schemas;

use std::collections::BTreeMap;

use oarlock_model::GroupVersion;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{Kinds, Row};
pub use custom::definition_name;
use descriptions::Descriptions;
use schemas::Schemas;

/// The version of Kubernetes whose API this is.
pub const KUBERNETES_VERSION: &str = "v1.37.0";

/// The two forms differ in where schemas live and how bodies and parameters are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, definition: &str) -> Value {
        let folder = match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        };
        json!({ "$ref": format!("{folder}{definition}") })
    }
}

/// `/api/v1` or `/apis/apps/v1`.
fn root_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

/// What `/openapi/v3` answers: where each group version's document is, with a hash of its content.
pub fn v3_index(kinds: &Kinds) -> Value {
    let mut paths = Map::new();
    for GroupVersion { group, version } in kinds.group_versions() {
        let root = root_path(&group, &version);
        let url = format!(
            "/openapi/v3{root}?hash={}",
            v3_hash(kinds, &group, &version)
        );
        paths.insert(
            root.trim_start_matches('/').to_owned(),
            json!({ "serverRelativeURL": url }),
        );
    }
    json!({ "paths": paths })
}

/// Changes when the document of a group version does: for its `ETag` and the `hash` parameter. Upper-case hex.
pub fn v3_hash(kinds: &Kinds, group: &str, version: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(crate::facts::digest());
    for row in rows(kinds, group, version) {
        hash.update(format!(
            "{} {} {:?} {:?}\n",
            row.resource, row.kind, row.verbs, row.subresources
        ));
        if let Some(custom) = &row.custom {
            hash.update(custom.document.to_string());
        } else if crate::facts::facts()
            .definition(&row.schema.definition)
            .is_none()
        {
            hash.update(schemas::node(Dialect::V3, &row.schema).to_string());
        }
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

fn rows<'k>(kinds: &'k Kinds, group: &'k str, version: &'k str) -> impl Iterator<Item = &'k Row> {
    kinds
        .rows()
        .iter()
        .map(|row| &**row)
        .filter(move |row| row.group == group && row.version == version)
}

/// What `/openapi/v3/apis/GROUP/VERSION` answers; `None` if no kind of that group version is served.
pub fn v3_document(kinds: &Kinds, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Row> = rows(kinds, group, version).collect();
    if rows.is_empty() {
        return None;
    }
    let mut schemas = Schemas::new(Dialect::V3, Descriptions::load());
    rows.iter()
        .for_each(|row| custom::add(&mut schemas, Dialect::V3, row));
    let paths = paths::of_rows(Dialect::V3, &rows, &mut schemas);
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": { "schemas": schemas.into_definitions() },
    }))
}

/// What `/openapi/v2` answers in JSON.
pub fn v2_document(kinds: &Kinds) -> Value {
    let mut schemas = Schemas::new(Dialect::V2, Descriptions::load());
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for GroupVersion { group, version } in kinds.group_versions() {
        let rows: Vec<&Row> = rows(kinds, &group, &version).collect();
        rows.iter()
            .for_each(|row| custom::add(&mut schemas, Dialect::V2, row));
        paths.extend(paths::of_rows(Dialect::V2, &rows, &mut schemas));
    }
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": schemas.into_definitions(),
    })
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": KUBERNETES_VERSION })
}

#[cfg(test)]
mod tests;
