//! The command line of `burstpool`.
//!
//! In: the process arguments. Out: a running operator (`run`), or text on standard output (`explain`, `crds`,
//! `version`).

mod admission;
mod arguments;
mod dated;
mod explain;
mod leader_election;
mod renewals;
mod run;

use std::io::Write as _;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::{api, telemetry};

/// Bursts Kubernetes workloads onto Azure Container Instances.
#[derive(Debug, Parser)]
#[command(name = "burstpool", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator
    Run(Box<arguments::RunArguments>),
    /// Explain why a pod spills, waits or is refused, or which workloads of a pool can run on ACI
    Explain(explain::ExplainArguments),
    /// Print the custom resource definition as YAML, for kubectl apply -f -
    Crds,
    /// Print the version
    Version,
}

/// Parses the process arguments and runs the subcommand that they name.
pub fn run() -> anyhow::Result<()> {
    let text = match CommandLine::parse().command {
        Command::Run(arguments) => return run_operator(*arguments),
        Command::Explain(arguments) => run_explain(arguments)?,
        Command::Crds => api::crd_yaml().context("writing the custom resource definition")?,
        Command::Version => format!("burstpool {}\n", env!("CARGO_PKG_VERSION")),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("writing to standard output")
}

/// Runs the operator with these arguments of `burstpool run`, until it stops or the future is dropped.
///
/// # Errors
///
/// If the arguments are invalid, or the operator cannot start or cannot continue.
pub async fn operate(arguments: &[&str]) -> anyhow::Result<()> {
    let command_line = ["burstpool", "run"]
        .into_iter()
        .chain(arguments.iter().copied());
    match CommandLine::try_parse_from(command_line)?.command {
        Command::Run(arguments) => Box::pin(run::run(*arguments)).await,
        Command::Explain(_) | Command::Crds | Command::Version => Ok(()),
    }
}

fn run_explain(arguments: explain::ExplainArguments) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("starting the runtime")?
        .block_on(Box::pin(explain::explain(arguments)))
}

fn run_operator(arguments: arguments::RunArguments) -> anyhow::Result<()> {
    telemetry::logs::init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .context("starting the runtime")?
        .block_on(run::run(arguments))
}
