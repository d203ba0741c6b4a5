//! Patch and apply. A patch makes a proposal of the stored object; the rest is the update path's.
//!
//! Merge patches change the top-level fields that they name and no other, so only those are copied, patched and decoded:
//! a status patch of a pod never touches its spec. (What is stored has been decoded before.)

use bytes::Bytes;
use oarlock_kinds::go_text::{self, Touched};
use oarlock_model::{ApiError, ApiResult, Reason, meta};
use oarlock_schema::decode_value;
use oarlock_schema::patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
use serde_json::{Map, Value};

use crate::write::{Proposal, View};
use crate::{Context, PatchKind, Registry, Target, Written};
use crate::{decode, keys, managed, metadata, sub};

const MANAGED_FIELDS: &str = "managedFields";
/// Custom resources say nothing of how their lists are merged in a strategic patch.
const NO_STRATEGIC: &str = "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl Registry {
    /// `patch`: JSON text (YAML was turned into JSON by the caller).
    pub async fn patch(
        &self,
        ctx: &Context,
        target: &Target,
        kind: PatchKind,
        patch: Bytes,
    ) -> ApiResult<Written> {
        let patch: Value = serde_json::from_slice(&patch)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        self.patch_value(ctx, target, &kind, &patch).await
    }

    pub async fn patch_value(
        &self,
        ctx: &Context,
        target: &Target,
        kind: &PatchKind,
        patch: &Value,
    ) -> ApiResult<Written> {
        if *kind == PatchKind::Strategic && target.row.custom.is_some() {
            return Err(ApiError::new(Reason::UnsupportedMediaType, NO_STRATEGIC));
        }
        if target.subresource == "scale" {
            return sub::scale::patch(self, ctx, target, kind, patch).await;
        }
        if let PatchKind::Apply { .. } = kind {
            decode::applied_type(&target.row, patch)?;
            metadata::match_name(target, patch)?;
            if target.subresource.is_empty() && self.store().get(&keys::key_of(target)).is_none() {
                let mut proposal = propose(ctx, target, None, kind, patch)?;
                metadata::match_namespace(target, &mut proposal.object)?;
                meta::metadata_mut(&mut proposal.object).remove("resourceVersion");
                match self.create_decoded(ctx, target, proposal).await {
                    // Somebody was faster: then it is an update.
                    Err(error) if error.reason == Reason::AlreadyExists => {}
                    other => {
                        return Ok(Written {
                            object: other?,
                            created: true,
                        });
                    }
                }
            }
        }
        // A JSON patch may test any field.
        let view = if *kind == PatchKind::Json {
            View::Whole
        } else {
            View::Part
        };
        self.modify(ctx, target, view, &mut |old| {
            propose(ctx, target, Some(old), kind, patch)
        })
        .await
    }
}

/// What a patch makes of `old`.
fn propose(
    ctx: &Context,
    target: &Target,
    old: Option<&Value>,
    kind: &PatchKind,
    patch: &Value,
) -> ApiResult<Proposal> {
    if let PatchKind::Apply { force } = kind {
        let merged = managed::applied(ctx, target, old, patch, *force)?;
        if target.row.custom.is_some() {
            let object = decode::fitted(ctx, &target.row, merged)?;
            return Ok(Proposal {
                object,
                applied: true,
                whole: false,
            });
        }
        // Into canonical form (quantities, times); what does not fit the schema was refused by the merge.
        let merged = match decode_value(&target.row.schema, &merged) {
            Ok(decoded) => decoded.value,
            Err(_) => merged,
        };
        return Ok(Proposal {
            object: merged,
            applied: true,
            whole: false,
        });
    }
    if let Some(old) = old
        && target.row.custom.is_none()
        && let Some(touched) = touched_fields(kind, patch)
    {
        return propose_part(ctx, target, old, kind, patch, &touched);
    }
    let mut object = old.cloned().unwrap_or_default();
    apply(target, &mut object, kind, patch)?;
    let shown = |why: &str| shown(target, old, kind, patch, why);
    let mut object = decode::patched(ctx, &target.row, &object, &shown)?;
    metadata::match_name(target, &object)?;
    metadata::match_namespace(target, &mut object)?;
    Ok(object.into())
}

