//! The two faces of a HorizontalPodAutoscaler: autoscaling/v2, as it is stored, and autoscaling/v1.
//!
//! What v1 has no field for, it keeps as JSON texts in annotations, so nothing is lost either way.

use jiff::Timestamp;
use oarlock_model::meta;
use serde_json::{Map, Value, json};

use crate::columns;

const V1: &str = "autoscaling/v1";
const V2: &str = "autoscaling/v2";
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// What a v1 object that names no target aims at.
const DEFAULT_CPU_PERCENT: i64 = 80;

/// v1 to v2.
pub(crate) fn to_v2(object: &mut Value) {
    if meta::api_version(object) != V1 {
        return;
    }
    let notes = take_notes(object);
    let map = meta::as_map_mut(object);
    map.insert("apiVersion".to_owned(), V2.into());
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        let percent = spec.remove("targetCPUUtilizationPercentage");
        let mut metrics: Vec<Value> = parsed(&notes, METRICS)
            .map(|list| list.iter().map(|m| widened(m, false)).collect())
            .unwrap_or_default();
        if let Some(percent) = percent.filter(Value::is_number) {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics
                .push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        if !metrics.is_empty() {
            spec.insert("metrics".to_owned(), metrics.into());
        }
        if let Some(behavior) = note(&notes, BEHAVIOR).filter(Value::is_object) {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) else {
        return;
    };
    let percent = status.remove("currentCPUUtilizationPercentage");
    let metrics: Option<Vec<Value>> = match (parsed(&notes, CURRENT_METRICS), percent) {
        (Some(list), _) => Some(list.iter().map(|m| widened(m, true)).collect()),
        (None, Some(percent)) if percent.is_number() => {
            let current = json!({"averageUtilization": percent});
            Some(vec![
                json!({"type": "Resource", "resource": {"name": "cpu", "current": current}}),
            ])
        }
        _ => None,
    };
    status.insert("currentMetrics".to_owned(), metrics.into());
    if let Some(conditions) = parsed(&notes, CONDITIONS) {
        status.insert("conditions".to_owned(), conditions.into());
    }
}

/// v2 to v1.
pub(crate) fn to_v1(object: &mut Value) {
    if meta::api_version(object) != V2 {
        return;
    }
    take_notes(object);
    let map = meta::as_map_mut(object);
    map.insert("apiVersion".to_owned(), V1.into());
    let mut notes: Vec<(&str, String)> = Vec::new();
    if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
        let metrics = taken_list(spec, "metrics");
        if let Some(percent) = metrics.iter().find_map(|m| cpu_percent(m, "target")) {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent.clone());
        }
        let others: Vec<String> = metrics
            .iter()
            .filter(|m| cpu_percent(m, "target").is_none())
            .map(|m| narrowed(m, false))
            .collect();
        if !others.is_empty() {
            notes.push((METRICS, format!("[{}]", others.join(","))));
        }
        if let Some(behavior) = spec.remove("behavior").filter(Value::is_object) {
            notes.push((BEHAVIOR, behavior_text(&behavior)));
        }
    }
    if let Some(status) = map.get_mut("status").and_then(Value::as_object_mut) {
        let metrics = taken_list(status, "currentMetrics");
        if let Some(percent) = metrics.iter().find_map(|m| cpu_percent(m, "current")) {
            status.insert(
                "currentCPUUtilizationPercentage".to_owned(),
                percent.clone(),
            );
        }
        let current: Vec<String> = metrics.iter().map(|m| narrowed(m, true)).collect();
        if !current.is_empty() {
            notes.push((CURRENT_METRICS, format!("[{}]", current.join(","))));
        }
        let conditions: Vec<String> = taken_list(status, "conditions")
            .iter()
            .map(|c| {
                let fields = ["type", "status", "lastTransitionTime", "reason", "message"];
                ordered(c, &fields)
            })
            .collect();
        if !conditions.is_empty() {
            notes.push((CONDITIONS, format!("[{}]", conditions.join(","))));
        }
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    if !notes.is_empty() {
        let annotations = meta::child_map_mut(meta::metadata_mut(object), "annotations");
        for (name, text) in notes {
            annotations.insert(name.to_owned(), text.into());
        }
    }
}

