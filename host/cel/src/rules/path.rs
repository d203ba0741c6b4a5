//! A rule's `fieldPath`: `.spec.replicas`, `.labels['a.b']`.

use serde_json::Value as Json;

/// The path as field errors write it, if it leads to a field that the schema has.
pub(super) fn normalized(path: &str, schema: &Json) -> Option<String> {
    let (mut rest, mut at, mut text) = (path, schema, String::new());
    if !rest.starts_with(['.', '[']) {
        return None;
    }
    while !rest.is_empty() {
        let (name, after) = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            after.split_at(end)
        } else {
            let after = rest.strip_prefix("['")?;
            let end = after.find("']")?;
            (&after[..end], &after[end + 2..])
        };
        if name.is_empty() {
            return None;
        }
        if let Some(property) = at["properties"].get(name) {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
            at = property;
        } else if at["additionalProperties"].is_object() {
            text.extend(["[", name, "]"]);
            at = &at["additionalProperties"];
        } else {
            return None;
        }
        rest = after;
    }
    Some(text)
}
