//! Limit ranges and resource quotas.

use oarlock_model::Quantity;
use serde_json::Value;

use super::metadata::{meta_of, object_meta, object_meta_update};
use super::names::qualified_name;
use super::path::{Causes, Path, fields, items, list, some, text};
use super::resources::{
    container_resource_name, is_overcommittable, is_standard_quota, quantity, resource_name,
};

pub fn limit_range(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    if let Some(old) = old {
        object_meta_update(&mut out, new, old, 1);
    }
    object_meta(&mut out, new, "", "LimitRange");
    let at = Path::new("spec");
    let list_at = at.field("limits");
    let mut types: Vec<&str> = Vec::new();
    for (i, limit) in items(&new["spec"], "limits") {
        let at = list_at.index(i);
        let kind = text(limit, "type");
        limit_type(&mut out, kind, &at.field("type"));
        if types.contains(&kind) {
            at.field("type").duplicate(&mut out, kind);
        }
        types.push(kind);
        limit_item(&mut out, limit, kind, &at);
    }
    out
}

fn limit_type(out: &mut Causes, kind: &str, at: &Path<'_>) {
    let errors = qualified_name(kind);
    if !errors.is_empty() {
        at.all_invalid(out, kind, errors);
    } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim")
    {
        at.invalid_text(
            out,
            kind,
            "must be a standard limit type or fully qualified",
        );
    }
}

fn limit_item(out: &mut Causes, limit: &Value, kind: &str, at: &Path<'_>) {
    let mut names: Vec<&str> = Vec::new();
    let mut check = |out: &mut Causes, field: &str| {
        let list_at = at.field(field);
        for (resource, _) in fields(limit, field) {
            let at = list_at.key(resource);
            if matches!(kind, "Pod" | "Container") {
                container_resource_name(out, resource, &at);
            } else {
                resource_name(out, resource, &at);
            }
            names.push(resource);
        }
    };
    check(out, "max");
    check(out, "min");
    let is_pod = kind == "Pod";
    for field in ["default", "defaultRequest"] {
        if !is_pod {
            check(out, field);
        } else if fields(limit, field).next().is_some() {
            let detail = "may not be specified when `type` is 'Pod'";
            at.field(field).forbidden(out, detail);
        }
    }
    let storage = |field: &str| limit[field].get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        at.field("limits").required(
            out,
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    check(out, "maxLimitRequestRatio");
    names.sort_unstable();
    names.dedup();
    for name in names {
        compare(out, limit, name, is_pod, at);
    }
}

/// How the amounts of one resource go together.
fn compare(out: &mut Causes, limit: &Value, name: &str, is_pod: bool, at: &Path<'_>) {
    let of = |field: &str| {
        limit
            .get(field)?
            .get(name)
            .and_then(|v| Quantity::from_json(v).ok())
    };
    let (least, most) = (of("min"), of("max"));
    let usual = of("default").filter(|_| !is_pod);
    let request = of("defaultRequest").filter(|_| !is_pod);
    let ratio = of("maxLimitRequestRatio");
    let mut refuse = |field: &str, value: Quantity, detail: String| {
        let at = at.field(field);
        at.key(name).invalid_text(out, &value.to_string(), &detail);
    };
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        let detail = format!("min value {least} is greater than max value {most}");
        refuse("min", least, detail);
    }
    if let (Some(request), Some(least)) = (request, least)
        && least > request
    {
        let detail = format!("min value {least} is greater than default request value {request}");
        refuse("defaultRequest", request, detail);
    }
    if let (Some(request), Some(most)) = (request, most)
        && request > most
    {
        let detail = format!("default request value {request} is greater than max value {most}");
        refuse("defaultRequest", request, detail);
    }
    if let (Some(request), Some(usual)) = (request, usual)
        && request > usual
    {
        let detail =
            format!("default request value {request} is greater than default limit value {usual}");
        refuse("defaultRequest", request, detail);
    }
    if let (Some(usual), Some(least)) = (usual, least)
        && least > usual
    {
        let detail = format!("min value {least} is greater than default value {usual}");
        refuse("default", least, detail);
    }
    if let (Some(usual), Some(most)) = (usual, most)
        && usual > most
    {
        let detail = format!("default value {usual} is greater than max value {most}");
        refuse("default", most, detail);
    }
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_units(1) {
            refuse(
                "maxLimitRequestRatio",
                ratio,
                format!("ratio {ratio} is less than 1"),
            );
        }
        if let (Some(least), Some(most)) = (least, most) {
            let greatest = real(most) / real(least);
            if real(ratio) > greatest {
                let detail = format!("ratio {ratio} is greater than max/min = {greatest:.6}");
                refuse("maxLimitRequestRatio", ratio, detail);
            }
        }
    }
    if let (Some(usual), Some(request)) = (usual, request)
        && !is_overcommittable(name)
        && usual != request
    {
        let detail =
            format!("default value {usual} must equal to defaultRequest value {request} in {name}");
        refuse("defaultRequest", request, detail);
    }
}

fn real(amount: Quantity) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "only ratios are looked at")]
    let milli = amount.milli_value() as f64;
    milli / 1000.0
}

const BEST_EFFORT: &str = "BestEffort";
const NOT_BEST_EFFORT: &str = "NotBestEffort";
const TERMINATING: &str = "Terminating";
const NOT_TERMINATING: &str = "NotTerminating";
const PRIORITY: &str = "PriorityClass";
const CROSS_NAMESPACE: &str = "CrossNamespacePodAffinity";
const ATTRIBUTES: &str = "VolumeAttributesClass";

