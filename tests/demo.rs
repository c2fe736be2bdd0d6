//! `make demo`: a Kubernetes cluster with two nodes of its own and an emulated Azure, until Ctrl-C.
//!
//! In: the control plane's binary. Out: both running, and how to use them on standard output.
//! Everything ends with this process, whatever ends it.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

mod support;

use anyhow::Context as _;
use burstpool::emulator::{Emulator, Options as Azure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use support::{Cluster, Options, objects, wait};
use tokio::signal::unix::{SignalKind, signal};

/// The cluster's own nodes: name, cores and memory.
const HOME: [(&str, &str, &str); 2] = [("home-1", "4", "16Gi"), ("home-2", "4", "16Gi")];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        outcome = play() => outcome?,
        _ = interrupt.recv() => println!("\nEnding the cluster and the emulated Azure."),
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Starts both and stays. What it started ends when this future is dropped.
async fn play() -> anyhow::Result<()> {
    println!("==> Starting Kubernetes");
    let cluster = Cluster::start(Options::default()).await?;
    println!("==> Starting an emulated Azure");
    let azure = Emulator::start(Azure {
        speed: 5.0,
        ..Azure::default()
    })
    .await?;
    println!("==> Adding {} nodes", HOME.len());
    for node in HOME {
        add(&cluster, node).await?;
    }
    println!(
        "\n\
         Both are ready. In another terminal:\n\n  \
         export KUBECONFIG={}\n  \
         kubectl get nodes\n\n\
         Azure (any bearer token will do), five times as fast as the real one:\n\n  \
         {}            what ARM clients talk to\n  \
         {}/_emulator/ what it runs, as a page\n\n\
         Ctrl-C ends everything.",
        cluster.kubeconfig().display(),
        azure.url(),
        azure.url(),
    );
    std::future::pending().await
}

async fn add(cluster: &Cluster, (name, cpu, memory): (&str, &str, &str)) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client()?);
    let node = objects::kwok_node(name, cpu, memory, &[]);
    nodes
        .create(&PostParams::default(), &node)
        .await
        .context("adding a node")?;
    let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
    wait::until(nodes, name, &format!("node {name} to be ready"), ready).await?;
    Ok(())
}
