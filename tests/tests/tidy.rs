//! Holds the house in order: edges between crates, a duty line in every file, no crowded rooms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_LINES: usize = 800;

/// Every edge between our crates (normal dependencies). A new one is a commit of its own, with a line in ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("oarlock-model", &[]),
    ("oarlock-cel", &["oarlock-model"]),
    ("oarlock-schema", &["oarlock-model"]),
    (
        "oarlock-kinds",
        &["oarlock-cel", "oarlock-model", "oarlock-schema"],
    ),
    ("oarlock-store", &[]),
    ("oarlock-auth", &["oarlock-model"]),
    (
        "oarlock-registry",
        &[
            "oarlock-cel",
            "oarlock-kinds",
            "oarlock-model",
            "oarlock-schema",
            "oarlock-store",
        ],
    ),
    (
        "oarlock-client",
        &["oarlock-kinds", "oarlock-model", "oarlock-registry"],
    ),
    ("oarlock-wasm", &[]),
    ("oarlock-guests", &[]),
    (
        "oarlock-scheduler",
        &["oarlock-client", "oarlock-model", "oarlock-wasm"],
    ),
    (
        "oarlock-controllers",
        &["oarlock-client", "oarlock-model", "oarlock-wasm"],
    ),
    (
        "oarlock-admission",
        &[
            "oarlock-client",
            "oarlock-model",
            "oarlock-registry",
            "oarlock-schema",
            "oarlock-wasm",
        ],
    ),
    ("oarlock-node", &["oarlock-client", "oarlock-model"]),
    (
        "oarlock-apiserver",
        &[
            "oarlock-auth",
            "oarlock-cel",
            "oarlock-kinds",
            "oarlock-model",
            "oarlock-registry",
            "oarlock-schema",
        ],
    ),
    ("oarlock-sdk", &["oarlock-model"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the repository")
        .to_owned()
}

#[test]
fn edges_between_crates_are_the_allowed_ones() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let mut edges: Vec<String> = package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .filter(|name| name.starts_with("oarlock-"))
            .collect();
        edges.sort();
        found.insert(package["name"].as_str().unwrap().to_owned(), edges);
    }
    for (from, allowed) in EDGES {
        let edges = found
            .get(*from)
            .unwrap_or_else(|| panic!("{from} is gone: take it off the list"));
        for to in edges {
            assert!(
                allowed.contains(&to.as_str()),
                "{from} may not depend on {to}: see host/ARCHITECTURE.md"
            );
        }
    }
    for from in found.keys().filter(|name| name.starts_with("oarlock-")) {
        let tests = ["oarlock-tests", "oarlock-bench", "oarlock-fuzz"].contains(&from.as_str());
        assert!(
            tests || EDGES.iter().any(|(name, _)| name == from),
            "{from} has no line in the list of edges"
        );
    }
}

#[test]
fn every_file_says_its_duty_and_none_is_crowded() {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .unwrap();
    let mut faults = Vec::new();
    for file in String::from_utf8(output.stdout).unwrap().lines() {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else {
            continue;
        };
        if !text.starts_with("//!") {
            faults.push(format!(
                "{file}: the first line is not `//!` and the file's duty"
            ));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{file}: {lines} lines, split it"));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
