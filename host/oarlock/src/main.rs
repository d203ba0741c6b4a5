//! The binary: flags, configuration, wiring, signals and the command line.

mod audit;
mod component;
mod issuers;
mod logging;
mod plugin;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Kubernetes-compatible control plane whose schedulers and controllers are WebAssembly components.
#[derive(Debug, Parser)]
#[command(
    name = "oarlock",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    /// What is logged, as in `info` or `oarlock_scheduler=debug,warn`.
    #[arg(
        long,
        global = true,
        env = "OARLOCK_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    log: String,
    /// Log as JSON, one object a line.
    #[arg(long, global = true)]
    log_json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane in this process until Ctrl-C or SIGTERM.
    Up(Box<up::Up>),
    /// Store and look at components in a running cluster.
    #[command(subcommand)]
    Component(component::Command),
    /// Make, build and look into plugins; needs no cluster.
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Compiles a component from standard input to standard output: what `up` runs beside itself.
    #[command(hide = true)]
    Compile { max_instances: u32 },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = logging::start(&cli.log, cli.log_json).and_then(|()| match cli.command {
        Command::Up(up) => up.run(),
        Command::Component(command) => command.run(),
        Command::Plugin(command) => command.run(),
        Command::Compile { max_instances } => Ok(oarlock_wasm::compile::serve(
            max_instances,
            std::io::stdin(),
            std::io::stdout(),
        )?),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
