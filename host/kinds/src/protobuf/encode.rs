//! Objects written in Kubernetes' protobuf, by the table that reads them; lists and watch frames around them.
//!
//! A nested message is written in place and its length put in front afterwards, so nothing is measured twice.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oarlock_model::time::parse_time;
use serde_json::{Map, Value};

use super::{Field, Kind, MAGIC, MAX_DEPTH, Shape, definition, is_text_list, table};

/// Whether objects of this kind can be written.
pub fn is_known(api_version: &str, kind: &str) -> bool {
    definition(api_version, kind).is_some()
}

/// An object with its `apiVersion` and `kind`; `None` for a kind that has no message.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let text = |field: &str| object.get(field).and_then(Value::as_str);
    let (version, kind) = (text("apiVersion")?, text("kind")?);
    let name = definition(version, kind)?;
    let mut raw = Vec::with_capacity(1024);
    message(&mut raw, name, object, 0);
    Some(envelope(version, kind, &raw))
}

/// One frame of a watch: its length in four bytes, then the event around an object that is encoded already.
pub fn event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.reserve(object.len() + 32);
    bytes(&mut out, 1, kind.as_bytes());
    nested(&mut out, 2, |out| bytes(out, 1, object));
    let size = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&size.to_be_bytes());
    out
}

/// A list that items are added to one by one.
#[derive(Debug)]
pub struct ListEncoder {
    item: &'static str,
    raw: Vec<u8>,
}

impl ListEncoder {
    /// `api_version` and `kind` of an item; `metadata` is the list's.
    pub fn new(api_version: &str, kind: &str, metadata: &Value) -> Option<Self> {
        let item = definition(api_version, kind)?;
        let mut raw = Vec::with_capacity(1024);
        nested(&mut raw, 1, |out| {
            message(
                out,
                "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
                metadata,
                0,
            );
        });
        Some(Self { item, raw })
    }

    pub fn push(&mut self, item: &Value) {
        nested(&mut self.raw, 2, |out| message(out, self.item, item, 0));
    }

    /// `api_version` and `kind` of the list.
    pub fn finish(self, api_version: &str, kind: &str) -> Vec<u8> {
        envelope(api_version, kind, &self.raw)
    }
}

/// `runtime.Unknown` behind the magic number.
fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    out.extend_from_slice(MAGIC);
    nested(&mut out, 1, |out| {
        bytes(out, 1, api_version.as_bytes());
        bytes(out, 2, kind.as_bytes());
    });
    bytes(&mut out, 2, raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    out
}

fn message(out: &mut Vec<u8>, name: &str, value: &Value, depth: usize) {
    if special(out, name, value) {
        return;
    }
    if let Value::Object(object) = value {
        fields(out, name, object, depth);
    }
}

fn fields(out: &mut Vec<u8>, name: &str, object: &Map<String, Value>, depth: usize) {
    let Some(message) = table().get(name).filter(|_| depth <= MAX_DEPTH) else {
        return;
    };
    for (&number, field) in message {
        if let (Shape::Inline, Kind::Message(inner)) = (field.shape, field.kind) {
            nested(out, number, |out| fields(out, inner, object, depth + 1));
            continue;
        }
        match (field.shape, object.get(field.name)) {
            (_, None | Some(Value::Null)) => {}
            (Shape::Map, Some(Value::Object(entries))) => {
                for (key, value) in entries {
                    nested(out, number, |out| {
                        bytes(out, 1, key.as_bytes());
                        scalar(out, 2, field, value, depth);
                    });
                }
            }
            (Shape::Many, Some(Value::Array(items))) => {
                for item in items {
                    scalar(out, number, field, item, depth);
                }
            }
            (_, Some(value)) => scalar(out, number, field, value, depth),
        }
    }
}

