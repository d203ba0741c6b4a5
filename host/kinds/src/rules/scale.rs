//! Horizontal pod autoscalers, of both versions.

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
    if most < 1 {
        at.field("maxReplicas")
            .required(out, "must be set and greater than 0");
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
        return;
    }
    let field = match kind {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        other => {
            at.field("type").unsupported(out, other, &kinds);
            at.field("type").unsupported(out, other, &kinds);
            return;
        }
    };
    let at = at.field(field);
    let Some(source) = some(metric, field) else {
        at.required(out, "must populate information for the given metric source");
        return;
    };
    if matches!(field, "pods" | "object" | "external") {
        let name = text(&source["metric"], "name");
        let metric_at = at.field("metric");
        if name.is_empty() {
            metric_at
                .field("name")
                .required(out, "must specify a metric name");
        } else {
            metric_at
                .field("name")
                .all_invalid(out, name, path_segment(name));
        }
    } else if text(source, "name").is_empty() {
        at.field("name")
            .required(out, "must specify a resource name");
    }
    let target = &source["target"];
    let target_at = at.field("target");
    let target_type = text(target, "type");
    if target_type.is_empty() {
        target_at
            .field("type")
            .required(out, "must specify a metric target type");
    }
    if !matches!(target_type, "Utilization" | "Value" | "AverageValue") {
        target_at.field("type").invalid_text(
            out,
            target_type,
            "must be either Utilization, Value, or AverageValue",
        );
    }
    if matches!(field, "resource" | "containerResource")
        && some(target, "averageUtilization").is_none()
        && some(target, "averageValue").is_none()
    {
        let detail = "must set either a target raw value or a target utilization";
        target_at.field("averageUtilization").required(out, detail);
    }
}

fn scaling_rules(out: &mut Causes, rules: &Value, at: &Path<'_>) {
    at.field("stabilizationWindowSeconds").between(
        out,
        rules.get("stabilizationWindowSeconds"),
        0,
        3600,
    );
    if let Some(policy) = some(rules, "selectPolicy").and_then(Value::as_str) {
        at.field("selectPolicy")
            .one_of(out, policy, &["Disabled", "Max", "Min"]);
    }
    let list_at = at.field("policies");
    for (i, policy) in items(rules, "policies") {
        let at = list_at.index(i);
        at.field("type")
            .one_of(out, text(policy, "type"), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = policy.get(field).and_then(Value::as_i64).unwrap_or(0);
            if number <= 0 {
                at.field(field)
                    .invalid(out, &Value::from(number), "must be greater than zero");
            }
        }
    }
}
