//! `make demo`: plays a whole peak on a Kubernetes cluster with two nodes of its own, an emulated Azure
//! and the operator with exactly the rights of its manifests.
//!
//! In: the control plane's binary, `config`, and, if installed, Prometheus and a container engine. Out:
//! on standard output the events of the peak in the pool's own words, and a summary. The operator runs
//! in this process, and everything ends with it, even if it is killed. The demo fails if any step
//! fails.
//!
//! ```text
//! azure ─▶ stage (cluster, nodes, rights, operator) ─▶ peak (steps) ─▶ summary
//!                                                      └─▶ view (replicas and the pool's words, as they change)
//! ```

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

mod azure;
mod load;
mod peak;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod view;

use anyhow::{Context as _, bail};
use azure::Azure;
use stage::Stage;
use tokio::signal::unix::{SignalKind, signal};

/// How to play the peak.
#[derive(Clone, Copy, Debug, Default)]
struct Mode {
    /// One line per step, without long waits.
    is_fast: bool,
    /// Keep everything running until Ctrl-C.
    holds: bool,
}

impl Mode {
    fn of(arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut mode = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--fast" => mode.is_fast = true,
                "--hold" => mode.holds = true,
                other => bail!("{other}: only --fast and --hold are known"),
            }
        }
        Ok(mode)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mode = Mode::of(std::env::args().skip(1))?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut told = Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => println!("\nEnding the cluster and the emulated Azure."),
            _ = terminate.recv() => {}
        }
    });
    let azure = tokio::select! {
        azure = Azure::start(mode) => azure?,
        () = &mut told => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = Box::pin(play(mode, &azure)) => outcome,
        () = &mut told => Ok(()),
    };
    // Real containers do not end with this process.
    azure.emulator.stop().await;
    outcome
}

/// Starts everything else and plays a peak. Dropping this future ends what it started.
async fn play(mode: Mode, azure: &Azure) -> anyhow::Result<()> {
    let stage = Stage::set(azure).await?;
    let arguments = stage.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    stage.invite();
    tokio::select! {
        ended = burstpool::cli::operate(&arguments) => {
            ended.context("the operator has ended")?;
            bail!("the operator has ended")
        }
        played = async {
            peak::play(&stage, mode).await?;
            if mode.holds {
                println!(
                    "\nEverything stays until Ctrl-C. Now make a peak of your own:\n\n  \
                     kubectl scale deployment/web --replicas=12"
                );
                std::future::pending::<()>().await;
            }
            anyhow::Ok(())
        } => played,
    }
}
