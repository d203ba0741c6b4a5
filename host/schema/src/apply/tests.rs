//! Apply and ownership on a small schema: the recorded behaviour of Kubernetes as tables, and laws over random objects.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::{ListType, MapType, Presence, Property, SchemaRef, Type};

fn text() -> SchemaRef {
    Schema::scalar(Type::String).into()
}

fn always(property: Property) -> Property {
    Property {
        presence: Presence::Always,
        ..property
    }
}

fn schema() -> Schema {
    let labels = || Schema::map(text());
    let port = Schema::object(vec![
        Property::new("port", Schema::scalar(Type::Int32)),
        Property::new("protocol", text()).with_default(json!("TCP")),
        Property::new("name", text()),
    ]);
    let container = Schema::object(vec![
        Property::new("name", text()),
        Property::new("image", text()),
        Property::new("policy", text()),
        Property::new(
            "ports",
            Schema {
                list_type: ListType::Map,
                list_map_keys: ["port".into(), "protocol".into()].into(),
                ..Schema::array(port.into())
            },
        ),
    ]);
    let containers = Schema {
        list_type: ListType::Map,
        list_map_keys: ["name".into()].into(),
        ..Schema::array(container.into())
    };
    let metadata = Schema::object(vec![
        Property::new("name", text()),
        Property::new("namespace", text()),
        Property::new("resourceVersion", text()),
        Property::new("uid", text()),
        Property::new("labels", labels()),
        Property::new("annotations", labels()),
        Property::new(
            "finalizers",
            Schema {
                list_type: ListType::Set,
                ..Schema::array(text())
            },
        ),
    ]);
    let spec = Schema::object(vec![
        Property::new("replicas", Schema::scalar(Type::Int32)),
        Property::new(
            "selector",
            Schema {
                map_type: MapType::Atomic,
                ..labels()
            },
        ),
        Property::new("list", Schema::array(text())),
        always(Property::new("containers", containers)),
    ]);
    Schema::object(vec![
        Property::new("apiVersion", text()),
        Property::new("kind", text()),
        always(Property::new("metadata", metadata)),
        always(Property::new("spec", spec)),
        always(Property::new(
            "status",
            Schema::object(vec![Property::new("phase", text())]),
        )),
        Property::new("data", labels()),
    ])
}

fn writer(manager: &str) -> Writer<'_> {
    Writer {
        manager,
        api_version: "v1",
        subresource: "",
        now: "2026-11-23T20:00:00Z",
        reset: &[&["status"]],
        one_schema: false,
    }
}

fn applied(
    live: Option<&Value>,
    config: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, ApplyError> {
    apply(
        &schema(),
        live,
        config,
        &writer(manager),
        force,
        &Gvk::new("", "v1", "Thing"),
    )
}

fn object(rest: Value) -> Value {
    let mut all = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "x"}});
    merge_patch_into(&mut all, rest);
    all
}

fn merge_patch_into(target: &mut Value, patch: Value) {
    crate::patch::merge_patch(target, &patch).unwrap();
}

/// `manager operation: fieldsV1`, one an entry.
fn owners(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.iter()
        .map(|e| {
            format!(
                "{} {}: {}",
                e["manager"].as_str().unwrap(),
                e["operation"].as_str().unwrap(),
                e["fieldsV1"]
            )
        })
        .collect()
}

#[test]
fn a_create_owns_what_is_not_there_anyway() {
    let check = |rest: Value, expect: Value| {
        let mut new = object(rest);
        new["metadata"]["managedFields"] = json!([{"manager": "liar"}]);
        track_update(&schema(), None, &mut new, &writer("m"));
        let expect = if expect.is_null() {
            vec![]
        } else {
            vec![format!("m Update: {expect}")]
        };
        assert_eq!(owners(&new), expect);
    };
    check(json!({}), Value::Null);
    check(json!({"status": {"phase": "x"}}), Value::Null);
    check(
        json!({"data": {"a": "1"}}),
        json!({"f:data": {".": {}, "f:a": {}}}),
    );
    check(
        json!({"metadata": {"labels": {"a": "1"}}}),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}),
    );
    check(
        json!({"spec": {"replicas": 1, "selector": {"a": "b"}, "list": ["x"], "containers": [{"name": "c", "image": "i", "ports": [{"port": 80, "protocol": "UDP"}]}]}}),
        json!({"f:spec": {
            "f:replicas": {}, "f:selector": {}, "f:list": {},
            "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"UDP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}}},
        }}),
    );
}

