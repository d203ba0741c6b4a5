//! The default plugins against recorded verdicts and scores of kube-scheduler, through the WASM component.
//!
//! Reads the folder that ORACLE_DIR names, or `../shared/oracle` beside the repository; without either, the cases of
//! `tests/oracle/`. What other plugins decide is left out. Prints agreements and differences by theme and plugin.

#[path = "oracle/prepare.rs"]
mod prepare;

#[path = "../../host/scheduler/tests/native/mod.rs"]
mod native;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use oarlock_scheduler::{NodeUsage, PlacementEngine, PodUsage, normalize};
use oarlock_wasm::scheduler::{Change, Node, NodeSet, Opened, Points, Verdict};
use oarlock_wasm::{Engine, EngineConfig, FixedEnv, Limits, SchedulerPlugin};
use serde_json::Value;

/// Score plugins of other bundles that always give 0.
const ALWAYS_ZERO: &str = "DynamicResources";
/// How many differences are printed.
const MAX_SHOWN: usize = 40;

#[derive(Default)]
struct Tally {
    by_theme_and_plugin: BTreeMap<(String, String), (u64, u64)>,
    shown: usize,
}

impl Tally {
    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        at: &At<'_>,
        plugin: &str,
        what: &str,
        got: &T,
        expect: &T,
    ) {
        let entry = self
            .by_theme_and_plugin
            .entry((at.theme.to_owned(), plugin.to_owned()))
            .or_default();
        if got == expect {
            entry.0 += 1;
            return;
        }
        entry.1 += 1;
        self.shown += 1;
        if self.shown <= MAX_SHOWN {
            println!(
                "{} {} on {}: {plugin} {what}: got {got:?}, expected {expect:?}",
                at.case, at.pod, at.node
            );
        }
    }

    fn totals(&self) -> (u64, u64) {
        self.by_theme_and_plugin
            .values()
            .fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1))
    }

    fn print(&self) {
        println!(
            "{:<16} {:<34} {:>8} {:>8}",
            "theme", "plugin", "agree", "differ"
        );
        for ((theme, plugin), (agree, differ)) in &self.by_theme_and_plugin {
            println!("{theme:<16} {plugin:<34} {agree:>8} {differ:>8}");
        }
    }
}

struct At<'a> {
    theme: &'a str,
    case: &'a str,
    pod: &'a str,
    node: &'a str,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Plugin, code and sorted reasons, as they are compared.
type Said = (String, String, Vec<String>);

fn said_by(value: &Value) -> Said {
    let mut reasons: Vec<String> = list(value, "reasons")
        .iter()
        .map(|r| text(r).to_owned())
        .collect();
    reasons.sort();
    (
        text(&value["plugin"]).to_owned(),
        text(&value["code"]).to_owned(),
        reasons,
    )
}

struct Cluster {
    engine: Box<dyn PlacementEngine>,
    node_names: Vec<String>,
    names: Vec<String>,
    enabled: Vec<u32>,
}

impl Cluster {
    fn new(mut engine: Box<dyn PlacementEngine>, input: &Value) -> Self {
        let names: Vec<String> = engine.plugins().iter().map(|p| p.name.clone()).collect();
        let enabled: Vec<u32> = (0..names.len() as u32).collect();
        for plugin in &enabled {
            engine
                .configure(*plugin, "{}")
                .expect("no trap")
                .expect("no arguments are fine");
        }
        let mut nodes: Vec<Value> = list(input, "nodes")
            .iter()
            .cloned()
            .map(prepare::node)
            .collect();
        // An API server lists them by name; the first node that has an image says how large it is.
        nodes.sort_by(|a, b| text(&a["metadata"]["name"]).cmp(text(&b["metadata"]["name"])));
        let node_names: Vec<String> = nodes
            .iter()
            .map(|n| text(&n["metadata"]["name"]).to_owned())
            .collect();
        let mut usage = vec![NodeUsage::default(); nodes.len()];
        let placed = list(input, "pods").iter().chain(list(input, "pending"));
        for pod in placed.cloned().map(prepare::pod) {
            if let Some(at) = node_names
                .iter()
                .position(|n| *n == text(&pod["spec"]["nodeName"]))
            {
                usage[at].add(&PodUsage::of(&pod));
            }
        }
        let mut changes = Vec::new();
        for (id, node) in nodes.iter().enumerate() {
            let (id, name) = (id as u32, node_names[id].clone());
            changes.push(Change::NodeSet(Node {
                id,
                name,
                object: node.to_string(),
            }));
            changes.push(Change::UsageSet(usage[id as usize].to_guest(id)));
        }
        engine.apply(&changes).expect("no trap");
        Self {
            engine,
            node_names,
            names,
            enabled,
        }
    }

    fn said(&self, verdict: &Verdict) -> Said {
        let code = if verdict.unresolvable {
            "UnschedulableAndUnresolvable"
        } else {
            "Unschedulable"
        };
        let mut reasons = verdict.reasons.clone();
        reasons.sort();
        (
            self.names[verdict.plugin as usize].clone(),
            code.to_owned(),
            reasons,
        )
    }

