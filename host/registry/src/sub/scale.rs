//! `scale`: a view of an object's replicas as `autoscaling/v1.Scale`. Written back through the one update path.

use oarlock_kinds::custom::ScalePaths;
use oarlock_model::{ApiError, ApiResult, Cause, LabelSelector, meta, selector::Operator};
use oarlock_schema::patch::{json_patch, merge_patch};
use serde_json::{Map, Value, json};

use crate::codec::stored_value;
use crate::write::{Proposal, View};
use crate::{Body, Context, PatchKind, Registry, Stored, Target, Written, managed};

/// The Scale of a stored object.
pub fn of(target: &Target, stored: &Stored) -> ApiResult<Stored> {
    let object = stored.to_value().map_err(ApiError::internal)?;
    let path = spec_path(target);
    let found = path.iter().try_fold(&object, |at, field| at.get(field));
    if custom(target).is_some() && found.is_none() {
        let path = path.join(".");
        return Err(ApiError::internal(format!(
            "the spec replicas field \".{path}\" does not exist"
        )));
    }
    stored_value(&view(target, &object), stored.revision)
}

fn view(target: &Target, object: &Value) -> Value {
    let metadata = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ]
    .into_iter()
    .filter_map(|field| {
        Some((
            field.to_owned(),
            object.get("metadata")?.get(field)?.clone(),
        ))
    })
    .collect::<Map<_, _>>();
    let mut spec = Map::new();
    let number = |path: &[&str]| {
        let found = path.iter().try_fold(object, |at, field| at.get(field));
        found.and_then(Value::as_i64)
    };
    match number(&spec_path(target)) {
        None | Some(0) => {}
        Some(replicas) => {
            spec.insert("replicas".to_owned(), json!(replicas));
        }
    }
    let replicas = number(&status_path(target)).unwrap_or(0);
    let mut status = json!({"replicas": replicas});
    let selector = selector_text(target, object);
    if !selector.is_empty() {
        status["selector"] = Value::String(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn custom(target: &Target) -> Option<&ScalePaths> {
    target.row.custom.as_ref()?.scale.as_ref()
}

/// Where the wanted number of replicas stands.
fn spec_path(target: &Target) -> Vec<&str> {
    match custom(target) {
        Some(scale) => scale.spec_replicas.iter().map(String::as_str).collect(),
        None => vec!["spec", "replicas"],
    }
}

fn status_path(target: &Target) -> Vec<&str> {
    match custom(target) {
        Some(scale) => scale.status_replicas.iter().map(String::as_str).collect(),
        None => vec!["status", "replicas"],
    }
}

/// The selector as a query parameter would have it, keys sorted.
fn selector_text(target: &Target, object: &Value) -> String {
    if let Some(scale) = custom(target) {
        let path = scale.label_selector.iter().flatten();
        let found = path.clone().try_fold(object, |at, field| at.get(field));
        let text = found.filter(|_| path.count() > 0).and_then(Value::as_str);
        return text.unwrap_or_default().to_owned();
    }
    let Some(selector) = object.pointer("/spec/selector") else {
        return String::new();
    };
    let parsed = if target.row.kind == "ReplicationController" {
        selector.as_object().map(LabelSelector::from_labels)
    } else {
        LabelSelector::from_object(selector).ok()
    };
    let mut requirements = parsed.unwrap_or_default().requirements;
    requirements.sort_by(|a, b| a.key.cmp(&b.key));
    let texts = requirements.iter().map(|r| {
        let key = &r.key;
        match &r.operator {
            Operator::In(values) if values.len() == 1 => format!("{key}={}", values[0]),
            Operator::In(values) => format!("{key} in ({})", values.join(",")),
            Operator::NotIn(values) => format!("{key} notin ({})", values.join(",")),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
            Operator::GreaterThan(bound) => format!("{key}>{bound}"),
            Operator::LessThan(bound) => format!("{key}<{bound}"),
        }
    });
    texts.collect::<Vec<_>>().join(",")
}

pub async fn update(
    registry: &Registry,
    ctx: &Context,
    target: &Target,
    body: Body,
) -> ApiResult<Written> {
    let scale = super::small_body(body)?;
    if !scale.is_object() {
        return Err(ApiError::bad_request("the body is not a Scale"));
    }
    crate::metadata::match_name(target, &scale)?;
    write(registry, ctx, target, None, &mut |_| Ok(scale.clone())).await
}

pub async fn patch(
    registry: &Registry,
    ctx: &Context,
    target: &Target,
    kind: &PatchKind,
    patch: &Value,
) -> ApiResult<Written> {
    let applied = match kind {
        PatchKind::Apply { force } => Some(*force),
        _ => None,
    };
    write(registry, ctx, target, applied, &mut |scale| {
        let mut scale = scale.clone();
        match kind {
            PatchKind::Json => json_patch(&mut scale, patch),
            PatchKind::Merge | PatchKind::Strategic | PatchKind::Apply { .. } => {
                merge_patch(&mut scale, patch)
            }
        }
        .map_err(ApiError::from)?;
        Ok(scale)
    })
    .await
}

async fn write(
    registry: &Registry,
    ctx: &Context,
    target: &Target,
    applied: Option<bool>,
    change: &mut (dyn FnMut(&Value) -> ApiResult<Value> + Send),
) -> ApiResult<Written> {
    let whole = Target {
        subresource: String::new(),
        ..target.clone()
    };
    let written = registry
        .modify(ctx, &whole, View::Whole, &mut |old| {
            let scale = change(&view(target, old))?;
            let replicas = match scale.pointer("/spec/replicas") {
                None | Some(Value::Null) => 0,
                Some(value) => value.as_i64().ok_or_else(|| {
                    ApiError::bad_request("Scale in version \"v1\" cannot be handled as a Scale: spec.replicas is not an int32")
                })?,
            };
            // What a custom resource may say is checked with the rest of it.
            if replicas < 0 && target.row.custom.is_none() {
                let cause = Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
                return Err(ApiError::invalid("autoscaling", "Scale", &target.name, vec![cause]));
            }
            let mut object = old.clone();
            for field in ["uid", "resourceVersion"] {
                match scale.pointer(&format!("/metadata/{field}")).and_then(Value::as_str) {
                    Some(text) if !text.is_empty() => meta::set(&mut object, field, text),
                    _ => {}
                }
            }
            let path = spec_path(target);
            let mut at = meta::as_map_mut(&mut object);
            let Some((last, parents)) = path.split_last() else {
                return Err(ApiError::internal("a scale has no path"));
            };
            for field in parents {
                at = meta::child_map_mut(at, field);
            }
            let before = at.insert((*last).to_owned(), json!(replicas));
            let changed = before.and_then(|v| v.as_i64()).unwrap_or(0) != replicas;
            managed::scaled(ctx, target, &mut object, &path, changed, applied)?;
            Ok(Proposal { object, applied: true, whole: true })
        })
        .await?;
    Ok(Written {
        object: of(target, &written.object)?,
        created: false,
    })
}
