//! Makes inputs out of inputs: by bytes and words, and by the structure of JSON.

use serde_json::{Map, Value, json};

use crate::Target;
use crate::random::Random;

/// Mutated inputs do not grow beyond this.
const MAX_BYTES: usize = 64 << 10;
const MAX_ROUNDS: usize = 5;
/// More nodes than this are not looked at.
const MAX_NODES: usize = 4096;

const TEXTS: &[&str] = &[
    "",
    " ",
    "a",
    "-",
    ".",
    "/",
    "é",
    "𝄞",
    "\u{0}",
    "\u{feff}",
    "\u{200d}",
    "\n",
    "\\",
    "\"",
    "'",
    "%",
    "%s",
    "a/b",
    "a.b",
    "A",
    "1",
    "-1",
    "0",
    "null",
    "true",
    "1e9",
    "~0",
    "~1",
    "$",
    "${a}",
    "..",
    "*",
    "a=b",
    "2026-01-02T03:04:05Z",
    "100m",
    "1Gi",
    "1h",
    "tcp",
    "9223372036854775807",
    "ß",
    "K",
    "aé",
    "éa",
    "日本",
    "\u{301}",
];
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    7,
    59,
    60,
    80,
    100,
    255,
    256,
    1000,
    32767,
    65535,
    65536,
    i32::MAX as i64,
    i32::MIN as i64,
    i32::MAX as i64 + 1,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
];
const BYTES: &[&[u8]] = &[
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xf0\x9d\x84\x9e",
    b"\xed\xa0\x80",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"(",
    b")",
    b"-",
    b".",
    b"e",
    b"E",
    b"+",
    b"0",
    b"9",
    b"99999999999999999999",
    b"1e999",
    b"\r\n",
    b" ",
    b"\t",
    b"'",
    b"`",
    b"#",
    b"&a",
    b"*a",
    b"!!",
    b"<<: ",
    b"- ",
    b"%",
    b"=",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"null",
    b"true",
    b"NaN",
    b"Infinity",
    b"\xe2\x80\xa8",
];

/// An input, and its tree if it has one.
pub struct Entry {
    pub bytes: Vec<u8>,
    tree: Option<Value>,
}

impl Entry {
    pub fn new(bytes: Vec<u8>, tree: bool) -> Self {
        let tree = tree.then(|| serde_json::from_slice(&bytes).ok()).flatten();
        Self { bytes, tree }
    }
}

pub struct Mutator<'a> {
    pub random: Random,
    target: &'a Target,
}

impl<'a> Mutator<'a> {
    pub fn new(random: Random, target: &'a Target) -> Self {
        Self { random, target }
    }

    /// The next input; `None`: there is nothing to begin with.
    pub fn next(&mut self, corpus: &[Entry]) -> Option<Vec<u8>> {
        // Half of the time one of the newest.
        let at = if self.random.one_in(2) {
            let newest = corpus.len().min(32);
            corpus.len() - newest + self.random.below(newest)
        } else {
            self.random.below(corpus.len())
        };
        let entry = corpus.get(at)?;
        let other = self.random.pick(corpus)?;
        let rounds = 1 + self.random.below(MAX_ROUNDS);
        if let Some(tree) = &entry.tree
            && !self.random.one_in(16)
        {
            let mut tree = tree.clone();
            for _ in 0..rounds {
                self.tree(&mut tree, other.tree.as_ref());
            }
            let mut text = tree.to_string().into_bytes();
            if text.len() <= MAX_BYTES {
                if self.random.one_in(32) {
                    self.bytes(&mut text, &other.bytes);
                }
                return Some(text);
            }
        }
        let mut bytes = entry.bytes.clone();
        for _ in 0..rounds {
            self.bytes(&mut bytes, &other.bytes);
        }
        bytes.truncate(MAX_BYTES);
        Some(bytes)
    }

