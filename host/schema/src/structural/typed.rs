//! The same schema as apply, patches and OpenAPI see it.

use super::node::{Additional, Node};
use crate::{ListType, MapType, Property, Schema, SchemaRef, Type};

impl Node {
    /// The whole object's: with the kind's `metadata` put in, whatever the document says of it.
    pub fn object_schema(&self, metadata: &SchemaRef) -> Schema {
        let mut schema = self.schema();
        let mut properties: Vec<Property> = schema
            .properties
            .iter()
            .filter(|p| !matches!(&*p.name, "apiVersion" | "kind" | "metadata"))
            .cloned()
            .collect();
        properties.push(Property::new("apiVersion", Schema::scalar(Type::String)));
        properties.push(Property::new("kind", Schema::scalar(Type::String)));
        properties.push(Property::new("metadata", metadata.clone()));
        let object = Schema::object(properties);
        schema.ty = Type::Object;
        schema.properties = object.properties;
        schema
    }

    pub fn schema(&self) -> Schema {
        let mut schema = match self.ty.as_str() {
            _ if self.int_or_string => Schema::scalar(Type::IntOrString),
            "object" => self.object(),
            "array" => Schema {
                items: self.items.as_ref().map(|n| n.schema().into()),
                list_type: match self.list_type.as_str() {
                    "set" => ListType::Set,
                    "map" => ListType::Map,
                    _ => ListType::Atomic,
                },
                list_map_keys: self
                    .list_map_keys
                    .iter()
                    .map(|k| k.as_str().into())
                    .collect(),
                ..Schema::scalar(Type::Array)
            },
            "string" => Schema::scalar(Type::String),
            "integer" => Schema::scalar(Type::Int64),
            "number" => Schema::scalar(Type::Double),
            "boolean" => Schema::scalar(Type::Boolean),
            // Of any type: still, its fields have owners.
            _ => Schema {
                map_type: MapType::Granular,
                ..Schema::any()
            },
        };
        schema.nullable = self.nullable;
        schema.preserve_unknown |= self.preserve_unknown;
        schema.embedded_resource = self.embedded_resource;
        schema.enumeration = self.enumeration.clone().into();
        schema
    }

    fn object(&self) -> Schema {
        let map_type = if self.map_type == "atomic" {
            MapType::Atomic
        } else {
            MapType::Granular
        };
        let properties = self.properties.iter().map(|(name, node)| {
            let mut property = Property::new(name, node.schema());
            property.required = self.required.contains(name);
            property.default = node.default.clone();
            property
        });
        let mut schema = Schema::object(properties.collect());
        schema.additional = match &self.additional {
            Some(Additional::Of(values)) => Some(values.schema().into()),
            Some(Additional::Allowed(true)) => Some(SchemaRef::any()),
            _ => None,
        };
        if self.properties.is_empty() && schema.additional.is_some() {
            schema.ty = Type::Map;
        }
        if self.embedded_resource {
            // Its apiVersion, kind and metadata are known without being named.
            schema.preserve_unknown = true;
        }
        schema.map_type = map_type;
        schema
    }
}
