//! Every target for a moment, with a fixed seed: none has rotted, and nothing is found at once.

use oarlock_fuzz::{Limit, run, targets};

const SEED: u64 = 7;
const EXECUTIONS: u64 = 150;
const HOSTILE_BYTES: usize = 30_000;

#[test]
fn a_moment_of_each() {
    let mut found = Vec::new();
    for target in targets::all() {
        let report = run(&target, SEED, Limit::Executions(EXECUTIONS), HOSTILE_BYTES);
        assert!(report.executions > 0, "{} has no inputs", target.name);
        assert!(
            report.new > 1,
            "{} says the same of every input",
            target.name
        );
        println!(
            "{:16} {:>6} executions in {:?}, {} new",
            target.name, report.executions, report.took, report.new
        );
        found.extend(report.findings);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn what_is_forbidden_is_found() {
    let target = oarlock_fuzz::Target {
        name: "broken",
        tree: false,
        seeds: || vec![b"abc".to_vec()],
        hostile: |_| Vec::new(),
        words: &["kelp"],
        grow: None,
        run: |input| {
            assert!(!input.starts_with(b"kelp"), "it begins with kelp");
            if input.ends_with(b"kelp") {
                return Err("it ends with kelp".to_owned());
            }
            Ok(input.len() as u64)
        },
    };
    let report = run(&target, SEED, Limit::Executions(20_000), 0);
    let has = |what: &str, input: &str| {
        let mut all = report.findings.iter();
        all.any(|f| f.contains(what) && f.ends_with(input))
    };
    assert!(
        has("it begins with kelp", "b\"kelp\""),
        "{:?}",
        report.findings
    );
    assert!(has("it ends with kelp", "kelp\""), "{:?}", report.findings);
}
