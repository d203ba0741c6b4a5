//! Schemas as OpenAPI writes them: definitions with Kubernetes' extensions, and references between them.

use std::collections::BTreeMap;

use oarlock_schema::{ListType, MapType, Property, Schema, SchemaRef, Type};
use serde_json::{Map, Value, json};

use super::Dialect;
use super::descriptions::Descriptions;
use crate::facts::facts;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// Types that are definitions of their own in OpenAPI.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const DURATION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Duration";

/// The definitions that a document needs, gathered as they are referred to.
pub(super) struct Schemas {
    dialect: Dialect,
    descriptions: Descriptions,
    definitions: BTreeMap<String, Value>,
}

impl Schemas {
    pub(super) fn new(dialect: Dialect, descriptions: Descriptions) -> Self {
        Self {
            dialect,
            descriptions,
            definitions: BTreeMap::new(),
        }
    }

    pub(super) fn into_definitions(self) -> BTreeMap<String, Value> {
        self.definitions
    }

    /// A reference to a definition of meta/v1: `Status`, `DeleteOptions`, `Patch`.
    pub(super) fn meta(&mut self, name: &str) -> Value {
        let definition = format!("{META}{name}");
        if let Some(of) = facts().definition(&definition) {
            self.add(&of.schema);
        } else {
            self.definitions
                .entry(definition.clone())
                .or_insert_with(|| json!({ "type": "object" }));
        }
        self.dialect.reference(&definition)
    }

    /// A reference to the definition of a kind's schema, which is added with all that it refers to.
    pub(super) fn kind(&mut self, schema: &SchemaRef, kinds: &[Value]) -> Value {
        self.add(schema);
        if let Some(Value::Object(definition)) = self.definitions.get_mut(&*schema.definition) {
            definition.insert(
                "x-kubernetes-group-version-kind".to_owned(),
                Value::from(kinds),
            );
        }
        self.dialect.reference(&schema.definition)
    }

