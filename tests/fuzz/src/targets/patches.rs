//! Patches of each kind, server-side apply and managed fields; and their laws.

use oarlock_kinds::go_text;
use oarlock_model::Gvk;
use oarlock_schema::apply::{self, Writer};
use oarlock_schema::patch::{json_patch, merge_patch, strategic_merge_patch};
use oarlock_schema::{SchemaRef, decode_value};
use serde_json::{Value, json};

use super::{both, json_bytes, nested, outline, repeated, row, said, same, tree};
use crate::random::Random;
use crate::{Target, Verdict, grow};

pub const TARGETS: &[Target] = &[
    Target {
        name: "json-patch",
        tree: true,
        seeds: json_patch_seeds,
        hostile: json_patch_hostile,
        words: &[
            "add",
            "remove",
            "replace",
            "move",
            "copy",
            "test",
            "/",
            "/-",
            "/a",
            "/list/0",
            "/list/-1",
            "/a/b",
            "path",
            "from",
            "op",
            "value",
            "~0",
            "~1",
            "/metadata/name",
        ],
        grow: None,
        run: json_patch_run,
    },
    Target {
        name: "merge-patch",
        tree: true,
        seeds: merge_seeds,
        hostile: merge_hostile,
        words: &["a", "b", "metadata", "name"],
        grow: None,
        run: merge_run,
    },
    Target {
        name: "strategic",
        tree: true,
        seeds: strategic_seeds,
        hostile: |_| Vec::new(),
        words: &[
            "$patch",
            "$retainKeys",
            "$setElementOrder/containers",
            "$deleteFromPrimitiveList/finalizers",
            "$setElementOrder/finalizers",
            "delete",
            "replace",
            "merge",
            "containers",
            "name",
            "ports",
            "containerPort",
            "protocol",
            "env",
            "volumes",
            "finalizers",
            "conditions",
            "type",
        ],
        grow: Some(grow_strategic),
        run: strategic_run,
    },
    Target {
        name: "apply",
        tree: true,
        seeds: apply_seeds,
        hostile: |_| Vec::new(),
        words: &[
            "f:spec",
            ".",
            "k:{\"name\":\"c\"}",
            "v:\"a\"",
            "i:0",
            "f:metadata",
            "f:labels",
            "f:containers",
            "k:{}",
            "k:",
            "v:",
            "i:-1",
            "i:99999999999999999999",
            "Apply",
            "Update",
            "FieldsV1",
            "fieldsV1",
            "managedFields",
            "manager",
            "subresource",
            "status",
            "kubectl",
            "before-first-apply",
            "containers",
            "name",
            "ports",
        ],
        grow: Some(grow_apply),
        run: apply_run,
    },
];

fn json_patch_seeds() -> Vec<Vec<u8>> {
    let object = json!({"a": {"b": [1, 2, {"c": "d"}]}, "list": ["x", "y"], "metadata": {"name": "n"}, "": {"~": 1, "/": 2}});
    json_bytes(&[
        json!([object, [{"op": "add", "path": "/a/b/-", "value": 3}, {"op": "remove", "path": "/list/0"}]]),
        json!([object, [{"op": "replace", "path": "/a", "value": {"x": null}}, {"op": "test", "path": "/metadata/name", "value": "n"}]]),
        json!([object, [{"op": "move", "from": "/a/b", "path": "/list/-1"}, {"op": "copy", "from": "", "path": "/a/c"}]]),
        json!([object, [{"op": "copy", "from": "/a", "path": "/a/a"}, {"op": "move", "from": "/a", "path": "/a/b"}]]),
        json!([object, [{"op": "replace", "path": "", "value": []}, {"op": "add", "path": "/0", "value": 1}]]),
        json!([object, {}]),
        json!([[1, 2], [{"op": "remove", "path": "/-1"}, {"op": "test", "path": "", "value": [1]}]]),
    ])
}