    fn is_ours(&self, plugin: &str) -> bool {
        self.names.iter().any(|n| n == plugin)
    }

    fn judge(
        &mut self,
        pod: &Value,
        expect: &Value,
        at: &At<'_>,
        nominated: bool,
        tally: &mut Tally,
    ) {
        let json = pod.to_string();
        let gated = self
            .engine
            .pre_enqueue(&json, &self.enabled)
            .expect("no trap")
            .map(|v| self.said(&v));
        tally.compare(
            at,
            "SchedulingGates",
            "gated",
            &gated,
            &expect.get("gated").map(said_by),
        );
        if expect
            .get("prefilter")
            .is_some_and(|v| !self.is_ours(text(&v["plugin"])))
        {
            return;
        }
        let opened = match self.engine.open(&json, &self.enabled).expect("no trap") {
            Ok(opened) => opened,
            Err(verdict) => {
                let said = Some(self.said(&verdict));
                tally.compare(
                    at,
                    &said.as_ref().expect("just set").0.clone(),
                    "prefilter",
                    &said,
                    &expect.get("prefilter").map(said_by),
                );
                return;
            }
        };
        let codes = self.engine.filter(&opened, &NodeSet::All).expect("no trap");
        for (id, node) in self.node_names.clone().iter().enumerate() {
            let at = At { node, ..*at };
            let recorded = &expect["nodes"][node.as_str()];
            self.compare_filters(&opened, id as u32, recorded, &at, tally);
            if !nominated {
                self.compare_verdict(&opened, codes[id], recorded, &at, tally);
            }
        }
        if !nominated {
            self.compare_scores(&opened, expect, at, tally);
        }
        self.engine.close(opened.query).expect("no trap");
    }

    fn compare_filters(
        &mut self,
        opened: &Opened,
        id: u32,
        recorded: &Value,
        at: &At<'_>,
        tally: &mut Tally,
    ) {
        let verdicts = self.engine.explain(opened.query, id).expect("no trap");
        let got: BTreeMap<String, Said> = verdicts
            .iter()
            .map(|v| self.said(v))
            .map(|s| (s.0.clone(), s))
            .collect();
        let expect: BTreeMap<String, Said> = list(recorded, "all_filters")
            .iter()
            .map(said_by)
            .map(|s| (s.0.clone(), s))
            .collect();
        for (index, plugin) in self.names.iter().enumerate() {
            if self.engine.plugins()[index].points.contains(Points::FILTER) {
                tally.compare(at, plugin, "filter", &got.get(plugin), &expect.get(plugin));
            }
        }
    }

    /// The first refusal, when our plugins decide it.
    fn compare_verdict(
        &mut self,
        opened: &Opened,
        code: u32,
        recorded: &Value,
        at: &At<'_>,
        tally: &mut Tally,
    ) {
        let filter = &recorded["filter"];
        let left_out = opened
            .candidates
            .as_ref()
            .is_some_and(|c| !c.nodes.iter().any(|n| n == at.node));
        let verdict = (code != 0).then(|| self.engine.why(opened.query, code).expect("no trap"));
        let ours = verdict.map(|v| self.said(&v));
        if filter == "ok" {
            tally.compare(
                at,
                "(first refusal)",
                "filter",
                &(left_out, ours),
                &(false, None),
            );
        } else if text(&filter["stage"]) == "PreFilterResult" {
            if text(&filter["plugin"]).contains("NodeAffinity") {
                tally.compare(at, "NodeAffinity", "PreFilterResult", &left_out, &true);
            }
        } else if self.is_ours(text(&filter["plugin"])) {
            tally.compare(
                at,
                "(first refusal)",
                "filter",
                &(left_out, ours),
                &(false, Some(said_by(filter))),
            );
        } else {
            tally.compare(
                at,
                "(first refusal)",
                "filter",
                &(left_out, ours),
                &(false, None),
            );
        }
    }

