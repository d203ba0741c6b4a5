//! The loop: seeds, hostile inputs, then mutations of whatever said something new, each under guard.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use serde_json::Value;

use crate::mutate::{Entry, Mutator};
use crate::random::Random;
use crate::watch::{self, literal};
use crate::{Target, memory};

/// What an execution may hold: this (a million elements of a list, which is what an expression may cost), and so much for
/// each byte of its input.
const HELD_BYTES: usize = 192 << 20;
/// (`{}` can be a container, whose defaults are a map; in upstream's memory it is no smaller.)
const HELD_PER_BYTE: usize = 1024;
/// Inputs that are kept, and how large they may be.
const MAX_KEPT: usize = 4096;
const MAX_KEPT_BYTES: usize = 32 << 10;
/// Attempts at making an input that was found smaller.
const MAX_SHRINKS: usize = 3000;
const LONGEST_SHRINK: Duration = Duration::from_secs(5);
/// How much of the slowest input is told.
const SHOWN_BYTES: usize = 100;
/// Different findings of one target that are told.
const MAX_FINDINGS: usize = 20;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Time(Duration),
    Executions(u64),
}

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub executions: u64,
    pub took: Duration,
    /// Inputs of which the target said something new.
    pub new: usize,
    pub slowest: Duration,
    /// How the input begins that took the longest.
    pub slowest_input: String,
    pub largest_bytes: usize,
    /// What was found, ready to be printed.
    pub findings: Vec<String>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: RefCell<bool> = const { RefCell::new(false) };
}

/// Panics of executions are kept and not printed; others are printed as always.
fn catch_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.with_borrow(|quiet| *quiet) {
                PANIC.set(Some(info.to_string()));
            } else {
                before(info);
            }
        }));
    });
}

struct Run<'a> {
    target: &'a Target,
    seed: u64,
    report: Report,
    known: HashSet<u64>,
    told: HashSet<String>,
}

/// Fuzzes one target. `hostile_bytes`: how large the inputs are that are made to hurt.
pub fn run(target: &Target, seed: u64, limit: Limit, hostile_bytes: usize) -> Report {
    catch_panics();
    let started = watch::now();
    let mut run = Run {
        target,
        seed,
        report: Report::default(),
        known: HashSet::new(),
        told: HashSet::new(),
    };
    // What is made once, on first use, is not the first input's.
    let seeds = (target.seeds)();
    if let Some(first) = seeds.first() {
        QUIET.set(true);
        let _ = catch_unwind(AssertUnwindSafe(|| (target.run)(first)));
        QUIET.set(false);
    }
    let mut corpus: Vec<Entry> = Vec::new();
    for input in seeds {
        run.once(&input);
        corpus.push(Entry::new(input, target.tree));
    }
    for input in (target.hostile)(hostile_bytes) {
        run.once(&input);
    }
    let name = target.name.bytes();
    let salt = name.fold(0u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let mut mutator = Mutator::new(Random::new(seed ^ salt), target);
    loop {
        let done = match limit {
            Limit::Time(time) => started.elapsed() >= time,
            Limit::Executions(most) => run.report.executions >= most,
        };
        if done || run.report.findings.len() >= MAX_FINDINGS {
            break;
        }
        let Some(input) = mutator.next(&corpus) else {
            break;
        };
        let is_new = run.once(&input);
        if is_new && input.len() <= MAX_KEPT_BYTES {
            let entry = Entry::new(input, target.tree);
            if corpus.len() < MAX_KEPT {
                corpus.push(entry);
            } else {
                let at = mutator.random.below(corpus.len());
                corpus[at] = entry;
            }
        }
    }
    run.report.took = started.elapsed();
    run.report
}

impl Run<'_> {
    /// Tries an input; true if it led to something new.
    fn once(&mut self, input: &[u8]) -> bool {
        self.report.executions += 1;
        let (result, took, held) = self.execute(input);
        if took > self.report.slowest {
            self.report.slowest = took;
            self.report.slowest_input = literal(input.get(..SHOWN_BYTES).unwrap_or(input));
        }
        self.report.largest_bytes = self.report.largest_bytes.max(held);
        match result {
            Ok(said) => {
                let is_new = self.known.insert(said);
                self.report.new += usize::from(is_new);
                is_new
            }
            Err(what) => {
                let same = similar(&what);
                if self.told.insert(same.clone()) {
                    let number = self.report.executions;
                    let small = self.shrink(input.to_vec(), &same);
                    let (name, seed) = (self.target.name, self.seed);
                    self.report.findings.push(format!(
                        "FOUND in {name} (seed {seed}, execution {number}): {what}\n  input: {}",
                        literal(&small)
                    ));
                }
                false
            }
        }
    }

    fn execute(&self, input: &[u8]) -> (Result<u64, String>, Duration, usize) {
        watch::started(self.target.name, self.seed, self.report.executions, input);
        memory::begin(HELD_BYTES + HELD_PER_BYTE * input.len());
        QUIET.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| (self.target.run)(input)));
        QUIET.set(false);
        let held = memory::end();
        let took = watch::ended();
        let result = result.unwrap_or_else(|_| {
            let what = PANIC.take().unwrap_or_else(|| "panicked".to_owned());
            Err(what)
        });
        (result, took, held)
    }

    /// Leaves out of an input what is not needed for the finding.
    fn shrink(&self, mut input: Vec<u8>, same: &str) -> Vec<u8> {
        let until = watch::now() + LONGEST_SHRINK;
        let still = |input: &[u8]| {
            watch::now() < until
                && matches!(self.execute(input).0, Err(what) if similar(&what) == same)
        };
        let mut left = MAX_SHRINKS;
        if input.len() > 2 * MAX_KEPT_BYTES {
            return input;
        }
        if self.target.tree {
            input = shrink_tree(input, &still, &mut left);
        }
        let mut chunk = input.len() / 2;
        while chunk > 0 && left > 0 && input.len() < MAX_KEPT_BYTES {
            let mut at = 0;
            while at < input.len() && left > 0 {
                let end = (at + chunk).min(input.len());
                let fewer = [&input[..at], &input[end..]].concat();
                left -= 1;
                if still(&fewer) {
                    input = fewer;
                } else {
                    at = end;
                }
            }
            chunk /= 2;
        }
        input
    }
}

