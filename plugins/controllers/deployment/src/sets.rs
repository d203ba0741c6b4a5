//! The ReplicaSets of a Deployment: claimed, told apart into the new one and old ones, made when there is none.

use controller_kit::hash::template_hash;
use controller_kit::workload::ReplicaSet;
use controller_kit::{
    Condition, Meta, Owner, condition, owners_patch, selector_text, selects, time,
};
use oarlock_sdk::controller::{Cluster, DeleteOptions, Error, Key, Query};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::view::Deployment;
use crate::{DEPLOYMENTS, REPLICA_SETS, Step, annotations, rolling};

pub const HASH_LABEL: &str = "pod-template-hash";
/// Keys that begin so name a ReplicaSet without a controller. No object's name has a slash.
pub const ORPHAN: &str = "orphan/";
const DEFAULT_HISTORY_LIMIT: i64 = 10;

/// In order of age, oldest first.
#[derive(Default)]
pub struct Sets {
    pub all: Vec<ReplicaSet>,
    /// The uid of the one with the Deployment's present template.
    new_uid: Option<String>,
}

impl Sets {
    pub fn claim(cluster: &Cluster<'_>, deployment: &Deployment) -> Result<Self, Error> {
        let namespace = &deployment.metadata.namespace;
        let owned: Vec<ReplicaSet> = cluster.list_as(
            REPLICA_SETS,
            &Query::namespace(namespace).owned_by(&deployment.metadata.uid),
        )?;
        let mut all = Vec::new();
        for set in owned {
            if selects(&deployment.spec.selector, &set.metadata.labels) {
                all.push(set);
            } else if !deployment.metadata.terminating() {
                let mut owners = set.metadata.owner_references.clone();
                owners.retain(|owner| owner.uid != deployment.metadata.uid);
                cluster.merge(
                    REPLICA_SETS,
                    &set.metadata.key(),
                    &owners_patch(&set.metadata, &owners),
                )?;
            }
        }
        if !deployment.metadata.terminating()
            && let Some(selector) = selector_text(&deployment.spec.selector)
        {
            let query = Query::namespace(namespace)
                .labelled(&selector)
                .field("metadata.controller", "");
            for set in cluster.list_as::<ReplicaSet>(REPLICA_SETS, &query)? {
                if set.metadata.controller().is_none() && !set.metadata.terminating() {
                    all.push(take_in(cluster, deployment, &set)?);
                }
            }
        }
        all.sort_by(|a, b| {
            let age = |meta: &Meta| (time::parse_ms(&meta.creation_timestamp), meta.name.clone());
            age(&a.metadata).cmp(&age(&b.metadata))
        });
        let mut sets = Self { all, new_uid: None };
        sets.new_uid = sets.find(deployment).map(|set| set.metadata.uid.clone());
        Ok(sets)
    }

    /// The oldest set whose template is the Deployment's.
    fn find(&self, deployment: &Deployment) -> Option<&ReplicaSet> {
        self.all
            .iter()
            .find(|set| same_template(&set.spec.template, &deployment.spec.template))
    }

    pub fn new_index(&self) -> Option<usize> {
        let uid = self.new_uid.as_deref()?;
        self.all.iter().position(|set| set.metadata.uid == uid)
    }

    pub fn new_set(&self) -> Option<&ReplicaSet> {
        self.new_index().map(|index| &self.all[index])
    }

    pub fn is_new(&self, index: usize) -> bool {
        self.new_index() == Some(index)
    }

    pub fn old(&self) -> impl Iterator<Item = &ReplicaSet> {
        let new = self.new_index();
        self.all
            .iter()
            .enumerate()
            .filter(move |(index, _)| Some(*index) != new)
            .map(|(_, set)| set)
    }

    pub fn old_indexes(&self) -> Vec<usize> {
        (0..self.all.len())
            .filter(|index| !self.is_new(*index))
            .collect()
    }

    /// How many pods all sets ask for.
    pub fn wanted(&self) -> i64 {
        self.all.iter().map(|set| set.spec.replicas).sum()
    }
}

fn take_in(
    cluster: &Cluster<'_>,
    deployment: &Deployment,
    set: &ReplicaSet,
) -> Result<ReplicaSet, Error> {
    let mut owners = set.metadata.owner_references.clone();
    owners.push(Owner::controlling(
        "apps/v1",
        "Deployment",
        &deployment.metadata,
    ));
    let patch = owners_patch(&set.metadata, &owners);
    let kind = oarlock_sdk::controller::PatchKind::Merge;
    cluster.patch_as(REPLICA_SETS, &set.metadata.key(), "", kind, &patch)
}

