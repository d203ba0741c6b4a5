//! Bodies: JSON by a schema, YAML, protobuf; and stored text that is read by scanning.

use oarlock_apiserver::fuzzing;
use oarlock_kinds::protobuf;
use oarlock_registry::scan;
use oarlock_schema::{DecodeError, decode, decode_untyped, decode_value, type_meta};
use serde_json::{Map, Value, json};

use super::{
    both, builtin, json_bytes, nested, outline, repeated, row, said, same, strings, text, tree,
};
use crate::random::Random;
use crate::{Target, Verdict, grow};

pub const TARGETS: &[Target] = &[
    Target {
        name: "json",
        tree: false,
        seeds: json_seeds,
        hostile: json_hostile,
        words: &[
            "\"metadata\"",
            "\"spec\"",
            "{}",
            "[]",
            "\"a\":",
            ",",
            "\\u0000",
            "\\ud83d\\ude00",
            "1e400",
            "-0",
            "1.0",
        ],
        grow: None,
        run: json,
    },
    Target {
        name: "yaml",
        tree: false,
        seeds: yaml_seeds,
        hostile: yaml_hostile,
        words: &[
            "- ",
            ": ",
            "&a ",
            "*a",
            "|",
            ">-",
            "!!str ",
            "!!binary ",
            "<<: ",
            "---\n",
            "...\n",
            "? ",
            "%YAML 1.1\n",
            "\n  ",
            "~",
            "0x1F",
            "0o7",
            ".inf",
            ".nan",
            "2001-01-01",
            "# ",
        ],
        grow: None,
        run: yaml,
    },
    Target {
        name: "protobuf",
        tree: false,
        seeds: protobuf_seeds,
        hostile: protobuf_hostile,
        words: &[
            "k8s\0",
            "\u{a}",
            "\u{12}",
            "v1",
            "apps/v1",
            "Pod",
            "Deployment",
            "Status",
            "DeleteOptions",
        ],
        grow: None,
        run: protobuf,
    },
    Target {
        name: "protobuf-kinds",
        tree: true,
        seeds: kinds_seeds,
        hostile: |_| Vec::new(),
        words: &["Pod", "Deployment", "1h", "1Gi"],
        grow: Some(grow_kind),
        run: protobuf_kinds,
    },
    Target {
        name: "scan",
        tree: true,
        seeds: kinds_seeds,
        hostile: |_| Vec::new(),
        words: &["metadata", "name", "\\", "\"", "}", "{", "]", ","],
        grow: None,
        run: scan,
    },
];

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"},"creationTimestamp":null,"managedFields":[{"manager":"m","operation":"Apply","apiVersion":"v1","time":"2026-01-02T03:04:05Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{".":{},"k:{\"name\":\"c\"}":{}}}}]},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"100m","memory":1}},"readinessProbe":{"httpGet":{"port":"http"},"periodSeconds":1.0}}],"terminationGracePeriodSeconds":30},"status":{"startTime":"2026-01-02T03:04:05+01:00"}}"#;

fn json_seeds() -> Vec<Vec<u8>> {
    strings(&[
        POD,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"\u00e9\ud83d\ude00","name":"b"},"data":{"a":"1","a":"2"},"binaryData":{"b":"aGVsbG8="},"immutable":true}"#,
        r#"{"kind":"CustomResourceDefinition","spec":{"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","default":{"a":[1,2.5,null]}}}}]}}"#,
        r#"{"spec":{"replicas":1.5,"selector":null,"strategy":{"rollingUpdate":{"maxSurge":"25%"}}}}"#,
        "null",
        "[]",
        "\"\"",
        "0",
        "{}",
        "{\"metadata\":[]}",
        "\u{feff}{}",
        "{\"a\":\u{1}}",
    ])
}

