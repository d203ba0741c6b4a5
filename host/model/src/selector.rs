//! Label and field selectors: the text forms of query parameters, and the object form of `LabelSelector`.

mod parse;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A request may not carry a longer selector text.
pub const MAX_SELECTOR_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

impl Requirement {
    /// Whether a key with this value (or without one) meets the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let as_number = |v: &str| v.parse::<i64>().ok();
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::NotIn(values) => !value.is_some_and(|v| values.iter().any(|x| x == v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => value.and_then(as_number).is_some_and(|v| v > *bound),
            Operator::LessThan(bound) => value.and_then(as_number).is_some_and(|v| v < *bound),
        }
    }
}

/// All requirements must hold; none at all matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

impl LabelSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Parses `a=b,c!=d,e in (x,y),f notin (z),!g,h,i>1,j<2`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError(format!(
                "selector is longer than {MAX_SELECTOR_BYTES} bytes"
            )));
        }
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// From a `meta/v1.LabelSelector` (`matchLabels`, `matchExpressions`). An empty one matches everything.
    pub fn from_object(object: &Value) -> Result<Self, SelectorError> {
        let spec =
            LabelSelectorSpec::deserialize(object).map_err(|e| SelectorError(e.to_string()))?;
        let mut requirements: Vec<Requirement> = spec
            .match_labels
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| {
                let value = value.as_str()?.to_owned();
                Some(Requirement {
                    key,
                    operator: Operator::In(vec![value]),
                })
            })
            .collect();
        for expression in spec.match_expressions.unwrap_or_default() {
            let values = expression.values.unwrap_or_default();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            requirements.push(Requirement {
                key: expression.key,
                operator,
            });
        }
        Ok(Self { requirements })
    }

    /// Equality with each of these labels (the selector of a ReplicationController or a Service).
    pub fn from_labels(labels: &Map<String, Value>) -> Self {
        let requirements = labels
            .iter()
            .filter_map(|(key, value)| {
                Some(Requirement {
                    key: key.clone(),
                    operator: Operator::In(vec![value.as_str()?.to_owned()]),
                })
            })
            .collect();
        Self { requirements }
    }

    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }

    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LabelSelectorSpec {
    match_labels: Option<Map<String, Value>>,
    match_expressions: Option<Vec<ExpressionSpec>>,
}

#[derive(Serialize, Deserialize)]
struct ExpressionSpec {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    if is_qualified_name(key) {
        return Ok(());
    }
    Err(SelectorError(format!(
        "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, \
         '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
         '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    )))
}

fn check_value(key: &str, at: usize, value: &str) -> Result<(), SelectorError> {
    if is_label_value(value) {
        return Ok(());
    }
    Err(SelectorError(format!(
        "values[{at}][{key}]: Invalid value: {value:?}: a valid label must be an empty string \
         or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
         (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    )))
}

/// A label value: empty, or up to 63 of `[A-Za-z0-9._-]`, alphanumeric at both ends.
pub fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() <= 63
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && bytes.first().is_none_or(u8::is_ascii_alphanumeric)
        && bytes.last().is_none_or(u8::is_ascii_alphanumeric)
}

/// A label or annotation key: `[prefix/]name`.
pub fn is_qualified_name(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    !name.is_empty() && is_label_value(name) && prefix.is_none_or(is_dns_subdomain)
}

/// A DNS-1123 subdomain: lower case, up to 253 bytes.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && !text.is_empty() && text.split('.').all(|part| is_dns_label_of(part, 253))
}

/// A DNS-1123 label: lower case, up to 63 bytes.
pub fn is_dns_label(text: &str) -> bool {
    is_dns_label_of(text, 63)
}

fn is_dns_label_of(text: &str, max: usize) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= max
        && bytes.iter().all(|b| plain(b) || *b == b'-')
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

/// `metadata.name=x,spec.nodeName!=y`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    pub field: String,
    pub value: String,
    /// True for `=`, false for `!=`.
    pub equal: bool,
}

impl FieldSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// `\,`, `\=` and `\\` escape, as upstream has it.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_SELECTOR_BYTES {
            return Err(SelectorError(format!(
                "selector is longer than {MAX_SELECTOR_BYTES} bytes"
            )));
        }
        let mut requirements = Vec::new();
        for term in split_unescaped(text, ',') {
            if term.is_empty() {
                continue;
            }
            let bad = || {
                SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                ))
            };
            let at = find_unescaped(term, '=').ok_or_else(bad)?;
            let (field, value) = (&term[..at], &term[at + 1..]);
            let (field, equal) = match field.strip_suffix('!') {
                Some(field) => (field, false),
                None => (field, true),
            };
            let value = if equal {
                value.strip_prefix('=').unwrap_or(value)
            } else {
                value
            };
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                value: unescape(value)?,
                equal,
            });
        }
        Ok(Self { requirements })
    }

    /// `field` gives a field's text; an absent field is the empty text.
    pub fn matches_with<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.requirements
            .iter()
            .all(|r| (field(&r.field) == r.value) == r.equal)
    }

    /// The value demanded of a field by an equality, if there is one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find(|r| r.equal && r.field == field)
            .map(|r| r.value.as_str())
    }
}

fn find_unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == wanted => return Some(at),
            _ => {}
        }
    }
    None
}

fn split_unescaped(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = find_unescaped(rest, separator) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len_utf8()..];
    }
    parts.push(rest);
    parts
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                _ => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: {text}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_texts() {
        let labels = json!({"app": "web", "tier": "3", "env": "prod"});
        let check = |text: &str, expect: bool| {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(labels.as_object()), expect, "{text}");
        };
        check("", true);
        check("app=web", true);
        check("app==web,env!=dev", true);
        check("app in (web, db)", true);
        check("app notin (web,db)", false);
        check("gone notin (a)", true);
        check("!app", false);
        check("!gone,app", true);
        check("tier>2,tier<4", true);
        check("tier>3", false);
        check("app=", false);
        for text in [
            "a b",
            "=x",
            "app in web",
            "app in (a",
            "a=b=c",
            ",",
            "-a=b",
            "a=b,",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn label_objects() {
        let labels = json!({"app": "web"});
        let check = |object: Value, expect: bool| {
            assert_eq!(
                LabelSelector::from_object(&object)
                    .unwrap()
                    .matches(labels.as_object()),
                expect,
                "{object}"
            );
        };
        check(json!({}), true);
        check(json!({"matchLabels": {"app": "web"}}), true);
        check(
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}),
            false,
        );
        check(
            json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}),
            true,
        );
    }

    #[test]
    fn field_texts() {
        let selector =
            FieldSelector::parse(r"spec.nodeName=n1,status.phase!=Failed,a=x\,y").unwrap();
        assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
        let matches = |node: &'static str| {
            selector.matches_with(|f| match f {
                "spec.nodeName" => node,
                "a" => "x,y",
                _ => "",
            })
        };
        assert!(matches("n1"));
        assert!(!matches("n2"));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
