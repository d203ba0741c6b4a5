//! A signed token in its compact form, and what can be said of it without keys; sentences are upstream's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

/// Longer texts are no tokens.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
const GOOGLE: &str = "accounts.google.com";

#[derive(Debug)]
pub(super) struct Token<'a> {
    /// What was signed.
    pub signed: &'a str,
    pub signature: Vec<u8>,
    header: Value,
    pub claims: Value,
}

/// A list of texts as Go's `%q` writes it.
fn quoted(all: &[&str]) -> String {
    let all: Vec<String> = all.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", all.join(" "))
}

/// As Go writes a time in UTC.
fn go_time(second: f64) -> String {
    let second = second as i64;
    let time = Timestamp::from_second(second).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()
}

impl<'a> Token<'a> {
    /// `None`: this is no such token.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| -> Option<Value> {
            let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()?;
            value.is_object().then_some(value)
        };
        Some(Self {
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            header: json(header)?,
            claims: json(claims)?,
        })
    }

    /// Not to be trusted before the signature is checked.
    pub fn issuer(&self) -> String {
        match self.claims["iss"].as_str().unwrap_or_default() {
            GOOGLE => format!("https://{GOOGLE}"),
            issuer => issuer.to_owned(),
        }
    }

    pub fn algorithm(&self) -> &str {
        self.header["alg"].as_str().unwrap_or_default()
    }

    /// Empty: it does not say which key signed it.
    pub fn key_id(&self) -> &str {
        self.header["kid"].as_str().unwrap_or_default()
    }

    fn audiences(&self) -> Vec<&str> {
        match &self.claims["aud"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// Who takes one audience only says so before the signature is looked at.
    pub fn check_audiences_of_one(&self, wanted: &[String]) -> Result<(), String> {
        match wanted {
            [one] if !self.audiences().contains(&one.as_str()) => Err(format!(
                "oidc: expected audience {one:?} got {}",
                quoted(&self.audiences())
            )),
            _ => Ok(()),
        }
    }

    pub fn check_audiences(&self, wanted: &[String]) -> Result<(), String> {
        let audiences = self.audiences();
        let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        if wanted.iter().any(|one| audiences.contains(one)) {
            return Ok(());
        }
        wanted.sort_unstable();
        Err(format!(
            "oidc: expected audience in {} got {}",
            quoted(&wanted),
            quoted(&audiences)
        ))
    }

    pub fn check_times(&self, now: Timestamp, leeway_seconds: i64) -> Result<(), String> {
        let second = now.as_second() as f64;
        let ends = self.claims["exp"].as_f64().unwrap_or(0.0);
        if ends < second {
            return Err(format!(
                "oidc: token is expired (Token Expiry: {})",
                go_time(ends)
            ));
        }
        match self.claims["nbf"].as_f64() {
            Some(begins) if second + leeway_seconds as f64 <= begins => Err(format!(
                "oidc: current time {} before the nbf (not before) time: {}",
                go_time(second),
                go_time(begins)
            )),
            _ => Ok(()),
        }
    }

    pub fn check_algorithm(&self, allowed: &[String]) -> Result<(), String> {
        if allowed
            .iter()
            .any(|algorithm| algorithm == self.algorithm())
        {
            return Ok(());
        }
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        Err(format!(
            "oidc: id token signed with unsupported algorithm, expected {} got {:?}",
            quoted(&allowed),
            self.algorithm()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "RS256", "kid": "k"});
        format!("{}.{}.AAAA", part(&header), part(claims))
    }

    #[test]
    fn what_is_wrong_is_told() {
        let claims = json!({"iss": "https://i", "aud": "a", "exp": 100, "nbf": 50});
        let text = text(&claims);
        let token = Token::parse(&text).unwrap();
        assert_eq!(
            (token.issuer().as_str(), token.key_id()),
            ("https://i", "k")
        );
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(token.check_times(at(60), 0), Ok(()));
        assert_eq!(
            token.check_times(at(101), 0).unwrap_err(),
            "oidc: token is expired (Token Expiry: 1970-01-01 00:01:40 +0000 UTC)"
        );
        assert_eq!(
            token.check_times(at(20), 0).unwrap_err(),
            "oidc: current time 1970-01-01 00:00:20 +0000 UTC before the nbf (not before) time: 1970-01-01 00:00:50 +0000 UTC"
        );
        assert_eq!(token.check_times(at(20), 60), Ok(()));
        let list = |all: &[&str]| -> Vec<String> { all.iter().map(|&a| a.to_owned()).collect() };
        assert_eq!(token.check_audiences(&list(&["b", "a"])), Ok(()));
        assert_eq!(
            token.check_audiences(&list(&["c", "b"])).unwrap_err(),
            r#"oidc: expected audience in ["b" "c"] got ["a"]"#
        );
        assert_eq!(
            token.check_audiences_of_one(&list(&["b"])).unwrap_err(),
            r#"oidc: expected audience "b" got ["a"]"#
        );
        assert_eq!(
            token.check_algorithm(&list(&["ES256"])).unwrap_err(),
            r#"oidc: id token signed with unsupported algorithm, expected ["ES256"] got "RS256""#
        );
        for bad in ["", "a.b", "a.b.c", "....", "e30.e30"] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }
}
