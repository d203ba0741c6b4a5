//! Definitions that are refused, and why.

use super::*;

fn definition(schema: Value) -> Value {
    let mut object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "xs.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "xs", "kind": "X"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    default(&mut object);
    prepare_create(&mut object);
    object
}

fn told(object: &Value, old: Option<&Value>) -> Vec<String> {
    validate(object, old)
        .iter()
        .map(|c| format!("{}: {}", c.field, c.message))
        .collect()
}

#[test]
fn a_good_definition_passes() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer", "default": 3, "minimum": 1}, "p": {"x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}}}},
        "oneOf": [{"required": ["n"]}, {"required": ["p"]}]}}});
    let good = definition(schema);
    assert_eq!(told(&good, None), Vec::<String>::new());
    assert_eq!(good["spec"]["names"]["listKind"], "XList");
    assert_eq!(good["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(good["status"]["storedVersions"], json!(["v1"]));
}

#[test]
fn schemas_that_are_refused() {
    let check = |a: Value, expect: &[&str]| {
        let at = "spec.validation.openAPIV3Schema";
        let expect: Vec<String> = expect.iter().map(|e| format!("{at}{e}")).collect();
        assert_eq!(
            told(
                &definition(json!({"type": "object", "properties": {"a": a}})),
                None
            ),
            expect
        );
    };
    check(
        json!({}),
        &[".properties[a].type: Required value: must not be empty for specified object fields"],
    );
    check(
        json!({"type": "array"}),
        &[".properties[a].items: Required value: must be specified"],
    );
    check(
        json!({"type": "string", "pattern": "("}),
        &[
            ".properties[a].pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ): `(`",
        ],
    );
    check(
        json!({"type": "integer", "default": "x"}),
        &[
            ".properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ],
    );
    check(
        json!({"type": "object", "properties": {}, "default": {"b": 1}}),
        &[".properties[a].default: Invalid value: {\"b\":1}: must not have unknown fields"],
    );
    check(
        json!({"type": "object", "properties": {"b": {"type": "string"}}, "anyOf": [{"properties": {"c": {"type": "string"}}}]}),
        &[".properties[a].anyOf[0].properties[c].type: Forbidden: must be empty to be structural"],
    );
    check(
        json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}, "x-kubernetes-list-type": "map"}),
        &[
            ".properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ".properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ".properties[a].items.type: Invalid value: \"string\": must be object if parent array's x-kubernetes-list-type is map",
        ],
    );
}

#[test]
fn specs_that_are_refused() {
    let good = || definition(json!({"type": "object"}));
    let check = |change: &dyn Fn(&mut Value), expect: &[&str]| {
        let mut object = good();
        change(&mut object["spec"]);
        assert_eq!(told(&object, None), expect);
    };
    check(
        &|s| s["scope"] = json!("Odd"),
        &["spec.scope: Unsupported value: \"Odd\": supported values: \"Cluster\", \"Namespaced\""],
    );
    check(
        &|s| s["names"]["shortNames"] = json!(["A"]),
        &[
            "spec.names.shortNames[0]: Invalid value: \"A\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        &|s| s["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.x"}]),
        &[
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
        ],
    );
    check(
        &|s| {
            s["versions"][0]["additionalPrinterColumns"] =
                json!([{"name": "a", "type": "odd", "jsonPath": "x"}]);
        },
        &[
            "spec.additionalPrinterColumns[0].type: Invalid value: \"odd\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"x\": must be a simple json path starting with .",
        ],
    );
    check(
        &|s| s["conversion"] = json!({"strategy": "Webhook"}),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    let mut old = good();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    assert_eq!(
        told(&new, Some(&old)),
        ["spec.scope: Invalid value: \"Cluster\": field is immutable"]
    );
    new["spec"]["scope"] = json!("Namespaced");
    new["status"]["storedVersions"] = json!(["v0"]);
    assert_eq!(told(&new, Some(&old)), Vec::<String>::new());
}
