//! Documents of kinds as clients read them.

use super::*;

fn refs<'v>(value: &'v Value, out: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            for (name, below) in map {
                match below {
                    Value::String(text) if name == "$ref" => out.push(text),
                    _ => refs(below, out),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| refs(item, out)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let kinds = Kinds::builtin();
    let mut documents = vec![(v2_document(&kinds), "/definitions")];
    for GroupVersion { group, version } in kinds.group_versions() {
        documents.push((
            v3_document(&kinds, &group, &version).expect("served"),
            "/components/schemas",
        ));
    }
    for (document, folder) in &documents {
        let definitions = document
            .pointer(folder)
            .and_then(Value::as_object)
            .expect("definitions");
        assert!(definitions.values().all(Value::is_object));
        let mut all = Vec::new();
        refs(document, &mut all);
        for reference in all {
            let name = reference
                .strip_prefix(&format!("#{folder}/"))
                .expect("a local reference");
            assert!(definitions.contains_key(name), "{reference}");
        }
    }
    assert!(v3_document(&kinds, "apps", "v9").is_none());
}

#[test]
fn apps_v1() {
    let kinds = Kinds::builtin();
    let document = v3_document(&kinds, "apps", "v1").expect("apps/v1");
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
    );
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let parameters = patch["parameters"].as_array().expect("parameters");
    let names: Vec<&str> = parameters
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert_eq!(
        names,
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_some()
    );
    let scale =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(
        scale["x-kubernetes-group-version-kind"]["group"],
        "autoscaling"
    );

    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(
        spec["properties"]["strategy"]["x-kubernetes-patch-strategy"],
        "retainKeys"
    );
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert!(
        spec["properties"]["replicas"]["description"]
            .as_str()
            .is_some_and(|t| t.starts_with("Number of"))
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(
        containers["items"]["$ref"],
        "#/components/schemas/io.k8s.api.core.v1.Container"
    );
    assert_eq!(
        schemas["io.k8s.api.apps.v1.DeploymentList"]["x-kubernetes-group-version-kind"][0]["kind"],
        "DeploymentList"
    );
}

#[test]
fn the_index_names_documents_by_content() {
    let kinds = Kinds::builtin();
    let index = v3_index(&kinds);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .expect("a URL");
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    assert!(index["paths"].get("api/v1").is_some());
    let fewer = kinds.without(&oarlock_model::Gvr::new("apps", "v1", "daemonsets"));
    assert_ne!(v3_hash(&kinds, "apps", "v1"), v3_hash(&fewer, "apps", "v1"));
    assert_eq!(
        v3_hash(&kinds, "batch", "v1"),
        v3_hash(&fewer, "batch", "v1")
    );
}

#[test]
fn our_own_kinds_are_explained() {
    let document = v3_document(&Kinds::builtin(), "oarlock.dev", "v1alpha1").expect("served");
    let schemas = &document["components"]["schemas"];
    for (definition, schema) in schemas.as_object().expect("schemas") {
        let ours =
            definition.starts_with("dev.oarlock.") && definition != "dev.oarlock.v1alpha1.Plugins";
        for (name, property) in schema["properties"]
            .as_object()
            .filter(|_| ours)
            .into_iter()
            .flatten()
        {
            assert!(
                property.get("description").is_some(),
                "{definition} {name} has no text in data/own.txt"
            );
        }
    }
    let spec = &schemas["dev.oarlock.v1alpha1.SchedulerProfileSpec"];
    assert_eq!(
        spec["properties"]["schedulerName"]["default"],
        "default-scheduler"
    );
    assert!(
        schemas
            .get("dev.oarlock.v1alpha1.SchedulerProfileList")
            .is_some()
    );
}
