//! What `oarlock plugin new` and `oarlock plugin build` do.
//!
//! Invariant: a new plugin's crate stands by itself: it builds wherever it lies, given the path of the SDK.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::inspect::{Inspection, inspect};
use crate::toolchain::Toolchain;

/// The template: paths in the new folder, and texts in which the names below are replaced.
const TEMPLATE: [(&str, &str); 3] = [
    (
        "Cargo.toml",
        include_str!("../../../sdk/rust/template/Cargo.toml"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../sdk/rust/template/src/lib.rs"),
    ),
    (
        ".gitignore",
        include_str!("../../../sdk/rust/template/.gitignore"),
    ),
];
/// The template's name as a package, as a type, and its path to the SDK.
const TEMPLATE_PACKAGE: &str = "my-plugin";
const TEMPLATE_TYPE: &str = "MyPlugin";
const TEMPLATE_SDK: &str = "oarlock-sdk = { path = \"..\" }";
/// Longest name of a plugin's package.
const MAX_NAME_BYTES: usize = 63;

/// Why a plugin could not be made or built.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    /// The name is no package name.
    #[error(
        "{0:?} is no name for a plugin: lower-case letters, digits and hyphens, beginning with a letter, at most 63"
    )]
    Name(String),
    /// The folder is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// There is no SDK at the path.
    #[error("no Oarlock SDK at {}; say where sdk/rust of Oarlock's source is", .0.display())]
    NoSdk(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// There is no compiler for plugins.
    #[error("{0}")]
    Toolchain(String),
    /// The compiler refused the plugin (and has said why on standard error).
    #[error("the plugin does not compile")]
    Compile,
    /// It compiled, and no component came of it.
    #[error("the crate makes no component: its library needs crate-type = [\"cdylib\", \"rlib\"]")]
    NoComponent,
    /// It is a component that no host would load.
    #[error(transparent)]
    Unfit(#[from] crate::Error),
}

/// Where the SDK was when this binary was built: the default of `new_plugin`.
pub fn default_sdk() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/rust")
}

/// Makes the crate of a new plugin in the folder `parent/name`, which must not exist. Gives that folder.
pub fn new_plugin(name: &str, parent: &Path, sdk: &Path) -> Result<PathBuf, AuthorError> {
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= MAX_NAME_BYTES
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !good {
        return Err(AuthorError::Name(name.to_owned()));
    }
    let asked = sdk;
    let sdk = fs::canonicalize(asked)
        .ok()
        .filter(|sdk| sdk.join("Cargo.toml").is_file());
    let sdk = sdk.ok_or_else(|| AuthorError::NoSdk(asked.to_owned()))?;
    let folder = parent.join(name);
    if folder.exists() {
        return Err(AuthorError::Exists(folder));
    }
    // TOML's strings escape as JSON's do.
    let path = serde_json::Value::from(sdk.to_string_lossy()).to_string();
    for (file, text) in TEMPLATE {
        let text = text
            .replace(TEMPLATE_SDK, &format!("oarlock-sdk = {{ path = {path} }}"))
            .replace(TEMPLATE_PACKAGE, name)
            .replace(TEMPLATE_TYPE, &type_name(name));
        let path = folder.join(file);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text));
        written.map_err(|source| AuthorError::File { path, source })?;
    }
    Ok(folder)
}

/// A component that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The file.
    pub path: PathBuf,
    /// What it is.
    pub inspection: Inspection,
}

/// Builds the plugin's crate in this folder, into `target_dir` or its own `target`. Cargo's own words go to standard error;
/// what is done besides is told to `tell`.
pub fn build_plugin(
    folder: &Path,
    target_dir: Option<&Path>,
    mut tell: impl FnMut(&str),
) -> Result<Built, AuthorError> {
    let toolchain = Toolchain::find().map_err(AuthorError::Toolchain)?;
    if !toolchain.has_target() {
        tell(
            "installing the target wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown)",
        );
        toolchain.add_target().map_err(|refused| {
            AuthorError::Toolchain(format!("the compiler has no target wasm32-unknown-unknown, and rustup does not give it: {refused}"))
        })?;
    }
    let folder = fs::canonicalize(folder).map_err(|source| AuthorError::File {
        path: folder.to_owned(),
        source,
    })?;
    let mut cargo = toolchain.cargo(
        &folder,
        &target_dir.map_or_else(|| folder.join("target"), Path::to_path_buf),
    );
    cargo
        .args(["--lib", "--message-format", "json-render-diagnostics"])
        .stdout(Stdio::piped());
    let run = |source| AuthorError::File {
        path: PathBuf::from("cargo"),
        source,
    };
    let mut child = cargo.spawn().map_err(run)?;
    let mut component = None;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            component = artifact(&line.map_err(run)?).or(component);
        }
    }
    if !child.wait().map_err(run)?.success() {
        return Err(AuthorError::Compile);
    }
    let path = component.ok_or(AuthorError::NoComponent)?;
    let bytes = fs::read(&path).map_err(|source| AuthorError::File {
        path: path.clone(),
        source,
    })?;
    let name = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(Built {
        inspection: inspect(&name, &bytes)?,
        path,
    })
}

/// The component that a line of cargo's messages tells of. The last one is the crate's own.
fn artifact(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let files = message
        .get("filenames")
        .filter(|_| message["reason"] == "compiler-artifact")?
        .as_array()?;
    let file = files
        .iter()
        .filter_map(|file| file.as_str())
        .find(|file| file.ends_with(".wasm"))?;
    Some(PathBuf::from(file))
}

fn type_name(package: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    };
    package.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_follow_names_of_packages() {
        let check = |package: &str, expect: &str| assert_eq!(type_name(package), expect);
        check("cost-aware", "CostAware");
        check("gpu2-first", "Gpu2First");
        check("x", "X");
    }

    #[test]
    fn a_new_plugin_stands_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = new_plugin("rack-spread", dir.path(), &default_sdk()).expect("made");
        let read = |file: &str| fs::read_to_string(folder.join(file)).expect("read");
        let manifest = read("Cargo.toml");
        assert!(
            manifest.contains("name = \"rack-spread\"") && !manifest.contains("\"..\""),
            "{manifest}"
        );
        assert!(read("src/lib.rs").contains("export_plugins!(RackSpread: Filter + Score)"));
        let refused =
            |name: &str, sdk: &Path| new_plugin(name, dir.path(), sdk).expect_err("refused");
        assert!(matches!(
            refused("rack-spread", &default_sdk()),
            AuthorError::Exists(_)
        ));
        assert!(matches!(
            refused("Rack", &default_sdk()),
            AuthorError::Name(_)
        ));
        assert!(matches!(
            refused("../up", &default_sdk()),
            AuthorError::Name(_)
        ));
        assert!(matches!(
            refused("other", dir.path()),
            AuthorError::NoSdk(_)
        ));
    }
}
