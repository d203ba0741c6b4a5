//! Lists, watches, allocators and outside input against the memory store: history, bookmarks, refusals.

mod house;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oarlock_model::{ApiResult, FieldSelector, LabelSelector, meta};
use oarlock_registry::{Body, Context, EventType, ListOptions, PatchKind, Stored, WatchOptions};
use serde_json::json;

use house::*;

#[tokio::test]
async fn services_never_share_addresses_or_ports() {
    let house = House::new().await;
    let service = |name: &str, ip: &str, port: u32| {
        let mut object = json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}});
        if !ip.is_empty() {
            object["spec"]["clusterIP"] = json!(ip);
        }
        if port > 0 {
            object["spec"]["ports"][0]["nodePort"] = json!(port);
        }
        object
    };
    let made = house
        .create("", "services", service("a", "10.0.7.7", 30_123))
        .await
        .unwrap();
    assert_eq!(
        (
            &made["spec"]["clusterIP"],
            &made["spec"]["ports"][0]["nodePort"]
        ),
        (&json!("10.0.7.7"), &json!(30_123))
    );
    for (name, ip, port, expect) in [
        ("b", "10.0.7.7", 0, "provided IP is already allocated"),
        ("b", "192.168.0.1", 0, "not in the valid range"),
        ("b", "", 30_123, "provided port is already allocated"),
        ("b", "", 80, "not in the valid range"),
    ] {
        let error = house
            .create("", "services", service(name, ip, port))
            .await
            .unwrap_err();
        assert!(
            error.code() == 422 && error.message.contains(expect),
            "{error}"
        );
    }
    // What a refused or tried write had taken is free again.
    let mut dry = ctx();
    dry.dry_run = true;
    let target = house.target("", "services", "");
    house
        .registry
        .create(
            &dry,
            &target,
            Body::Value(service("dry", "10.0.8.8", 30_200)),
        )
        .await
        .unwrap();
    house
        .create("", "services", service("c", "10.0.8.8", 30_200))
        .await
        .unwrap();
    house.delete("services", "a").await.unwrap();
    // A restart learns from the store what is taken.
    let again = House::over(Arc::clone(house.registry.store())).await;
    assert_eq!(
        again
            .create("", "services", service("d", "10.0.8.8", 0))
            .await
            .unwrap_err()
            .code(),
        422
    );
    again
        .create("", "services", service("e", "10.0.7.7", 30_123))
        .await
        .unwrap();
    // An update that leaves the address out keeps it.
    let body = service("c", "", 0);
    let kept = again
        .registry
        .update(
            &ctx(),
            &again.target("", "services", "c"),
            Body::Value(body),
        )
        .await
        .unwrap();
    let kept = kept.object.to_value().unwrap();
    assert_eq!(
        (
            &kept["spec"]["clusterIP"],
            &kept["spec"]["ports"][0]["nodePort"]
        ),
        (&json!("10.0.8.8"), &json!(30_200))
    );
}

