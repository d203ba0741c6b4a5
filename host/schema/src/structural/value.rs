//! Checks a value against a schema and tells what is wrong in Kubernetes' words.
//!
//! On an update, what has not changed is not held against the object: a part that equals its old self passes (ratcheting).
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-ratcheting>

use oarlock_model::Cause;
use serde_json::{Map, Value};

use super::formats::matches_format;
use super::lists::correlated;
use super::node::{Additional, Node};

/// How upstream prints the place of what has none.
const NO_FIELD: &str = "<nil>";

/// What is wrong below a value.
pub fn check_value(node: &Node, value: &Value, old: Option<&Value>, path: &str) -> Vec<Cause> {
    ratcheted(node, value, old, path).causes
}

/// A number as Go prints a float: the shortest digits that read back as it.
pub fn go_number(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let exponent = number.abs().log10().floor();
    if (-4.0..21.0).contains(&exponent) {
        return format!("{number}");
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// What was found, and how many checks were passed on the way: of several schemas that do not fit, the one that fits best
/// is told.
#[derive(Default)]
struct Found {
    causes: Vec<Cause>,
    passed: usize,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.causes.extend(other.causes);
        self.passed += other.passed;
    }

    fn tell(&mut self, cause: Cause) {
        self.causes.push(cause);
    }

    fn fits(&self) -> bool {
        self.causes.is_empty()
    }
}

fn ratcheted(node: &Node, value: &Value, old: Option<&Value>, path: &str) -> Found {
    let mut found = check(node, value, old, path);
    if !found.fits() && old == Some(value) {
        found.causes.clear();
    }
    found
}

fn invalid(path: &str, value: &str, message: String) -> Cause {
    let path = path.trim_start_matches('.');
    Cause::new(
        "FieldValueInvalid",
        field_of(path),
        format!("Invalid value: {value}: {message}"),
    )
}

fn field_of(path: &str) -> &str {
    if path.is_empty() { NO_FIELD } else { path }
}

/// About the value as a whole, with no field of its own.
fn loose(message: String) -> Cause {
    Cause::new(
        "FieldValueInvalid",
        NO_FIELD,
        format!("Invalid value: \"\": {message}"),
    )
}

fn wrong_type(path: &str, wanted: &str, shown: &str) -> Cause {
    let message =
        format!("Invalid value: {shown:?}: {path} in body must be of type {wanted}: {shown:?}");
    Cause::new("FieldValueTypeInvalid", field_of(path), message)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A number that has no fraction: `2.0`.
fn is_whole(value: &Value) -> bool {
    value
        .as_f64()
        .is_some_and(|n| n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0)
}

fn check(node: &Node, value: &Value, old: Option<&Value>, path: &str) -> Found {
    let mut found = Found::default();
    if value.is_null() {
        found.add(check_type(node, value, path));
        found.add(check_enum(node, value, path));
        return found;
    }
    if !node.types().is_empty() || !node.format.is_empty() {
        found.add(check_type(node, value, path));
        found.passed += 1;
    }
    found.add(check_composites(node, value, old, path));
    found.passed += 1;
    match value {
        Value::String(text) => {
            found.add(check_text(node, text, path));
            found.passed += 1;
            if !node.format.is_empty() {
                if !matches_format(&node.format, text) {
                    found.tell(wrong_type(path, &node.format, text));
                }
                found.passed += 1;
            }
        }
        Value::Number(_) => {
            found.add(check_number(node, value, path));
            found.passed += 1;
        }
        Value::Array(items) => {
            found.add(check_items(node, items, old, path));
            found.passed += 1;
        }
        _ => {}
    }
    found.add(check_enum(node, value, path));
    found.passed += 1;
    if let Value::Object(map) = value {
        found.add(check_fields(node, map, old, path));
        found.passed += 1;
    }
    found.passed += 1;
    found
}

fn check_type(node: &Node, value: &Value, path: &str) -> Found {
    let mut found = Found {
        passed: 1,
        ..Found::default()
    };
    let (types, has) = (node.types(), type_name(value));
    if value.is_null() {
        if !types.is_empty() && !node.nullable {
            found.tell(wrong_type(path, &types.join(","), has));
        }
        return found;
    }
    let numeric = types.contains(&"number") || types.contains(&"integer");
    let textual = value.is_string() || value.is_array();
    if !node.format.is_empty() && !numeric && textual {
        return found;
    }
    let fits = types.is_empty()
        || types.contains(&has)
        || (has == "number" && types.contains(&"integer") && is_whole(value))
        || (has == "integer" && types.contains(&"number"));
    if !node.format.is_empty() && !textual && (!fits || types.is_empty()) {
        // Where a format is asked for, upstream speaks of formats alone.
        let shown = match has {
            "integer" => "int64",
            "number" => "float64",
            _ => "",
        };
        let mut found = Found::default();
        found.tell(wrong_type(path, &node.format, shown));
        return found;
    }
    if !fits {
        found = Found::default();
        found.tell(wrong_type(path, &types.join(","), has));
    }
    found
}

fn check_enum(node: &Node, value: &Value, path: &str) -> Found {
    let mut found = Found::default();
    let same = |a: &Value| {
        a == value || (a.is_number() && value.is_number() && a.as_f64() == value.as_f64())
    };
    if !node.enumeration.is_empty() && !node.enumeration.iter().any(same) {
        let texts: Vec<String> = node
            .enumeration
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        found.tell(Cause::not_supported(field_of(path), value, &texts));
    }
    found
}

/// Only the first fault of a text is told.
fn check_text(node: &Node, text: &str, path: &str) -> Found {
    let mut found = Found::default();
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let (most, least) = (node.bounds.max_length, node.bounds.min_length);
    if let Some(most) = most.filter(|m| length > *m) {
        let most = usize::try_from(most).unwrap_or(0);
        found.tell(Cause::too_long(field_of(path), most));
    } else if let Some(least) = least.filter(|l| length < *l) {
        let why = format!("{path} in body should be at least {least} chars long");
        found.tell(invalid(path, &format!("{text:?}"), why));
    } else if let Some((pattern, _)) = node.pattern.as_ref().filter(|(_, r)| !r.is_match(text)) {
        let why = format!("{path} in body should match '{pattern}'");
        found.tell(invalid(path, &format!("{text:?}"), why));
    }
    found
}

/// Whether a number can be one of this node's type and format.
fn range_fault(node: &Node, number: f64, what: &str, path: &str) -> Option<String> {
    let types = node.types();
    let fits = match (types.as_slice(), node.format.as_str()) {
        (["integer"], "int32") => {
            number.fract() == 0.0 && (-2_147_483_648.0..=2_147_483_647.0).contains(&number)
        }
        (["integer"], _) => number.fract() == 0.0 && number.abs() < 9.3e18,
        (["number"], "float") => number.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    let ty = types.first().copied().unwrap_or_default();
    (!fits).then(|| match node.format.as_str() {
        "" => format!("{what} value must be of type {ty} (default format) in {path}"),
        format => format!("{what} value must be of type {ty} with format {format} in {path}"),
    })
}

fn check_number(node: &Node, value: &Value, path: &str) -> Found {
    let mut found = Found {
        passed: 1,
        ..Found::default()
    };
    let number = value.as_f64().unwrap_or_default();
    let shown = if value.is_f64() {
        go_number(number)
    } else {
        value.to_string()
    };
    if let Some(text) = range_fault(node, number, "Checked", path) {
        found.tell(loose(text));
    }
    // Whole numbers are compared with the whole part of a limit, if that is what the type is.
    let limit = |found: &mut Found, limit: f64, what: &str| {
        let fault = range_fault(node, limit, what, path);
        let native = fault.is_none() && !value.is_f64();
        if let Some(text) = fault {
            found.tell(loose(text));
        }
        if native { limit.trunc() } else { limit }
    };
    let bounds = &node.bounds;
    if let Some(factor) = bounds.multiple_of {
        let factor = limit(&mut found, factor, "MultipleOf");
        if factor <= 0.0 {
            let why = format!(
                "factor MultipleOf declared for {path} must be positive: {}",
                go_number(factor)
            );
            found.tell(invalid(path, &go_number(factor), why));
        } else {
            let whole = match value.as_i64() {
                Some(n) if factor.fract() == 0.0 => n % (factor as i64) == 0,
                _ => {
                    let times = if factor < 1.0 {
                        1.0 / factor * number
                    } else {
                        number / factor
                    };
                    times.fract() == 0.0
                }
            };
            if !whole {
                let why = format!(
                    "{path} in body should be a multiple of {}",
                    go_number(factor)
                );
                found.tell(invalid(path, &shown, why));
            }
        }
    }
    if let Some(least) = bounds.minimum {
        let least = limit(&mut found, least, "Minimum boundary");
        let (bad, words) = if bounds.exclusive_minimum {
            (number <= least, "greater than")
        } else {
            (number < least, "greater than or equal to")
        };
        if bad {
            let why = format!("{path} in body should be {words} {}", go_number(least));
            found.tell(invalid(path, &shown, why));
        }
    }
    if let Some(most) = bounds.maximum {
        let most = limit(&mut found, most, "Maximum boundary");
        let (bad, words) = if bounds.exclusive_maximum {
            (number >= most, "less than")
        } else {
            (number > most, "less than or equal to")
        };
        if bad {
            let why = format!("{path} in body should be {words} {}", go_number(most));
            found.tell(invalid(path, &shown, why));
        }
    }
    found
}

fn check_items(node: &Node, items: &[Value], old: Option<&Value>, path: &str) -> Found {
    let mut found = Found {
        passed: 1,
        ..Found::default()
    };
    if let Some(of) = &node.items {
        for (at, item) in items.iter().enumerate() {
            let before = old.and_then(|old| correlated(node, old, item));
            found.add(ratcheted(of, item, before, &format!("{path}[{at}]")));
        }
    }
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(least) = node.bounds.min_items.filter(|l| size < *l) {
        let why = format!("{path} in body should have at least {least} items");
        found.tell(invalid(path, &size.to_string(), why));
    }
    if let Some(most) = node.bounds.max_items.filter(|m| size > *m) {
        found.tell(Cause::too_many(
            field_of(path),
            items.len(),
            usize::try_from(most).unwrap_or(0),
        ));
    }
    found
}

fn check_fields(node: &Node, map: &Map<String, Value>, old: Option<&Value>, path: &str) -> Found {
    let mut found = Found::default();
    let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(least) = node.bounds.min_properties.filter(|l| size < *l) {
        let why = format!("{path} in body should have at least {least} properties");
        found.tell(invalid(path, &size.to_string(), why));
    }
    if let Some(most) = node.bounds.max_properties.filter(|m| size > *m) {
        found.tell(Cause::too_many(
            field_of(path),
            map.len(),
            usize::try_from(most).unwrap_or(0),
        ));
    }
    let old = old.filter(|_| node.map_type != "atomic");
    let before = |name: &str| {
        let own = path.is_empty() && matches!(name, "apiVersion" | "kind");
        old.filter(|_| !own).and_then(|o| o.get(name))
    };
    for (name, field) in map
        .iter()
        .filter(|(name, _)| !node.properties.contains_key(*name))
    {
        match &node.additional {
            Some(Additional::Of(values)) => {
                found.add(ratcheted(
                    values,
                    field,
                    before(name),
                    &format!("{path}.{name}"),
                ));
            }
            Some(Additional::Allowed(false)) => {
                let why = format!("{path}.{name} in body is a forbidden property");
                found.tell(invalid(path, "\"\"", why));
            }
            _ => {}
        }
    }
    for (name, property) in &node.properties {
        if let Some(field) = map.get(name) {
            let at = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            found.add(ratcheted(property, field, before(name), &at));
        }
    }
    for name in node.required.iter().filter(|name| !map.contains_key(*name)) {
        let at = format!("{path}.{name}");
        found.tell(Cause::required(at.trim_start_matches('.'), ""));
    }
    found
}

/// `anyOf`, `oneOf`, `allOf`, `not`.
fn check_composites(node: &Node, value: &Value, old: Option<&Value>, path: &str) -> Found {
    let mut found = Found::default();
    let each = |nodes: &[Node]| -> Vec<Found> {
        nodes.iter().map(|n| check(n, value, old, path)).collect()
    };
    if !node.any_of.is_empty() {
        let results = each(&node.any_of);
        match results.iter().position(Found::fits) {
            Some(first) => found.passed += results[first].passed,
            None => {
                found.tell(loose(format!(
                    "{path:?} must validate at least one schema (anyOf)"
                )));
                found.add(best(results));
            }
        }
    }
    if !node.one_of.is_empty() {
        let results = each(&node.one_of);
        match results.iter().filter(|r| r.fits()).count() {
            1 => found.passed += results.iter().find(|r| r.fits()).map_or(0, |r| r.passed),
            0 => {
                found.tell(loose(format!("{path:?} must validate one and only one schema (oneOf). Found none valid")));
                found.add(best(results));
            }
            many => found.tell(loose(format!(
                "{path:?} must validate one and only one schema (oneOf). Found {many} valid alternatives"
            ))),
        }
    }
    if !node.all_of.is_empty() {
        let results = each(&node.all_of);
        let fits = results.iter().filter(|r| r.fits()).count();
        let all = results.len();
        results.into_iter().for_each(|r| found.add(r));
        if fits != all {
            let none = if fits == 0 { ". None validated" } else { "" };
            found.tell(loose(format!(
                "{path:?} must validate all the schemas (allOf){none}"
            )));
        }
    }
    if let Some(not) = &node.not
        && check(not, value, old, path).fits()
    {
        found.tell(loose(format!(
            "{path:?} must not validate the schema (not)"
        )));
    }
    found.passed += 1;
    found
}

/// The first of those that passed the most checks.
fn best(results: Vec<Found>) -> Found {
    let mut best: Option<Found> = None;
    for result in results {
        if best.as_ref().is_none_or(|b| result.passed > b.passed) {
            best = Some(result);
        }
    }
    best.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: &Value, value: &Value, old: Option<&Value>) -> Vec<String> {
        let causes = check_value(&Node::parse(schema), value, old, "");
        causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn faults() {
        let check = |f: Value, value: Value, expect: &[&str]| {
            let schema = json!({"properties": {"f": f}});
            assert_eq!(
                told(&schema, &json!({"f": value}), None),
                expect,
                "{schema}"
            );
        };
        let range = json!({"type": "integer", "minimum": 2, "maximum": 9});
        check(
            range.clone(),
            json!(1),
            &["f: Invalid value: 1: f in body should be greater than or equal to 2"],
        );
        check(
            range.clone(),
            json!("x"),
            &["f: Invalid value: \"string\": f in body must be of type integer: \"string\""],
        );
        check(
            range,
            json!(2.5),
            &[
                "f: Invalid value: \"number\": f in body must be of type integer: \"number\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in f",
            ],
        );
        check(
            json!({"type": "string", "nullable": true}),
            Value::Null,
            &[],
        );
        check(
            json!({"type": "string"}),
            Value::Null,
            &["f: Invalid value: \"null\": f in body must be of type string: \"null\""],
        );
        check(
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            &["f: Unsupported value: \"c\": supported values: \"a\", \"b\""],
        );
        check(
            json!({"type": "string", "maxLength": 2}),
            json!("abc"),
            &["f: Too long: may not be more than 2 bytes"],
        );
        check(
            json!({"type": "string", "minLength": 2}),
            json!("a"),
            &["f: Invalid value: \"a\": f in body should be at least 2 chars long"],
        );
        check(
            json!({"type": "number", "multipleOf": 0.5}),
            json!(0.7),
            &["f: Invalid value: 0.7: f in body should be a multiple of 0.5"],
        );
        check(
            json!({"type": "array", "maxItems": 1, "items": {}}),
            json!([1, 2]),
            &["f: Too many: 2: must have at most 1 items"],
        );
        check(
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            &["f: Invalid value: 0: f in body should have at least 1 properties"],
        );
        check(
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            &[
                "f: Invalid value: \"boolean\": f in body must be of type integer,string: \"boolean\"",
            ],
        );
        check(
            json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
            json!({}),
            &[
                "<nil>: Invalid value: \"\": \"f\" must validate one and only one schema (oneOf). Found none valid",
                "f.a: Required value",
            ],
        );
        check(
            json!({"type": "string", "format": "date"}),
            json!(5),
            &["f: Invalid value: \"int64\": f in body must be of type date: \"int64\""],
        );
        check(
            json!({"type": "string", "not": {"enum": ["x"]}}),
            json!("x"),
            &["<nil>: Invalid value: \"\": \"f\" must not validate the schema (not)"],
        );
    }

    #[test]
    fn what_has_not_changed_passes() {
        let schema = json!({"properties": {"a": {"type": "string", "maxLength": 1}, "b": {"type": "integer"},
            "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"properties": {"v": {"type": "integer"}}}}}});
        let old = json!({"a": "long", "b": 1, "l": [{"k": 1, "v": "bad"}]});
        let new = json!({"a": "long", "b": 2, "l": [{"k": 2, "v": 1}, {"k": 1, "v": "bad"}]});
        assert_eq!(told(&schema, &new, Some(&old)), Vec::<String>::new());
        assert_eq!(told(&schema, &new, None).len(), 2);
        let changed = json!({"a": "other"});
        assert_eq!(told(&schema, &changed, Some(&old)).len(), 1);
    }

    #[test]
    fn numbers_as_go_prints_them() {
        for (number, expect) in [
            (9.0, "9"),
            (1.5, "1.5"),
            (1e21, "1e+21"),
            (0.00001, "1e-05"),
            (-2.0, "-2"),
            (1e20, "100000000000000000000"),
        ] {
            assert_eq!(go_number(number), expect);
        }
    }
}
