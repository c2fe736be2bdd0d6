//! `burstpool run`: assembles and runs the operator.
//!
//! In: arguments and environment variables. Out: a process that waits for leadership, reconciles while it leads,
//! and ends with an error when it cannot continue. Nodes, pods and container groups stay as they are when it ends.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::admission::AdmissionWarnings;
use super::arguments::RunArguments;
use super::dated::connected;
use super::leader_election::{lead, lease_client};
use crate::aci::client::{self, ClientSettings, CloudEndpoints, Credential, GroupScope};
use crate::aci::image::{ImageReader, ImageReaderSettings, RegistryHostGuard};
use crate::aci::translate::kube_proxy::ApiServer;
use crate::controller::grants::ClusterCache;
use crate::controller::triggers::alert_receiver::ReceiverSettings;
use crate::controller::{ControllerParts, PlacementParts};
use crate::kubelet_api::{self, NodeRegistry};
use crate::node::environment::{AccountName, KubeProxy, SERVICE_ACCOUNT};
use crate::node::pods::LIST_INTERVAL;
use crate::telemetry::{self, Metrics, ServerClock};

/// The newest minor version of Kubernetes whose types this program uses.
const NEWEST_MINOR: u32 = 37;

/// Runs until SIGTERM or SIGINT, or until it cannot continue.
pub async fn run(arguments: RunArguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let config = kube_config(arguments.kubeconfig.as_deref()).await?;
    let namespace = arguments
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let kube_proxy = kube_proxy(&arguments, &config, &namespace)?;
    let kubelet = TcpListener::bind(arguments.kubelet_listen).await;
    let kubelet =
        kubelet.with_context(|| format!("--kubelet-listen: {}", arguments.kubelet_listen))?;
    let port = kubelet.local_addr().context("--kubelet-listen")?.port();
    let leases = lease_client(&config)?;
    let metrics_listener = telemetry::bind(arguments.metrics_listen).await?;
    let process = ProcessSettings {
        kubelet_port: i32::from(port),
        kube_proxy,
        lease_namespace: namespace,
    };
    let parts = controller_parts(&arguments, config, process).await?;
    let cancel = CancellationToken::new();
    let kubelet_server = serve(&arguments, kubelet, &parts, cancel.clone()).await?;
    let admission = AdmissionWarnings::default();
    let telemetry_server = telemetry::serve(
        metrics_listener,
        parts.metrics.clone(),
        readiness_check(&parts, &admission),
        cancel.clone(),
    );
    let (client, shutdown) = (parts.client.clone(), cancel.clone());
    let admission_check = async move { admission.run(&client, &shutdown).await };
    let leader = lead(parts, leases, cancel.clone());
    tokio::pin!(leader, kubelet_server, telemetry_server, admission_check);
    let ended = tokio::select! {
        ended = &mut leader => Some(ended),
        () = &mut kubelet_server => Some(Err(anyhow::anyhow!("the kubelet API has ended"))),
        ended = &mut telemetry_server => Some(ended),
        () = &mut admission_check => None,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    tracing::info!("shutting down; nodes, pods and container groups stay as they are");
    cancel.cancel();
    match ended {
        Some(ended) => ended,
        None => tokio::join!(leader, kubelet_server, telemetry_server).0,
    }
}

/// Starts the server of the kubelet API.
async fn serve(
    arguments: &RunArguments,
    listener: TcpListener,
    parts: &ControllerParts,
    cancel: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let source = match (&arguments.kubelet_cert_file, &arguments.kubelet_key_file) {
        (Some(certificate), Some(key)) => kubelet_api::CertificateSource::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        },
        _ => kubelet_api::CertificateSource::SelfSigned(arguments.node_address),
    };
    let settings = kubelet_api::KubeletApiSettings {
        listener,
        certificate_source: source,
        client: parts.client.clone(),
        nodes: parts.placements.served_nodes.clone(),
    };
    let server = kubelet_api::listen(settings, cancel).await;
    server.context("serving the kubelet API")
}

/// The readiness of this process: the caches that it still waits for, and its warnings.
fn readiness_check(
    parts: &ControllerParts,
    admission: &AdmissionWarnings,
) -> telemetry::ReadinessCheck {
    let (cache, admission) = (parts.cache.clone(), admission.clone());
    Arc::new(move || telemetry::Readiness {
        missing: cache.not_synced(),
        warnings: admission.warnings(),
    })
}

/// The connection settings from a kubeconfig, or from the environment.
pub(super) async fn kube_config(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    match kubeconfig {
        None => Config::infer()
            .await
            .context("finding the cluster: outside of a cluster, set --kubeconfig"),
        Some(path) => {
            let reading = || format!("reading {}", path.display());
            let kubeconfig = Kubeconfig::read_from(path).with_context(reading)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .with_context(reading)
        }
    }
}

