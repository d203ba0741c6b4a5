//! The default plugins as a WebAssembly component beside the same plugins compiled natively: the same profile, snapshot and
//! pods, in process, without an API server. Rounds of both alternate; the least CPU time of a round counts.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oarlock_scheduler::{
    Enabled, FailurePolicy, Member, Outcome, PlacementEngine, PodInfo, Profile, Snapshot,
};
use oarlock_wasm::scheduler::NodeSet;
use oarlock_wasm::{Engine, EngineConfig, Limits, SchedulerPlugin, SystemEnv};
use serde_json::json;

use crate::native::NativeEngine;
use crate::report::{Report, Row};

const NODES: usize = 5_000;
/// Pods of a round whose shape nobody asked for before: the plugins look at every node.
const NEW_SHAPES: usize = 40;
/// Pods of a round that share a shape: the plugins look at the nodes that changed.
const ONE_SHAPE: usize = 4_000;
const CALLS: usize = 40;
const ROUNDS: usize = 7;
const AIM: f64 = 1.5;

/// CPU time of this thread, which other work on the machine does not change.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::new();
    for n in 0..NODES {
        let room = json!({"cpu": "16", "memory": "64Gi", "pods": "110"});
        let taints = if n % 10 == 0 {
            json!([{"key": "spot", "effect": "NoSchedule"}])
        } else {
            json!([])
        };
        snapshot.set_node(Arc::new(json!({
            "metadata": {"name": format!("node-{n}"), "labels": {
                "kubernetes.io/hostname": format!("node-{n}"), "topology.kubernetes.io/zone": format!("zone-{}", n % 3)}},
            "spec": {"taints": taints},
            "status": {"capacity": room, "allocatable": room,
                       "images": [{"names": ["app:1"], "sizeBytes": 50_000_000 * (n % 5)}]},
        })));
    }
    snapshot
}

/// Shape 0 is everybody's.
fn pod(n: usize, shape: usize) -> PodInfo {
    let cpu = format!("{}m", 100 + shape);
    PodInfo::new(Arc::new(json!({
        "metadata": {"uid": format!("{shape}-{n}"), "name": format!("p-{n}"), "namespace": "default"},
        "spec": {
            "containers": [{"image": "app:1", "resources": {"requests": {"cpu": cpu, "memory": "128Mi"}}}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
                {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-1"]}]}}]}},
        },
    })))
}

fn member(engine: Box<dyn PlacementEngine>) -> Result<Member> {
    let all = engine.plugins().iter().enumerate();
    let enabled = all.map(|(at, info)| Enabled {
        plugin: at as u32,
        filters: true,
        weight: Some(i64::from(info.default_weight)),
        enqueues: true,
        sorts: true,
        args: "{}".to_owned(),
    });
    let enabled = enabled.collect();
    Ok(Member::new(
        engine,
        "bench".into(),
        enabled,
        FailurePolicy::Fail,
    )?)
}

/// The plugins alone: one query filters and scores all nodes, `CALLS` times.
fn alone(engine: Box<dyn PlacementEngine>) -> Result<(Duration, Duration)> {
    let mut member = member(engine)?;
    member.sync(&snapshot())?;
    let (filtering, scoring) = (member.filtering(), member.scoring());
    let asked: Vec<u32> = (0..member.infos.len() as u32)
        .filter(|p| filtering.contains(p) || scoring.contains(p))
        .collect();
    let text = pod(0, 0).object.to_string();
    let Ok(opened) = member.engine.open(&text, &asked)? else {
        bail!("the pod was refused");
    };
    let all = NodeSet::Some((0..NODES as u32).collect());
    let (mut filter, mut score) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let before = cpu();
        for _ in 0..CALLS {
            black_box(member.engine.filter(&opened, &all)?);
        }
        let between = cpu();
        for _ in 0..CALLS {
            black_box(member.engine.score(&opened, &all)?);
        }
        filter = filter.min(between - before);
        score = score.min(cpu() - between);
    }
    Ok((filter, score))
}

struct Contestant {
    profile: Profile,
    snapshot: Snapshot,
    placed: usize,
    new_shapes: Duration,
    one_shape: Duration,
}

impl Contestant {
    fn new(engine: Box<dyn PlacementEngine>) -> Result<Self> {
        let mut made = Self {
            profile: Profile::new(
                "bench",
                "default-scheduler",
                "1".to_owned(),
                "bench".to_owned(),
                vec![member(engine)?],
            ),
            snapshot: snapshot(),
            placed: 0,
            new_shapes: Duration::MAX,
            one_shape: Duration::MAX,
        };
        // Fills the mirror.
        made.schedule(&pod(0, 0), false)?;
        Ok(made)
    }

    fn schedule(&mut self, pod: &PodInfo, assume: bool) -> Result<()> {
        let Outcome::Fits(slot) = self.profile.schedule(pod, &self.snapshot) else {
            bail!("a pod found no node");
        };
        if assume {
            self.snapshot
                .assume(&pod.uid, slot, &pod.usage, &pod.object);
        }
        black_box(slot);
        Ok(())
    }

    fn round(&mut self, round: usize) -> Result<()> {
        let new: Vec<_> = (0..NEW_SHAPES)
            .map(|n| pod(n, 1 + round * NEW_SHAPES + n))
            .collect();
        let before = cpu();
        for pod in &new {
            self.schedule(pod, false)?;
        }
        self.new_shapes = self.new_shapes.min(cpu() - before);
        let same: Vec<_> = (0..ONE_SHAPE).map(|n| pod(self.placed + n, 0)).collect();
        self.placed += ONE_SHAPE;
        let before = cpu();
        for pod in &same {
            self.schedule(pod, true)?;
        }
        self.one_shape = self.one_shape.min(cpu() - before);
        ensure!(self.profile.traps() == 0, "a guest trapped");
        Ok(())
    }
}

fn row(work: &str, count: usize, wasm: Duration, native: Duration) -> Row {
    let each = |d: Duration| d.as_secs_f64() * 1e6 / count as f64;
    Row {
        work: format!("{work}, {NODES} nodes"),
        result: format!("WASM {:.1} us, native {:.1} us", each(wasm), each(native)),
        note: format!(
            "{:.2} times native; aim {AIM}",
            wasm.as_secs_f64() / native.as_secs_f64()
        ),
        ..Row::default()
    }
}

pub fn run(report: &mut Report) -> Result<()> {
    let engine = Engine::new(EngineConfig::default())?;
    let guest = oarlock_guests::get("default-scheduler").context("the guest is not embedded")?;
    let loaded = engine.load(guest.name, guest.bytes)?;
    let instance = SchedulerPlugin::instantiate(&loaded, &Limits::default(), Arc::new(SystemEnv))?;
    let native = alone(Box::new(NativeEngine::new()))?;
    let wasm = alone(Box::new(instance.respawn()?))?;
    report.add(row("default filters alone", CALLS, wasm.0, native.0));
    report.add(row("default scores alone", CALLS, wasm.1, native.1));
    let mut wasm = Contestant::new(Box::new(instance))?;
    let mut native = Contestant::new(Box::new(NativeEngine::new()))?;
    for round in 0..ROUNDS {
        native.round(round)?;
        wasm.round(round)?;
    }
    report.add(row(
        "place a pod of a new shape",
        NEW_SHAPES,
        wasm.new_shapes,
        native.new_shapes,
    ));
    report.add(row(
        "place a pod of a known shape",
        ONE_SHAPE,
        wasm.one_shape,
        native.one_shape,
    ));
    Ok(())
}
