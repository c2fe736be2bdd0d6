//! The command line of `burstpool`.

mod lead;
mod run;

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::api;

/// Bursts Kubernetes workloads onto Azure Container Instances.
#[derive(Debug, Parser)]
#[command(name = "burstpool", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator
    Run(Box<run::Arguments>),
    /// Print the custom resource definitions as YAML, for kubectl apply -f -
    Crds,
    /// Print the version
    Version,
}

/// Runs what the arguments ask for.
pub fn run() -> anyhow::Result<()> {
    let text = match Arguments::parse().command {
        Command::Run(arguments) => return operator(*arguments),
        Command::Crds => api::crd_yaml().context("writing the custom resource definition")?,
        Command::Version => format!("burstpool {}\n", env!("CARGO_PKG_VERSION")),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("writing to standard output")
}

/// Runs the operator with these arguments of `burstpool run`, until it ends or is dropped.
///
/// # Errors
///
/// When the arguments are wrong, or the operator cannot begin or go on.
pub async fn operate(arguments: &[&str]) -> anyhow::Result<()> {
    let all = ["burstpool", "run"]
        .into_iter()
        .chain(arguments.iter().copied());
    match Arguments::try_parse_from(all)?.command {
        Command::Run(arguments) => Box::pin(run::run(*arguments)).await,
        Command::Crds | Command::Version => Ok(()),
    }
}

fn operator(arguments: run::Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .context("starting the runtime")?
        .block_on(run::run(arguments))
}