pub fn orphan_key(object: &Value, gone: bool) -> Option<Key> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Meta,
    }
    let set = Named::deserialize(object).ok().filter(|_| !gone)?.metadata;
    (set.controller().is_none() && !set.labels.is_empty())
        .then(|| Key::new(&set.namespace, format!("{ORPHAN}{}", set.name)))
}

/// Gives an orphan to a Deployment that selects it, which hears of it by its own watch.
pub fn find_owner(cluster: &Cluster<'_>, key: &Key) -> Result<(), Error> {
    let Some(set) = cluster.get_as::<ReplicaSet>(REPLICA_SETS, key)? else {
        return Ok(());
    };
    if set.metadata.controller().is_some() || set.metadata.terminating() {
        return Ok(());
    }
    let parts = [
        "/metadata/name",
        "/metadata/uid",
        "/metadata/deletionTimestamp",
        "/spec/selector",
    ];
    let all: Vec<Deployment> =
        cluster.list_as(DEPLOYMENTS, &Query::namespace(&key.namespace).parts(&parts))?;
    let fits = |d: &&Deployment| {
        !d.metadata.terminating() && selects(&d.spec.selector, &set.metadata.labels)
    };
    if let Some(deployment) = all.iter().find(fits) {
        take_in(cluster, deployment, &set)?;
    }
    Ok(())
}

/// Equal but for the hash label (and for what is the same as absent in metadata).
pub fn same_template(a: &Value, b: &Value) -> bool {
    plain(a) == plain(b)
}

fn plain(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH_LABEL);
        }
        metadata.retain(|_, value| {
            !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty())
        });
        if metadata.is_empty() {
            oarlock_sdk::model::meta::as_map_mut(&mut template).remove("metadata");
        }
    }
    template
}

