//! Real components against the host: what works, and what every kind of misbehaviour becomes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oarlock_guests::{get, hostile};
use oarlock_wasm::scheduler::{Change, Node, NodeSet, Opened};
use oarlock_wasm::{
    Engine, EngineConfig, Error, ExtensionPoint, FixedEnv, Limits, Loaded, SchedulerInstance,
    SchedulerPlugin,
};

const POD: &str = r#"{"metadata":{"name":"p","annotations":{"oarlock.dev/pool":"a"}},"spec":{}}"#;

fn engine() -> Engine {
    Engine::new(EngineConfig::default()).expect("an engine")
}

fn load(engine: &Engine, name: &str) -> Loaded {
    let guest = get(name)
        .or_else(|| hostile(name))
        .unwrap_or_else(|| panic!("no guest {name}"));
    engine.load(name, guest.bytes).expect("loads")
}

fn limits() -> Limits {
    Limits {
        memory_mib: 16,
        deadline_ms: 200,
        answer_bytes: 8 << 20,
        ..Limits::default()
    }
}

fn misbehaving(engine: &Engine, how: &str) -> SchedulerInstance {
    let loaded = load(engine, "misbehaving-scheduler");
    let mut made =
        SchedulerPlugin::instantiate(&loaded, &limits(), Arc::new(FixedEnv::new(1234, 1)))
            .expect("instantiates");
    made.configure(0, &format!("{how:?}"))
        .expect("configures")
        .expect("accepts");
    made
}

fn nodes(count: u32, annotation: impl Fn(u32) -> String) -> Vec<Change> {
    let node = |id| {
        let name = format!("n{id}");
        let object = format!(
            r#"{{"metadata":{{"name":"{name}","annotations":{}}}}}"#,
            annotation(id)
        );
        Change::NodeSet(Node { id, name, object })
    };
    (0..count).map(node).collect()
}

fn opened(instance: &mut SchedulerInstance) -> Opened {
    instance
        .open(POD, &[0])
        .expect("opens")
        .expect("is not refused")
}

