//! What the peak is played on: a cluster, an emulated Azure, home, and the operator's rights.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use burstpool::emulator::{Emulator, EngineSocket, Options as Azure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;

use crate::Mode;
use crate::support::{Cluster, OPERATOR, Options, objects, wait};

/// The cluster's own nodes: name, cores and memory.
const HOME: [(&str, &str, &str); 2] = [("home-1", "4", "16Gi"), ("home-2", "4", "16Gi")];
/// The image of the sample's pods.
const IMAGE: &str = "docker.io/library/nginx:latest";

/// Everything, ready but for the operator.
pub struct Stage {
    pub cluster: Cluster,
    pub azure: Emulator,
    pub has_containers: bool,
    speed: f64,
    kubeconfig: PathBuf,
    token: tempfile::NamedTempFile,
}

impl Stage {
    pub async fn set(mode: Mode) -> anyhow::Result<Self> {
        println!("==> Starting Kubernetes");
        let cluster = Box::pin(Cluster::start(Options::default())).await?;
        println!("==> Starting an emulated Azure");
        let speed = if mode.is_fast { 10.0 } else { 5.0 };
        let (azure, why_not) = azure(speed, mode).await?;
        match &why_not {
            None => println!("    containers are real"),
            Some(why) => println!("    containers are simulated: {why}"),
        }
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
            has_containers: why_not.is_none(),
            speed,
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
            self.azure.url(),
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

    /// Says how to look at it.
    pub fn invite(&self) {
        println!(
            "\n\
             All are ready. In another terminal:\n\n  \
             export KUBECONFIG={}\n  \
             kubectl get bp,nodes,pods -o wide\n\n\
             Azure (any bearer token will do), {} times as fast as the real one:\n\n  \
             {}            what ARM clients talk to\n  \
             {}/_emulator/ what it runs, as a page\n\n\
             Ctrl-C ends everything.\n",
            self.cluster.kubeconfig().display(),
            self.speed,
            self.azure.url(),
            self.azure.url(),
        );
    }

    /// What kubectl says, as the administrator.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::from(self.cluster.kubectl());
        let done = command.args(arguments).kill_on_drop(true).output().await?;
        let why = String::from_utf8_lossy(&done.stderr);
        let what = arguments.join(" ");
        ensure!(done.status.success(), "kubectl {what}: {why}");
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// An Azure, and why its containers are not real, if they are not.
async fn azure(speed: f64, mode: Mode) -> anyhow::Result<(Emulator, Option<String>)> {
    let simulated = Azure {
        speed,
        ..Azure::default()
    };
    let why = if mode.is_fast {
        "that is faster".to_owned()
    } else {
        match image().await {
            Ok(()) => {
                let real = Azure {
                    containers: Some(EngineSocket::Usual),
                    ..simulated.clone()
                };
                match Emulator::start(real).await {
                    Ok(azure) => return Ok((azure, None)),
                    Err(error) => format!("{:#}", anyhow::Error::from(error)),
                }
            }
            Err(why) => why,
        }
    };
    Ok((Emulator::start(simulated).await?, Some(why)))
}

/// Whether an engine answers that has the sample's image, or can get it.
async fn image() -> Result<(), String> {
    use futures::TryStreamExt as _;
    let nobody = |_| "no container engine answers".to_owned();
    let docker = bollard::Docker::connect_with_defaults().map_err(nobody)?;
    docker.ping().await.map_err(nobody)?;
    if docker.inspect_image(IMAGE).await.is_ok() {
        return Ok(());
    }
    let wanted = bollard::query_parameters::CreateImageOptionsBuilder::new()
        .from_image(IMAGE)
        .build();
    let pulled = docker.create_image(Some(wanted), None, None);
    let pulled = pulled.try_for_each(|_| async { Ok(()) });
    match tokio::time::timeout(std::time::Duration::from_secs(60), pulled).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(format!("the container engine cannot get {IMAGE}")),
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

/// Applies the manifests; the kubeconfig of the account that they give the operator.
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
