//! Whether a schema is structural: every field has a type outside of `allOf` and its like, so that objects can be pruned.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>

use oarlock_model::Cause;
use oarlock_schema::structural::go_syntax_error;
use serde_json::{Value, json};

use crate::rules::path::{Causes, flag, items, list, some, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Why a schema cannot even be read as a structural one.
pub fn unsupported(schema: &Value) -> Option<String> {
    for name in [
        "id",
        "$schema",
        "$ref",
        "patternProperties",
        "dependencies",
        "additionalItems",
        "definitions",
    ] {
        let there = match some(schema, name) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Object(map)) => name == "additionalItems" || !map.is_empty(),
            other => other.is_some(),
        };
        if there {
            return Some(format!(
                "OpenAPIV3Schema '{}' is not supported",
                name.trim_start_matches(if name == "$schema" { "$" } else { "" })
            ));
        }
    }
    if !list(schema, "items").is_empty() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some(
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
                .to_owned(),
        );
    }
    children(schema).into_iter().find_map(unsupported)
}

fn children(schema: &Value) -> Vec<&Value> {
    let mut all: Vec<&Value> = Vec::new();
    for name in ["items", "not", "additionalProperties"] {
        all.extend(schema.get(name).filter(|s| s.is_object()));
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        all.extend(list(schema, name));
    }
    all.extend(
        schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(|p| p.values()),
    );
    all
}

/// Faults, sorted by their texts.
pub fn check(document: &Value, path: &str) -> Causes {
    let mut out = Causes::new();
    invariants(&mut out, document, Level::Root, path);
    completeness(&mut out, document, Some(document), path, path);
    out.sort_by_key(|c| format!("{}: {}", c.field, c.message));
    out
}

fn object_fields(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn invariants(out: &mut Causes, schema: &Value, level: Level, path: &str) {
    let ty = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let of = schema.get("items").filter(|i| i.is_object());
    if ty == "array" && of.is_none() {
        out.push(Cause::required(
            format!("{path}.items"),
            "must be specified",
        ));
    }
    if let Some(of) = of {
        invariants(out, of, Level::Item, &format!("{path}.items"));
    }
    for (name, property) in object_fields(schema) {
        invariants(
            out,
            property,
            Level::Field,
            &format!("{path}.properties[{name}]"),
        );
    }
    if let Some(additional) = some(schema, "additionalProperties") {
        let at = format!("{path}.additionalProperties");
        if level == Level::Root {
            out.push(Cause::forbidden(&at, "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(out, additional, Level::Field, &at);
        }
        if embedded {
            out.push(Cause::forbidden(
                at,
                "must not be used if x-kubernetes-embedded-resource is set",
            ));
        }
    }
    for (other, name) in [
        (preserve, "preserve-unknown-fields"),
        (embedded, "embedded-resource"),
    ] {
        if int_or_string && other {
            let why = "must be false if x-kubernetes-int-or-string is true";
            out.push(Cause::invalid(
                format!("{path}.x-kubernetes-{name}"),
                &json!(true),
                why,
            ));
        }
    }
    values(
        out,
        schema,
        is_int_or_string(list(schema, "anyOf")),
        first_all_of(schema),
        path,
    );
    let type_at = format!("{path}.type");
    if embedded && ty != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        out.push(if ty.is_empty() {
            Cause::required(&type_at, why)
        } else {
            Cause::invalid(&type_at, &json!(ty), why)
        });
    } else if ty.is_empty() && !int_or_string && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(Cause::required(&type_at, why));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        out.push(Cause::invalid(
            &type_at,
            &json!(ty),
            "must be object at the root",
        ));
    }
    own_fields(out, schema, level, level == Level::Root || embedded, path);
    if embedded && !preserve && object_fields(schema).next().is_none() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        out.push(Cause::required(format!("{path}.properties"), why));
    }
}

/// kind, apiVersion and metadata of an object.
fn own_fields(out: &mut Causes, schema: &Value, level: Level, is_object: bool, path: &str) {
    let property = |name: &str| schema.get("properties").and_then(|p| p.get(name));
    for name in ["kind", "apiVersion"] {
        if let Some(ty) = property(name)
            .map(|p| text(p, "type"))
            .filter(|t| is_object && *t != "string")
        {
            out.push(Cause::invalid(
                format!("{path}.properties[{name}].type"),
                &json!(ty),
                "must be string",
            ));
        }
    }
    let Some(metadata) = property("metadata") else {
        return;
    };
    let at = format!("{path}.properties[metadata]");
    let ty = text(metadata, "type");
    if is_object && ty != "object" {
        out.push(Cause::invalid(
            format!("{at}.type"),
            &json!(ty),
            "must be object",
        ));
    }
    let only_names =
        object_fields(metadata).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let mut others = metadata.as_object().into_iter().flatten();
    let set = |value: &Value| {
        !(value.is_null() || *value == json!(false) || *value == json!("") || *value == json!([]))
    };
    let bare = others.all(|(name, value)| {
        matches!(name.as_str(), "type" | "default" | "properties") || !set(value)
    });
    if level == Level::Root && !(only_names && bare) {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        out.push(Cause::forbidden(at, why));
    }
}

