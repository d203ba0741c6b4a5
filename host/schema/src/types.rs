//! The structural schema: what decoding, defaulting, patching and applying need to know of a value, and nothing else.
//!
//! Nodes are shared ([`SchemaRef`]) and may be recursive; a node never changes once it has been set. Descriptions are
//! not here: they are read only when OpenAPI is asked for.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

/// A shared schema node. Cloning is a reference count; dereferencing is a load. Recursive schemas are made by
/// [`SchemaRef::unset`] followed by [`SchemaRef::set`].
#[derive(Clone)]
pub struct SchemaRef(Arc<OnceLock<Schema>>);

impl SchemaRef {
    pub fn new(schema: Schema) -> Self {
        Self(Arc::new(OnceLock::from(schema)))
    }

    /// A node to be set later; until then it reads as a schema that accepts anything.
    pub fn unset() -> Self {
        Self(Arc::new(OnceLock::new()))
    }

    /// Sets a node made by [`SchemaRef::unset`]; a node that is already set stays as it is.
    pub fn set(&self, schema: Schema) {
        let _already_set = self.0.set(schema);
    }

    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A node that accepts and keeps anything.
    pub fn any() -> Self {
        static NODE: OnceLock<SchemaRef> = OnceLock::new();
        NODE.get_or_init(|| Self::new(Schema::any())).clone()
    }
}

impl Deref for SchemaRef {
    type Target = Schema;

    fn deref(&self) -> &Schema {
        static ANY: OnceLock<Schema> = OnceLock::new();
        self.0.get().unwrap_or_else(|| ANY.get_or_init(Schema::any))
    }
}

impl From<Schema> for SchemaRef {
    fn from(schema: Schema) -> Self {
        Self::new(schema)
    }
}

/// Names the node instead of walking it: schemas may be recursive.
impl fmt::Debug for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchemaRef({:?}, {:?})", self.ty, self.go_type)
    }
}

/// What a value looks like in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Type {
    /// Anything, kept as it is (`RawExtension`, `JSON`, `FieldsV1`).
    #[default]
    Any,
    /// A struct: [`Schema::properties`]. Unknown fields are dropped unless `preserve_unknown`.
    Object,
    /// A map with free keys: [`Schema::additional`] is the values' schema.
    Map,
    /// [`Schema::items`] is the items' schema.
    Array,
    String,
    Int32,
    Int64,
    Double,
    Boolean,
    IntOrString,
    Quantity,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, six digits.
    MicroTime,
    /// A Go duration text such as `1m30s`.
    Duration,
    /// Base64.
    Bytes,
}

impl Type {
    pub fn is_scalar(self) -> bool {
        !matches!(self, Self::Any | Self::Object | Self::Map | Self::Array)
    }
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// Keyed by [`Schema::list_map_keys`].
    Map,
}

/// `x-kubernetes-map-type` (of structs and maps).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MapType {
    #[default]
    Granular,
    Atomic,
}

/// `x-kubernetes-patch-strategy`, for strategic merge patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// Lists: merge by [`Schema::merge_key`] (or as a set, for lists of scalars). Absent: lists are replaced, maps merged.
    pub merge: bool,
    /// Maps: `$retainKeys` is honoured.
    pub retain_keys: bool,
    /// Replaced as a whole.
    pub replace: bool,
}

/// When a field that is empty (`""`, `0`, `false`, `[]`, `{}`, all its fields empty) is written out, as the Go type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Presence {
    /// Kept as given (a Go pointer, or a type that we know nothing more of).
    #[default]
    AsGiven,
    /// Dropped if it is the zero value (`omitempty` on a plain value, slice or map).
    OmitZero,
    /// Always there, as its zero value if nothing was given (a struct, or no `omitempty`): `resources: {}`, `status: {}`.
    Always,
    /// Always there, as null if nothing was given (a pointer without `omitempty`).
    AlwaysNull,
}

#[derive(Clone, Debug)]
pub struct Property {
    pub name: Box<str>,
    pub schema: SchemaRef,
    pub required: bool,
    pub presence: Presence,
    /// The Go structs that the field is embedded by, which decode errors print before its name: `IngressRuleValue`.
    pub embedded_in: Box<str>,
    /// Filled in by generic defaulting when the field is absent.
    pub default: Option<Value>,
}

