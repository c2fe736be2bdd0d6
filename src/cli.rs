//! The command line of `burstpool`.

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

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
    /// Print the custom resource definitions as YAML, for kubectl apply -f -
    Crds,
    /// Print the version
    Version,
}

/// Runs what the arguments ask for.
pub fn run() -> anyhow::Result<()> {
    let text = match Arguments::parse().command {
        Command::Crds => api::crd_yaml().context("writing the custom resource definition")?,
        Command::Version => format!("burstpool {}\n", env!("CARGO_PKG_VERSION")),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("writing to standard output")
}
