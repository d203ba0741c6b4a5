//! Types as the checker knows them, and how cel-go writes them in messages.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Type {
    Dyn,
    /// Of an expression that has been complained about; agrees with everything.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    Type(Option<Arc<Type>>),
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    /// `net.IP`, `optional_type(int)`: a name, and what it is made of.
    Opaque(Arc<str>, Arc<[Type]>),
    Object(Arc<ObjectType>),
    /// A parameter of a declaration (`A`), or a type not known yet (`_var3`).
    Param(Arc<str>),
}

/// A type with named fields; two are the same if their names are.
#[derive(Debug)]
pub struct ObjectType {
    pub name: String,
    pub fields: Fields,
}

#[derive(Debug)]
pub enum Fields {
    Known(BTreeMap<String, Type>),
    /// Any field is there, and what lies below has this name with the field's appended (`Object.metadata`).
    Open,
}

pub const OPTIONAL: &str = "optional_type";

impl Type {
    pub fn list(of: Type) -> Self {
        Self::List(Arc::new(of))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(of: Type) -> Self {
        Self::Opaque(OPTIONAL.into(), [of].into())
    }

    pub fn opaque(name: &str) -> Self {
        Self::Opaque(name.into(), [].into())
    }

    pub fn object<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Type)>) -> Self {
        let known = fields
            .into_iter()
            .map(|(name, ty)| (name.to_owned(), ty))
            .collect();
        Self::Object(Arc::new(ObjectType {
            name: name.to_owned(),
            fields: Fields::Known(known),
        }))
    }

    pub fn open_object(name: &str) -> Self {
        Self::Object(Arc::new(ObjectType {
            name: name.to_owned(),
            fields: Fields::Open,
        }))
    }

    pub fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// What an optional holds.
    pub fn inside_optional(&self) -> Option<&Type> {
        match self {
            Self::Opaque(name, of) if &**name == OPTIONAL => of.first(),
            _ => None,
        }
    }

    /// The name that `type(x)` has.
    pub fn runtime_name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Error => "error",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Opaque(name, _) | Self::Param(name) => name,
            Self::Object(object) => &object.name,
        }
    }

    /// As cel-go's types print themselves: `google.protobuf.Timestamp`, where messages of the checker say `timestamp`.
    pub fn long_name(&self) -> String {
        let parts = self.parameters();
        if parts.is_empty() {
            return self.runtime_name().to_owned();
        }
        let parts: Vec<String> = parts.into_iter().map(Self::long_name).collect();
        format!("{}({})", self.runtime_name(), parts.join(", "))
    }

    /// The parts that a container type is made of.
    pub fn parameters(&self) -> Vec<&Type> {
        match self {
            Self::Type(Some(of)) | Self::List(of) => vec![of],
            Self::Map(of) => vec![&of.0, &of.1],
            Self::Opaque(_, of) => of.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// This container with other parts.
    pub fn with_parameters(&self, mut parts: impl FnMut(&Type) -> Type) -> Self {
        match self {
            Self::Type(Some(of)) => Self::Type(Some(Arc::new(parts(of)))),
            Self::List(of) => Self::list(parts(of)),
            Self::Map(of) => Self::map(parts(&of.0), parts(&of.1)),
            Self::Opaque(name, of) => {
                Self::Opaque(Arc::clone(name), of.iter().map(parts).collect())
            }
            other => other.clone(),
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.runtime_name() == other.runtime_name()
            && self.parameters() == other.parameters()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error => return f.write_str("!error!"),
            Self::Null => return f.write_str("null"),
            Self::Timestamp => return f.write_str("timestamp"),
            Self::Duration => return f.write_str("duration"),
            _ => f.write_str(self.runtime_name())?,
        }
        let parts = self.parameters();
        if parts.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> = parts.into_iter().map(ToString::to_string).collect();
        write!(f, "({})", texts.join(", "))
    }
}

/// Reads the notation of declarations: `int`, `map(string, A)`, `optional(A)`, `net.IP`.
pub(crate) fn parse(text: &str) -> (Type, &str) {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')))
        .unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut parts = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('(') {
        loop {
            let (part, after) = parse(inside);
            parts.push(part);
            match after.strip_prefix(',') {
                Some(next) => inside = next,
                None => {
                    rest = after.strip_prefix(')').unwrap_or(after);
                    break;
                }
            }
        }
    }
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or(Type::Dyn);
    let ty = match name {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type(Some(Arc::new(next()))),
        "list" => Type::list(next()),
        "map" => Type::map(next(), next()),
        "optional" => Type::optional(next()),
        _ if name.len() == 1 => Type::Param(name.into()),
        _ => Type::opaque(name),
    };
    (ty, rest)
}
