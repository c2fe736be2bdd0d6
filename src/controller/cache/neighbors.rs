//! The nodes and pods that affect where pending pods may run, watched only while such pods wait.
//!
//! In: pending pods with a required topology spread, pod affinity or pod anti-affinity. Out: [`Neighbors`]: all
//! nodes, and the bound pods of the namespaces that these constraints select; and a notification of every
//! change. A cluster without such constraints runs none of these watches.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::Snapshot;
use crate::burst::facts::neighbors::{ListResult, NeighborNode};
use crate::burst::{Neighbors, PodFacts};
use crate::k8s::watch_health::{report_errors, skip_unreadable};

/// How long a pod waits for the first list. After that it is evaluated without the list.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a watch continues that no pod needs: pods of one workload often come one after the other.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);
/// The most namespaces that are watched at a time. Pods in other namespaces are unknown, so they block no
/// grant.
const MAX_NAMESPACES: usize = 64;

/// What one watch covers: all nodes, or the pods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum WatchScope {
    Nodes,
    Pods(String),
}

/// A watched node (key: name) or pod (key: UID).
#[derive(Clone, Debug)]
enum WatchedObject {
    Node(Arc<NeighborNode>),
    Pod(Arc<PodFacts>),
}

/// The watches and their content.
pub struct NeighborCache {
    client: Client,
    cancel: CancellationToken,
    changed: Arc<Notify>,
    watches: HashMap<WatchScope, RunningWatch>,
}

struct RunningWatch {
    cancel: CancellationToken,
    started_at: Instant,
    last_needed: Instant,
    content: Arc<Mutex<WatchCache>>,
}

/// What one watch has delivered.
#[derive(Debug, Default)]
struct WatchCache {
    is_listed: bool,
    has_failed: bool,
    objects: HashMap<String, WatchedObject>,
    /// What the list in progress has delivered so far.
    listing: HashMap<String, WatchedObject>,
}

impl NeighborCache {
    /// No watch yet; `changed` is notified of every change.
    pub fn new(client: Client, changed: Arc<Notify>, cancel: CancellationToken) -> Self {
        Self {
            client,
            cancel,
            changed,
            watches: HashMap::new(),
        }
    }

    /// Starts the watches that pending pods need, and stops those that no pod has needed for [`IDLE_TIMEOUT`].
    pub fn update_watches(&mut self, snapshot: &Snapshot, tasks: &TaskTracker) {
        let now = Instant::now();
        // The watch of nodes comes first, and does not count as one of a namespace.
        for scope in needed_scopes(snapshot) {
            if let Some(running) = self.watches.get_mut(&scope) {
                running.last_needed = now;
            } else if self.watches.len() <= MAX_NAMESPACES {
                let running = self.start(&scope, tasks);
                self.watches.insert(scope, running);
            }
        }
        self.watches.retain(|_, running| {
            let is_needed = running.last_needed + IDLE_TIMEOUT > now;
            if !is_needed {
                running.cancel.cancel();
            }
            is_needed
        });
    }

    /// The current content of all watches.
    pub fn neighbors(&self) -> Neighbors {
        let mut neighbors = Neighbors::default();
        for (scope, running) in &self.watches {
            match scope {
                WatchScope::Nodes => neighbors.nodes = running.listing(WatchedObject::node),
                WatchScope::Pods(namespace) => {
                    let pods = running.listing(WatchedObject::pod);
                    neighbors.pods.insert(namespace.clone(), pods);
                }
            }
        }
        neighbors
    }

    fn start(&self, scope: &WatchScope, tasks: &TaskTracker) -> RunningWatch {
        let (cancel, content) = (self.cancel.child_token(), Arc::default());
        let writer = WatchWriter {
            content: Arc::clone(&content),
            changed: self.changed.clone(),
        };
        let (client, stopped, scope) = (self.client.clone(), cancel.clone(), scope.clone());
        let follow = async move {
            match scope {
                WatchScope::Nodes => {
                    let nodes: Api<DeserializeGuard<Node>> = Api::all(client);
                    let events = skip_unreadable(watcher(nodes, watcher::Config::default()));
                    writer.follow("nodes of the cluster", events).await;
                }
                WatchScope::Pods(namespace) => {
                    let pods: Api<DeserializeGuard<Pod>> = Api::namespaced(client, &namespace);
                    // As the scheduler does, ignore pods that have ended.
                    let selector = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
                    let config = watcher::Config::default().fields(selector);
                    let events = skip_unreadable(watcher(pods, config));
                    writer.follow("neighbors of pending pods", events).await;
                }
            }
        };
        tasks.spawn(async move { stopped.run_until_cancelled(Box::pin(follow)).await });
        RunningWatch {
            cancel,
            started_at: Instant::now(),
            last_needed: Instant::now(),
            content,
        }
    }
}