fn json_patch_hostile(bytes: usize) -> Vec<Vec<u8>> {
    let doubling: Vec<Value> = (0..9000)
        .map(|n| json!({"op": "copy", "from": "", "path": format!("/c{n}")}))
        .collect();
    let same_place: Vec<Value> = (0..9000)
        .map(|_| json!({"op": "copy", "from": "/a", "path": "/a/a"}))
        .collect();
    // Each step puts its value at the end of the longest path so far.
    let step = "/a".repeat(100);
    let deep: Value = serde_json::from_str(&nested("{\"a\":", "{}", "}", 600)).unwrap_or_default();
    let mut digging = Vec::new();
    let (mut path, mut spent) = (String::from("/a"), 0);
    while spent < bytes.min(2_900_000) && digging.len() < 9000 {
        digging.push(json!({"op": "add", "path": path, "value": deep}));
        spent += path.len() + 700;
        path.push_str(&step);
    }
    let bringing: Vec<Value> = std::iter::once(json!({"op": "add", "path": "/a", "value": {}}))
        .chain((0..9000).map(|_| json!({"op": "move", "from": "/a", "path": "/b"})))
        .collect();
    let mut wrapping = vec![];
    for _ in 0..4000 {
        wrapping.push(json!({"op": "add", "path": "/w", "value": {}}));
        wrapping.push(json!({"op": "move", "from": "/a", "path": "/w/a"}));
        wrapping.push(json!({"op": "move", "from": "/w", "path": "/a"}));
    }
    wrapping.truncate(9999);
    let wide = vec![1; (bytes / 2).min(400_000)];
    let front: Vec<Value> = (0..1000)
        .map(|_| json!({"op": "add", "path": "/a/0", "value": 1}))
        .collect();
    let mut all = json_bytes(&[
        json!([{"a": {"b": 1}}, doubling]),
        json!([{"a": {"b": 1}}, same_place]),
        json!([{"a": {}}, digging]),
        json!([{}, bringing]),
        json!([{"a": {}}, wrapping]),
        json!([{"a": wide}, front]),
        json!([{}, vec![json!({}); bytes / 3]]),
    ]);
    let long = format!(
        "[{{\"a\":{{}}}},[{{\"op\":\"add\",\"path\":\"{}\",\"value\":1}}]]",
        repeated("/", bytes)
    );
    all.push(long.into_bytes());
    all
}

/// The two halves of an input.
fn pair(input: &[u8]) -> Option<(Value, Value)> {
    match tree(input)? {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([a, b]) => Some((a, b)),
            Err(_) => None,
        },
        _ => None,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// As deep as an object may be when it is written.
const MAX_DEPTH: usize = 600;

/// What happens to a patched object next.
fn goes_on(object: &Value) -> Result<u64, String> {
    if depth(object) > MAX_DEPTH {
        return Err(format!("a patch nests {} levels deep", depth(object)));
    }
    let row = row("", "ConfigMap").ok_or("no such kind")?;
    let out = match decode_value(&row.schema, object) {
        Ok(decoded) => outline(&decoded.value),
        Err(error) => said(&error.to_string()),
    };
    Ok(both(out, outline(object)))
}

fn json_patch_run(input: &[u8]) -> Verdict {
    let Some((object, patch)) = pair(input) else {
        return Ok(0);
    };
    let mut empty = object.clone();
    json_patch(&mut empty, &json!([])).map_err(|e| format!("an empty patch applies: {e}"))?;
    same("an empty patch changes nothing", &empty, &object)?;
    let mut patched = object;
    match json_patch(&mut patched, &patch) {
        Ok(()) => {
            let touched = go_text::Touched::by_operations(&patch);
            let shown = go_text::patched(&patched, &touched);
            Ok(both(goes_on(&patched)?, said(&shown)))
        }
        Err(error) => Ok(said(&error.to_string())),
    }
}

fn merge_seeds() -> Vec<Vec<u8>> {
    json_bytes(&[
        json!([{"a": {"b": 1, "c": [1]}, "d": "e"}, {"a": {"b": null, "x": {"y": null}}, "d": [1, {"z": null}]}]),
        json!([{}, {"a": {"a": {"a": null}}}]),
        json!([[1], {"a": 1}]),
        json!([{"a": 1}, []]),
        json!([{"metadata": {"labels": {"a": "b"}}}, {"metadata": {"labels": null, "name": "x"}}]),
    ])
}

fn merge_hostile(bytes: usize) -> Vec<Vec<u8>> {
    let deep = nested("{\"a\":", "null", "}", bytes.min(700));
    vec![
        format!("[{{}},{deep}]").into_bytes(),
        format!("[{deep},{deep}]").into_bytes(),
        format!("[{{}},{{{}\"a\":null}}]", repeated("\"a\":{},", bytes)).into_bytes(),
    ]
}

fn merge_run(input: &[u8]) -> Verdict {
    let Some((object, patch)) = pair(input) else {
        return Ok(0);
    };
    if object.is_object() {
        let mut empty = object.clone();
        merge_patch(&mut empty, &json!({})).map_err(|e| format!("an empty patch applies: {e}"))?;
        same("an empty patch changes nothing", &empty, &object)?;
    }
    let mut once = object;
    if let Err(error) = merge_patch(&mut once, &patch) {
        return Ok(said(&error.to_string()));
    }
    let shown = go_text::patched(&once, &go_text::Touched::by_merge(&patch));
    let mut twice = once.clone();
    merge_patch(&mut twice, &patch).map_err(|e| format!("a patch applies twice: {e}"))?;
    same("a merge patch twice is one once", &twice, &once)?;
    Ok(both(goes_on(&once)?, said(&shown)))
}

const POD_KIND: (&str, &str) = ("", "Pod");

fn schema_of(kind: &Value) -> Option<&'static SchemaRef> {
    let (group, kind) = match kind.as_str() {
        Some("Deployment") => ("apps", "Deployment"),
        Some("Service") => ("", "Service"),
        Some("Node") => ("", "Node"),
        Some("ConfigMap") => ("", "ConfigMap"),
        Some("Ingress") => ("networking.k8s.io", "Ingress"),
        _ => POD_KIND,
    };
    row(group, kind).map(|row| &row.schema)
}

