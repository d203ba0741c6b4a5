//! JSON trees as CBOR (RFC 8949), in upstream's dialect: texts are byte strings, a document begins with the self-described tag, and
//! what a tag says of bytes (`base64` later) or of a number (a time) is what JSON would have held.
//! Source: <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4222-cbor-serializer>

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

/// Tag 55799.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];
/// Containers inside of one another.
const MAX_DEPTH: usize = 64;
const BREAK: u8 = 0xff;
const INDEFINITE: u8 = 31;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// A document.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    write(&mut out, value);
    out
}

/// An event of a watch: its object is a document of its own.
pub(crate) fn event(name: &str, object: &Value) -> Vec<u8> {
    let mut out = SELF_DESCRIBED.to_vec();
    head(&mut out, MAP, 2);
    write_text(&mut out, "type");
    write_text(&mut out, name);
    write_text(&mut out, "object");
    out.extend_from_slice(&SELF_DESCRIBED);
    write(&mut out, object);
    out
}

fn head(out: &mut Vec<u8>, major: u8, count: u64) {
    let major = major << 5;
    let bytes = count.to_be_bytes();
    let (info, width) = match count {
        0..=23 => {
            out.push(major | bytes[7]);
            return;
        }
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major | info);
    out.extend_from_slice(&bytes[8 - width..]);
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    head(out, BYTES, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(false) => out.push(0xf4),
        Value::Bool(true) => out.push(0xf5),
        Value::String(text) => write_text(out, text),
        Value::Number(number) => {
            if let Some(n) = number.as_u64() {
                head(out, UNSIGNED, n);
            } else if let Some(n) = number.as_i64() {
                // Below zero: -1 - n is not.
                head(out, NEGATIVE, (-1 - n).unsigned_abs());
            } else {
                write_float(out, number.as_f64().unwrap_or_default());
            }
        }
        Value::Array(items) => {
            head(out, ARRAY, items.len() as u64);
            for item in items {
                write(out, item);
            }
        }
        Value::Object(fields) => {
            head(out, MAP, fields.len() as u64);
            for (name, field) in fields {
                write_text(out, name);
                write(out, field);
            }
        }
    }
}

/// In four bytes, if nothing is lost by it.
fn write_float(out: &mut Vec<u8>, float: f64) {
    let narrow = float as f32;
    if f64::from(narrow) == float {
        out.push(0xfa);
        out.extend_from_slice(&narrow.to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&float.to_be_bytes());
    }
}

/// The tree in a document, and nothing behind it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() {
        Ok(value)
    } else {
        let more = reader.rest.len();
        Err(format!("cbor: {more} bytes of extraneous data"))
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// What stands in front of an item: its major type, and its number (`None`: there is no telling).
struct Head {
    major: u8,
    info: u8,
    number: Option<u64>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or("cbor: unexpected EOF")?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<Head, String> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        let (major, info) = (first >> 5, first & 0x1f);
        let number = match info {
            0..=23 => Some(u64::from(info)),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                Some(bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
            }
            INDEFINITE if matches!(major, BYTES | TEXT | ARRAY | MAP) => None,
            _ => return Err(format!("cbor: invalid additional information {info}")),
        };
        Ok(Head {
            major,
            info,
            number,
        })
    }

    /// Whether an item of no known length has ended here.
    fn ends(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&BREAK, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!("cbor: exceeded max nested level {MAX_DEPTH}"));
        }
        let head = self.head()?;
        let number = head.number.unwrap_or_default();
        Ok(match head.major {
            UNSIGNED => i64::try_from(number)
                .map_err(|_| format!("cbor: {number} overflows a 64-bit integer"))?
                .into(),
            NEGATIVE => i64::try_from(number)
                .map(|n| -1 - n)
                .map_err(|_| format!("cbor: -1-{number} overflows a 64-bit integer"))?
                .into(),
            BYTES | TEXT => Value::String(text(head.major, self.string(&head)?)?),
            ARRAY => {
                let mut items = Vec::new();
                let mut left = head.number;
                while self.goes_on(&mut left) {
                    items.push(self.value(depth + 1)?);
                }
                Value::Array(items)
            }
            MAP => {
                let mut fields = Map::new();
                let mut left = head.number;
                while self.goes_on(&mut left) {
                    let of_key = self.head()?;
                    if !matches!(of_key.major, BYTES | TEXT) {
                        return Err("cbor: a map's key must be a text".to_owned());
                    }
                    let key = text(of_key.major, self.string(&of_key)?)?;
                    let value = self.value(depth + 1)?;
                    if fields.contains_key(&key) {
                        return Err(format!("cbor: found duplicate map key {key:?}"));
                    }
                    fields.insert(key, value);
                }
                Value::Object(fields)
            }
            TAG => self.tagged(number, depth + 1)?,
            _ => self.simple(&head)?,
        })
    }

    /// Whether another item of a container follows.
    fn goes_on(&mut self, left: &mut Option<u64>) -> bool {
        match left {
            None => !self.ends(),
            Some(0) => false,
            Some(n) => {
                *n -= 1;
                true
            }
        }
    }

    /// The bytes of a string, whose chunks may come one by one.
    fn string(&mut self, head: &Head) -> Result<Vec<u8>, String> {
        let Some(length) = head.number else {
            let mut all = Vec::new();
            while !self.ends() {
                let chunk = self.head()?;
                let (true, Some(length)) = (chunk.major == head.major, chunk.number) else {
                    return Err("cbor: wrong chunk in a string".to_owned());
                };
                all.extend_from_slice(self.take(length)?);
            }
            return Ok(all);
        };
        self.take(length).map(<[u8]>::to_vec)
    }

    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value, String> {
        // What bytes become in JSON, by what is expected of them later.
        let encoded: Option<fn(Vec<u8>) -> String> = match tag {
            21 => Some(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
            22 => Some(|bytes| STANDARD.encode(bytes)),
            23 => Some(hex::encode),
            _ => None,
        };
        if let Some(encoded) = encoded
            && self.rest.first().is_some_and(|b| b >> 5 == BYTES)
        {
            let head = self.head()?;
            return Ok(Value::String(encoded(self.string(&head)?)));
        }
        let inside = self.value(depth)?;
        match (tag, &inside) {
            (0, Value::String(time)) if time.parse::<Timestamp>().is_err() => {
                Err(format!("cbor: cannot set {time:?} for time"))
            }
            (0, Value::String(_)) => Ok(inside),
            (1, Value::Number(seconds)) => time(seconds),
            (0 | 1, _) => Err("cbor: a time must be a text or a number".to_owned()),
            (2 | 3, _) => Err("cbor: big numbers are not supported".to_owned()),
            _ => Ok(inside),
        }
    }

    fn simple(&mut self, head: &Head) -> Result<Value, String> {
        let bits = head.number.unwrap_or_default();
        let float = match head.info {
            20 => return Ok(Value::Bool(false)),
            21 => return Ok(Value::Bool(true)),
            22 | 23 => return Ok(Value::Null),
            25 => half(bits as u16),
            26 => f64::from(f32::from_bits(bits as u32)),
            27 => f64::from_bits(bits),
            _ => return Err(format!("cbor: simple value {bits} is not supported")),
        };
        Number::from_f64(float)
            .map(Value::Number)
            .ok_or_else(|| "cbor: a number must be finite".to_owned())
    }
}

