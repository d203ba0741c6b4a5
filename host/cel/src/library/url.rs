//! URLs: `url("https://example.com:80/path").getHost()`. Absolute URIs, and absolute paths.

use super::{Opaque, Outcome, no_overload, opaque};
use crate::decl::Library;
use crate::value::{EvalError, Map, OwnedMap, Value};

#[derive(Clone, Debug)]
pub struct Url {
    pub text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

pub(super) const LIBRARY: Library = &[
    ("isURL(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => no_overload(),
    }),
    ("url(string) -> kubernetes.URL", |args| match args {
        [Value::String(text)] => match Url::parse(text) {
            Ok(url) => Ok(opaque(Opaque::Url(url))),
            Err(why) => Err(EvalError::new(format!(
                "URL parse error during conversion from string: parse {text:?}: {why}"
            ))),
        },
        _ => no_overload(),
    }),
    ("kubernetes.URL: getScheme() -> string", |args| {
        part(args, |url| url.scheme.clone())
    }),
    ("kubernetes.URL: getHost() -> string", |args| {
        part(args, |url| url.host.clone())
    }),
    ("kubernetes.URL: getHostname() -> string", |args| {
        part(args, |url| url.host_and_port().0)
    }),
    ("kubernetes.URL: getPort() -> string", |args| {
        part(args, |url| url.host_and_port().1)
    }),
    ("kubernetes.URL: getEscapedPath() -> string", |args| {
        part(args, |url| url.path.clone())
    }),
    (
        "kubernetes.URL: getQuery() -> map(string, list(string))",
        |args| {
            let mut query: Vec<(String, Vec<String>)> = Vec::new();
            for pair in of(args)?.query.split('&').filter(|pair| !pair.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                let (Some(name), Some(value)) = (unescaped(name), unescaped(value)) else {
                    continue;
                };
                match query.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, values)) => values.push(value),
                    None => query.push((name, vec![value])),
                }
            }
            let mut map = OwnedMap::default();
            for (name, values) in query {
                let values = values.into_iter().map(Value::text).collect();
                map.insert(Value::text(name), Value::list(values))?;
            }
            Ok(Value::Map(Map::Owned(map.into())))
        },
    ),
];

fn of<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match args.first() {
        Some(Value::Opaque(value)) => match &**value {
            Opaque::Url(url) => Ok(url),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn part<'a>(args: &[Value<'a>], of_url: fn(&Url) -> String) -> Outcome<'a> {
    Ok(Value::text(of_url(of(args)?)))
}

/// Percent escapes undone, `+` is a space; `None` if an escape is broken.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        bytes.push(match b {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (rest.next()?, rest.next()?);
                let digit = |b: u8| char::from(b).to_digit(16);
                (digit(high)? * 16 + digit(low)?) as u8
            }
            b => b,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Url {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("empty url");
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("net/url: invalid control character in URL");
        }
        let scheme_end =
            text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        let (scheme, rest) = match scheme_end {
            Some(end)
                if text[end..].starts_with(':')
                    && text.starts_with(|c: char| c.is_ascii_alphabetic()) =>
            {
                (text[..end].to_ascii_lowercase(), &text[end + 1..])
            }
            Some(0) if text.starts_with(':') => return Err("missing protocol scheme"),
            _ => (String::new(), text),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') && scheme.is_empty() {
            return Err("invalid URI for request");
        }
        let (host, path) = match rest
            .strip_prefix("//")
            .filter(|_| !scheme.is_empty() || !rest.starts_with("///"))
        {
            Some(authority) => {
                let end = authority.find('/').unwrap_or(authority.len());
                let host = &authority[..end];
                (
                    host.rsplit_once('@').map_or(host, |(_, host)| host),
                    &authority[end..],
                )
            }
            None if rest.starts_with('/') => ("", rest),
            // `mailto:someone`: no path, no host.
            None => ("", ""),
        };
        if host.contains(' ') {
            return Err("invalid character \" \" in host name");
        }
        if unescaped(path).is_none() {
            return Err("invalid URL escape");
        }
        let url = Self {
            text: text.to_owned(),
            scheme,
            host: host.to_owned(),
            path: path.replace(' ', "%20"),
            query: query.to_owned(),
        };
        let port = url.host_and_port().1;
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err("invalid port after host");
        }
        Ok(url)
    }

    fn host_and_port(&self) -> (String, String) {
        let host = self.host.as_str();
        let (name, port) = match (host.rfind(':'), host.rfind(']')) {
            (Some(colon), None) => (&host[..colon], &host[colon + 1..]),
            (Some(colon), Some(bracket)) if colon > bracket => (&host[..colon], &host[colon + 1..]),
            _ => (host, ""),
        };
        let name = name
            .strip_prefix('[')
            .and_then(|n| n.strip_suffix(']'))
            .unwrap_or(name);
        (name.to_owned(), port.to_owned())
    }
}