/// Defaults of a v1 object: as upstream, it goes through the form that both faces share.
pub(crate) fn default_v1(object: &mut Value) {
    let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
    let said = spec
        .get("targetCPUUtilizationPercentage")
        .is_some_and(Value::is_number);
    if !said && meta::annotation(object, METRICS).is_none() {
        let spec = meta::child_map_mut(meta::as_map_mut(object), "spec");
        spec.insert(
            "targetCPUUtilizationPercentage".to_owned(),
            DEFAULT_CPU_PERCENT.into(),
        );
    }
    to_v2(object);
    to_v1(object);
}

/// Cells of a v1 object: those of the stored form.
pub(crate) fn cells_v1(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut object = object.clone();
    to_v2(&mut object);
    (columns::columns("autoscaling", "HorizontalPodAutoscaler").cells)(&object, now)
}

/// Takes the annotations of this room out of an object.
fn take_notes(object: &mut Value) -> Map<String, Value> {
    let mut notes = Map::new();
    let metadata = meta::metadata_mut(object);
    if let Some(annotations) = metadata
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        for name in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
            if let Some(text) = annotations.remove(name) {
                notes.insert(name.to_owned(), text);
            }
        }
        if !notes.is_empty() && annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    notes
}

fn note(notes: &Map<String, Value>, name: &str) -> Option<Value> {
    serde_json::from_str(notes.get(name)?.as_str()?).ok()
}

fn parsed(notes: &Map<String, Value>, name: &str) -> Option<Vec<Value>> {
    match note(notes, name)? {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn taken_list(map: &mut Map<String, Value>, field: &str) -> Vec<Value> {
    match map.remove(field) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The percentage of a metric that v1 has a field for.
fn cpu_percent<'a>(metric: &'a Value, part: &str) -> Option<&'a Value> {
    let resource = metric.get("resource")?;
    let is_cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    is_cpu
        .then(|| resource.get(part)?.get("averageUtilization"))
        .flatten()
        .filter(|p| p.is_number())
}

/// The field of a metric in which its kind has its data.
fn source_field(metric: &Value) -> &'static str {
    match metric["type"].as_str().unwrap_or("") {
        "Object" => "object",
        "Pods" => "pods",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => "resource",
    }
}

/// A metric of v2, as v1 writes it into an annotation. `current`: a measured one.
fn narrowed(metric: &Value, current: bool) -> String {
    let field = source_field(metric);
    let source = &metric[field];
    let (part, prefix) = if current {
        (&source["current"], "current")
    } else {
        (&source["target"], "target")
    };
    let value = if current {
        "currentValue"
    } else {
        "targetValue"
    };
    let some = |v: &Value| (!v.is_null()).then(|| v.to_string());
    let zero = |v: &Value| {
        Some(if v.is_null() {
            "\"0\"".to_owned()
        } else {
            v.to_string()
        })
    };
    let average = format!("{prefix}AverageValue");
    let utilization = format!("{prefix}AverageUtilization");
    let name = some(&source["metric"]["name"]);
    let selector = some(&source["metric"]["selector"]);
    let members: Vec<(&str, Option<String>)> = match field {
        "object" => vec![
            (
                "target",
                Some(ordered(
                    &source["describedObject"],
                    &["kind", "name", "apiVersion"],
                )),
            ),
            ("metricName", name),
            (value, zero(&part["value"])),
            ("selector", selector),
            ("averageValue", some(&part["averageValue"])),
        ],
        "pods" => vec![
            ("metricName", name),
            (&average, zero(&part["averageValue"])),
            ("selector", selector),
        ],
        "external" => vec![
            ("metricName", name),
            ("metricSelector", selector),
            (
                value,
                if current {
                    zero(&part["value"])
                } else {
                    some(&part["value"])
                },
            ),
            (&average, some(&part["averageValue"])),
        ],
        _ => vec![
            ("name", some(&source["name"])),
            (&utilization, some(&part["averageUtilization"])),
            (
                &average,
                if current {
                    zero(&part["averageValue"])
                } else {
                    some(&part["averageValue"])
                },
            ),
            ("container", some(&source["container"])),
        ],
    };
    let kind = &metric["type"];
    format!("{{\"type\":{kind},{field:?}:{}}}", joined(&members))
}

fn joined(members: &[(&str, Option<String>)]) -> String {
    let parts: Vec<String> = members
        .iter()
        .filter_map(|(name, text)| Some(format!("{name:?}:{}", text.as_ref()?)))
        .collect();
    format!("{{{}}}", parts.join(","))
}

/// An object with its fields in this order.
fn ordered(object: &Value, fields: &[&str]) -> String {
    let members: Vec<(&str, Option<String>)> = fields
        .iter()
        .map(|f| (*f, object.get(*f).map(Value::to_string)))
        .collect();
    joined(&members)
}

