//! Strategic merge on a small schema: tables, and laws over random lists.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::{Property, SchemaRef};

fn keyed(items: SchemaRef, key: &str) -> Schema {
    Schema {
        merge_key: key.into(),
        patch_strategy: PatchStrategy {
            merge: true,
            ..PatchStrategy::default()
        },
        ..Schema::array(items)
    }
}

fn schema() -> Schema {
    let text = || SchemaRef::new(Schema::scalar(Type::String));
    let labels = SchemaRef::new(Schema::map(text()));
    let strings = SchemaRef::new(Schema {
        patch_strategy: PatchStrategy {
            merge: true,
            ..PatchStrategy::default()
        },
        ..Schema::array(text())
    });
    let item = SchemaRef::new(Schema::object(vec![
        Property::new("name", text()),
        Property::new("image", text()),
        Property::new("labels", labels.clone()),
    ]));
    let strategy = Schema {
        patch_strategy: PatchStrategy {
            retain_keys: true,
            ..PatchStrategy::default()
        },
        ..Schema::object(vec![
            Property::new("type", text()),
            Property::new("rolling", labels.clone()),
        ])
    };
    Schema::object(vec![
        Property::new("items", keyed(item, "name")),
        Property::new("set", strings),
        Property::new("plain", Schema::array(text())),
        Property::new("labels", labels),
        Property::new("strategy", strategy),
    ])
}

fn patched(target: Value, patch: &Value) -> Result<Value> {
    let mut target = target;
    strategic_merge_patch(&schema(), &mut target, patch).map(|()| target)
}

#[test]
fn merges_as_the_directives_say() {
    let check = |target: Value, patch: Value, expect: Value| {
        assert_eq!(patched(target, &patch), Ok(expect), "{patch}");
    };
    let two = || json!({"items": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]});
    check(
        two(),
        json!({"items": [{"name": "b", "image": "3"}]}),
        json!({"items": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]}),
    );
    check(
        two(),
        json!({"items": [{"name": "c"}]}),
        json!({"items": [{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
    );
    check(
        two(),
        json!({"items": [{"name": "a", "$patch": "delete"}]}),
        json!({"items": [{"name": "b", "image": "2"}]}),
    );
    check(
        two(),
        json!({"items": [{"$patch": "replace"}, {"name": "z"}]}),
        json!({"items": [{"name": "z"}]}),
    );
    check(
        two(),
        json!({"items": [{"name": "a", "image": null}]}),
        json!({"items": [{"name": "a"}, {"name": "b", "image": "2"}]}),
    );
    check(
        two(),
        json!({"$setElementOrder/items": [{"name": "b"}, {"name": "a"}]}),
        json!({"items": [{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]}),
    );
    check(
        two(),
        json!({"$setElementOrder/items": [{"name": "c"}, {"name": "a"}], "items": [{"name": "c", "image": "0"}]}),
        json!({"items": [{"name": "c", "image": "0"}, {"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
    );
    check(
        json!({"plain": ["a"]}),
        json!({"plain": ["b"]}),
        json!({"plain": ["b"]}),
    );
    check(
        json!({"set": ["a"]}),
        json!({"set": ["b", "a"]}),
        json!({"set": ["b", "a"]}),
    );
    check(
        json!({"set": ["a", "b"]}),
        json!({"$deleteFromPrimitiveList/set": ["a"]}),
        json!({"set": ["b"]}),
    );
    check(
        json!({"labels": {"a": "1"}}),
        json!({"labels": {"$patch": "delete"}}),
        json!({"labels": {}}),
    );
    check(
        json!({"labels": {"a": "1"}}),
        json!({"labels": {"$patch": "replace", "b": "2"}}),
        json!({"labels": {"b": "2"}}),
    );
    check(
        json!({"strategy": {"type": "Rolling", "rolling": {"x": "1"}}}),
        json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
        json!({"strategy": {"type": "Recreate"}}),
    );
    check(
        json!({}),
        json!({"labels": {"a": null, "b": "1"}}),
        json!({"labels": {"b": "1"}}),
    );
}

#[test]
fn refuses_with_kubernetes_texts() {
    let check = |patch: Value, expect: &str| {
        let target =
            json!({"items": [{"name": "a"}], "strategy": {"type": "x"}, "labels": {"a": "b"}});
        assert_eq!(patched(target, &patch).unwrap_err().to_string(), expect);
    };
    check(
        json!([]),
        "json: cannot unmarshal array into Go value of type map[string]interface {}",
    );
    check(
        json!({"items": [{"image": "noname"}]}),
        "map: map[image:noname] does not contain declared merge key: name",
    );
    check(
        json!({"strategy": {"$retainKeys": ["type"], "rolling": {"x": "1"}}}),
        "invalid patch format of retainKeys directive",
    );
    check(
        json!({"labels": {"$patch": "what"}}),
        "unknown patch type: what in map: map[$patch:what]",
    );
}

fn items() -> impl Strategy<Value = Vec<Value>> {
    proptest::collection::btree_map("[a-e]", "[1-3]", 0..5).prop_map(|m| {
        m.into_iter()
            .map(|(n, i)| json!({"name": n, "image": i}))
            .collect()
    })
}

proptest! {
    /// What kubectl sends (changed items, deletions, the wanted order) turns the one list into the other.
    #[test]
    fn a_diff_leads_from_one_to_the_other(from in items(), to in items().prop_shuffle()) {
        let has = |list: &[Value], item: &Value| list.iter().any(|i| i["name"] == item["name"]);
        let mut changes: Vec<Value> = to.clone();
        changes.extend(from.iter().filter(|i| !has(&to, i)).map(|i| json!({"name": i["name"], "$patch": "delete"})));
        let order: Vec<Value> = to.iter().map(|i| json!({"name": i["name"]})).collect();
        let patch = json!({"items": changes, "$setElementOrder/items": order});
        let result = patched(json!({"items": from}), &patch).unwrap();
        prop_assert_eq!(&result["items"], &Value::Array(to));
    }

    #[test]
    fn patching_twice_changes_nothing_more(from in items(), patch in items(), labels in proptest::collection::btree_map("[a-c]", proptest::option::of("[1-3]"), 0..3)) {
        let patch = json!({"items": patch, "labels": labels});
        let once = patched(json!({"items": from}), &patch).unwrap();
        let twice = patched(once.clone(), &patch).unwrap();
        prop_assert_eq!(once, twice);
    }
}
