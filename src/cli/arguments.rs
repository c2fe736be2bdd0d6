//! The arguments of `burstpool run`. Each of them, except the hidden one, can also be set by an environment variable.
//! The doc comments of the fields are the texts of `--help`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use url::Url;

use crate::aci::client::CloudEndpoints;
use crate::node::environment::AccountName;

/// Run the operator
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Kubeconfig file. By default, the file in KUBECONFIG or ~/.kube/config, and without one, the cluster in which
    /// the operator runs
    #[arg(long, value_name = "FILE", env = "BURSTPOOL_KUBECONFIG")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// For tests: the number of seconds that are added to the machine's clock; may be negative
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(super) clock_shift: i64,
    /// Namespace of the leader election lease. By default, the operator's own namespace, or that of the kubeconfig's
    /// context
    #[arg(long, value_name = "NAME", env = "BURSTPOOL_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Azure cloud: `AzureCloud`, `AzureUSGovernment` or `AzureChinaCloud`
    #[arg(
        long,
        value_name = "NAME",
        default_value = "AzureCloud",
        env = "AZURE_ENVIRONMENT"
    )]
    pub(super) cloud: CloudEndpoints,
    /// URL of Azure Resource Manager, scheme and host, if it is not the cloud's: for example the emulator's
    #[arg(long, value_name = "URL", env = "BURSTPOOL_ARM_ENDPOINT")]
    pub(super) arm_endpoint: Option<Url>,
    /// Authority that issues Azure tokens, scheme and host, if it is not the cloud's
    #[arg(long, value_name = "URL", env = "AZURE_AUTHORITY_HOST")]
    pub(super) authority: Option<String>,
    /// File with CA certificates, in PEM, that are trusted for Azure in addition to the system's
    #[arg(long, value_name = "FILE", env = "BURSTPOOL_ARM_CA_FILE")]
    pub(super) arm_ca_file: Option<PathBuf>,
    /// File with an Azure token. By default, the operator uses workload identity, a client secret or the machine's
    /// managed identity, as the environment variables of Azure's SDKs configure it
    #[arg(long, value_name = "FILE", env = "BURSTPOOL_ARM_TOKEN_FILE")]
    pub(super) arm_token_file: Option<PathBuf>,
    /// Hosts, separated by commas, that may receive the operator's Azure token from triggers with azureCredential, in
    /// addition to Azure Monitor's own; subdomains are included
    #[arg(
        long,
        value_name = "HOST",
        value_delimiter = ',',
        env = "BURSTPOOL_AZURE_MONITOR_HOSTS"
    )]
    pub(super) azure_monitor_host: Vec<String>,
    /// Namespaces, separated by commas, whose pods may choose managed identities with the annotations
    /// burstpool.io/identity and burstpool.io/image-pull-identity: each identity that the operator's own identity may
    /// assign. By default none; * means all
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        env = "BURSTPOOL_POD_IDENTITY_NAMESPACES"
    )]
    pub(super) pod_identity_namespaces: Vec<String>,
    /// Subscription ID of pools that do not set spec.azure.subscriptionId
    #[arg(
        long,
        value_name = "ID",
        env = "AZURE_SUBSCRIPTION_ID",
        default_value = ""
    )]
    pub(super) subscription_id: String,
    /// Resource group of pools that do not set spec.azure.resourceGroup
    #[arg(
        long,
        value_name = "NAME",
        env = "AZURE_RESOURCE_GROUP",
        default_value = ""
    )]
    pub(super) resource_group: String,
    /// HTTPS URL at which pods on ACI reach the API server, for placements with network.kubeProxy. By default, the
    /// server of --kubeconfig; required for such placements if --kubeconfig is not given
    #[arg(long, value_name = "URL", env = "BURSTPOOL_API_SERVER_URL")]
    pub(super) api_server_url: Option<Url>,
    /// Service account whose tokens kube-proxies on ACI get. By default, burstpool-kube-proxy in the namespace of the
    /// leader election lease
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "BURSTPOOL_KUBE_PROXY_SERVICE_ACCOUNT"
    )]
    pub(super) kube_proxy_service_account: Option<AccountName>,
    /// IP address at which the API server reaches this process. Virtual nodes have this address
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pub(super) node_address: IpAddr,
    /// Listen address of the kubelet API, which serves kubectl logs, exec, attach and port-forward, and metrics.
    /// Virtual nodes announce its port
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:10250",
        env = "BURSTPOOL_KUBELET_LISTEN"
    )]
    pub(super) kubelet_listen: SocketAddr,
    /// Listen address of /metrics, /healthz and /readyz
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        env = "BURSTPOOL_METRICS_LISTEN"
    )]
    pub(super) metrics_listen: SocketAddr,
    /// Listen address for alerts of Alertmanager, at the path /alerts, for pools with alert triggers. Only the leader
    /// listens. By default, the operator receives no alerts
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "alerts_token_file",
        env = "BURSTPOOL_ALERTS_LISTEN"
    )]
    pub(super) alerts_listen: Option<SocketAddr>,
    /// File with the bearer token that senders of alerts must present, read for each request
    #[arg(
        long,
        value_name = "FILE",
        requires = "alerts_listen",
        env = "BURSTPOOL_ALERTS_TOKEN_FILE"
    )]
    pub(super) alerts_token_file: Option<PathBuf>,
    /// Certificate of the kubelet API, in PEM; a changed file is read again. By default, the operator creates a
    /// self-signed certificate for --node-address
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_key_file",
        env = "BURSTPOOL_KUBELET_CERT_FILE"
    )]
    pub(super) kubelet_cert_file: Option<PathBuf>,
    /// Private key of --kubelet-cert-file, in PEM
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_cert_file",
        env = "BURSTPOOL_KUBELET_KEY_FILE"
    )]
    pub(super) kubelet_key_file: Option<PathBuf>,
}
