//! A cache of the objects from which grants are planned. To save memory, a pod is kept as the fields that plans
//! need, and a pending pod also as JSON.
//!
//! In: watches of pods without a node (by field selector), of pods with a pool's label, of namespaces, of
//! virtual nodes and of pools. Out: a [`Snapshot`] of all of them, and a notification of every change.
//! Followers run the watches too, so that a new leader starts without LIST calls.

mod recent;
mod sync_state;
mod waiting;
mod watches;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::{self, BurstPool};
use crate::burst::{NamespaceLabels, PodFacts};
use crate::node::watched_pod::WatchedPod;
use crate::telemetry::ServerClock;
use recent::RecentMap;
use sync_state::CachePart;
pub use sync_state::{FailureKind, SyncFailure, SyncState};
pub use waiting::WaitingPod;
use waiting::insert_waiting;

/// A snapshot of the cache.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Pools by name. For a pool that cannot be read now, the last version that could.
    pub pools: BTreeMap<String, Arc<BurstPool>>,
    /// The names of pools that exist and cannot be read.
    pub unreadable: BTreeSet<String>,
    /// Pending pods without a node, by UID.
    pub waiting: HashMap<String, WaitingPod>,
    /// Pods that left the watch of pending pods a short time ago, as it last showed them: most have been bound.
    pub departed: Vec<Arc<PodFacts>>,
    /// Pods with a pool's label, by UID.
    pub labelled: HashMap<String, Arc<PodFacts>>,
    /// Virtual nodes by name.
    pub nodes: HashMap<String, Arc<Node>>,
    /// The labels of namespaces, by name.
    pub namespaces: NamespaceLabels,
}

impl Snapshot {
    /// The whole pod of this UID, if it is pending.
    pub fn waiting_pod(&self, uid: &str) -> Option<Pod> {
        self.waiting.get(uid)?.pod()
    }

    /// Whether the pool exists, even if it cannot be read.
    pub fn has_pool(&self, name: &str) -> bool {
        self.pools.contains_key(name) || self.unreadable.contains(name)
    }
}

/// The content of the cache.
#[derive(Debug, Default)]
struct CacheContent {
    snapshot: Snapshot,
    /// The UIDs of deleted labelled pods. The answer to a call in flight must not put such a pod back into the
    /// cache, because no watch would remove it again.
    deleted: RecentMap<()>,
    /// Pods that left the watch of pending pods.
    departed: RecentMap<Arc<PodFacts>>,
}

/// The cache of watched objects. All instances of the operator fill it; only the leader plans from it.
#[derive(Debug, Default)]
pub struct ClusterCache {
    content: Mutex<CacheContent>,
    /// Which parts have been listed, and why others have not.
    pub sync_state: SyncState,
    /// Notified of every change.
    pub changed: Arc<Notify>,
    /// The API server's time and the operator's.
    pub clock: Arc<ServerClock>,
}

impl ClusterCache {
    /// An empty cache that uses this clock.
    pub fn with_clock(clock: Arc<ServerClock>) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// A snapshot of the current content.
    pub fn snapshot(&self) -> Snapshot {
        let content = self.content.lock();
        let departed = content.departed.values().cloned().collect();
        Snapshot {
            departed,
            ..content.snapshot.clone()
        }
    }

    /// The parts that have not been listed yet, as text, with the reason if it is known.
    pub fn not_synced(&self) -> Vec<String> {
        self.sync_state.not_synced()
    }

    /// Waits until every part has been listed once.
    pub async fn wait_until_synced(&self) {
        self.sync_state.wait_until_synced().await;
    }

    /// The pools that are in the cache now.
    pub fn all_pools(&self) -> Vec<Arc<BurstPool>> {
        self.content
            .lock()
            .snapshot
            .pools
            .values()
            .cloned()
            .collect()
    }

    /// Whether virtual nodes have been listed. Before that, a node that is not in the cache may exist.
    pub fn has_synced_nodes(&self) -> bool {
        self.sync_state.is_listed(CachePart::Nodes)
    }

    /// The virtual node of this name, if it is in the cache now.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.content.lock().snapshot.nodes.get(name).cloned()
    }

    /// The pool of this name, if it is in the cache now.
    pub fn pool(&self, name: &str) -> Option<Arc<BurstPool>> {
        self.content.lock().snapshot.pools.get(name).cloned()
    }

    /// Updates the cache with a pod from the answer to a patch or a read, which may be newer than what the
    /// watches have delivered.
    pub fn update_pod(&self, pod: Pod) {
        let Some(facts) = PodFacts::from_pod(&pod) else {
            return;
        };
        let mut content = self.content.lock();
        if facts.grant.is_some() && !content.deleted.contains(&facts.id.uid) {
            insert_newer(&mut content.snapshot.labelled, facts);
        }
        let snapshot = &mut content.snapshot;
        let waiting = snapshot.waiting.get(&uid_of(&pod));
        if let Some(unknown_fields) = waiting.map(|waiting| waiting.unknown_fields.to_vec()) {
            let observed = WatchedPod {
                pod,
                unknown_fields,
                decode_error: None,
            };
            insert_waiting(snapshot, observed, &self.clock);
        }
    }

    /// Updates the cache with a pool from the answer to a call, which may be newer than what the watch has
    /// delivered. Ignores a pool that has been deleted, or replaced by another of the same name.
    pub fn update_pool(&self, pool: BurstPool) {
        let snapshot = &mut self.content.lock().snapshot;
        let cached = snapshot.pools.get(&pool.name_any());
        if cached.is_some_and(|cached| cached.uid() == pool.uid()) {
            insert_pool(snapshot, pool);
        }
    }
}

fn uid_of(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn insert_newer(pods: &mut HashMap<String, Arc<PodFacts>>, facts: PodFacts) {
    let cached = pods.get(&facts.id.uid);
    if cached.is_none_or(|cached| version(cached) <= version(&facts)) {
        pods.insert(facts.id.uid.clone(), Arc::new(facts));
    }
}

fn version(facts: &PodFacts) -> Option<u128> {
    api::parse_resource_version(&facts.id.resource_version)
}

fn insert_pool(snapshot: &mut Snapshot, pool: BurstPool) {
    let version = |pool: &BurstPool| api::parse_resource_version(&pool.resource_version()?);
    let cached = snapshot.pools.get(&pool.name_any());
    let same = cached.filter(|cached| cached.uid() == pool.uid());
    if same.is_none_or(|cached| version(cached) <= version(&pool)) {
        snapshot.pools.insert(pool.name_any(), Arc::new(pool));
    }
}

#[cfg(test)]
mod tests;
