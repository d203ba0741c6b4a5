//! Builds the plugins of `plugins/` for WebAssembly and writes the table that `src/lib.rs` includes.
//!
//! Invariant: what is embedded is a component without any WASI import, or the build fails and names the plugin.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../wasm/src/toolchain.rs"]
mod toolchain;

use toolchain::{TARGET, Toolchain, imports_with};

/// Folders of `plugins/`, and the table that their plugins go to.
const TABLES: [(&str, &str); 4] = [
    ("scheduling", "SCHEDULING"),
    ("controllers", "CONTROLLERS"),
    ("admission", "ADMISSION"),
    ("hostile", "HOSTILE"),
];

fn main() {
    if let Err(problem) = run() {
        eprintln!("{problem}");
        println!(
            "cargo::error=the plugins cannot be built: {}",
            problem.replace('\n', " ")
        );
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let here = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(var("OUT_DIR")?);
    let root = here
        .ancestors()
        .nth(2)
        .ok_or("host/guests is not in its place")?;
    let plugins = root.join("plugins");
    watch(root);
    // OUT_DIR is TARGET_DIR/PROFILE/build/PACKAGE-HASH/out. All profiles share one build of the guests.
    let target_dir = out
        .ancestors()
        .nth(4)
        .ok_or("OUT_DIR is not in a target folder")?
        .join("guests");
    let toolchain = prepare(&here, &target_dir)?;
    let mut table = String::new();
    for (folder, name) in TABLES {
        let mut rows = String::new();
        for package in packages(&plugins.join(folder))? {
            let file = build(&toolchain, &plugins, &target_dir, &package)?;
            let copy = out.join(format!("{package}.wasm"));
            fs::copy(&file, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
            rows +=
                &format!("    Guest {{ name: {package:?}, bytes: include_bytes!({copy:?}) }},\n");
        }
        table += &format!("const {name}_GUESTS: &[Guest] = &[\n{rows}];\n");
    }
    let file = out.join("guests.rs");
    fs::write(&file, table).map_err(|error| format!("{}: {error}", file.display()))
}

/// Runs again when anything that guests are made of changes (and not when cargo writes beside it). Relative paths: clones
/// of the repository may share a target folder, and each must watch its own.
fn watch(root: &Path) {
    let watch = |part: &str| println!("cargo::rerun-if-changed=../../{part}");
    for part in [
        "sdk/rust/src",
        "sdk/rust/Cargo.toml",
        "wit",
        "host/model/src",
        "host/model/Cargo.toml",
    ] {
        watch(part);
    }
    for part in ["Cargo.toml", ".cargo", "controller-kit"]
        .into_iter()
        .chain(TABLES.map(|(folder, _)| folder))
    {
        // A folder that is missing would count as always changed.
        let part = format!("plugins/{part}");
        watch(if root.join(&part).exists() {
            &part
        } else {
            "plugins"
        });
    }
    println!("cargo::rerun-if-changed=debian-target.sh");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../wasm/src/toolchain.rs");
    println!("cargo::rerun-if-env-changed=OARLOCK_WASM_DEBIAN");
}

/// A compiler that has the target: as it is, by rustup, or from Debian's packages.
fn prepare(here: &Path, target_dir: &Path) -> Result<Toolchain, String> {
    let mut toolchain = Toolchain::find()?;
    let from_debian = env::var_os("OARLOCK_WASM_DEBIAN").is_some_and(|wish| wish == "1");
    if toolchain.has_target() && !from_debian {
        return Ok(toolchain);
    }
    let mut refused = "OARLOCK_WASM_DEBIAN=1".to_owned();
    if !from_debian {
        tell(&format!(
            "installing the target {TARGET} (rustup target add {TARGET})"
        ));
        match toolchain.add_target() {
            Ok(()) => return Ok(toolchain),
            Err(message) => refused = message,
        }
    }
    tell(&format!(
        "rustup does not give the target ({refused}); building it from Debian's packages, which takes some minutes"
    ));
    let prefix = target_dir.join("wasm-rust");
    let script = here.join("debian-target.sh");
    let output = Command::new("bash")
        .arg(&script)
        .arg(&prefix)
        .arg(&toolchain.rustc)
        .output();
    let output = output.map_err(|error| format!("bash does not run: {error}"))?;
    let rustc = prefix.join("rustc");
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        let tail: Vec<_> = log.lines().rev().take(8).collect();
        return Err(format!(
            "no compiler for {TARGET}. Either let `rustup target add {TARGET}` work (it said: {refused}), or make {} work (it said: {})",
            script.display(),
            tail.into_iter().rev().collect::<Vec<_>>().join(" | "),
        ));
    }
    toolchain.rustc = rustc;
    Ok(toolchain)
}

/// Names of the packages in a folder; by the convention of plugins/, those are the folders' names.
fn packages(folder: &Path) -> Result<Vec<String>, String> {
    let Ok(listing) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in listing.flatten() {
        let Ok(manifest) = fs::read_to_string(entry.path().join("Cargo.toml")) else {
            continue;
        };
        let name = manifest
            .lines()
            .find_map(|line| line.trim().strip_prefix("name")?.trim().strip_prefix('='));
        let name = name.map(|name| name.trim().trim_matches('"').to_owned());
        names.push(name.ok_or_else(|| format!("{} names no package", entry.path().display()))?);
    }
    names.sort_unstable();
    Ok(names)
}

/// Builds one package, by itself, so that a failure is that package's.
fn build(
    toolchain: &Toolchain,
    plugins: &Path,
    target_dir: &Path,
    package: &str,
) -> Result<PathBuf, String> {
    let output = toolchain
        .cargo(plugins, target_dir)
        .args(["--quiet", "--lib", "--package", package])
        .output();
    let output = output.map_err(|error| format!("cargo does not run: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "plugin {package}:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let file = target_dir
        .join(TARGET)
        .join("release")
        .join(format!("{}.wasm", package.replace('-', "_")));
    let bytes = fs::read(&file)
        .map_err(|error| format!("plugin {package}: {}: {error}", file.display()))?;
    match imports_with(&bytes, "wasi:") {
        Ok(false) => Ok(file),
        Ok(true) => Err(format!("plugin {package}: it imports WASI")),
        Err(problem) => Err(format!("plugin {package}: {problem}")),
    }
}

fn tell(message: &str) {
    println!("cargo::warning={message}");
}

fn var(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("cargo did not set {name}"))
}