/// `anyOf` of an integer and a string and nothing else, which int-or-string fields may say.
fn is_int_or_string(any_of: &[Value]) -> bool {
    any_of == [json!({"type": "integer"}), json!({"type": "string"})]
}

fn first_all_of(schema: &Value) -> bool {
    list(schema, "allOf")
        .first()
        .is_some_and(|first| is_int_or_string(list(first, "anyOf")))
}

/// What a schema says of values, beside its structure.
fn values(out: &mut Causes, schema: &Value, skip_any_of: bool, skip_first: bool, path: &str) {
    if !skip_any_of {
        for (i, one) in items(schema, "anyOf") {
            nested(out, one, false, &format!("{path}.anyOf[{i}]"));
        }
    }
    for (i, one) in items(schema, "allOf") {
        nested(
            out,
            one,
            skip_first && i == 0,
            &format!("{path}.allOf[{i}]"),
        );
    }
    for (i, one) in items(schema, "oneOf") {
        nested(out, one, false, &format!("{path}.oneOf[{i}]"));
    }
    if let Some(not) = some(schema, "not") {
        nested(out, not, false, &format!("{path}.not"));
    }
    let pattern = text(schema, "pattern");
    if let Some(why) = go_syntax_error(pattern).filter(|_| !pattern.is_empty()) {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        out.push(Cause::invalid(
            format!("{path}.pattern"),
            &json!(pattern),
            &why,
        ));
    }
}

fn nested(out: &mut Causes, schema: &Value, skip_any_of: bool, path: &str) {
    values(out, schema, skip_any_of, false, path);
    if let Some(of) = schema.get("items").filter(|i| i.is_object()) {
        nested(out, of, false, &format!("{path}.items"));
    }
    for (name, property) in object_fields(schema) {
        nested(out, property, false, &format!("{path}.properties[{name}]"));
    }
    let mut tell =
        |name: &str, why: &str| out.push(Cause::forbidden(format!("{path}.{name}"), why));
    let filled = |name: &str| match some(schema, name) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Bool(flag)) => *flag,
        other => other.is_some(),
    };
    for (name, state) in [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
        ("x-kubernetes-validations", "empty"),
    ] {
        let there = if name == "default" {
            some(schema, name).is_some()
        } else {
            filled(name)
        };
        if there {
            tell(name, &format!("must be {state} to be structural"));
        }
    }
    if schema
        .get("properties")
        .and_then(|p| p.get("metadata"))
        .is_some()
    {
        tell(
            "properties[metadata]",
            "must not be specified in a nested context",
        );
    }
}

/// Every field and item that the root's `allOf` and its like speak of is there in the structure too. (Upstream looks at the
/// root alone.)
fn completeness(out: &mut Causes, schema: &Value, structure: Option<&Value>, at: &str, path: &str) {
    if let Some(not) = some(schema, "not") {
        complete(out, not, structure, at, &format!("{path}.not"));
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (i, one) in items(schema, field) {
            complete(out, one, structure, at, &format!("{path}.{field}[{i}]"));
        }
    }
}

fn complete(out: &mut Causes, schema: &Value, structure: Option<&Value>, at: &str, path: &str) {
    let Some(found) = structure else {
        out.push(Cause::required(
            at,
            &format!("because it is defined in {path}"),
        ));
        return;
    };
    completeness(out, schema, structure, at, path);
    if let Some(of) = schema.get("items").filter(|i| i.is_object()) {
        let below = found.get("items").filter(|i| i.is_object());
        complete(
            out,
            of,
            below,
            &format!("{at}.items"),
            &format!("{path}.items"),
        );
    }
    for (name, property) in object_fields(schema) {
        let below = found.get("properties").and_then(|p| p.get(name));
        complete(
            out,
            property,
            below,
            &format!("{at}.properties[{name}]"),
            &format!("{path}.properties[{name}]"),
        );
    }
}
