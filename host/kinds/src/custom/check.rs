//! What is wrong with a custom resource: its type, metadata, schema, scale, embedded objects and lists.
//!
//! Rules in CEL (`x-kubernetes-validations`) are looked at last, and only if nothing was found that would make them fail for
//! no fault of their own.

use oarlock_model::{Cause, meta};
use oarlock_schema::structural::{Node, check_lists, check_value};
use serde_json::Value;

use super::Custom;
use crate::rules::custom_meta;

pub(super) fn check(
    custom: &Custom,
    new: &Value,
    old: Option<&Value>,
    subresource: &str,
) -> Vec<Cause> {
    let mut out = type_faults(custom, new);
    if !out.is_empty() {
        return out;
    }
    custom_meta::object(&mut out, new, old);
    if subresource == "status" {
        status_faults(custom, new, old, &mut out);
    } else {
        out.extend(check_value(&custom.node, new, old, ""));
        scale_spec(custom, new, &mut out);
    }
    scale_status(custom, new, &mut out);
    embedded(&custom.node, new, "", &mut out);
    let mut before = Vec::new();
    if let Some(old) = old {
        check_lists(&custom.node, old, "", &mut before);
    }
    // Lists that were wrong before may stay so.
    if before.is_empty() {
        check_lists(&custom.node, new, "", &mut out);
    }
    if custom.rules.is_empty() {
        return out;
    }
    if out.iter().any(blocks_rules) {
        let why = "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        out.push(Cause::new("FieldValueInvalid", "<nil>", why));
    } else {
        out.extend(custom.rules.check(new, old).causes);
    }
    out
}

/// Faults after which rules are not looked at.
fn blocks_rules(cause: &Cause) -> bool {
    matches!(
        cause.reason.as_str(),
        "FieldValueNotSupported"
            | "FieldValueRequired"
            | "FieldValueTooLong"
            | "FieldValueTooMany"
            | "FieldValueTypeInvalid"
    )
}

fn type_faults(custom: &Custom, new: &Value) -> Vec<Cause> {
    let mut out = Vec::new();
    let api_version = custom.api_version(&custom.version);
    for (field, has, must) in [
        ("kind", meta::kind(new), custom.kind.as_str()),
        ("apiVersion", meta::api_version(new), &api_version),
    ] {
        if has != must {
            out.push(Cause::invalid(
                field,
                &Value::String(has.to_owned()),
                &format!("must be {must}"),
            ));
        }
    }
    out
}

/// A status is checked by the schema of `status` alone.
fn status_faults(custom: &Custom, new: &Value, old: Option<&Value>, out: &mut Vec<Cause>) {
    let (Some(node), Some(status)) = (custom.node.properties.get("status"), new.get("status"))
    else {
        return;
    };
    let old = old.map(|o| o.get("status").unwrap_or(&Value::Null));
    for mut cause in check_value(node, status, old, "") {
        cause.field = if cause.field == "<nil>" {
            "status".to_owned()
        } else {
            format!("status.{}", cause.field)
        };
        out.push(cause);
    }
}

/// A value at a path of fields, or what upstream says of one that is of another type.
fn nested<'a>(
    object: &'a Value,
    path: &[String],
    wanted: &str,
    fits: fn(&Value) -> bool,
) -> Result<Option<&'a Value>, String> {
    let mut at = object;
    for (depth, field) in path.iter().enumerate() {
        let Value::Object(map) = at else {
            return Err(accessor_error(
                &path[..depth],
                at,
                "map[string]interface {}",
            ));
        };
        match map.get(field) {
            None => return Ok(None),
            Some(below) => at = below,
        }
    }
    if fits(at) {
        Ok(Some(at))
    } else {
        Err(accessor_error(path, at, wanted))
    }
}

fn accessor_error(path: &[String], value: &Value, wanted: &str) -> String {
    let (shown, ty) = match value {
        Value::String(text) => (text.clone(), "string"),
        Value::Bool(flag) => (flag.to_string(), "bool"),
        Value::Number(n) if n.is_f64() => (n.to_string(), "float64"),
        Value::Number(n) => (n.to_string(), "int64"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
        Value::Null => ("<nil>".to_owned(), "<nil>"),
    };
    format!(
        ".{} accessor error: {shown} is of the type {ty}, expected {wanted}",
        path.join(".")
    )
}

fn replicas(new: &Value, path: &[String], out: &mut Vec<Cause>) {
    let field = format!(".{}", path.join("."));
    match nested(new, path, "int64", |v| v.is_i64() || v.is_u64()) {
        Err(why) => out.push(Cause::invalid(field, &Value::from(0), &why)),
        Ok(None) => {}
        Ok(Some(value)) => {
            let number = value.as_i64().unwrap_or(i64::MAX);
            if number < 0 {
                out.push(Cause::invalid(
                    field,
                    value,
                    "should be a non-negative integer",
                ));
            } else if number > i64::from(i32::MAX) {
                let why = format!("should be less than or equal to {}", i32::MAX);
                out.push(Cause::invalid(field, value, &why));
            }
        }
    }
}

fn scale_spec(custom: &Custom, new: &Value, out: &mut Vec<Cause>) {
    if let Some(scale) = &custom.scale {
        replicas(new, &scale.spec_replicas, out);
    }
}

fn scale_status(custom: &Custom, new: &Value, out: &mut Vec<Cause>) {
    let Some(scale) = &custom.scale else { return };
    replicas(new, &scale.status_replicas, out);
    if let Some(path) = &scale.label_selector
        && let Err(why) = nested(new, path, "string", Value::is_string)
    {
        out.push(Cause::invalid(
            format!(".{}", path.join(".")),
            &Value::String(String::new()),
            &why,
        ));
    }
}

/// Objects inside the object have a type and proper metadata.
fn embedded(node: &Node, value: &Value, path: &str, out: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            if node.embedded_resource {
                custom_meta::embedded(out, value, path);
            }
            for (name, field) in map {
                if let Some(below) = node.field(name) {
                    let at = child_path(node, path, name);
                    embedded(below, field, &at, out);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &node.items {
                for (at, item) in items.iter().enumerate() {
                    embedded(of, item, &format!("{path}[{at}]"), out);
                }
            }
        }
        _ => {}
    }
}

fn child_path(node: &Node, path: &str, name: &str) -> String {
    match (node.properties.contains_key(name), path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{name}]"),
    }
}

/// Finalizers should name who they wait for; and what does not hold now but did not before either.
pub(super) fn warnings(custom: &Custom, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = finalizer_warnings(new, old);
    if old.is_some() && !custom.rules.is_empty() {
        warnings.extend(custom.rules.check(new, old).warnings);
    }
    warnings
}

fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(meta::finalizers).unwrap_or_default();
    let mut added: Vec<&str> = meta::finalizers(new)
        .into_iter()
        .filter(|f| !before.contains(f))
        .collect();
    added.sort_unstable();
    added.dedup();
    added
        .into_iter()
        .flat_map(custom_meta::finalizer_warnings)
        .collect()
}