fn behavior_text(behavior: &Value) -> String {
    let rules = |name: &str| {
        let rules = behavior.get(name).filter(|r| r.is_object())?;
        let policies = rules["policies"].as_array().map(|list| {
            let texts: Vec<String> = list
                .iter()
                .map(|p| ordered(p, &["type", "value", "periodSeconds"]))
                .collect();
            format!("[{}]", texts.join(","))
        });
        let plain = |field: &str| rules.get(field).map(Value::to_string);
        Some(joined(&[
            (
                "stabilizationWindowSeconds",
                plain("stabilizationWindowSeconds"),
            ),
            ("selectPolicy", plain("selectPolicy")),
            ("policies", policies),
            ("tolerance", plain("tolerance")),
        ]))
    };
    joined(&[
        ("scaleUp", rules("scaleUp")),
        ("scaleDown", rules("scaleDown")),
    ])
}

/// A metric as v1 wrote it into an annotation, in the form of v2.
fn widened(metric: &Value, current: bool) -> Value {
    let field = source_field(metric);
    let source = &metric[field];
    let prefix = if current { "current" } else { "target" };
    let mut part = Map::new();
    let mut take = |into: &str, from: &str| {
        if let Some(value) = source.get(from).filter(|v| !v.is_null()) {
            part.insert(into.to_owned(), value.clone());
        }
    };
    take("value", &format!("{prefix}Value"));
    take("averageValue", "averageValue");
    take("averageValue", &format!("{prefix}AverageValue"));
    take("averageUtilization", &format!("{prefix}AverageUtilization"));
    // What is an amount of nothing stands where v1 had to say something.
    if part.contains_key("averageValue")
        && field == "object"
        && part.get("value") == Some(&json!("0"))
    {
        part.remove("value");
    }
    if current
        && field == "resource"
        && part.contains_key("averageUtilization")
        && part.get("averageValue") == Some(&json!("0"))
    {
        part.remove("averageValue");
    }
    if !current {
        let kind = if part.contains_key("averageUtilization") {
            "Utilization"
        } else if part.contains_key("averageValue") {
            "AverageValue"
        } else {
            "Value"
        };
        part.insert("type".to_owned(), kind.into());
    }
    let mut wide = Map::new();
    wide.insert(prefix.to_owned(), Value::Object(part));
    for (into, from) in [
        ("name", "name"),
        ("container", "container"),
        ("describedObject", "target"),
    ] {
        if let Some(value) = source.get(from) {
            wide.insert(into.to_owned(), value.clone());
        }
    }
    if let Some(name) = source.get("metricName") {
        let mut identifier = json!({"name": name});
        if let Some(selector) = source.get("selector").or(source.get("metricSelector")) {
            identifier["selector"] = selector.clone();
        }
        wide.insert("metric".to_owned(), identifier);
    }
    json!({"type": metric["type"], field: wide})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_v1_object_aims_at_eighty_percent() {
        let mut object =
            json!({"apiVersion": V1, "metadata": {"name": "a"}, "spec": {"maxReplicas": 3}});
        default_v1(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 80);
        to_v2(&mut object);
        assert_eq!(
            object["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            80
        );
        assert_eq!(object["spec"].get("targetCPUUtilizationPercentage"), None);
    }

    #[test]
    fn what_v1_lacks_survives() {
        let object = json!({"apiVersion": V2, "metadata": {"name": "a", "annotations": {"mine": "x"}}, "spec": {
            "maxReplicas": 3,
            "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}], "selectPolicy": "Max"}},
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "r"},
                    "target": {"type": "Value", "value": "10"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            ]},
            "status": {"currentReplicas": 1, "desiredReplicas": 1, "conditions": [{"type": "A", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40}}}]}});
        let mut narrow = object.clone();
        to_v1(&mut narrow);
        assert_eq!(narrow["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(narrow["status"]["currentCPUUtilizationPercentage"], 40);
        assert_eq!(
            narrow["metadata"]["annotations"][CURRENT_METRICS],
            r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":40,"currentAverageValue":"0"}}]"#
        );
        assert_eq!(
            narrow["metadata"]["annotations"][BEHAVIOR],
            r#"{"scaleDown":{"selectPolicy":"Max","policies":[{"type":"Pods","value":1,"periodSeconds":15}]}}"#
        );
        to_v2(&mut narrow);
        assert_eq!(narrow, object);
    }
}