#[test]
fn an_update_takes_what_it_changes() {
    let mut first = object(json!({"data": {"a": "1", "b": "2"}}));
    track_update(&schema(), None, &mut first, &writer("creator"));
    let check = |change: Value, expect: &[&str]| {
        let mut new = first.clone();
        merge_patch_into(&mut new, change);
        track_update(&schema(), Some(&first), &mut new, &writer("up"));
        assert_eq!(owners(&new), expect);
    };
    let creator = r#"creator Update: {"f:data":{".":{},"f:a":{},"f:b":{}}}"#;
    check(json!({}), &[creator]);
    check(json!({"status": {"phase": "x"}}), &[creator]);
    check(
        json!({"data": {"a": "9"}}),
        &[
            r#"creator Update: {"f:data":{".":{},"f:b":{}}}"#,
            r#"up Update: {"f:data":{"f:a":{}}}"#,
        ],
    );
    check(
        json!({"data": {"a": null}}),
        &[r#"creator Update: {"f:data":{".":{},"f:b":{}}}"#],
    );
    check(
        json!({"data": {"n": "9"}}),
        &[creator, r#"up Update: {"f:data":{"f:n":{}}}"#],
    );
    check(json!({"metadata": {"managedFields": []}}), &[]);
    check(json!({"metadata": {"managedFields": [{}]}}), &[]);
    check(json!({"metadata": {"managedFields": null}}), &[creator]);
    check(
        json!({"metadata": {"managedFields": [{"operation": "Bad"}]}}),
        &[creator],
    );
}

#[test]
fn conflicts_read_as_in_kubernetes() {
    let config = |image: &str, replicas: i64| {
        object(
            json!({"spec": {"replicas": replicas, "containers": [{"name": "c", "image": image}]}}),
        )
    };
    let live = applied(None, &config("a", 4), "alice", false).unwrap();
    assert_eq!(
        owners(&live),
        [
            r#"alice Apply: {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}},"f:replicas":{}}}"#
        ]
    );
    let text = |result: Result<Value, ApplyError>| result.unwrap_err().to_string();
    assert_eq!(
        text(applied(Some(&live), &config("b", 9), "bob", false)),
        "Apply failed with 2 conflicts: conflicts with \"alice\":\n- .spec.replicas\n- .spec.containers[name=\"c\"].image"
    );
    let forced = applied(Some(&live), &config("b", 9), "bob", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 9);
    assert_eq!(
        owners(&forced),
        [
            r#"alice Apply: {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{}}}}}"#,
            r#"bob Apply: {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}},"f:replicas":{}}}"#,
        ]
    );
    assert_eq!(
        text(applied(Some(&forced), &config("b", 8), "alice", false)),
        "Apply failed with 1 conflict: conflict with \"bob\": .spec.replicas"
    );
    let mut updated = forced.clone();
    updated["spec"]["replicas"] = json!(2);
    track_update(&schema(), Some(&forced), &mut updated, &writer("up"));
    assert_eq!(
        text(applied(Some(&updated), &config("b", 8), "bob", false)),
        "Apply failed with 1 conflict: conflict with \"up\" using v1: .spec.replicas"
    );
}

#[test]
fn what_is_applied_no_more_goes() {
    let live = applied(
        None,
        &object(json!({"metadata": {"labels": {"x": "y"}}, "data": {"a": "1", "b": "2"}})),
        "m",
        false,
    )
    .unwrap();
    let check = |config: Value, data: Value, labels: Value, expect: &[&str]| {
        let result = applied(Some(&live), &object(config), "m", false).unwrap();
        assert_eq!(
            (&result["data"], &result["metadata"]["labels"]),
            (&data, &labels)
        );
        assert_eq!(owners(&result), expect);
    };
    check(
        json!({"data": {"a": "1"}}),
        json!({"a": "1"}),
        Value::Null,
        &[r#"m Apply: {"f:data":{"f:a":{}}}"#],
    );
    check(json!({}), Value::Null, Value::Null, &[]);
    check(
        json!({"data": {}}),
        Value::Null,
        Value::Null,
        &[r#"m Apply: {"f:data":{}}"#],
    );
}

#[test]
fn defaults_stay_in_items_that_stay() {
    let config = |extra: Value| {
        object(json!({"spec": {"containers": [{"name": "a", "image": "1"}, extra]}}))
    };
    let mut live = applied(
        None,
        &config(json!({"name": "b", "image": "2"})),
        "m",
        false,
    )
    .unwrap();
    for at in 0..2 {
        live["spec"]["containers"][at]["policy"] = json!("Default");
    }
    let one = object(json!({"spec": {"containers": [{"name": "a"}]}}));
    let result = applied(Some(&live), &one, "m", false).unwrap();
    assert_eq!(
        result["spec"]["containers"],
        json!([{"name": "a", "policy": "Default"}])
    );
}

#[test]
fn items_are_named_by_keys_with_defaults() {
    let config = object(
        json!({"spec": {"containers": [{"name": "c", "ports": [{"port": 80}]}]}, "metadata": {"finalizers": ["e/a"]}}),
    );
    let live = applied(None, &config, "m", false).unwrap();
    assert_eq!(
        owners(&live),
        [
            r#"m Apply: {"f:metadata":{"f:finalizers":{"v:\"e/a\"":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:name":{},"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}}}}"#
        ]
    );
    let other = object(json!({"metadata": {"finalizers": ["e/b"]}}));
    let both = applied(Some(&live), &other, "n", false).unwrap();
    assert_eq!(both["metadata"]["finalizers"], json!(["e/a", "e/b"]));
}

#[test]
fn bad_configurations_are_refused() {
    let check = |config: Value, expect: &str| {
        assert_eq!(
            applied(None, &config, "m", false).unwrap_err().to_string(),
            expect
        );
    };
    check(
        object(json!({"nope": 1})),
        "failed to create typed patch object (/x; /v1, Kind=Thing): .nope: field not declared in schema",
    );
    check(
        object(json!({"data": {"a": 5}})),
        "failed to create typed patch object (/x; /v1, Kind=Thing): .data.a: expected string, got &value.valueUnstructured{Value:5}",
    );
    check(
        object(json!({"data": ["x"]})),
        "failed to create typed patch object (/x; /v1, Kind=Thing): .data: expected map, got &{[x]}",
    );
    check(
        object(json!({"metadata": {"managedFields": []}})),
        "metadata.managedFields must be nil",
    );
    let mut twice = object(json!({}));
    twice["spec"] = json!({"containers": [{"name": "c"}, {"name": "c"}]});
    check(
        twice,
        "failed to create typed patch object (/x; /v1, Kind=Thing): .spec.containers: duplicate entries for key [name=\"c\"]",
    );
}

#[test]
fn untracked_objects_were_owned_before_the_first_apply() {
    let live = object(json!({"data": {"a": "1"}}));
    let result = applied(
        Some(&live),
        &object(json!({"data": {"b": "2"}})),
        "m",
        false,
    )
    .unwrap();
    assert_eq!(
        owners(&result),
        [
            r#"m Apply: {"f:data":{"f:b":{}}}"#,
            r#"before-first-apply Update: {"f:data":{".":{},"f:a":{}}}"#
        ]
    );
    assert!(
        applied(
            Some(&live),
            &object(json!({"data": {"a": "2"}})),
            "m",
            false
        )
        .is_err()
    );
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let before = json!({"data": {"a": "1"}});
    let mut live = object(before.clone());
    let last = format!("{}\n", object(before));
    live["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    track_update(
        &schema(),
        None,
        &mut live,
        &writer("kubectl-client-side-apply"),
    );
    let config = object(json!({"data": {"a": "2"}}));
    assert!(applied(Some(&live), &config, "other", false).is_err());
    let result = applied(Some(&live), &config, "kubectl", false).unwrap();
    assert_eq!(result["data"]["a"], "2");
    assert_eq!(
        result["metadata"]["annotations"][LAST_APPLIED],
        format!("{config}\n")
    );
}

#[test]
fn a_scale_moves_one_field() {
    let live = applied(
        None,
        &object(json!({"spec": {"replicas": 1, "list": []}})),
        "m",
        false,
    )
    .unwrap();
    let scale = Writer {
        subresource: "scale",
        ..writer("s")
    };
    let text = track_field(
        &mut live.clone(),
        &["spec", "replicas"],
        true,
        &scale,
        Operation::Apply,
        false,
    )
    .unwrap_err()
    .to_string();
    assert_eq!(
        text,
        "Apply failed with 1 conflict: conflict with \"m\": .spec.replicas"
    );
    let mut scaled = live;
    track_field(
        &mut scaled,
        &["spec", "replicas"],
        true,
        &scale,
        Operation::Update,
        false,
    )
    .unwrap();
    assert_eq!(
        owners(&scaled),
        [
            r#"m Apply: {"f:spec":{"f:list":{}}}"#,
            r#"s Update: {"f:spec":{"f:replicas":{}}}"#
        ]
    );
}

#[test]
fn update_managers_are_capped() {
    let mut object = object(json!({"data": {"k": "0"}}));
    track_update(&schema(), None, &mut object, &writer("m0"));
    for i in 1..40 {
        let mut next = object.clone();
        next["data"][format!("k{i}")] = json!("1");
        track_update(
            &schema(),
            Some(&object),
            &mut next,
            &writer(&format!("m{i}")),
        );
        object = next;
    }
    assert_eq!(owners(&object).len(), MAX_UPDATE_MANAGERS);
    assert!(
        owners(&object)
            .iter()
            .any(|o| o.starts_with("ancient-changes Update"))
    );
}

#[test]
fn times_alone_are_no_change() {
    let mut old = object(json!({"data": {"a": "1"}}));
    track_update(&schema(), None, &mut old, &writer("m"));
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    let mut other = new.clone();
    keep_times_if_unchanged(&old, &mut new);
    assert_eq!(old, new);
    other["data"]["a"] = json!("2");
    keep_times_if_unchanged(&old, &mut other);
    assert_ne!(old["metadata"], other["metadata"]);
}

fn configs() -> impl Strategy<Value = Value> {
    let data = proptest::collection::btree_map("[a-d]", "[1-3]", 0..4);
    let images = proptest::collection::btree_map("[a-d]", proptest::option::of("[1-3]"), 0..4);
    let images: BoxedStrategy<Vec<Value>> = images
        .prop_map(|m| {
            let item = |(n, i): (String, Option<String>)| {
                i.map_or(json!({"name": n}), |i| json!({"name": n, "image": i}))
            };
            m.into_iter().map(item).collect::<Vec<_>>()
        })
        .prop_shuffle()
        .boxed();
    (
        data,
        images,
        proptest::option::of(0..3i64),
        proptest::collection::btree_set("[a-c]", 0..3),
    )
        .prop_map(|(data, containers, replicas, finalizers)| {
            let mut config = object(json!({}));
            if !data.is_empty() {
                config["data"] = json!(data);
            }
            if !containers.is_empty() {
                config["spec"]["containers"] = json!(containers);
            }
            if let Some(replicas) = replicas {
                config["spec"]["replicas"] = json!(replicas);
            }
            if !finalizers.is_empty() {
                config["metadata"]["finalizers"] = json!(finalizers);
            }
            config
        })
}

fn without_managed(mut object: Value) -> Value {
    take_managed(&mut object);
    object
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(a in configs(), b in configs()) {
        let live = applied(None, &a, "a", false).unwrap();
        let once = applied(Some(&live), &b, "b", true).unwrap();
        let twice = applied(Some(&once), &b, "b", true).unwrap();
        prop_assert_eq!(once, twice);
    }

    /// One manager alone gets exactly what it applied last.
    #[test]
    fn the_last_configuration_holds(a in configs(), b in configs()) {
        let live = applied(None, &a, "m", false).unwrap();
        let next = applied(Some(&live), &b, "m", false).unwrap();
        let fresh = applied(None, &b, "m", false).unwrap();
        prop_assert_eq!(without_managed(next.clone()), without_managed(fresh.clone()));
        prop_assert_eq!(owners(&next), owners(&fresh));
    }

    /// Another manager conflicts exactly if it wants another value for something that is owned.
    #[test]
    fn another_manager_conflicts_over_other_values(a in configs(), b in configs()) {
        let live = applied(None, &a, "a", false).unwrap();
        let differs = |path: &str| matches!((a.pointer(path), b.pointer(path)), (Some(x), Some(y)) if x != y);
        let mut expect = differs("/spec/replicas") || ["a", "b", "c", "d"].iter().any(|k| differs(&format!("/data/{k}")));
        let containers = |v: &Value| v.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
        for x in containers(&a) {
            for y in containers(&b) {
                let both = x.get("image").is_some() && y.get("image").is_some();
                expect |= x["name"] == y["name"] && both && x["image"] != y["image"];
            }
        }
        prop_assert_eq!(applied(Some(&live), &b, "b", false).is_err(), expect);
    }

    /// Every leaf of an object has exactly the owner who wrote it last, whoever writes.
    #[test]
    fn updates_share_ownership_out(a in configs(), b in configs(), c in configs()) {
        let [a, b, c] = [a, b, c].map(|mut o| {
            o["data"]["z"] = json!("0");
            o
        });
        let mut object = a;
        track_update(&schema(), None, &mut object, &writer("a"));
        for (name, next) in [("b", b), ("c", c)] {
            let mut new = next;
            track_update(&schema(), Some(&object), &mut new, &writer(name));
            object = new;
        }
        let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let sets: Vec<Set> = list.iter().map(|e| e["fieldsV1"].as_object().cloned().unwrap()).collect();
        for (at, set) in sets.iter().enumerate() {
            prop_assert!(sets[at + 1..].iter().all(|other| !set::intersects(set, other)));
        }
        let all = merge::union_all(sets.iter());
        let mut own = typed::field_set(&schema(), &without_managed(object));
        strip(&mut own, &writer("x"));
        prop_assert!(set::is_subset(&own, &all), "{:?} of {:?}", own, all);
    }
}
