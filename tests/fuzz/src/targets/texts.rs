//! Small languages: selectors, quantities, times, durations, paths of printer columns, patterns.

use oarlock_kinds::custom::jsonpath::JsonPath;
use oarlock_model::{FieldSelector, LabelSelector, Quantity, names, time};
use oarlock_schema::structural::{go_number, go_syntax_error, matches_format};
use oarlock_schema::{Schema, SchemaRef, Type, decode_value};
use serde_json::{Value, json};

use super::{both, json_bytes, nested, outline, repeated, said, same, strings, text, tree};
use crate::{Target, Verdict};

pub const TARGETS: &[Target] = &[
    Target {
        name: "selectors",
        tree: false,
        seeds: || {
            strings(&[
                "a=b",
                "a==b,c!=d",
                "a in (b,c),d notin (e)",
                "a,!b",
                "a>1,b<2",
                "x.y/z in ()",
                "metadata.name=a,spec.nodeName!=b\\,c",
                "",
                " , ",
                r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"k","operator":"In","values":["v"]}]}"#,
            ])
        },
        hostile: |bytes| {
            vec![
                repeated("a=b,", bytes).into_bytes(),
                repeated("!", bytes).into_bytes(),
                format!("a in ({}b)", repeated("b,", bytes)).into_bytes(),
                repeated("(", bytes).into_bytes(),
                repeated("\\", bytes).into_bytes(),
                repeated("é", bytes).into_bytes(),
            ]
        },
        words: &[
            "in", "notin", "=", "==", "!=", "(", ")", ",", "!", ">", "<", "\\,", "\\=", "\\",
            "exists",
        ],
        grow: None,
        run: selectors,
    },
    Target {
        name: "scalars",
        tree: false,
        seeds: || {
            strings(&[
                "100m",
                "1.5Gi",
                "-0.5n",
                "1e3",
                "1E-3",
                "12345678901234567890",
                "9223372036854775807Ei",
                "+1",
                ".5",
                "1Ki",
                "0x1",
                "1h2m3.5s",
                "-1ns",
                "2562047h47m16.854775807s",
                "1µs",
                "2026-01-02T03:04:05Z",
                "2026-01-02T03:04:05.123456789+23:59",
                "0000-01-01T00:00:00Z",
                "2016-12-31T23:59:60Z",
                "aGVsbG8=",
                "^a{1,3}(b|c)*$",
                "(?i)[[:alpha:]]\\pL",
                "[a",
                "10.0.0.1",
                "fd00::1/64",
                "a@b.c",
                "550e8400-e29b-41d4-a716-446655440000",
                "4111 1111 1111 1111",
                "#fff",
                "rgb(1,2,3)",
            ])
        },
        hostile: |bytes| {
            vec![
                repeated("1", bytes).into_bytes(),
                format!("1e{}", repeated("9", bytes)).into_bytes(),
                format!("0.{}1", repeated("0", bytes)).into_bytes(),
                repeated("1h", bytes).into_bytes(),
                format!("{}s", repeated("9", bytes)).into_bytes(),
                nested("(", "a", ")", bytes).into_bytes(),
                repeated("a{1000}", bytes.min(300)).into_bytes(),
                nested("(", "a", "){1000}", bytes.min(300)).into_bytes(),
                repeated("(a|b)*", bytes).into_bytes(),
                repeated("[", bytes).into_bytes(),
                repeated("\\pL", bytes).into_bytes(),
            ]
        },
        words: &[
            "Ki",
            "Mi",
            "Gi",
            "Ei",
            "n",
            "u",
            "m",
            "k",
            "E",
            "e",
            "h",
            "ms",
            "µs",
            "ns",
            "T",
            "Z",
            "+00:00",
            "-",
            ".",
            "*",
            "+",
            "{1,2}",
            "(?:",
            "\\d",
            "[^a]",
            "|",
            "$",
            "9999999999999999999",
        ],
        grow: None,
        run: scalars,
    },
    Target {
        name: "jsonpath",
        tree: true,
        seeds: || {
            let object = json!({"a": [{"b": 1, "c": "x"}, {"b": 2}], "d.e": {"f": [1, 2, 3]}, "metadata": {"name": "n"}});
            let paths = [
                ".a[0].b",
                ".a[*].b",
                "..b",
                ".a[?(@.b==1)].c",
                ".a[-1:]",
                ".d\\.e.f[0:2]",
                "['d.e'].f",
                ".a[?(@.c)]",
                "..",
                ".*.*",
                ".a[?(@.b>=1)]",
                ".a[9223372036854775807]",
                ".a[-9223372036854775808:]",
            ];
            json_bytes(&paths.map(|path| json!([path, object])))
        },
        hostile: |bytes| {
            let wide: Vec<Value> = (0..100).map(|n| json!({"a": [n, [n, [n]]]})).collect();
            json_bytes(&[
                json!([nested("[?(@", ".a", ")]", bytes), {}]),
                json!([repeated("[?(@", bytes), {}]),
                json!([repeated(".a", bytes), {}]),
                json!([repeated("..", bytes), wide]),
                json!([repeated("..*", bytes.min(3000)), wide]),
                json!([nested("..[?(@", "..x", ")]", 100), wide]),
                json!([repeated("[", bytes), {}]),
            ])
        },
        words: &[
            ".",
            "..",
            "[*]",
            "[0]",
            "[-1]",
            "[?(@.b==1)]",
            "[?(@",
            ")]",
            "['",
            "']",
            "\\.",
            "[:1]",
            "==",
            "!=",
            "<",
            "*",
            "@",
        ],
        grow: None,
        run: jsonpath,
    },
];

