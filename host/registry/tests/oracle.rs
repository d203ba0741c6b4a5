//! Recorded answers of kube-apiserver as the referee: each request of a theme becomes a call of the registry, and what
//! comes back must be what was recorded. What HTTP adds (tables, negotiation, option parsing errors) is not judged here.
//!
//! Reads the folder that API_ORACLE_DIR names, else ../shared/api-oracle beside the repository; says so and passes if there
//! is none.

#[path = "oracle/compare.rs"]
mod compare;
#[path = "oracle/player.rs"]
mod player;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use player::{Player, Step};

fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("API_ORACLE_DIR").map(PathBuf::from);
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/api-oracle");
    named.or(Some(beside)).filter(|dir| dir.is_dir())
}

fn scenarios(theme: &str) -> Option<BTreeMap<String, Vec<Step>>> {
    let file = std::fs::File::open(folder()?.join(format!("{theme}.jsonl.gz"))).ok()?;
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .expect("the recording can be read");
    let mut scenarios: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    for line in text.lines() {
        let step: Step = serde_json::from_str(line).expect("a step");
        scenarios
            .entry(step.scenario.clone())
            .or_default()
            .push(step);
    }
    Some(scenarios)
}

/// At least `least` steps that the registry can be judged by must agree.
async fn judge(theme: &str, least: usize) {
    let Some(scenarios) = scenarios(theme) else {
        println!("no recordings found: set API_ORACLE_DIR");
        return;
    };
    let player = Player::start().await;
    let (mut agreed, mut differ, mut skipped) = (0, 0, 0);
    for (name, steps) in scenarios {
        let report = player.play(&steps).await;
        agreed += report.agreed;
        skipped += report.skipped;
        differ += report.differences.len();
        for difference in &report.differences {
            println!("{theme} {name} {difference}");
        }
    }
    println!("{theme}: {agreed} steps agree, {differ} differ, {skipped} are not the registry's");
    assert!(
        agreed >= least,
        "{theme}: {agreed} steps agree, at least {least} must"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion() {
    judge("deletion", 443).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listing() {
    judge("listing", 311).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch() {
    judge("watch", 254).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subresources() {
    judge("subresources", 175).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches() {
    judge("patches", 643).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crds() {
    judge("crds", 306).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admission() {
    judge("admission", 339).await;
}
