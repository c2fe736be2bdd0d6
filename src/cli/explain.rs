//! `burstpool explain`: reads a running cluster with the permissions of the kubeconfig.
//!
//! In: a pool, and optionally a pod. Out: a text that explains the operator's decision. The doc comments of the
//! argument fields are the texts of `--help`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use kube::Client;

use super::run::kube_config;
use crate::explain::{self, ExplainQuery};

/// Explain why a pod spills, waits or is refused
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// Name of the `BurstPool`
    #[arg(value_name = "POOL")]
    pool: String,
    /// Name of the pod. Without it, the text shows which workloads of the pool can run on ACI, and which fields
    /// prevent the others
    #[arg(value_name = "POD")]
    pod: Option<String>,
    /// Namespace of the pod. By default, the namespace of the kubeconfig's context
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Namespaces whose pods may choose managed identities, separated by commas: the value of the operator's option
    /// of this name
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        env = "BURSTPOOL_POD_IDENTITY_NAMESPACES"
    )]
    pod_identity_namespaces: Vec<String>,
    /// Kubeconfig file. By default, the file in KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// The explanation as text.
pub async fn explain(arguments: ExplainArguments) -> anyhow::Result<String> {
    let config = kube_config(arguments.kubeconfig.as_deref()).await?;
    let namespace = arguments
        .namespace
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("connecting to Kubernetes")?;
    let query = ExplainQuery {
        pool: arguments.pool,
        pod: arguments.pod.map(|name| (namespace, name)),
        identities: arguments.pod_identity_namespaces.into_iter().collect(),
    };
    Box::pin(explain::explain(&client, &query)).await
}