/// The settings of ACI's kube-proxy; `None` if the URL of the API server for container groups is not known. It
/// cannot be found from inside the cluster, where pods use a cluster IP, which container groups cannot reach
/// without kube-proxy.
fn kube_proxy(
    arguments: &RunArguments,
    config: &Config,
    namespace: &str,
) -> anyhow::Result<Option<KubeProxy>> {
    let url = match (&arguments.api_server_url, &arguments.kubeconfig) {
        (Some(url), _) if url.scheme() != "https" => {
            bail!("--api-server-url: {url} must begin with https://, because tokens are sent there")
        }
        (Some(url), _) => url.to_string(),
        (None, Some(_)) => config.cluster_url.to_string(),
        (None, None) => return Ok(None),
    };
    let default_account = || AccountName {
        namespace: namespace.to_owned(),
        name: SERVICE_ACCOUNT.to_owned(),
    };
    let account = arguments.kube_proxy_service_account.clone();
    Ok(Some(KubeProxy {
        account: account.unwrap_or_else(default_account),
        api_server: ApiServer {
            url: url.trim_end_matches('/').to_owned(),
            certificate_authority: server_ca_certificates(config)?,
        },
    }))
}

/// The CA certificates of the API server, in PEM.
fn server_ca_certificates(config: &Config) -> anyhow::Result<Vec<u8>> {
    if let Some(path) = &config.root_cert_file {
        return std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    }
    let certificates = config.root_cert.iter().flatten();
    let certificates = certificates.map(|der| pem::Pem::new("CERTIFICATE", der.clone()));
    let encoding = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(pem::encode_many_config(&certificates.collect::<Vec<_>>(), encoding).into_bytes())
}

/// What this process offers to the controller, beside its arguments.
struct ProcessSettings {
    /// The port of the kubelet API.
    kubelet_port: i32,
    /// The settings of ACI's kube-proxy, if it can be used.
    kube_proxy: Option<KubeProxy>,
    /// The namespace of the leader's Lease.
    lease_namespace: String,
}

/// Connects to Kubernetes and Azure, and assembles what the controller needs.
async fn controller_parts(
    arguments: &RunArguments,
    config: Config,
    process: ProcessSettings,
) -> anyhow::Result<ControllerParts> {
    let mut no_retry_config = config.clone();
    no_retry_config.default_retry = false;
    let shift = SignedDuration::from_secs(arguments.clock_shift);
    let clock = Arc::new(ServerClock::shifted(shift));
    let metrics = Arc::new(Metrics::new());
    let client = connected(config, &clock, &metrics)?;
    let client_no_retry = connected(no_retry_config, &clock, &metrics)?;
    let cluster = ClusterIdentity::read(&client).await?;
    let cache = Arc::new(ClusterCache::with_clock(clock));
    let azure = azure_client(arguments)?.with_metrics(metrics.clone());
    let alerts = arguments
        .alerts_listen
        .zip(arguments.alerts_token_file.clone());
    Ok(ControllerParts {
        placements: PlacementParts {
            client: client.clone(),
            images: image_reader(&azure)?,
            azure,
            default_scope: GroupScope {
                subscription: arguments.subscription_id.clone(),
                resource_group: arguments.resource_group.clone(),
            },
            cluster_uid: cluster.uid,
            node_address: arguments.node_address.to_string(),
            kubelet_port: process.kubelet_port,
            kubernetes_minor: cluster.minor,
            list_interval: LIST_INTERVAL,
            kube_proxy: process.kube_proxy,
            identity_namespaces: arguments.pod_identity_namespaces.iter().cloned().collect(),
            served_nodes: NodeRegistry::default(),
            cache: cache.clone(),
        },
        client,
        client_no_retry,
        cache,
        metrics,
        identity: uuid::Uuid::new_v4().to_string(),
        lease_namespace: process.lease_namespace,
        monitor_hosts: monitor_hosts(arguments),
        alert_receiver: alerts.map(|(listen, token_file)| ReceiverSettings { listen, token_file }),
    })
}

/// What the operator reads of the cluster once.
struct ClusterIdentity {
    /// The UID of the namespace kube-system, which identifies the cluster.
    uid: String,
    /// The minor version of Kubernetes, at most [`NEWEST_MINOR`].
    minor: u32,
}

impl ClusterIdentity {
    async fn read(client: &Client) -> anyhow::Result<Self> {
        let version = client
            .apiserver_version()
            .await
            .context("reading the version of Kubernetes")?;
        let minor = version
            .minor
            .trim_end_matches('+')
            .parse()
            .unwrap_or(NEWEST_MINOR);
        let kube_system = Api::<Namespace>::all(client.clone())
            .get("kube-system")
            .await;
        let kube_system = kube_system
            .context("reading the namespace kube-system, whose UID identifies this cluster")?;
        Ok(Self {
            uid: kube_system.metadata.uid.context("kube-system has no UID")?,
            minor: NEWEST_MINOR.min(minor),
        })
    }
}