fn json_hostile(bytes: usize) -> Vec<Vec<u8>> {
    let with = |field: &str, value: String| {
        format!(r#"{{"metadata":{{"name":"x"}},"{field}":{value}}}"#).into_bytes()
    };
    vec![
        with("data", nested("[", "", "]", bytes)),
        with("data", nested("{\"a\":", "1", "}", bytes)),
        with("spec", nested("{\"spec\":", "1", "}", bytes)),
        with("unknown", nested("[", "", "]", bytes)),
        repeated("{", bytes).into_bytes(),
        repeated("[", bytes).into_bytes(),
        repeated("\"", bytes).into_bytes(),
        with("data", format!("[{}1]", repeated("1,", bytes))),
        with("data", format!("[{}[]]", repeated("[],", bytes))),
        with(
            "spec",
            format!("{{\"containers\":[{}{{}}]}}", repeated("{},", bytes)),
        ),
        with(
            "data",
            format!("{{{}\"a\":1}}", repeated("\"a\":1,", bytes)),
        ),
        with(
            "metadata",
            format!("{{{}\"name\":1}}", repeated("\"name\":\"a\",", bytes)),
        ),
        with(
            "data",
            format!("{{\"a\":\"{}\"}}", repeated("\\u00e9", bytes)),
        ),
        with("data", format!("{{\"a\":{}}}", repeated("9", bytes))),
        with("data", format!("{{\"a\":1e{}}}", repeated("9", bytes))),
        with("spec", format!("{{\"replicas\":{}}}", repeated("1", bytes))),
        [&b"{\"data\":{\"a\":\""[..], &vec![0xff; bytes / 3], b"\"}}"].concat(),
        (0..bytes / 12)
            .map(|n| format!("\"k{n:08}\":1,"))
            .collect::<String>()
            .into_bytes(),
        with(
            "spec",
            format!(
                "{{{}\"x\":1}}",
                (0..bytes / 12)
                    .map(|n| format!("\"k{n:08}\":1,"))
                    .collect::<String>()
            ),
        ),
    ]
}

fn json(input: &[u8]) -> Verdict {
    let mut out = match decode_untyped(input) {
        Ok(decoded) => both(outline(&decoded.value), decoded.strict.len().min(3) as u64),
        Err(error) => said(&error.to_string()),
    };
    out = both(out, type_meta(input).is_ok().into());
    for (group, kind) in [
        ("", "Pod"),
        ("", "ConfigMap"),
        ("apps", "Deployment"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ] {
        let row = row(group, kind).ok_or("no such kind")?;
        match decode(&row.schema, input) {
            Ok(decoded) => {
                out = both(out, outline(&decoded.value));
                out = both(out, decoded.strict.first().map_or(0, |s| said(s)));
                let again = decode_value(&row.schema, &decoded.value)
                    .map_err(|e| format!("what was decoded decodes: {e}"))?;
                same(
                    "decoding twice is decoding once",
                    &again.value,
                    &decoded.value,
                )?;
                if let Some(first) = again.strict.first() {
                    return Err(format!("what was decoded is strictly right: {first}"));
                }
            }
            Err(DecodeError::Syntax(error) | DecodeError::Type(error)) => {
                out = both(out, said(&error));
            }
        }
    }
    Ok(out)
}

fn yaml_seeds() -> Vec<Vec<u8>> {
    strings(&[
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {a: b, \"c\": 'd'}\ndata:\n  x: |\n    text\n    more\n  y: >-\n    folded\n",
        "- 1\n- 2.5\n- true\n- null\n- ~\n- 0x10\n- 1_000\n- .inf\n- 2001-01-01\n",
        "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: 2\n",
        "---\na: b\n---\nc: d\n",
        "? [complex, key]\n: value\n",
        "!!map {a: !!str 1, b: !!binary aGk=}\n",
        "%YAML 1.1\n---\na: \"\\u00e9\\x41\\n\"\n",
        "{\"a\": [1, {\"b\": null}]}",
        "a: b: c",
        "\ta: 1",
    ])
}

fn yaml_hostile(bytes: usize) -> Vec<Vec<u8>> {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let before = format!("*a{}", n - 1);
        laughs.push_str(&format!(
            "a{n}: &a{n} [{}]\n",
            [before.as_str(); 10].join(", ")
        ));
    }
    let mut merges = String::from("m0: &m0 {a: 1}\n");
    for n in 1..bytes / 40 {
        merges.push_str(&format!(
            "m{n}: &m{n}\n  <<: [*m{0}, *m{0}]\n  k{n}: 1\n",
            n - 1
        ));
    }
    let steps: String = (0..(bytes / 40).min(1200))
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    vec![
        laughs.into_bytes(),
        merges.into_bytes(),
        steps.into_bytes(),
        nested("[", "", "]", bytes).into_bytes(),
        nested("{a: ", "1", "}", bytes).into_bytes(),
        repeated("- ", bytes).into_bytes(),
        repeated("? ", bytes).into_bytes(),
        repeated("[", bytes).into_bytes(),
        repeated("{", bytes).into_bytes(),
        repeated("&a ", bytes).into_bytes(),
        repeated("!!a ", bytes).into_bytes(),
        repeated("\"", bytes).into_bytes(),
        repeated("#\n", bytes).into_bytes(),
        repeated("a: 1\n", bytes).into_bytes(),
        repeated("---\n", bytes).into_bytes(),
        format!("a: |\n{}", repeated(" x\n", bytes)).into_bytes(),
        format!("a: >\n{}", repeated("\n", bytes)).into_bytes(),
        format!("a: \"{}\"", repeated("\\x41", bytes)).into_bytes(),
        format!(
            "a: &a {}\n{}",
            repeated("x", bytes / 2),
            repeated("b: *a\n", bytes / 2)
        )
        .into_bytes(),
        (0..bytes / 12)
            .map(|n| format!("k{n:08}: 1\n"))
            .collect::<String>()
            .into_bytes(),
        repeated("a", bytes).into_bytes(),
    ]
}

fn yaml(input: &[u8]) -> Verdict {
    match fuzzing::yaml(input) {
        Ok(value) => {
            let back = fuzzing::yaml(value.to_string().as_bytes());
            if let (Ok(back), true) = (back, value.is_object()) {
                same("what YAML says, JSON says", &back, &value)?;
            }
            Ok(outline(&value))
        }
        Err(error) => Ok(said(&error)),
    }
}

/// An object of each kind that protobuf knows.
fn objects() -> Vec<Value> {
    let mut random = Random::new(11);
    builtin()
        .rows()
        .iter()
        .filter(|row| protobuf::is_known(&row.api_version(), &row.kind))
        .map(|row| {
            let mut object = grow::value(&mut random, &row.schema, 0);
            object["apiVersion"] = json!(row.api_version());
            object["kind"] = json!(row.kind);
            object
        })
        .collect()
}

fn protobuf_seeds() -> Vec<Vec<u8>> {
    objects().iter().filter_map(protobuf::encode).collect()
}

/// A field of bytes.
fn wire(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut left = bytes.len();
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
    out.extend_from_slice(bytes);
    out
}

fn message(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [wire(1, version.as_bytes()), wire(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), wire(1, &types), wire(2, raw)].concat()
}

fn protobuf_hostile(bytes: usize) -> Vec<Vec<u8>> {
    let mut deep = vec![0x0a, 0];
    while deep.len() < bytes.min(20_000) {
        deep = wire(2, &deep);
    }
    let mut schema = wire(5, b"object");
    for _ in 0..60 {
        schema = wire(24, &schema);
    }
    vec![
        message("v1", "Pod", &deep),
        message("v1", "ConfigMap", &repeated("\u{a}\0", bytes).into_bytes()),
        message(
            "v1",
            "Pod",
            &wire(2, &repeated("\u{12}\0", bytes).into_bytes()),
        ),
        message(
            "v1",
            "Pod",
            &wire(1, &repeated("\u{5a}\0", bytes).into_bytes()),
        ),
        message("v1", "ConfigMap", &wire(2, &wire(2, &vec![b'a'; bytes]))),
        message("v1", "ConfigMap", &wire(2, &wire(2, &vec![0xff; bytes]))),
        message(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            &wire(2, &schema),
        ),
        message(
            "apps/v1",
            "ControllerRevision",
            &wire(2, &wire(1, nested("[", "", "]", bytes).as_bytes())),
        ),
        message("v1", "DeleteOptions", &vec![0x08; bytes]),
    ]
}

/// Without what protobuf cannot tell from nothing (in maps of bytes, the empty from the absent).
fn tidied(value: &Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), tidied(value)))
            .filter(|(_, value)| !empty(value))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(tidied).collect(),
        other => other.clone(),
    }
}

