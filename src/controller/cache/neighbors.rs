//! The nodes and pods that affect where pending pods may run, watched only while such pods wait.
//!
//! In: pending pods with a required topology spread, pod affinity or pod anti-affinity. Out: [`Neighbors`]: all
//! nodes, and the bound pods of the namespaces that these constraints select; and a notification of every
//! change. A cluster without such constraints runs none of these watches.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::Snapshot;
use crate::burst::facts::neighbors::{ListResult, NeighborNode};
use crate::burst::{Neighbors, PodFacts};
use crate::k8s::watch_health::{report_errors, skip_unreadable};

/// How long a pod waits for the first list. After that it is evaluated without the list.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a watch continues that no pod needs: pods of one workload often come one after the other.
const IDLE: Duration = Duration::from_mins(5);
/// The most namespaces that are watched at a time. Pods in other namespaces are unknown, so they block no
/// grant.
const MOST: usize = 64;

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
pub struct Watched {
    client: Client,
    cancel: CancellationToken,
    changed: Arc<Notify>,
    parts: HashMap<WatchScope, RunningWatch>,
}

struct RunningWatch {
    cancel: CancellationToken,
    began: Instant,
    needed: Instant,
    known: Arc<Mutex<WatchCache>>,
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

impl Watched {
    /// No watch yet; `changed` is notified of every change.
    pub fn new(client: Client, changed: Arc<Notify>, cancel: CancellationToken) -> Self {
        Self {
            client,
            cancel,
            changed,
            parts: HashMap::new(),
        }
    }

    /// Starts the watches that pending pods need, and stops those that no pod has needed for [`IDLE`].
    pub fn follow(&mut self, view: &Snapshot, tasks: &TaskTracker) {
        let now = Instant::now();
        for part in needed(view) {
            if let Some(running) = self.parts.get_mut(&part) {
                running.needed = now;
            } else if self.parts.len() <= MOST {
                let running = self.start(&part, tasks);
                self.parts.insert(part, running);
            }
        }
        self.parts.retain(|_, running| {
            let stays = running.needed + IDLE > now;
            if !stays {
                running.cancel.cancel();
            }
            stays
        });
    }

    /// The current content of all watches.
    pub fn neighbors(&self) -> Neighbors {
        let mut all = Neighbors::default();
        for (part, running) in &self.parts {
            match part {
                WatchScope::Nodes => all.nodes = running.listing(WatchedObject::node),
                WatchScope::Pods(namespace) => {
                    let pods = running.listing(WatchedObject::pod);
                    all.pods.insert(namespace.clone(), pods);
                }
            }
        }
        all
    }

    fn start(&self, part: &WatchScope, tasks: &TaskTracker) -> RunningWatch {
        let (cancel, known) = (self.cancel.child_token(), Arc::default());
        let follows = Follows {
            known: Arc::clone(&known),
            changed: self.changed.clone(),
        };
        let (client, until, part) = (self.client.clone(), cancel.clone(), part.clone());
        let follow = async move {
            match part {
                WatchScope::Nodes => {
                    let nodes: Api<DeserializeGuard<Node>> = Api::all(client);
                    let events = skip_unreadable(watcher(nodes, watcher::Config::default()));
                    follows.follow("nodes of the cluster", events).await;
                }
                WatchScope::Pods(namespace) => {
                    let pods: Api<DeserializeGuard<Pod>> = Api::namespaced(client, &namespace);
                    // As the scheduler does, ignore pods that have ended.
                    let bound = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
                    let config = watcher::Config::default().fields(bound);
                    let events = skip_unreadable(watcher(pods, config));
                    follows.follow("neighbors of pending pods", events).await;
                }
            }
        };
        tasks.spawn(async move { until.run_until_cancelled(Box::pin(follow)).await });
        RunningWatch {
            cancel,
            began: Instant::now(),
            needed: Instant::now(),
            known,
        }
    }
}

/// The watches that the constraints of pending pods need.
fn needed(view: &Snapshot) -> BTreeSet<WatchScope> {
    let waiting = view.waiting.values().map(|one| &one.facts);
    let ruled = waiting.filter_map(|facts| Some((facts.rules.as_deref()?, &facts.id.namespace)));
    let ruled: Vec<_> = ruled.collect();
    // Nodes are needed even if no namespace matches a selector now: the plan waits for the nodes of every pod
    // with constraints.
    let nodes = (!ruled.is_empty()).then_some(WatchScope::Nodes);
    let pods: BTreeSet<WatchScope> = ruled
        .into_iter()
        .flat_map(|(rules, own)| rules.namespaces(own, &view.namespaces))
        .map(WatchScope::Pods)
        .collect();
    nodes.into_iter().chain(pods).collect()
}

impl RunningWatch {
    fn listing<T>(&self, of: impl Fn(&WatchedObject) -> Option<Arc<T>>) -> ListResult<Vec<Arc<T>>> {
        let known = lock(&self.known);
        if known.is_listed {
            ListResult::Listed(known.objects.values().filter_map(of).collect())
        } else if known.has_failed || self.began.elapsed() > PATIENCE {
            ListResult::Unknown
        } else {
            ListResult::Awaited
        }
    }
}

/// Where a watch writes what it delivers.
struct Follows {
    known: Arc<Mutex<WatchCache>>,
    changed: Arc<Notify>,
}

impl Follows {
    async fn follow<K: WatchedFacts>(
        &self,
        what: &'static str,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    ) {
        let events = report_errors(what, events.default_backoff());
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if lock(&self.known).take(event) {
                self.changed.notify_one();
            }
        }
    }
}

impl WatchCache {
    /// Applies an event of the watch. Returns whether it changes anything for plans.
    fn take<K: WatchedFacts>(&mut self, event: watcher::Result<watcher::Event<K>>) -> bool {
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
                before.is_none_or(|before| !before.is_alike(&object))
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
    fn is_alike(&self, other: &Self) -> bool {
        let node = |pod: &PodFacts| pod.bound().map(|bound| bound.node.clone());
        match (self, other) {
            (Self::Node(one), Self::Node(other)) => one == other,
            (Self::Pod(one), Self::Pod(other)) => {
                one.labels == other.labels
                    && one.is_deleting == other.is_deleting
                    && node(one) == node(other)
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

fn lock(known: &Mutex<WatchCache>) -> MutexGuard<'_, WatchCache> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