/// The reader of images' configurations. In Azure Container Registry it can use the operator's identity.
fn image_reader(azure: &client::AciClient) -> anyhow::Result<ImageReader> {
    let azure = azure.clone();
    let settings = ImageReaderSettings {
        guard: RegistryHostGuard::default(),
        tokens: Arc::new(move || {
            let azure = azure.clone();
            async move { azure.registry_token().await }.boxed()
        }),
        timeout: None,
    };
    ImageReader::new(settings).context("setting up the client for container registries")
}

/// The hosts of Azure Monitor: the cloud's own, and those of `--azure-monitor-host`.
fn monitor_hosts(arguments: &RunArguments) -> Vec<String> {
    let cloud_host = arguments.cloud.monitor_host().to_owned();
    let additional = arguments.azure_monitor_host.iter();
    let additional = additional.map(|host| host.trim().trim_matches('.').to_ascii_lowercase());
    let additional = additional.filter(|host| !host.is_empty());
    std::iter::once(cloud_host).chain(additional).collect()
}

fn azure_client(arguments: &RunArguments) -> anyhow::Result<client::AciClient> {
    let cloud = cloud_endpoints(arguments)?;
    let extra_ca = match &arguments.arm_ca_file {
        Some(path) => std::fs::read(path).with_context(|| format!("reading {}", path.display()))?,
        None => Vec::new(),
    };
    let settings = ClientSettings {
        cloud: cloud.clone(),
        extra_ca,
    };
    let http =
        client::http_client(&settings).context("reading the certificates of --arm-ca-file")?;
    let credential = match &arguments.arm_token_file {
        Some(path) => Credential::File(path.clone()),
        None => Credential::from_environment(|name| std::env::var(name).ok(), &cloud, &http)
            .map_err(|error| anyhow::anyhow!("finding an Azure credential: {error}"))?,
    };
    tracing::info!(%cloud, ?credential, "using Azure");
    Ok(client::AciClient::new(&cloud, credential, http))
}

/// The endpoints of the Azure cloud, with those that the arguments replace.
fn cloud_endpoints(arguments: &RunArguments) -> anyhow::Result<CloudEndpoints> {
    let mut cloud = arguments.cloud.clone();
    if let Some(arm) = &arguments.arm_endpoint {
        if arm.path() != "/" {
            bail!("--arm-endpoint: {arm} has a path; it must be scheme and host only");
        }
        cloud = cloud.with_arm(arm.clone());
    }
    if let Some(authority) = &arguments.authority {
        cloud = cloud.with_authority(authority);
    }
    Ok(cloud)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct RunCommandLine {
        #[command(flatten)]
        run: RunArguments,
    }

    /// The kube-proxy settings for these arguments, in a cluster whose API server is `https://127.0.0.1:6443`.
    fn settings_for(arguments: &[&str]) -> anyhow::Result<Option<KubeProxy>> {
        let required = ["burstpool", "--node-address", "10.1.2.3"];
        let line = RunCommandLine::try_parse_from(required.iter().chain(arguments))?;
        let mut config = Config::new("https://127.0.0.1:6443/".parse()?);
        config.root_cert = Some(vec![b"der".to_vec()]);
        kube_proxy(&line.run, &config, "system")
    }

    #[test]
    fn kube_proxy_settings_come_from_the_flags_or_the_kubeconfig() {
        assert_eq!(
            settings_for(&[]).expect("arguments"),
            None,
            "inside a cluster the URL is not known"
        );
        let url_and_account = |arguments: &[&str]| {
            let settings = settings_for(arguments)
                .expect("arguments")
                .expect("a kube-proxy");
            (settings.api_server.url, settings.account.to_string())
        };
        let url = "https://api.example:443/";
        assert_eq!(
            url_and_account(&["--api-server-url", url]),
            (
                "https://api.example".into(),
                "system/burstpool-kube-proxy".into()
            )
        );
        let account = ["--kube-proxy-service-account", "net/proxy"];
        assert_eq!(
            url_and_account(&["--kubeconfig", "f", account[0], account[1]]),
            ("https://127.0.0.1:6443".into(), "net/proxy".into())
        );
        let settings = settings_for(&["--kubeconfig", "f"])
            .expect("arguments")
            .expect("a kube-proxy");
        assert_eq!(
            settings.api_server.certificate_authority,
            b"-----BEGIN CERTIFICATE-----\nZGVy\n-----END CERTIFICATE-----\n"
        );
    }

    #[test]
    fn an_error_names_the_invalid_kube_proxy_flag() {
        let error_for =
            |arguments: &[&str]| settings_for(arguments).expect_err("an error").to_string();
        let plaintext_url = error_for(&["--api-server-url", "http://api.example"]);
        assert!(
            plaintext_url.contains("--api-server-url") && plaintext_url.contains("https://"),
            "{plaintext_url}"
        );
        let account = error_for(&["--kube-proxy-service-account", "proxy"]);
        assert!(account.contains("NAMESPACE/NAME"), "{account}");
    }
}
