//! Writes against the memory store: what no recording shows (races, batches, graces, finalizers).

mod house;

use std::sync::Arc;

use bytes::Bytes;
use oarlock_model::meta;
use oarlock_registry::{
    BindRequest, Body, DeleteOptions, Deleted, EventType, PatchKind, Target, WatchOptions,
};
use serde_json::json;

use house::*;

#[tokio::test]
async fn a_first_start_makes_what_every_cluster_has() {
    let house = House::new().await;
    for (group, resource, name) in [
        ("", "namespaces", "kube-system"),
        ("", "namespaces", "kube-node-lease"),
        (
            "scheduling.k8s.io",
            "priorityclasses",
            "system-node-critical",
        ),
        ("", "services", "kubernetes"),
    ] {
        let target = house.target(group, resource, name);
        house.registry.get(&ctx(), &target, "").await.unwrap();
    }
    let service = house.get("services", "kubernetes").await.unwrap();
    assert_eq!(service["spec"]["clusterIP"], "10.0.0.1");
    // A second start over the same store changes nothing.
    let revision = house.registry.store().revision();
    let again = House::over(Arc::clone(house.registry.store())).await;
    assert_eq!(again.registry.store().revision(), revision);
}

#[tokio::test]
async fn generated_names_and_system_metadata() {
    let house = House::new().await;
    let sent = json!({"metadata": {"generateName": "job-", "uid": "mine", "creationTimestamp": "1999-01-01T00:00:00Z",
        "generation": 7, "deletionTimestamp": "1999-01-01T00:00:00Z"}});
    let made = house.create("", "configmaps", sent).await.unwrap();
    let name = meta::name(&made);
    assert!(name.starts_with("job-") && name.len() == 9, "{name}");
    assert_ne!(meta::uid(&made), "mine");
    assert_eq!(
        made["metadata"]["creationTimestamp"],
        "2026-11-23T21:00:00Z"
    );
    assert_eq!(made["metadata"].get("deletionTimestamp"), None);
    // Nobody counts it for this kind, so it is the caller's.
    assert_eq!(made["metadata"]["generation"], 7);
    let error = house
        .create("", "configmaps", json!({"metadata": {"name": name}}))
        .await
        .unwrap_err();
    assert_eq!(
        texts(error),
        (409, format!("configmaps {name:?} already exists"))
    );
    let versioned = json!({"metadata": {"name": "v", "resourceVersion": "1"}});
    let error = house.create("", "configmaps", versioned).await.unwrap_err();
    assert_eq!(
        texts(error),
        (
            500,
            "resourceVersion should not be set on objects to be created".to_owned()
        )
    );
}

#[tokio::test]
async fn a_stale_version_conflicts_and_a_change_of_nothing_writes_nothing() {
    let house = House::new().await;
    let made = house
        .create("", "configmaps", config_map("a", json!({})))
        .await
        .unwrap();
    let target = house.target("", "configmaps", "a");
    let changed = house
        .merge("configmaps", "a", json!({"data": {"k": "w"}}))
        .await
        .unwrap();
    assert!(rv(&changed) > rv(&made));
    let error = house
        .registry
        .update(&ctx(), &target, Body::Value(made.clone()))
        .await
        .unwrap_err();
    assert_eq!(
        texts(error),
        (409, "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again".to_owned())
    );
    let mut late = ctx();
    late.now = "2027-01-01T00:00:00Z".parse().unwrap();
    let same = house
        .registry
        .update(&late, &target, Body::Value(changed.clone()))
        .await
        .unwrap();
    assert_eq!(same.object.revision, rv(&changed));
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "x"}});
    assert_eq!(
        house
            .merge("configmaps", "a", stale)
            .await
            .unwrap_err()
            .code(),
        409
    );
    let mut dry = ctx();
    dry.dry_run = true;
    let patch = Bytes::from_static(b"{\"data\":{\"k\":\"dry\"}}");
    let tried = house
        .registry
        .patch(&dry, &target, PatchKind::Merge, patch)
        .await
        .unwrap();
    assert_eq!(tried.object.to_value().unwrap()["data"]["k"], "dry");
    assert_eq!(house.get("configmaps", "a").await.unwrap(), changed);
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let house = House::new().await;
    house
        .create("", "configmaps", config_map("a", json!({})))
        .await
        .unwrap();
    let patches =
        (0..32).map(|at| house.merge("configmaps", "a", json!({"data": {format!("k{at}"): "x"}})));
    for result in futures::future::join_all(patches).await {
        result.unwrap();
    }
    let data = house.get("configmaps", "a").await.unwrap()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 33);
}

