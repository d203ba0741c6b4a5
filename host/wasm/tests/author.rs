//! An author's way: a new plugin from the template, outside the repository, to a component that the host runs.

use std::path::Path;
use std::sync::Arc;

use oarlock_wasm::author::{build_plugin, default_sdk, new_plugin};
use oarlock_wasm::scheduler::{Change, Node, NodeSet, Usage};
use oarlock_wasm::{Engine, EngineConfig, FixedEnv, Limits, SchedulerPlugin};

#[test]
fn a_new_plugin_builds_and_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = new_plugin("few-pods", dir.path(), &default_sdk()).expect("made");
    // Compiled dependencies are kept between runs.
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("author");
    let built = build_plugin(&folder, Some(&target_dir), |_| {}).expect("builds");
    assert!(
        built.inspection.is_scheduler() && !built.inspection.is_controller(),
        "{}",
        built.inspection
    );
    assert_eq!(built.inspection.refused, None);
    assert!(
        built
            .inspection
            .imports
            .iter()
            .all(|import| import.name.starts_with("oarlock:")),
        "{}",
        built.inspection
    );

    let engine = Engine::new(EngineConfig::default()).expect("an engine");
    let bytes = std::fs::read(&built.path).expect("read");
    let loaded = engine.load("few-pods", &bytes).expect("loads");
    assert_eq!(loaded.digest(), built.inspection.digest);
    let mut instance =
        SchedulerPlugin::instantiate(&loaded, &Limits::default(), Arc::new(FixedEnv::default()))
            .expect("instantiates");
    assert_eq!(instance.plugins()[0].name, "FewPods");
    instance
        .configure(0, r#"{"maxPods":2}"#)
        .expect("answers")
        .expect("accepts");
    instance.interests().expect("answers");
    let node = |id: u32| {
        Change::NodeSet(Node {
            id,
            name: format!("n{id}"),
            object: "{}".to_owned(),
        })
    };
    let usage = |id: u32, pods: u32| {
        Change::UsageSet(Usage {
            id,
            pods,
            cpu_milli: 0,
            memory: 0,
            ephemeral_storage: 0,
            nonzero_cpu_milli: 0,
            nonzero_memory: 0,
            others: vec![],
            ports: vec![],
        })
    };
    instance
        .apply(&[node(0), node(1), usage(0, 1), usage(1, 2)])
        .expect("mirrors");
    let query = instance
        .open("{}", &[0])
        .expect("opens")
        .expect("is not refused");
    let codes = instance.filter(&query, &NodeSet::All).expect("filters");
    assert_eq!(codes[0], 0);
    assert_eq!(
        instance
            .why(query.query, codes[1])
            .expect("explains")
            .reasons,
        ["node(s) had 2 pods already"]
    );
    assert_eq!(
        instance
            .score(&query, &NodeSet::Some(vec![0]))
            .expect("scores"),
        [1]
    );
}
