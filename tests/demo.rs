//! `make demo`: a Kubernetes cluster with two nodes of its own, an emulated Azure and the operator; a
//! peak is played, and all stay until Ctrl-C.
//!
//! In: the control plane's binary, `config/samples/burst.yaml`. Out: what happens when, and how to use
//! what runs, on standard output. Everything ends with this process, whatever ends it: the operator
//! runs in it.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

mod support;

use std::time::Instant;

use anyhow::{Context as _, ensure};
use burstpool::emulator::{Emulator, Options as Azure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use support::{Cluster, Options, objects, wait};
use tokio::signal::unix::{SignalKind, signal};

/// The cluster's own nodes: name, cores and memory.
const HOME: [(&str, &str, &str); 2] = [("home-1", "4", "16Gi"), ("home-2", "4", "16Gi")];
/// A workload of pods with one core each, and a pool for it.
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/samples/burst.yaml");
/// How many replicas there are at the peak: home has room for eight.
const PEAK: usize = 12;

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

/// Starts everything, plays a peak and stays. What it started ends when this future is dropped.
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
    println!("==> Starting the operator");
    cluster.install_crds().await?;
    let token = tempfile::NamedTempFile::new()?;
    std::fs::write(token.path(), "any")?;
    let kubeconfig = cluster.kubeconfig().to_string_lossy().into_owned();
    let token = token.path().to_string_lossy();
    let arguments = [
        "--kubeconfig",
        &kubeconfig,
        "--namespace",
        "default",
        "--metrics-listen",
        "127.0.0.1:0",
        "--node-address",
        "127.0.0.1",
        "--arm-endpoint",
        azure.url(),
        "--arm-token-file",
        &token,
        "--subscription-id",
        "00000000-0000-0000-0000-000000000000",
        "--resource-group",
        "rg",
    ];
    println!(
        "\n\
         All are ready. In another terminal:\n\n  \
         export KUBECONFIG={kubeconfig}\n  \
         kubectl get bp,nodes,pods -o wide\n\n\
         Azure (any bearer token will do), five times as fast as the real one:\n\n  \
         {}            what ARM clients talk to\n  \
         {}/_emulator/ what it runs, as a page\n\n\
         Ctrl-C ends everything.\n",
        azure.url(),
        azure.url(),
    );
    tokio::select! {
        ended = burstpool::cli::operate(&arguments) => ended.context("the operator has ended"),
        played = async {
            peak(&cluster, &azure).await?;
            println!("\nAll stay until Ctrl-C: scale the Deployment web yourself.");
            std::future::pending().await
        } => played,
    }
}

/// Scales a workload beyond what home can take, and back.
async fn peak(cluster: &Cluster, azure: &Emulator) -> anyhow::Result<()> {
    let began = Instant::now();
    let say = |what: &str| println!("{:5.1} s  {what}", began.elapsed().as_secs_f64());
    kubectl(cluster, &["apply", "--server-side", "-f", SAMPLE])?;
    say("applied config/samples/burst.yaml: a Deployment web of 3, and a BurstPool peak for it");
    until(cluster, (3, 0, 0)).await?;
    say("quiet: 3 replicas run at home");
    kubectl(
        cluster,
        &["scale", "deployment/web", &format!("--replicas={PEAK}")],
    )?;
    say(&format!(
        "the peak: scaled to {PEAK}, and home has room for 8"
    ));
    until(cluster, (8, 0, PEAK - 8)).await?;
    say("home is full: 4 replicas are refused, and held for 5 s");
    until(cluster, (8, PEAK - 8, 0)).await?;
    say("spilled: 8 run at home and 4 on ACI");
    println!("\n{}", kubectl(cluster, &["get", "burstpool/peak"])?);
    kubectl(cluster, &["scale", "deployment/web", "--replicas=3"])?;
    say("the peak is over: scaled to 3");
    until(cluster, (3, 0, 0)).await?;
    let left = azure.shared().store().groups.len();
    ensure!(left == 0, "{left} container groups are left");
    say("returned: 3 run at home, and no container group is left");
    Ok(())
}

/// Waits until so many replicas run at home and on ACI, and wait, and there are no others.
async fn until(cluster: &Cluster, wanted: (usize, usize, usize)) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client()?, "default");
    let web = watcher::Config::default().labels("app=web");
    let what = format!(
        "{} replicas at home, {} on ACI, {} waiting",
        wanted.0, wanted.1, wanted.2
    );
    let all = wanted.0 + wanted.1 + wanted.2;
    let are_so = |pods: &[Pod]| pods.len() == all && objects::spread(pods) == wanted;
    wait::until_all(pods, web, &what, are_so).await?;
    Ok(())
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let done = cluster.kubectl().args(arguments).output()?;
    let why = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "kubectl {}: {why}",
        arguments.join(" ")
    );
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
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
