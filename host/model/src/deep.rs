//! JSON text that is deeper than serde_json reads by itself.

use serde::Deserialize as _;
use serde_json::{Deserializer, Value};

/// The tree of text that is ours: how deep it may be was decided when it was let in. (serde_json's own bound is half of
/// that; an object between the two could be stored and never be read again.)
pub fn from_stored(text: &[u8]) -> serde_json::Result<Value> {
    let mut reader = Deserializer::from_slice(text);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeper_than_usual() {
        let text = format!("{}{}", "[".repeat(256), "]".repeat(256));
        let tree = from_stored(text.as_bytes()).unwrap();
        assert_eq!(tree.to_string(), text);
        assert!(from_stored(b"[] x").is_err());
        // And exact: the nearest double, whatever the digits.
        let number = from_stored(b"2.0012001200120008e44").unwrap();
        assert_eq!(number.to_string(), "2.0012001200120008e+44");
    }
}
