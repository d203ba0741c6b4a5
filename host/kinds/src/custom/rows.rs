//! From a CustomResourceDefinition to the rows that it makes.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use oarlock_cel::rules::Rules;
use oarlock_model::{Gvk, meta};
use oarlock_schema::Schema;
use oarlock_schema::structural::Node;
use serde_json::Value;

use super::{Custom, PrinterColumn, ScalePaths, columns, metadata_schema};
use crate::builtin::{storage_prefix, verbs};
use crate::row::Hooks;
use crate::{Columns, Propagation, Row, Subresource};

/// The kind of `scale` bodies: group, version, kind.
pub const SCALE_KIND: (&str, &str, &str) = ("autoscaling", "v1", "Scale");
/// As discovery lists the verbs of custom resources; and of those that are on their way out.
const VERBS: &str = "dDglpcuw";
const LAST_VERBS: &str = "dDglw";

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn flag(value: &Value, field: &str) -> bool {
    value.get(field).and_then(Value::as_bool) == Some(true)
}

/// Whether a condition of the definition's status is `True`.
pub fn has_condition(definition: &Value, name: &str) -> bool {
    let conditions = definition
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|c| text(c, "type") == name && text(c, "status") == "True")
}

/// Whether the definition's kinds are served.
pub fn is_served(definition: &Value) -> bool {
    has_condition(definition, "Established")
}

/// A text of everything that the rows of a definition depend on.
pub fn fingerprint(definition: &Value) -> String {
    let going = meta::is_terminating(definition) || has_condition(definition, "Terminating");
    let names = &definition["status"]["acceptedNames"];
    let (uid, generation, served) = (
        meta::uid(definition),
        meta::generation(definition),
        is_served(definition),
    );
    format!("{uid} {generation} {served} {going} {names}")
}

/// One row for each served version; none while the definition is not established.
pub fn rows(definition: &Value) -> Vec<Row> {
    if !is_served(definition) {
        return Vec::new();
    }
    let spec = &definition["spec"];
    let versions = spec.get("versions").and_then(Value::as_array);
    let versions = versions.map(Vec::as_slice).unwrap_or_default();
    let nodes: BTreeMap<String, Arc<Node>> = versions
        .iter()
        .map(|v| {
            (
                text(v, "name").to_owned(),
                Arc::new(Node::parse(document(v))),
            )
        })
        .collect();
    let nodes = Arc::new(nodes);
    let served = versions.iter().filter(|v| flag(v, "served"));
    served
        .map(|version| row(definition, versions, version, &nodes))
        .collect()
}

fn document(version: &Value) -> &Value {
    version
        .pointer("/schema/openAPIV3Schema")
        .unwrap_or(&Value::Null)
}

