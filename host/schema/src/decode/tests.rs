//! Texts in, values and refusals out.

use serde_json::json;

use super::*;
use crate::{Property, Schema, Type};

fn named(mut schema: Schema, go_type: &str) -> SchemaRef {
    schema.go_type = go_type.into();
    schema.into()
}

fn with(mut property: Property, presence: Presence) -> Property {
    property.presence = presence;
    property
}

/// A small pod: enough of every rule.
fn pod() -> SchemaRef {
    let string = || SchemaRef::new(Schema::scalar(Type::String));
    let container = named(
        Schema::object(vec![
            with(Property::new("name", string()), Presence::Always),
            with(Property::new("image", string()), Presence::OmitZero),
            with(
                Property::new("tty", Schema::scalar(Type::Boolean)),
                Presence::OmitZero,
            ),
            Property::new("priority", Schema::scalar(Type::Int32)),
            Property::new("limit", Schema::scalar(Type::Quantity)),
            Property::new("port", Schema::scalar(Type::IntOrString)),
            Property::new("raw", Schema::any()),
            with(
                Property::new("resources", Schema::object(vec![])),
                Presence::Always,
            ),
        ]),
        "v1.Container",
    );
    let labels = named(Schema::map(string()), "map[string]string");
    let spec = named(
        Schema::object(vec![
            with(
                Property::new(
                    "containers",
                    named(Schema::array(container), "[]v1.Container"),
                ),
                Presence::Always,
            ),
            with(Property::new("labels", labels), Presence::OmitZero),
            Property::new("at", Schema::scalar(Type::Time)),
            Property::new("data", Schema::scalar(Type::Bytes)),
        ]),
        "v1.PodSpec",
    );
    named(
        Schema::object(vec![
            with(Property::new("kind", string()), Presence::OmitZero),
            with(Property::new("spec", spec), Presence::Always),
        ]),
        "v1.Pod",
    )
}

#[test]
fn trees() {
    let schema = pod();
    let check = |text: &str, expect: Value, strict: &[&str]| {
        let decoded = decode(&schema, text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(decoded.value, expect, "{text}");
        assert_eq!(decoded.strict, strict, "{text}");
    };
    check("{}", json!({"spec": {"containers": null}}), &[]);
    check("null", json!({"spec": {"containers": null}}), &[]);
    check(
        r#" {"kind":"Pod","spec":{"containers":[{"name":"a","image":"","tty":false,"priority":0,"limit":"0.5","port":"http",
            "raw":{"x":[null,1.5,"\u00e9\ud83d\ude00\n"]}}]}} "#,
        json!({"kind": "Pod", "spec": {"containers": [
            {"name": "a", "priority": 0, "limit": "500m", "port": "http", "raw": {"x": [null, 1.5, "é😀\n"]}, "resources": {}},
        ]}}),
        &[],
    );
    check(
        r#"{"Kind":"x","spec":{"containers":[null,{"foo":{"a":[1,{}]}}],"labels":{"a":null,"b":"1","b":"2"}},"kind":"a","kind":"b"}"#,
        json!({"kind": "b", "spec": {"containers": [{"name": "", "resources": {}}, {"name": "", "resources": {}}],
            "labels": {"a": "", "b": "2"}}}),
        &[
            r#"unknown field "Kind""#,
            r#"unknown field "spec.containers[1].foo""#,
            r#"duplicate field "spec.labels.b""#,
            r#"duplicate field "kind""#,
        ],
    );
    check(
        r#"{"spec":{"labels":{"a":"1"},"at":null},"spec":{"labels":{}}}"#,
        json!({"spec": {"containers": null, "labels": {"a": "1"}}}),
        &[r#"duplicate field "spec""#],
    );
}

