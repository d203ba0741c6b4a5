//! CustomResourceDefinitions: the definition's own check, the rows that it makes, and objects on their way through them.

use oarlock_kinds::custom::rows;
use oarlock_kinds::openapi;
use oarlock_schema::structural::Node;
use oarlock_schema::{canonicalize, decode_value};
use serde_json::{Value, json};

use super::{both, builtin, json_bytes, nested, now, outline, row, said, same, tree};
use crate::{Target, Verdict};

pub const TARGETS: &[Target] = &[Target {
    name: "crd",
    tree: true,
    seeds,
    hostile,
    words: &[
        "type",
        "object",
        "array",
        "string",
        "integer",
        "number",
        "boolean",
        "null",
        "properties",
        "items",
        "additionalProperties",
        "default",
        "required",
        "enum",
        "pattern",
        "format",
        "date-time",
        "int32",
        "maximum",
        "minimum",
        "exclusiveMaximum",
        "multipleOf",
        "maxLength",
        "minLength",
        "maxItems",
        "minItems",
        "uniqueItems",
        "maxProperties",
        "nullable",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-map-type",
        "x-kubernetes-validations",
        "rule",
        "message",
        "messageExpression",
        "reason",
        "fieldPath",
        "optionalOldSelf",
        "set",
        "map",
        "atomic",
        "granular",
        "self.a == 'b'",
        "self == oldSelf",
        "self.all(x, x > 0)",
        "size(self) < 5",
        "spec",
        "status",
        "metadata",
        "name",
        "$ref",
        "a",
        "b",
        "^a+$",
        ".a",
        "FieldValueForbidden",
    ],
    grow: None,
    run,
}];

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "required": ["n"], "x-kubernetes-validations": [{"rule": "self.n > 0 && (!has(self.s) || size(self.s) < 3)", "messageExpression": "'n is ' + string(self.n)"}, {"rule": "self.n == oldSelf.n", "message": "fixed", "reason": "FieldValueForbidden", "fieldPath": ".n"}], "properties": {
            "n": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100, "multipleOf": 2, "default": 2},
            "f": {"type": "number", "exclusiveMinimum": true, "minimum": 0.5},
            "s": {"type": "array", "maxItems": 5, "uniqueItems": false, "x-kubernetes-list-type": "set", "items": {"type": "string", "pattern": "^a+$", "maxLength": 10}},
            "m": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "nullable": true, "default": null}}}},
            "p": {"type": "object", "additionalProperties": {"type": "string", "format": "date-time"}, "minProperties": 1},
            "i": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "u": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-map-type": "atomic"},
            "e": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "o": {"type": "string", "enum": ["a", "b"], "oneOf": [{"minLength": 1}, {"pattern": "b"}], "not": {"pattern": "c"}}}},
        "status": {"type": "object", "properties": {"r": {"type": "integer"}, "t": {"type": "string"}}}}})
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "X", "metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-02T03:04:05Z"}, "spec": spec})
}

fn seeds() -> Vec<Vec<u8>> {
    let full = json!({"n": 4, "f": 1.5, "s": ["a", "aa"], "m": [{"k": "x", "v": 1}, {"k": "y"}], "p": {"a": "2026-01-02T03:04:05Z"}, "i": "50%", "u": {"x": [1]}, "e": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}, "o": "b"});
    let columns = json!([{"name": "N", "type": "integer", "jsonPath": ".spec.n"}, {"name": "T", "type": "date", "jsonPath": ".metadata.creationTimestamp"}, {"name": "S", "type": "string", "jsonPath": ".spec.s[?(@=='a')]"}]);
    json_bytes(&[
        json!([
            schema(),
            object(full.clone()),
            object(full.clone()),
            columns
        ]),
        json!([
            schema(),
            object(json!({"n": 3, "s": ["b", "b"]})),
            object(full),
            []
        ]),
        json!([{"type": "object", "x-kubernetes-preserve-unknown-fields": true}, object(json!({"a": null})), null, []]),
        json!([{"type": "object", "properties": {"spec": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}}}}}, object(json!([{"a": ["b"]}])), null, []]),
    ])
}

fn hostile(bytes: usize) -> Vec<Vec<u8>> {
    let short = bytes.min(120 * 40);
    let deep = |open: &str, close: &str| nested(open, "{\"type\":\"string\"}", close, short);
    let mut all: Vec<Vec<u8>> = [
        deep("{\"type\":\"object\",\"properties\":{\"a\":", "}}"),
        deep("{\"type\":\"array\",\"items\":", "}"),
        deep("{\"type\":\"object\",\"additionalProperties\":", "}"),
        deep("{\"not\":", "}"),
        deep("{\"allOf\":[", "]}"),
        format!(
            "{{\"type\":\"object\",\"properties\":{{{}\"z\":{{}}}}}}",
            (0..bytes / 32)
                .map(|n| format!("\"k{n:08}\":{{\"type\":\"string\"}},"))
                .collect::<String>()
        ),
        format!(
            "{{\"type\":\"string\",\"pattern\":{:?}}}",
            "a{1000}".repeat(50)
        ),
        format!(
            "{{\"type\":\"string\",\"enum\":[{}1]}}",
            (0..bytes / 8).map(|n| format!("{n},")).collect::<String>()
        ),
    ]
    .iter()
    .map(|schema| format!("[{schema},{},null,[]]", object(json!({"a": {"a": 1}}))).into_bytes())
    .collect();
    let many: Vec<Value> = (0..bytes / 20)
        .map(|n| json!({"k": n.to_string()}))
        .collect();
    let same: Vec<Value> = (0..bytes / 20).map(|_| json!({"k": "x"})).collect();
    let words: Vec<String> = (0..bytes / 10)
        .map(|n| "a".repeat(n % 9) + &n.to_string())
        .collect();
    let lists = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "m": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}},
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "u": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}}}}});
    for spec in [
        json!({"m": many}),
        json!({"m": same}),
        json!({"s": words}),
        json!({"u": words}),
    ] {
        let object = object(spec);
        all.push(json!([lists, object, object, []]).to_string().into_bytes());
    }
    all
}

