//! The two faces of an event: core/v1, as it is stored, and events.k8s.io/v1.
//!
//! Nothing is lost either way: what one face lacks, it keeps in its `deprecated...` fields.

use serde_json::{Map, Value};

/// events.k8s.io/v1 name and core/v1 name of the fields that differ only in their names.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

fn set_api_version(map: &mut Map<String, Value>, api_version: &str) {
    map.insert("apiVersion".to_owned(), Value::from(api_version));
}

/// events.k8s.io/v1 to core/v1.
pub(crate) fn to_core(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (new, core) in RENAMED {
        rename(map, new, core);
    }
    map.entry("reportingComponent")
        .or_insert_with(|| Value::from(""));
    map.entry("reportingInstance")
        .or_insert_with(|| Value::from(""));
    map.entry("involvedObject")
        .or_insert_with(|| Value::Object(Map::new()));
    map.entry("source")
        .or_insert_with(|| Value::Object(Map::new()));
    for time in ["firstTimestamp", "lastTimestamp"] {
        map.entry(time).or_insert(Value::Null);
    }
    set_api_version(map, "v1");
}

/// core/v1 to events.k8s.io/v1.
pub(crate) fn from_core(object: &mut Value) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    for (new, core) in RENAMED {
        rename(map, core, new);
    }
    for name in ["reportingController", "reportingInstance"] {
        if map.get(name).and_then(Value::as_str) == Some("") {
            map.remove(name);
        }
    }
    set_api_version(map, "events.k8s.io/v1");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"kind": "Pod"},
            "message": "hi", "reason": "Started", "source": {"component": "x"}, "firstTimestamp": null,
            "lastTimestamp": null, "count": 2, "reportingComponent": "", "reportingInstance": "", "eventTime": null,
        });
        let mut event = core.clone();
        from_core(&mut event);
        assert_eq!(event["note"], "hi");
        assert_eq!(event["deprecatedCount"], 2);
        assert_eq!(event["apiVersion"], "events.k8s.io/v1");
        to_core(&mut event);
        assert_eq!(event, core);
    }
}
