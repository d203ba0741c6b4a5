//! One schema of a definition as a whole: what may stand at its root, and in which order its parts are checked.

use oarlock_model::Cause;
use oarlock_schema::structural::{Node, go_number, is_known_format};
use serde_json::{Map, Value, json};

use super::{defaults, openapi, structural};
use crate::rules::path::{Causes, flag, list, some, text};

/// Go's names of what may stand at the root of a schema whose status is checked alone.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "XPreserveUnknownFields",
    ),
    ("x-kubernetes-validations", "XValidations"),
];

/// The fields of Go's type in their order: JSON name and Go name.
const FIELDS: [(&str, &str); 44] = [
    ("id", "ID"),
    ("$schema", "Schema"),
    ("$ref", "Ref"),
    ("description", "Description"),
    ("type", "Type"),
    ("nullable", "Nullable"),
    ("format", "Format"),
    ("title", "Title"),
    ("default", "Default"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("enum", "Enum"),
    ("maxProperties", "MaxProperties"),
    ("minProperties", "MinProperties"),
    ("required", "Required"),
    ("items", "Items"),
    ("allOf", "AllOf"),
    ("oneOf", "OneOf"),
    ("anyOf", "AnyOf"),
    ("not", "Not"),
    ("properties", "Properties"),
    ("additionalProperties", "AdditionalProperties"),
    ("patternProperties", "PatternProperties"),
    ("dependencies", "Dependencies"),
    ("additionalItems", "AdditionalItems"),
    ("definitions", "Definitions"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    (
        "x-kubernetes-preserve-unknown-fields",
        "XPreserveUnknownFields",
    ),
    ("x-kubernetes-embedded-resource", "XEmbeddedResource"),
    ("x-kubernetes-int-or-string", "XIntOrString"),
    ("x-kubernetes-list-map-keys", "XListMapKeys"),
    ("x-kubernetes-list-type", "XListType"),
    ("x-kubernetes-map-type", "XMapType"),
    ("x-kubernetes-validations", "XValidations"),
];

/// `at`: where the schema's holder stands (`spec.validation`, `spec.versions[0].schema`).
pub fn check(out: &mut Causes, document: &Value, status: bool, at: &str) {
    let path = format!("{at}.openAPIV3Schema");
    let before = out.len();
    if status {
        root(out, document, &path);
    }
    if flag(document, "nullable") {
        out.push(Cause::forbidden(
            format!("{path}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let broken = structural::unsupported(document);
    if broken.is_none() {
        let faults = structural::check(document, &path);
        if faults.is_empty() {
            let node = Node::parse(document);
            defaults::check(out, &node, &path);
        } else {
            out.extend(faults);
        }
    }
    openapi::check(out, document, &path);
    if let Some(why) = broken
        && out.len() == before
    {
        out.push(Cause::invalid(path, &json!(""), &why));
    }
}

fn root(out: &mut Causes, document: &Value, path: &str) {
    let set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    for (name, _) in FIELDS
        .iter()
        .filter(|(name, _)| document.get(*name).is_some_and(set))
    {
        if *name == "type" {
            let ty = text(document, "type");
            if ty != "object" {
                let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                out.push(Cause::invalid(format!("{path}.type"), &json!(ty), why));
                break;
            }
        } else if !AT_ROOT.iter().any(|(allowed, _)| allowed == name) {
            let allowed: Vec<&str> = AT_ROOT.iter().map(|(_, go)| *go).collect();
            let message = format!(
                "Invalid value: {}: only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                shown(Some(document)),
                allowed.join(" ")
            );
            out.push(Cause::new("FieldValueInvalid", path, message));
            break;
        }
    }
}

/// A schema as the Go type prints it, with all of its fields.
pub fn shown(document: Option<&Value>) -> String {
    let Some(document) = document.filter(|d| d.is_object()) else {
        return "null".to_owned();
    };
    let fields = FIELDS
        .iter()
        .map(|(name, go)| format!("\"{go}\":{}", field(document, name)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

fn field(document: &Value, name: &str) -> String {
    let value = some(document, name);
    let each = |map: &Map<String, Value>| {
        let fields = map
            .iter()
            .map(|(k, v)| format!("{}:{}", json!(k), shown(Some(v))));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    match (name, value) {
        ("id" | "$schema" | "description" | "type" | "format" | "title" | "pattern", _) => {
            json!(text(document, name)).to_string()
        }
        (
            "nullable"
            | "exclusiveMaximum"
            | "exclusiveMinimum"
            | "uniqueItems"
            | "x-kubernetes-embedded-resource"
            | "x-kubernetes-int-or-string",
            _,
        ) => flag(document, name).to_string(),
        (_, None) => "null".to_owned(),
        ("maximum" | "minimum" | "multipleOf", Some(number)) => {
            go_number(number.as_f64().unwrap_or_default())
        }
        ("allOf" | "oneOf" | "anyOf", Some(Value::Array(all))) => {
            format!(
                "[{}]",
                all.iter()
                    .map(|d| shown(Some(d)))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        }
        ("not", value) => shown(value),
        ("properties" | "patternProperties" | "definitions", Some(Value::Object(map))) => each(map),
        ("items", Some(Value::Array(all))) => {
            let all: Vec<String> = all.iter().map(|d| shown(Some(d))).collect();
            format!("{{\"Schema\":null,\"JSONSchemas\":[{}]}}", all.join(","))
        }
        ("items", schema) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", shown(schema)),
        ("additionalProperties" | "additionalItems", Some(Value::Bool(allowed))) => {
            format!("{{\"Allows\":{allowed},\"Schema\":null}}")
        }
        ("additionalProperties" | "additionalItems", schema) => {
            format!("{{\"Allows\":true,\"Schema\":{}}}", shown(schema))
        }
        ("x-kubernetes-validations", Some(Value::Array(rules))) => {
            format!(
                "[{}]",
                rules.iter().map(shown_rule).collect::<Vec<_>>().join(",")
            )
        }
        ("externalDocs", Some(docs)) => {
            format!(
                "{{\"Description\":{},\"URL\":{}}}",
                json!(text(docs, "description")),
                json!(text(docs, "url"))
            )
        }
        (_, Some(value)) => value.to_string(),
    }
}

/// Formats below a schema that Kubernetes does not know, in upstream's order.
pub fn unknown_formats(schema: &Value, out: &mut Vec<String>) {
    let format = text(schema, "format");
    if !format.is_empty() && !is_known_format(format, text(schema, "type")) {
        out.push(format.to_owned());
    }
    let single = |name: &str| schema.get(name).filter(|s| s.is_object());
    let below = single("items").into_iter();
    let lists = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .flat_map(|name| list(schema, name));
    let properties = schema.get("properties").and_then(Value::as_object);
    let properties = properties.into_iter().flat_map(|p| p.values());
    below
        .chain(lists)
        .chain(single("not"))
        .chain(properties)
        .chain(single("additionalProperties"))
        .for_each(|s| unknown_formats(s, out));
}

/// A rule as the Go type prints it.
pub fn shown_rule(rule: &Value) -> String {
    let optional = |name: &str| some(rule, name).map_or("null".to_owned(), Value::to_string);
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        json!(text(rule, "rule")),
        json!(text(rule, "message")),
        json!(text(rule, "messageExpression")),
        optional("reason"),
        json!(text(rule, "fieldPath")),
        optional("optionalOldSelf")
    )
}
