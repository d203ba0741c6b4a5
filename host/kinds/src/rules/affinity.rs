//! Node affinity, pod affinity and anti-affinity.

use serde_json::Value;

use super::metadata::label_selector;
use super::names::{dns_label, dns_subdomain, label_value, qualified_name};
use super::path::{Causes, Path, items, list, some, text};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn affinity(out: &mut Causes, spec: &Value, at: &Path<'_>) {
    let Some(affinity) = some(spec, "affinity") else {
        return;
    };
    if let Some(node) = some(affinity, "nodeAffinity") {
        let at = at.field("nodeAffinity");
        if let Some(required) = some(node, REQUIRED) {
            node_selector(out, required, &at.field(REQUIRED));
        }
        let list_at = at.field(PREFERRED);
        for (i, term) in items(node, PREFERRED) {
            let at = list_at.index(i);
            weight(out, term, &at);
            node_selector_term(out, &term["preference"], &at.field("preference"), false);
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = some(affinity, kind) {
            let at = at.field(kind);
            let list_at = at.field(REQUIRED);
            for (i, term) in items(pods, REQUIRED) {
                pod_term(out, term, &list_at.index(i));
            }
            let list_at = at.field(PREFERRED);
            for (i, term) in items(pods, PREFERRED) {
                let at = list_at.index(i);
                weight(out, term, &at);
                pod_term(out, &term["podAffinityTerm"], &at.field("podAffinityTerm"));
            }
        }
    }
}

fn weight(out: &mut Causes, term: &Value, at: &Path<'_>) {
    let weight = term.get("weight").and_then(Value::as_i64).unwrap_or(0);
    if !(1..=100).contains(&weight) {
        at.field("weight")
            .invalid(out, &Value::from(weight), "must be in the range 1-100");
    }
}

/// The terms of a node selector, of which one must hold.
pub fn node_selector(out: &mut Causes, selector: &Value, at: &Path<'_>) {
    let list_at = at.field("nodeSelectorTerms");
    if list(selector, "nodeSelectorTerms").is_empty() {
        list_at.required(out, "must have at least one node selector term");
    }
    for (i, term) in items(selector, "nodeSelectorTerms") {
        node_selector_term(out, term, &list_at.index(i), true);
    }
}

/// One term. Where it is only preferred, its values are not looked at.
fn node_selector_term(out: &mut Causes, term: &Value, at: &Path<'_>, required: bool) {
    let list_at = at.field("matchExpressions");
    for (i, requirement) in items(term, "matchExpressions") {
        let at = list_at.index(i);
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    at.field("values")
                        .required(out, "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    at.field("values").forbidden(
                        out,
                        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                    );
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    at.field("values").required(
                        out,
                        "must be specified single value when `operator` is 'Lt' or 'Gt'",
                    );
                }
            }
            other => at
                .field("operator")
                .invalid_text(out, other, "not a valid selector operator"),
        }
        let key = text(requirement, "key");
        at.field("key").all_invalid(out, key, qualified_name(key));
        let values_at = at.field("values");
        let checked = values.iter().filter(|_| required);
        for (j, value) in checked.filter_map(Value::as_str).enumerate() {
            values_at
                .index(j)
                .all_invalid(out, value, label_value(value));
        }
    }
    let list_at = at.field("matchFields");
    for (i, requirement) in items(term, "matchFields") {
        let at = list_at.index(i);
        if !matches!(text(requirement, "operator"), "In" | "NotIn") {
            at.field("operator").invalid_text(
                out,
                text(requirement, "operator"),
                "not a valid selector operator",
            );
        } else if list(requirement, "values").len() != 1 {
            at.field("values").required(
                out,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        let key = text(requirement, "key");
        if key != "metadata.name" {
            at.field("key")
                .invalid_text(out, key, "not a valid field selector key");
            continue;
        }
        let values_at = at.field("values");
        for (j, value) in items(requirement, "values") {
            let value = value.as_str().unwrap_or("");
            values_at
                .index(j)
                .all_invalid(out, value, dns_subdomain(value));
        }
    }
}

fn pod_term(out: &mut Causes, term: &Value, at: &Path<'_>) {
    label_selector(out, term.get("labelSelector"), &at.field("labelSelector"));
    label_selector(
        out,
        term.get("namespaceSelector"),
        &at.field("namespaceSelector"),
    );
    for namespace in list(term, "namespaces").iter().filter_map(Value::as_str) {
        at.field("namespace")
            .all_invalid(out, namespace, dns_label(namespace));
    }
    match_label_keys(out, term, at);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        at.field("topologyKey").required(out, "can not be empty");
    }
    at.field("topologyKey")
        .all_invalid(out, key, qualified_name(key));
}

/// Keys whose values are taken from the pod: they may not stand in the selector as well.
fn match_label_keys(out: &mut Causes, term: &Value, at: &Path<'_>) {
    let selector = some(term, "labelSelector");
    let keys =
        |field: &str| -> Vec<&str> { list(term, field).iter().filter_map(Value::as_str).collect() };
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let at = at.field(field);
        let keys = keys(field);
        if selector.is_none() && !keys.is_empty() {
            at.forbidden(out, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.into_iter().enumerate() {
            at.index(i).all_invalid(out, key, qualified_name(key));
        }
    }
    let matching = keys("matchLabelKeys");
    if let Some(selector) = selector {
        let mut seen: Vec<&str> = super::path::fields(selector, "matchLabels")
            .map(|(key, _)| key.as_str())
            .collect();
        for requirement in list(selector, "matchExpressions") {
            let key = text(requirement, "key");
            if seen.contains(&key)
                && let Some(i) = matching.iter().position(|k| *k == key)
            {
                let detail = "exists in both matchLabelKeys and labelSelector";
                at.index(i).invalid_text(out, key, detail);
            }
            seen.push(key);
        }
    }
    let other = keys("mismatchLabelKeys");
    let list_at = at.field("matchLabelKeys");
    for (i, key) in matching
        .iter()
        .enumerate()
        .filter(|(_, k)| other.contains(k))
    {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        list_at.index(i).invalid_text(out, key, detail);
    }
}
