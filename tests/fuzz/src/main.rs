//! `oarlock-fuzz --target NAME|all --seconds N [--seed S]`: fuzzes, tells, and ends with 1 if it found something.
//!
//! Each target runs in a process of its own, so that one that overflows its stack ends that process only; the input is then
//! read from the file that the process kept it in.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, bail};
use oarlock_fuzz::{Limit, Target, keep_input_in, run, targets};

/// As the server's threads have it.
const STACK_BYTES: usize = 2 << 20;
const HOSTILE_BYTES: usize = 3_000_000;
/// An execution that took longer is told, though it is no finding.
const SLOW: Duration = Duration::from_millis(300);
const USAGE: &str =
    "oarlock-fuzz --target NAME|all --seconds N [--seed S] [--hostile BYTES] | --list";

struct Flags {
    target: String,
    seconds: u64,
    seed: u64,
    hostile: usize,
    /// Of a process for one target: the file to keep inputs in.
    keep: Option<PathBuf>,
}

fn flags() -> anyhow::Result<Option<Flags>> {
    let mut flags = Flags {
        target: "all".to_owned(),
        seconds: 10,
        seed: 1,
        hostile: HOSTILE_BYTES,
        keep: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--list" {
            return Ok(None);
        }
        let value = arguments.next().context(USAGE)?;
        match name.as_str() {
            "--target" => flags.target = value,
            "--seconds" => flags.seconds = value.parse().context(USAGE)?,
            "--seed" => flags.seed = value.parse().context(USAGE)?,
            "--hostile" => flags.hostile = value.parse().context(USAGE)?,
            "--keep" => flags.keep = Some(value.into()),
            _ => bail!("{USAGE}"),
        }
    }
    Ok(Some(flags))
}

fn main() -> anyhow::Result<ExitCode> {
    let Some(flags) = flags()? else {
        for target in targets::all() {
            println!("{}", target.name);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let all = targets::all();
    let wanted: Vec<&Target> = all
        .iter()
        .filter(|target| flags.target == "all" || flags.target == target.name)
        .collect();
    match (wanted.as_slice(), &flags.keep) {
        ([], _) => bail!("there is no target {:?}; {USAGE}", flags.target),
        ([target], Some(file)) => inside(target, &flags, file),
        (wanted, _) => {
            let mut good = true;
            for target in wanted {
                good &= outside(target, &flags)?;
            }
            Ok(ExitCode::from(u8::from(!good)))
        }
    }
}

/// Fuzzes in a process of its own; true if nothing was found.
fn outside(target: &Target, flags: &Flags) -> anyhow::Result<bool> {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let status = Command::new(std::env::current_exe()?)
        .args(["--target", target.name])
        .args(["--seconds", &flags.seconds.to_string()])
        .args(["--seed", &flags.seed.to_string()])
        .args(["--hostile", &flags.hostile.to_string()])
        .arg("--keep")
        .arg(file.path())
        .status()?;
    if status.code().is_none() {
        let mut kept = Vec::new();
        file.read_to_end(&mut kept)?;
        let (length, input) = kept.split_first_chunk().context("no input was kept")?;
        let length = usize::try_from(u64::from_le_bytes(*length))?;
        let input = input.get(..length).unwrap_or(input);
        println!(
            "FOUND in {} (seed {}): ended by {status}\n  input: {}",
            target.name,
            flags.seed,
            targets::literal(input)
        );
    }
    Ok(status.success())
}

fn inside(target: &Target, flags: &Flags, file: &PathBuf) -> anyhow::Result<ExitCode> {
    keep_input_in(std::fs::OpenOptions::new().write(true).open(file)?);
    let (target, seed, hostile) = (*target, flags.seed, flags.hostile);
    let limit = Limit::Time(Duration::from_secs(flags.seconds));
    let report = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || run(&target, seed, limit, hostile))?
        .join();
    let Ok(report) = report else {
        bail!("the fuzzer itself failed");
    };
    let rate = report.executions as f64 / report.took.as_secs_f64().max(1e-3);
    println!(
        "{:16} {:>9} executions {:>8.0}/s {:>6} new  slowest {:>7.1} ms  most {:>5} KiB  {} found",
        target.name,
        report.executions,
        rate,
        report.new,
        report.slowest.as_secs_f64() * 1e3,
        report.largest_bytes / 1024,
        report.findings.len()
    );
    if report.slowest > SLOW {
        println!("  slowest: {}", report.slowest_input);
    }
    for finding in &report.findings {
        println!("{finding}");
    }
    Ok(ExitCode::from(u8::from(!report.findings.is_empty())))
}