fn strategic_seeds() -> Vec<Vec<u8>> {
    let pod = json!({"kind": "Pod", "metadata": {"name": "p", "finalizers": ["a/b", "c/d"], "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "d"}], "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k"}]}});
    let service = json!({"kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": "a", "protocol": "TCP"}], "selector": {"a": "b"}}});
    let deployment = json!({"kind": "Deployment", "spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "template": {"spec": pod["spec"]}}});
    json_bytes(&[
        json!([pod, {"spec": {"containers": [{"name": "c", "$patch": "delete"}, {"name": "e"}]}}]),
        json!([pod, {"spec": {"$setElementOrder/containers": [{"name": "d"}, {"name": "c"}], "containers": [{"name": "c", "env": [{"name": "A", "value": null}]}]}}]),
        json!([pod, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"], "finalizers": ["e/f"], "$setElementOrder/finalizers": ["e/f", "c/d"]}}]),
        json!([pod, {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "m"}}], "tolerations": [{"$patch": "replace"}, {"key": "x"}]}}]),
        json!([service, {"spec": {"ports": [{"port": 80, "nodePort": 1}, {"port": 81}], "selector": {"$patch": "replace", "c": "d"}}}]),
        json!([deployment, {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "template": {"spec": {"containers": [{"$patch": "merge", "name": "c"}]}}}}]),
        json!([{"kind": "Node", "status": {"conditions": [{"type": "Ready"}]}}, {"status": {"conditions": [{"type": "Ready", "status": "True"}, {}]}}]),
        json!([pod, {"$patch": "delete"}]),
    ])
}

fn grow_strategic(random: &mut Random, input: &mut Value) {
    let half = random.below(2);
    if let Some(schema) = schema_of(&input[0]["kind"])
        && let Some(object) = input.get_mut(half)
    {
        grow::field(random, schema, object);
    }
}

