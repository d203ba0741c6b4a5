//! Finding members of JSON text that we wrote ourselves (no white space), without parsing the rest.
//! Anything unexpected reads as absent, never as a panic.

/// The raw value of a member of a map.
pub(crate) fn member<'a>(object: &'a [u8], field: &str) -> Option<&'a [u8]> {
    let mut at = 1;
    if object.first() != Some(&b'{') {
        return None;
    }
    while object.get(at) == Some(&b'"') {
        let colon = string_end(object, at)?;
        let end = value_end(object, colon + 1)?;
        if object.get(at + 1..colon - 1)? == field.as_bytes() {
            return object.get(colon + 1..end);
        }
        at = end + 1;
    }
    None
}

/// A text without escapes.
pub(crate) fn plain_text(raw: &[u8]) -> Option<&str> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        None
    } else {
        std::str::from_utf8(inner).ok()
    }
}

/// Behind the closing quote of the text that opens at `open`.
fn string_end(json: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that starts at `start`.
pub(crate) fn value_end(json: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut depth = 0usize;
    loop {
        match json.get(at)? {
            b'"' => at = string_end(json, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                if depth == 0 {
                    return Some(at);
                }
                depth -= 1;
                at += 1;
            }
            b',' if depth == 0 => return Some(at),
            _ => at += 1,
        }
        if depth == 0 && matches!(json.get(at), None | Some(b',' | b'}' | b']')) {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        let text = br#"{"a":1,"b":{"c":"}\"","d":[1,{}]},"e":"x"}"#;
        let check = |field: &str, expect: Option<&str>| {
            assert_eq!(
                member(text, field).map(|v| std::str::from_utf8(v).unwrap()),
                expect,
                "{field}"
            );
        };
        check("a", Some("1"));
        check("b", Some(r#"{"c":"}\"","d":[1,{}]}"#));
        check("e", Some(r#""x""#));
        check("c", None);
        assert_eq!(plain_text(br#""x""#), Some("x"));
        for broken in [&b""[..], b"{", b"{\"a", b"{\"a\":", b"{\"a\":{", b"[]"] {
            assert_eq!(member(broken, "b"), None);
        }
    }
}
