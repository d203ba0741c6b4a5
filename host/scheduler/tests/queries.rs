//! Kept answers against fresh ones, and cycles that survive their guests' failures. With the native engine.
#![expect(clippy::unwrap_used, reason = "a test may fail here")]

mod native;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use native::NativeEngine;
use oarlock_scheduler::{
    Action, Candidate, Core, Enabled, FailurePolicy, Input, Member, Outcome, PlacementEngine,
    PodInfo, PodUsage, Profile, Query, Snapshot,
};
use oarlock_wasm::Error;
use oarlock_wasm::scheduler::{Change, Interest, NodeSet, Opened, PluginInfo, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

fn enabled(engine: &dyn PlacementEngine) -> Vec<Enabled> {
    let one = |(at, info): (usize, &PluginInfo)| Enabled {
        plugin: at as u32,
        filters: true,
        weight: Some(i64::from(info.default_weight)),
        enqueues: true,
        sorts: true,
        args: "{}".to_owned(),
    };
    engine.plugins().iter().enumerate().map(one).collect()
}

fn profile(engine: Box<dyn PlacementEngine>, policy: FailurePolicy) -> Profile {
    let enabled = enabled(engine.as_ref());
    let member = Member::new(engine, "native".into(), enabled, policy).unwrap();
    Profile::new(
        "p",
        "default-scheduler",
        "1".to_owned(),
        "native".to_owned(),
        vec![member],
    )
}

fn node(n: usize, cpu: u32, variant: u32) -> Arc<Value> {
    let taints = match variant % 4 {
        1 => json!([{"key": "a", "effect": "NoSchedule"}]),
        2 => json!([{"key": "b", "effect": "PreferNoSchedule"}]),
        3 => {
            json!([{"key": "b", "effect": "PreferNoSchedule"}, {"key": "c", "effect": "PreferNoSchedule"}])
        }
        _ => json!([]),
    };
    Arc::new(json!({
        "metadata": {"name": format!("n{n}"), "labels": {"zone": format!("z{}", variant % 3)}},
        "spec": {"taints": taints, "unschedulable": variant % 7 == 6},
        "status": {"allocatable": {"cpu": cpu.to_string(), "memory": "8Gi", "pods": "5"},
                   "images": [{"names": [format!("i{}:1", variant % 2)], "sizeBytes": 300_000_000u64 * u64::from(variant % 3)}]},
    }))
}

fn pod(uid: &str, kind: u32) -> PodInfo {
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 3, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1"]}]}}]}});
    let spec = match kind % 4 {
        0 => json!({"containers": [{"image": "i0:1", "resources": {"requests": {"cpu": "1"}}}]}),
        1 => {
            json!({"containers": [{"image": "i1:1", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}], "affinity": affinity})
        }
        2 => {
            json!({"containers": [{"image": "x", "ports": [{"hostPort": 80}]}], "tolerations": [{"operator": "Exists"}]})
        }
        _ => json!({"containers": [{"image": "x"}], "nodeSelector": {"zone": "z2"}}),
    };
    PodInfo::new(Arc::new(
        json!({"metadata": {"uid": uid, "name": uid, "namespace": "d"}, "spec": spec}),
    ))
}

#[derive(Clone, Debug)]
enum Step {
    Node(usize, u32, u32),
    NodeGone(usize),
    Place(u32, u32),
    Gone(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..12, 1u32..5, 0u32..30).prop_map(|(n, cpu, v)| Step::Node(n, cpu, v)),
        1 => (0usize..12).prop_map(Step::NodeGone),
        6 => (0u32..40, 0u32..4).prop_map(|(p, kind)| Step::Place(p, kind)),
        3 => (0u32..40).prop_map(Step::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn kept_answers_are_fresh_ones(steps in prop::collection::vec((step(), 0u32..4), 1..60)) {
        let mut snapshot = Snapshot::new();
        let mut kept = profile(Box::new(NativeEngine::new()), FailurePolicy::Fail);
        for (step, kind) in steps {
            match step {
                Step::Node(n, cpu, variant) => { snapshot.set_node(node(n, cpu, variant)); }
                Step::NodeGone(n) => snapshot.remove_node(&format!("n{n}")),
                Step::Place(p, kind) => {
                    let pod = pod(&format!("u{p}"), kind);
                    if let Outcome::Fits(slot) = kept.schedule(&pod, &snapshot) {
                        snapshot.assume(&pod.uid, slot, &pod.usage, &pod.object);
                    }
                }
                Step::Gone(p) => { snapshot.remove_pod(&format!("u{p}")); }
            }
            let pod = pod("asked", kind);
            kept.schedule(&pod, &snapshot);
            let mut members = profile(Box::new(NativeEngine::new()), FailurePolicy::Fail).members;
            members[0].sync(&snapshot).unwrap();
            let mut fresh = Query::open(&pod.object.to_string(), &mut members, None).unwrap();
            fresh.refresh(&mut members, &snapshot).unwrap();
            let query = kept.query(&pod.shape).unwrap();
            // Image sizes are what the first node said, which a mirror that came later cannot know: they are alike here
            // only for nodes that agree, so scores are compared without that plugin.
            for slot in 0..snapshot.slots() {
                prop_assert_eq!(query.total(slot).is_some(), fresh.total(slot).is_some(), "slot {}", slot);
                if fresh.total(slot).is_some() {
                    let without = |scores: Vec<(String, i64)>| scores.into_iter().filter(|s| s.0 != "ImageLocality").collect::<Vec<_>>();
                    prop_assert_eq!(without(query.scores_of(slot, &kept.members)), without(fresh.scores_of(slot, &members)));
                }
            }
            let best = (0..snapshot.slots()).filter_map(|slot| query.total(slot)).max();
            prop_assert_eq!(query.best_total(), best);
        }
    }
}

/// Fails at every `every`-th filter call, counted over all respawns.
struct Failing {
    inner: NativeEngine,
    calls: Arc<AtomicU32>,
    every: u32,
}

impl PlacementEngine for Failing {
    fn plugins(&self) -> &[PluginInfo] {
        self.inner.plugins()
    }
    fn configure(&mut self, plugin: u32, args: &str) -> Result<Result<(), String>, Error> {
        self.inner.configure(plugin, args)
    }
    fn interests(&mut self) -> Result<Vec<Interest>, Error> {
        self.inner.interests()
    }
    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.inner.apply(changes)
    }
    fn open(&mut self, pod: &str, plugins: &[u32]) -> Result<Result<Opened, Verdict>, Error> {
        self.inner.open(pod, plugins)
    }
    fn filter(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<u32>, Error> {
        if (self.calls.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.every) {
            return Err(Error::Dead {
                plugin: "failing".to_owned(),
            });
        }
        self.inner.filter(opened, nodes)
    }
    fn score(&mut self, opened: &Opened, nodes: &NodeSet) -> Result<Vec<i64>, Error> {
        self.inner.score(opened, nodes)
    }
    fn why(&mut self, query: u32, code: u32) -> Result<Verdict, Error> {
        self.inner.why(query, code)
    }
    fn explain(&mut self, query: u32, node: u32) -> Result<Vec<Verdict>, Error> {
        self.inner.explain(query, node)
    }
    fn close(&mut self, query: u32) -> Result<(), Error> {
        self.inner.close(query)
    }
    fn has_queue(&self) -> bool {
        true
    }
    fn pre_enqueue(&mut self, pod: &str, plugins: &[u32]) -> Result<Option<Verdict>, Error> {
        self.inner.pre_enqueue(pod, plugins)
    }
    fn sort_key(&mut self, pod: &str, plugin: u32, queued_at_ms: u64) -> Result<(i64, u64), Error> {
        self.inner.sort_key(pod, plugin, queued_at_ms)
    }
    fn respawn(&self) -> Result<Box<dyn PlacementEngine>, Error> {
        let (calls, every) = (Arc::clone(&self.calls), self.every);
        Ok(Box::new(Self {
            inner: NativeEngine::new(),
            calls,
            every,
        }))
    }
}

fn failing(every: u32) -> Box<Failing> {
    Box::new(Failing {
        inner: NativeEngine::new(),
        calls: Arc::default(),
        every,
    })
}

#[test]
fn a_failure_rejects_one_pod_and_the_mirror_is_filled_again() {
    let mut snapshot = Snapshot::new();
    (0..8).for_each(|n| {
        snapshot.set_node(node(n, 4, 0));
    });
    let mut profile = profile(failing(3), FailurePolicy::Fail);
    let outcomes: Vec<bool> = (0..9)
        .map(|n| {
            let pod = pod(&format!("u{n}"), 0);
            let Outcome::Fits(slot) = profile.schedule(&pod, &snapshot) else {
                return false;
            };
            snapshot.assume(&pod.uid, slot, &pod.usage, &pod.object);
            true
        })
        .collect();
    assert_eq!(
        outcomes,
        [true, true, false, true, true, false, true, true, false]
    );
    assert_eq!(profile.traps(), 3);
}

fn candidate(profile: Profile) -> Input {
    Input::Candidate(Box::new(Candidate {
        profile,
        rounds: 0,
        compile_ms: 0,
        began_ms: 0,
    }))
}

/// Does what the edges do, at once; gives the other actions.
fn settle(core: &mut Core, bind: bool) -> Vec<Action> {
    let mut others = Vec::new();
    loop {
        core.run(0, 1_000);
        let actions = core.take_actions();
        if actions.is_empty() {
            return others;
        }
        for action in actions {
            match action {
                Action::Warm(mut candidate, changes) => {
                    let result = oarlock_scheduler::apply(&mut candidate.profile, &changes);
                    core.handle(Input::Warmed(candidate, result), 0);
                }
                Action::Bind { pod, .. } if bind => {
                    core.handle(Input::Bound(Arc::clone(&pod.uid), Ok(())), 0);
                }
                other => others.push(other),
            }
        }
    }
}

#[test]
fn a_version_that_fails_too_often_is_rolled_back() {
    let mut core = Core::new();
    core.handle(Input::Synced, 0);
    (0..100).for_each(|n| core.handle(Input::Node(node(n, 4, 0)), 0));
    core.handle(
        candidate(profile(Box::new(NativeEngine::new()), FailurePolicy::Fail)),
        0,
    );
    settle(&mut core, true);
    let mut bad = profile(failing(2), FailurePolicy::Fail);
    bad.component = "bad".to_owned();
    core.handle(candidate(bad), 0);
    settle(&mut core, true);
    (0..40).for_each(|n| core.handle(Input::Pod(Arc::new(pod(&format!("u{n}"), 0))), 0));
    let actions = settle(&mut core, true);
    let rolled = actions
        .iter()
        .filter(|a| matches!(a, Action::RolledBack { to: Some(to), .. } if to == "native"))
        .count();
    assert_eq!(rolled, 1);
    assert_eq!(core.profile("p").unwrap().component, "native");
    core.run(20_000, 1_000);
    let rejected = actions
        .iter()
        .filter(|a| matches!(a, Action::NotScheduled { .. }))
        .count();
    assert_eq!(rejected, 4, "as many as may fail, and one");
}

#[test]
fn bindings_that_fail_free_the_node_and_are_tried_again() {
    let mut core = Core::new();
    core.handle(Input::Synced, 0);
    core.handle(Input::Node(node(0, 1, 0)), 0);
    core.handle(
        candidate(profile(Box::new(NativeEngine::new()), FailurePolicy::Fail)),
        0,
    );
    core.handle(Input::Pod(Arc::new(pod("a", 0))), 0);
    core.handle(Input::Pod(Arc::new(pod("b", 0))), 1);
    let actions = settle(&mut core, false);
    let bound: Vec<_> = actions
        .iter()
        .filter_map(|a| {
            if let Action::Bind { pod, .. } = a {
                Some(pod.uid.to_string())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(bound, ["a"]);
    let message = actions.iter().find_map(|a| {
        if let Action::NotScheduled { message, .. } = a {
            Some(message.as_str())
        } else {
            None
        }
    });
    assert_eq!(
        message,
        Some("0/1 nodes are available: 1 Insufficient cpu.")
    );
    let conflict = oarlock_model::ApiError::conflict("", "pods", "a", "no");
    core.handle(Input::Bound("a".into(), Err(conflict)), 10);
    core.run(1_500, 10);
    let tried: Vec<_> = core
        .take_actions()
        .into_iter()
        .filter_map(|a| {
            if let Action::Bind { pod, .. } = a {
                Some(pod.uid.to_string())
            } else {
                None
            }
        })
        .collect();
    assert_eq!(tried.len(), 1, "one of them fits: {tried:?}");
}

/// Not a benchmark (this is a debug build of the host): it shows that a cycle does not grow with the cluster.
#[test]
fn a_cycle_asks_about_changed_nodes_only() {
    let mut snapshot = Snapshot::new();
    (0..2_000).for_each(|n| {
        snapshot.set_node(node(n, 64, 0));
    });
    let mut profile = profile(Box::new(NativeEngine::new()), FailurePolicy::Fail);
    for n in 0..500 {
        let pod = pod(&format!("u{n}"), 0);
        let Outcome::Fits(slot) = profile.schedule(&pod, &snapshot) else {
            panic!("no room")
        };
        snapshot.assume(&pod.uid, slot, &pod.usage, &pod.object);
    }
    let asked = profile.query(&pod("x", 0).shape).unwrap().asked;
    assert_eq!(asked, 2_000 + 499);
    assert_eq!(PodUsage::of(&pod("x", 0).object).real.cpu_milli, 1_000);
}
