//! What a definition's schema may not say, node by node.
//!
//! Rules in CEL are checked here for their form; what an expression means is for its compiler, which comes last: it looks at
//! a node only if nothing else is wrong with it or below it.

use oarlock_cel::rules::check_schema;
use oarlock_model::Cause;
use oarlock_schema::structural::Node;
use serde_json::{Value, json};

use super::field_path;
use crate::rules::path::{Causes, flag, items, list, some, text};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
const META_FIELDS: [&str; 3] = ["metadata", "kind", "apiVersion"];

/// What holds for a node by where it is.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Why there may be no defaults; empty: there may.
    no_defaults: String,
    inside_meta: bool,
}

pub fn check(out: &mut Causes, document: &Value, path: &str) {
    let root = Place {
        root: true,
        ..Place::default()
    };
    walk(out, document, path, &root);
    let wrong: Vec<String> = out.iter().map(|cause| cause.field.clone()).collect();
    let is_wrong = |path: &str| wrong.iter().any(|field| field.starts_with(path));
    out.extend(check_schema(document, path, &is_wrong));
}

fn walk(out: &mut Causes, schema: &Value, path: &str, place: &Place) {
    forbidden(out, schema, path, place);
    if flag(schema, "uniqueItems") {
        let why =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        out.push(Cause::forbidden(format!("{path}.uniqueItems"), why));
    }
    below(out, schema, path, place);
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let field = format!("{path}.x-kubernetes-preserve-unknown-fields");
        out.push(Cause::invalid(
            field,
            &json!(false),
            "must be true or undefined",
        ));
    }
    map_type(out, schema, path);
    list_type(out, schema, path);
    keys(out, schema, path);
    rules(out, schema, path);
}

fn forbidden(out: &mut Causes, schema: &Value, path: &str, place: &Place) {
    let ty = text(schema, "type");
    if !ty.is_empty() && !TYPES.contains(&ty) {
        out.push(Cause::not_supported(
            format!("{path}.type"),
            &json!(ty),
            &TYPES,
        ));
    }
    if some(schema, "default").is_some() && !place.no_defaults.is_empty() {
        let why = format!("must not be set {}", place.no_defaults);
        out.push(Cause::forbidden(format!("{path}.default"), &why));
    }
    let filled = |name: &str| match some(schema, name) {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        other => other.is_some(),
    };
    for name in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        let there = if matches!(name, "dependencies" | "$ref") {
            some(schema, name).is_some()
        } else {
            filled(name)
        };
        if there {
            out.push(Cause::forbidden(
                format!("{path}.{name}"),
                &format!("{name} is not supported"),
            ));
        }
    }
    if ty == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        out.push(Cause::forbidden(format!("{path}.type"), why));
    }
    if !list(schema, "items").is_empty() {
        out.push(Cause::forbidden(
            format!("{path}.items"),
            "items must be a schema object and not an array",
        ));
    }
    if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        let field = format!("{path}.x-kubernetes-embedded-resource");
        out.push(Cause::forbidden(
            field,
            "must not be used inside of resource meta",
        ));
    }
}

