//! Compilation, in a process of its own where there is a program for it: what the compiler takes (hundreds of MiB for some
//! guests) goes back to the machine, and a component that the compiler chokes on harms nobody.
//!
//! Protocol: `PROGRAM compile MAX_INSTANCES` reads a component from its standard input and writes code to its standard
//! output; a refusal is its exit code 1 and a text on standard error.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wasmtime::{Engine, Result, format_err};

use crate::component::MAX_COMPONENT_BYTES;
use crate::engine::settings;

/// A component of the largest size compiles in less.
const TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);

/// The other end of the protocol, for a program's `main`.
pub fn serve(
    max_instances: u32,
    component: impl Read,
    mut code: impl Write,
) -> Result<(), crate::Error> {
    let failed = |error: &dyn std::fmt::Display| crate::Error::Load {
        plugin: "(component)".to_owned(),
        message: format!("{error:#}"),
    };
    let mut bytes = Vec::new();
    component
        .take(MAX_COMPONENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| failed(&e))?;
    let engine = Engine::new(&settings((max_instances > 0).then_some(max_instances)))
        .map_err(|e| failed(&e))?;
    let compiled = engine
        .precompile_component(&bytes)
        .map_err(|e| failed(&e))?;
    code.write_all(&compiled).map_err(|e| failed(&e))
}

/// Compiles with `program`, or here if there is none or it does not start.
pub(crate) fn compile(
    engine: &Engine,
    program: Option<&Path>,
    max_instances: u32,
    bytes: &[u8],
) -> Result<Vec<u8>> {
    let Some(program) = program else {
        return engine.precompile_component(bytes);
    };
    let child = Command::new(program)
        .args(["compile", &max_instances.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match child {
        Ok(child) => ask(child, bytes),
        Err(error) => {
            tracing::warn!(%error, program = %program.display(), "cannot start the compiler; compiling in this process");
            engine.precompile_component(bytes)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "edge: a process is waited for")]
fn ask(mut child: std::process::Child, bytes: &[u8]) -> Result<Vec<u8>> {
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(format_err!("the compiler has no pipes"));
    };
    let read = |mut pipe: Box<dyn Read + Send>| {
        move || {
            let mut all = Vec::new();
            pipe.read_to_end(&mut all).map(|_| all)
        }
    };
    std::thread::scope(|scope| {
        let code = scope.spawn(read(Box::new(stdout)));
        let complaint = scope.spawn(read(Box::new(stderr)));
        // A compiler that refuses early closes its end: its complaint says more than this error.
        scope.spawn(move || stdin.write_all(bytes));
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begin.elapsed() > TIMEOUT {
                child.kill()?;
                child.wait()?;
                return Err(format_err!(
                    "compiling took longer than {} s",
                    TIMEOUT.as_secs()
                ));
            }
            std::thread::sleep(POLL);
        };
        let joined = |read: std::thread::ScopedJoinHandle<'_, std::io::Result<Vec<u8>>>| {
            read.join().expect("reading does not panic")
        };
        let code = joined(code)?;
        match status.success() {
            true => Ok(code),
            false => {
                let complaint = joined(complaint)?;
                let text = String::from_utf8_lossy(&complaint);
                let text = text.trim();
                Err(format_err!(
                    "{}",
                    if text.is_empty() {
                        "the compiler died"
                    } else {
                        text
                    }
                ))
            }
        }
    })
}
