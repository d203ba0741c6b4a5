//! The real binary as a child process, and the real clients pointed at it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::clients;

/// How long a start may take on a loaded machine, the compilation of the guests included.
const READY_SECONDS: u64 = 60;
const STOP_SECONDS: u64 = 20;

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Compile the guests anew instead of sharing their code between tests.
    pub own_code: bool,
    pub nodes: Option<u32>,
    /// `controllers`, `scheduler`, `nodes`
    pub disable: Vec<&'static str>,
    pub extra: Vec<String>,
}

/// A running `oarlock up`, killed on drop.
pub struct Oarlock {
    child: Child,
    dir: PathBuf,
    options: Options,
    /// Removed on drop.
    _owned: Option<TempDir>,
}

/// The binary under test, built if it is not fresh.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("OARLOCK_BIN") {
            return path.into();
        }
        let test = std::env::current_exe().expect("a test has a path");
        // target/PROFILE/deps/TEST, or target/PROFILE/oarlock-bench.
        let profile_dir = test
            .ancestors()
            .skip(1)
            .find(|dir| !dir.ends_with("deps"))
            .expect("a binary is in a profile's folder");
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--quiet", "--package", "oarlock"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        build
            .arg("--target-dir")
            .arg(profile_dir.parent().expect("the target folder"));
        if profile_dir.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().expect("cargo runs").success(),
            "the binary does not build"
        );
        profile_dir.join("oarlock")
    })
}

impl Oarlock {
    /// Starts on a fresh data directory and a free port, and waits until it says that it is ready.
    pub fn start(options: Options) -> Self {
        let owned = TempDir::new().expect("a temporary directory");
        let mut server = Self::start_in(owned.path(), options);
        server._owned = Some(owned);
        server
    }

    /// The same on this data directory, which stays.
    pub fn start_in(dir: &Path, options: Options) -> Self {
        let child = spawn(dir, &options);
        Self {
            child,
            dir: dir.to_owned(),
            options,
            _owned: None,
        }
    }

    pub fn data_dir(&self) -> &Path {
        &self.dir
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops by SIGTERM; true if it ended by itself and cleanly.
    pub fn stop(&mut self) -> bool {
        let _ = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        let ended = crate::wait::eventually_ok("a clean stop", STOP_SECONDS, || {
            match self.child.try_wait() {
                Ok(Some(status)) => Ok(status),
                _ => Err("still running"),
            }
        });
        ended.success()
    }

    /// Kills with SIGKILL and starts again on the same data.
    pub fn crash_and_restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = spawn(&self.dir, &self.options);
    }

    /// Starts again after `stop`.
    pub fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.options);
    }

    /// The binary itself, pointed at this control plane.
    pub fn oarlock(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        command.output().expect("oarlock runs")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.dir)
            .env("NO_COLOR", "1");
        command
    }

    /// kubectl's whole output.
    pub fn kubectl_output(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = self.command(&clients::kubectl());
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut input = child.stdin.take().expect("stdin is piped");
        let text = stdin.to_owned();
        let writer = std::thread::spawn(move || {
            let _ = input.write_all(text.as_bytes());
        });
        let output = child.wait_with_output().expect("kubectl ends");
        let _ = writer.join();
        output
    }

    /// kubectl's standard output; panics if it fails.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.kubectl_with(args, "")
    }

    /// The same with standard input.
    pub fn kubectl_with(&self, args: &[&str], stdin: &str) -> String {
        succeed(
            &format!("kubectl {}", args.join(" ")),
            self.kubectl_output(args, stdin),
        )
    }

    /// kubectl's standard output, or its error text.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let output = self.kubectl_output(args, "");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// kubectl's error text; panics if it succeeds.
    pub fn kubectl_fails(&self, args: &[&str], stdin: &str) -> String {
        let output = self.kubectl_output(args, stdin);
        assert!(!output.status.success(), "kubectl {args:?} should fail");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn helm(&self, args: &[&str]) -> String {
        let output = self
            .command(&clients::helm())
            .args(args)
            .current_dir(&self.dir)
            .output()
            .expect("helm runs");
        succeed(&format!("helm {}", args.join(" ")), output)
    }

    /// Runs a Python script with the official client; panics if it fails.
    pub fn python(&self, script: &str) -> String {
        let output = self
            .command(clients::python())
            .args(["-c", script])
            .output()
            .expect("python runs");
        succeed("python", output)
    }
}

fn succeed(what: &str, output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{what} failed:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn spawn(dir: &Path, options: &Options) -> Child {
    let mut command = Command::new(binary());
    command
        .arg("up")
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen", "127.0.0.1:0"]);
    command.arg("--kubeconfig").arg(dir.join("kubeconfig"));
    if !options.own_code {
        command.env("OARLOCK_CODE_CACHE", binary().with_file_name("code-cache"));
    }
    if let Some(nodes) = options.nodes {
        command.args(["--nodes", &nodes.to_string()]);
    }
    if !options.disable.is_empty() {
        command.args(["--disable", &options.disable.join(",")]);
    }
    command
        .args(&options.extra)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("oarlock starts");
    let output = child.stdout.take().expect("stdout is piped");
    let (ready, is_ready) = mpsc::channel();
    // Reads on to the end, so that the child never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if line.contains("ready") {
                let _ = ready.send(());
            }
        }
    });
    if is_ready
        .recv_timeout(Duration::from_secs(READY_SECONDS))
        .is_err()
    {
        let _ = child.kill();
        panic!("oarlock was not ready within {READY_SECONDS} s");
    }
    child
}

impl Drop for Oarlock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