fn selectors(input: &[u8]) -> Verdict {
    let text = text(input);
    let labels = json!({"a": "b", "b": "2", "c": ""});
    let mut out = 0;
    match LabelSelector::parse(text) {
        Ok(selector) => out = both(out, selector.matches(labels.as_object()).into()),
        Err(error) => out = both(out, said(&error.to_string())),
    }
    match FieldSelector::parse(text) {
        Ok(selector) => {
            out = both(out, selector.matches_with(|_| "a").into());
            out = both(out, selector.exact("metadata.name").is_some().into());
        }
        Err(error) => out = both(out, said(&error.to_string())),
    }
    if let Some(value) = tree(input) {
        match LabelSelector::from_object(&value) {
            Ok(selector) => out = both(out, 2 + u64::from(selector.matches(labels.as_object()))),
            Err(error) => out = both(out, said(&error.to_string())),
        }
    }
    for problems in [
        names::dns_label(text),
        names::dns_subdomain(text),
        names::qualified_name(text),
        names::label_value(text),
    ] {
        out = both(out, problems.len() as u64);
    }
    Ok(out)
}

fn quantity(text: &str) -> Result<u64, String> {
    let Ok(quantity) = text.parse::<Quantity>() else {
        return Ok(0);
    };
    let shown = quantity.to_string();
    let back: Quantity = shown
        .parse()
        .map_err(|_| format!("{shown} reads as the quantity that it is of"))?;
    if back != quantity || back.to_string() != shown {
        return Err(format!("{quantity} is written {shown}, read {back}"));
    }
    let one = Quantity::from_units(1);
    let sum = quantity.plus(one).minus(one).plus(quantity);
    let sizes = (
        quantity.value(),
        quantity.milli_value(),
        quantity.rounded_to_milli(),
        quantity.is_integer(),
        sum,
    );
    Ok(said(&format!("{sizes:?}")))
}

fn scalars(input: &[u8]) -> Verdict {
    let text = text(input);
    let mut out = quantity(text)?;
    if let Some(at) = time::parse_time(text) {
        let shown = time::format_time(at);
        if time::parse_time(&shown).map(time::format_time).as_deref() != Some(&shown) {
            return Err(format!("{shown} reads as the time that it is of"));
        }
        out = both(out, said(&time::human_duration(at.as_second())));
        out = both(out, said(&time::format_micro_time(at)));
    }
    for ty in [
        Type::Quantity,
        Type::Time,
        Type::MicroTime,
        Type::Duration,
        Type::Bytes,
        Type::Int32,
        Type::Int64,
        Type::Double,
        Type::IntOrString,
    ] {
        let schema = SchemaRef::new(Schema::scalar(ty));
        for value in [json!(text), serde_json::from_str(text).unwrap_or_default()] {
            match decode_value(&schema, &value) {
                Ok(decoded) => {
                    let again = decode_value(&schema, &decoded.value)
                        .map_err(|e| format!("what was decoded decodes: {e}"))?;
                    same(
                        "decoding twice is decoding once",
                        &again.value,
                        &decoded.value,
                    )?;
                    out = both(out, 1);
                }
                Err(error) => out = both(out, said(&error.to_string())),
            }
        }
    }
    if let Ok(number) = text.parse::<f64>() {
        out = both(out, go_number(number).len() as u64);
    }
    out = both(out, go_syntax_error(text).map_or(0, |e| said(&e)));
    for format in [
        "bsonobjectid",
        "byte",
        "cidr",
        "creditcard",
        "date",
        "datetime",
        "date-time",
        "duration",
        "email",
        "hexcolor",
        "hostname",
        "ipv4",
        "ipv6",
        "isbn",
        "mac",
        "password",
        "rgbcolor",
        "ssn",
        "uri",
        "uuid",
        "uuid4",
        "k8s-short-name",
        "k8s-long-name",
    ] {
        out = both(out, matches_format(format, text).into());
    }
    Ok(out)
}

fn jsonpath(input: &[u8]) -> Verdict {
    let Some(Value::Array(parts)) = tree(input) else {
        return Ok(0);
    };
    let (Some(Value::String(path)), Some(object)) = (parts.first(), parts.get(1)) else {
        return Ok(1);
    };
    let Some(path) = JsonPath::parse(path) else {
        return Ok(2);
    };
    Ok(path.first(object).map_or(3, outline))
}
