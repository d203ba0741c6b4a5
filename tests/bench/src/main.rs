//! Benchmarks through the real API of the real binary: `cargo run --release -p oarlock-bench`. Prints a table: what was done per
//! second, latencies, the server's CPU per operation, and the ratio to a reference that ran in the same run.

mod api;
mod engines;
mod load;
#[path = "../../../host/scheduler/tests/native/mod.rs"]
mod native;
mod reference;
mod report;
mod scheduling;
mod server;

use anyhow::Result;
use clap::Parser;

use report::Report;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of the whole control plane. Without arguments: everything.
#[derive(Debug, Parser)]
struct Args {
    /// Only parts with this in their name: reference, engines, start, api, watch, schedule.
    #[arg(long, default_value = "")]
    only: String,
    /// Pods to create and to schedule.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Sizes of the clusters to schedule on.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 5000])]
    nodes: Vec<u32>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut report = Report::default();
    let wanted = |part: &str| part.contains(&args.only);
    runtime.block_on(async {
        if wanted("reference") {
            reference::run(&mut report).await?;
        }
        if wanted("engines") {
            engines::run(&mut report)?;
        }
        if wanted("start") {
            server::start_and_idle(&mut report).await?;
        }
        if wanted("api") {
            api::run(&mut report, args.pods).await?;
        }
        if wanted("watch") {
            api::watch_fan_out(&mut report).await?;
        }
        if wanted("schedule") {
            for nodes in &args.nodes {
                for around in [scheduling::Around::Nothing, scheduling::Around::Cluster] {
                    scheduling::run(&mut report, around, *nodes, args.pods).await?;
                }
            }
        }
        anyhow::Ok(())
    })?;
    report.print();
    Ok(())
}