#[test]
fn a_filter_and_a_score_of_one_pod_and_one_node_work_as_components() {
    let engine = engine();
    let env = Arc::new(FixedEnv::default());
    let loaded = load(&engine, "node-annotation");
    assert!(!loaded.imports_wasi());
    assert_eq!(
        loaded.points(),
        [ExtensionPoint::Snapshot, ExtensionPoint::Placement]
    );
    let mut filter = SchedulerPlugin::instantiate(&loaded, &Limits::default(), env.clone())
        .expect("instantiates");
    assert!(
        filter
            .configure(0, r#"{"pool":1}"#)
            .expect("answers")
            .is_err()
    );
    filter
        .configure(0, "{}")
        .expect("answers")
        .expect("accepts");
    assert_eq!(filter.interests().expect("answers").len(), 2);
    let pools = |id: u32| {
        format!(
            r#"{{"oarlock.dev/pool":"{}"}}"#,
            if id.is_multiple_of(2) { "a" } else { "b" }
        )
    };
    filter.apply(&nodes(600, pools)).expect("mirrors");
    filter.apply(&[Change::NodeGone(4)]).expect("mirrors");
    let query = opened(&mut filter);
    let codes = filter.filter(&query, &NodeSet::All).expect("filters");
    assert_eq!(codes.len(), 600);
    assert_eq!((codes[0], codes[2], codes[4]), (0, 0, u32::MAX));
    let verdict = filter.why(query.query, codes[1]).expect("explains");
    assert_eq!(
        verdict.reasons,
        ["node(s) didn't match the pod's annotation oarlock.dev/pool"]
    );
    assert!(verdict.unresolvable);
    assert_eq!(filter.explain(query.query, 1).expect("explains"), [verdict]);
    assert_eq!(
        filter
            .filter(&query, &NodeSet::Some(vec![3, 2]))
            .expect("filters"),
        [codes[3], 0]
    );
    filter.close(query.query).expect("closes");

    let loaded = load(&engine, "cost-aware");
    let mut score =
        SchedulerPlugin::instantiate(&loaded, &Limits::default(), env).expect("instantiates");
    score.configure(0, "{}").expect("answers").expect("accepts");
    score.interests().expect("answers");
    score
        .apply(&nodes(3, |id| {
            format!(r#"{{"oarlock.dev/hourly-price":"{id}.5"}}"#)
        }))
        .expect("mirrors");
    let query = opened(&mut score);
    assert_eq!(
        score.score(&query, &NodeSet::All).expect("scores"),
        [500, 1500, 2500]
    );
    let cost = loaded.meter().read();
    assert!(
        cost.calls >= 6 && cost.guest_ns > 0 && cost.memory_bytes > 0 && cost.traps == 0,
        "{cost:?}"
    );
}

#[test]
fn misbehaviour_is_an_error_value_and_the_host_goes_on() {
    let engine = engine();
    let check = |how: &str, expect: &str, message: &str| {
        let mut instance = misbehaving(&engine, how);
        #[expect(clippy::disallowed_methods, reason = "a test of deadlines")]
        let begun = Instant::now();
        let end = run(&mut instance);
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{how} took {:?}",
            begun.elapsed()
        );
        let error = end.expect_err(how);
        assert_eq!(error.kind(), expect, "{how}: {error}");
        assert!(error.to_string().contains(message), "{how}: {error}");
        assert!(instance.is_dead());
        assert!(
            matches!(run(&mut instance), Err(Error::Dead { .. })),
            "{how}: a dead instance was entered"
        );
        // The replacement works.
        let mut again = instance.respawn().expect("respawns");
        run(&mut again).expect("a fresh instance is not told to misbehave");
    };
    check("filter=spin", "Deadline", "longer than 200 ms in filter");
    check("open=spin", "Deadline", "in open");
    check("filter=panic", "Trap", "told to panic in filter");
    check("apply=panic", "Trap", "told to panic in apply");
    check("score=overflow", "Trap", "index out of bounds");
    check("filter=allocate", "Memory", "16 MiB");
    // Rust keeps big frames in linear memory, whose stack ends at address 0.
    check("filter=recurse", "Trap", "out of bounds");
    check("filter=short", "LyingAnswer", "9 verdicts on 10 nodes");
    check("filter=long", "LyingAnswer", "11 verdicts on 10 nodes");
    check("filter=stranger", "LyingAnswer", "names no plugin");
    check("filter=garbage", "LyingAnswer", "names no plugin");
    check("score=short", "LyingAnswer", "0 scores where 10");
    check("open=stranger", "LyingAnswer", "plugin 7 was not asked");
    check("open=zero", "LyingAnswer", "never 0");
    check(
        "why=stranger,filter=refuse",
        "LyingAnswer",
        "there is no plugin 3",
    );
}

fn run(instance: &mut SchedulerInstance) -> Result<(), Error> {
    instance.interests()?;
    instance.apply(&nodes(10, |_| "{}".to_owned()))?;
    let query = instance.open(POD, &[0])?.expect("is not refused");
    let codes = instance.filter(&query, &NodeSet::All)?;
    if codes[0] != 0 {
        instance.why(query.query, codes[0])?;
    }
    instance.score(&query, &NodeSet::All)?;
    instance.close(query.query)
}

#[test]
fn a_trap_tells_where_it_was() {
    let engine = engine();
    let mut instance = misbehaving(&engine, "filter=panic");
    let error = run(&mut instance).expect_err("it panics");
    let Error::Trap {
        panic: Some(panic),
        backtrace,
        call: "filter",
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(
        panic.contains("misbehaving-scheduler/src/lib.rs"),
        "{panic}"
    );
    assert!(
        backtrace.iter().any(|frame| frame.contains("filter")),
        "{backtrace:?}"
    );
}

#[test]
fn an_answer_that_is_too_big_to_copy_is_refused() {
    let engine = engine();
    let loaded = load(&engine, "misbehaving-scheduler");
    let limits = Limits {
        memory_mib: 512,
        deadline_ms: 10_000,
        ..limits()
    };
    let mut instance =
        SchedulerPlugin::instantiate(&loaded, &limits, Arc::new(FixedEnv::default()))
            .expect("instance");
    instance
        .configure(0, r#""filter=huge""#)
        .expect("answers")
        .expect("accepts");
    let error = run(&mut instance).expect_err("is refused");
    assert!(
        matches!(error, Error::Trap { call: "filter", .. }),
        "{error:?}"
    );
}

#[test]
fn a_flood_of_log_lines_is_dropped_and_counted() {
    let engine = engine();
    let mut instance = misbehaving(&engine, "filter=flood");
    run(&mut instance).expect("logging is no crime");
    assert!(instance.loaded().meter().read().log_lines_dropped > 9_000);
}

#[test]
fn clock_and_chance_are_the_environments() {
    let engine = engine();
    let mut instance = misbehaving(&engine, "filter=clock");
    instance
        .apply(&nodes(1, |_| "{}".to_owned()))
        .expect("mirrors");
    let query = opened(&mut instance);
    assert_eq!(
        instance.filter(&query, &NodeSet::All).expect("filters"),
        [1 << 24 | 1234]
    );
    let draw = || {
        let mut instance = misbehaving(&engine, "filter=random");
        instance
            .apply(&nodes(1, |_| "{}".to_owned()))
            .expect("mirrors");
        let query = opened(&mut instance);
        let mut codes = instance.filter(&query, &NodeSet::All).expect("filters");
        codes.extend(instance.filter(&query, &NodeSet::All).expect("filters"));
        codes
    };
    let first = draw();
    assert_ne!(first[0], first[1]);
    assert_eq!(first, draw());
}

#[test]
fn what_is_no_plugin_is_refused() {
    let engine = engine();
    let refused = |bytes: &[u8]| engine.load("x", bytes).expect_err("is refused");
    assert!(
        matches!(refused(b"\0asm\x01\0\0\0"), Error::Load { .. }),
        "a module"
    );
    assert!(
        matches!(refused(b"#!/bin/sh"), Error::Load { .. }),
        "a script"
    );
    let component = get("cost-aware").expect("there").bytes;
    assert!(
        matches!(
            refused(&component[..component.len() / 2]),
            Error::Load { .. }
        ),
        "half a component"
    );
    assert!(matches!(
        refused(&importing("oarlock:host/files@0.1.0")),
        Error::UnknownInterface { .. }
    ));
    assert!(matches!(
        refused(&exporting("oarlock:scheduler/preemption@0.1.0")),
        Error::UnknownInterface { .. }
    ));
    assert!(
        matches!(refused(&importing("acme:gpu/alloc")), Error::Load { .. }),
        "an import that nobody offers"
    );
    let empty = engine
        .load("empty", COMPONENT)
        .expect("an empty component is one");
    let made = SchedulerPlugin::instantiate(&empty, &limits(), Arc::new(FixedEnv::default()));
    assert!(matches!(made, Err(Error::MissingExport { .. })));
}

/// The empty component, by hand (the component model's Binary.md).
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id, u8::try_from(content.len()).expect("short")];
    bytes.extend(content);
    bytes
}

fn name(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, u8::try_from(name.len()).expect("short")];
    bytes.extend(name.as_bytes());
    bytes
}

