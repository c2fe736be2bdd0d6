//! A cache of the objects from which grants are planned. To save memory, a pod is kept as the fields that plans
//! need, and a pending pod also as JSON.
//!
//! In: watches of pods without a node (by field selector), of pods with a pool's label, of namespaces, of
//! virtual nodes and of pools. Out: a [`Snapshot`] of all of them, and a notification of every change.
//! Followers run the watches too, so that a new leader starts without LIST calls.

mod recent;
mod sync_state;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::names::POOL_LABEL;
use crate::api::{self, BurstPool};
use crate::burst::facts::pod;
use crate::burst::facts::pod::PodStage;
use crate::burst::rules::hold;
use crate::burst::{NamespaceLabels, PodFacts};
use crate::k8s::watch_health::{report_errors, skip_unreadable};
use crate::node::watched_pod::WatchedPod;
use crate::telemetry::ServerClock;
use recent::RecentMap;
use sync_state::CachePart;
pub use sync_state::{FailureKind, SyncFailure, SyncState};

/// A pod without a node: the fields that plans need, and the whole pod as JSON, which takes a fraction of a
/// typed pod's memory. The JSON is for the translation to ACI and for the grant's patch.
#[derive(Clone, Debug)]
pub struct WaitingPod {
    /// The fields that plans need.
    pub facts: Arc<PodFacts>,
    json: Arc<[u8]>,
    /// The pod's last refusal. It stays while the pod is not refused: the condition keeps its transition time
    /// while its status is `False`, for example during an error of the scheduler.
    refusal: Option<LastRefusal>,
    /// Fields of the pod that the operator's types do not have.
    pub unknown_fields: Arc<[String]>,
}

/// A refusal by the scheduler.
#[derive(Clone, Copy, Debug)]
struct LastRefusal {
    /// The transition time in the pod's `PodScheduled` condition, by the scheduler's clock.
    transition_time: Timestamp,
    /// The start of the refusal, by the operator's monotonic clock.
    at: Timestamp,
}

impl WaitingPod {
    fn from_observed(observed: WatchedPod) -> Option<Self> {
        let facts = PodFacts::from_pod(&observed.pod)?;
        Some(Self {
            refusal: None,
            facts: Arc::new(facts),
            json: serde_json::to_vec(&observed.pod).ok()?.into(),
            unknown_fields: observed.unknown_fields.into(),
        })
    }