fn scalar(out: &mut Vec<u8>, number: u64, field: &Field, value: &Value, depth: usize) {
    match field.kind {
        Kind::Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Kind::Bytes => {
            let decoded = value.as_str().and_then(|text| STANDARD.decode(text).ok());
            bytes(out, number, &decoded.unwrap_or_default());
        }
        Kind::Bool => integer(out, number, i64::from(value.as_bool().unwrap_or(false))),
        Kind::Integer => integer(out, number, value.as_i64().unwrap_or(0)),
        Kind::Double => {
            tag(out, number, 1);
            let bits = value.as_f64().unwrap_or(0.0).to_bits();
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Kind::Message(name) => nested(out, number, |out| message(out, name, value, depth + 1)),
    }
}

/// Messages that are something else than an object in JSON; false for all others.
fn special(out: &mut Vec<u8>, name: &str, value: &Value) -> bool {
    if is_text_list(name) {
        for item in value.as_array().into_iter().flatten() {
            bytes(out, 1, item.as_str().unwrap_or_default().as_bytes());
        }
        return true;
    }
    match name
        .strip_prefix("io.k8s.apimachinery.pkg.")
        .unwrap_or_default()
    {
        "apis.meta.v1.Time" => time(out, value, 1_000_000_000),
        "apis.meta.v1.MicroTime" => time(out, value, 1_000),
        "apis.meta.v1.Duration" => {
            integer(
                out,
                1,
                value.as_str().and_then(nanoseconds).unwrap_or_default(),
            );
        }
        "api.resource.Quantity" => match value {
            Value::String(text) => bytes(out, 1, text.as_bytes()),
            other => bytes(out, 1, other.to_string().as_bytes()),
        },
        "util.intstr.IntOrString" => {
            integer(out, 1, i64::from(value.is_string()));
            integer(out, 2, value.as_i64().unwrap_or(0));
            bytes(out, 3, value.as_str().unwrap_or_default().as_bytes());
        }
        "apis.meta.v1.FieldsV1" | "runtime.RawExtension" => {
            bytes(out, 1, value.to_string().as_bytes());
        }
        _ => return false,
    }
    true
}

/// Seconds and nanoseconds, cut to `unit` nanoseconds; nothing for what is no time.
fn time(out: &mut Vec<u8>, value: &Value, unit: i128) {
    let Some(at) = value.as_str().and_then(parse_time) else {
        return;
    };
    let nanos = at.as_nanosecond().div_euclid(unit) * unit;
    let (seconds, rest) = (
        nanos.div_euclid(1_000_000_000),
        nanos.rem_euclid(1_000_000_000),
    );
    integer(out, 1, i64::try_from(seconds).unwrap_or(0));
    integer(out, 2, i64::try_from(rest).unwrap_or(0));
}

/// A duration of Go: `1h2m3.5s`.
fn nanoseconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("s", 1e9),
        ("m", 60e9),
        ("h", 3600e9),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (count, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        if unit.is_empty() && text == "0" {
            return Some(0);
        }
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let part = count.parse::<f64>().ok()? * size;
        total = total.checked_add(part.round() as i64)?;
        rest = tail;
    }
    Some(sign * total)
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tag(out: &mut Vec<u8>, number: u64, wire: u64) {
    varint(out, number << 3 | wire);
}

fn integer(out: &mut Vec<u8>, number: u64, value: i64) {
    tag(out, number, 0);
    varint(out, value.cast_unsigned());
}

fn bytes(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    tag(out, number, 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A message whose length is known once it is written.
fn nested(out: &mut Vec<u8>, number: u64, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, number, 2);
    let at = out.len();
    out.push(0);
    write(out);
    let size = out.len() - at - 1;
    let mut head = Vec::new();
    match u8::try_from(size) {
        Ok(size) if size < 0x80 => out[at] = size,
        _ => {
            varint(&mut head, size as u64);
            out.splice(at..=at, head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use serde_json::json;

    fn round(object: &Value) {
        let bytes = encode(object).unwrap_or_else(|| panic!("no message for {object}"));
        assert_eq!(&decode(&bytes).unwrap(), object);
    }

    #[test]
    fn the_bytes_of_a_namespace() {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kelp"}});
        assert_eq!(
            encode(&object).unwrap(),
            b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x08\x0a\x06\x0a\x04kelp\x1a\0\x22\0"
        );
    }

    #[test]
    fn what_is_no_object_in_json() {
        round(&json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {
                "name": "a", "creationTimestamp": "2026-01-02T03:04:05Z", "generation": -3,
                "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"request": "AAEC", "extra": {"k": ["a", "b"], "none": []}, "usages": ["x"]},
        }));
        round(&json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "a"}, "spec": {"renewTime": "1969-12-31T23:59:58.250001Z"},
        }));
        round(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "/w==", "e": ""},
        }));
        round(&json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 404,
            "details": {"name": "a", "causes": [{"reason": "r", "message": "m", "field": "f"}]},
        }));
        round(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "long".repeat(100)},
            "spec": {"ports": [{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 8081}]},
        }));
    }

    #[test]
    fn durations() {
        for (text, expect) in [
            ("0", 0),
            ("1h2m3.5s", 3_723_500_000_000),
            ("-20ms", -20_000_000),
        ] {
            assert_eq!(nanoseconds(text), Some(expect), "{text}");
        }
        assert_eq!(nanoseconds("5x"), None);
    }

    #[test]
    fn frames_and_lists() {
        let frame = event("ADDED", b"k8s\0");
        assert_eq!(frame, b"\0\0\0\x0f\x0a\x05ADDED\x12\x06\x0a\x04k8s\0");
        let mut list = ListEncoder::new("v1", "Pod", &json!({"resourceVersion": "7"})).unwrap();
        list.push(&json!({"metadata": {"name": "a"}}));
        assert_eq!(
            list.finish("v1", "PodList"),
            b"k8s\0\x0a\x0d\x0a\x02v1\x12\x07PodList\x12\x0c\x0a\x03\x12\x017\x12\x05\x0a\x03\x0a\x01a\x1a\0\x22\0"
        );
        assert!(!is_known("example.com/v1", "Widget"));
    }
}