    fn word(&mut self) -> &'static str {
        let own = self.target.words;
        let from = if own.is_empty() || self.random.one_in(3) {
            TEXTS
        } else {
            own
        };
        self.random.pick(from).copied().unwrap_or_default()
    }

    fn bytes(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.random.below(bytes.len() + 1);
        let length = 1 + self.random.below(16);
        let end = (at + length).min(bytes.len());
        match self.random.below(10) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.random.below(8),
            1 if at < bytes.len() => bytes[at] = self.random.next() as u8,
            2 => drop(bytes.splice(at..end, [])),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[at..end].to_vec();
                let times = 1 + self.random.below(64);
                drop(bytes.splice(at..at, again.repeat(times)));
            }
            5 | 6 => {
                let word = self.word();
                drop(bytes.splice(at..at, word.bytes()));
            }
            7 => {
                let put = self.random.pick(BYTES).copied().unwrap_or_default();
                let times = if self.random.one_in(16) { 200 } else { 1 };
                drop(bytes.splice(at..at, put.repeat(times)));
            }
            8 => {
                let from = self.random.below(other.len() + 1);
                let to = (from + 1 + self.random.below(64)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            _ => {
                let word = self.word();
                drop(bytes.splice(at..end, word.bytes()));
            }
        }
    }

    /// One mutation somewhere in the tree.
    fn tree(&mut self, tree: &mut Value, other: Option<&Value>) {
        if let Some(grow) = self.target.grow
            && self.random.one_in(3)
        {
            grow(&mut self.random, tree);
            return;
        }
        let count = size(tree).min(MAX_NODES);
        let (at, from) = (self.random.below(count), self.random.below(count));
        let kind = self.random.below(12);
        let copy = match kind {
            0 => node(tree, from).cloned(),
            1 => other.and_then(|other| {
                let at = self.random.below(size(other).min(MAX_NODES));
                node(other, at).cloned()
            }),
            _ => None,
        };
        let Some(place) = node_mut(tree, at) else {
            return;
        };
        match (kind, copy) {
            (0 | 1, Some(copy)) => *place = copy,
            (2, _) => *place = self.scalar(),
            (3, _) => {
                let times = [1, 1, 1, 2, 10, 40, 70, 100][self.random.below(8)];
                for _ in 0..times {
                    let inner = place.take();
                    *place = if self.random.one_in(2) {
                        json!([inner])
                    } else {
                        json!({ self.word(): inner })
                    };
                }
            }
            _ => self.at(place),
        }
    }

    /// A mutation of this very node, by what it is.
    fn at(&mut self, place: &mut Value) {
        match place {
            Value::Object(map) => self.map(map),
            Value::Array(items) => {
                let at = self.random.below(items.len());
                match self.random.below(5) {
                    0 if !items.is_empty() => drop(items.remove(at)),
                    1 if !items.is_empty() => items.push(items[at].clone()),
                    2 if !items.is_empty() => {
                        let to = self.random.below(items.len());
                        items.swap(at, to);
                    }
                    3 if !items.is_empty() && size(&items[at]) < 16 => {
                        let times = [3, 20, 300][self.random.below(3)];
                        items.extend(vec![items[at].clone(); times]);
                    }
                    _ => items.push(self.scalar()),
                }
            }
            Value::String(text) => {
                let mut bytes = std::mem::take(text).into_bytes();
                let word = self.word();
                self.bytes(&mut bytes, word.as_bytes());
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            other => *other = self.scalar(),
        }
    }

    fn map(&mut self, map: &mut Map<String, Value>) {
        let key = map.keys().nth(self.random.below(map.len())).cloned();
        match (self.random.below(4), key) {
            (0, Some(key)) => {
                map.remove(&key);
            }
            (1, Some(key)) => {
                if let Some(value) = map.remove(&key) {
                    map.insert(self.word().to_owned(), value);
                }
            }
            (2, Some(key)) => {
                let value = map.get(&key).cloned().unwrap_or_default();
                map.insert(self.word().to_owned(), value);
            }
            _ => {
                let value = self.scalar();
                map.insert(self.word().to_owned(), value);
            }
        }
    }

    fn scalar(&mut self) -> Value {
        match self.random.below(10) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(false),
            3 => json!({}),
            4 => json!([]),
            5 | 6 => json!(self.random.pick(NUMBERS).copied().unwrap_or(0)),
            7 => json!([0.5, -0.0, 1e300, -1e-300, 1.5e10][self.random.below(5)]),
            _ => json!(self.word()),
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(size).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The node of a number, counted from the root down.
fn node(tree: &Value, mut at: usize) -> Option<&Value> {
    fn find<'a>(value: &'a Value, at: &mut usize) -> Option<&'a Value> {
        if *at == 0 {
            return Some(value);
        }
        *at -= 1;
        match value {
            Value::Object(map) => map.values().find_map(|v| find(v, at)),
            Value::Array(items) => items.iter().find_map(|v| find(v, at)),
            _ => None,
        }
    }
    find(tree, &mut at)
}

pub fn node_mut(tree: &mut Value, mut at: usize) -> Option<&mut Value> {
    fn find<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
        if *at == 0 {
            return Some(value);
        }
        *at -= 1;
        match value {
            Value::Object(map) => map.values_mut().find_map(|v| find(v, at)),
            Value::Array(items) => items.iter_mut().find_map(|v| find(v, at)),
            _ => None,
        }
    }
    find(tree, &mut at)
}