/// The watches that the constraints of pending pods need.
fn needed_scopes(snapshot: &Snapshot) -> BTreeSet<WatchScope> {
    let waiting = snapshot.waiting.values().map(|pod| &pod.facts);
    let constrained =
        waiting.filter_map(|facts| Some((facts.rules.as_deref()?, &facts.id.namespace)));
    let constrained: Vec<_> = constrained.collect();
    // Nodes are needed even if no namespace matches a selector now: the plan waits for the nodes of every pod
    // with constraints.
    let nodes = (!constrained.is_empty()).then_some(WatchScope::Nodes);
    let pods: BTreeSet<WatchScope> = constrained
        .into_iter()
        .flat_map(|(rules, namespace)| rules.namespaces(namespace, &snapshot.namespaces))
        .map(WatchScope::Pods)
        .collect();
    nodes.into_iter().chain(pods).collect()
}

impl RunningWatch {
    fn listing<T>(
        &self,
        select: impl Fn(&WatchedObject) -> Option<Arc<T>>,
    ) -> ListResult<Vec<Arc<T>>> {
        let content = self.content.lock();
        if content.is_listed {
            ListResult::Listed(content.objects.values().filter_map(select).collect())
        } else if content.has_failed || self.started_at.elapsed() > LIST_TIMEOUT {
            ListResult::Unknown
        } else {
            ListResult::Awaited
        }
    }
}

/// Where a watch writes what it delivers.
struct WatchWriter {
    content: Arc<Mutex<WatchCache>>,
    changed: Arc<Notify>,
}

impl WatchWriter {
    async fn follow<K: WatchedFacts>(
        &self,
        what: &'static str,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    ) {
        let events = report_errors(what, events.default_backoff());
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if self.content.lock().apply(event) {
                self.changed.notify_one();
            }
        }
    }
}

impl WatchCache {
    /// Applies an event of the watch. Returns whether it changes anything for plans.
    fn apply<K: WatchedFacts>(&mut self, event: watcher::Result<watcher::Event<K>>) -> bool {
        match event {
            Ok(watcher::Event::Init) => {
                self.listing.clear();
                false
            }
            Ok(watcher::Event::InitApply(object)) => {
                self.listing.extend(object.facts());
                false
            }
            Ok(watcher::Event::InitDone) => {
                self.objects = std::mem::take(&mut self.listing);
                self.is_listed = true;
                true
            }
            Ok(watcher::Event::Apply(object)) => object.facts().is_some_and(|(key, object)| {
                let before = self.objects.insert(key, object.clone());
                before.is_none_or(|before| !before.has_same_effect(&object))
            }),
            Ok(watcher::Event::Delete(object)) => object
                .facts()
                .is_some_and(|(key, _)| self.objects.remove(&key).is_some()),
            Err(_) => {
                let is_new = !self.has_failed;
                self.has_failed = true;
                is_new && !self.is_listed
            }
        }
    }
}

impl WatchedObject {
    fn node(&self) -> Option<Arc<NeighborNode>> {
        match self {
            Self::Node(node) => Some(node.clone()),
            Self::Pod(_) => None,
        }
    }

    fn pod(&self) -> Option<Arc<PodFacts>> {
        match self {
            Self::Pod(pod) => Some(pod.clone()),
            Self::Node(_) => None,
        }
    }

    /// Whether both objects affect other pods in the same way.
    fn has_same_effect(&self, other: &Self) -> bool {
        let node = |pod: &PodFacts| pod.bound().map(|bound| bound.node.clone());
        match (self, other) {
            (Self::Node(this), Self::Node(other)) => this == other,
            (Self::Pod(this), Self::Pod(other)) => {
                this.labels == other.labels
                    && this.is_deleting == other.is_deleting
                    && node(this) == node(other)
            }
            _ => false,
        }
    }
}

/// An object's key, and the fields that are kept of it.
trait WatchedFacts {
    fn facts(&self) -> Option<(String, WatchedObject)>;
}

impl WatchedFacts for Node {
    fn facts(&self) -> Option<(String, WatchedObject)> {
        let facts = NeighborNode::of(self);
        Some((facts.name.clone(), WatchedObject::Node(Arc::new(facts))))
    }
}

impl WatchedFacts for Pod {
    fn facts(&self) -> Option<(String, WatchedObject)> {
        let facts = PodFacts::from_pod(self)?;
        Some((facts.id.uid.clone(), WatchedObject::Pod(Arc::new(facts))))
    }
}