/// Takes members and items away, as long as the finding stays.
fn shrink_tree(input: Vec<u8>, still: &dyn Fn(&[u8]) -> bool, left: &mut usize) -> Vec<u8> {
    let Ok(mut tree) = serde_json::from_slice::<Value>(&input) else {
        return input;
    };
    let mut at = 0;
    loop {
        let pointers = pointers(&tree);
        let Some(pointer) = pointers.get(at) else {
            break;
        };
        if *left == 0 {
            break;
        }
        *left -= 1;
        let mut fewer = tree.clone();
        remove(&mut fewer, pointer);
        if still(fewer.to_string().as_bytes()) {
            tree = fewer;
        } else {
            at += 1;
        }
    }
    let smaller = tree.to_string().into_bytes();
    if still(&smaller) { smaller } else { input }
}

fn pointers(tree: &Value) -> Vec<Vec<String>> {
    fn walk(value: &Value, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
        let steps: Vec<(String, &Value)> = match value {
            Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(n, v)| (n.to_string(), v))
                .collect(),
            _ => Vec::new(),
        };
        for (step, below) in steps {
            path.push(step);
            out.push(path.clone());
            walk(below, path, out);
            path.pop();
        }
    }
    let mut out = Vec::new();
    walk(tree, &mut Vec::new(), &mut out);
    out
}

fn remove(tree: &mut Value, path: &[String]) {
    let Some((last, above)) = path.split_last() else {
        return;
    };
    let mut at = tree;
    for step in above {
        let below = match at {
            Value::Object(map) => map.get_mut(step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|n| items.get_mut(n)),
            _ => None,
        };
        let Some(below) = below else { return };
        at = below;
    }
    match at {
        Value::Object(map) => {
            map.remove(last);
        }
        Value::Array(items) => {
            if let Ok(n) = last.parse::<usize>()
                && n < items.len()
            {
                items.remove(n);
            }
        }
        _ => {}
    }
}

/// A finding without what differs from input to input.
fn similar(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    let quoted = line.split(['"', '`']).step_by(2).collect::<Vec<_>>();
    let plain = quoted.join("_");
    let plain: String = plain.chars().take(160).collect();
    let is_panic = what.starts_with("panicked");
    if is_panic { line.to_owned() } else { plain }
}
