//! Pieces of cells: ages, label lists, container names, "and N more".

use jiff::Timestamp;
use oarlock_model::time::{human_duration, parse_time};
use serde_json::{Map, Value, json};

pub const NONE: &str = "<none>";
pub const UNSET: &str = "<unset>";
pub const UNKNOWN: &str = "<unknown>";

/// The text at a JSON pointer; empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or("")
}

pub fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub fn flag(object: &Value, pointer: &str) -> bool {
    object
        .pointer(pointer)
        .and_then(Value::as_bool)
        .unwrap_or(false)
}

pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

pub fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

/// The text, or something in its stead if it is empty.
pub fn or<'a>(text: &'a str, stead: &'a str) -> &'a str {
    if text.is_empty() { stead } else { text }
}

/// Time since a time text; `<unknown>` if there is none.
pub fn since(time: &str, now: Timestamp) -> String {
    match parse_time(time) {
        Some(at) => human_duration(now.as_second() - at.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

pub fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(text(object, "/metadata/creationTimestamp"), now))
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(map: Option<&Map<String, Value>>) -> String {
    let mut texts: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or("")))
        .collect();
    texts.sort_unstable();
    or(&texts.join(","), NONE).to_owned()
}

/// A label selector object, in the order of keys: `a=b,c in (d,e),!f`; `<none>` if it selects by nothing.
pub fn selector(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|s| s.is_object()) else {
        return NONE.to_owned();
    };
    let mut parts: Vec<(String, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push((
            key.clone(),
            format!("{key}={}", value.as_str().unwrap_or("")),
        ));
    }
    for requirement in list(selector, "/matchExpressions") {
        let key = text(requirement, "/key");
        let mut values: Vec<&str> = list(requirement, "/values")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(requirement, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let texts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    or(&texts.join(","), NONE).to_owned()
}

/// The named field of each item, joined by commas.
pub fn join(items: &[Value], pointer: &str, separator: &str) -> String {
    items
        .iter()
        .map(|i| text(i, pointer))
        .collect::<Vec<_>>()
        .join(separator)
}

/// Names and images of a pod spec's containers.
pub fn containers(spec: Option<&Value>) -> [Value; 2] {
    let containers = spec.map(|s| list(s, "/containers")).unwrap_or_default();
    [
        json!(join(containers, "/name", ",")),
        json!(join(containers, "/image", ",")),
    ]
}

/// The first `max` texts, and how many more there are.
pub fn some_of(texts: &[String], max: usize, if_empty: &str) -> String {
    let shown = texts[..texts.len().min(max)].join(",");
    match texts.len() {
        0 => if_empty.to_owned(),
        n if n > max => format!("{shown} + {} more...", n - max),
        _ => shown,
    }
}

/// True if the object has this condition with status True.
pub fn condition(object: &Value, kind: &str) -> bool {
    list(object, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == kind && text(c, "/status") == "True")
}

/// An integer or a text (`25%`), as text; `N/A` and the like if absent.
pub fn int_or_text(value: Option<&Value>, absent: &str) -> Value {
    match value {
        Some(Value::String(text)) => json!(text),
        Some(Value::Number(number)) => json!(number.to_string()),
        _ => json!(absent),
    }
}

/// `RWO,ROX`
pub fn access_modes(modes: &[Value]) -> String {
    let short = [
        "ReadWriteOnce",
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOncePod",
    ]
    .into_iter()
    .zip(["RWO", "ROX", "RWX", "RWOP"])
    .filter(|(mode, _)| modes.iter().any(|m| m == mode))
    .map(|(_, short)| short);
    short.collect::<Vec<_>>().join(",")
}

/// Addresses of a load balancer's status: IPs or host names.
pub fn load_balancer(object: &Value) -> String {
    let ingress = list(object, "/status/loadBalancer/ingress");
    let addresses: Vec<&str> = ingress
        .iter()
        .map(|i| or(text(i, "/ip"), text(i, "/hostname")))
        .filter(|a| !a.is_empty())
        .collect();
    addresses.join(",")
}
