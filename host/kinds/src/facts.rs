//! `data/facts.txt` into schemas. Read once, whole (some 2,800 lines); nodes that look alike are one node.
//!
//! A line `= DEFINITION FACTS...` opens a definition, and every line below it is a field: `NAME TYPE FACTS...`.
//! A type is `s i32 i64 f64 b ios q t mt dur by *`, `#DEFINITION`, `[ITEM` or `{VALUE`; `:NAME` behind a scalar or `(NAME)`
//! before a list or map is its Go type's name. `data/facts.py` writes the file and explains where it comes from.

use std::collections::HashMap;
use std::sync::OnceLock;

use oarlock_schema::{
    ListType, MapType, PatchStrategy, Presence, Property, Schema, SchemaRef, Type, Union,
    UnionMember,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

static TEXT: &str = include_str!("../data/facts.txt");

/// Every definition by its name (`io.k8s.api.core.v1.Pod`).
pub(crate) struct Facts {
    definitions: HashMap<&'static str, Definition>,
    by_kind: HashMap<&'static str, &'static str>,
}

pub(crate) struct Definition {
    pub(crate) schema: SchemaRef,
    /// `group/version/Kind` of definitions that are a kind of exactly one group and version.
    pub(crate) kind: Option<&'static str>,
}

/// The facts, read on first use.
pub(crate) fn facts() -> &'static Facts {
    static FACTS: OnceLock<Facts> = OnceLock::new();
    FACTS.get_or_init(|| Reader::read(TEXT))
}

/// Of the file's text: changes when any schema does.
pub(crate) fn digest() -> [u8; 32] {
    Sha256::digest(TEXT).into()
}

impl Facts {
    pub(crate) fn definition(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(name)
    }

    /// The schema of a kind; `None` if the facts have no such kind.
    pub(crate) fn schema(&self, group: &str, version: &str, kind: &str) -> Option<SchemaRef> {
        let name = self
            .by_kind
            .get(format!("{group}/{version}/{kind}").as_str())?;
        self.definitions.get(name).map(|d| d.schema.clone())
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.definitions.keys().copied()
    }
}

/// What stands behind a type: `l=map k=name m=name s=merge`.
#[derive(Clone, Default)]
struct Extras<'t> {
    list_type: Option<&'t str>,
    list_map_keys: Option<&'t str>,
    map_type: Option<&'t str>,
    merge_key: Option<&'t str>,
    strategy: Option<&'t str>,
    enumeration: Option<&'t str>,
    default: Option<&'t str>,
    embedded_in: &'t str,
    required: bool,
    presence: Presence,
}

impl<'t> Extras<'t> {
    fn read(words: impl Iterator<Item = &'t str>) -> Self {
        let mut extras = Self::default();
        for word in words {
            match word.split_once('=') {
                Some(("l", value)) => extras.list_type = Some(value),
                Some(("k", value)) => extras.list_map_keys = Some(value),
                Some(("t", value)) => extras.map_type = Some(value),
                Some(("m", value)) => extras.merge_key = Some(value),
                Some(("s", value)) => extras.strategy = Some(value),
                Some(("e", value)) => extras.enumeration = Some(value),
                Some(("d", value)) => extras.default = Some(value),
                Some(("i", value)) => extras.embedded_in = value,
                _ => match word {
                    "r" => extras.required = true,
                    "o" => extras.presence = Presence::OmitZero,
                    "a" => extras.presence = Presence::Always,
                    "p" => extras.presence = Presence::AlwaysNull,
                    _ => {}
                },
            }
        }
        extras
    }

    fn shapes_node(&self) -> bool {
        self.list_type.is_some()
            || self.map_type.is_some()
            || self.merge_key.is_some()
            || self.strategy.is_some()
            || self.enumeration.is_some()
    }

    fn shape(&self, schema: &mut Schema) {
        match self.list_type {
            Some("map") => schema.list_type = ListType::Map,
            Some("set") => schema.list_type = ListType::Set,
            _ => {}
        }
        if let Some(keys) = self.list_map_keys {
            schema.list_map_keys = keys.split(',').map(Box::from).collect();
        }
        match self.map_type {
            Some("atomic") => schema.map_type = MapType::Atomic,
            Some("granular") => schema.map_type = MapType::Granular,
            _ => {}
        }
        if let Some(key) = self.merge_key {
            schema.merge_key = key.into();
        }
        if let Some(strategy) = self.strategy {
            let has = |word| strategy.split(',').any(|s| s == word);
            schema.patch_strategy = PatchStrategy {
                merge: has("merge"),
                retain_keys: has("retainKeys"),
                replace: has("replace"),
            };
        }
        if let Some(values) = self.enumeration {
            schema.enumeration = values.split('|').map(Value::from).collect();
        }
    }
}

