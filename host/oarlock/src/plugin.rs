//! `oarlock plugin`: makes, builds and looks into plugins; needs no cluster.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use oarlock_wasm::author;
use oarlock_wasm::inspect::{Inspection, inspect};

use crate::component::{Output, print};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the crate of a new plugin from the template
    New(New),
    /// Build a plugin's crate to a component
    Build(Build),
    /// Tell what a component imports and exports, and whether it would load
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub struct New {
    /// Name of the plugin and of its folder
    name: String,
    /// Where the SDK (sdk/rust of Oarlock's source) is [default: where this binary was built]
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
    /// Folder to make it in
    #[arg(long, default_value = ".", value_name = "DIR")]
    parent: PathBuf,
}

#[derive(Debug, Args)]
pub struct Build {
    /// The plugin's crate
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where to build [default: target in the crate's workspace]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// The component (.wasm)
    file: PathBuf,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

impl Command {
    pub fn run(self) -> Result<()> {
        match self {
            Self::New(new) => {
                let sdk = new.sdk.unwrap_or_else(author::default_sdk);
                let folder = author::new_plugin(&new.name, &new.parent, &sdk)?;
                println!("made {}", folder.display());
                println!("  cargo test             tries its logic");
                println!("  oarlock plugin build   makes it a component");
                Ok(())
            }
            Self::Build(build) => {
                let built =
                    author::build_plugin(&build.dir, build.target_dir.as_deref(), |line| {
                        eprintln!("{line}");
                    })?;
                eprintln!("built {}", built.path.display());
                show(build.output, &built.inspection)
            }
            Self::Inspect(look) => {
                let shown = look.file.display().to_string();
                let bytes =
                    std::fs::read(&look.file).with_context(|| format!("cannot read {shown}"))?;
                show(look.output, &inspect(&shown, &bytes)?)
            }
        }
    }
}

fn show(output: Output, inspection: &Inspection) -> Result<()> {
    let value = serde_json::to_value(inspection)?;
    print(output, &value, |_| {
        inspection.to_string().trim_end().to_owned()
    })
}
