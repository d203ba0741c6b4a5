//! Horizontal pod autoscalers, of both versions.

use oarlock_model::Quantity;
use serde_json::Value;

use super::metadata::meta_of;
use super::names::path_segment;
use super::path::{Causes, Path, items, some, text};
use super::workload::unchanged;
use crate::autoscalers;

pub fn autoscaler(new: &Value, old: Option<&Value>) -> Causes {
    // Both faces are checked in the stored form, whose paths upstream tells.
    if oarlock_model::meta::api_version(new) == "autoscaling/v1" {
        let stored = |object: &Value| {
            let mut object = object.clone();
            autoscalers::to_v2(&mut object);
            object
        };
        return autoscaler(&stored(new), old.map(stored).as_ref());
    }
    let mut out = Causes::new();
    let out = &mut out;
    meta_of(out, new, old, "autoscaling", "HorizontalPodAutoscaler");
    if old.is_some() {
        let at = Path::new("status");
        for field in ["currentReplicas", "desiredReplicas"] {
            at.field(field).not_negative(out, new["status"].get(field));
        }
    }
    if unchanged(new, old) {
        return std::mem::take(out);
    }
    let (spec, at) = (&new["spec"], Path::new("spec"));
    let number = |field: &str| spec.get(field).and_then(Value::as_i64);
    let most = number("maxReplicas").unwrap_or(0);
    if let Some(least) = number("minReplicas").filter(|n| *n < 1) {
        at.field("minReplicas").invalid(
            out,
            &Value::from(least),
            "must be greater than or equal to 1",
        );
    }
    if most == 0 {
        at.field("maxReplicas")
            .required(out, "must be set and greater than 0");
    } else if most < 1 {
        at.field("maxReplicas").invalid(
            out,
            &Value::from(most),
            "must be greater than or equal to 1",
        );
    }
    if number("minReplicas").is_some_and(|least| most < least) {
        at.field("maxReplicas").invalid(
            out,
            &Value::from(most),
            "must be greater than or equal to `minReplicas`",
        );
    }
    let target = &spec["scaleTargetRef"];
    let target_at = at.field("scaleTargetRef");
    for field in ["kind", "name"] {
        match text(target, field) {
            "" => target_at.field(field).required(out, ""),
            value => target_at
                .field(field)
                .all_invalid(out, value, path_segment(value)),
        }
    }
    let api_version = text(target, "apiVersion");
    let core_controller = api_version == "v1" && text(target, "kind") == "ReplicationController";
    if !api_version.contains('/') && !core_controller {
        target_at.field("apiVersion").invalid_text(
            out,
            api_version,
            "apiVersion must specify API group",
        );
    }
    let list_at = at.field("metrics");
    for (i, metric) in items(spec, "metrics") {
        metric_spec(out, metric, &list_at.index(i));
    }
    if let Some(behavior) = some(spec, "behavior") {
        let at = at.field("behavior");
        for name in ["scaleUp", "scaleDown"] {
            if let Some(rules) = some(behavior, name) {
                scaling_rules(out, rules, &at.field(name));
            }
        }
    }
    std::mem::take(out)
}

/// Kinds of metrics, and the fields that they have their data in; the order in which upstream looks at them.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];
const TOO_MANY_SOURCES: &str = "must populate the given metric source only";
const NO_SOURCE: &str = "must populate information for the given metric source";

fn metric_spec(out: &mut Causes, metric: &Value, at: &Path<'_>) {
    let kinds = [
        "ContainerResource",
        "External",
        "Object",
        "Pods",
        "Resource",
    ];
    let kind = text(metric, "type");
    if kind.is_empty() {
        at.field("type")
            .required(out, "must specify a metric source type");
    }
    if !kinds.contains(&kind) {
        at.field("type").unsupported(out, kind, &kinds);
    }
    let present: Vec<&str> = SOURCES
        .iter()
        .map(|(_, field)| *field)
        .filter(|field| some(metric, field).is_some())
        .collect();
    if let Some(first) = present.first() {
        source(out, &metric[*first], first, &at.field(first));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind);
    match expected {
        Some((_, field)) if !present.contains(field) => at.field(field).required(out, NO_SOURCE),
        Some(_) => {}
        None => at.field("type").unsupported(out, kind, &kinds),
    }
    if present.len() != 1 {
        for extra in present {
            if expected.is_none_or(|(_, field)| *field != extra) {
                at.field(extra).forbidden(out, TOO_MANY_SOURCES);
            }
        }
    }
}

