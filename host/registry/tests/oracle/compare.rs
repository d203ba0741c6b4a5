//! Comparing an answer with a recorded one whose placeholders are bound as they are met (FORMAT.md of the recordings).

use std::collections::HashMap;

use serde_json::{Map, Value};

#[derive(Clone, Debug, Default)]
pub struct Bindings(HashMap<String, String>);

/// Placeholders that stand for different texts each time.
const UNBOUND: [&str; 4] = ["$time", "$mtime", "$age", "$any"];
const BOUND: [&str; 8] = [
    "$uid:", "$rv:", "$lrv:", "$gen:", "$ip:", "$port:", "$cont:", "$token:",
];

impl Bindings {
    /// A recorded text with what is bound put in.
    pub fn fill(&self, text: &str) -> String {
        let mut names: Vec<_> = self.0.iter().collect();
        // `$rv:10` before `$rv:1`.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(name.as_str(), value)
        })
    }

    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => Value::Array(items.iter().map(|v| self.fill_value(v)).collect()),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(k, v)| (self.fill(k), self.fill_value(v)))
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    /// `None`: equal; else where and how they differ.
    pub fn compare(&mut self, expect: &Value, found: &Value, path: &str) -> Option<String> {
        match (expect, found) {
            (Value::String(e), Value::String(f)) => {
                (!self.text(e, f)).then(|| format!("{path}: expected {e:?}, found {f:?}"))
            }
            (Value::String(e), Value::Number(f)) if e.starts_with("$port:") => {
                (!self.text(e, &f.to_string())).then(|| format!("{path}: port {f}"))
            }
            (Value::String(e), _) if e == "$any" => None,
            (Value::Array(e), Value::Array(f)) => {
                if e.len() != f.len() {
                    return Some(format!(
                        "{path}: expected {} items, found {}",
                        e.len(),
                        f.len()
                    ));
                }
                let mut pairs = e.iter().zip(f).enumerate();
                pairs.find_map(|(at, (e, f))| self.compare(e, f, &format!("{path}[{at}]")))
            }
            (Value::Object(e), Value::Object(f)) => self.maps(e, f, path),
            (Value::Number(e), Value::Number(f)) if e.as_f64() == f.as_f64() => None,
            (e, f) => {
                (e != f).then(|| format!("{path}: expected {}, found {}", short(e), short(f)))
            }
        }
    }

    fn maps(
        &mut self,
        expect: &Map<String, Value>,
        found: &Map<String, Value>,
        path: &str,
    ) -> Option<String> {
        for (key, value) in expect {
            let filled = self.fill(key);
            let Some(other) = found.get(&filled).or_else(|| {
                // A key with a placeholder that is not bound yet.
                found
                    .iter()
                    .find(|(k, _)| key.contains('$') && self.text(key, k))
                    .map(|(_, v)| v)
            }) else {
                return Some(format!("{path}.{key}: missing, expected {}", short(value)));
            };
            if let Some(difference) = self.compare(value, other, &format!("{path}.{key}")) {
                return Some(difference);
            }
        }
        let extra = found.keys().find(|k| {
            !expect.keys().any(|e| {
                self.fill(e) == **k
                    || (e.contains('$') && !self.fill(e).contains(&**k) && e.contains("$gen"))
            })
        })?;
        Some(format!(
            "{path}.{extra}: not expected, found {}",
            short(&found[extra])
        ))
    }

    /// Matches a text with placeholders in it, binding the new ones.
    fn text(&mut self, expect: &str, found: &str) -> bool {
        let filled = self.fill(expect);
        let Some(at) = filled.find('$') else {
            return filled == found;
        };
        let (head, rest) = filled.split_at(at);
        let Some(found) = found.strip_prefix(head) else {
            return false;
        };
        if let Some(name) = UNBOUND.iter().find(|name| rest.starts_with(**name)) {
            let tail = rest[name.len()..].to_owned();
            return self.tail(None, &tail, found);
        }
        if let Some(kind) = BOUND.iter().find(|name| rest.starts_with(**name)) {
            let digits = rest[kind.len()..]
                .bytes()
                .take_while(u8::is_ascii_digit)
                .count();
            let (name, tail) = rest.split_at(kind.len() + digits);
            return self.tail(Some(name.to_owned()), tail, found);
        }
        filled == format!("{head}{found}")
    }

    fn tail(&mut self, name: Option<String>, tail: &str, found: &str) -> bool {
        let literal = tail.split('$').next().unwrap_or_default();
        let end = if literal.is_empty() {
            if tail.is_empty() {
                Some(found.len())
            } else {
                None
            }
        } else {
            found.find(literal)
        };
        let Some(end) = end else { return false };
        let value = &found[..end];
        if let Some(name) = name {
            if value.is_empty() {
                return false;
            }
            self.0.insert(name, value.to_owned());
        }
        self.text(tail, &found[end..])
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 160 {
        format!("{}...", text.chars().take(160).collect::<String>())
    } else {
        text
    }
}
