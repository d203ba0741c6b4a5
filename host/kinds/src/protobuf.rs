//! Kubernetes' protobuf: the table of field numbers, and bodies decoded by it into the JSON tree that the same object has as
//! JSON. Typed clients of Go send built-in kinds this way. `encode` is the way out.
//!
//! Wire format: four bytes `k8s\0`, then a `runtime.Unknown` whose `raw` is the message of the kind that its `typeMeta` names.
//! Source: kubernetes.io/docs/reference/using-api/api-concepts (protobuf encoding).

mod encode;

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use oarlock_model::time::{format_micro_time, format_time};
use serde_json::{Map, Number, Value};

pub use encode::{ListEncoder, encode, event, is_known};

const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const UNKNOWN: &str = "io.k8s.apimachinery.pkg.runtime.Unknown";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NoMagic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: wrong wireType = {wire} for field {field}")]
    Mismatch { wire: u8, field: &'static str },
    #[error("proto: nested too deeply")]
    Depth,
    #[error("proto: a text is not UTF-8")]
    Text,
    #[error("no kind {kind:?} is registered for version {version:?}")]
    NoKind { version: String, kind: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Bytes,
    Bool,
    Integer,
    Double,
    Message(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: &'static str,
    kind: Kind,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    One,
    Many,
    /// From texts to `kind`.
    Map,
    /// A message whose fields JSON has in the outer object.
    Inline,
}

type Message = BTreeMap<u64, Field>;

fn table() -> &'static HashMap<&'static str, Message> {
    static TABLE: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table: HashMap<&'static str, Message> = HashMap::new();
        let mut open = "";
        for line in include_str!("../data/proto.txt").lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("="), Some(name), None) => {
                    open = name;
                    table.entry(open).or_default();
                }
                (Some(number), Some(name), Some(code)) => {
                    if let Ok(number) = number.parse() {
                        table
                            .entry(open)
                            .or_default()
                            .insert(number, field(name, code));
                    }
                }
                _ => {}
            }
        }
        table
    })
}

fn field(name: &'static str, code: &'static str) -> Field {
    let (shape, code) = match code.split_at(1) {
        ("*", rest) => (Shape::Many, rest),
        ("%", rest) => (Shape::Map, rest),
        ("^", rest) => (Shape::Inline, rest),
        _ => (Shape::One, code),
    };
    let kind = match code {
        "s" => Kind::Text,
        "y" => Kind::Bytes,
        "b" => Kind::Bool,
        "i" => Kind::Integer,
        "d" => Kind::Double,
        message => Kind::Message(message),
    };
    Field { name, kind, shape }
}

