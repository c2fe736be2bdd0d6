//! A placement whose tasks run: its node, its region and its pods.
//!
//! In: the settings of the placement ([`PlacementSpec`]). Out: running tasks, which end separately: the region
//! check when the placement drains, the registration when its node is removed, and the pod workers last.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Client, ResourceExt as _};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aci::client::GroupScope;
use crate::aci::names::GroupOwner;
use crate::aci::rate_limiter::RateLimiter;
use crate::api::{BurstPool, Placement, ScaleIn};
use crate::controller::ControllerContext;
use crate::controller::placements::drain::backoff::{EvictionPacer, GroupCountPacer};
use crate::kubelet_api::ServedGuard;
use crate::node::capacity::NodeOffer;
use crate::node::last_placement::{Advertised, DiscoveredNode, LastPlacement};
use crate::node::node_object::{self, NodeConfig, Unavailable};
use crate::node::pods::{self, PodSettings, PodsConfig};
use crate::node::{capacity, node_controller, region};

/// The settings with which a placement runs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlacementSpec {
    pub pool: String,
    pub pool_uid: String,
    pub placement: Placement,
    pub scope: GroupScope,
    pub tags: BTreeMap<String, String>,
    pub deletion_cost: i32,
}

impl PlacementSpec {
    /// The settings that the pool's spec asks for.
    pub fn from_pool(pool: &BurstPool, placement: &Placement, scope: &GroupScope) -> Self {
        Self {
            pool: pool.name_any(),
            pool_uid: pool.uid().unwrap_or_default(),
            placement: placement.clone(),
            scope: scope.clone(),
            tags: pool.spec.azure.tags.clone(),
            deletion_cost: pool.spec.scale_in.deletion_cost,
        }
    }

    /// Whether `other` has the same node and the same container groups. All other settings can change while
    /// pods run.
    pub fn is_same_node(&self, other: &Self) -> bool {
        let node = |wanted: &Self| {
            let Placement {
                name,
                region,
                subnet_id,
                ..
            } = &wanted.placement;
            (name.clone(), region.clone(), subnet_id.clone())
        };
        (&self.pool, &self.pool_uid, &self.scope) == (&other.pool, &other.pool_uid, &other.scope)
            && node(self) == node(other)
    }

    /// The settings that can change while pods run.
    fn settings(&self, context: &ControllerContext) -> PodSettings {
        let kube_proxy = context.kube_proxy.clone();
        PodSettings {
            placement: self.placement.clone(),
            tags: self.tags.clone(),
            kube_proxy: kube_proxy.filter(|_| self.placement.network.kube_proxy),
            deletion_cost: self.deletion_cost,
        }
    }

    /// The settings to be recorded on the node.
    pub fn last_placement(&self) -> LastPlacement {
        LastPlacement::new(&self.scope, &self.placement)
    }

    /// The settings that the node records, for a placement that drains or whose pool cannot be read; `None` if
    /// it records none. The pool's tags and deletion cost are not recorded: existing container groups have
    /// their tags already, and the deletion cost is the default, because such a placement is not scaled in.
    pub fn from_node(found: DiscoveredNode) -> Option<Self> {
        let record = found.last_placement?;
        Some(Self {
            pool: found.pool,
            pool_uid: found.pool_uid.unwrap_or_default(),
            scope: record.scope(),
            placement: record.placement,
            tags: BTreeMap::new(),
            deletion_cost: ScaleIn::default().deletion_cost,
        })
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
        wanted: PlacementSpec,
        left: Option<Advertised>,
        context: &ControllerContext,
    ) -> Self {
        let (facts, _) = watch::channel(node_config(&wanted, left, context));
        let pods = Arc::new(pods::PodsContext::new(pods_config(&wanted, context).await));
        let (cancel, tasks) = (context.shutdown.child_token(), TaskTracker::new());
        pods.quota.join(&pods);
        let region = cancel.child_token();
        let registration = RegistrationTask::start(&context.client, &facts, &cancel);
        tasks.spawn(region::run(pods.clone(), facts.clone(), region.clone()));
        tasks.spawn(pods::run(pods.clone(), cancel.clone()));
        Self {
            spec: wanted,
            node_config: facts,
            _served: context.served_nodes.serve(pods.clone()),
            pods,
            registration,
            cancel,
            region_cancel: region,
            tasks,
            evictions: Arc::default(),
            group_counts: Arc::default(),
        }
    }

