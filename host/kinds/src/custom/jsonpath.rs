//! The part of kubectl's JSONPath that printer columns use: fields, quoted fields, indexes, slices, `*`, `..` and filters with
//! one comparison.
//! Source: <https://kubernetes.io/docs/reference/kubectl/jsonpath/>

use std::cell::Cell;

use serde_json::Value;

/// How many values a path may give: `..` over a large object must end.
const MAX_RESULTS: usize = 10_000;
/// Values that a path may look at: filters with `..` in them multiply.
const MAX_LOOKS: usize = 200_000;
/// Filters inside filters.
const MAX_FILTERS: usize = 8;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    All,
    Descend,
    Filter(JsonPath, Option<(Compare, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// `.spec.items[0].name`; `None`: not such a path.
    pub fn parse(text: &str) -> Option<Self> {
        Self::parse_inside(text, MAX_FILTERS)
    }

    /// `filters`: so many more may be inside each other.
    fn parse_inside(text: &str, filters: usize) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('@').unwrap_or(text);
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let end = bracket_end(inner)?;
                steps.push(bracket(&inner[..end], filters)?);
                rest = &inner[end + 1..];
                continue;
            }
            rest = rest.strip_prefix('.')?;
            if rest.starts_with('.') {
                steps.push(Step::Descend);
                continue;
            }
            let (name, behind) = field_name(rest);
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Field(name)),
            }
            rest = behind;
        }
        Some(Self(steps))
    }

    /// The first value at the path.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.all(value, &Cell::new(MAX_LOOKS)).first().copied()
    }

    fn all<'a>(&self, value: &'a Value, looks: &Cell<usize>) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.take(value, &mut next, looks);
            }
            next.truncate(MAX_RESULTS);
            found = next;
        }
        found
    }
}

/// A field's name up to the next step; `\.` is a dot of the name.
fn field_name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(letters.next().map(|(_, c)| c)),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where the bracket that was just opened closes.
fn bracket_end(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[' | '(') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']' | ')') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"'))
}

fn bracket(text: &str, filters: usize) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return self::filter(filter, filters.checked_sub(1)?);
    }
    if let Some(name) = unquoted(text) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some((from, to)) = text.split_once(':') {
        let bound = |t: &str| {
            if t.is_empty() {
                Some(None)
            } else {
                t.parse().ok().map(Some)
            }
        };
        return Some(Step::Slice(bound(from)?, bound(to)?));
    }
    text.parse().ok().map(Step::Index)
}

fn filter(text: &str, filters: usize) -> Option<Step> {
    let parse = |text: &str| JsonPath::parse_inside(text.trim(), filters);
    let operators = [
        ("==", Compare::Equal),
        ("!=", Compare::Different),
        ("<=", Compare::LessOrEqual),
        (">=", Compare::GreaterOrEqual),
        ("<", Compare::Less),
        (">", Compare::Greater),
    ];
    let found = operators
        .iter()
        .find_map(|(word, compare)| text.split_once(word).map(|(l, r)| (l, r, *compare)));
    let Some((left, right, compare)) = found else {
        return Some(Step::Filter(parse(text)?, None));
    };
    let right = right.trim();
    let value = match unquoted(right) {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Filter(parse(left)?, Some((compare, value))))
}

impl Step {
    fn take<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>, looks: &Cell<usize>) {
        // Each step looks at its value; those that go over many at each of them.
        let look = || {
            let left = looks.get();
            looks.set(left.saturating_sub(1));
            left > 0
        };
        if !look() {
            return;
        }
        let children = |value: &'a Value| -> Vec<&'a Value> {
            match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            }
        };
        let place = |at: i64, length: usize| {
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            usize::try_from(if at < 0 { at + length } else { at }).ok()
        };
        match self {
            Self::Field(name) => out.extend(value.get(name)),
            Self::Index(at) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                out.extend(place(*at, items.len()).and_then(|at| items.get(at)));
            }
            Self::Slice(from, to) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let from = from.map_or(Some(0), |f| place(f, items.len())).unwrap_or(0);
                let to = to
                    .map_or(Some(items.len()), |t| place(t, items.len()))
                    .unwrap_or(0);
                out.extend(items.iter().take(to).skip(from));
            }
            Self::All => out.extend(children(value)),
            Self::Descend => {
                out.push(value);
                for child in children(value) {
                    if out.len() < MAX_RESULTS {
                        self.take(child, out, looks);
                    }
                }
            }
            Self::Filter(path, test) => {
                for item in children(value).into_iter().take_while(|_| look()) {
                    let found = path.all(item, looks).first().copied();
                    let fits = match (found, test) {
                        (Some(found), Some((compare, wanted))) => compare.holds(found, wanted),
                        (found, None) => found.is_some(),
                        (None, Some(_)) => false,
                    };
                    if fits {
                        out.push(item);
                    }
                }
            }
        }
    }
}

impl Compare {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match self {
            Self::Equal => left == right || order.is_some_and(|o| o.is_eq()),
            Self::Different => left != right && !order.is_some_and(|o| o.is_eq()),
            Self::Less => order.is_some_and(|o| o.is_lt()),
            Self::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Self::Greater => order.is_some_and(|o| o.is_gt()),
            Self::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let object = json!({"spec": {"a": 1, "l": ["p", "q"], "x.y": "dot", "m": [{"t": "A", "n": 1}, {"t": "B", "n": 2}]}});
        let check = |path: &str, expect: Value| {
            let path = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(path.first(&object).cloned().unwrap_or_default(), expect);
        };
        check(".spec.a", json!(1));
        check(".spec.l[*]", json!("p"));
        check(".spec.l[-1]", json!("q"));
        check(".spec.l[1:2]", json!("q"));
        check(".spec['x.y']", json!("dot"));
        check(r".spec.x\.y", json!("dot"));
        check(".spec.m[?(@.t==\"B\")].n", json!(2));
        check(".spec.m[?(@.n>1)].t", json!("B"));
        check("..n", json!(1));
        check(".spec.none.x", Value::Null);
        for bad in ["spec", ".spec[", ".spec[x]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn hostile_paths_end() {
        let nested = |depth: usize| format!("{}{}", "[?(@".repeat(depth), ".a)]".repeat(depth));
        assert!(JsonPath::parse(&nested(MAX_FILTERS)).is_some());
        assert_eq!(JsonPath::parse(&nested(100_000)), None);
        let wide: Value = (0..100).map(|n| json!({"a": [n, [n, [n]]]})).collect();
        let path = JsonPath::parse(&nested(MAX_FILTERS).replace("[?(@", "..[?(@..")).unwrap();
        assert_eq!(path.first(&wide), None);
    }
}
