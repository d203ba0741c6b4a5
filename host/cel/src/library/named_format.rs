//! Named formats: `!format.dns1123Label().validate(self.name).hasValue()`.

use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

use super::{Opaque, no_overload, opaque, time};
use crate::decl::Library;
use crate::value::{EvalError, Value};

macro_rules! named {
    ($($function:literal => $name:literal),+ $(,)?) => {
        &[
            $((concat!("format.", $function, "() -> kubernetes.NamedFormat"), |_| {
                Ok(opaque(Opaque::Format($name)))
            }),)+
            ("format.named(string) -> optional(kubernetes.NamedFormat)", |args| match args {
                [Value::String(wanted)] => {
                    const NAMES: &[&str] = &[$($name),+];
                    let found = NAMES.iter().find(|name| ***name == **wanted);
                    Ok(Value::Optional(found.map(|name| opaque(Opaque::Format(name)).into())))
                }
                _ => no_overload(),
            }),
            ("kubernetes.NamedFormat: validate(string) -> optional(list(string))", |args| match args {
                [Value::Opaque(format), Value::String(text)] => {
                    let Opaque::Format(name) = &**format else {
                        return no_overload();
                    };
                    let wrong = check(name, text)?;
                    if wrong.is_empty() {
                        return Ok(Value::Optional(None));
                    }
                    let wrong = wrong.into_iter().map(Value::text).collect();
                    Ok(Value::some(Value::list(wrong)))
                }
                _ => no_overload(),
            }),
        ]
    };
}

pub(super) const LIBRARY: Library = named! {
    "dns1123Label" => "dns1123Label",
    "dns1123Subdomain" => "dns1123Subdomain",
    "dns1035Label" => "dns1035Label",
    "qualifiedName" => "qualifiedName",
    "dns1123LabelPrefix" => "dns1123LabelPrefix",
    "dns1123SubdomainPrefix" => "dns1123SubdomainPrefix",
    "dns1035LabelPrefix" => "dns1035LabelPrefix",
    "labelValue" => "labelValue",
    "uri" => "uri",
    "uuid" => "uuid",
    "byte" => "byte",
    "date" => "date",
    "datetime" => "datetime",
};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const OLD_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const NAME: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";

macro_rules! pattern {
    ($name:ident, $pattern:literal) => {
        static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($pattern).ok());
    };
}
pattern!(IS_LABEL, "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$");
pattern!(
    IS_SUBDOMAIN,
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
);
pattern!(IS_OLD_LABEL, "^[a-z]([-a-z0-9]*[a-z0-9])?$");
pattern!(IS_NAME, "^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$");
pattern!(
    IS_UUID,
    "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
);

fn fits(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern
        .as_ref()
        .is_some_and(|pattern| pattern.is_match(text))
}

/// What is wrong with a text of a format.
fn check(format: &str, text: &str) -> Result<Vec<String>, EvalError> {
    let named = |most: usize, pattern: &LazyLock<Option<Regex>>, why: &str, text: &str| {
        let mut wrong = Vec::new();
        if text.len() > most {
            wrong.push(format!("must be no more than {most} bytes"));
        }
        if !fits(pattern, text) {
            wrong.push(why.to_owned());
        }
        wrong
    };
    // A prefix may end in a dash; upstream puts a letter in its place.
    let prefix = match text.strip_suffix('-') {
        Some(prefix) if format.ends_with("Prefix") && !prefix.is_empty() => format!("{prefix}a"),
        _ => text.to_owned(),
    };
    let one = |ok: bool, why: &str| if ok { Vec::new() } else { vec![why.to_owned()] };
    Ok(match format {
        "dns1123Label" | "dns1123LabelPrefix" => named(63, &IS_LABEL, LABEL, &prefix),
        "dns1123Subdomain" | "dns1123SubdomainPrefix" => {
            named(253, &IS_SUBDOMAIN, SUBDOMAIN, &prefix)
        }
        "dns1035Label" | "dns1035LabelPrefix" => named(63, &IS_OLD_LABEL, OLD_LABEL, &prefix),
        "labelValue" if text.is_empty() => Vec::new(),
        "labelValue" => named(63, &IS_NAME, VALUE, text),
        "qualifiedName" => qualified(text, named),
        "uri" => one(
            super::regex::compiled("^([a-zA-Z][a-zA-Z0-9+.-]*:\\S+|/\\S*)$")?.is_match(text),
            "invalid URI for request",
        ),
        "uuid" => one(fits(&IS_UUID, text), "does not match the UUID format"),
        "byte" => one(
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .is_ok(),
            "invalid base64",
        ),
        "date" => one(
            time::parse_date(text).is_some() && text.len() == 10,
            "invalid date",
        ),
        "datetime" => one(time::parse_timestamp(text).is_some(), "invalid datetime"),
        _ => return Err(EvalError::NoSuchOverload),
    })
}

fn qualified(
    text: &str,
    named: impl Fn(usize, &LazyLock<Option<Regex>>, &str, &str) -> Vec<String>,
) -> Vec<String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (mut wrong, name) = match parts.as_slice() {
        [name] => (Vec::new(), *name),
        ["", name] => (vec!["prefix part must be non-empty".to_owned()], *name),
        [prefix, name] => {
            let wrong = named(253, &IS_SUBDOMAIN, SUBDOMAIN, prefix);
            (
                wrong
                    .into_iter()
                    .map(|why| format!("prefix part {why}"))
                    .collect(),
                *name,
            )
        }
        _ => return vec![NAME.to_owned()],
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        wrong.push("name part must be no more than 63 bytes".to_owned());
    }
    if !fits(&IS_NAME, name) {
        wrong.push(NAME_PART.to_owned());
    }
    wrong
}
