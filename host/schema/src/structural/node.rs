//! One node of a CustomResourceDefinition's schema.
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::{formats, regular};

/// `additionalProperties`.
#[derive(Clone, Debug)]
pub enum Additional {
    Allowed(bool),
    Of(Box<Node>),
}

/// Limits of numbers and sizes.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Empty: any type.
    pub ty: String,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Node>,
    pub additional: Option<Additional>,
    pub items: Option<Box<Node>>,
    pub preserve_unknown: bool,
    pub embedded_resource: bool,
    pub int_or_string: bool,
    /// `atomic` (or empty), `set`, `map`.
    pub list_type: String,
    pub list_map_keys: Vec<String>,
    pub map_type: String,
    /// Empty: none, or one that is not known.
    pub format: String,
    pub bounds: Bounds,
    pub pattern: Option<(String, Regex)>,
    pub enumeration: Vec<Value>,
    pub required: Vec<String>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

impl Node {
    /// Of a JSONSchemaProps document.
    pub fn parse(document: &Value) -> Self {
        let text = |name: &str| {
            let value = document.get(name).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        let flag = |name: &str| document.get(name).and_then(Value::as_bool) == Some(true);
        let number = |name: &str| document.get(name).and_then(Value::as_f64);
        let count = |name: &str| document.get(name).and_then(Value::as_i64);
        let list = |name: &str| {
            let list = document.get(name).and_then(Value::as_array);
            list.map(Vec::as_slice).unwrap_or_default()
        };
        let texts = |name: &str| -> Vec<String> {
            let texts = list(name).iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        let nodes = |name: &str| -> Vec<Self> { list(name).iter().map(Self::parse).collect() };
        let child = |name: &str| {
            let document = document.get(name).filter(|d| d.is_object());
            document.map(|d| Box::new(Self::parse(d)))
        };
        let ty = text("type");
        let int_or_string = flag("x-kubernetes-int-or-string");
        let format = text("format");
        let properties = document.get("properties").and_then(Value::as_object);
        Self {
            format: if formats::applies(&format, if int_or_string { "both" } else { &ty }) {
                format
            } else {
                String::new()
            },
            ty,
            nullable: flag("nullable"),
            default: document.get("default").filter(|d| !d.is_null()).cloned(),
            properties: properties
                .into_iter()
                .flatten()
                .map(|(name, d)| (name.clone(), Self::parse(d)))
                .collect(),
            additional: match document.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Some(Additional::Allowed(*allowed)),
                Some(d @ Value::Object(_)) => Some(Additional::Of(Box::new(Self::parse(d)))),
                _ => None,
            },
            items: child("items"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            int_or_string,
            list_type: text("x-kubernetes-list-type"),
            list_map_keys: texts("x-kubernetes-list-map-keys"),
            map_type: text("x-kubernetes-map-type"),
            bounds: Bounds {
                maximum: number("maximum"),
                exclusive_maximum: flag("exclusiveMaximum"),
                minimum: number("minimum"),
                exclusive_minimum: flag("exclusiveMinimum"),
                multiple_of: number("multipleOf"),
                max_length: count("maxLength"),
                min_length: count("minLength"),
                max_items: count("maxItems"),
                min_items: count("minItems"),
                max_properties: count("maxProperties"),
                min_properties: count("minProperties"),
            },
            pattern: Some(text("pattern"))
                .filter(|p| !p.is_empty())
                .and_then(|p| regular::compile(&p).map(|regex| (p, regex))),
            enumeration: list("enum").to_vec(),
            required: texts("required"),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: child("not"),
        }
    }

    /// The schema of field `name`: a property, or any other key.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(property), _) => Some(property),
            (None, Some(Additional::Of(node))) => Some(node),
            _ => None,
        }
    }

    /// The types that a value may have; empty: any.
    pub fn types(&self) -> Vec<&str> {
        if self.int_or_string {
            vec!["integer", "string"]
        } else if self.ty.is_empty() {
            Vec::new()
        } else {
            vec![&self.ty]
        }
    }

    /// The node at a path of property names.
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.field(name))
    }
}
