//! What guests cost here: `cargo run --release -p oarlock-wasm --example measure`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oarlock_wasm::scheduler::{Change, Node, NodeSet, Usage};
use oarlock_wasm::{Engine, EngineConfig, Limits, SchedulerPlugin, SystemEnv};

const NODES: u32 = 5_000;
const ROUNDS: u32 = 200;

#[expect(clippy::disallowed_methods, reason = "a benchmark")]
fn timed<R>(what: &str, rounds: u32, mut work: impl FnMut() -> R) -> R {
    let mut best = Duration::MAX;
    let mut last = None;
    for _ in 0..rounds {
        let begun = Instant::now();
        last = Some(work());
        best = best.min(begun.elapsed());
    }
    println!(
        "{what:<58} {:>10.2} microseconds",
        best.as_nanos() as f64 / 1000.0
    );
    last.expect("at least one round")
}

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = || EngineConfig {
        cache_dir: Some(dir.path().to_owned()),
        ..EngineConfig::default()
    };
    let engine = timed("start an engine", 1, || {
        Engine::new(config()).expect("an engine")
    });
    let guests: Vec<_> = oarlock_guests::ALL
        .iter()
        .copied()
        .flatten()
        .map(|guest| (guest.name, guest.bytes))
        .collect();
    timed(&format!("compile all {} guests", guests.len()), 1, || {
        engine.load_all(&guests)
    });
    timed("load them precompiled", 5, || engine.load_all(&guests));
    let bundle = oarlock_guests::get("default-scheduler").expect("the default plugins");
    let loaded = engine.load(bundle.name, bundle.bytes).expect("loads");
    let make = || {
        SchedulerPlugin::instantiate(&loaded, &Limits::default(), Arc::new(SystemEnv))
            .expect("instantiates")
    };
    let mut plugin = timed("instantiate the default plugins", 20, make);
    let all: Vec<u32> = (0..plugin.plugins().len() as u32).collect();
    for &index in &all {
        plugin
            .configure(index, "{}")
            .expect("answers")
            .expect("accepts");
    }
    plugin.interests().expect("answers");
    let nodes: Vec<_> = (0..NODES).map(node).collect();
    timed(&format!("mirror {NODES} nodes"), 1, || {
        plugin.apply(&nodes).expect("mirrors");
    });
    let pod = r#"{"metadata":{"name":"p","namespace":"default","labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"nginx","resources":{"requests":{"cpu":"100m","memory":"128Mi"}}}]}}"#;
    let opened = plugin
        .open(pod, &all)
        .expect("opens")
        .expect("is not refused");
    timed(
        "one call that does nothing (close of an unknown query)",
        ROUNDS,
        || plugin.close(u32::MAX).expect("closes"),
    );
    timed("usage of one node", ROUNDS, || {
        plugin.apply(&[usage(7)]).expect("mirrors");
    });
    timed("filter one node", ROUNDS, || {
        plugin
            .filter(&opened, &NodeSet::Some(vec![7]))
            .expect("filters")
    });
    timed("score one node", ROUNDS, || {
        plugin
            .score(&opened, &NodeSet::Some(vec![7]))
            .expect("scores")
    });
    timed(&format!("filter {NODES} nodes"), ROUNDS, || {
        plugin.filter(&opened, &NodeSet::All).expect("filters")
    });
    timed(
        &format!("score {NODES} nodes by {} plugins", opened.scores.len()),
        ROUNDS,
        || plugin.score(&opened, &NodeSet::All).expect("scores"),
    );
    timed("open and close", ROUNDS, || {
        let opened = plugin
            .open(pod, &all)
            .expect("opens")
            .expect("is not refused");
        plugin.close(opened.query).expect("closes");
    });
    println!("{:?}", loaded.meter().read());
}

fn usage(id: u32) -> Change {
    Change::UsageSet(Usage {
        id,
        pods: 3,
        cpu_milli: 300,
        memory: 1 << 30,
        ephemeral_storage: 0,
        nonzero_cpu_milli: 300,
        nonzero_memory: 1 << 30,
        others: vec![],
        ports: vec![],
    })
}

fn node(id: u32) -> Change {
    let name = format!("node-{id:05}");
    let object = format!(
        r#"{{"metadata":{{"name":"{name}","labels":{{"kubernetes.io/hostname":"{name}","kubernetes.io/arch":"amd64","topology.kubernetes.io/zone":"z{}"}}}},"spec":{{}},"status":{{"allocatable":{{"cpu":"32","memory":"256Gi","pods":"110","ephemeral-storage":"100Gi"}}}}}}"#,
        id % 3
    );
    Change::NodeSet(Node { id, name, object })
}