/// The data of a metric, in the field of its kind.
fn source(out: &mut Causes, source: &Value, field: &str, at: &Path<'_>) {
    if field == "object" {
        let target = &source["describedObject"];
        let at = at.field("describedObject");
        for field in ["kind", "name"] {
            match text(target, field) {
                "" => at.field(field).required(out, ""),
                value => at.field(field).all_invalid(out, value, path_segment(value)),
            }
        }
    }
    if matches!(field, "pods" | "object" | "external") {
        let metric_at = at.field("metric");
        match text(&source["metric"], "name") {
            "" => metric_at
                .field("name")
                .required(out, "must specify a metric name"),
            name => metric_at
                .field("name")
                .all_invalid(out, name, path_segment(name)),
        }
    } else {
        if text(source, "name").is_empty() {
            at.field("name")
                .required(out, "must specify a resource name");
        }
        if field == "containerResource" {
            match text(source, "container") {
                "" => at
                    .field("container")
                    .required(out, "must specify a container"),
                name => at
                    .field("container")
                    .all_invalid(out, name, super::names::dns_label(name)),
            }
        }
    }
    let target = &source["target"];
    let at = at.field("target");
    metric_target(out, target, &at);
    let has = |field: &str| some(target, field).is_some();
    let missing = match field {
        "object" if !has("value") && !has("averageValue") => {
            Some("must set either a target value or averageValue")
        }
        "external" if !has("value") && !has("averageValue") => {
            Some("must set either a target value for metric or a per-pod target")
        }
        "pods" if !has("averageValue") => Some("must specify a positive target averageValue"),
        _ => None,
    };
    if let Some(why) = missing {
        at.field("averageValue").required(out, why);
    }
    if field == "external" && has("value") && has("averageValue") {
        at.field("value").forbidden(
            out,
            "may not set both a target value for metric and a per-pod target",
        );
    }
    if matches!(field, "resource" | "containerResource") {
        match (has("averageUtilization"), has("averageValue")) {
            (false, false) => at.field("averageUtilization").required(
                out,
                "must set either a target raw value or a target utilization",
            ),
            (true, true) => at.field("averageValue").forbidden(
                out,
                "may not set both a target raw value and a target utilization",
            ),
            _ => {}
        }
    }
}

fn metric_target(out: &mut Causes, target: &Value, at: &Path<'_>) {
    let kind = text(target, "type");
    if kind.is_empty() {
        at.field("type")
            .required(out, "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        at.field("type").invalid_text(
            out,
            kind,
            "must be either Utilization, Value, or AverageValue",
        );
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = some(target, field)
            && Quantity::from_json(amount).is_ok_and(|q| q.is_zero() || q.is_negative())
        {
            at.field(field).invalid(out, amount, "must be positive");
        }
    }
    let percent = target.get("averageUtilization").and_then(Value::as_i64);
    if let Some(percent) = percent.filter(|p| *p < 1) {
        at.field("averageUtilization").invalid(
            out,
            &Value::from(percent),
            "must be greater than 0",
        );
    }
}

const MAX_WINDOW_SECONDS: i64 = 3600;
const MAX_PERIOD_SECONDS: i64 = 1800;

fn scaling_rules(out: &mut Causes, rules: &Value, at: &Path<'_>) {
    let window_at = at.field("stabilizationWindowSeconds");
    let window = rules
        .get("stabilizationWindowSeconds")
        .and_then(Value::as_i64);
    if let Some(seconds) = window.filter(|s| *s < 0) {
        window_at.invalid(
            out,
            &Value::from(seconds),
            "must be greater than or equal to zero",
        );
    }
    if let Some(seconds) = window.filter(|s| *s > MAX_WINDOW_SECONDS) {
        let detail = format!("must be less than or equal to {MAX_WINDOW_SECONDS}");
        window_at.invalid(out, &Value::from(seconds), &detail);
    }
    if let Some(policy) = some(rules, "selectPolicy").and_then(Value::as_str) {
        at.field("selectPolicy")
            .one_of(out, policy, &["Disabled", "Max", "Min"]);
    }
    let list_at = at.field("policies");
    if items(rules, "policies").next().is_none() {
        list_at.required(out, "must specify at least one Policy");
    }
    for (i, policy) in items(rules, "policies") {
        let at = list_at.index(i);
        at.field("type")
            .one_of(out, text(policy, "type"), &["Percent", "Pods"]);
        let number = |field: &str| policy.get(field).and_then(Value::as_i64).unwrap_or(0);
        for field in ["value", "periodSeconds"] {
            if number(field) <= 0 {
                at.field(field).invalid(
                    out,
                    &Value::from(number(field)),
                    "must be greater than zero",
                );
            }
        }
        let period = number("periodSeconds");
        if period > MAX_PERIOD_SECONDS {
            let detail = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
            at.field("periodSeconds")
                .invalid(out, &Value::from(period), &detail);
        }
    }
}
