//! The arguments of `burstpool run`. Most can also be set by an environment variable. The doc comments of the
//! fields are the texts of `--help`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use url::Url;

use crate::aci::client::Cloud;
use crate::node::environment::AccountName;

/// Run the operator
#[derive(Debug, Args)]
pub struct Arguments {
    /// Kubeconfig file; the cluster that this runs in if not given
    #[arg(long, value_name = "FILE", env = "BURSTPOOL_KUBECONFIG")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// By how many seconds the machine's clock is taken to be ahead of what it says, in tests
    #[arg(
        long,
        hide = true,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(super) clock_shift: i64,
    /// The namespace of the leader's lease; the operator's own, or the kubeconfig's, if not given
    #[arg(long, value_name = "NAME", env = "BURSTPOOL_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// Which Azure: `AzureCloud`, `AzureUSGovernment` or `AzureChinaCloud`
    #[arg(
        long,
        value_name = "NAME",
        default_value = "AzureCloud",
        env = "AZURE_ENVIRONMENT"
    )]
    pub(super) cloud: Cloud,
    /// Another Azure Resource Manager, such as the emulator's
    #[arg(long, value_name = "URL", env = "BURSTPOOL_ARM_ENDPOINT")]
    pub(super) arm_endpoint: Option<Url>,
    /// Where tokens come from, for another cloud; scheme and host
    #[arg(long, value_name = "URL", env = "AZURE_AUTHORITY_HOST")]
    pub(super) authority: Option<String>,
    /// A file with certificates to trust besides the system's, in PEM
    #[arg(long, value_name = "FILE", env = "BURSTPOOL_ARM_CA_FILE")]
    pub(super) arm_ca_file: Option<PathBuf>,
    /// A file with a token; without it, workload identity, a client secret or the machine's managed
    /// identity, by the environment variables that Azure's clients use
    #[arg(long, value_name = "FILE", env = "BURSTPOOL_ARM_TOKEN_FILE")]
    pub(super) arm_token_file: Option<PathBuf>,
    /// Hosts besides Azure Monitor's own, themselves and all below them, that get the operator's Azure token
    /// where a pool's trigger has azureCredential; separated by commas
    #[arg(
        long,
        value_name = "HOST",
        value_delimiter = ',',
        env = "BURSTPOOL_AZURE_MONITOR_HOSTS"
    )]
    pub(super) azure_monitor_host: Vec<String>,
    /// The namespaces whose pods may choose managed identities, by the annotations burstpool.io/identity and
    /// burstpool.io/image-pull-identity, of all that the operator's own identity may assign; separated by
    /// commas, * for all; none if not given
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        env = "BURSTPOOL_POD_IDENTITY_NAMESPACES"
    )]
    pub(super) pod_identity_namespaces: Vec<String>,
    /// The subscription of pools that name none
    #[arg(
        long,
        value_name = "ID",
        env = "AZURE_SUBSCRIPTION_ID",
        default_value = ""
    )]
    pub(super) subscription_id: String,
    /// The resource group of pools that name none
    #[arg(
        long,
        value_name = "NAME",
        env = "AZURE_RESOURCE_GROUP",
        default_value = ""
    )]
    pub(super) resource_group: String,
    /// Where pods on ACI reach the API server, for placements with network.kubeProxy; the kubeconfig's
    /// server if not given
    #[arg(long, value_name = "URL", env = "BURSTPOOL_API_SERVER_URL")]
    pub(super) api_server_url: Option<Url>,
    /// The service account whose tokens kube-proxies on ACI get; burstpool-kube-proxy in the namespace
    /// of the leader's lease if not given
    #[arg(
        long,
        value_name = "NAMESPACE/NAME",
        env = "BURSTPOOL_KUBE_PROXY_SERVICE_ACCOUNT"
    )]
    pub(super) kube_proxy_service_account: Option<AccountName>,
    /// The address under which the API server reaches this process
    #[arg(long, value_name = "IP", env = "POD_IP")]
    pub(super) node_address: IpAddr,
    /// Where the kubelet API listens, which serves kubectl logs, exec and the like; nodes name its port
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:10250",
        env = "BURSTPOOL_KUBELET_LISTEN"
    )]
    pub(super) kubelet_listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080",
        env = "BURSTPOOL_METRICS_LISTEN"
    )]
    pub(super) metrics_listen: SocketAddr,
    /// Where alerts come in, at /alerts, for pools with alert triggers; they do not if not given
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "alerts_token_file",
        env = "BURSTPOOL_ALERTS_LISTEN"
    )]
    pub(super) alerts_listen: Option<SocketAddr>,
    /// A file with the bearer token that senders of alerts must have
    #[arg(
        long,
        value_name = "FILE",
        requires = "alerts_listen",
        env = "BURSTPOOL_ALERTS_TOKEN_FILE"
    )]
    pub(super) alerts_token_file: Option<PathBuf>,
    /// The kubelet API's certificate in PEM, read again when it changes; one is made if not given
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_key_file",
        env = "BURSTPOOL_KUBELET_CERT_FILE"
    )]
    pub(super) kubelet_cert_file: Option<PathBuf>,
    /// The key of that certificate
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_cert_file",
        env = "BURSTPOOL_KUBELET_KEY_FILE"
    )]
    pub(super) kubelet_key_file: Option<PathBuf>,
}