fn protobuf(input: &[u8]) -> Verdict {
    let value = match protobuf::decode(input) {
        Ok(value) => value,
        Err(error) => return Ok(said(&error.to_string())),
    };
    let out = outline(&value);
    // As a body goes on: by the schema of its kind.
    let (version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
    let rows = builtin().rows().iter();
    let mut rows =
        rows.filter(|r| Some(r.kind.as_str()) == kind && Some(r.api_version().as_str()) == version);
    let Some(row) = rows.next() else {
        return Ok(out);
    };
    let Ok(decoded) = decode_value(&row.schema, &value) else {
        return Ok(both(out, 1));
    };
    there_and_back(&decoded.value).map(|()| both(out, 2))
}

fn there_and_back(object: &Value) -> Result<(), String> {
    let Some(bytes) = protobuf::encode(object) else {
        return Ok(());
    };
    let back = protobuf::decode(&bytes).map_err(|e| format!("what was encoded decodes: {e}"))?;
    let again = protobuf::encode(&back).ok_or("what was decoded encodes")?;
    let twice =
        protobuf::decode(&again).map_err(|e| format!("what was encoded twice decodes: {e}"))?;
    same("decode(encode(x)) is x", &tidied(&twice), &tidied(&back))
}

fn kinds_seeds() -> Vec<Vec<u8>> {
    json_bytes(&objects())
}

fn row_of(object: &Value) -> Option<&'static std::sync::Arc<oarlock_kinds::Row>> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let mut rows = builtin().rows().iter();
    rows.find(|row| row.kind == kind && row.api_version() == version)
}

