//! What is fuzzed, room by room; and words that the rooms share.

mod cel;
mod custom;
mod decoders;
mod kinds;
mod patches;
mod requests;
mod texts;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use oarlock_kinds::{Kinds, Row};
use serde_json::Value;

use crate::Target;
pub use crate::watch::literal;

/// Every target.
pub fn all() -> Vec<Target> {
    [
        decoders::TARGETS,
        patches::TARGETS,
        texts::TARGETS,
        cel::TARGETS,
        custom::TARGETS,
        requests::TARGETS,
        kinds::TARGETS,
    ]
    .concat()
}

/// Most of a text that counts as what was said.
const SAID_BYTES: usize = 300;

/// What was said as a number: texts without what they quote and without digits, so that the same sentence about something
/// else is nothing new.
fn said(text: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut quoted = false;
    for byte in text.bytes().take(SAID_BYTES) {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'0'..=b'9' => {}
            other => other.hash(&mut hash),
        }
    }
    hash.finish()
}

/// A tree by its outline: which fields it has down to some depth, and about how many.
fn outline(value: &Value) -> u64 {
    fn walk(value: &Value, depth: usize, hash: &mut DefaultHasher) {
        std::mem::discriminant(value).hash(hash);
        match value {
            Value::Object(map) if depth < 5 => {
                for (name, below) in map.iter().take(64) {
                    name.len().min(24).hash(hash);
                    walk(below, depth + 1, hash);
                }
            }
            Value::Array(items) if depth < 5 => {
                items.len().min(3).hash(hash);
                items.iter().take(2).for_each(|v| walk(v, depth + 1, hash));
            }
            _ => {}
        }
    }
    let mut hash = DefaultHasher::new();
    walk(value, 0, &mut hash);
    hash.finish()
}

fn both(a: u64, b: u64) -> u64 {
    a.rotate_left(17) ^ b
}

fn builtin() -> &'static Kinds {
    static KINDS: OnceLock<Kinds> = OnceLock::new();
    KINDS.get_or_init(Kinds::builtin)
}

fn row(group: &str, kind: &str) -> Option<&'static Arc<Row>> {
    let rows = builtin().rows().iter();
    rows.into_iter()
        .find(|r| r.group == group && r.kind == kind)
}

/// The time of every execution.
fn now() -> Timestamp {
    Timestamp::constant(1_790_000_000, 0)
}

fn text(input: &[u8]) -> &str {
    std::str::from_utf8(input).unwrap_or_default()
}

fn tree(input: &[u8]) -> Option<Value> {
    serde_json::from_slice(input).ok()
}

fn strings(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|s| s.as_bytes().to_vec()).collect()
}

fn json_bytes(of: &[Value]) -> Vec<Vec<u8>> {
    of.iter().map(|v| v.to_string().into_bytes()).collect()
}

/// `open` and `close` around each other, as deep as so many bytes go.
fn nested(open: &str, inner: &str, close: &str, bytes: usize) -> String {
    let depth = bytes / (open.len() + close.len()).max(1);
    [&open.repeat(depth), inner, &close.repeat(depth)].concat()
}

fn repeated(what: &str, bytes: usize) -> String {
    what.repeat(bytes / what.len().max(1))
}

/// A law: the two are the same.
fn same(law: &str, a: &Value, b: &Value) -> Result<(), String> {
    if a == b {
        return Ok(());
    }
    Err(format!("{law}\n  {a}\n  {b}"))
}