    /// The whole pod; `None` if its JSON cannot be parsed.
    pub fn pod(&self) -> Option<Pod> {
        serde_json::from_slice(&self.json).ok()
    }
}

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

    /// Runs all watches, for as long as this future is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.watch_pools(client),
            self.watch_waiting_pods(client),
            self.apply_labelled_pod_events(watcher(
                Api::all(client.clone()),
                watcher::Config::default().labels(POOL_LABEL)
            )),
            self.watch_nodes(client),
            self.watch_namespaces(client),
        );
    }

    /// Runs one watch: `put` adds an object, `remove` deletes one. At the end of a list, objects that it did
    /// not contain are removed. Objects that were added after the list began stay: they may be newer than the
    /// list, and if not, the watch that follows removes them.
    async fn run_watch<K>(
        &self,
        part: CachePart,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>>,
        mut put: impl FnMut(&mut CacheContent, K),
        mut remove: impl FnMut(&mut CacheContent, &str),
        keys: impl Fn(&Snapshot) -> Vec<String>,
        key: impl Fn(&K) -> String,
    ) {
        let mut events = std::pin::pin!(report_errors(part.name(), events.default_backoff()));
        let (mut listed, mut keys_before) = (HashSet::new(), Vec::new());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    keys_before = keys(&self.content.lock().snapshot);
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(key(&object));
                    put(&mut self.content.lock(), object);
                }
                Ok(watcher::Event::InitDone) => {
                    let mut content = self.content.lock();
                    for removed in keys_before.iter().filter(|key| !listed.contains(*key)) {
                        remove(&mut content, removed);
                    }
                    drop(content);
                    self.sync_state.record_listed(part);
                }
                Ok(watcher::Event::Apply(object)) => put(&mut self.content.lock(), object),
                Ok(watcher::Event::Delete(object)) => {
                    remove(&mut self.content.lock(), &key(&object));
                }
                Err(error) => {
                    self.sync_state.record_failed(part, &error);
                    continue;
                }
            }
            self.changed.notify_one();
        }
    }

    async fn watch_pools(&self, client: &Client) {
        let pools: Api<DeserializeGuard<BurstPool>> = Api::all(client.clone());
        self.apply_pool_events(watcher(pools, watcher::Config::default()))
            .await;
    }

    async fn apply_pool_events(
        &self,
        events: impl futures::Stream<
            Item = watcher::Result<watcher::Event<DeserializeGuard<BurstPool>>>,
        >,
    ) {
        self.run_watch(
            CachePart::Pools,
            events,
            |content, pool| insert_guarded_pool(&mut content.snapshot, pool),
            |content, name| {
                content.snapshot.pools.remove(name);
                content.snapshot.unreadable.remove(name);
            },
            |snapshot| {
                snapshot
                    .pools
                    .keys()
                    .chain(&snapshot.unreadable)
                    .cloned()
                    .collect()
            },
            DeserializeGuard::name_any,
        )
        .await;
    }

    async fn watch_waiting_pods(&self, client: &Client) {
        let pods: Api<WatchedPod> = Api::all(client.clone());
        // Only pods in phase Pending: a pod that failed before it had a node does not wait.
        let pending = "spec.nodeName=,status.phase=Pending";
        let config = watcher::Config::default().fields(pending);
        self.apply_pending_pod_events(watcher(pods, config)).await;
    }

    async fn apply_pending_pod_events(
        &self,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<WatchedPod>>>,
    ) {
        self.run_watch(
            CachePart::Waiting,
            events,
            |content, pod| insert_waiting(&mut content.snapshot, pod, &self.clock),
            |content, uid| {
                if let Some(pod) = content.snapshot.waiting.remove(uid) {
                    content.departed.insert(uid, pod.facts);
                }
            },
            |snapshot| snapshot.waiting.keys().cloned().collect(),
            |pod| uid_of(&pod.pod),
        )
        .await;
    }

    async fn apply_labelled_pod_events(
        &self,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<WatchedPod>>>,
    ) {
        self.run_watch(
            CachePart::Labelled,
            events,
            |content, pod| {
                if let Some(facts) = PodFacts::from_pod(&pod.pod) {
                    insert_newer(&mut content.snapshot.labelled, facts);
                }
            },
            |content, uid| {
                content.snapshot.labelled.remove(uid);
                content.deleted.insert(uid, ());
            },
            |snapshot| snapshot.labelled.keys().cloned().collect(),
            |pod| uid_of(&pod.pod),
        )
        .await;
    }

    async fn watch_nodes(&self, client: &Client) {
        let nodes: Api<DeserializeGuard<Node>> = Api::all(client.clone());
        let labelled = watcher::Config::default().labels(POOL_LABEL);
        self.run_watch(
            CachePart::Nodes,
            skip_unreadable(watcher(nodes, labelled)),
            |content, node| {
                content
                    .snapshot
                    .nodes
                    .insert(node.name_any(), Arc::new(node));
            },
            |content, name| drop(content.snapshot.nodes.remove(name)),
            |snapshot| snapshot.nodes.keys().cloned().collect(),
            Node::name_any,
        )
        .await;
    }

    async fn watch_namespaces(&self, client: &Client) {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        self.run_watch(
            CachePart::Namespaces,
            watcher(namespaces, watcher::Config::default()),
            |content, namespace: PartialObjectMeta<Namespace>| {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                content
                    .snapshot
                    .namespaces
                    .insert(namespace.name_any(), labels);
            },
            |content, name| drop(content.snapshot.namespaces.remove(name)),
            |snapshot| snapshot.namespaces.keys().cloned().collect(),
            PartialObjectMeta::name_any,
        )
        .await;
    }
}

fn uid_of(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn insert_waiting(snapshot: &mut Snapshot, observed: WatchedPod, clock: &ServerClock) {
    let written = pod::refusal_written(&observed.pod);
    let Some(mut waiting) = WaitingPod::from_observed(observed) else {
        return;
    };
    let uid = waiting.facts.id.uid.clone();
    let cached = snapshot.waiting.get(&uid);
    if cached.is_none_or(|cached| version(&cached.facts) <= version(&waiting.facts)) {
        waiting.refusal = cached.and_then(|cached| cached.refusal);
        if let Some(transition_time) = refused_at(&waiting.facts) {
            let unobserved =
                || hold::PriorRefusal::Unseen(written.map_or(Duration::ZERO, |at| clock.age(at)));
            let prior = cached.map_or_else(unobserved, prior_refusal);
            let at = hold::refused_at(transition_time, prior, clock.steady());
            waiting.refusal = Some(LastRefusal {
                transition_time,
                at,
            });
            Arc::make_mut(&mut waiting.facts).stage = PodStage::Unschedulable(Some(at));
        }
        snapshot.waiting.insert(uid, waiting);
    }
}

/// The refusal of a pod as the cache knows it, before an update.
fn prior_refusal(cached: &WaitingPod) -> hold::PriorRefusal {
    cached
        .refusal
        .map_or(hold::PriorRefusal::NotRefused, |refusal| {
            hold::PriorRefusal::Refused {
                transition: refusal.transition_time,
                at: refusal.at,
            }
        })
}

fn refused_at(facts: &PodFacts) -> Option<Timestamp> {
    match facts.stage {
        PodStage::Unschedulable(at) => at,
        _ => None,
    }
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

/// If a pool cannot be read, the cache keeps the last version that could; but not that of an earlier pool of
/// the same name.
fn insert_guarded_pool(snapshot: &mut Snapshot, pool: DeserializeGuard<BurstPool>) {
    let (name, uid) = (pool.name_any(), pool.uid());
    if let Ok(pool) = pool.0 {
        snapshot.unreadable.remove(&name);
        insert_pool(snapshot, pool);
        return;
    }
    let cached = snapshot.pools.get(&name);
    if cached.is_some_and(|cached| cached.uid() != uid) {
        snapshot.pools.remove(&name);
    }
    snapshot.unreadable.insert(name);
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