fn row(
    definition: &Value,
    versions: &[Value],
    version: &Value,
    nodes: &Arc<BTreeMap<String, Arc<Node>>>,
) -> Row {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let group = text(spec, "group");
    let (name, kind, resource) = (
        text(version, "name"),
        text(names, "kind"),
        text(names, "plural"),
    );
    let storage = versions
        .iter()
        .find(|v| flag(v, "storage"))
        .map_or(name, |v| text(v, "name"));
    let terminating = meta::is_terminating(definition) || has_condition(definition, "Terminating");
    let node = nodes.get(name).map(Arc::clone).unwrap_or_default();
    let scale = version.pointer("/subresources/scale").map(scale_paths);
    let status = version
        .pointer("/subresources/status")
        .is_some_and(Value::is_object);
    let sub = |name: &str, kind: Gvk| Subresource {
        name: name.to_owned(),
        kind,
        verbs: verbs("gpu"),
    };
    let mut subresources = Vec::new();
    if status {
        subresources.push(sub("status", Gvk::new("", "", kind)));
    }
    if scale.is_some() {
        subresources.push(sub(
            "scale",
            Gvk::new(SCALE_KIND.0, SCALE_KIND.1, SCALE_KIND.2),
        ));
    }
    let selectable = version.get("selectableFields").and_then(Value::as_array);
    let selectable = selectable
        .into_iter()
        .flatten()
        .map(|f| text(f, "jsonPath").trim_start_matches('.').to_owned());
    // What was stored under another schema or as another version is not what is to be shown.
    let verbatim = versions.len() == 1 && meta::generation(definition) <= 1;
    let conversion = &spec["conversion"];
    let webhook =
        (conversion["strategy"] == "Webhook").then(|| Arc::new(conversion["webhook"].clone()));
    Row {
        group: group.to_owned(),
        version: name.to_owned(),
        kind: kind.to_owned(),
        list_kind: text(names, "listKind").to_owned(),
        resource: resource.to_owned(),
        singular: text(names, "singular").to_owned(),
        short_names: texts(names, "shortNames"),
        categories: texts(names, "categories"),
        namespaced: text(spec, "scope") == "Namespaced",
        verbs: verbs(if terminating { LAST_VERBS } else { VERBS }),
        subresources,
        status_subresource: status,
        stored: true,
        generation: true,
        storage_prefix: storage_prefix(group, resource),
        storage_kind: Gvk::new(group, storage, kind),
        conversion: None,
        schema: Schema {
            definition: crate::openapi::definition_name(group, name, kind).into(),
            ..node.object_schema(&metadata_schema())
        }
        .into(),
        selectable_fields: selectable.collect(),
        default_propagation: Propagation::Background,
        columns: Columns::default(),
        hooks: Hooks::default(),
        custom: Some(Arc::new(Custom {
            group: group.to_owned(),
            version: name.to_owned(),
            kind: kind.to_owned(),
            storage_version: storage.to_owned(),
            node,
            rules: Arc::new(Rules::of(document(version))),
            nodes: Arc::clone(nodes),
            document: document(version).clone(),
            columns: printer_columns(version),
            scale,
            deprecation: deprecation(group, kind, versions, version),
            status_subresource: status,
            fingerprint: fingerprint(definition),
            terminating,
            webhook,
            verbatim,
        })),
    }
}

fn printer_columns(version: &Value) -> Vec<PrinterColumn> {
    let columns = version
        .get("additionalPrinterColumns")
        .and_then(Value::as_array);
    match columns.filter(|c| !c.is_empty()) {
        Some(columns) => columns.iter().map(PrinterColumn::parse).collect(),
        None => vec![columns::age()],
    }
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let path = |field: &str| -> Vec<String> {
        text(scale, field)
            .trim_start_matches('.')
            .split('.')
            .map(str::to_owned)
            .collect()
    };
    ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        label_selector: Some(path("labelSelectorPath")).filter(|p| p.iter().any(|s| !s.is_empty())),
    }
}

fn deprecation(group: &str, kind: &str, versions: &[Value], version: &Value) -> Option<String> {
    if !flag(version, "deprecated") {
        return None;
    }
    if let Some(text) = version.get("deprecationWarning").and_then(Value::as_str) {
        return Some(text.to_owned());
    }
    let name = text(version, "name");
    let mut text_out = format!("{group}/{name} {kind} is deprecated");
    let newer = versions
        .iter()
        .filter(|v| flag(v, "served") && !flag(v, "deprecated"))
        .map(|v| text(v, "name"))
        .filter(|n| compare_versions(n, name) == Ordering::Greater)
        .max_by(|a, b| compare_versions(a, b));
    if let Some(newer) = newer {
        text_out.push_str(&format!("; use {group}/{newer} {kind}"));
    }
    Some(text_out)
}

/// Kubernetes' order of versions: `v2` after `v1` after `v1beta1`; what is no version comes first, by reverse name.
fn compare_versions(a: &str, b: &str) -> Ordering {
    match (version_rank(a), version_rank(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

fn version_rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let major = major.parse().ok()?;
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stage, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (None, Some(minor)) => (0, minor),
        (None, None) => return None,
    };
    Some((stage, major, minor.parse().ok()?))
}