#[test]
fn errors() {
    let schema = pod();
    let check = |text: &str, expect: &str| {
        let error = decode(&schema, text.as_bytes()).expect_err(text);
        assert_eq!(error.to_string(), expect, "{text}");
    };
    for (text, expect) in [
        ("", "unexpected end of JSON input"),
        (r#"{"kind":"#, "unexpected end of JSON input"),
        (
            r#"{"kind":"a"}}"#,
            "invalid character '}' after top-level value",
        ),
        (r#"{"kind" "a"}"#, "invalid character '\"' after object key"),
        (
            r#"{"kind":"a" "b"}"#,
            "invalid character '\"' after object key:value pair",
        ),
        (
            r#"{"kind":"a",}"#,
            "invalid character '}' looking for beginning of object key string",
        ),
        (
            r#"{"spec":[1 2]}"#,
            "invalid character '2' after array element",
        ),
        (
            "nope",
            "invalid character 'o' in literal null (expecting 'u')",
        ),
        (
            r#"{"x":01}"#,
            "invalid character '1' after object key:value pair",
        ),
        (
            r#"{"x":"\q"}"#,
            "invalid character 'q' in string escape code",
        ),
        (
            "{\"x\":\"\n\"}",
            r"invalid character '\n' in string literal",
        ),
        (
            "<html>",
            "invalid character '<' looking for beginning of value",
        ),
        // A syntax error wins over a type error before it.
        (
            r#"{"kind":1,"spec":}"#,
            "invalid character '}' looking for beginning of value",
        ),
        (
            "[]",
            "json: cannot unmarshal array into Go value of type v1.Pod",
        ),
        (
            r#"{"kind":1}"#,
            "json: cannot unmarshal number into Go struct field Pod.kind of type string",
        ),
        (
            r#"{"spec":"x"}"#,
            "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            r#"{"spec":{"containers":[{"priority":1.5}]}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field Container.spec.containers.priority of type int32",
        ),
        (
            r#"{"spec":{"containers":["x"]}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            r#"{"spec":{"labels":{"a":5}}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.labels of type string",
        ),
        (
            r#"{"spec":{"labels":[]}}"#,
            "json: cannot unmarshal array into Go struct field PodSpec.spec.labels of type map[string]string",
        ),
        (
            r#"{"spec":{"containers":[{"limit":"lots"}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"spec":{"at":"soon"}}"#,
            r#"parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006""#,
        ),
        (
            r#"{"spec":{"data":"%%"}}"#,
            "illegal base64 data at input byte 0",
        ),
        (
            r#"{"spec":{"containers":[{"port":true}]}}"#,
            "json: cannot unmarshal bool into Go struct field Container.spec.containers.port of type int32",
        ),
    ] {
        check(text, expect);
    }
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
    check(&deep, "exceeded max depth");
}

#[test]
fn what_a_body_says_it_is() {
    let check = |text: &str, expect: Result<(&str, &str), &str>| {
        let got = type_meta(text.as_bytes());
        let got = got
            .as_ref()
            .map(|m| (&*m.api_version, &*m.kind))
            .map_err(ToString::to_string);
        assert_eq!(got.as_ref().copied().map_err(|e| &**e), expect, "{text}");
    };
    check(
        r#"{"apiVersion":"v1","x":{"kind":"no"},"kind":"Pod"}"#,
        Ok(("v1", "Pod")),
    );
    check("{}", Ok(("", "")));
    check(
        "[]",
        Err(
            r#"json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#,
        ),
    );
    check("nul", Err("unexpected end of JSON input"));
}

/// A small deterministic generator, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// Equal, but for the last digit of a double, which serde_json rounds in a hurry.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_f64(), y.as_f64()) {
            (Some(x), Some(y)) => (x - y).abs() <= x.abs() * 1e-12,
            _ => x == y,
        },
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|((k, x), (l, y))| k == l && same(x, y))
        }
        _ => a == b,
    }
}

/// Damaged texts never panic, and what is JSON to serde_json is JSON to us and the same tree, and the other way round.
#[test]
fn damaged_texts() {
    const SAMPLE: &str = r#"{"kind":"Pod","spec":{"containers":[{"name":"a","priority":12,"limit":"1.5Gi","port":80,
        "raw":{"x":[null,true,false,-1.5e3,0.25,"\u00e9\n\"",{}]}},{"name":"b \\ c"}],"labels":{"a":"1"},
        "at":"2026-11-23T20:45:00Z","data":"YWJj"}}"#;
    const BYTES: &[u8] = b"{}[]\",:\\ \n0123456789.-+eEtrufalsn\xc3\xa9\x00\xff";
    let (any, pod) = (SchemaRef::any(), pod());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        let mut text = SAMPLE.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(text.len());
            match random.below(3) {
                0 => text[at] = BYTES[random.below(BYTES.len())],
                1 => text.insert(at, BYTES[random.below(BYTES.len())]),
                _ => {
                    let end = (at + random.below(12)).min(text.len());
                    text.drain(at..end);
                }
            }
        }
        let shown = String::from_utf8_lossy(&text).into_owned();
        let by_schema = decode(&pod, &text);
        let ours = decode(&any, &text);
        assert_eq!(
            matches!(by_schema, Err(DecodeError::Syntax(_))),
            ours.is_err(),
            "schemas do not change what is JSON: {shown}"
        );
        match (serde_json::from_str::<Value>(&shown), ours) {
            (Ok(theirs), Ok(ours)) => {
                assert!(
                    same(&theirs, &ours.value),
                    "{shown}: {theirs} and {}",
                    ours.value
                );
            }
            (Err(_), Err(_)) => {}
            // Half a surrogate pair and numbers beyond a double are errors to serde_json only.
            (Err(error), Ok(_)) => {
                let text = error.to_string();
                let lenient = ["surrogate", "number out of range", "hex escape"];
                assert!(
                    lenient.iter().any(|why| text.contains(why)),
                    "{shown}: {text}"
                );
            }
            (Ok(_), Err(error)) => panic!("{shown}: {error}"),
        }
    }
}