fn below(out: &mut Causes, schema: &Value, path: &str, place: &Place) {
    let properties = schema.get("properties").and_then(Value::as_object);
    let properties = properties.filter(|p| !p.is_empty());
    let inner = Place {
        root: false,
        ..place.clone()
    };
    if let Some(additional) = some(schema, "additionalProperties") {
        let at = format!("{path}.additionalProperties");
        if properties.is_some() && *additional != Value::Bool(true) {
            out.push(Cause::forbidden(
                &at,
                "additionalProperties and properties are mutual exclusive",
            ));
        }
        let mut inner = inner.clone();
        if place.inside_meta {
            "inside additionalProperties applying to object metadata"
                .clone_into(&mut inner.no_defaults);
        }
        if additional.is_object() {
            walk(out, additional, &at, &inner);
        }
    }
    for (name, property) in properties.into_iter().flatten() {
        let mut inner = inner.clone();
        if (place.root || flag(schema, "x-kubernetes-embedded-resource"))
            && META_FIELDS.contains(&name.as_str())
        {
            inner.inside_meta = true;
            if place.root {
                inner.no_defaults = format!("in top-level {name}");
            }
        }
        walk(out, property, &format!("{path}.properties[{name}]"), &inner);
    }
    if let Some(not) = some(schema, "not") {
        walk(out, not, &format!("{path}.not"), &inner);
    }
    for field in ["allOf", "oneOf", "anyOf"] {
        for (i, one) in items(schema, field) {
            walk(out, one, &format!("{path}.{field}[{i}]"), &inner);
        }
    }
    for (name, one) in schema
        .get("definitions")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        walk(out, one, &format!("{path}.definitions[{name}]"), &inner);
    }
    match schema.get("items") {
        Some(one @ Value::Object(_)) => walk(out, one, &format!("{path}.items"), &inner),
        Some(Value::Array(all)) => {
            for (i, one) in all.iter().enumerate() {
                walk(out, one, &format!("{path}.items[{i}]"), &inner);
            }
        }
        _ => {}
    }
}

/// The type that an extension asks for.
fn must_be(out: &mut Causes, schema: &Value, path: &str, wanted: &str, extension: &str) -> bool {
    let ty = text(schema, "type");
    let why = format!("must be {wanted} if {extension} is specified");
    if ty.is_empty() {
        out.push(Cause::required(format!("{path}.type"), &why));
    } else if ty != wanted {
        out.push(Cause::invalid(format!("{path}.type"), &json!(ty), &why));
    }
    ty == wanted
}

fn map_type(out: &mut Causes, schema: &Value, path: &str) {
    let Some(map_type) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) else {
        return;
    };
    must_be(out, schema, path, "object", "x-kubernetes-map-type");
    if !matches!(map_type, "atomic" | "granular") {
        let field = format!("{path}.x-kubernetes-map-type");
        out.push(Cause::not_supported(
            field,
            &json!(map_type),
            &["atomic", "granular"],
        ));
    }
}

fn list_type(out: &mut Causes, schema: &Value, path: &str) {
    let Some(list_type) = schema.get("x-kubernetes-list-type").and_then(Value::as_str) else {
        return;
    };
    let fits = must_be(out, schema, path, "array", "x-kubernetes-list-type");
    if let (true, "set", Some(of)) = (
        fits,
        list_type,
        schema.get("items").filter(|i| i.is_object()),
    ) {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let inner = |name: &str| of.get(name).and_then(Value::as_str);
        let shown = of.get("x-kubernetes-list-type").unwrap_or(&Value::Null);
        match text(of, "type") {
            "array" if inner("x-kubernetes-list-type").is_some_and(|t| t != "atomic") => {
                out.push(Cause::invalid(
                    format!("{path}.items.x-kubernetes-list-type"),
                    shown,
                    why,
                ));
            }
            "object" if inner("x-kubernetes-map-type") != Some("atomic") => {
                out.push(Cause::invalid(
                    format!("{path}.items.x-kubernetes-map-type"),
                    shown,
                    why,
                ));
            }
            _ => {}
        }
    }
    if !matches!(list_type, "atomic" | "set" | "map") {
        let field = format!("{path}.x-kubernetes-list-type");
        out.push(Cause::not_supported(
            field,
            &json!(list_type),
            &["atomic", "set", "map"],
        ));
    }
}