fn text(major: u8, bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| {
        let what = if major == TEXT { "text" } else { "byte" };
        format!("cbor: invalid UTF-8 in a {what} string")
    })
}

/// Seconds since 1970, as JSON has times.
fn time(seconds: &Number) -> Result<Value, String> {
    let nanos = match (seconds.as_i64(), seconds.as_f64()) {
        (Some(whole), _) => i128::from(whole) * 1_000_000_000,
        (None, Some(float)) => (float * 1e9) as i128,
        _ => 0,
    };
    Timestamp::from_nanosecond(nanos)
        .map(|at| Value::String(at.to_string()))
        .map_err(|why| format!("cbor: {why}"))
}

/// A number of two bytes: ten bits behind the point, an exponent of five.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trees_come_back() {
        let tree = json!({
            "a": [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_296_i64, i64::MAX, -1, -24, -25, i64::MIN],
            "b": {"": null, "t": true, "f": false, "ü": "€ uro"}, "c": [1.5, 0.1, -2.25e300], "d": "x".repeat(300), "e": [],
        });
        let bytes = encode(&tree);
        assert!(bytes.starts_with(&SELF_DESCRIBED));
        assert_eq!(decode(&bytes).unwrap(), tree);
        let event = event("ADDED", &tree);
        assert_eq!(
            decode(&event).unwrap(),
            json!({"type": "ADDED", "object": tree})
        );
    }

    #[test]
    fn what_others_write() {
        let check = |text: &str, expect: Value| {
            let bytes = hex::decode(text).unwrap();
            assert_eq!(decode(&bytes).unwrap(), expect, "{text}");
        };
        // Examples of RFC 8949, appendix A.
        check("f93c00", json!(1.0));
        check("f90001", json!(5.960464477539063e-8));
        check("f9c400", json!(-4.0));
        check("fb3ff199999999999a", json!(1.1));
        check("f7", Value::Null);
        check("5f42010243030405ff", json!("\u{1}\u{2}\u{3}\u{4}\u{5}"));
        check("7f657374726561646d696e67ff", json!("streaming"));
        check("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]]));
        check("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]}));
        check("c11a514b67b0", json!("2013-03-21T20:04:00Z"));
        check("c1fb41d452d9ec200000", json!("2013-03-21T20:04:00.5Z"));
        check(
            "c074323031332d30332d32315432303a30343a30305a",
            json!("2013-03-21T20:04:00Z"),
        );
        check("d74401020304", json!("01020304"));
        check("d64401020304", json!("AQIDBA=="));
        check("d5420bff", json!("C_8"));
        check("d9d9f7d820617a", json!("z"));
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        for text in [
            "",
            "18",
            "62c3",
            "61ff",
            "ff",
            "8201",
            "a1",
            "a10102",
            "a2616101616102",
            "1bffffffffffffffff",
            "3bffffffffffffffff",
            "f97e00",
            "f97c00",
            "c0616b",
            "c1616b",
            "c249010000000000000000",
            "0001",
            "1f",
            "f818",
            "5b7fffffffffffffff",
            "9b7fffffffffffffff",
            "5f01ff",
            "9f",
        ] {
            let bytes = hex::decode(text).unwrap();
            assert!(decode(&bytes).is_err(), "{text}");
        }
        let deep = [0x81; 100_000];
        assert!(decode(&deep).unwrap_err().contains("nested"));
        let tags = [0xc6; 100_000];
        assert!(decode(&tags).unwrap_err().contains("nested"));
    }
}