#[tokio::test]
async fn status_and_spec_keep_to_their_own_endpoints() {
    let house = House::new().await;
    house.pod("p").await;
    let through_main = house
        .merge(
            "pods",
            "p",
            json!({"status": {"phase": "Running"}, "metadata": {"labels": {"a": "b"}}}),
        )
        .await;
    let pod = through_main.unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["metadata"]["labels"]["a"]),
        (&json!("Pending"), &json!("b"))
    );
    let row = house.registry.kinds().resource("", "v1", "pods").unwrap();
    let status = Target::sub(&row, "default", "p", "status");
    let patch = Bytes::from_static(br#"{"status":{"phase":"Running"},"spec":{"priority":9}}"#);
    let written = house
        .registry
        .patch(&ctx(), &status, PatchKind::Merge, patch)
        .await
        .unwrap();
    let pod = written.object.to_value().unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["spec"]["priority"]),
        (&json!("Running"), &json!(0))
    );
    assert_eq!(pod["metadata"]["generation"], 1);
    assert_eq!(pod["spec"], house.get("pods", "p").await.unwrap()["spec"]);
    assert_eq!(
        pod["spec"]["containers"][0]["image"],
        "registry.example/i:1"
    );
    // The same through a JSON patch, which sees the whole object.
    let patch = Bytes::from_static(br#"[{"op":"test","path":"/spec/containers/0/name","value":"c"},{"op":"add","path":"/status/message","value":"m"}]"#);
    let written = house
        .registry
        .patch(&ctx(), &status, PatchKind::Json, patch)
        .await
        .unwrap();
    assert_eq!(written.object.to_value().unwrap()["status"]["message"], "m");
    let entries = pod["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        entries
            .iter()
            .any(|e| e["subresource"] == "status" && e["manager"] == "test"),
        "{entries:?}"
    );
}

#[tokio::test]
async fn pods_are_bound_once_and_in_bulk() {
    let house = House::new().await;
    let count = 300;
    for at in 0..count {
        house.pod(&format!("p{at}")).await;
    }
    let request = |at: usize, uid: &str| BindRequest {
        namespace: "default".to_owned(),
        name: format!("p{at}"),
        uid: uid.to_owned(),
        node: format!("n{}", at % 7),
    };
    let requests: Vec<_> = (0..count).map(|at| request(at, "")).collect();
    let results = house.registry.bind_many(&ctx(), &requests).await;
    assert!(results.iter().all(Result::is_ok));
    for (at, result) in results.iter().enumerate() {
        let pod = result.as_ref().unwrap().to_value().unwrap();
        assert_eq!(pod["spec"]["nodeName"], format!("n{}", at % 7));
        assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    }
    let again = house
        .registry
        .bind_many(&ctx(), &[request(3, ""), request(9999, "")])
        .await;
    let errors: Vec<_> = again
        .into_iter()
        .map(|r| r.unwrap_err())
        .map(texts)
        .collect();
    assert_eq!(
        errors,
        [
            (409, "Operation cannot be fulfilled on pods/binding \"p3\": pod p3 is already assigned to node \"n3\"".to_owned()),
            (404, "pods \"p9999\" not found".to_owned()),
        ]
    );
    house.pod("other").await;
    let wrong = BindRequest {
        name: "other".to_owned(),
        ..request(0, "no-such-uid")
    };
    assert_eq!(
        house.registry.bind_many(&ctx(), &[wrong]).await[0]
            .as_ref()
            .unwrap_err()
            .code(),
        409
    );
    // Bulk statuses share commits: fewer revisions than writes would be luck, but every one must be there.
    let row = house.registry.kinds().resource("", "v1", "pods").unwrap();
    let patches = (0..count)
        .map(|at| {
            (
                Target::new(&row, "default", &format!("p{at}")),
                json!({"status": {"phase": "Running"}}),
            )
        })
        .collect();
    for result in house.registry.patch_status_many(&ctx(), patches).await {
        assert_eq!(
            result.unwrap().to_value().unwrap()["status"]["phase"],
            "Running"
        );
    }
}