    /// Applies changed settings to the same node. No task ends or starts.
    pub fn change(&mut self, wanted: PlacementSpec, context: &ControllerContext) {
        let record = wanted.last_placement();
        self.node_config.send_if_modified(|facts| {
            let changed = facts.last_placement != record;
            facts.last_placement = record;
            changed
        });
        self.pods.change(wanted.settings(context));
        self.spec = wanted;
    }

    /// Closes its node for good.
    pub fn start_draining(&self) {
        self.region_cancel.cancel();
        let closed = Unavailable {
            reason: "Draining".to_owned(),
            message: "it is being drained".to_owned(),
        };
        self.node_config.send_if_modified(|facts| {
            let changed = facts.region_unavailable.as_ref() != Some(&closed);
            facts.region_unavailable = Some(closed);
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
        self.registration = RegistrationTask::start(client, &self.node_config, &self.cancel);
    }

    /// Ends all tasks. Nodes, pods and container groups stay.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.registration.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The task that keeps a node registered.
#[derive(Clone)]
pub(super) struct RegistrationTask {
    cancel: CancellationToken,
    task: TaskTracker,
}

impl RegistrationTask {
    fn start(client: &Client, facts: &watch::Sender<NodeConfig>, over: &CancellationToken) -> Self {
        let (cancel, task) = (over.child_token(), TaskTracker::new());
        let kept = node_controller::run(client.clone(), facts.subscribe(), cancel.clone());
        let over = over.clone();
        task.spawn(async move {
            // The pods on another owner's node are not this operator's either.
            if kept.await == node_controller::RegistrationEnd::AnotherOwner {
                over.cancel();
            }
        });
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

/// The rate limiter of reads in a subscription. Drops the limiters of subscriptions that no placement uses now.
async fn pace(subscription: &str, context: &ControllerContext) -> Arc<RateLimiter> {
    let mut paces = context.rate_limiters.lock().await;
    paces.retain(|_, pace| Arc::strong_count(pace) > 1);
    paces.entry(subscription.to_owned()).or_default().clone()
}

async fn pods_config(wanted: &PlacementSpec, context: &ControllerContext) -> PodsConfig {
    let placement = &wanted.placement;
    PodsConfig {
        client: context.client.clone(),
        azure: context.azure.in_region(&placement.region),
        scope: wanted.scope.clone(),
        owner: GroupOwner {
            cluster: context.cluster_uid.clone(),
            pool: wanted.pool.clone(),
            node: node_object::name(&wanted.pool, &placement.name),
        },
        settings: wanted.settings(context),
        address: context.node_address.clone(),
        rate_limiter: pace(&wanted.scope.subscription, context).await,
        azure_failed: Arc::new(Notify::new()),
        pods_changed: context.cache.changed.clone(),
        quota: context
            .quotas
            .region_quota(&wanted.scope, &placement.region),
        list_interval: context.sweep_interval,
        orphan_grace: pods::ORPHAN_GRACE,
        identities: context.identity_namespaces.clone(),
    }
}

/// The initial configuration of a node. A new node is closed until Azure has answered about the region, because
/// its capacity is not known. An existing node keeps what it advertised, so that a change of leader changes
/// nothing.
pub(super) fn node_config(
    wanted: &PlacementSpec,
    left: Option<Advertised>,
    context: &ControllerContext,
) -> NodeConfig {
    let asked = capacity::placement_capacity(&wanted.placement);
    let left = left.unwrap_or_else(|| Advertised {
        offer: NodeOffer {
            allocatable: asked,
            capacity: asked,
        },
        unavailable: Some(Unavailable {
            reason: "Starting".to_owned(),
            message: "Azure has not answered yet what the region offers".to_owned(),
        }),
    });
    NodeConfig {
        pool: wanted.pool.clone(),
        pool_uid: wanted.pool_uid.clone(),
        last_placement: wanted.last_placement(),
        address: context.node_address.clone(),
        port: context.kubelet_port,
        offer: left.offer,
        region_notice: None,
        region_unavailable: left.unavailable,
        creates_failing: None,
        kubernetes_minor: context.kubernetes_minor,
    }
}