    /// A reference to the list of a kind; made up if the facts have none.
    pub(super) fn list(&mut self, schema: &SchemaRef, list_kind: &Value) -> Value {
        let name = format!("{}List", schema.definition);
        if let Some(of) = facts().definition(&name) {
            return self.kind(&of.schema.clone(), std::slice::from_ref(list_kind));
        }
        if !self.definitions.contains_key(&name) {
            let item = self.kind_reference(schema);
            let mut metadata = self.meta("ListMeta");
            describe(self.dialect, &mut metadata, "Standard list metadata.");
            let list = json!({
                "description": "A list of objects.",
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": { "type": "string", "description": "The group and version of this list's schema." },
                    "kind": { "type": "string", "description": "The kind of this list." },
                    "metadata": metadata,
                    "items": { "type": "array", "items": item, "description": "The objects." },
                },
                "x-kubernetes-group-version-kind": [list_kind],
            });
            self.definitions.insert(name.clone(), list);
        }
        self.dialect.reference(&name)
    }

    /// A definition that is made elsewhere.
    pub(super) fn put(&mut self, name: &str, definition: Value) {
        self.definitions.insert(name.to_owned(), definition);
    }

    /// Says of a field that every object has what it is.
    pub(super) fn describe_object_field(&self, property: &mut Value, field: &str) {
        if let Some(text) = self.descriptions.of("io.k8s.api.core.v1.Pod", field) {
            describe(self.dialect, property, text);
        }
    }

    fn kind_reference(&mut self, schema: &SchemaRef) -> Value {
        self.add(schema);
        self.dialect.reference(&schema.definition)
    }

    /// Adds a named definition and, through it, everything that it refers to.
    fn add(&mut self, schema: &Schema) {
        if schema.definition.is_empty() || self.definitions.contains_key(&*schema.definition) {
            return;
        }
        // Put a place-holder first: definitions are recursive.
        self.definitions
            .insert(schema.definition.to_string(), Value::Null);
        let mut definition = node(self.dialect, schema);
        if let Value::Object(map) = &mut definition {
            if let Some(text) = self.descriptions.of(&schema.definition, "") {
                map.insert("description".to_owned(), Value::from(text));
            }
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                for (name, property) in properties {
                    if let Some(text) = self.descriptions.of(&schema.definition, name) {
                        describe(self.dialect, property, text);
                    }
                }
            }
            if let Some(kind) = facts().definition(&schema.definition).and_then(|d| d.kind) {
                let mut parts = kind.rsplitn(3, '/');
                let (kind, version, group) = (parts.next(), parts.next(), parts.next());
                map.insert(
                    "x-kubernetes-group-version-kind".to_owned(),
                    json!([{ "group": group, "version": version, "kind": kind }]),
                );
            }
        }
        self.definitions
            .insert(schema.definition.to_string(), definition);
        for property in schema.properties.iter() {
            self.add_below(&property.schema);
        }
    }

    fn add_below(&mut self, schema: &SchemaRef) {
        match schema.ty {
            Type::Object if !schema.definition.is_empty() => self.add(schema),
            Type::Quantity => self.leaf(QUANTITY),
            Type::IntOrString => self.leaf(INT_OR_STRING),
            Type::Time => self.leaf(TIME),
            Type::MicroTime => self.leaf(MICRO_TIME),
            Type::Duration => self.leaf(DURATION),
            _ => {
                let below = schema.properties.iter().map(|p| &p.schema);
                let below: Vec<SchemaRef> = below
                    .chain(&schema.items)
                    .chain(&schema.additional)
                    .cloned()
                    .collect();
                below.iter().for_each(|s| self.add_below(s));
            }
        }
    }

    fn leaf(&mut self, name: &str) {
        if self.definitions.contains_key(name) {
            return;
        }
        let v2 = self.dialect == Dialect::V2;
        let (text, mut definition) = match name {
            QUANTITY if v2 => (QUANTITY_TEXT, json!({ "type": "string" })),
            QUANTITY => (
                QUANTITY_TEXT,
                json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
            ),
            INT_OR_STRING if v2 => (
                INT_OR_STRING_TEXT,
                json!({ "type": "string", "format": "int-or-string" }),
            ),
            INT_OR_STRING => (
                INT_OR_STRING_TEXT,
                json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] }),
            ),
            DURATION => ("A duration such as 1h30m.", json!({ "type": "string" })),
            _ => (
                "A time in RFC 3339.",
                json!({ "type": "string", "format": "date-time" }),
            ),
        };
        definition["description"] = Value::from(text);
        self.definitions.insert(name.to_owned(), definition);
    }
}

const QUANTITY_TEXT: &str = "A fixed-point number with an optional suffix: 500m, 1.5Gi, 2e3.";
const INT_OR_STRING_TEXT: &str =
    "A number or a text, such as a port or its name, a count or a percentage.";

/// Puts a description on a property. A bare reference may have no siblings in v3, so it is wrapped.
fn describe(dialect: Dialect, property: &mut Value, text: &str) {
    if dialect == Dialect::V3 && property.get("$ref").is_some() {
        *property = json!({ "allOf": [property.take()] });
    }
    property["description"] = Value::from(text);
}

/// One schema node; named ones below it as references.
pub(super) fn node(dialect: Dialect, schema: &Schema) -> Value {
    let mut map = Map::new();
    match schema.ty {
        Type::Object => {
            map.insert("type".to_owned(), json!("object"));
            if !schema.properties.is_empty() {
                let properties: Map<String, Value> = schema
                    .properties
                    .iter()
                    .map(|p| (p.name.to_string(), property(dialect, p)))
                    .collect();
                map.insert("properties".to_owned(), properties.into());
            }
            let required: Vec<&str> = schema
                .properties
                .iter()
                .filter(|p| p.required)
                .map(|p| &*p.name)
                .collect();
            if !required.is_empty() {
                map.insert("required".to_owned(), required.into());
            }
        }
        Type::Map => {
            map.insert("type".to_owned(), json!("object"));
        }
        Type::Array => {
            map.insert("type".to_owned(), json!("array"));
        }
        Type::Any => {
            map.insert("type".to_owned(), json!("object"));
        }
        Type::String => plain(&mut map, "string", ""),
        Type::Int32 => plain(&mut map, "integer", "int32"),
        Type::Int64 => plain(&mut map, "integer", "int64"),
        Type::Double => plain(&mut map, "number", "double"),
        Type::Boolean => plain(&mut map, "boolean", ""),
        Type::Bytes => plain(&mut map, "string", "byte"),
        Type::Quantity => return dialect.reference(QUANTITY),
        Type::IntOrString => return dialect.reference(INT_OR_STRING),
        Type::Time => return dialect.reference(TIME),
        Type::MicroTime => return dialect.reference(MICRO_TIME),
        Type::Duration => return dialect.reference(DURATION),
    }
    if let Some(items) = &schema.items {
        map.insert("items".to_owned(), below(dialect, items));
    }
    if let Some(values) = &schema.additional {
        map.insert("additionalProperties".to_owned(), below(dialect, values));
    }
    if schema.nullable && dialect == Dialect::V3 {
        map.insert("nullable".to_owned(), json!(true));
    }
    extensions(schema, &mut map);
    Value::Object(map)
}

