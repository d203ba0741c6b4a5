//! What the server offers, as clients discover it: `/api`, `/apis`, one document for each group and version, and the
//! aggregated form of all of it. The documents are made once for each table of kinds.

use std::collections::HashMap;

use bytes::Bytes;
use oarlock_kinds::{Kinds, Row};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Order of groups in lists, as upstream ranks them; others follow by name.
const GROUP_ORDER: [&str; 20] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
];

/// A document and its entity tag.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub json: Bytes,
    /// With quotes.
    pub etag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let mut text = value.to_string();
        text.push('\n');
        let hash = Sha256::digest(text.as_bytes());
        let etag = format!("\"{}\"", hex::encode_upper(hash));
        Self {
            json: Bytes::from(text),
            etag,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Discovery {
    pub groups: Document,
    group: HashMap<String, Document>,
    version: HashMap<String, Document>,
    /// Aggregated: by core or not, and version of the form.
    aggregated: HashMap<(bool, &'static str), Document>,
}

/// A group version that another server answers for.
pub(crate) struct Foreign<'a> {
    pub group: &'a str,
    pub version: &'a str,
    /// As its APIResourceList has them.
    pub resources: &'a [Value],
}

impl Discovery {
    pub fn new(kinds: &Kinds) -> Self {
        Self::with(kinds, &[])
    }

    pub fn with(kinds: &Kinds, foreign: &[Foreign<'_>]) -> Self {
        let groups = grouped(kinds, foreign);
        let named = || groups.iter().filter(|g| !g.name.is_empty());
        let list: Vec<Value> = named().map(Group::entry).collect();
        let group = named().map(|g| {
            let mut entry = json!({"kind": "APIGroup", "apiVersion": "v1"});
            merge(&mut entry, g.entry());
            (g.name.clone(), Document::new(&entry))
        });
        let version = groups.iter().flat_map(|g| g.versions.iter().map(move |v| (g, v))).map(|(g, v)| {
            let group_version = join(&g.name, &v.name);
            let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": v.resources()});
            if !g.name.is_empty() {
                list["apiVersion"] = json!("v1");
            }
            (group_version, Document::new(&list))
        });
        let mut aggregated = HashMap::new();
        for form in ["v2", "v2beta1"] {
            for core in [true, false] {
                let items: Vec<Value> = groups
                    .iter()
                    .filter(|g| g.name.is_empty() == core)
                    .map(Group::aggregated)
                    .collect();
                let list = json!({
                    "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"),
                    "metadata": {}, "items": items,
                });
                aggregated.insert((core, form), Document::new(&list));
            }
        }
        Self {
            groups: Document::new(
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}),
            ),
            group: group.collect(),
            version: version.collect(),
            aggregated,
        }
    }

    pub fn group(&self, name: &str) -> Option<&Document> {
        self.group.get(name)
    }

    /// `group_version`: `v1` or `apps/v1`.
    pub fn version(&self, group_version: &str) -> Option<&Document> {
        self.version.get(group_version)
    }

    pub fn aggregated(&self, core: bool, form: &'static str) -> Option<&Document> {
        self.aggregated.get(&(core, form))
    }
}

/// `/api`; depends on the address that the caller reached.
pub(crate) fn api_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

struct Group<'a> {
    name: String,
    /// The preferred one first.
    versions: Vec<Version<'a>>,
}

struct Version<'a> {
    name: String,
    rows: Vec<&'a Row>,
    /// What another server serves.
    foreign: &'a [Value],
}

/// The versions of a group, which is put to the others if it is new.
fn versions_of<'g, 'a>(groups: &'g mut Vec<Group<'a>>, name: &str) -> &'g mut Vec<Version<'a>> {
    let at = groups
        .iter()
        .position(|g| g.name == name)
        .unwrap_or_else(|| {
            groups.push(Group {
                name: name.to_owned(),
                versions: Vec::new(),
            });
            groups.len() - 1
        });
    &mut groups[at].versions
}

fn grouped<'a>(kinds: &'a Kinds, foreign: &[Foreign<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for row in kinds.rows() {
        let versions = versions_of(&mut groups, &row.group);
        match versions.iter_mut().find(|v| v.name == row.version) {
            Some(version) => version.rows.push(row),
            None => versions.push(Version {
                name: row.version.clone(),
                rows: vec![row],
                foreign: &[],
            }),
        }
    }
    for other in foreign {
        let versions = versions_of(&mut groups, other.group);
        versions.retain(|v| v.name != other.version);
        versions.push(Version {
            name: other.version.to_owned(),
            rows: Vec::new(),
            foreign: other.resources,
        });
    }
    let rank = |name: &str| {
        GROUP_ORDER
            .iter()
            .position(|g| *g == name)
            .unwrap_or(GROUP_ORDER.len())
    };
    groups.sort_by(|a, b| {
        rank(&a.name)
            .cmp(&rank(&b.name))
            .then_with(|| a.name.cmp(&b.name))
    });
    for group in &mut groups {
        group
            .versions
            .sort_by_key(|v| std::cmp::Reverse(version_rank(&v.name)));
        for version in &mut group.versions {
            version.rows.sort_by(|a, b| a.resource.cmp(&b.resource));
        }
    }
    groups
}