/// What an error quotes of a patch that made no object of its kind, and how it says why. (Made for an error only: it patches
/// the whole object.)
fn shown(
    target: &Target,
    old: Option<&Value>,
    kind: &PatchKind,
    patch: &Value,
    why: &str,
) -> (String, String) {
    let touched = match kind {
        PatchKind::Strategic => return (go_text::plain(patch), go_text::restoring(why)),
        PatchKind::Json => Touched::by_operations(patch),
        PatchKind::Merge | PatchKind::Apply { .. } => Touched::by_merge(patch),
    };
    let mut whole = old.cloned().unwrap_or_default();
    // It was applied before, to come here.
    let _ = apply(target, &mut whole, kind, patch);
    (go_text::patched(&whole, &touched), why.to_owned())
}

/// The top-level fields that a merge patch names; `None` for patches of another kind and for those with directives.
fn touched_fields<'a>(kind: &PatchKind, patch: &'a Value) -> Option<Vec<&'a str>> {
    let fields = match kind {
        PatchKind::Merge | PatchKind::Strategic => patch.as_object()?,
        PatchKind::Json | PatchKind::Apply { .. } => return None,
    };
    let plain = fields.keys().all(|name| !name.starts_with('$'));
    plain.then(|| fields.keys().map(String::as_str).collect())
}

fn propose_part(
    ctx: &Context,
    target: &Target,
    old: &Value,
    kind: &PatchKind,
    patch: &Value,
    touched: &[&str],
) -> ApiResult<Proposal> {
    let keeps_managed = patch
        .get("metadata")
        .is_some_and(|m| m.get(MANAGED_FIELDS).is_none());
    let mut part = Map::new();
    for field in touched.iter().chain(&["apiVersion", "kind"]) {
        let Some(value) = old.get(*field) else {
            continue;
        };
        let value = match value {
            Value::Object(metadata) if *field == "metadata" && keeps_managed => {
                let rest = metadata.iter().filter(|(name, _)| *name != MANAGED_FIELDS);
                Value::Object(
                    rest.map(|(name, value)| (name.clone(), value.clone()))
                        .collect(),
                )
            }
            other => other.clone(),
        };
        part.insert((*field).to_owned(), value);
    }
    let mut part = Value::Object(part);
    apply(target, &mut part, kind, patch)?;
    let shown = |why: &str| shown(target, Some(old), kind, patch, why);
    let mut part = decode::patched(ctx, &target.row, &part, &shown)?;
    if touched.contains(&"metadata") {
        metadata::match_name(target, &part)?;
        metadata::match_namespace(target, &mut part)?;
        if let (true, Some(fields)) = (keeps_managed, old.pointer("/metadata/managedFields")) {
            meta::metadata_mut(&mut part).insert(MANAGED_FIELDS.to_owned(), fields.clone());
        }
    }
    let mut object = Map::new();
    let decoded = meta::as_map_mut(&mut part);
    for field in touched {
        if let Some(value) = decoded.remove(*field) {
            object.insert((*field).to_owned(), value);
        }
    }
    for (field, value) in old.as_object().into_iter().flatten() {
        if !touched.contains(&field.as_str()) {
            object.insert(field.clone(), value.clone());
        }
    }
    let mut object = Value::Object(object);
    meta::set_type(
        &mut object,
        target.row.api_version(),
        target.row.kind.as_str(),
    );
    Ok(object.into())
}

fn apply(target: &Target, object: &mut Value, kind: &PatchKind, patch: &Value) -> ApiResult<()> {
    let result: Result<(), PatchError> = match kind {
        PatchKind::Json => json_patch(object, patch),
        PatchKind::Merge => merge_patch(object, patch),
        PatchKind::Strategic => strategic_merge_patch(&target.row.schema, object, patch),
        PatchKind::Apply { .. } => Ok(()),
    };
    result.map_err(ApiError::from)
}