fn definition(schema: &Value, columns: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "xs.example.com", "uid": "u", "generation": 1, "creationTimestamp": "2026-01-02T03:04:05Z", "resourceVersion": "1"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "xs", "singular": "x", "kind": "X", "listKind": "XList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.r", "labelSelectorPath": ".status.t"}}}]},
        "status": {"acceptedNames": {"plural": "xs", "singular": "x", "kind": "X", "listKind": "XList"}, "conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]},
    })
}

fn run(input: &[u8]) -> Verdict {
    let Some(Value::Array(parts)) = tree(input) else {
        return Ok(0);
    };
    let [schema, new, old, columns] = parts.as_slice() else {
        return Ok(1);
    };
    let own = row("apiextensions.k8s.io", "CustomResourceDefinition").ok_or("no such kind")?;
    let decoded = match decode_value(&own.schema, &definition(schema, columns)) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(said(&error.to_string())),
    };
    let mut made = decoded.value;
    (own.hooks.default)(&mut made);
    (own.hooks.prepare_create)(&mut made);
    made["status"] = definition(schema, columns)["status"].clone();
    canonicalize(&own.schema, &mut made);
    let causes = (own.hooks.validate)(&made, None);
    let mut out = 0;
    for cause in causes.iter().take(8) {
        out = both(out, said(&cause.message));
    }
    out = both(out, (own.hooks.warn)(&made, None).len() as u64);
    if !causes.is_empty() {
        // What an older version let in is read all the same.
        let node = Node::parse(schema);
        let mut object = new.clone();
        oarlock_schema::structural::prune_unknown(&node, &mut object);
        oarlock_schema::structural::fill_defaults(&node, &mut object);
        let checked = oarlock_schema::structural::check_value(&node, &object, None, "");
        return Ok(both(out, checked.len().min(3) as u64));
    }
    let rows = rows(&made);
    let row = rows.first().ok_or("an established definition has a row")?;
    let custom = row
        .custom
        .as_ref()
        .ok_or("a row of a definition is custom")?;
    let read = |value: &Value| -> Result<Value, String> {
        let mut object = value.clone();
        let dropped = custom.fit(&mut object)?;
        custom.fill_defaults(&mut object);
        let mut again = object.clone();
        let more = custom
            .fit(&mut again)
            .map_err(|e| format!("LAW what fits fits again: {e}"))?;
        if !more.is_empty() {
            return Err(format!(
                "LAW what was pruned has nothing to prune: {more:?} after {dropped:?}"
            ));
        }
        custom.fill_defaults(&mut again);
        same("LAW fitting twice is fitting once", &again, &object)?;
        Ok(object)
    };
    let law = |why: String| match why.strip_prefix("LAW ") {
        Some(law) => Err(law.to_owned()),
        None => Ok(both(out, said(&why))),
    };
    let object = match read(new) {
        Ok(object) => object,
        Err(why) => return law(why),
    };
    let before = match old {
        Value::Object(_) => match read(old) {
            Ok(old) => Some(old),
            Err(why) => return law(why),
        },
        _ => None,
    };
    for subresource in ["", "status"] {
        let causes = custom.validate(&object, before.as_ref(), subresource);
        for cause in causes.iter().take(8) {
            out = both(out, said(&cause.message));
        }
        if causes.is_empty() && before.is_none() && subresource.is_empty() && has_meta(&object) {
            let again = custom.validate(&object, Some(&object), "");
            if let Some(cause) = again.first() {
                return Err(format!(
                    "what is valid may be put as it is: {}: {}",
                    cause.field, cause.message
                ));
            }
        }
    }
    out = both(out, custom.warnings(&object, before.as_ref()).len() as u64);
    out = both(
        out,
        super::outline(&Value::Array(custom.cells(&object, now()))),
    );
    if let Some(before) = &before {
        out = both(out, custom.generation_changed(&object, before).into());
    }
    // The document is large: now and then is enough.
    if out % 64 == 0 {
        let kinds = builtin().with(row.clone());
        let document = openapi::v3_document(&kinds, "example.com", "v1")
            .ok_or("a served group has a document")?;
        out = both(out, outline(&document));
    }
    Ok(out)
}

fn has_meta(object: &Value) -> bool {
    let metadata = &object["metadata"];
    ["uid", "resourceVersion", "creationTimestamp", "name"]
        .iter()
        .all(|f| metadata[*f].as_str().is_some_and(|t| !t.is_empty()))
}