/// The object in a body, with `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = Raw::of(body.strip_prefix(MAGIC).ok_or(ProtobufError::NoMagic)?);
    let (mut types, mut raw) = (Value::Null, &body[..0]);
    for part in unknown {
        match part? {
            (1, Wire::Bytes(bytes)) => {
                types = message("io.k8s.apimachinery.pkg.runtime.TypeMeta", bytes, 0)?;
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let text = |field: &str| {
        types
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let name = definition(&version, &kind).ok_or_else(|| ProtobufError::NoKind {
        version: version.clone(),
        kind: kind.clone(),
    })?;
    let mut object = message(name, raw, 0)?;
    oarlock_model::meta::set_type(&mut object, version, kind);
    Ok(object)
}

/// The message of a kind: `apps/v1 Deployment` is `io.k8s.api.apps.v1.Deployment`; options are meta/v1's, whatever their group.
pub(crate) fn definition(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or(group);
    let own = format!("io.k8s.api.{group}.{version}.{kind}");
    let find = |name: &str| {
        table()
            .get_key_value(name)
            .map(|(name, _)| *name)
            .filter(|name| *name != UNKNOWN)
    };
    find(&own).or_else(|| find(&format!("{META}{kind}")))
}

/// Definitions whose fields Go declares in another order than that of their numbers.
const DECLARED: [(&str, &[&str]); 4] = [
    (".OwnerReference", &["apiVersion"]),
    (".Container", CONTAINER),
    (".EphemeralContainer", CONTAINER),
    (".EphemeralContainerCommon", CONTAINER),
];
const CONTAINER: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
];

/// The fields of a definition in the order that Go declares them (that of their numbers, as good as always), each with the
/// definition of what is in it.
pub(crate) fn in_order(definition: &str) -> Vec<(&'static str, Option<&'static str>)> {
    let Some(message) = table().get(definition) else {
        return Vec::new();
    };
    let mut numbers: Vec<&u64> = message.keys().collect();
    let declared = DECLARED.iter().find(|(name, _)| definition.ends_with(name));
    numbers.sort_unstable_by_key(|number| {
        let place = |(_, fields): &(&str, &[&str])| {
            let mut fields = fields.iter();
            fields.position(|field| *field == message[*number].name)
        };
        (declared.and_then(place).unwrap_or(usize::MAX), **number)
    });
    let mut out = Vec::new();
    for number in numbers {
        let Field { name, kind, shape } = message[number];
        match (kind, shape) {
            (Kind::Message(inner), Shape::Inline) => out.extend(in_order(inner)),
            (Kind::Message(inner), _) => out.push((name, Some(inner))),
            _ => out.push((name, None)),
        }
    }
    out
}

/// A message as the JSON value that stands for it.
fn message(name: &'static str, bytes: &[u8], depth: usize) -> Result<Value, ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut object = Map::new();
    fill(&mut object, name, bytes, depth)?;
    Ok(special(name, &object).unwrap_or(Value::Object(object)))
}

fn fill(
    object: &mut Map<String, Value>,
    name: &'static str,
    bytes: &[u8],
    depth: usize,
) -> Result<(), ProtobufError> {
    let Some(fields) = table().get(name) else {
        return Ok(());
    };
    for part in Raw::of(bytes) {
        let (number, wire) = part?;
        let Some(field) = fields.get(&number) else {
            continue;
        };
        match (field.shape, field.kind, wire) {
            (Shape::Inline, Kind::Message(inner), Wire::Bytes(bytes)) => {
                fill(object, inner, bytes, depth + 1)?;
            }
            (Shape::Map, kind, Wire::Bytes(bytes)) => {
                let (mut key, mut value) = (String::new(), empty(kind));
                for part in Raw::of(bytes) {
                    match part? {
                        (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                        (2, wire) => value = scalar(field, wire, depth)?,
                        _ => {}
                    }
                }
                oarlock_model::meta::child_map_mut(object, field.name).insert(key, value);
            }
            (Shape::Many, _, wire) => {
                let value = scalar(field, wire, depth)?;
                match object
                    .entry(field.name)
                    .or_insert_with(|| Value::Array(Vec::new()))
                {
                    Value::Array(list) => list.push(value),
                    other => *other = Value::Array(vec![value]),
                }
            }
            (_, _, wire) => {
                let value = scalar(field, wire, depth)?;
                object.insert(field.name.to_owned(), value);
            }
        }
    }
    Ok(())
}

fn empty(kind: Kind) -> Value {
    match kind {
        Kind::Text | Kind::Bytes => Value::String(String::new()),
        _ => Value::Null,
    }
}

fn scalar(field: &Field, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (field.kind, wire) {
        (Kind::Text, Wire::Bytes(bytes)) => Value::String(text(bytes)?),
        (Kind::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Kind::Message(name), Wire::Bytes(bytes)) => message(name, bytes, depth + 1)?,
        (Kind::Bool, Wire::Varint(n)) => Value::Bool(n != 0),
        // Two's complement, as protobuf sends negative numbers.
        (Kind::Integer, Wire::Varint(n)) => Value::from(n.cast_signed()),
        (Kind::Double, Wire::Fixed64(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (_, wire) => {
            return Err(ProtobufError::Mismatch {
                wire: wire.number(),
                field: field.name,
            });
        }
    })
}

fn text(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Text)
}

/// Messages that are a list of texts in JSON.
fn is_text_list(name: &str) -> bool {
    name.ends_with(".ExtraValue") || name.ends_with(".Verbs")
}

/// Messages that are something else than an object in JSON.
fn special(name: &str, fields: &Map<String, Value>) -> Option<Value> {
    if is_text_list(name) {
        let items = fields.get("items").cloned();
        return Some(items.unwrap_or_else(|| Value::Array(Vec::new())));
    }
    let integer = |field: &str| fields.get(field).and_then(Value::as_i64);
    let string = |field: &str| fields.get(field).and_then(Value::as_str);
    let time = |format: fn(Timestamp) -> String| {
        let nanos = integer("nanos").unwrap_or(0).clamp(0, 999_999_999) as i32;
        let at = integer("seconds").and_then(|seconds| Timestamp::new(seconds, nanos).ok());
        at.map_or(Value::Null, |at| Value::String(format(at)))
    };
    match name.strip_prefix("io.k8s.apimachinery.pkg.")? {
        "apis.meta.v1.Time" => Some(time(format_time)),
        "apis.meta.v1.MicroTime" => Some(time(format_micro_time)),
        "apis.meta.v1.Duration" => {
            Some(Value::String(go_duration(integer("duration").unwrap_or(0))))
        }
        "api.resource.Quantity" => Some(Value::from(string("string").unwrap_or("0"))),
        "util.intstr.IntOrString" if integer("type") == Some(1) => {
            Some(Value::from(string("strVal").unwrap_or_default()))
        }
        "util.intstr.IntOrString" => Some(Value::from(integer("intVal").unwrap_or(0))),
        "apis.meta.v1.FieldsV1" => Some(embedded(string("Raw").unwrap_or_default())),
        "runtime.RawExtension" => Some(embedded(string("raw").unwrap_or_default())),
        _ => None,
    }
}

/// JSON that travels as bytes.
fn embedded(base64: &str) -> Value {
    STANDARD
        .decode(base64)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or(Value::Null)
}

/// Nanoseconds as Go prints a duration; seconds and fractions are all that the API's durations need.
fn go_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let fraction = if rest == 0 {
        String::new()
    } else {
        format!(".{rest:09}").trim_end_matches('0').to_owned()
    };
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}{fraction}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

impl Wire<'_> {
    fn number(self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32 => 5,
        }
    }
}

