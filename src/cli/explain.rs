//! `burstpool explain`: reads a running cluster with the permissions of the kubeconfig.
//!
//! In: a pool, and optionally a pod. Out: a text that explains the operator's decision. The doc comments of the
//! argument fields are the texts of `--help`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kube::Client;

use super::run::kubernetes;
use crate::controller::spill::{self, Question};

/// Tell why a pod spills, waits or is refused
#[derive(Debug, Args)]
pub struct Arguments {
    /// The `BurstPool`
    #[arg(value_name = "POOL")]
    pool: String,
    /// A pod; without one, which of the pool's workloads could run on ACI, and which field keeps the others off
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// The pod's namespace; the kubeconfig's if not given
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// The operator's option of this name: the namespaces whose pods may choose managed identities
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        env = "BURSTPOOL_POD_IDENTITY_NAMESPACES"
    )]
    pod_identity_namespaces: Vec<String>,
    /// Kubeconfig file; KUBECONFIG or ~/.kube/config if not given
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// The explanation as text.
pub async fn explain(arguments: Arguments) -> anyhow::Result<String> {
    let config = kubernetes(arguments.kubeconfig.as_deref()).await?;
    let namespace = arguments
        .namespace
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("connecting to Kubernetes")?;
    let question = Question {
        pool: arguments.pool,
        pod: arguments.pod.map(|name| (namespace, name)),
        identities: arguments.pod_identity_namespaces.into_iter().collect(),
    };
    Box::pin(spill::explain(&client, &question)).await
}
