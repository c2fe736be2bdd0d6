//! The nodes and pods that bear on where pods that wait may run, watched only while such pods wait.
//!
//! In: pods that wait with a required topology spread, pod affinity or anti-affinity. Out: [`Neighbors`]: all
//! nodes, and the bound pods of the namespaces that these constraints name, and a word when one of them is
//! another. A cluster whose pods have no such constraints pays nothing.

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

use super::stores::View;
use crate::burst::topology::{Listing, NodeFacts};
use crate::burst::{Neighbors, PodFacts};
use crate::node::watched::{readable, reported};

/// How long a pod may wait for the first list: after that it is decided about without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a watch goes on that no pod needs: pods of one workload come one after the other.
const IDLE: Duration = Duration::from_mins(5);
/// The most namespaces that are watched at a time. What is in others is not known, so that their pods keep
/// nothing from being granted.
const MOST: usize = 64;

/// All nodes, or the pods of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Part {
    Nodes,
    Pods(String),
}

/// A node or a pod, by name or UID.
#[derive(Clone, Debug)]
enum Object {
    Node(Arc<NodeFacts>),
    Pod(Arc<PodFacts>),
}

/// What is watched.
pub struct Watched {
    client: Client,
    cancel: CancellationToken,
    changed: Arc<Notify>,
    parts: HashMap<Part, Running>,
}

struct Running {
    cancel: CancellationToken,
    began: Instant,
    needed: Instant,
    known: Arc<Mutex<Known>>,
}

/// What one watch has shown.
#[derive(Debug, Default)]
struct Known {
    is_listed: bool,
    has_failed: bool,
    objects: HashMap<String, Object>,
    /// What the list that is on its way has shown.
    listing: HashMap<String, Object>,
}

impl Watched {
    /// Nothing yet; `changed` is told when there is something new.
    pub fn new(client: Client, changed: Arc<Notify>, cancel: CancellationToken) -> Self {
        Self {
            client,
            cancel,
            changed,
            parts: HashMap::new(),
        }
    }

    /// Watches what the pods that wait need, and stops what none has needed for long.
    pub fn follow(&mut self, view: &View, tasks: &TaskTracker) {
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

    /// What is known.
    pub fn neighbors(&self) -> Neighbors {
        let mut all = Neighbors::default();
        for (part, running) in &self.parts {
            match part {
                Part::Nodes => all.nodes = running.listing(Object::node),
                Part::Pods(namespace) => {
                    let pods = running.listing(Object::pod);
                    all.pods.insert(namespace.clone(), pods);
                }
            }
        }
        all
    }

    fn start(&self, part: &Part, tasks: &TaskTracker) -> Running {
        let (cancel, known) = (self.cancel.child_token(), Arc::default());
        let follows = Follows {
            known: Arc::clone(&known),
            changed: self.changed.clone(),
        };
        let (client, until, part) = (self.client.clone(), cancel.clone(), part.clone());
        let follow = async move {
            match part {
                Part::Nodes => {
                    let nodes: Api<DeserializeGuard<Node>> = Api::all(client);
                    let events = readable(watcher(nodes, watcher::Config::default()));
                    follows.follow("nodes of the cluster", events).await;
                }
                Part::Pods(namespace) => {
                    let pods: Api<DeserializeGuard<Pod>> = Api::namespaced(client, &namespace);
                    // As the scheduler, which does not count what has ended.
                    let bound = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed";
                    let config = watcher::Config::default().fields(bound);
                    let events = readable(watcher(pods, config));
                    follows.follow("pods beside those that wait", events).await;
                }
            }
        };
        tasks.spawn(async move { until.run_until_cancelled(Box::pin(follow)).await });
        Running {
            cancel,
            began: Instant::now(),
            needed: Instant::now(),
            known,
        }
    }
}

/// What the pods that wait have constraints over.
fn needed(view: &View) -> BTreeSet<Part> {
    let waiting = view.waiting.values().map(|one| &one.facts);
    let ruled = waiting.filter_map(|facts| Some((facts.rules.as_deref()?, &facts.id.namespace)));
    let pods: BTreeSet<Part> = ruled
        .flat_map(|(rules, own)| rules.namespaces(own, &view.namespaces))
        .map(Part::Pods)
        .collect();
    let nodes = (!pods.is_empty()).then_some(Part::Nodes);
    nodes.into_iter().chain(pods).collect()
}

impl Running {
    fn listing<T>(&self, of: impl Fn(&Object) -> Option<Arc<T>>) -> Listing<Vec<Arc<T>>> {
        let known = lock(&self.known);
        if known.is_listed {
            Listing::Listed(known.objects.values().filter_map(of).collect())
        } else if known.has_failed || self.began.elapsed() > PATIENCE {
            Listing::Unknown
        } else {
            Listing::Awaited
        }
    }
}

/// What a watch writes to.
struct Follows {
    known: Arc<Mutex<Known>>,
    changed: Arc<Notify>,
}

impl Follows {
    async fn follow<K: Facts>(
        &self,
        what: &'static str,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    ) {
        let events = reported(what, events.default_backoff());
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if lock(&self.known).take(event) {
                self.changed.notify_one();
            }
        }
    }
}

impl Known {
    /// Takes in what the watch shows; whether that matters.
    fn take<K: Facts>(&mut self, event: watcher::Result<watcher::Event<K>>) -> bool {
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

impl Object {
    fn node(&self) -> Option<Arc<NodeFacts>> {
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

    /// Whether it bears on other pods as the other one does.
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

/// What is kept of an object, and its key.
trait Facts {
    fn facts(&self) -> Option<(String, Object)>;
}

impl Facts for Node {
    fn facts(&self) -> Option<(String, Object)> {
        let facts = NodeFacts::of(self);
        Some((facts.name.clone(), Object::Node(Arc::new(facts))))
    }
}

impl Facts for Pod {
    fn facts(&self) -> Option<(String, Object)> {
        let facts = PodFacts::of(self)?;
        Some((facts.id.uid.clone(), Object::Pod(Arc::new(facts))))
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
