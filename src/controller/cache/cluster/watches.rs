//! The watches that fill the cache.

use std::collections::HashSet;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};

use super::sync_state::CachePart;
use super::waiting::insert_waiting;
use super::{CacheContent, ClusterCache, Snapshot, insert_newer, insert_pool, uid_of};
use crate::api::BurstPool;
use crate::api::names::POOL_LABEL;
use crate::burst::PodFacts;
use crate::k8s::watch_health::{report_errors, skip_unreadable};
use crate::node::watched_pod::WatchedPod;

impl ClusterCache {
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

    pub(super) async fn apply_pool_events(
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

    pub(super) async fn apply_pending_pod_events(
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

    pub(super) async fn apply_labelled_pod_events(
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
