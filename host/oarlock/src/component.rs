//! `oarlock component`: stores a component's bytes in the cluster, in chunks named by digest, and a `Component` for it.
//!
//! The `Component` is written last, so it never names bytes that are not there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use hyper::Method;
use oarlock_client::http::{Http, HttpError, Kubeconfig};
use oarlock_kinds::own::MAX_CHUNK_BYTES;
use serde_json::{Value, json};

const API: &str = "/apis/oarlock.dev/v1alpha1";
/// No component is larger; the largest known (Python) has 18 MiB.
const MAX_COMPONENT_BYTES: usize = 64 << 20;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Store a component by digest; pushing the same file again changes nothing
    Push(Push),
    /// The components of the cluster
    List(List),
}

/// Which cluster.
#[derive(Debug, Args)]
struct Target {
    /// Kubeconfig of the cluster [default: $KUBECONFIG, ~/.oarlock/kubeconfig]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Push {
    /// The component (.wasm)
    file: PathBuf,
    /// Name of the Component [default: the file's name]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    target: Target,
    /// How the list is printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
    Yaml,
    Table,
}

impl Command {
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self {
                Self::Push(push) => push.run().await,
                Self::List(list) => list.run().await,
            }
        })
    }
}

impl Target {
    async fn connect(&self) -> Result<Http> {
        let from_environment = || std::env::var_os("KUBECONFIG").map(PathBuf::from);
        let own =
            || std::env::var_os("HOME").map(|home| Path::new(&home).join(".oarlock/kubeconfig"));
        let path = self
            .kubeconfig
            .clone()
            .or_else(from_environment)
            .or_else(own);
        let path = path.context("which cluster? say --kubeconfig FILE")?;
        let config = Kubeconfig::load(&path)?;
        Http::connect(&config)
            .await
            .context("is `oarlock up` running?")
    }
}

impl Push {
    async fn run(self) -> Result<()> {
        let shown = self.file.display();
        let bytes = std::fs::read(&self.file).with_context(|| format!("cannot read {shown}"))?;
        ensure!(
            bytes.len() <= MAX_COMPONENT_BYTES,
            "{shown} is larger than {} MiB",
            MAX_COMPONENT_BYTES >> 20
        );
        let inspection = oarlock_wasm::inspect::inspect(&shown.to_string(), &bytes)?;
        if let Some(why) = inspection.refused {
            bail!("{shown} would be refused: {why}");
        }
        let name = match self.name {
            Some(name) => name,
            None => default_name(&self.file)?,
        };
        let http = self.target.connect().await?;
        let chunks: Vec<&[u8]> = bytes.chunks(MAX_CHUNK_BYTES).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            eprint!("\rpushing {name}: {} of {} chunks", index + 1, chunks.len());
            put_chunk(&http, &inspection.digest, index, chunk).await?;
        }
        eprintln!();
        let component = json!({
            "apiVersion": "oarlock.dev/v1alpha1", "kind": "Component", "metadata": {"name": name},
            "spec": {"digest": inspection.digest, "size": bytes.len(), "chunks": chunks.len()},
        });
        let path = format!("{API}/components/{name}?fieldManager=oarlock&force=true");
        let body = Bytes::from(component.to_string());
        let stored = http
            .call(Method::PATCH, &path, "application/apply-patch+yaml", body)
            .await?;
        print(self.output, &serde_json::from_slice(&stored)?, |stored| {
            format!(
                "component/{name} {}",
                stored["spec"]["digest"].as_str().unwrap_or_default()
            )
        })
    }
}

/// Makes the chunk, unless it is there: its name says what it holds.
async fn put_chunk(http: &Http, digest: &str, index: usize, chunk: &[u8]) -> Result<()> {
    let object = json!({
        "apiVersion": "oarlock.dev/v1alpha1", "kind": "ComponentChunk",
        "metadata": {"name": oarlock_client::chunk_name(digest, index)},
        "digest": digest, "index": index, "data": STANDARD.encode(chunk),
    });
    match http
        .json(
            Method::POST,
            &format!("{API}/componentchunks"),
            Some(&object),
        )
        .await
    {
        Ok(_) | Err(HttpError::Refused { code: 409, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The file's name as an object's name: `cost_aware.wasm` is `cost-aware`.
fn default_name(file: &Path) -> Result<String> {
    let stem = file
        .file_stem()
        .and_then(|s| s.to_str())
        .context("say --name NAME")?;
    let name = stem.to_lowercase().replace('_', "-");
    ensure!(
        oarlock_model::selector::is_dns_subdomain(&name),
        "{name:?} is no name for an object: say --name NAME"
    );
    Ok(name)
}

impl List {
    async fn run(self) -> Result<()> {
        let http = self.target.connect().await?;
        let list = http
            .json(Method::GET, &format!("{API}/components"), None)
            .await?;
        print(self.output, &list, |list| {
            let mut table = comfy_table::Table::new();
            table
                .load_preset(comfy_table::presets::NOTHING)
                .set_header(["NAME", "DIGEST", "SIZE"]);
            for item in list["items"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let spec = &item["spec"];
                table.add_row([
                    text(&item["metadata"]["name"]),
                    text(&spec["digest"]),
                    spec["size"].to_string(),
                ]);
            }
            table.to_string()
        })
    }
}

/// Prints an object in the form asked for.
pub fn print(output: Output, value: &Value, table: impl FnOnce(&Value) -> String) -> Result<()> {
    match output {
        Output::Json => println!("{value:#}"),
        Output::Yaml => print!("{}", serde_saphyr::to_string(value)?),
        Output::Table => println!("{}", table(value)),
    }
    Ok(())
}
