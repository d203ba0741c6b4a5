//! Storage: what is in use stays until it is not, and claims grow only where their class allows it.

use async_trait::async_trait;
use oarlock_model::{ApiResult, Quantity, meta};
use serde_json::{Value, json};

use super::{forbidden, one};
use crate::admission::{Admission, AdmissionRequest, Operation};
use crate::{Registry, Target, strategy};

const CLAIM: &str = "PersistentVolumeClaim";

/// Claims and volumes get a finalizer that a controller takes off when nobody uses them.
#[derive(Debug)]
pub(super) struct InUseProtection;

fn finalizer(target: &Target) -> Option<&'static str> {
    if strategy::is(&target.row, "", CLAIM) {
        Some("kubernetes.io/pvc-protection")
    } else if strategy::is(&target.row, "", "PersistentVolume") {
        Some("kubernetes.io/pv-protection")
    } else if strategy::is(&target.row, "storage.k8s.io", "VolumeAttributesClass") {
        Some("kubernetes.io/vac-protection")
    } else {
        None
    }
}

#[async_trait]
impl Admission for InUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        operation == Operation::Create
            && target.subresource.is_empty()
            && finalizer(target).is_some()
    }

    async fn mutate(
        &self,
        _registry: &Registry,
        request: &mut AdmissionRequest<'_>,
    ) -> ApiResult<()> {
        let (Some(object), Some(finalizer)) =
            (request.object.as_deref_mut(), finalizer(request.target))
        else {
            return Ok(());
        };
        if !meta::finalizers(object).contains(&finalizer)
            && let Value::Array(list) = meta::metadata_mut(object)
                .entry("finalizers")
                .or_insert_with(|| json!([]))
        {
            list.push(json!(finalizer));
        }
        Ok(())
    }
}

/// A claim grows only when it is bound, and its class says that it may.
#[derive(Debug)]
pub(super) struct ClaimResize;

fn requested(claim: &Value) -> Option<Quantity> {
    Quantity::from_json(claim.pointer("/spec/resources/requests/storage")?).ok()
}

#[async_trait]
impl Admission for ClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, target: &Target, operation: Operation) -> bool {
        operation == Operation::Update
            && target.subresource.is_empty()
            && strategy::is(&target.row, "", CLAIM)
    }

    async fn validate(&self, registry: &Registry, request: &AdmissionRequest<'_>) -> ApiResult<()> {
        let (Some(claim), Some(old)) = (request.object.as_deref(), request.old) else {
            return Ok(());
        };
        if requested(claim) <= requested(old) {
            return Ok(());
        }
        let refuse = |why| Err(forbidden(request.target, claim, why));
        if old.pointer("/status/phase").and_then(Value::as_str) != Some("Bound") {
            return refuse("Only bound persistent volume claims can be expanded");
        }
        let class = meta::annotation(claim, "volume.beta.kubernetes.io/storage-class")
            .or_else(|| claim.pointer("/spec/storageClassName")?.as_str())
            .unwrap_or_default();
        let grows = one(registry, "storage.k8s.io", "storageclasses", "", class)
            .is_some_and(|class| class["allowVolumeExpansion"] == true);
        if grows {
            return Ok(());
        }
        refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        )
    }
}