fn plain(map: &mut Map<String, Value>, ty: &str, format: &str) {
    map.insert("type".to_owned(), json!(ty));
    if !format.is_empty() {
        map.insert("format".to_owned(), json!(format));
    }
}

fn below(dialect: Dialect, schema: &SchemaRef) -> Value {
    if schema.definition.is_empty() {
        node(dialect, schema)
    } else {
        dialect.reference(&schema.definition)
    }
}

fn property(dialect: Dialect, property: &Property) -> Value {
    let schema = &property.schema;
    let mut value = below(dialect, schema);
    if !schema.definition.is_empty() {
        // A field that differs from its definition says so beside the reference.
        let mut own = Map::new();
        let of_definition = facts()
            .definition(&schema.definition)
            .map(|d| d.schema.clone());
        if of_definition.is_none_or(|d| !d.same(schema))
            && facts().definition(&schema.definition).is_some()
        {
            extensions(schema, &mut own);
        }
        if !own.is_empty() {
            if dialect == Dialect::V3 {
                value = json!({ "allOf": [value] });
            }
            if let Value::Object(map) = &mut value {
                map.extend(own);
            }
        }
    }
    if let (Some(default), Some(map)) = (&property.default, value.as_object_mut())
        && (dialect == Dialect::V2 || !map.contains_key("$ref"))
    {
        map.insert("default".to_owned(), default.clone());
    }
    value
}

fn extensions(schema: &Schema, map: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| {
        map.insert(format!("x-kubernetes-{name}"), value);
    };
    if schema.ty == Type::Array {
        match schema.list_type {
            ListType::Atomic => set("list-type", json!("atomic")),
            ListType::Set => set("list-type", json!("set")),
            ListType::Map => {
                set("list-type", json!("map"));
                set(
                    "list-map-keys",
                    schema.list_map_keys.iter().map(|k| json!(**k)).collect(),
                );
            }
        }
    }
    if schema.map_type == MapType::Atomic {
        set("map-type", json!("atomic"));
    }
    if !schema.merge_key.is_empty() {
        set("patch-merge-key", json!(*schema.merge_key));
    }
    let strategy = schema.patch_strategy;
    let words: Vec<&str> = [
        (strategy.merge, "merge"),
        (strategy.retain_keys, "retainKeys"),
        (strategy.replace, "replace"),
    ]
    .into_iter()
    .filter_map(|(is, word)| is.then_some(word))
    .collect();
    if !words.is_empty() {
        set("patch-strategy", json!(words.join(",")));
    }
    if schema.preserve_unknown && schema.ty != Type::Any {
        set("preserve-unknown-fields", json!(true));
    }
    if schema.embedded_resource {
        set("embedded-resource", json!(true));
    }
    if !schema.unions.is_empty() {
        let unions = schema.unions.iter().map(|union| {
            let members: Map<String, Value> = union
                .members
                .iter()
                .map(|m| (m.field.to_string(), json!(*m.discriminator_value)))
                .collect();
            let mut value = json!({ "fields-to-discriminateBy": members });
            if let Some(discriminator) = &union.discriminator {
                value["discriminator"] = json!(**discriminator);
            }
            value
        });
        set("unions", unions.collect());
    }
    if !schema.enumeration.is_empty() {
        map.insert("enum".to_owned(), Value::from(schema.enumeration.to_vec()));
    }
}