fn strategic_run(input: &[u8]) -> Verdict {
    let Some((object, patch)) = pair(input) else {
        return Ok(0);
    };
    let schema = schema_of(&object["kind"]).ok_or("no such kind")?;
    let Ok(decoded) = decode_value(schema, &object) else {
        return Ok(1);
    };
    let object = decoded.value;
    if object.is_object() {
        let mut empty = object.clone();
        strategic_merge_patch(schema, &mut empty, &json!({}))
            .map_err(|e| format!("an empty patch applies: {e}"))?;
        same("an empty patch changes nothing", &empty, &object)?;
    }
    let mut patched = object;
    match strategic_merge_patch(schema, &mut patched, &patch) {
        Ok(()) => {
            let text = go_text::plain(&patched);
            let out = match decode_value(schema, &patched) {
                Ok(decoded) => outline(&decoded.value),
                Err(error) => said(&go_text::restoring(&error.to_string())),
            };
            Ok(both(both(out, outline(&patched)), said(&text)))
        }
        Err(error) => Ok(said(&error.to_string())),
    }
}

fn apply_seeds() -> Vec<Vec<u8>> {
    let managed = |manager: &str, operation: &str, fields: Value| json!({"manager": manager, "operation": operation, "apiVersion": "v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": fields});
    let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {"v:\"a/b\"": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}});
    let pod = |managed_fields: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", "finalizers": ["a/b"], "labels": {"a": "b"}, "managedFields": managed_fields}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}});
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "j"}, {"name": "d", "env": [{"name": "X", "value": "1"}]}]}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}});
    json_bytes(&[
        json!([pod(json!([managed("m", "Apply", fields.clone())])), config]),
        json!([
            pod(json!([
                managed("other", "Apply", fields.clone()),
                managed("u", "Update", fields)
            ])),
            config
        ]),
        json!([
            pod(json!([managed(
                "kubectl",
                "Update",
                json!({"f:data": {".": {}}})
            )])),
            config
        ]),
        json!([pod(json!([])), config]),
        json!([null, config]),
        json!([map, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"b": "2"}}]),
        json!([{"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}]}}, {"kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": 1}]}}]),
        json!([{"kind": "Deployment", "spec": {"replicas": 1}}, {"kind": "Deployment", "spec": {"replicas": 2, "template": {"spec": config["spec"]}}}]),
    ])
}

fn grow_apply(random: &mut Random, input: &mut Value) {
    let half = random.below(2);
    if let Some(schema) = schema_of(&input[1]["kind"])
        && let Some(object) = input.get_mut(half)
    {
        grow::field(random, schema, object);
    }
}

fn apply_run(input: &[u8]) -> Verdict {
    let Some((live, config)) = pair(input) else {
        return Ok(0);
    };
    let schema = schema_of(&config["kind"]).ok_or("no such kind")?;
    let live = match decode_value(schema, &live) {
        Ok(decoded) if decoded.value.is_object() && !live.is_null() => Some(decoded.value),
        _ => None,
    };
    let writer = |manager| Writer {
        manager,
        api_version: "v1",
        subresource: "",
        now: "2026-11-24T00:00:00Z",
        reset: &[&["status"]],
        one_schema: false,
    };
    let gvk = Gvk::new("", "v1", config["kind"].as_str().unwrap_or_default());
    let mut out = 0;
    // What is on its way in may say of itself who manages it.
    if let Some(old) = &live {
        let mut new = old.clone();
        apply::track_update(schema, None, &mut new, &writer("u"));
        apply::track_update(schema, Some(old), &mut new, &writer("u"));
        out = both(out, outline(&new));
    }
    for (manager, force) in [("m", false), ("m", true), ("kubectl", false)] {
        let applied = match apply::apply(
            schema,
            live.as_ref(),
            &config,
            &writer(manager),
            force,
            &gvk,
        ) {
            Ok(applied) => applied,
            Err(error) => {
                out = both(out, said(&error.to_string()));
                continue;
            }
        };
        // As it is stored.
        let once = match decode_value(schema, &applied) {
            Ok(decoded) => decoded.value,
            Err(error) => {
                out = both(out, said(&error.to_string()));
                continue;
            }
        };
        out = both(out, outline(&once));
        let again = apply::apply(schema, Some(&once), &config, &writer(manager), force, &gvk)
            .map_err(|e| format!("what was applied applies again: {e}"))?;
        let twice = decode_value(schema, &again)
            .map_err(|e| format!("what was applied twice decodes: {e}"))?;
        same("applying twice is applying once", &twice.value, &once)?;
    }
    Ok(out)
}
