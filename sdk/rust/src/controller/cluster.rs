//! The cluster as a controller sees it: JSON texts below, the author's types above.
//!
//! Invariant: reads are no older than this controller's own last write.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DeleteOptions, Error, Failure, Key, PatchKind, Query, ResourceInfo};

/// The calls of `wit/controller`'s `objects`, which say more; over JSON texts. The host's imports, or a test's fake.
pub trait Objects {
    fn get(&self, resource: &str, key: &Key) -> Result<String, Failure>;
    fn list(&self, resource: &str, query: &Query) -> Result<Vec<String>, Failure>;
    fn get_live(&self, resource: &str, key: &Key) -> Result<String, Failure>;
    fn create(&self, resource: &str, namespace: &str, object: &str) -> Result<String, Failure>;
    fn create_many(
        &self,
        resource: &str,
        namespace: &str,
        all: &[String],
    ) -> Vec<Result<String, Failure>>;
    fn update(&self, resource: &str, subresource: &str, object: &str) -> Result<String, Failure>;
    fn patch(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        kind: PatchKind,
        body: &str,
    ) -> Result<String, Failure>;
    fn delete(&self, resource: &str, key: &Key, options: &DeleteOptions) -> Result<(), Failure>;
    fn delete_many(
        &self,
        resource: &str,
        keys: &[Key],
        options: &DeleteOptions,
    ) -> Vec<Result<(), Failure>>;
    fn create_sub(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        object: &str,
    ) -> Result<String, Failure>;
    fn discover(&self) -> Vec<ResourceInfo>;
    fn event(&self, about: &str, warning: bool, reason: &str, message: &str);
}

/// A type that stands for a resource: the author's own view of it, or a k8s-openapi type.
///
/// A view that is written back with [`Cluster::update`] must keep the fields that it does not know (`#[serde(flatten)]`);
/// otherwise patch.
pub trait Resource: DeserializeOwned {
    /// `VERSION/RESOURCE` or `GROUP/VERSION/RESOURCE`.
    const RESOURCE: &'static str;
}

/// The cluster.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    objects: &'a dyn Objects,
}

impl std::fmt::Debug for Cluster<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cluster")
    }
}

impl<'a> Cluster<'a> {
    /// Over these calls.
    pub fn new(objects: &'a dyn Objects) -> Self {
        Self { objects }
    }

    /// The calls beneath.
    pub fn raw(&self) -> &'a dyn Objects {
        self.objects
    }

    /// An object; none if it is not there.
    pub fn get<R: Resource>(&self, key: &Key) -> Result<Option<R>, Error> {
        self.get_as(R::RESOURCE, key)
    }

    /// As [`get`](Self::get), of any resource, as any type (`serde_json::Value`).
    pub fn get_as<T: DeserializeOwned>(
        &self,
        resource: &str,
        key: &Key,
    ) -> Result<Option<T>, Error> {
        found(self.objects.get(resource, key))
    }

    /// As [`get_as`](Self::get_as), past the cache.
    pub fn get_live_as<T: DeserializeOwned>(
        &self,
        resource: &str,
        key: &Key,
    ) -> Result<Option<T>, Error> {
        found(self.objects.get_live(resource, key))
    }

    /// Objects, in order of namespace and name.
    pub fn list<R: Resource>(&self, query: &Query) -> Result<Vec<R>, Error> {
        self.list_as(R::RESOURCE, query)
    }

    /// As [`list`](Self::list), of any resource, as any type.
    pub fn list_as<T: DeserializeOwned>(
        &self,
        resource: &str,
        query: &Query,
    ) -> Result<Vec<T>, Error> {
        self.objects
            .list(resource, query)?
            .iter()
            .map(|text| Ok(serde_json::from_str(text)?))
            .collect()
    }

    /// Creates an object; gives it as stored.
    pub fn create_as<T: DeserializeOwned>(
        &self,
        resource: &str,
        namespace: &str,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        let stored = self
            .objects
            .create(resource, namespace, &serde_json::to_string(object)?)?;
        Ok(serde_json::from_str(&stored)?)
    }

    /// Creates an object.
    pub fn create(
        &self,
        resource: &str,
        namespace: &str,
        object: &impl Serialize,
    ) -> Result<(), Error> {
        self.objects
            .create(resource, namespace, &serde_json::to_string(object)?)?;
        Ok(())
    }

    /// Replaces an object (or its subresource); gives it as stored.
    pub fn update_as<T: DeserializeOwned>(
        &self,
        resource: &str,
        subresource: &str,
        object: &impl Serialize,
    ) -> Result<T, Error> {
        let stored = self
            .objects
            .update(resource, subresource, &serde_json::to_string(object)?)?;
        Ok(serde_json::from_str(&stored)?)
    }

    /// Replaces an object.
    pub fn update<R: Resource + Serialize>(&self, object: &R) -> Result<(), Error> {
        self.objects
            .update(R::RESOURCE, "", &serde_json::to_string(object)?)?;
        Ok(())
    }

    /// Replaces an object's status.
    pub fn update_status<R: Resource + Serialize>(&self, object: &R) -> Result<(), Error> {
        self.objects
            .update(R::RESOURCE, "status", &serde_json::to_string(object)?)?;
        Ok(())
    }

    /// Patches an object (or its subresource); gives it as stored.
    pub fn patch_as<T: DeserializeOwned>(
        &self,
        resource: &str,
        key: &Key,
        subresource: &str,
        kind: PatchKind,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let stored = self.objects.patch(
            resource,
            key,
            subresource,
            kind,
            &serde_json::to_string(body)?,
        )?;
        Ok(serde_json::from_str(&stored)?)
    }

    /// Merges into an object (RFC 7386).
    pub fn merge(&self, resource: &str, key: &Key, body: &impl Serialize) -> Result<(), Error> {
        self.objects.patch(
            resource,
            key,
            "",
            PatchKind::Merge,
            &serde_json::to_string(body)?,
        )?;
        Ok(())
    }

    /// Merges into an object's status (RFC 7386).
    pub fn merge_status(
        &self,
        resource: &str,
        key: &Key,
        body: &impl Serialize,
    ) -> Result<(), Error> {
        self.objects.patch(
            resource,
            key,
            "status",
            PatchKind::Merge,
            &serde_json::to_string(body)?,
        )?;
        Ok(())
    }

    /// Server-side apply; the controller is the field manager, and conflicts are forced.
    pub fn apply(&self, resource: &str, key: &Key, body: &impl Serialize) -> Result<(), Error> {
        self.objects.patch(
            resource,
            key,
            "",
            PatchKind::Apply,
            &serde_json::to_string(body)?,
        )?;
        Ok(())
    }

    /// Deletes an object; true if it was there.
    pub fn delete(
        &self,
        resource: &str,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<bool, Error> {
        match self.objects.delete(resource, key, options) {
            Ok(()) => Ok(true),
            Err(failure) if failure.code == 404 => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Records a Normal event about an object.
    pub fn event(&self, about: &impl Serialize, reason: &str, message: &str) -> Result<(), Error> {
        self.objects
            .event(&serde_json::to_string(about)?, false, reason, message);
        Ok(())
    }

    /// Records a Warning event about an object.
    pub fn warning(
        &self,
        about: &impl Serialize,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        self.objects
            .event(&serde_json::to_string(about)?, true, reason, message);
        Ok(())
    }
}

fn found<T: DeserializeOwned>(answer: Result<String, Failure>) -> Result<Option<T>, Error> {
    match answer {
        Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
        Err(failure) if failure.code == 404 => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}
