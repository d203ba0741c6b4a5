//! The binary under measurement: its connections, its CPU time and its memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use oarlock_client::http::{Http, Kubeconfig};
use oarlock_tests::{Oarlock, Options};

use crate::report::{Report, Row};

const IDLE: Duration = Duration::from_secs(5);
/// Clock ticks a second in /proc (USER_HZ).
const TICKS: u64 = 100;

pub async fn connect(server: &Oarlock, connections: usize) -> Result<Vec<Http>> {
    let config = Kubeconfig::load(&server.kubeconfig())?;
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(Http::connect(&config).await?);
    }
    Ok(all)
}

/// CPU time (user and system) of the server so far.
pub fn cpu(server: &Oarlock) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid()))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .context("a stat line")?
        .split_whitespace()
        .collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Resident memory in MiB.
pub fn memory_mib(server: &Oarlock) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("a VmRSS line")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("a number")?
        .parse::<u64>()?
        / 1024)
}

/// Start to ready on an empty directory, on a used one, and idle memory.
#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
pub async fn start_and_idle(report: &mut Report) -> Result<()> {
    let begin = Instant::now();
    let mut server = Oarlock::start(Options {
        own_code: true,
        ..Options::default()
    });
    let first = begin.elapsed();
    tokio::time::sleep(IDLE).await;
    let memory = memory_mib(&server)?;
    let before = cpu(&server)?;
    tokio::time::sleep(IDLE).await;
    let idle_cpu = (cpu(&server)? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    server.stop();
    let begin = Instant::now();
    server.restart();
    let again = begin.elapsed();
    let ms = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1e3);
    let goal = |text: &str| text.to_owned();
    report.add(Row {
        work: "first start to ready".into(),
        result: ms(first),
        note: "compiles the guests".into(),
        ..Row::default()
    });
    report.add(Row {
        work: "later start to ready".into(),
        result: ms(again),
        note: goal("kube-apiserver 3.6 s; aim 0.5 s"),
        ..Row::default()
    });
    report.add(Row {
        work: "idle, 3 nodes".into(),
        result: format!("{memory} MiB"),
        cpu: format!("{idle_cpu:.1} % of a core"),
        note: goal("Kubernetes 480 MiB; aim 60 MiB"),
        ..Row::default()
    });
    Ok(())
}