    fn compare_scores(&mut self, opened: &Opened, expect: &Value, at: &At<'_>, tally: &mut Tally) {
        let feasible: Vec<u32> = (0..self.node_names.len() as u32)
            .filter(|&id| expect["nodes"][self.node_names[id as usize].as_str()]["filter"] == "ok")
            .collect();
        if feasible.is_empty() {
            return;
        }
        let mut scores = self
            .engine
            .score(opened, &NodeSet::Some(feasible.clone()))
            .expect("no trap");
        let columns: BTreeMap<String, Vec<i64>> = opened
            .scores
            .iter()
            .zip(scores.chunks_mut(feasible.len()))
            .map(|(&plugin, column)| {
                let info = &self.engine.plugins()[plugin as usize];
                normalize(info.normalization, column);
                let weighted = column
                    .iter()
                    .map(|s| s * i64::from(info.default_weight))
                    .collect();
                (info.name.clone(), weighted)
            })
            .collect();
        let mut totals = BTreeMap::new();
        let mut all_ours = true;
        for (place, &id) in feasible.iter().enumerate() {
            let at = At {
                node: &self.node_names[id as usize],
                ..*at
            };
            let recorded = &expect["nodes"][at.node];
            let scored = recorded["scores"]
                .as_object()
                .expect("a feasible node has scores");
            for (index, plugin) in self.names.iter().enumerate() {
                if self.engine.plugins()[index].points.contains(Points::SCORE) {
                    let got = columns.get(plugin).map(|column| column[place]);
                    tally.compare(
                        &at,
                        plugin,
                        "score",
                        &got,
                        &scored.get(plugin).and_then(Value::as_i64),
                    );
                }
            }
            all_ours &= scored
                .keys()
                .all(|plugin| plugin == ALWAYS_ZERO || self.is_ours(plugin));
            totals.insert(
                at.node.to_owned(),
                columns.values().map(|column| column[place]).sum::<i64>(),
            );
        }
        if all_ours {
            for (node, total) in &totals {
                let at = At { node, ..*at };
                tally.compare(
                    &at,
                    "(total)",
                    "total",
                    &Some(*total),
                    &expect["nodes"][node.as_str()]["total"].as_i64(),
                );
            }
            let top = totals.values().max();
            let best: BTreeSet<&str> = totals
                .iter()
                .filter(|t| Some(t.1) == top)
                .map(|t| t.0.as_str())
                .collect();
            let recorded: BTreeSet<&str> = list(expect, "best").iter().map(text).collect();
            tally.compare(at, "(best)", "best", &best, &recorded);
        }
    }
}

fn judge_case(case: &Value, engine: Box<dyn PlacementEngine>, tally: &mut Tally) {
    let input = &case["input"];
    let theme = text(&case["theme"]).split('/').next().unwrap_or("");
    let mut cluster = Cluster::new(engine, input);
    // Pods that are nominated to a node count there for others, which these plugins do not see.
    let nominated = list(input, "pending")
        .iter()
        .any(|p| p["status"]["nominatedNodeName"].is_string());
    for (pod, expect) in list(input, "pending")
        .iter()
        .zip(list(&case["expect"], "pods"))
    {
        if expect.is_null() {
            continue;
        }
        let at = At {
            theme,
            case: text(&case["name"]),
            pod: text(&expect["pod"]),
            node: "-",
        };
        cluster.judge(&prepare::pod(pod.clone()), expect, &at, nominated, tally);
    }
}

/// The files to read, recorded ones if there are any.
fn files() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = std::env::var_os("ORACLE_DIR").map(PathBuf::from);
    let beside = Some(here.join("../../shared/oracle")).filter(|p| p.is_dir());
    let folder = named.or(beside).unwrap_or_else(|| here.join("oracle"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("readable folder").path())
        .filter(|path| {
            [".jsonl", ".jsonl.gz"]
                .iter()
                .any(|end| path.to_string_lossy().ends_with(end))
        })
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "no recorded cases in {}",
        folder.display()
    );
    println!("cases from {}", folder.display());
    files
}

fn judge_files(files: &[PathBuf], mut engine: impl FnMut() -> Box<dyn PlacementEngine>) -> Tally {
    let mut tally = Tally::default();
    for path in files {
        let file = std::fs::File::open(path).expect("readable file");
        let reader: Box<dyn BufRead> = if path.extension().is_some_and(|e| e == "gz") {
            Box::new(BufReader::new(flate2::read::GzDecoder::new(file)))
        } else {
            Box::new(BufReader::new(file))
        };
        for line in reader.lines() {
            let line = line.expect("readable line");
            if !line.trim().is_empty() {
                let case: Value = serde_json::from_str(&line).expect("a case is JSON");
                judge_case(&case, engine(), &mut tally);
            }
        }
    }
    tally
}

fn expect_agreement(tally: &Tally) {
    tally.print();
    let (agree, differ) = tally.totals();
    println!("oracle: {agree} agree, {differ} differ");
    assert_eq!(differ, 0);
    assert!(agree > 0);
}

#[test]
fn native_plugins_agree_with_the_recordings() {
    expect_agreement(&judge_files(&files(), || {
        Box::new(native::NativeEngine::new())
    }));
}

#[test]
fn the_component_agrees_with_the_recordings() {
    let guest = oarlock_guests::get("default-scheduler").expect("it ships");
    let engine = Engine::new(EngineConfig::default()).expect("an engine");
    let loaded = engine.load(guest.name, guest.bytes).expect("it loads");
    let env = std::sync::Arc::new(FixedEnv::new(0, 1));
    let instance = || {
        SchedulerPlugin::instantiate(&loaded, &Limits::default(), env.clone()).expect("it starts")
    };
    expect_agreement(&judge_files(&files(), || Box::new(instance())));
}
