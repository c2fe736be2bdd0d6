//! What bursting looks at, kept as it is watched, and small.
//!
//! In: watches of pods that wait (by field selector), of pods with the label of a pool, of namespaces,
//! of virtual nodes and of pools. Out: a [`View`] of all of it, and a word whenever something changed.
//! Followers keep it warm, so that a new leader need not begin with lists.

mod listing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::names::POOL_LABEL;
use crate::api::{self, BurstPool};
use crate::burst::pod::{self, Stage};
use crate::burst::{Namespaces, PodFacts, hold};
use crate::node::observed::Observed;
use crate::node::watched::{readable, reported};
use crate::telemetry::Clock;
use listing::Part;
pub use listing::{Failure, Listing, Trouble};

/// A pod that waits: what matters of it, and itself as JSON, a fraction of a typed pod's size, for
/// when ACI's opinion of it is asked or it is granted.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What matters of it.
    pub facts: Arc<PodFacts>,
    json: Arc<[u8]>,
    /// Since when its condition says that it is refused. Its facts say since when by our monotonic clock.
    told: Option<Timestamp>,
    /// Fields that our types do not know.
    pub unknown: Arc<[String]>,
}

impl Waiting {
    fn of(observed: Observed) -> Option<Self> {
        let facts = PodFacts::of(&observed.pod)?;
        Some(Self {
            told: refused_at(&facts),
            facts: Arc::new(facts),
            json: serde_json::to_vec(&observed.pod).ok()?.into(),
            unknown: observed.unknown.into(),
        })
    }

    /// The pod itself.
    pub fn pod(&self) -> Option<Pod> {
        serde_json::from_slice(&self.json).ok()
    }
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Pools by name. One that can no longer be read is as it was when it could.
    pub pools: BTreeMap<String, Arc<BurstPool>>,
    /// The names of pools that are there and cannot be read.
    pub unreadable: BTreeSet<String>,
    /// Pods without a node, by UID.
    pub waiting: HashMap<String, Waiting>,
    /// Pods with a pool's label, by UID.
    pub labelled: HashMap<String, Arc<PodFacts>>,
    /// Virtual nodes by name.
    pub nodes: HashMap<String, Arc<Node>>,
    /// Labels of namespaces.
    pub namespaces: Namespaces,
}

impl View {
    /// A pod that waits, itself.
    pub fn waiting_pod(&self, uid: &str) -> Option<Pod> {
        self.waiting.get(uid)?.pod()
    }

    /// Whether there is such a pool, whether or not it can be read.
    pub fn has_pool(&self, name: &str) -> bool {
        self.pools.contains_key(name) || self.unreadable.contains(name)
    }
}

/// For how long at least it is remembered that a pod is gone: longer than any call takes whose answer
/// could still tell of it.
const GONE: Duration = Duration::from_secs(60);

/// What is known.
#[derive(Debug, Default)]
struct Known {
    view: View,
    gone: Gone,
}

/// UIDs of labelled pods that are gone: an answer that was on its way meanwhile must not bring one back,
/// as no watch would ever take it away again.
#[derive(Debug, Default)]
struct Gone {
    now: HashSet<String>,
    before: HashSet<String>,
    since: Option<Instant>,
}

impl Gone {
    fn add(&mut self, uid: &str) {
        if self.since.is_none_or(|since| since.elapsed() > GONE) {
            self.before = std::mem::take(&mut self.now);
            self.since = Some(Instant::now());
        }
        self.now.insert(uid.to_owned());
    }

    fn has(&self, uid: &str) -> bool {
        self.now.contains(uid) || self.before.contains(uid)
    }
}

/// What is watched.
#[derive(Debug, Default)]
pub struct Stores {
    known: Mutex<Known>,
    /// Which parts have been listed, and why others have not.
    pub listing: Listing,
    /// Something changed.
    pub changed: Arc<Notify>,
    /// The API server's time, and ours.
    pub clock: Arc<Clock>,
}

impl Stores {
    /// Stores that go by this clock.
    pub fn by(clock: Arc<Clock>) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// Everything, as it is known now.
    pub fn view(&self) -> View {
        self.lock().view.clone()
    }

    /// What has not been listed yet, in words, and why if that is known.
    pub fn missing(&self) -> Vec<String> {
        self.listing.missing()
    }

    /// Waits until everything has been listed once.
    pub async fn wait_until_ready(&self) {
        self.listing.wait_until_ready().await;
    }

