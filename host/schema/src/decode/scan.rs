//! Reading JSON text token by token, with Go's texts for what is not JSON. Knows no schema.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::MAX_DEPTH;

/// Not JSON; Go's text.
pub(super) struct Syntax(pub(super) String);

pub(super) type Scan<T> = Result<T, Syntax>;

pub(super) struct Text<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// A byte as Go quotes it in these texts: bytes beyond ASCII are shown as if they were Latin-1.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0x00..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{:04x}'", u32::from(byte)),
        _ => format!("'{}'", char::from(byte)),
    }
}

fn end_of_input() -> Syntax {
    Syntax("unexpected end of JSON input".to_owned())
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    fn bad<T>(&self, context: &str) -> Scan<T> {
        match self.byte() {
            Some(byte) => Err(Syntax(format!(
                "invalid character {} {context}",
                quote(byte)
            ))),
            None => Err(end_of_input()),
        }
    }

    /// The first byte of the value that comes next; it is one that may begin a value.
    pub(super) fn begin_value(&mut self) -> Scan<u8> {
        self.space();
        match self.byte() {
            Some(byte @ (b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')) => Ok(byte),
            _ => self.bad("looking for beginning of value"),
        }
    }

    /// Nothing but space may be left.
    pub(super) fn end(&mut self) -> Scan<()> {
        self.space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.bad("after top-level value")
        }
    }

    /// Takes the opening bracket; `next_key` or `next_item` takes the closing one.
    pub(super) fn open(&mut self, bracket: u8) -> Scan<()> {
        debug_assert_eq!(self.byte(), Some(bracket));
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Syntax("exceeded max depth".to_owned()));
        }
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// The next key of an object, with its colon taken; `None` when the object has ended.
    pub(super) fn next_key(&mut self, first: &mut bool) -> Scan<Option<Cow<'a, str>>> {
        self.space();
        match (self.byte(), *first) {
            (Some(b'}'), _) => {
                self.close();
                return Ok(None);
            }
            (_, true) => *first = false,
            (Some(b','), false) => {
                self.at += 1;
                self.space();
            }
            (_, false) => return self.bad("after object key:value pair"),
        }
        if self.byte() != Some(b'"') {
            return self.bad("looking for beginning of object key string");
        }
        let key = self.string()?;
        self.space();
        if self.byte() != Some(b':') {
            return self.bad("after object key");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// True if another item of an array comes; false when the array has ended.
    pub(super) fn next_item(&mut self, first: bool) -> Scan<bool> {
        self.space();
        match (self.byte(), first) {
            (Some(b']'), _) => {
                self.close();
                Ok(false)
            }
            (_, true) => Ok(true),
            (Some(b','), false) => {
                self.at += 1;
                Ok(true)
            }
            (_, false) => self.bad("after array element"),
        }
    }

    pub(super) fn literal(&mut self, literal: &str) -> Scan<()> {
        for expected in literal.bytes() {
            if self.byte() != Some(expected) {
                return self.bad(&format!(
                    "in literal {literal} (expecting {})",
                    quote(expected)
                ));
            }
            self.at += 1;
        }
        Ok(())
    }

    pub(super) fn number(&mut self) -> Scan<&'a str> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.bad("in numeric literal"),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if !matches!(self.byte(), Some(b'0'..=b'9')) {
                return self.bad("after decimal point in numeric literal");
            }
            self.digits();
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            if !matches!(self.byte(), Some(b'0'..=b'9')) {
                return self.bad("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
    }

    /// A string; the text stands at its opening quote. Borrowed unless it has escapes.
    pub(super) fn string(&mut self) -> Scan<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        self.at += self.plain_length();
        match self.byte() {
            Some(b'"') => {
                let text = &self.text[start..self.at];
                self.at += 1;
                Ok(Cow::Borrowed(text))
            }
            Some(b'\\') => self.escaped_string(start).map(Cow::Owned),
            Some(_) => self.bad("in string literal"),
            None => Err(end_of_input()),
        }
    }

    /// How many bytes from here need no care in a string.
    fn plain_length(&self) -> usize {
        let rest = &self.text.as_bytes()[self.at..];
        rest.iter()
            .position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f))
            .unwrap_or(rest.len())
    }

    fn escaped_string(&mut self, start: usize) -> Scan<String> {
        let mut out = String::from(&self.text[start..self.at]);
        loop {
            let plain = self.at;
            self.at += self.plain_length();
            out.push_str(&self.text[plain..self.at]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    out.push(self.escape()?);
                }
                _ => return self.bad("in string literal"),
            }
        }
    }

    fn escape(&mut self) -> Scan<char> {
        let char = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return self.bad("in string escape code"),
        };
        self.at += 1;
        Ok(char)
    }

    /// Four hex digits, or a surrogate pair; half a pair reads as U+FFFD.
    fn unicode_escape(&mut self) -> Scan<char> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) || !self.text[self.at..].starts_with("\\u") {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let back = self.at;
        self.at += 2;
        let low = self.hex4()?;
        if (0xdc00..0xe000).contains(&low) {
            let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        self.at = back;
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Scan<u32> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.byte().and_then(|b| char::from(b).to_digit(16)) else {
                return self.bad("in \\u hexadecimal character escape");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }

    /// Any value, kept as it is; of a key that comes twice the last wins.
    pub(super) fn any(&mut self) -> Scan<Value> {
        Ok(match self.begin_value()? {
            b'{' => {
                let mut map = Map::new();
                self.open(b'{')?;
                let mut first = true;
                while let Some(key) = self.next_key(&mut first)? {
                    map.insert(key.into_owned(), self.any()?);
                }
                Value::Object(map)
            }
            b'[' => {
                let mut items = Vec::new();
                self.open(b'[')?;
                while self.next_item(items.is_empty())? {
                    items.push(self.any()?);
                }
                Value::Array(items)
            }
            b'"' => Value::String(self.string()?.into_owned()),
            b'n' => self.literal("null").map(|()| Value::Null)?,
            b't' => self.literal("true").map(|()| Value::Bool(true))?,
            b'f' => self.literal("false").map(|()| Value::Bool(false))?,
            _ => number_value(self.number()?),
        })
    }

    /// Checks a value's syntax and forgets it.
    pub(super) fn skip(&mut self) -> Scan<()> {
        match self.begin_value()? {
            b'{' => {
                self.open(b'{')?;
                let mut first = true;
                while self.next_key(&mut first)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.open(b'[')?;
                let mut first = true;
                while self.next_item(first)? {
                    first = false;
                    self.skip()?;
                }
                Ok(())
            }
            b'"' => self.string().map(|_| ()),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            _ => self.number().map(|_| ()),
        }
    }
}

/// A number token as a tree holds it; one beyond the range of a double is null.
pub(super) fn number_value(token: &str) -> Value {
    if let Ok(small) = token.parse::<i64>() {
        return Value::Number(Number::from(small));
    }
    if let Ok(large) = token.parse::<u64>() {
        return Value::Number(Number::from(large));
    }
    token.parse::<f64>().map_or(Value::Null, Value::from)
}