/// Kubernetes' order of versions: general availability before beta before alpha, then by number.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (major, rest) = rest.split_at(digits);
    let stage = if rest.is_empty() {
        2
    } else if rest.starts_with("beta") {
        1
    } else {
        0
    };
    let minor = rest.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    (
        stage,
        major.parse().unwrap_or(0),
        minor.parse().unwrap_or(0),
    )
}

impl Group<'_> {
    fn entry(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|v| json!({"groupVersion": join(&self.name, &v.name), "version": v.name}))
            .collect();
        json!({"name": self.name, "preferredVersion": versions.first(), "versions": versions})
    }

    fn aggregated(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(
                |v| json!({"version": v.name, "freshness": "Current", "resources": v.aggregated()}),
            )
            .collect();
        let metadata = if self.name.is_empty() {
            json!({})
        } else {
            json!({"name": self.name})
        };
        json!({"metadata": metadata, "versions": versions})
    }
}

impl Version<'_> {
    fn resources(&self) -> Vec<Value> {
        let mut out = self.foreign.to_vec();
        for row in &self.rows {
            let mut entry = json!({
                "name": row.resource, "singularName": row.singular, "namespaced": row.namespaced,
                "kind": row.kind, "verbs": row.verbs,
            });
            optional_names(&mut entry, row);
            if row.stored && row.has_verb("watch") {
                entry["storageVersionHash"] = json!(row.storage_version_hash());
            }
            out.push(entry);
            for sub in sorted_subresources(row) {
                let mut entry = json!({
                    "name": format!("{}/{}", row.resource, sub.name), "singularName": "",
                    "namespaced": row.namespaced, "kind": sub.kind.kind, "verbs": sub.verbs,
                });
                if differs(row, &sub.kind.group, &sub.kind.version) {
                    entry["group"] = json!(sub.kind.group);
                    entry["version"] = json!(sub.kind.version);
                }
                out.push(entry);
            }
        }
        out
    }

    fn aggregated(&self) -> Vec<Value> {
        if self.rows.is_empty() {
            return aggregated_foreign(self.foreign);
        }
        let response_kind = |row: &Row, group: &str, version: &str, kind: &str| {
            let (group, version) = if differs(row, group, version) {
                (group, version)
            } else if row.custom.is_some() {
                // Custom resources are listed by a handler of their own, which leaves nothing out.
                (row.group.as_str(), row.version.as_str())
            } else {
                ("", "")
            };
            json!({"group": group, "version": version, "kind": kind})
        };
        self.rows
            .iter()
            .map(|row| {
                let mut entry = json!({
                    "resource": row.resource, "responseKind": response_kind(row, "", "", &row.kind),
                    "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
                    "singularResource": row.singular, "verbs": row.verbs,
                });
                optional_names(&mut entry, row);
                let subs: Vec<Value> = sorted_subresources(row)
                    .into_iter()
                    .map(|sub| {
                        let kind =
                            response_kind(row, &sub.kind.group, &sub.kind.version, &sub.kind.kind);
                        json!({"subresource": sub.name, "responseKind": kind, "verbs": sub.verbs})
                    })
                    .collect();
                if !subs.is_empty() {
                    entry["subresources"] = Value::Array(subs);
                }
                entry
            })
            .collect()
    }
}

/// Entries of an APIResourceList in the aggregated form.
fn aggregated_foreign(resources: &[Value]) -> Vec<Value> {
    let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
    let kind = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        json!({"group": text("group"), "version": text("version"), "kind": text("kind")})
    };
    let whole = resources.iter().filter(|r| !name(r).contains('/'));
    whole
        .map(|entry| {
            let resource = name(entry);
            let mut out = json!({
                "resource": resource, "responseKind": kind(entry),
                "scope": if entry["namespaced"] == true { "Namespaced" } else { "Cluster" },
                "singularResource": entry["singularName"], "verbs": entry["verbs"],
            });
            for field in ["shortNames", "categories"] {
                if let Some(names) = entry.get(field) {
                    out[field] = names.clone();
                }
            }
            let below = format!("{resource}/");
            let subs: Vec<Value> = resources
                .iter()
                .filter_map(|r| {
                    let name = name(r);
                    let sub = name.strip_prefix(&below)?;
                    Some(json!({"subresource": sub, "responseKind": kind(r), "verbs": r["verbs"]}))
                })
                .collect();
            if !subs.is_empty() {
                out["subresources"] = Value::Array(subs);
            }
            out
        })
        .collect()
}

fn sorted_subresources(row: &Row) -> Vec<&oarlock_kinds::Subresource> {
    let mut subs: Vec<_> = row.subresources.iter().collect();
    if row.custom.is_some() {
        return subs;
    }
    subs.sort_by(|a, b| a.name.cmp(&b.name));
    subs
}

/// Whether a subresource's kind is named with its own group and version.
fn differs(row: &Row, group: &str, version: &str) -> bool {
    !version.is_empty() && (group != row.group || version != row.version)
}

fn optional_names(entry: &mut Value, row: &Row) {
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
}

fn join(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        let from: Map<String, Value> = from;
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ranked() {
        let mut versions = vec!["v1alpha1", "v1", "v2beta2", "v2", "v1beta1", "v10"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v2beta2", "v1beta1", "v1alpha1"]
        );
    }
}