    /// The pools, as they are known now.
    pub fn all_pools(&self) -> Vec<Arc<BurstPool>> {
        self.lock().view.pools.values().cloned().collect()
    }

    /// Whether virtual nodes have been listed: before, that one is not known says nothing.
    pub fn has_listed_nodes(&self) -> bool {
        self.listing.is_listed(Part::Nodes)
    }

    /// The virtual node of this name, as it is known now.
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.lock().view.nodes.get(name).cloned()
    }

    /// The pool of this name, as it is known now.
    pub fn pool(&self, name: &str) -> Option<Arc<BurstPool>> {
        self.lock().view.pools.get(name).cloned()
    }

    /// Takes in a pod of a newer version than the watches have shown: the answer to a patch or a read.
    pub fn learn_pod(&self, pod: Pod) {
        let Some(facts) = PodFacts::of(&pod) else {
            return;
        };
        let mut known = self.lock();
        if facts.grant.is_some() && !known.gone.has(&facts.id.uid) {
            insert_newer(&mut known.view.labelled, facts);
        }
        let view = &mut known.view;
        let waits = view.waiting.get(&observed_uid(&pod));
        if let Some(unknown) = waits.map(|waits| waits.unknown.to_vec()) {
            let observed = Observed {
                pod,
                unknown,
                unreadable: None,
            };
            insert_waiting(view, observed, &self.clock);
        }
    }

    /// Takes in a pool of a newer version than the watch has shown; not one that is gone, or that came
    /// after it.
    pub fn learn_pool(&self, pool: BurstPool) {
        let view = &mut self.lock().view;
        let known = view.pools.get(&pool.name_any());
        if known.is_some_and(|known| known.uid() == pool.uid()) {
            insert_pool(view, pool);
        }
    }

    /// Watches everything, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.pools(client),
            self.waiting(client),
            self.labelled(watcher(
                Api::all(client.clone()),
                watcher::Config::default().labels(POOL_LABEL)
            )),
            self.nodes(client),
            self.namespaces(client),
        );
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows one watch: `put` takes in what it shows, `remove` what it shows to be gone. At the end of
    /// a list, what it did not have is gone; but not what was learned since the list began, which may be
    /// younger than the list: the watch that follows will tell.
    async fn follow<K>(
        &self,
        part: Part,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>>,
        mut put: impl FnMut(&mut Known, K),
        mut remove: impl FnMut(&mut Known, &str),
        keys: impl Fn(&View) -> Vec<String>,
        key: impl Fn(&K) -> String,
    ) {
        let mut events = std::pin::pin!(reported(part.name(), events.default_backoff()));
        let (mut listed, mut before) = (HashSet::new(), Vec::new());
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => {
                    listed.clear();
                    before = keys(&self.lock().view);
                }
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(key(&object));
                    put(&mut self.lock(), object);
                }
                Ok(watcher::Event::InitDone) => {
                    let mut known = self.lock();
                    for gone in before.iter().filter(|key| !listed.contains(*key)) {
                        remove(&mut known, gone);
                    }
                    drop(known);
                    self.listing.listed(part);
                }
                Ok(watcher::Event::Apply(object)) => put(&mut self.lock(), object),
                Ok(watcher::Event::Delete(object)) => remove(&mut self.lock(), &key(&object)),
                Err(error) => {
                    self.listing.failed(part, &error);
                    continue;
                }
            }
            self.changed.notify_one();
        }
    }

    async fn pools(&self, client: &Client) {
        let pools: Api<DeserializeGuard<BurstPool>> = Api::all(client.clone());
        self.pools_of(watcher(pools, watcher::Config::default()))
            .await;
    }

    async fn pools_of(
        &self,
        events: impl futures::Stream<
            Item = watcher::Result<watcher::Event<DeserializeGuard<BurstPool>>>,
        >,
    ) {
        self.follow(
            Part::Pools,
            events,
            |known, pool| put_pool(&mut known.view, pool),
            |known, name| {
                known.view.pools.remove(name);
                known.view.unreadable.remove(name);
            },
            |view| view.pools.keys().chain(&view.unreadable).cloned().collect(),
            DeserializeGuard::name_any,
        )
        .await;
    }

    async fn waiting(&self, client: &Client) {
        let pods: Api<Observed> = Api::all(client.clone());
        // Not those of a phase: a pod that failed before it had a node does not wait.
        let waiting = "spec.nodeName=,status.phase=Pending";
        self.follow(
            Part::Waiting,
            watcher(pods, watcher::Config::default().fields(waiting)),
            |known, pod| insert_waiting(&mut known.view, pod, &self.clock),
            |known, uid| drop(known.view.waiting.remove(uid)),
            |view| view.waiting.keys().cloned().collect(),
            |pod| observed_uid(&pod.pod),
        )
        .await;
    }

    async fn labelled(
        &self,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<Observed>>>,
    ) {
        self.follow(
            Part::Labelled,
            events,
            |known, pod| {
                if let Some(facts) = PodFacts::of(&pod.pod) {
                    insert_newer(&mut known.view.labelled, facts);
                }
            },
            |known, uid| {
                known.view.labelled.remove(uid);
                known.gone.add(uid);
            },
            |view| view.labelled.keys().cloned().collect(),
            |pod| observed_uid(&pod.pod),
        )
        .await;
    }

    async fn nodes(&self, client: &Client) {
        let nodes: Api<DeserializeGuard<Node>> = Api::all(client.clone());
        let ours = watcher::Config::default().labels(POOL_LABEL);
        self.follow(
            Part::Nodes,
            readable(watcher(nodes, ours)),
            |known, node| {
                known.view.nodes.insert(node.name_any(), Arc::new(node));
            },
            |known, name| drop(known.view.nodes.remove(name)),
            |view| view.nodes.keys().cloned().collect(),
            Node::name_any,
        )
        .await;
    }

    async fn namespaces(&self, client: &Client) {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        self.follow(
            Part::Namespaces,
            watcher(namespaces, watcher::Config::default()),
            |known, namespace: PartialObjectMeta<Namespace>| {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                known.view.namespaces.insert(namespace.name_any(), labels);
            },
            |known, name| drop(known.view.namespaces.remove(name)),
            |view| view.namespaces.keys().cloned().collect(),
            PartialObjectMeta::name_any,
        )
        .await;
    }
}

