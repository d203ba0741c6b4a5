//! `/metrics` of a real server: well-formed, upstream's names, and not for strangers to grow.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Client, TestServer};

async fn read(client: &mut Client) -> String {
    let (status, headers, body) = client.call(Method::GET, "/metrics", &[], "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn every_sample_has_a_head_and_strangers_make_no_series() {
    let server = TestServer::start().await;
    let mut admin = server.admin(true).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "m"}});
    assert_eq!(admin.create(maps, &map).await.0, StatusCode::CREATED);
    let twice = admin.create(&format!("{maps}?dryRun=All"), &map).await.0;
    assert_eq!(twice, StatusCode::CONFLICT);
    admin.get(&format!("{maps}?watch=1&timeoutSeconds=1")).await;
    let text = read(&mut admin).await;

    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut told = BTreeSet::new();
    let mut samples = BTreeSet::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').unwrap();
            assert!(told.insert(name), "{name} is told twice");
            assert!(!help.is_empty());
        } else if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            assert!(told.contains(name), "{name} has no HELP");
            assert!(types.insert(name, kind).is_none(), "{name} has two types");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(series), "{series} is there twice");
            let name = series.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|family| types.get(family) == Some(&"histogram"))
                .unwrap_or(name);
            assert!(types.contains_key(family), "{line} has no TYPE");
        }
    }
    for start in [
        r#"apiserver_request_total{code="201",verb="POST",group="",version="v1",resource="configmaps",subresource="",scope="namespace",component="apiserver",dry_run=""} 1"#,
        r#"apiserver_request_total{code="409",verb="POST",group="",version="v1",resource="configmaps",subresource="",scope="namespace",component="apiserver",dry_run="All"} 1"#,
        "apiserver_request_duration_seconds_bucket{",
        r#"apiserver_request_sli_duration_seconds_count{verb="POST",group="",version="v1",resource="configmaps",subresource="",scope="namespace",component="apiserver"} 2"#,
        r#"apiserver_current_inflight_requests{request_kind="readOnly"} 0"#,
        r#"apiserver_longrunning_requests{verb="WATCH",group="",version="v1",resource="configmaps""#,
        r#"apiserver_watch_events_total{group="",version="v1",resource="configmaps"} 1"#,
        r#"apiserver_admission_controller_admission_duration_seconds_count{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="#,
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=",
        "apiserver_flowcontrol_request_wait_duration_seconds_bucket{execute=",
        r#"apiserver_storage_objects{resource="configmaps"} "#,
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(start)),
            "{start}\n{text}"
        );
    }

    for n in 0..50 {
        admin
            .get(&format!("/apis/g{n}.example.com/v1/things/t{n}"))
            .await;
        admin.get(&format!("/api/v1/nonsense{n}")).await;
        admin.get(&format!("/nowhere/{n}")).await;
    }
    let series = |text: &str| {
        text.lines()
            .filter(|l| l.starts_with("apiserver_request_total{"))
            .count()
    };
    let more = series(&read(&mut admin).await) - series(&text);
    assert!(more <= 6, "{more} series more");
}