#[derive(Default)]
struct Reader {
    definitions: HashMap<&'static str, Definition>,
    by_kind: HashMap<&'static str, &'static str>,
    /// Inline nodes by their words.
    shared: HashMap<String, SchemaRef>,
    /// Nodes that are a definition with other facts: made when all definitions are set.
    variants: Vec<(SchemaRef, SchemaRef, Extras<'static>)>,
}

impl Reader {
    fn read(text: &'static str) -> Facts {
        let mut reader = Self::default();
        let mut lines = text
            .lines()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
            .peekable();
        while let Some(head) = lines.next() {
            let mut words = head.split(' ').skip(1);
            let name = words.next().unwrap_or_default();
            let words: Vec<&'static str> = words.collect();
            let mut properties = Vec::new();
            while let Some(line) = lines.next_if(|l| !l.starts_with("= ")) {
                properties.push(reader.property(line));
            }
            reader.define(name, &words, properties);
        }
        for (node, of, extras) in &reader.variants {
            let mut schema = Schema::clone(of);
            extras.shape(&mut schema);
            node.set(schema);
        }
        Facts {
            definitions: reader.definitions,
            by_kind: reader.by_kind,
        }
    }

    fn define(&mut self, name: &'static str, words: &[&'static str], properties: Vec<Property>) {
        let mut schema = Schema::object(properties);
        Extras::read(words.iter().copied()).shape(&mut schema);
        schema.definition = name.into();
        schema.go_type = go_type_of(name);
        let unions = words.iter().filter_map(|w| w.strip_prefix("u="));
        schema.unions = unions.map(union).collect();
        let kind = words.iter().find_map(|w| w.strip_prefix("g="));
        if let Some(kind) = kind {
            self.by_kind.insert(kind, name);
        }
        let node = self.reference(name);
        node.set(schema);
        if let Some(definition) = self.definitions.get_mut(name) {
            definition.kind = kind;
        }
    }

    /// The node of a definition, which may not be set yet.
    fn reference(&mut self, name: &'static str) -> SchemaRef {
        let entry = self.definitions.entry(name);
        entry
            .or_insert_with(|| Definition {
                schema: SchemaRef::unset(),
                kind: None,
            })
            .schema
            .clone()
    }

    fn property(&mut self, line: &'static str) -> Property {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let code = words.next().unwrap_or_default();
        let extras = Extras::read(words);
        let mut property = Property::new(name, self.node(code, &extras));
        property.required = extras.required;
        property.presence = extras.presence;
        property.embedded_in = extras.embedded_in.into();
        property.default = extras
            .default
            .and_then(|text| serde_json::from_str(text).ok());
        property
    }

    fn node(&mut self, code: &'static str, extras: &Extras<'static>) -> SchemaRef {
        if let Some(name) = code.strip_prefix('#') {
            let of = self.reference(name);
            if !extras.shapes_node() {
                return of;
            }
            let node = SchemaRef::unset();
            self.variants.push((node.clone(), of, extras.clone()));
            return node;
        }
        let key = format!(
            "{code} {:?} {:?} {:?} {:?} {:?} {:?}",
            extras.list_type,
            extras.list_map_keys,
            extras.map_type,
            extras.merge_key,
            extras.strategy,
            extras.enumeration
        );
        if let Some(node) = self.shared.get(&key) {
            return node.clone();
        }
        let mut schema = self.inline(code);
        extras.shape(&mut schema);
        let node = SchemaRef::new(schema);
        self.shared.insert(key, node.clone());
        node
    }

    fn inline(&mut self, code: &'static str) -> Schema {
        let (name, code) = match code.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((name, rest)) => (Some(name), rest),
            None => (None, code),
        };
        let mut schema = if let Some(items) = code.strip_prefix('[') {
            let items = self.node(items, &Extras::default());
            let go_type = format!("[]{}", go_type(items_code(code), &items));
            Schema {
                go_type: go_type.into(),
                ..Schema::array(items)
            }
        } else if let Some(values) = code.strip_prefix('{') {
            let values = self.node(values, &Extras::default());
            let go_type = format!("map[string]{}", go_type(items_code(code), &values));
            Schema {
                go_type: go_type.into(),
                ..Schema::map(values)
            }
        } else {
            let (code, name) = code.split_once(':').unwrap_or((code, ""));
            let (ty, go_type) = scalar(code);
            let go_type = if name.is_empty() { go_type } else { name };
            let base = if ty == Type::Any {
                Schema::any()
            } else {
                Schema::scalar(ty)
            };
            Schema {
                go_type: go_type.into(),
                ..base
            }
        };
        if let Some(name) = name {
            schema.go_type = name.into();
        }
        schema
    }
}

