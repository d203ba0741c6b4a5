//! References in the same run: what this disk's fsync allows, and etcd (Debian's `etcd-server`) if it is installed.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::{Report, Row, latency, per_second};

const FSYNCS: usize = 200;
const PUTS: usize = 2000;
const WORKERS: usize = 64;

#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
pub async fn run(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = std::fs::File::create(dir.path().join("log"))?;
    let (begin, mut samples) = (Instant::now(), Vec::new());
    for _ in 0..FSYNCS {
        let one = Instant::now();
        file.write_all(&[0u8; 4096])?;
        file.sync_data()?;
        samples.push(one.elapsed());
    }
    report.add(Row {
        work: "reference: 4 KiB append + fsync".into(),
        result: per_second(FSYNCS, begin.elapsed()),
        latency: latency(samples),
        ..Row::default()
    });
    etcd(report, dir.path()).await
}

/// Durable puts of 2.4 KB by 64 workers through etcd's JSON gateway over plain HTTP (its own `benchmark` is not packaged,
/// and etcdctl starts too slowly).
async fn etcd(report: &mut Report, dir: &std::path::Path) -> Result<()> {
    let client = "http://127.0.0.1:23790";
    let started = Command::new("etcd")
        .args([
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
            "--log-level",
            "error",
        ])
        .args(["--listen-peer-urls", "http://127.0.0.1:23800", "--data-dir"])
        .arg(dir.join("etcd"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut etcd) = started else {
        report.add(Row {
            work: "reference: etcd".into(),
            result: "not installed".into(),
            ..Row::default()
        });
        return Ok(());
    };
    let result = puts(client.trim_start_matches("http://")).await;
    let _ = etcd.kill();
    let _ = etcd.wait();
    let (took, samples) = result?;
    report.add(Row {
        work: "reference: etcd puts of 2.4 KB".into(),
        result: per_second(PUTS, took),
        latency: latency(samples),
        note: "64 workers, HTTP gateway".into(),
        ..Row::default()
    });
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "edge: a benchmark measures time")]
async fn puts(address: &str) -> Result<(Duration, Vec<Duration>)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let deadline = Instant::now() + Duration::from_secs(10);
    while tokio::net::TcpStream::connect(address).await.is_err() {
        anyhow::ensure!(Instant::now() < deadline, "etcd did not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let value = "A".repeat(3200);
    let begin = Instant::now();
    let tasks: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (address, value) = (address.to_owned(), value.clone());
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await?;
                let mut samples = Vec::new();
                let mut answer = vec![0u8; 4096];
                for _ in 0..PUTS / WORKERS {
                    let body = format!(
                        r#"{{"key":"{:04}{:08}","value":"{value}"}}"#,
                        worker,
                        samples.len()
                    );
                    let head = format!(
                        "POST /v3/kv/put HTTP/1.1\r\nHost: e\r\nContent-Length: {}\r\n\r\n",
                        body.len()
                    );
                    let one = Instant::now();
                    stream.write_all(head.as_bytes()).await?;
                    stream.write_all(body.as_bytes()).await?;
                    anyhow::ensure!(
                        stream.read(&mut answer).await? > 0,
                        "etcd closed the connection"
                    );
                    samples.push(one.elapsed());
                }
                anyhow::Ok(samples)
            })
        })
        .collect();
    let mut samples = Vec::new();
    for task in tasks {
        samples.extend(task.await??);
    }
    Ok((begin.elapsed(), samples))
}
