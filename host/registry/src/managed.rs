//! `metadata.managedFields` on every write: which manager owns which field. The engine is in `oarlock_schema::apply`;
//! here is what of an object it sees for a kind and a subresource.

use oarlock_model::{ApiError, ApiResult, Reason, meta, time};
use oarlock_schema::SchemaRef;
use oarlock_schema::apply::{self, ApplyError, FieldPath, Operation, Writer};
use serde_json::Value;

use crate::{Context, Target, strategy};

/// A write whose caller named no manager.
const UNKNOWN_MANAGER: &str = "unknown";
const STATUS: &[FieldPath] = &[&["status"]];
const SPEC: &[FieldPath] = &[&["spec"]];
const SPEC_AND_STATUS: &[FieldPath] = &[&["spec"], &["status"]];
const CUSTOM_STATUS: &[FieldPath] = &[&["metadata"], &["spec"]];
const POD_STATUS: &[FieldPath] = &[
    &["spec"],
    &["metadata", "deletionTimestamp"],
    &["metadata", "ownerReferences"],
];

/// What a write through this subresource cannot change, and so never owns.
fn reset(target: &Target) -> &'static [FieldPath] {
    match target.subresource.as_str() {
        "" if strategy::is(
            &target.row,
            "certificates.k8s.io",
            "CertificateSigningRequest",
        ) =>
        {
            SPEC_AND_STATUS
        }
        "" if target.row.status_subresource => STATUS,
        "status" if target.row.kind == "Pod" => POD_STATUS,
        "status" if target.row.custom.is_some() => CUSTOM_STATUS,
        "status" => SPEC,
        _ => &[],
    }
}

fn with_writer<T>(
    ctx: &Context,
    target: &Target,
    subresource: &str,
    act: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    let manager = if ctx.field_manager.is_empty() {
        UNKNOWN_MANAGER
    } else {
        ctx.field_manager.as_str()
    };
    let (api_version, now) = (target.row.api_version(), time::format_time(ctx.now));
    act(&Writer {
        manager,
        api_version: &api_version,
        subresource,
        now: &now,
        reset: reset(target),
        one_schema: target.row.custom.is_some(),
    })
}

/// After a create or an update by plain means: the fields that `new` changed belong to the caller.
pub fn updated(ctx: &Context, target: &Target, old: Option<&Value>, new: &mut Value) {
    if !target.row.stored {
        return;
    }
    with_writer(ctx, target, &target.subresource, |writer| {
        apply::track_update(&target.row.schema, old, new, writer);
    });
}

/// Managed fields of what a create answers and nobody keeps: reviews, and bodies of subresources.
pub fn track_created(ctx: &Context, schema: &SchemaRef, subresource: &str, object: &mut Value) {
    let (api_version, now) = (
        meta::api_version(object).to_owned(),
        time::format_time(ctx.now),
    );
    let manager = if ctx.field_manager.is_empty() {
        UNKNOWN_MANAGER
    } else {
        ctx.field_manager.as_str()
    };
    let writer = Writer {
        manager,
        api_version: &api_version,
        subresource,
        now: &now,
        reset: STATUS,
        one_schema: false,
    };
    apply::track_update(schema, None, object, &writer);
}

/// Server-side apply: `old` with the configuration merged in.
pub fn applied(
    ctx: &Context,
    target: &Target,
    old: Option<&Value>,
    configuration: &Value,
    force: bool,
) -> ApiResult<Value> {
    let (schema, gvk) = (&target.row.schema, target.row.gvk());
    with_writer(ctx, target, &target.subresource, |writer| {
        apply::apply(schema, old, configuration, writer, force, &gvk)
    })
    .map_err(|error| match error {
        ApplyError::Untyped(text) => ApiError::new(Reason::Unknown, text),
        other => other.into(),
    })
}

/// A new number of replicas (at `path`), written through `scale`.
pub fn scaled(
    ctx: &Context,
    target: &Target,
    parent: &mut Value,
    path: &[&str],
    changed: bool,
    applied: Option<bool>,
) -> ApiResult<()> {
    let (operation, force) = match applied {
        Some(force) => (Operation::Apply, force),
        None => (Operation::Update, false),
    };
    with_writer(ctx, target, "scale", |writer| {
        apply::track_field(parent, path, changed, writer, operation, force)
    })
    .map_err(Into::into)
}

/// If the two differ in nothing but the times of their managed fields, the write is to change nothing.
pub fn keep_times_if_unchanged(old: &Value, new: &mut Value) {
    apply::keep_times_if_unchanged(old, new);
}
