//! A stable hash of a JSON tree: the order of keys does not matter, and empty maps of labels are as good as none.

use serde_json::Value;

const OFFSET: u32 = 0x811c_9dc5;
const PRIME: u32 = 0x0100_0193;
/// Without vowels and digits that look like letters, so that no word comes out.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The text of `pod-template-hash` for a template; `collisions` sets equal ones apart.
pub fn template_hash(template: &Value, collisions: Option<i64>) -> String {
    let mut hash = OFFSET;
    feed(&mut hash, template);
    if let Some(collisions) = collisions {
        bytes(&mut hash, &collisions.to_le_bytes());
    }
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

fn bytes(hash: &mut u32, all: &[u8]) {
    for byte in all {
        *hash = (*hash ^ u32::from(*byte)).wrapping_mul(PRIME);
    }
}

fn feed(hash: &mut u32, value: &Value) {
    match value {
        Value::Null => bytes(hash, b"n"),
        Value::Bool(b) => bytes(hash, if *b { b"t" } else { b"f" }),
        Value::Number(number) => {
            bytes(hash, b"#");
            bytes(hash, number.to_string().as_bytes());
        }
        Value::String(text) => {
            bytes(hash, b"\"");
            bytes(hash, text.as_bytes());
        }
        Value::Array(items) => {
            bytes(hash, b"[");
            items.iter().for_each(|item| feed(hash, item));
        }
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().filter(|key| !map[*key].is_null()).collect();
            keys.sort();
            bytes(hash, b"{");
            for key in keys {
                bytes(hash, key.as_bytes());
                bytes(hash, b":");
                feed(hash, &map[key]);
            }
        }
    }
    bytes(hash, &[0xff]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_does_not_matter_and_content_does() {
        let text = |value: Value| template_hash(&value, None);
        let a: Value = serde_json::from_str(r#"{"a":1,"b":{"c":"x","d":null}}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":{"c":"x"},"a":1}"#).unwrap();
        assert_eq!(text(a.clone()), text(b));
        assert_ne!(text(a.clone()), text(json!({"a": 2, "b": {"c": "x"}})));
        assert_ne!(template_hash(&a, Some(1)), template_hash(&a, None));
        // A change here makes every Deployment roll out again.
        assert_eq!(
            text(json!({"spec": {"containers": [{"name": "c", "image": "i"}]}})),
            "78f5597978"
        );
    }
}