/// One `x-kubernetes-unions` entry: of these fields at most one is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Union {
    pub discriminator: Option<Box<str>>,
    pub members: Vec<UnionMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnionMember {
    pub field: Box<str>,
    /// What the discriminator says when this field is set.
    pub discriminator_value: Box<str>,
}

/// One node. Lists carry their own facts, so `containers` of a pod is an `Array` node with `merge_key` `name`.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub ty: Type,
    /// Of a named definition: `io.k8s.api.core.v1.Container`; empty for inline nodes.
    pub definition: Box<str>,
    /// The Go type as decode errors print it: `v1.Container`, `int32`, `map[string]string`. May be empty.
    pub go_type: Box<str>,
    /// Of `Object`: sorted by name (bytewise). Shared, since some nodes differ only in their patch strategy.
    pub properties: Arc<[Property]>,
    /// Of `Map`: schema of the values. Of `Object`: of the fields that `properties` does not name, if any may be there.
    pub additional: Option<SchemaRef>,
    /// Of `Array`.
    pub items: Option<SchemaRef>,
    /// `null` is a value of its own and kept (CRDs); otherwise `null` means absent.
    pub nullable: bool,
    /// Unknown fields are kept.
    pub preserve_unknown: bool,
    /// The value is a whole object with apiVersion, kind and metadata.
    pub embedded_resource: bool,
    pub list_type: ListType,
    pub list_map_keys: Box<[Box<str>]>,
    pub map_type: MapType,
    /// Empty: none.
    pub merge_key: Box<str>,
    pub patch_strategy: PatchStrategy,
    /// Allowed values; empty: any. Decoding does not check them: built-in kinds do it by rules, CRDs when they validate.
    pub enumeration: Box<[Value]>,
    pub unions: Box<[Union]>,
}

impl Schema {
    pub fn any() -> Self {
        Self {
            ty: Type::Any,
            preserve_unknown: true,
            ..Self::default()
        }
    }

    pub fn scalar(ty: Type) -> Self {
        Self {
            ty,
            ..Self::default()
        }
    }

    pub fn object(mut properties: Vec<Property>) -> Self {
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            ty: Type::Object,
            properties: properties.into(),
            ..Self::default()
        }
    }

    pub fn array(items: SchemaRef) -> Self {
        Self {
            ty: Type::Array,
            items: Some(items),
            ..Self::default()
        }
    }

    pub fn map(values: SchemaRef) -> Self {
        Self {
            ty: Type::Map,
            additional: Some(values),
            ..Self::default()
        }
    }

    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.get(self.property_index(name)?)
    }

    pub(crate) fn property_index(&self, name: &str) -> Option<usize> {
        self.properties
            .binary_search_by(|p| (*p.name).cmp(name))
            .ok()
    }

    /// The schema of field `name` of a struct, or of any key of a map.
    pub fn field(&self, name: &str) -> Option<&SchemaRef> {
        self.property(name)
            .map(|p| &p.schema)
            .or(self.additional.as_ref())
    }

    /// True for lists whose items are merged one by one by a key in server-side apply.
    pub fn is_keyed_list(&self) -> bool {
        self.ty == Type::Array && self.list_type == ListType::Map
    }
}

impl Property {
    pub fn new(name: &str, schema: impl Into<SchemaRef>) -> Self {
        Self {
            name: name.into(),
            schema: schema.into(),
            required: false,
            presence: Presence::AsGiven,
            embedded_in: Box::default(),
            default: None,
        }
    }

    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub fn with_default(mut self, value: Value) -> Self {
        self.default = Some(value);
        self
    }
}

/// The schema at a path of field names below `schema`; lists are entered without naming an index.
pub fn schema_of<'a>(schema: &'a SchemaRef, path: &[&str]) -> Option<&'a SchemaRef> {
    let mut at = schema;
    for name in path {
        while at.ty == Type::Array {
            at = at.items.as_ref()?;
        }
        at = at.field(name)?;
    }
    Some(at)
}