/// The Go type of a list's items or a map's values; a definition may not be set yet, its name is enough.
fn go_type(code: &str, node: &SchemaRef) -> Box<str> {
    code.strip_prefix('#')
        .map_or_else(|| node.go_type.clone(), go_type_of)
}

fn items_code(code: &str) -> &str {
    code.get(1..).unwrap_or_default()
}

/// `io.k8s.api.core.v1.Container` is `v1.Container` in Go.
fn go_type_of(definition: &str) -> Box<str> {
    let mut parts = definition.rsplitn(3, '.');
    match (parts.next(), parts.next()) {
        (Some(name), Some(package)) => format!("{package}.{name}").into(),
        _ => definition.into(),
    }
}

fn scalar(code: &str) -> (Type, &'static str) {
    match code {
        "s" => (Type::String, "string"),
        "i32" => (Type::Int32, "int32"),
        "i64" => (Type::Int64, "int64"),
        "f64" => (Type::Double, "float64"),
        "b" => (Type::Boolean, "bool"),
        "ios" => (Type::IntOrString, "intstr.IntOrString"),
        "q" => (Type::Quantity, "resource.Quantity"),
        "t" => (Type::Time, "v1.Time"),
        "mt" => (Type::MicroTime, "v1.MicroTime"),
        "dur" => (Type::Duration, "v1.Duration"),
        "by" => (Type::Bytes, "[]uint8"),
        _ => (Type::Any, "interface {}"),
    }
}

/// `discriminator;field:Value,field:Value`.
fn union(text: &str) -> Union {
    let (discriminator, members) = text.split_once(';').unwrap_or(("", text));
    let members = members.split(',').filter_map(|pair| pair.split_once(':'));
    Union {
        discriminator: (!discriminator.is_empty()).then(|| discriminator.into()),
        members: members
            .map(|(field, value)| UnionMember {
                field: field.into(),
                discriminator_value: value.into(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use oarlock_schema::schema_of;

    use super::*;

    #[test]
    fn every_definition_is_set() {
        for name in facts().names() {
            let schema = &facts().definitions[name].schema;
            assert_eq!(
                &*schema.definition, name,
                "a field refers to a definition that the file lacks"
            );
        }
    }

    #[test]
    fn a_pod_in_facts() {
        let pod = facts().schema("", "v1", "Pod").expect("pods are known");
        let at = |path: &str| {
            schema_of(&pod, &path.split('.').collect::<Vec<_>>())
                .expect(path)
                .clone()
        };
        let containers = at("spec.containers");
        assert_eq!(
            (containers.list_type, &*containers.merge_key),
            (ListType::Map, "name")
        );
        assert!(containers.patch_strategy.merge);
        assert_eq!(&*containers.go_type, "[]v1.Container");
        let ports = at("spec.containers.ports");
        assert_eq!(
            ports.list_map_keys.iter().map(|k| &**k).collect::<Vec<_>>(),
            ["containerPort", "protocol"]
        );
        assert_eq!(&*ports.merge_key, "containerPort");
        let volumes = at("spec.volumes").patch_strategy;
        assert!(volumes.merge && volumes.retain_keys);
        assert_eq!(
            at("spec.containers.resources.limits").go_type.as_ref(),
            "v1.ResourceList"
        );
        assert_eq!(at("spec.nodeSelector").map_type, MapType::Atomic);
        assert_eq!(at("spec.restartPolicy").enumeration.len(), 3);
        let limits = at("spec.containers.resources.limits");
        assert_eq!(
            limits.additional.as_ref().map(|v| v.ty),
            Some(Type::Quantity)
        );
        assert_eq!(at("metadata.deletionTimestamp").ty, Type::Time);

        let deployment = facts()
            .schema("apps", "v1", "Deployment")
            .expect("deployments are known");
        let strategy = schema_of(&deployment, &["spec", "strategy"]).expect("strategy");
        assert!(strategy.patch_strategy.retain_keys);
        assert_eq!(
            &*strategy.definition,
            "io.k8s.api.apps.v1.DeploymentStrategy"
        );
    }

    #[test]
    fn recursion_ends() {
        let props = facts()
            .definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
        let schema = &props.expect("known").schema;
        let not = schema.field("not").expect("not");
        assert!(not.same(schema));
    }
}
