//! The composition of the controller: each module gets what it needs, and nothing else.
//!
//! In: [`ControllerParts`], from the command line. Out: a [`ControllerContext`], for reconciliations.

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use super::cache::cluster::ClusterCache;
use super::grants::{ExecutorParts, GrantParts, PlanSummaries};
use super::placements::deleted_pools::DeletedPools;
use super::placements::drain::PlacementDrain;
use super::placements::pool_nodes::PoolNodes;
use super::placements::registry::{PlacementParts, PlacementRegistry};
use super::status::writer::StatusWriter;
use super::triggers::alert_receiver::ReceiverSettings;
use super::triggers::{TriggerParts, TriggerTasks};
use super::unreadable_pools::UnreadablePools;
use crate::aci::translate::IdentityNamespaces;
use crate::telemetry::Metrics;

/// What the controller needs from the process.
pub struct ControllerParts {
    /// The Kubernetes client, with retries.
    pub client: Client,
    /// The Kubernetes client, without retries, for evictions and for the writes of the leader.
    pub client_no_retry: Client,
    /// The watched objects from which grants are planned.
    pub cache: Arc<ClusterCache>,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
    /// The identity of this instance of the operator.
    pub identity: String,
    /// The namespace of the leader's Lease.
    pub lease_namespace: String,
    /// What the virtual nodes need.
    pub placements: PlacementParts,
    /// The hosts to which `azureCredential` of a trigger may send Azure's token; subdomains are included.
    pub monitor_hosts: Vec<String>,
    /// The settings of the alert receiver; `None` if it is off.
    pub alert_receiver: Option<ReceiverSettings>,
}

/// The modules of the controller, put together.
pub(super) struct ControllerContext {
    /// The Kubernetes client, with retries.
    pub client: Client,
    pub metrics: Arc<Metrics>,
    /// By pool, the summary of its last plan, for its status.
    pub plan_summaries: watch::Sender<PlanSummaries>,
    pub alert_receiver: Option<ReceiverSettings>,
    pub registry: Arc<PlacementRegistry>,
    pub pool_nodes: PoolNodes,
    pub drain: PlacementDrain,
    pub deleted_pools: DeletedPools,
    pub unreadable_pools: UnreadablePools,
    pub status_writer: Arc<StatusWriter>,
    pub triggers: Arc<TriggerTasks>,
    executor: Arc<ExecutorParts>,
    node_address: String,
    identity_namespaces: IdentityNamespaces,
}

impl ControllerContext {
    /// Puts the modules together. No task runs yet.
    pub fn new(parts: ControllerParts) -> Self {
        let triggers = Arc::new(trigger_tasks(&parts));
        let node_address = parts.placements.node_address.clone();
        let identity_namespaces = parts.placements.identity_namespaces.clone();
        let registry = Arc::new(PlacementRegistry::new(parts.placements));
        let pool_nodes = PoolNodes {
            client: parts.client.clone(),
            cache: parts.cache.clone(),
            registry: registry.clone(),
        };
        let drain = PlacementDrain {
            client: parts.client.clone(),
            client_no_retry: parts.client_no_retry.clone(),
            registry: registry.clone(),
        };
        let status_writer = StatusWriter::new(parts.client.clone(), parts.cache.clone());
        let status_writer = Arc::new(status_writer);
        Self {
            plan_summaries: watch::Sender::default(),
            alert_receiver: parts.alert_receiver,
            deleted_pools: DeletedPools {
                nodes: pool_nodes.clone(),
                drain: drain.clone(),
            },
            unreadable_pools: UnreadablePools {
                client: parts.client.clone(),
                identity: parts.identity.clone(),
                metrics: parts.metrics.clone(),
                nodes: pool_nodes.clone(),
                registry: registry.clone(),
                status_writer: status_writer.clone(),
            },
            executor: Arc::new(ExecutorParts {
                client: parts.client_no_retry,
                cache: parts.cache,
                identity: parts.identity,
                lease_namespace: parts.lease_namespace,
                metrics: parts.metrics.clone(),
            }),
            triggers,
            client: parts.client,
            metrics: parts.metrics,
            registry,
            pool_nodes,
            drain,
            status_writer,
            node_address,
            identity_namespaces,
        }
    }

    /// What the grant loop needs.
    pub fn grant_parts(&self) -> GrantParts {
        GrantParts {
            client: self.client.clone(),
            executor: self.executor.clone(),
            registry: self.registry.clone(),
            triggers: self.triggers.clone(),
            summaries: self.plan_summaries.clone(),
            node_address: self.node_address.clone(),
            identity_namespaces: self.identity_namespaces.clone(),
        }
    }

    /// Drops the state of a pool that no longer exists although it was due for another reconciliation.
    pub async fn forget_pool(&self, pool: &str) {
        self.triggers.remove(pool).await;
        self.metrics.forget_pool(pool);
        self.status_writer.forget(pool);
    }
}

/// The triggers of all pools; none runs yet.
fn trigger_tasks(parts: &ControllerParts) -> TriggerTasks {
    TriggerTasks::new(TriggerParts {
        client: parts.client.clone(),
        azure: parts.placements.azure.clone(),
        cache: parts.cache.clone(),
        metrics: parts.metrics.clone(),
        identity: parts.identity.clone(),
        monitor_hosts: parts.monitor_hosts.clone(),
    })
}
