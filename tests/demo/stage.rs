//! The demo's surroundings besides Azure: a cluster, home nodes, and the operator's rights.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;

use crate::azure::Azure;
use crate::support::{Cluster, OPERATOR, Options, objects, wait};

/// The cluster's own nodes: name, cores and memory.
const HOME: [(&str, &str, &str); 2] = [("home-1", "4", "16Gi"), ("home-2", "4", "16Gi")];

/// Everything except the operator.
pub struct Stage<'a> {
    pub cluster: Cluster,
    pub azure: &'a Azure,
    kubeconfig: PathBuf,
    token: tempfile::NamedTempFile,
}

impl<'a> Stage<'a> {
    pub async fn set(azure: &'a Azure) -> anyhow::Result<Self> {
        println!("==> Starting Kubernetes");
        let cluster = Box::pin(Cluster::start(Options::default())).await?;
        println!("==> Adding {} nodes", HOME.len());
        for node in HOME {
            add(&cluster, node).await?;
        }
        println!("==> Installing the operator's rights from config/");
        let kubeconfig = rights(&cluster)?;
        let token = tempfile::NamedTempFile::new()?;
        std::fs::write(token.path(), "any")?;
        Ok(Self {
            cluster,
            azure,
            kubeconfig,
            token,
        })
    }

    /// The arguments of `burstpool run`.
    pub fn arguments(&self) -> Vec<String> {
        let words = [
            "--namespace",
            OPERATOR,
            "--node-address",
            "127.0.0.1",
            "--metrics-listen",
            "127.0.0.1:0",
            "--kubelet-listen",
            "127.0.0.1:0",
            "--resource-group",
            "rg",
            "--subscription-id",
            "00000000-0000-0000-0000-000000000000",
            "--arm-endpoint",
            self.azure.emulator.url(),
        ];
        let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let paths = [
            ("--kubeconfig", self.kubeconfig.as_path()),
            ("--arm-token-file", self.token.path()),
        ];
        for (flag, path) in paths {
            all.extend([flag.to_owned(), path.to_string_lossy().into_owned()]);
        }
        all
    }

    /// Prints commands for looking at the demo.
    pub fn invite(&self) {
        println!(
            "\n\
             Everything is ready. In another terminal:\n\n  \
             export KUBECONFIG={}\n  \
             kubectl get bp,nodes,pods -o wide    # or: target/controlplane kubectl get ...\n\n\
             Azure (any bearer token will do), {} times as fast as the real one:\n\n  \
             {}            what ARM clients talk to\n  \
             {}/_emulator/ what it runs, as a page\n\n\
             Ctrl-C ends everything.\n",
            self.cluster.kubeconfig().display(),
            self.azure.speed,
            self.azure.emulator.url(),
            self.azure.emulator.url(),
        );
    }

    /// Runs kubectl as the administrator, and returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::from(self.cluster.kubectl());
        let done = command.args(arguments).kill_on_drop(true).output().await?;
        let why = String::from_utf8_lossy(&done.stderr);
        let what = arguments.join(" ");
        ensure!(done.status.success(), "kubectl {what}: {why}");
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
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

/// Applies the manifests. Returns the kubeconfig of the operator's account.
fn rights(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let operator = cluster.install_rights()?;
    cluster.apply("scaling", &[])?;
    let served = [
        "wait",
        "--for=condition=Established",
        "crd/burstpools.burstpool.io",
        "--timeout=60s",
    ];
    cluster.ask(&served)?;
    Ok(cluster.kubeconfig_of(OPERATOR, &operator)?)
}
