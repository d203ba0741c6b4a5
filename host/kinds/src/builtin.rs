//! The rows of `data/kinds.txt`: every built-in kind, as discovery shows it.

use oarlock_model::Gvk;

use crate::facts::facts;
use crate::row::Conversion;
use crate::{Columns, Propagation, Row, Subresource, autoscalers, columns, events, rules};

static TEXT: &str = include_str!("../data/kinds.txt");

pub(crate) fn rows() -> Vec<Row> {
    TEXT.lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .map(row)
        .collect()
}

/// All eight verbs, in the order of discovery.
pub(crate) const ALL_VERBS: &str = "cdDglpuw";

pub(crate) fn verbs(letters: &str) -> Vec<String> {
    let verb = |letter| match letter {
        'c' => "create",
        'd' => "delete",
        'D' => "deletecollection",
        'g' => "get",
        'l' => "list",
        'p' => "patch",
        'u' => "update",
        _ => "watch",
    };
    letters
        .chars()
        .map(|letter| verb(letter).to_owned())
        .collect()
}

fn list(column: &str) -> Vec<String> {
    if column == "-" {
        Vec::new()
    } else {
        column.split(',').map(str::to_owned).collect()
    }
}

/// `v1` or `apps/v1`.
fn group_version(text: &str) -> (&str, &str) {
    text.split_once('/').unwrap_or(("", text))
}

/// `v1/Event` or `policy/v1/Eviction`.
fn gvk(text: &str) -> Gvk {
    let (api_version, kind) = text.rsplit_once('/').unwrap_or(("", text));
    let (group, version) = group_version(api_version);
    Gvk::new(group, version, kind)
}

fn row(line: &str) -> Row {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let [
        api_version,
        kind,
        resource,
        scope,
        short_names,
        categories,
        subresources,
        flags,
        fields,
    ] = columns[..]
    else {
        unreachable!("data/kinds.txt has nine columns: {line}");
    };
    let (group, version) = group_version(api_version);
    let (resource, singular) = resource.split_once(':').unwrap_or((resource, ""));
    let flags = list(flags);
    let flag = |name: &str| flags.iter().any(|f| f == name);
    let storage_kind = flags.iter().find_map(|f| f.strip_prefix('@')).map(gvk);
    let letters = flags
        .iter()
        .find_map(|f| f.strip_prefix("v="))
        .unwrap_or(ALL_VERBS);
    let subresources: Vec<Subresource> = list(subresources)
        .iter()
        .map(|text| subresource(text, kind))
        .collect();
    let storage_group = storage_kind.as_ref().map_or(group, |gvk| &gvk.group);
    Row {
        storage_prefix: storage_prefix(storage_group, resource),
        conversion: storage_kind
            .as_ref()
            .and_then(|stored| conversion(stored, group, version)),
        storage_kind: storage_kind.unwrap_or_else(|| Gvk::new(group, version, kind)),
        schema: facts()
            .schema(group, version, kind)
            .expect("every kind of data/kinds.txt is in data/facts.txt"),
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        resource: resource.to_owned(),
        singular: if singular.is_empty() {
            kind.to_lowercase()
        } else {
            singular.to_owned()
        },
        short_names: list(short_names),
        categories: list(categories),
        namespaced: scope == "n",
        verbs: verbs(letters),
        status_subresource: subresources.iter().any(|s| s.name == "status"),
        subresources,
        stored: !flag("r"),
        generation: flag("g"),
        selectable_fields: list(fields),
        default_propagation: if flag("o") {
            Propagation::Orphan
        } else {
            Propagation::Background
        },
        columns: match (group, version) {
            ("autoscaling", "v1") => Columns {
                cells: autoscalers::cells_v1,
                ..columns::columns(group, kind)
            },
            _ => columns::columns(group, kind),
        },
        hooks: rules::hooks(group, kind),
        custom: None,
    }
}

pub(crate) fn storage_prefix(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}

/// How a kind that is stored as another one is turned into it and back.
fn conversion(stored: &Gvk, group: &str, version: &str) -> Option<Conversion> {
    match (group, version, stored.kind.as_str()) {
        ("events.k8s.io", _, "Event") => Some(Conversion {
            to_stored: events::to_core,
            from_stored: events::from_core,
        }),
        ("autoscaling", "v1", "HorizontalPodAutoscaler") => Some(Conversion {
            to_stored: autoscalers::to_v2,
            from_stored: autoscalers::to_v1,
        }),
        _ => None,
    }
}

/// `status`, `scale`, or `NAME=KIND/VERBS`.
fn subresource(text: &str, kind: &str) -> Subresource {
    match text.split_once('=') {
        Some((name, rest)) => {
            let (of, letters) = rest.rsplit_once('/').unwrap_or((rest, ""));
            Subresource {
                name: name.to_owned(),
                kind: gvk(of),
                verbs: verbs(letters),
            }
        }
        None if text == "scale" => Subresource {
            name: text.to_owned(),
            kind: Gvk::new("autoscaling", "v1", "Scale"),
            verbs: verbs("gpu"),
        },
        None => Subresource {
            name: text.to_owned(),
            kind: Gvk::new("", "", kind),
            verbs: verbs("gpu"),
        },
    }
}