#[tokio::test]
async fn a_scheduled_pod_ends_in_two_steps_and_an_unscheduled_one_at_once() {
    let house = House::new().await;
    house.pod("unscheduled").await;
    assert!(matches!(
        house.delete("pods", "unscheduled").await.unwrap(),
        Deleted::Gone(_)
    ));
    assert_eq!(
        house.get("pods", "unscheduled").await.unwrap_err().code(),
        404
    );

    let made = house.pod("p").await;
    let bind = BindRequest {
        namespace: "default".to_owned(),
        name: "p".to_owned(),
        uid: String::new(),
        node: "n".to_owned(),
    };
    house
        .registry
        .bind_many(&ctx(), &[bind])
        .await
        .remove(0)
        .unwrap();
    let Deleted::Pending(marked) = house.delete("pods", "p").await.unwrap() else {
        panic!("gone at once")
    };
    let marked = marked.to_value().unwrap();
    assert_eq!(
        marked["metadata"]["deletionTimestamp"],
        "2026-11-23T21:00:30Z"
    );
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["generation"], 2);
    let mut watch = house
        .watch(
            "pods",
            WatchOptions {
                resource_version: rv(&made).to_string(),
                ..WatchOptions::default()
            },
        )
        .await;
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    let target = house.target("", "pods", "p");
    assert!(matches!(
        house
            .registry
            .delete(&ctx(), &target, &options)
            .await
            .unwrap(),
        Deleted::Gone(_)
    ));
    let seen = events(&mut watch, 4).await;
    let kinds: Vec<_> = seen.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [
            EventType::Modified,
            EventType::Modified,
            EventType::Modified,
            EventType::Deleted
        ]
    );
    assert_eq!(seen[3].1["metadata"]["deletionGracePeriodSeconds"], 0);
    assert!(rv(&seen[3].1) > rv(&seen[2].1));
}

#[tokio::test]
async fn finalizers_and_foreground_hold_an_object() {
    let house = House::new().await;
    house
        .create("", "configmaps", config_map("a", json!({})))
        .await
        .unwrap();
    let target = house.target("", "configmaps", "a");
    let options = DeleteOptions {
        propagation_policy: Some("Foreground".to_owned()),
        ..DeleteOptions::default()
    };
    assert!(matches!(
        house
            .registry
            .delete(&ctx(), &target, &options)
            .await
            .unwrap(),
        Deleted::Pending(_)
    ));
    let marked = house.get("configmaps", "a").await.unwrap();
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let error = house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"finalizers": ["x.example/y"]}}),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code(), 422);
    house
        .merge("configmaps", "a", json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    assert_eq!(house.get("configmaps", "a").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized() {
    let house = House::new().await;
    let made = house
        .create("", "namespaces", json!({"metadata": {"name": "ns"}}))
        .await
        .unwrap();
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert!(matches!(
        house.delete("namespaces", "ns").await.unwrap(),
        Deleted::Pending(_)
    ));
    let row = house
        .registry
        .kinds()
        .resource("", "v1", "configmaps")
        .unwrap();
    let inside = Target::new(&row, "ns", "");
    let error = house
        .registry
        .create(&ctx(), &inside, Body::Value(config_map("a", json!({}))))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.causes[0].reason.as_str()),
        (403, "NamespaceTerminating")
    );
    let namespaces = house
        .registry
        .kinds()
        .resource("", "v1", "namespaces")
        .unwrap();
    let finalize = Target::sub(&namespaces, "", "ns", "finalize");
    let body = json!({"metadata": {"name": "ns"}, "spec": {"finalizers": []}});
    house
        .registry
        .update(&ctx(), &finalize, Body::Value(body))
        .await
        .unwrap();
    assert_eq!(house.get("namespaces", "ns").await.unwrap_err().code(), 404);
    let missing = house
        .registry
        .create(&ctx(), &inside, Body::Value(config_map("a", json!({}))))
        .await
        .unwrap_err();
    assert_eq!(
        texts(missing),
        (404, "namespaces \"ns\" not found".to_owned())
    );
    assert_eq!(
        house
            .delete("namespaces", "default")
            .await
            .unwrap_err()
            .code(),
        403
    );
}

#[tokio::test]
async fn what_is_as_deep_as_it_may_be_can_be_read_again() {
    let house = House::new().await;
    let mut target = house.target("apps", "controllerrevisions", "");
    // The body's own levels are counted, too.
    let deep = format!("{}1{}", "[".repeat(250), "]".repeat(250));
    let body = format!(r#"{{"metadata":{{"name":"deep"}},"revision":1,"data":{{"a":{deep}}}}}"#);
    let made = house
        .registry
        .create(&ctx(), &target, Body::Json(Bytes::from(body)))
        .await
        .unwrap();
    let data = made.to_value().unwrap()["data"].to_string();
    assert!(data.contains(&deep));
    target.name = "deep".to_owned();
    let patch = Bytes::from_static(br#"{"metadata":{"labels":{"a":"b"}}}"#);
    let patched = house
        .registry
        .patch(&ctx(), &target, PatchKind::Merge, patch)
        .await
        .unwrap();
    let patched = patched.object.to_value().unwrap();
    assert_eq!(patched["metadata"]["labels"]["a"], "b");
    house
        .registry
        .delete(&ctx(), &target, &DeleteOptions::default())
        .await
        .unwrap();
}
