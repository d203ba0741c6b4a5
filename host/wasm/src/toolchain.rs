//! What it takes to compile a plugin: the wasm target, a linker that makes components of modules, and a clean environment.
//!
//! Invariant: standard library only, since `host/guests/build.rs` includes this file as it is.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of plugins: nothing in it can ask for WASI.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A compiler for [`TARGET`].
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: PathBuf,
    /// Makes a component of what the compiler gives it.
    pub linker: PathBuf,
    /// Where that linker finds the linker beneath it.
    pub linker_path: Option<PathBuf>,
}

impl Toolchain {
    /// The toolchain around this compiler (`rustc`, if none is named by RUSTC), whether or not it has the target.
    pub fn find() -> Result<Self, String> {
        let rustc = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
        let sysroot = ask(&rustc, &["--print", "sysroot"])?;
        let host = ask(&rustc, &["-vV"])?
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .map(str::to_owned)
            .ok_or_else(|| format!("{} does not say its host", rustc.display()))?;
        let bin = Path::new(&sysroot)
            .join("lib/rustlib")
            .join(host)
            .join("bin");
        let name = format!("wasm-component-ld{}", env::consts::EXE_SUFFIX);
        let beside = bin.join(&name);
        let on_path = || {
            env::split_paths(&env::var_os("PATH")?)
                .map(|dir| dir.join(&name))
                .find(|file| file.is_file())
        };
        let linker = if beside.is_file() {
            Some(beside)
        } else {
            on_path()
        };
        let linker = linker.ok_or_else(|| {
            format!("no {name}, neither in {} nor on PATH; rustup's toolchains have one, or: cargo install wasm-component-ld", bin.display())
        })?;
        let below = bin.join("gcc-ld");
        Ok(Self {
            rustc,
            linker,
            linker_path: below.is_dir().then_some(below),
        })
    }

    /// Whether the compiler has the target's standard library.
    pub fn has_target(&self) -> bool {
        let Ok(dir) = ask(
            &self.rustc,
            &["--print", "target-libdir", "--target", TARGET],
        ) else {
            return false;
        };
        let Ok(files) = std::fs::read_dir(dir) else {
            return false;
        };
        files
            .flatten()
            .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
    }

    /// Asks rustup for the target.
    pub fn add_target(&self) -> Result<(), String> {
        let mut rustup = Command::new("rustup");
        rustup.args(["target", "add", TARGET]);
        // Cargo runs build scripts with the compiler's full path; rustup must add to that toolchain and no other.
        if let Some(name) = ask(&self.rustc, &["--print", "sysroot"])
            .ok()
            .and_then(|root| {
                Path::new(&root)
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
            })
        {
            rustup.args(["--toolchain", &name]);
        }
        let output = rustup
            .output()
            .map_err(|error| format!("rustup does not run: {error}"))?;
        if output.status.success() && self.has_target() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// A cargo that builds for the target, in a folder, unbothered by how the cargo around it is set up.
    pub fn cargo(&self, folder: &Path, target_dir: &Path) -> Command {
        let mut cargo = clean_cargo();
        if let Some(below) = &self.linker_path {
            let path = env::var_os("PATH").unwrap_or_default();
            let dirs = std::iter::once(below.clone()).chain(env::split_paths(&path));
            if let Ok(joined) = env::join_paths(dirs) {
                cargo.env("PATH", joined);
            }
        }
        cargo
            .current_dir(folder)
            .env("RUSTC", &self.rustc)
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", &self.linker)
            .args(["build", "--release", "--target", TARGET, "--target-dir"])
            .arg(target_dir);
        cargo
    }
}

/// A cargo that knows nothing of the settings of a cargo around it.
pub fn clean_cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let leaks = text.starts_with("CARGO_PROFILE_")
            || text.starts_with("CARGO_BUILD_")
            || text.starts_with("CARGO_ENCODED_")
            || text.ends_with("_RUSTFLAGS")
            || [
                "RUSTFLAGS",
                "RUSTC_WRAPPER",
                "RUSTC_WORKSPACE_WRAPPER",
                "CARGO_TARGET_DIR",
                "CARGO_INCREMENTAL",
            ]
            .contains(&&*text);
        if leaks {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Whether these bytes are a component (and not a plain module), and which top-level imports begin with `prefix`.
pub fn imports_with(bytes: &[u8], prefix: &str) -> Result<bool, String> {
    const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
    const IMPORTS: u8 = 10;
    let mut rest = bytes
        .strip_prefix(PREAMBLE)
        .ok_or("it is not a component")?;
    let mut found = false;
    while let Some((&id, after)) = rest.split_first() {
        let (size, used) = leb128(after).ok_or("it is cut off")?;
        let section = after.get(used..used + size).ok_or("it is cut off")?;
        found |= id == IMPORTS
            && section
                .windows(prefix.len())
                .any(|window| window == prefix.as_bytes());
        rest = &after[used + size..];
    }
    Ok(found)
}

fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

fn ask(program: &Path, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| format!("{} does not run: {error}", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