#[tokio::test]
async fn pages_are_one_snapshot_until_it_is_compacted() {
    let house = House::new().await;
    for name in ["a", "b", "c", "d"] {
        house
            .create("", "configmaps", config_map(name, json!({"n": name})))
            .await
            .unwrap();
    }
    let names = |list: &oarlock_registry::List| -> Vec<String> {
        list.items
            .iter()
            .map(|item: &Stored| meta::name(&item.to_value().unwrap()).to_owned())
            .collect()
    };
    let target = house.target("", "configmaps", "");
    let first = house
        .registry
        .list(
            &ctx(),
            &target,
            &ListOptions {
                limit: 2,
                ..ListOptions::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(
        (names(&first), first.remaining),
        (vec!["a".to_owned(), "b".to_owned()], Some(2))
    );
    house
        .create("", "configmaps", config_map("bb", json!({})))
        .await
        .unwrap();
    house.delete("configmaps", "c").await.unwrap();
    let next = ListOptions {
        limit: 2,
        continue_token: first.continue_token.clone(),
        ..ListOptions::default()
    };
    let second = house.registry.list(&ctx(), &target, &next).await.unwrap();
    assert_eq!(
        (names(&second), second.continue_token.as_str()),
        (vec!["c".to_owned(), "d".to_owned()], "")
    );
    assert_eq!(second.revision, first.revision);
    house
        .registry
        .store()
        .compact(house.registry.store().revision());
    let gone = house
        .registry
        .list(&ctx(), &target, &next)
        .await
        .unwrap_err();
    assert_eq!(gone.code(), 410);
    assert!(
        gone.message
            .contains("The provided continue parameter is too old")
    );
    let inconsistent = ListOptions {
        continue_token: gone.continue_token,
        ..ListOptions::default()
    };
    let rest = house
        .registry
        .list(&ctx(), &target, &inconsistent)
        .await
        .unwrap();
    assert_eq!(names(&rest), ["bb", "d"]);
    let selected = ListOptions {
        labels: LabelSelector::parse("n in (a,d)").unwrap(),
        fields: FieldSelector::parse("metadata.name!=a").unwrap(),
        limit: 1,
        ..ListOptions::default()
    };
    assert_eq!(
        names(
            &house
                .registry
                .list(&ctx(), &target, &selected)
                .await
                .unwrap()
        ),
        ["d"]
    );
}

#[tokio::test]
async fn watches_end_truthfully_and_idle_ones_get_bookmarks() {
    let house = House::new().await;
    let made = house
        .create("", "configmaps", config_map("a", json!({"app": "x"})))
        .await
        .unwrap();
    house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"labels": {"app": "y"}}}),
        )
        .await
        .unwrap();
    house
        .registry
        .store()
        .compact(house.registry.store().revision());
    let old = WatchOptions {
        resource_version: (rv(&made) - 1).to_string(),
        ..WatchOptions::default()
    };
    let mut stream = house.watch("configmaps", old).await;
    let error = stream.next_batch().await.unwrap_err();
    assert_eq!(error.code(), 410);
    assert!(
        error.message.starts_with("too old resource version: "),
        "{error}"
    );

    let options = WatchOptions {
        labels: LabelSelector::parse("app=x").unwrap(),
        resource_version: house.registry.store().revision().to_string(),
        bookmarks: true,
        ..WatchOptions::default()
    };
    let mut stream = house.watch("configmaps", options).await;
    house.pod("elsewhere").await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let seen = events(&mut stream, 1).await;
    assert_eq!(seen[0].0, EventType::Bookmark { initial_end: false });
    house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"labels": {"app": "x"}}}),
        )
        .await
        .unwrap();
    house
        .merge("configmaps", "a", json!({"data": {"k": "w"}}))
        .await
        .unwrap();
    let last = house
        .merge(
            "configmaps",
            "a",
            json!({"metadata": {"labels": {"app": "z"}}}),
        )
        .await
        .unwrap();
    let seen = events(&mut stream, 3).await;
    let kinds: Vec<_> = seen.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [EventType::Added, EventType::Modified, EventType::Deleted]
    );
    // The last state that was selected, at the revision that took it out.
    assert_eq!(
        (
            seen[2].1["metadata"]["labels"]["app"].as_str(),
            rv(&seen[2].1)
        ),
        (Some("x"), rv(&last))
    );
    let future = WatchOptions {
        resource_version: (rv(&last) + 1).to_string(),
        ..WatchOptions::default()
    };
    let mut stream = house.watch("configmaps", future).await;
    house
        .create("", "configmaps", config_map("b", json!({})))
        .await
        .unwrap();
    house
        .create("", "configmaps", config_map("c", json!({})))
        .await
        .unwrap();
    assert_eq!(meta::name(&events(&mut stream, 1).await[0].1), "c");
}