/// A component that imports an instance of this name with a function `take`.
fn importing(interface: &str) -> Vec<u8> {
    let types = section(
        7,
        b"\x01\x42\x02\x01\x40\x00\x01\x00\x04\x00\x04take\x01\x00",
    );
    let imports = section(10, &[&[1], &name(interface)[..], &[5, 0]].concat());
    [COMPONENT, &types, &imports].concat()
}

/// A component that exports an empty instance of this name.
fn exporting(interface: &str) -> Vec<u8> {
    let instances = section(5, &[1, 1, 0]);
    let exports = section(11, &[&[1], &name(interface)[..], &[5, 0, 0]].concat());
    [COMPONENT, &instances, &exports].concat()
}

#[test]
fn compiled_code_is_kept_and_damage_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("code");
    let open = || {
        Engine::new(EngineConfig {
            cache_dir: Some(cache.clone()),
            ..EngineConfig::default()
        })
        .expect("an engine")
    };
    let files = || -> Vec<_> {
        std::fs::read_dir(&cache)
            .expect("listed")
            .map(|entry| entry.expect("entry").path())
            .collect()
    };
    load(&open(), "cost-aware");
    assert_eq!(files().len(), 1);
    let file = &files()[0];
    let good = std::fs::read(file).expect("read");
    load(&open(), "cost-aware");
    assert_eq!(std::fs::read(file).expect("read"), good);
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    for damage in [&bad[..], &good[..10], b""] {
        std::fs::write(file, damage).expect("written");
        let loaded = load(&open(), "cost-aware");
        SchedulerPlugin::instantiate(&loaded, &limits(), Arc::new(FixedEnv::default()))
            .expect("instantiates");
        assert_eq!(
            std::fs::read(file).expect("read"),
            good,
            "the entry was written anew"
        );
    }
}

#[test]
fn the_default_plugins_queue_and_place() {
    let loaded = load(&engine(), "default-scheduler");
    assert!(loaded.has(ExtensionPoint::Queue) && !loaded.imports_wasi());
    let mut instance =
        SchedulerPlugin::instantiate(&loaded, &Limits::default(), Arc::new(FixedEnv::default()))
            .expect("instantiates");
    assert!(instance.plugins().len() >= 10);
    assert_eq!(instance.pre_enqueue(POD, &[]).expect("answers"), None);
}
