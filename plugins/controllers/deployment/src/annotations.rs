//! The annotations by which a Deployment and its sets keep count of revisions and sizes.

use std::collections::BTreeMap;

use controller_kit::workload::ReplicaSet;

use crate::view::Deployment;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Not handed down from the Deployment to its sets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Longest revision history kept.
const MAX_HISTORY_BYTES: usize = 2_000;

pub fn revision(annotations: &BTreeMap<String, String>) -> i64 {
    annotations
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// What the new set's annotations become: the Deployment's own, its revision, and (for a set that is to be made) sizes.
pub fn for_new_set(
    deployment: &Deployment,
    set: Option<&ReplicaSet>,
    new_revision: i64,
) -> BTreeMap<String, String> {
    let mut annotations = set
        .map(|set| set.metadata.annotations.clone())
        .unwrap_or_default();
    for (key, value) in &deployment.metadata.annotations {
        if !OWN.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    let old_number = revision(&annotations);
    if old_number < new_revision {
        annotations.insert(REVISION.to_owned(), new_revision.to_string());
        // A set that was used before keeps the numbers that it had.
        if let Some(old) = old.filter(|old| !old.is_empty()) {
            let history = match annotations.get(REVISION_HISTORY).filter(|h| !h.is_empty()) {
                Some(history) => format!("{history},{old}"),
                None => old,
            };
            let start = match history.len() <= MAX_HISTORY_BYTES {
                true => 0,
                false => {
                    let cut = history.len() - MAX_HISTORY_BYTES;
                    history[cut..].find(',').map_or(0, |comma| cut + comma + 1)
                }
            };
            annotations.insert(REVISION_HISTORY.to_owned(), history[start..].to_owned());
        }
    }
    if set.is_none() {
        annotations.extend(sizes(deployment));
    }
    annotations
}

/// What each set remembers of the Deployment's size when it was last scaled.
pub fn sizes(deployment: &Deployment) -> [(String, String); 2] {
    let desired = deployment.spec.replicas;
    [
        (DESIRED_REPLICAS.to_owned(), desired.to_string()),
        (
            MAX_REPLICAS.to_owned(),
            (desired + deployment.max_surge()).to_string(),
        ),
    ]
}