fn keys(out: &mut Causes, schema: &Value, path: &str) {
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let keys = list(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() {
        let (field, why) = (
            format!("{path}.x-kubernetes-list-type"),
            "must be map if x-kubernetes-list-map-keys is non-empty",
        );
        match list_type {
            None => out.push(Cause::required(field, why)),
            Some("map") => {}
            Some(other) => out.push(Cause::invalid(field, &json!(other), why)),
        }
    }
    if list_type == Some("map") {
        map_keys(out, schema, keys, path);
    }
    let Some(of) = schema.get("items").filter(|i| i.is_object()) else {
        return;
    };
    let Some(list_type) = list_type.filter(|t| matches!(*t, "set" | "map")) else {
        return;
    };
    if flag(of, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        out.push(Cause::forbidden(format!("{path}.items.nullable"), &why));
    }
    if list_type != "map" {
        return;
    }
    for key in keys.iter().filter_map(Value::as_str) {
        let Some(property) = of.get("properties").and_then(|p| p.get(key)) else {
            continue;
        };
        let at = format!("{path}.items.properties[{key}]");
        if !list(of, "required").iter().any(|r| r == key) && some(property, "default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            out.push(Cause::required(format!("{at}.default"), why));
        }
        if flag(property, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            out.push(Cause::forbidden(format!("{at}.nullable"), why));
        }
    }
}

fn map_keys(out: &mut Causes, schema: &Value, keys: &[Value], path: &str) {
    let field = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        out.push(Cause::required(
            &field,
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    let Some(of) = some(schema, "items") else {
        out.push(Cause::required(
            format!("{path}.items"),
            "must have a schema if x-kubernetes-list-type is map",
        ));
        return;
    };
    if !of.is_object() {
        let why = "must only have a single schema if x-kubernetes-list-type is map";
        out.push(Cause::invalid(format!("{path}.items"), of, why));
        return;
    }
    let ty = text(of, "type");
    if ty != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        out.push(Cause::invalid(
            format!("{path}.items.type"),
            &json!(ty),
            why,
        ));
        return;
    }
    let all = Value::Array(keys.to_vec());
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match of.get("properties").and_then(|p| p.get(name)) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                out.push(Cause::invalid(
                    format!("{path}.items.properties[{name}].type"),
                    &json!(ty),
                    why,
                ));
            }
            Some(_) => {}
            None => out.push(Cause::invalid(
                &field,
                &all,
                "entries must all be names of item properties",
            )),
        }
        if keys[..i].contains(key) {
            out.push(Cause::invalid(
                &field,
                &all,
                "must not contain duplicate entries",
            ));
        }
    }
}

fn rules(out: &mut Causes, schema: &Value, path: &str) {
    let has_breaks = |text: &str| text.contains(['\n', '\r']);
    let mut node = None;
    for (i, rule) in items(schema, "x-kubernetes-validations") {
        let at = |field: &str| format!("{path}.x-kubernetes-validations[{i}].{field}");
        let (expression, message) = (text(rule, "rule").trim(), text(rule, "message"));
        if expression.is_empty() {
            out.push(Cause::required(at("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            out.push(Cause::invalid(
                at("message"),
                &json!(message),
                "must be non-empty if specified",
            ));
        } else if has_breaks(message.trim()) {
            out.push(Cause::invalid(
                at("message"),
                &json!(message),
                "must not contain line breaks",
            ));
        } else if has_breaks(expression) && message.trim().is_empty() {
            out.push(Cause::required(
                at("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        let computed = text(rule, "messageExpression");
        if !computed.is_empty() && computed.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            out.push(Cause::required(at("messageExpression"), why));
        }
        if let Some(reason) = rule.get("reason").and_then(Value::as_str)
            && !REASONS.contains(&reason)
        {
            out.push(Cause::not_supported(at("reason"), &json!(reason), &REASONS));
        }
        let field = text(rule, "fieldPath");
        if field.is_empty() {
            continue;
        }
        if field.trim().is_empty() {
            out.push(Cause::invalid(
                at("fieldPath"),
                &json!(field),
                "must be non-empty if specified",
            ));
        }
        if has_breaks(field) {
            out.push(Cause::invalid(
                at("fieldPath"),
                &json!(field),
                "must not contain line breaks",
            ));
        }
        if field_path(node.get_or_insert_with(|| Node::parse(schema)), field, true).is_err() {
            out.push(Cause::invalid(
                at("fieldPath"),
                &json!(field),
                "must be a valid path",
            ));
        }
    }
}