fn grow_kind(random: &mut Random, object: &mut Value) {
    if let Some(row) = row_of(object) {
        grow::field(random, &row.schema, object);
    }
}

fn protobuf_kinds(input: &[u8]) -> Verdict {
    let Some(object) = tree(input) else {
        return Ok(0);
    };
    let Some(row) = row_of(&object) else {
        return Ok(1);
    };
    let decoded = match decode_value(&row.schema, &object) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(said(&error.to_string())),
    };
    let mut object = decoded.value;
    // The table of messages lacks those of scheduling/v1alpha3, which only these two have.
    for spec in ["/spec", "/spec/jobTemplate/spec"] {
        if let Some(Value::Object(spec)) = object.pointer_mut(spec) {
            spec.remove("scheduling");
        }
    }
    oarlock_model::meta::set_type(&mut object, row.api_version(), row.kind.as_str());
    let Some(bytes) = protobuf::encode(&object) else {
        return Ok(2);
    };
    let back = protobuf::decode(&bytes).map_err(|e| format!("what was encoded decodes: {e}"))?;
    let back = decode_value(&row.schema, &back)
        .map_err(|e| format!("what was encoded fits the schema: {e}"))?;
    same(
        "decode(encode(x)) is x",
        &tidied(&back.value),
        &tidied(&object),
    )?;
    Ok(outline(&object))
}

fn scan(input: &[u8]) -> Verdict {
    let Some(object) = tree(input) else {
        // Stored text is JSON always; other text must be survived all the same.
        let found = scan::at(input, &["metadata", "name"]).map_or(0, <[u8]>::len);
        return Ok(both(
            found as u64,
            scan::all_members(input).map_or(0, |m| m.len() as u64),
        ));
    };
    let stored = object.to_string();
    let json = stored.as_bytes();
    let Value::Object(map) = &object else {
        return Ok(both(0, scan::items(json).count() as u64));
    };
    for (name, value) in map {
        let found = scan::child(json, name);
        let plain = !name.contains(['"', '\\']) && !name.chars().any(char::is_control);
        if plain {
            let read = found.and_then(|raw| serde_json::from_slice::<Value>(raw).ok());
            same(
                "scanning finds what parsing finds",
                &read.unwrap_or_default(),
                value,
            )?;
            let member = fuzzing::member(json, name)
                .and_then(|raw| serde_json::from_slice::<Value>(raw).ok());
            same(
                "an answer is cut where parsing cuts",
                &member.unwrap_or_default(),
                value,
            )?;
        }
        if let (Some(raw), Value::String(text)) = (found, value) {
            let read = scan::string(raw);
            if read.as_deref() != Some(text) {
                return Err(format!("a scanned string reads as {read:?}"));
            }
        }
        if let (Some(raw), Value::Array(items)) = (found, value)
            && scan::items(raw).count() != items.len()
        {
            return Err("scanning finds as many items".to_owned());
        }
    }
    Ok(both(
        outline(&object),
        text(json).len().min(4096) as u64 / 256,
    ))
}
