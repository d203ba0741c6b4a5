//! Kinds that come and go at run time: definitions are established, survive a restart, and take their objects with them.

mod house;

use std::sync::Arc;

use oarlock_kinds::Row;
use oarlock_model::meta;
use oarlock_registry::{Body, DeleteOptions, PatchKind, Target};
use serde_json::{Value, json};

use house::*;

const GROUP: &str = "example.com";
const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");

fn definition(plural: &str, kind: &str) -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}},
        "status": {"type": "object", "properties": {"b": {"type": "integer"}}}}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}});
    json!({"metadata": {"name": format!("{plural}.{GROUP}")}, "spec": {"group": GROUP, "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind}, "versions": [version("v1", true), version("v2", false)]}})
}

/// The row of a resource, once it is served (or not any more).
async fn row(house: &House, version: &str, plural: &str, served: bool) -> Option<Arc<Row>> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let row = house.registry.kinds().resource(GROUP, version, plural);
        if row.is_some() == served || tokio::time::Instant::now() > deadline {
            return row;
        }
        tokio::task::yield_now().await;
    }
}

async fn make(house: &House, row: &Arc<Row>, name: &str) -> Value {
    let sent = json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": {"name": name}, "spec": {"x": 1}});
    let target = Target::new(row, "default", "");
    let made = house
        .registry
        .create(&ctx(), &target, Body::Value(sent))
        .await;
    made.expect("made").to_value().expect("json")
}

#[tokio::test]
async fn a_definition_is_a_kind_until_it_goes() {
    let house = House::new().await;
    let (group, resource) = DEFINITIONS;
    house
        .create(group, resource, definition("xs", "X"))
        .await
        .unwrap();
    let v1 = row(&house, "v1", "xs", true).await.unwrap();
    let v2 = row(&house, "v2", "xs", true).await.unwrap();
    let made = make(&house, &v2, "one").await;
    assert_eq!(made["spec"], json!({"a": 1}));
    let target = Target::new(&v1, "default", "one");
    let read = house
        .registry
        .get(&ctx(), &target, "")
        .await
        .unwrap()
        .to_value()
        .unwrap();
    assert_eq!(read["apiVersion"], "example.com/v1");
    let status = Target::sub(&v1, "default", "one", "status");
    let patch = json!({"status": {"b": 2}, "spec": {"a": 5}, "metadata": {"labels": {"l": "1"}}});
    let patched = house
        .registry
        .patch_value(&ctx(), &status, &PatchKind::Merge, &patch)
        .await
        .unwrap();
    let patched = patched.object.to_value().unwrap();
    assert_eq!(
        (
            &patched["spec"]["a"],
            &patched["status"]["b"],
            meta::generation(&patched)
        ),
        (&json!(1), &json!(2), 1)
    );
    assert_eq!(meta::labels(&patched), None);

    // A second start finds the kind and its objects.
    let again = House::over(Arc::clone(house.registry.store())).await;
    let found = again.registry.kinds().resource(GROUP, "v1", "xs").unwrap();
    let target = Target::new(&found, "default", "one");
    again.registry.get(&ctx(), &target, "").await.unwrap();
    drop(again);

    let all = house.target(group, resource, "xs.example.com");
    let before = house.registry.store().count("xs.example.com/");
    house
        .registry
        .delete(&ctx(), &all, &DeleteOptions::default())
        .await
        .unwrap();
    assert!(row(&house, "v1", "xs", false).await.is_none());
    assert_eq!(
        (before, house.registry.store().count("xs.example.com/")),
        (1, 0)
    );
    house.registry.get(&ctx(), &all, "").await.unwrap_err();
}

#[tokio::test]
async fn a_name_belongs_to_who_had_it_first() {
    let house = House::new().await;
    let (group, resource) = DEFINITIONS;
    house
        .create(group, resource, definition("xs", "X"))
        .await
        .unwrap();
    row(&house, "v1", "xs", true).await.unwrap();
    house
        .create(group, resource, definition("ys", "X"))
        .await
        .unwrap();
    let first = house.target(group, resource, "xs.example.com");
    house
        .registry
        .delete(&ctx(), &first, &DeleteOptions::default())
        .await
        .unwrap();
    // The kind is free when the first definition is gone.
    let second = row(&house, "v1", "ys", true).await.unwrap();
    assert_eq!(second.kind, "X");
    let made = make(&house, &second, "one").await;
    assert_eq!(meta::kind(&made), "X");
}