#[tokio::test]
async fn an_event_is_one_object_with_two_faces() {
    let house = House::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "it runs", "type": "Normal"});
    house.create("", "events", event).await.unwrap();
    let target = house.target("events.k8s.io", "events", "e");
    let other = house
        .registry
        .get(&ctx(), &target, "")
        .await
        .unwrap()
        .to_value()
        .unwrap();
    assert_eq!(
        (meta::api_version(&other), other["note"].as_str()),
        ("events.k8s.io/v1", Some("it runs"))
    );
    let patch = Bytes::from_static(br#"{"metadata":{"labels":{"seen":"yes"}}}"#);
    house
        .registry
        .patch(&ctx(), &target, PatchKind::Merge, patch)
        .await
        .unwrap();
    let core = house.get("events", "e").await.unwrap();
    assert_eq!(
        (meta::api_version(&core), meta::label(&core, "seen")),
        ("v1", Some("yes"))
    );
}

#[tokio::test]
async fn events_expire_an_hour_after_they_were_last_seen() {
    let house = House::new().await;
    for (name, seen) in [
        ("old", "2026-11-23T19:59:00Z"),
        ("seen", "2026-11-23T20:30:00Z"),
    ] {
        let event = json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
            "reason": "Started", "lastTimestamp": seen});
        house.create("", "events", event).await.unwrap();
    }
    let minutes = |n: i64| now() + jiff::SignedDuration::from_mins(n);
    assert_eq!(house.registry.expire_events(minutes(29)).await.unwrap(), 0);
    assert_eq!(house.registry.expire_events(minutes(61)).await.unwrap(), 2);
    assert_eq!(house.get("events", "old").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn outside_input_is_refused_in_words() {
    let house = House::new().await;
    let target = house.target("", "configmaps", "a");
    let check = |result: ApiResult<Stored>, code: u16, text: &str| {
        let error = result.unwrap_err();
        assert!(
            error.code() == code && error.message.contains(text),
            "{} {}",
            error.code(),
            error.message
        );
    };
    let create = |body: &'static [u8]| {
        house
            .registry
            .create(&CTX, &target, Body::Json(Bytes::from_static(body)))
    };
    static CTX: std::sync::LazyLock<Context> = std::sync::LazyLock::new(ctx);
    check(create(b"{").await, 400, "json parse error");
    check(create(b"").await, 400, "json parse error");
    check(create(b"[]").await, 400, "");
    check(
        create(br#"{"kind":"Pod","apiVersion":"v1"}"#).await,
        400,
        "Pod in version \"v1\" cannot be handled as a ConfigMap",
    );
    check(
        create(br#"{"kind":"ConfigMap","apiVersion":"v2"}"#).await,
        400,
        "does not match the expected API version (v1)",
    );
    check(
        create(br#"{"metadata":{}}"#).await,
        422,
        "name or generateName is required",
    );
    check(
        create(br#"{"metadata":{"name":"a","namespace":"other"}}"#).await,
        400,
        "does not match the namespace sent on the request",
    );
    check(
        create(br#"{"metadata":{"name":"a/b"}}"#).await,
        422,
        "metadata.name",
    );
    let big =
        json!({"metadata": {"name": "big"}, "revision": 1, "data": {"k": "x".repeat(2 << 20)}});
    let revisions = house.target("apps", "controllerrevisions", "");
    check(
        house
            .registry
            .create(&CTX, &revisions, Body::Value(big))
            .await,
        413,
        "at most",
    );
    check(
        house.registry.get(&CTX, &target, "x1").await,
        400,
        "invalid resource version",
    );
    let patch = |kind, text: &'static [u8]| {
        house
            .registry
            .patch(&CTX, &target, kind, Bytes::from_static(text))
    };
    assert_eq!(patch(PatchKind::Merge, b"{").await.unwrap_err().code(), 400);
    assert_eq!(
        patch(PatchKind::Merge, b"{}").await.unwrap_err().code(),
        404
    );
}
