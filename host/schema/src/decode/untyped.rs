//! JSON of no known type: kept as it is, but fields that come twice are told.

use serde_json::{Map, Value};

use super::scan::{Scan, Text, number_value};
use super::{DecodeError, Decoded, MAX_STRICT_ERRORS};

/// Whole numbers up to this are the same as integers and as floats.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Decodes JSON text without a schema; duplicate fields are told in [`Decoded::strict`], the last one wins.
pub fn decode_untyped(json: &[u8]) -> Result<Decoded, DecodeError> {
    let text = String::from_utf8_lossy(json);
    let mut reader = Reader {
        text: Text::new(&text),
        strict: Vec::new(),
        path: String::new(),
    };
    let value = reader.value().and_then(|v| reader.text.end().map(|()| v));
    let value = value.map_err(|e| DecodeError::Syntax(e.0))?;
    Ok(Decoded {
        value,
        strict: reader.strict,
    })
}

struct Reader<'a> {
    text: Text<'a>,
    strict: Vec<String>,
    path: String,
}

impl Reader<'_> {
    fn below<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> Scan<T>) -> Scan<T> {
        let length = self.path.len();
        if length > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        let value = read(self)?;
        self.path.truncate(length);
        Ok(value)
    }

    fn value(&mut self) -> Scan<Value> {
        match self.text.begin_value()? {
            b'{' => {
                let mut map = Map::new();
                self.text.open(b'{')?;
                let mut first = true;
                while let Some(key) = self.text.next_key(&mut first)? {
                    let key = key.into_owned();
                    let twice = map.contains_key(&key);
                    let value = self.below(&key, |reader| {
                        if twice && reader.strict.len() < MAX_STRICT_ERRORS {
                            let path = &reader.path;
                            reader.strict.push(format!("duplicate field \"{path}\""));
                        }
                        reader.value()
                    })?;
                    map.insert(key, value);
                }
                Ok(Value::Object(map))
            }
            b'[' => {
                let mut items = Vec::new();
                self.text.open(b'[')?;
                while self.text.next_item(items.is_empty())? {
                    let item = self.below(&format!("[{}]", items.len()), Self::value)?;
                    items.push(item);
                }
                Ok(Value::Array(items))
            }
            b'"' | b'n' | b't' | b'f' => self.text.any(),
            _ => Ok(whole(number_value(self.text.number()?))),
        }
    }
}

/// `2.0` is written as `2`.
fn whole(number: Value) -> Value {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < MAX_EXACT => {
            Value::from(float as i64)
        }
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn untyped() {
        let decoded =
            decode_untyped(br#"{"a":1,"b":{"c":[{"d":1.0,"d":2.5}],"c2":null},"a":"x"}"#).unwrap();
        assert_eq!(
            decoded.value,
            json!({"a": "x", "b": {"c": [{"d": 2.5}], "c2": null}})
        );
        assert_eq!(
            decoded.strict,
            ["duplicate field \"b.c[0].d\"", "duplicate field \"a\""]
        );
        assert_eq!(decode_untyped(b"[3.0]").unwrap().value, json!([3]));
        assert!(decode_untyped(b"{").is_err() && decode_untyped(b"{} x").is_err());
    }
}
