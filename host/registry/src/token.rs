//! Continue tokens: base64url of `{"v":"meta.k8s.io/v1","rv":REVISION,"start":REST OF THE KEY}`, as upstream's clients may
//! look into them. `rv` -1 means: go on at whatever revision is newest (an inconsistent list, asked for explicitly).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use oarlock_model::{ApiError, ApiResult};
use oarlock_store::Revision;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    /// The last key handed out, without the list's prefix.
    #[serde(default)]
    start: String,
}

impl Token {
    /// `None` revision: inconsistent.
    pub fn new(revision: Option<Revision>, last_key: &str, prefix: &str) -> Self {
        let rv = revision.and_then(|r| i64::try_from(r).ok()).unwrap_or(-1);
        Self {
            v: VERSION.to_owned(),
            rv,
            start: last_key.strip_prefix(prefix).unwrap_or(last_key).to_owned(),
        }
    }

    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub fn decode(text: &str) -> ApiResult<Self> {
        let bad = |why: String| ApiError::bad_request(format!("invalid continue token: {why}"));
        let trimmed = text.trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD
            .decode(trimmed)
            .or_else(|_| STANDARD_NO_PAD.decode(trimmed))
            .or_else(|e| lenient(trimmed).ok_or(e))
            .map_err(|_| {
                bad(format!(
                    "continue key is not valid: illegal base64 data at input byte {}",
                    bad_byte(trimmed)
                ))
            })?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| match bytes.first() {
            Some(first) if *first != b'{' => bad(format!(
                "continue key is not valid: invalid character '{}' looking for beginning of value",
                char::from(*first).escape_default()
            )),
            Some(_) => bad(format!("continue key is not valid: {e}")),
            None => bad("continue key is not valid: unexpected end of JSON input".to_owned()),
        })?;
        if token.v != VERSION {
            return Err(bad(format!(
                "continue key is not valid: server does not recognize this encoded version {:?}",
                token.v
            )));
        }
        if token.rv == 0 {
            return Err(bad(format!(
                "continue key is not valid: incorrect encoded start resourceVersion (version {VERSION})"
            )));
        }
        if token.start.is_empty() {
            return Err(bad(format!(
                "continue key is not valid: encoded start key empty (version {VERSION})"
            )));
        }
        Ok(token)
    }

    pub fn revision(&self) -> Option<Revision> {
        Revision::try_from(self.rv).ok()
    }

    pub fn after(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.start)
    }
}

/// Go's decoder does not mind trailing bits that are not zero.
fn lenient(text: &str) -> Option<Vec<u8>> {
    use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::URL_SAFE, config)
        .decode(text)
        .ok()
}

fn bad_byte(text: &str) -> usize {
    text.bytes()
        .position(|b| !b.is_ascii_alphanumeric() && b != b'-' && b != b'_')
        .unwrap_or(text.len() / 4 * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let token = Token::new(Some(12), "pods/ns/b", "pods/ns/");
        let back = Token::decode(&token.encode()).unwrap();
        assert_eq!(back, token);
        assert_eq!(
            (back.revision(), back.after("pods/ns/")),
            (Some(12), "pods/ns/b".to_owned())
        );
        assert_eq!(
            Token::decode(&Token::new(None, "a/b", "a/").encode())
                .unwrap()
                .revision(),
            None
        );
        let check = |text: &str, expect: &str| {
            assert_eq!(
                Token::decode(text).unwrap_err().message,
                format!("invalid continue token: {expect}")
            );
        };
        check(
            "badtoken",
            "continue key is not valid: invalid character 'm' looking for beginning of value",
        );
        check(
            "a!b",
            "continue key is not valid: illegal base64 data at input byte 1",
        );
        check(
            &URL_SAFE_NO_PAD.encode("{}"),
            "continue key is not valid: server does not recognize this encoded version \"\"",
        );
    }
}