fn is_scope(scope: &str) -> bool {
    [
        TERMINATING,
        NOT_TERMINATING,
        BEST_EFFORT,
        NOT_BEST_EFFORT,
        PRIORITY,
        CROSS_NAMESPACE,
        ATTRIBUTES,
    ]
    .contains(&scope)
}

/// True if counting a resource in this scope makes sense.
fn scope_fits(scope: &str, resource: &str) -> bool {
    let of_pods = matches!(
        resource,
        "pods"
            | "cpu"
            | "memory"
            | "ephemeral-storage"
            | "requests.cpu"
            | "requests.memory"
            | "requests.ephemeral-storage"
            | "limits.cpu"
            | "limits.memory"
            | "limits.ephemeral-storage"
    );
    match scope {
        TERMINATING | NOT_TERMINATING | NOT_BEST_EFFORT | PRIORITY | CROSS_NAMESPACE => of_pods,
        BEST_EFFORT => resource == "pods",
        ATTRIBUTES => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn quota_amounts(out: &mut Causes, holder: &Value, field: &str, at: &Path<'_>) {
    let list_at = at.field(field);
    for (resource, value) in fields(holder, field) {
        let at = list_at.key(resource);
        resource_name(out, resource, &at);
        if !resource.contains('/') && !is_standard_quota(resource) {
            at.invalid_text(out, resource, "must be a standard resource for quota");
        }
        quantity(out, resource, value, &at);
    }
}

pub fn resource_quota(new: &Value, old: Option<&Value>) -> Causes {
    let mut out = Causes::new();
    meta_of(&mut out, new, old, "", "ResourceQuota");
    let status_at = Path::new("status");
    if old.is_none_or(|old| old["status"] != new["status"]) {
        for field in ["hard", "used"] {
            quota_amounts(&mut out, &new["status"], field, &status_at);
        }
    }
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return out;
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    quota_amounts(&mut out, spec, "hard", &at);
    scopes(&mut out, spec, &at.field("scopes"));
    if let Some(selector) = some(spec, "scopeSelector") {
        scope_selector(&mut out, spec, selector, &at.field("scopeSelector"));
    }
    if let Some(old) = old {
        let sorted = |spec: &Value| {
            let mut scopes: Vec<String> =
                list(spec, "scopes").iter().map(Value::to_string).collect();
            scopes.sort();
            scopes.dedup();
            scopes
        };
        if sorted(spec) != sorted(&old["spec"]) {
            let shown = spec.get("scopes").unwrap_or(&Value::Null);
            at.field("scopes")
                .invalid(&mut out, shown, "field is immutable");
        }
    }
    out
}

fn conflicts(out: &mut Causes, scopes: &[&str], shown: &Value, at: &Path<'_>) {
    for (a, b) in [
        (BEST_EFFORT, NOT_BEST_EFFORT),
        (TERMINATING, NOT_TERMINATING),
    ] {
        if scopes.contains(&a) && scopes.contains(&b) {
            at.invalid(out, shown, "conflicting scopes");
        }
    }
}

fn scopes(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let shown = spec.get("scopes").unwrap_or(&Value::Null);
    let scopes: Vec<&str> = list(spec, "scopes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for scope in &scopes {
        if !is_scope(scope) {
            at.invalid(out, shown, "unsupported scope");
        }
        for (resource, _) in fields(spec, "hard") {
            if is_standard_quota(resource) && !scope_fits(scope, resource) {
                at.invalid(out, shown, "unsupported scope applied to resource");
            }
        }
    }
    conflicts(out, &scopes, shown, at);
}

fn scope_selector(out: &mut Causes, spec: &Value, selector: &Value, at: &Path<'_>) {
    let at = at.field("matchExpressions");
    let mut named = Vec::new();
    for requirement in list(selector, "matchExpressions") {
        let scope = text(requirement, "scopeName");
        let operator = text(requirement, "operator");
        if !is_scope(scope) {
            at.field("scopeName")
                .invalid_text(out, scope, "unsupported scope");
        }
        for (resource, _) in fields(spec, "hard") {
            if is_standard_quota(resource) && !scope_fits(scope, resource) {
                let message = format!(
                    "Invalid value: {}: unsupported scope applied to resource",
                    super::face::show("ScopeSelector", selector)
                );
                out.push(oarlock_model::Cause::new(
                    "FieldValueInvalid",
                    at.to_string(),
                    message,
                ));
            }
        }
        let only_exists = [
            BEST_EFFORT,
            NOT_BEST_EFFORT,
            TERMINATING,
            NOT_TERMINATING,
            CROSS_NAMESPACE,
        ];
        if only_exists.contains(&scope) && operator != "Exists" {
            at.field("operator").invalid_text(out, operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity");
        }
        let values = list(requirement, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => at.field("values").required(
                out,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                    at.field("values")
                        .invalid(out, &Value::Array(values.to_vec()), detail);
                }
            }
            other => at
                .field("operator")
                .invalid_text(out, other, "not a valid selector operator"),
        }
        named.push(scope);
    }
    let shown = spec.get("scopes").unwrap_or(&Value::Null);
    conflicts(out, &named, shown, &at);
}
