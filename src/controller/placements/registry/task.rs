//! A placement whose tasks run: its node, its region and its pods.
//!
//! In: the settings of the placement ([`PlacementSpec`]). Out: running tasks, which end separately: the region
//! check when the placement drains, the registration when its node is removed, and the pod workers last.

mod spec;

use std::collections::HashMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use crate::aci::client::{AciClient, GroupScope};
use crate::aci::image::ImageReader;
use crate::aci::names::GroupOwner;
use crate::aci::rate_limiter::RateLimiter;
use crate::aci::translate::IdentityNamespaces;
use crate::controller::cache::cluster::ClusterCache;
use crate::controller::placements::drain_pace::{EvictionPacer, GroupCountPacer};
use crate::kubelet_api::{NodeRegistry, ServedGuard};
use crate::node::capacity::NodeResourceStatus;
use crate::node::environment::KubeProxy;
use crate::node::last_placement::Advertised;
use crate::node::node_object::{NodeConfig, Unavailable};
use crate::node::pods::{self, PodsConfig};
use crate::node::probe::{ProbePath, Prober};
use crate::node::quota::QuotaRegistry;
use crate::node::service_cache::ServiceCache;
use crate::node::{capacity, node_controller, region};
pub(super) use spec::PlacementSpec;

/// How often the node shows whether its probes reach its pods.
const PROBE_PATH_INTERVAL: Duration = Duration::from_secs(5);

/// What the tasks of placements need; the same for all placements.
pub struct PlacementParts {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The Azure client.
    pub azure: AciClient,
    /// The subscription and resource group of pools that do not name their own.
    pub default_scope: GroupScope,
    /// The UID of the cluster's `kube-system` namespace; it marks the container groups that this cluster owns.
    pub cluster_uid: String,
    /// The IP address of the virtual nodes.
    pub node_address: String,
    /// The port of the kubelet API.
    pub kubelet_port: i32,
    /// The minor version of Kubernetes that the virtual nodes report.
    pub kubernetes_minor: u32,
    /// The interval between two listings of container groups.
    pub list_interval: Duration,
    /// What kube-proxy on ACI needs; `None` if the address of the API server is not configured.
    pub kube_proxy: Option<KubeProxy>,
    /// The namespaces whose pods may choose managed identities.
    pub identity_namespaces: IdentityNamespaces,
    /// Reads the configurations of images.
    pub images: ImageReader,
    /// The nodes that the kubelet API serves.
    pub served_nodes: NodeRegistry,
    /// The watched objects: pools, and nodes as the API server has them.
    pub cache: Arc<ClusterCache>,
}

/// What the tasks of placements need, and what they share.
pub(super) struct TaskContext {
    pub parts: PlacementParts,
    /// By subscription ID, the rate limiter of reads from Azure.
    rate_limiters: Mutex<HashMap<String, Arc<RateLimiter>>>,
    /// The quotas of regions, which the placements of all pools share.
    quotas: QuotaRegistry,
    /// The cluster's Services, which the pods of all nodes share.
    pub services: Arc<ServiceCache>,
    /// Sends the probes of all nodes.
    prober: Prober,
    /// Cancelled when this instance stops leading or shuts down: ends all tasks.
    pub shutdown: CancellationToken,
}

impl TaskContext {
    pub fn new(parts: PlacementParts) -> Self {
        Self {
            prober: Prober::new(&format!("1.{}", parts.kubernetes_minor)),
            parts,
            rate_limiters: Mutex::default(),
            quotas: QuotaRegistry::default(),
            services: Arc::default(),
            shutdown: CancellationToken::new(),
        }
    }

    /// The rate limiter of reads in a subscription. Drops the limiters of subscriptions that no placement uses
    /// now.
    async fn rate_limiter(&self, subscription: &str) -> Arc<RateLimiter> {
        let mut limiters = self.rate_limiters.lock().await;
        limiters.retain(|_, limiter| Arc::strong_count(limiter) > 1);
        limiters.entry(subscription.to_owned()).or_default().clone()
    }
}

/// The running tasks of a placement.
pub(super) struct PlacementTask {
    pub spec: PlacementSpec,
    pub node_config: watch::Sender<NodeConfig>,
    pub pods: Arc<pods::PodsContext>,
    pub registration: RegistrationTask,
    /// Guard: the kubelet API serves the node until this value is dropped.
    _served: ServedGuard,
    pub cancel: CancellationToken,
    /// Ends only the region check, so that a draining node stays closed.
    region_cancel: CancellationToken,
    pub tasks: TaskTracker,
    /// The results of evictions of its pods, while it drains.
    pub evictions: Arc<Mutex<EvictionPacer>>,
    /// The results of counts of its container groups, while it drains.
    pub group_counts: Arc<Mutex<GroupCountPacer>>,
}

impl PlacementTask {
    /// Starts the tasks. Until Azure has answered about the region, the node advertises the same as before the
    /// change of leader (`advertised`).
    pub async fn start(
        spec: PlacementSpec,
        advertised: Option<Advertised>,
        context: &TaskContext,
    ) -> Self {
        let (config, _) = watch::channel(node_config(&spec, advertised, &context.parts));
        let pods = Arc::new(pods::PodsContext::new(pods_config(&spec, context).await));
        let (cancel, tasks) = (context.shutdown.child_token(), TaskTracker::new());
        pods.quota.join(&pods);
        let region_cancel = cancel.child_token();
        let span = spec.span();
        let registration = RegistrationTask::start(&context.parts.client, &config, &cancel, &span);
        let region = region::run(pods.clone(), config.clone(), region_cancel.clone());
        tasks.spawn(region.instrument(span.clone()));
        tasks.spawn(pods::run(pods.clone(), cancel.clone()).instrument(span));
        let shown = show_probe_path(pods.clone(), config.clone());
        // A node that is drained keeps the condition.
        tasks.spawn(region_cancel.clone().run_until_cancelled_owned(shown));
        Self {
            spec,
            node_config: config,
            _served: context.parts.served_nodes.serve(pods.clone()),
            pods,
            registration,
            cancel,
            region_cancel,
            tasks,
            evictions: Arc::default(),
            group_counts: Arc::default(),
        }
    }

