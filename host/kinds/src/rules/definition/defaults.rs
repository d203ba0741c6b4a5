//! Defaults in a schema must fit it: no unknown fields, right types.

use oarlock_model::Cause;
use oarlock_schema::structural::{Node, check_value, prune_unknown};
use serde_json::Value;

use crate::rules::custom_meta;
use crate::rules::path::Causes;

pub fn check(out: &mut Causes, root: &Node, path: &str) {
    walk(out, root, path, false);
}

/// `inside_meta`: within an object's own apiVersion, kind or metadata, which have rules of their own.
fn walk(out: &mut Causes, node: &Node, path: &str, inside_meta: bool) {
    let inside_meta = inside_meta && !node.embedded_resource;
    if let Some(default) = &node.default {
        let at = format!("{path}.default");
        if !inside_meta {
            let mut pruned = default.clone();
            prune_inner(node, &mut pruned);
            if pruned != *default {
                out.push(Cause::invalid(&at, default, "must not have unknown fields"));
            }
        }
        if node.embedded_resource {
            custom_meta::embedded(out, default, &at);
        }
        for mut cause in check_value(node, default, None, "") {
            cause.field = match cause.field.as_str() {
                "<nil>" => at.clone(),
                field => format!("{at}.{field}"),
            };
            out.push(cause);
        }
    }
    if let Some(items) = &node.items {
        walk(out, items, &format!("{path}.items"), inside_meta);
    }
    for (name, property) in &node.properties {
        let own =
            node.embedded_resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        walk(
            out,
            property,
            &format!("{path}.properties[{name}]"),
            inside_meta || own,
        );
    }
}

/// Prunes a part of an object: its apiVersion, kind and metadata are fields like others, unless it is an object itself.
fn prune_inner(node: &Node, value: &mut Value) {
    if node.embedded_resource {
        prune_unknown(node, value);
        return;
    }
    let holder = Node {
        properties: [("value".to_owned(), node.clone())].into(),
        ..Node::default()
    };
    let mut held = serde_json::json!({ "value": value.take() });
    prune_unknown(&holder, &mut held);
    *value = held["value"].take();
}
