//! Rows of definitions, and objects on their way through them.

use super::*;

fn definition(versions: Value, generation: i64) -> Value {
    json!({
        "metadata": {"name": "xs.example.com", "generation": generation},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "xs", "kind": "X"}, "versions": versions},
        "status": {"acceptedNames": {"plural": "xs", "singular": "x", "kind": "X", "listKind": "XList", "shortNames": ["sx"]},
            "conditions": [{"type": "Established", "status": "True"}]},
    })
}

fn version(name: &str, storage: bool, schema: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
}

#[test]
fn a_definition_makes_rows() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}}});
    let mut versions = json!([version("v1", true, schema.clone()), version("v2", false, schema), {"name": "v3", "served": false}]);
    versions[0]["deprecated"] = json!(true);
    versions[0]["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.a", "statusReplicasPath": ".status.a"}});
    let rows = rows(&definition(versions.clone(), 1));
    let names: Vec<_> = rows
        .iter()
        .map(|r| (r.api_version(), r.subresources.len()))
        .collect();
    assert_eq!(
        names,
        [
            ("example.com/v1".to_owned(), 2),
            ("example.com/v2".to_owned(), 0)
        ]
    );
    let (v1, v2) = (
        rows[0].custom.as_ref().unwrap(),
        rows[1].custom.as_ref().unwrap(),
    );
    assert_eq!(
        v1.deprecation.as_deref(),
        Some("example.com/v1 X is deprecated; use example.com/v2 X")
    );
    assert_eq!(rows[1].storage_kind.version, "v1");
    let mut object = json!({"apiVersion": "example.com/v1", "kind": "X", "metadata": {"name": "a"}, "spec": {"b": 1}});
    v2.read(&mut object);
    assert_eq!(
        object,
        json!({"apiVersion": "example.com/v2", "kind": "X", "metadata": {"name": "a"}, "spec": {"a": 1}})
    );
    v2.write(&mut object);
    assert_eq!(object["apiVersion"], "example.com/v1");
    let mut waiting = definition(versions, 1);
    waiting["status"]["conditions"] = json!([]);
    assert!(super::rows(&waiting).is_empty());
}

#[test]
fn objects_are_fitted_and_checked() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "n": {"type": "integer", "maximum": 5}, "s": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "t": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}});
    let rows = rows(&definition(json!([version("v1", true, schema)]), 1));
    let custom = rows[0].custom.as_ref().unwrap();
    let object = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "X", "metadata": {"name": "a", "odd": 1}, "spec": spec});
    let mut odd = object(json!({"x": 1, "n": null}));
    assert_eq!(
        custom.fit(&mut odd),
        Ok(vec!["metadata.odd".to_owned(), "spec.x".to_owned()])
    );
    assert_eq!(odd["spec"], json!({}));
    let mut bad = object(json!({"t": {"metadata": {"labels": {"a": 5}}}}));
    let why = "spec.t.metadata: Invalid value: {\"labels\":{\"a\":5}}: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string";
    assert_eq!(custom.fit(&mut bad), Err(why.to_owned()));
    let told = |object: &Value| -> Vec<String> {
        custom
            .validate(object, None, "")
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    };
    assert_eq!(
        told(&object(
            json!({"n": 9, "s": ["a", "a"], "t": {"kind": "Pod"}})
        )),
        [
            "spec.n: Invalid value: 9: spec.n in body should be less than or equal to 5",
            "spec.t.apiVersion: Required value",
            "spec.s[1]: Duplicate value: \"a\"",
        ]
    );
    let mut wrong = object(json!({}));
    wrong["kind"] = json!("Wrong");
    assert_eq!(told(&wrong), ["kind: Invalid value: \"Wrong\": must be X"]);
    assert!(rows[0].custom_columns().is_some_and(|c| c.len() == 2));
    assert!(custom.generation_changed(&json!({"spec": 1}), &json!({"spec": 2})));
    assert_eq!(
        custom
            .warnings(&json!({"metadata": {"finalizers": ["x"]}}), None)
            .len(),
        1
    );
}

#[test]
fn openapi_says_what_the_author_wrote() {
    let schema = json!({"type": "object", "description": "An X.", "properties": {"spec": {"type": "string", "description": "Its spec."}}});
    let rows = rows(&definition(json!([version("v1", true, schema)]), 1));
    let kinds = crate::Kinds::from_rows(rows);
    let document = crate::openapi::v3_document(&kinds, "example.com", "v1").unwrap();
    let x = &document["components"]["schemas"]["com.example.v1.X"];
    assert_eq!(x["description"], "An X.");
    assert_eq!(x["properties"]["spec"]["description"], "Its spec.");
    assert_eq!(x["x-kubernetes-group-version-kind"][0]["kind"], "X");
    let metadata = &x["properties"]["metadata"]["allOf"][0]["$ref"];
    assert_eq!(
        metadata,
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert!(
        document["paths"]
            .get("/apis/example.com/v1/namespaces/{namespace}/xs")
            .is_some()
    );
    assert!(
        crate::openapi::v2_document(&kinds)["definitions"]
            .get("com.example.v1.X")
            .is_some()
    );
}