    /// Applies changed settings to the same node. No task ends or starts.
    pub fn change(&mut self, spec: PlacementSpec, context: &TaskContext) {
        let record = spec.last_placement();
        self.node_config.send_if_modified(|config| {
            let changed = config.last_placement != record;
            config.last_placement = record;
            changed
        });
        self.pods.change(spec.settings(context));
        self.spec = spec;
    }

    /// Closes its node for good.
    pub fn start_draining(&self) {
        self.region_cancel.cancel();
        let closed = Unavailable {
            reason: "Draining".to_owned(),
            message: "it is being drained".to_owned(),
        };
        self.node_config.send_if_modified(|config| {
            let changed = config.region_unavailable.as_ref() != Some(&closed);
            config.region_unavailable = Some(closed);
            changed
        });
    }

    /// Whether the tasks ended because the node belongs to another owner.
    pub fn has_lost_node(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether the node is closed for good, or the tasks have ended.
    pub fn is_draining(&self) -> bool {
        self.region_cancel.is_cancelled()
    }

    /// Registers the node again.
    pub fn register(&mut self, client: &Client) {
        self.registration =
            RegistrationTask::start(client, &self.node_config, &self.cancel, &self.spec.span());
    }

    /// Ends all tasks. Nodes, pods and container groups stay.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.registration.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Shows on the node whether its probes reach its pods.
async fn show_probe_path(pods: Arc<pods::PodsContext>, config: watch::Sender<NodeConfig>) {
    let mut every = tokio::time::interval(PROBE_PATH_INTERVAL);
    loop {
        every.tick().await;
        let path = pods.probe_path();
        config.send_if_modified(|config| {
            let kind = |path: Option<ProbePath>| path.map(|path| discriminant(&path));
            let is_change = kind(config.probe_path) != kind(path);
            config.probe_path = path;
            is_change
        });
    }
}

/// The task that keeps a node registered.
#[derive(Clone)]
pub(super) struct RegistrationTask {
    cancel: CancellationToken,
    task: TaskTracker,
}

impl RegistrationTask {
    fn start(
        client: &Client,
        config: &watch::Sender<NodeConfig>,
        placement_cancel: &CancellationToken,
        span: &Span,
    ) -> Self {
        let (cancel, task) = (placement_cancel.child_token(), TaskTracker::new());
        let registered = node_controller::run(client.clone(), config.subscribe(), cancel.clone());
        let placement_cancel = placement_cancel.clone();
        let registered = async move {
            // The pods on another owner's node are not this operator's either.
            if registered.await == node_controller::RegistrationEnd::AnotherOwner {
                placement_cancel.cancel();
            }
        };
        task.spawn(registered.instrument(span.clone()));
        task.close();
        Self { cancel, task }
    }

    /// Whether the registration task runs and is not cancelled.
    #[cfg(test)]
    pub fn is_running(&self) -> bool {
        !self.cancel.is_cancelled() && !self.task.is_empty()
    }

    /// Cancels the registration, and returns after its last write to the node.
    pub async fn stop(&self) {
        self.cancel.cancel();
        self.task.wait().await;
    }
}

async fn pods_config(spec: &PlacementSpec, context: &TaskContext) -> PodsConfig {
    let (parts, placement) = (&context.parts, &spec.placement);
    PodsConfig {
        client: parts.client.clone(),
        azure: parts.azure.in_region(&placement.region),
        scope: spec.scope.clone(),
        owner: GroupOwner {
            cluster: parts.cluster_uid.clone(),
            pool: spec.pool.clone(),
            node: spec.id().node_name(),
        },
        settings: spec.settings(context),
        address: parts.node_address.clone(),
        rate_limiter: context.rate_limiter(&spec.scope.subscription).await,
        azure_failed: Arc::new(Notify::new()),
        pods_changed: parts.cache.changed.clone(),
        services: context.services.clone(),
        quota: context.quotas.region_quota(&spec.scope, &placement.region),
        list_interval: parts.list_interval,
        orphan_grace: pods::ORPHAN_GRACE,
        identities: parts.identity_namespaces.clone(),
        images: parts.images.clone(),
        prober: context.prober.clone(),
    }
}

/// The initial configuration of a node. A new node is closed until Azure has answered about the region, because
/// its capacity is not known. An existing node keeps what it advertised, so that a change of leader changes
/// nothing.
pub(super) fn node_config(
    spec: &PlacementSpec,
    advertised: Option<Advertised>,
    parts: &PlacementParts,
) -> NodeConfig {
    let capacity = capacity::placement_capacity(&spec.placement);
    let advertised = advertised.unwrap_or_else(|| Advertised {
        offer: NodeResourceStatus {
            allocatable: capacity,
            capacity,
        },
        unavailable: Some(Unavailable {
            reason: "Starting".to_owned(),
            message: "Azure has not answered yet what the region offers".to_owned(),
        }),
    });
    NodeConfig {
        pool: spec.pool.clone(),
        pool_uid: spec.pool_uid.clone(),
        last_placement: spec.last_placement(),
        address: parts.node_address.clone(),
        port: parts.kubelet_port,
        offer: advertised.offer,
        region_notice: None,
        region_unavailable: advertised.unavailable,
        creates_failing: None,
        probe_path: None,
        kubernetes_minor: parts.kubernetes_minor,
    }
}