/// The parts of a message as they stand on the wire.
struct Raw<'a> {
    rest: &'a [u8],
}

impl<'a> Raw<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(ProtobufError::Truncated)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Truncated)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], ProtobufError> {
        let count = usize::try_from(count).map_err(|_| ProtobufError::Truncated)?;
        let (head, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn part(&mut self) -> Result<(u64, Wire<'a>), ProtobufError> {
        let tag = self.varint()?;
        let wire = match (tag & 7) as u8 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(
                    bytes
                        .iter()
                        .rev()
                        .fold(0, |bits, byte| bits << 8 | u64::from(*byte)),
                )
            }
            2 => {
                let count = self.varint()?;
                Wire::Bytes(self.take(count)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Raw<'a> {
    type Item = Result<(u64, Wire<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.rest = &[];
        }
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &types), bytes(2, raw)].concat()
    }

    #[test]
    fn a_pod() {
        let probe = [
            bytes(1, &bytes(3, &bytes(1, &[0x08, 0x00, 0x10, 0x50]))),
            vec![0x10, 5],
        ]
        .concat();
        let resources = bytes(
            2,
            &[bytes(1, b"cpu"), bytes(2, &bytes(1, b"100m"))].concat(),
        );
        let container = [bytes(1, b"c"), bytes(8, &resources), bytes(10, &probe)].concat();
        let meta = [
            bytes(1, b"web"),
            bytes(8, &[]),
            bytes(11, &[bytes(1, b"app"), bytes(2, b"x")].concat()),
        ]
        .concat();
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, &[]))].concat();
        let spec = [bytes(1, &volume), bytes(2, &container)].concat();
        let pod = [bytes(1, &meta), bytes(2, &spec)].concat();
        let expect = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "creationTimestamp": null, "labels": {"app": "x"}},
            "spec": {
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{
                    "name": "c", "resources": {"requests": {"cpu": "100m"}},
                    "livenessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": 5},
                }],
            },
        });
        assert_eq!(decode(&body("v1", "Pod", &pod)).unwrap(), expect);
    }

    #[test]
    fn refused() {
        let check = |bytes: &[u8], expect: &str| {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(b"{}", "expected prefix");
        check(b"k8s\0\xff\xff", "EOF");
        check(&body("v1", "Nonsense", b""), "no kind");
        check(&body("v1", "Pod", &[0x0a, 0x7f]), "EOF");
        check(&body("v1", "Pod", &[0x08, 1]), "wrong wireType");
        check(&body("v1", "Pod", &[0x0b]), "illegal wireType");
    }
}