impl Step<'_> {
    /// Brings the new set's revision up to date; makes it if there is none and `create`.
    pub fn find_new(&mut self, sets: &mut Sets, create: bool) -> Result<(), Error> {
        let newest = sets
            .old()
            .map(|set| annotations::revision(&set.metadata.annotations))
            .max()
            .unwrap_or(0);
        let revision = newest + 1;
        match sets.new_index() {
            Some(index) => self.keep_new(sets, index, revision),
            None if create => self.make_new(sets, revision),
            None => Ok(()),
        }
    }

    fn keep_new(&mut self, sets: &mut Sets, index: usize, revision: i64) -> Result<(), Error> {
        let set = &sets.all[index];
        let wanted = annotations::for_new_set(&self.deployment, Some(set), revision);
        if wanted != set.metadata.annotations
            || set.spec.min_ready_seconds != self.deployment.spec.min_ready_seconds
        {
            let patch = json!({
                "metadata": {"annotations": wanted, "resourceVersion": set.metadata.resource_version},
                "spec": {"minReadySeconds": self.deployment.spec.min_ready_seconds},
            });
            let kind = oarlock_sdk::controller::PatchKind::Merge;
            sets.all[index] =
                self.cluster
                    .patch_as(REPLICA_SETS, &set.metadata.key(), "", kind, &patch)?;
        }
        let set = &sets.all[index];
        self.set_revision(annotations::revision(&set.metadata.annotations))?;
        if self.deployment.deadline_seconds().is_some()
            && condition(&self.deployment.status.conditions, "Progressing").is_none()
        {
            let message = format!("Found new replica set {:?}", set.metadata.name);
            self.progressing("True", "FoundNewReplicaSet", message)?;
        }
        Ok(())
    }

    fn make_new(&mut self, sets: &mut Sets, revision: i64) -> Result<(), Error> {
        let hash = template_hash(
            &plain(&self.deployment.spec.template),
            self.deployment.status.collision_count,
        );
        let name = format!("{}-{hash}", self.deployment.metadata.name);
        let replicas = rolling::new_set_size(&self.deployment, sets, None);
        let object = self.new_object(&name, &hash, replicas, revision);
        let namespace = self.deployment.metadata.namespace.clone();
        let made = match self
            .cluster
            .create_as::<ReplicaSet>(REPLICA_SETS, &namespace, &object)
        {
            Ok(made) => made,
            Err(error) if error.reason() == "AlreadyExists" => return self.collided(sets, &name),
            // A namespace on its way out takes no sets; its end is the Deployment's.
            Err(error)
                if error.code() == 403
                    && error.to_string().contains("because it is being terminated") =>
            {
                return Ok(());
            }
            Err(error) => {
                let reason = match &error {
                    Error::Refused(failure) => failure.message.clone(),
                    Error::Other(message) => message.clone(),
                };
                let message = format!("Failed to create new replica set {name:?}: {reason}");
                self.progressing("False", "ReplicaSetCreateError", message.clone())?;
                self.cluster.warning(
                    &self.deployment.reference(),
                    "ReplicaSetCreateError",
                    &message,
                )?;
                return Err(error);
            }
        };
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.cluster
                .event(&self.deployment.reference(), "ScalingReplicaSet", &message)?;
        }
        sets.new_uid = Some(made.metadata.uid.clone());
        sets.all.push(made);
        self.set_revision(revision)?;
        if self.deployment.deadline_seconds().is_some() {
            self.progressing(
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set {name:?}"),
            )?;
        }
        Ok(())
    }

    fn new_object(&self, name: &str, hash: &str, replicas: i64, revision: i64) -> Value {
        let deployment = &self.deployment;
        let mut template = deployment.spec.template.clone();
        template["metadata"]["labels"][HASH_LABEL] = json!(hash);
        let labels = template["metadata"]["labels"].clone();
        let mut selector = deployment.spec.selector.clone();
        selector["matchLabels"][HASH_LABEL] = json!(hash);
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": deployment.metadata.namespace,
                "labels": labels,
                "annotations": annotations::for_new_set(deployment, None, revision),
                "ownerReferences": [Owner::controlling("apps/v1", "Deployment", &deployment.metadata)],
            },
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        });
        if deployment.spec.min_ready_seconds > 0 {
            object["spec"]["minReadySeconds"] = json!(deployment.spec.min_ready_seconds);
        }
        object
    }

    /// The name is taken: by our own set, which the cache did not show, or by another template with the same hash.
    fn collided(&mut self, sets: &mut Sets, name: &str) -> Result<(), Error> {
        let key = Key::new(&self.deployment.metadata.namespace, name);
        let there: Option<ReplicaSet> = self.cluster.get_live_as(REPLICA_SETS, &key)?;
        if let Some(there) = there
            && there
                .metadata
                .controller()
                .is_some_and(|owner| owner.uid == self.deployment.metadata.uid)
            && same_template(&there.spec.template, &self.deployment.spec.template)
        {
            sets.new_uid = Some(there.metadata.uid.clone());
            sets.all.push(there);
            return Ok(());
        }
        let count = self.deployment.status.collision_count.unwrap_or(0) + 1;
        self.cluster.merge_status(
            DEPLOYMENTS,
            &self.deployment.metadata.key(),
            &json!({"metadata": {"uid": self.deployment.metadata.uid}, "status": {"collisionCount": count}}),
        )?;
        Err(Error::new(format!(
            "the name {name} is taken by another template"
        )))
    }

    fn set_revision(&mut self, revision: i64) -> Result<(), Error> {
        let text = revision.to_string();
        if self
            .deployment
            .metadata
            .annotations
            .get(annotations::REVISION)
            == Some(&text)
        {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {annotations::REVISION: text}}});
        self.cluster
            .merge(DEPLOYMENTS, &self.deployment.metadata.key(), &patch)?;
        self.deployment
            .metadata
            .annotations
            .insert(annotations::REVISION.to_owned(), text);
        Ok(())
    }

    /// Deletes old sets beyond the history limit, oldest revision first.
    pub fn clean_up(&self, sets: &Sets) -> Result<(), Error> {
        let limit = self
            .deployment
            .spec
            .revision_history_limit
            .unwrap_or(DEFAULT_HISTORY_LIMIT);
        let mut old: Vec<&ReplicaSet> = sets
            .old()
            .filter(|set| !set.metadata.terminating())
            .collect();
        let surplus = old.len() as i64 - limit;
        if surplus <= 0 {
            return Ok(());
        }
        old.sort_by_key(|set| annotations::revision(&set.metadata.annotations));
        for set in old.into_iter().take(surplus as usize) {
            let empty = set.status.replicas == 0 && set.spec.replicas == 0;
            if !empty || set.metadata.generation > set.status.observed_generation {
                continue;
            }
            let options = DeleteOptions {
                uid: set.metadata.uid.clone(),
                ..DeleteOptions::default()
            };
            self.cluster
                .delete(REPLICA_SETS, &set.metadata.key(), &options)?;
        }
        Ok(())
    }

    pub fn condition(
        &self,
        kind: &str,
        status: &str,
        reason: &str,
        message: impl Into<String>,
    ) -> Condition {
        let now = time::format_ms(self.now_ms);
        let mut condition = Condition::new(kind, status, reason, message, &now);
        condition.last_update_time = Some(now);
        condition
    }
}