fn observed_uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn insert_waiting(view: &mut View, observed: Observed, clock: &Clock) {
    let written = pod::refusal_written(&observed.pod);
    let Some(mut waiting) = Waiting::of(observed) else {
        return;
    };
    let uid = waiting.facts.id.uid.clone();
    let known = view.waiting.get(&uid);
    if known.is_none_or(|known| version(&known.facts) <= version(&waiting.facts)) {
        if let Some(told) = waiting.told {
            let unseen =
                || hold::Before::Unseen(written.map_or(Duration::ZERO, |at| clock.age(at)));
            let before = known.map_or_else(unseen, before);
            let at = hold::refused_at(told, before, clock.steady());
            Arc::make_mut(&mut waiting.facts).stage = Stage::Refused(Some(at));
        }
        view.waiting.insert(uid, waiting);
    }
}

/// How a pod was seen that is known.
fn before(known: &Waiting) -> hold::Before {
    match (known.told, refused_at(&known.facts)) {
        (Some(told), Some(at)) => hold::Before::Refused { told, at },
        _ => hold::Before::NotRefused,
    }
}

fn refused_at(facts: &PodFacts) -> Option<Timestamp> {
    match facts.stage {
        Stage::Refused(at) => at,
        _ => None,
    }
}

fn insert_newer(pods: &mut HashMap<String, Arc<PodFacts>>, facts: PodFacts) {
    let known = pods.get(&facts.id.uid);
    if known.is_none_or(|known| version(known) <= version(&facts)) {
        pods.insert(facts.id.uid.clone(), Arc::new(facts));
    }
}

fn version(facts: &PodFacts) -> Option<u128> {
    api::version(&facts.id.resource_version)
}

/// A pool that cannot be read stays as it was last known; but not one of an earlier pool of its name.
fn put_pool(view: &mut View, pool: DeserializeGuard<BurstPool>) {
    let (name, uid) = (pool.name_any(), pool.uid());
    if let Ok(pool) = pool.0 {
        view.unreadable.remove(&name);
        insert_pool(view, pool);
        return;
    }
    let known = view.pools.get(&name);
    if known.is_some_and(|known| known.uid() != uid) {
        view.pools.remove(&name);
    }
    view.unreadable.insert(name);
}

fn insert_pool(view: &mut View, pool: BurstPool) {
    let version = |pool: &BurstPool| api::version(&pool.resource_version()?);
    let known = view.pools.get(&pool.name_any());
    let same = known.filter(|known| known.uid() == pool.uid());
    if same.is_none_or(|known| version(known) <= version(&pool)) {
        view.pools.insert(pool.name_any(), Arc::new(pool));
    }
}

#[cfg(test)]
mod tests;
