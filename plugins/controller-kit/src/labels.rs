//! Label selectors in their object form.

use std::collections::BTreeMap;

use oarlock_model::LabelSelector;
use serde_json::Value;

/// The text form of a `LabelSelector` object, for queries. `None`: it is malformed.
pub fn selector_text(selector: &Value) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
        for (key, value) in labels {
            parts.push(format!("{key}={}", value.as_str()?));
        }
    }
    for expression in selector
        .get("matchExpressions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str()?;
        let values = || -> Option<String> {
            let values: Option<Vec<&str>> = expression["values"]
                .as_array()?
                .iter()
                .map(Value::as_str)
                .collect();
            Some(values?.join(","))
        };
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values()?),
            "NotIn" => format!("{key} notin ({})", values()?),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    Some(parts.join(","))
}

/// Whether a `LabelSelector` object selects these labels. A malformed one selects nothing.
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    LabelSelector::from_object(selector)
        .is_ok_and(|s| s.matches_with(|key| labels.get(key).map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_say_what_objects_say() {
        let selector = json!({"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["x", "y"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(
            selector_text(&selector).as_deref(),
            Some("a=1,b in (x,y),!c")
        );
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert!(selects(&selector, &labels(&[("a", "1"), ("b", "y")])));
        assert!(!selects(
            &selector,
            &labels(&[("a", "1"), ("b", "y"), ("c", "")])
        ));
    }
}
