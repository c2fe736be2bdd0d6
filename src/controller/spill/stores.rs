//! What bursting looks at, kept as it is watched, and small.
//!
//! In: watches of pods that wait (by field selector), of pods with the label of a pool, of namespaces,
//! of virtual nodes and of pools. Out: a [`View`] of all of it, and a word whenever something changed.
//! Followers keep it warm, so that a new leader need not begin with lists.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{Notify, watch};

use crate::api::BurstPool;
use crate::api::names::POOL_LABEL;
use crate::burst::{Namespaces, PodFacts};
use crate::node::observed::{self, Observed};

/// A pod that waits: what matters of it, and itself as JSON, a fraction of a typed pod's size, for
/// when ACI's opinion of it is asked or it is granted.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What matters of it.
    pub facts: Arc<PodFacts>,
    json: Arc<[u8]>,
    /// Fields that our types do not know.
    pub unknown: Arc<[String]>,
}

impl Waiting {
    fn of(observed: Observed) -> Option<Self> {
        Some(Self {
            facts: Arc::new(PodFacts::of(&observed.pod)?),
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
    /// Pools by name.
    pub pools: BTreeMap<String, Arc<BurstPool>>,
    /// Pods without a node, by UID.
    pub waiting: HashMap<String, Waiting>,
    /// Pods with a pool's label, by UID.
    pub labelled: HashMap<String, Arc<PodFacts>>,
    /// Virtual nodes by name.
    pub nodes: HashMap<String, Arc<Node>>,
    /// Labels of namespaces.
    pub namespaces: Namespaces,
}

/// The parts of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Pools,
    Waiting,
    Labelled,
    Nodes,
    Namespaces,
}

const PARTS: usize = 5;

/// What is watched.
#[derive(Debug, Default)]
pub struct Stores {
    view: Mutex<View>,
    /// The parts that have been listed.
    listed: watch::Sender<HashSet<Part>>,
    /// Something changed.
    pub changed: Arc<Notify>,
}

impl Stores {
    /// Everything, as it is known now.
    pub fn view(&self) -> View {
        self.lock().clone()
    }

    /// Waits until everything has been listed once.
    pub async fn wait_until_ready(&self) {
        let mut listed = self.listed.subscribe();
        // The sender is ours: it is not dropped.
        let _ = listed.wait_for(|listed| listed.len() == PARTS).await;
    }

    /// Takes in a pod of a newer version than the watches have shown: the answer to a patch or a read.
    pub fn learn_pod(&self, pod: Pod) {
        let Some(facts) = PodFacts::of(&pod) else {
            return;
        };
        let mut view = self.lock();
        if facts.grant.is_some() {
            insert_newer(&mut view.labelled, facts);
        }
        let Some(known) = view.waiting.get(&observed_uid(&pod)) else {
            return;
        };
        if newer(&pod, &known.facts) {
            let unknown = known.unknown.to_vec();
            let observed = Observed {
                pod,
                unknown,
                unreadable: None,
            };
            if let Some(waiting) = Waiting::of(observed) {
                view.waiting.insert(waiting.facts.id.uid.clone(), waiting);
            }
        }
    }

    /// Takes in a pool of a newer version than the watch has shown.
    pub fn learn_pool(&self, pool: BurstPool) {
        let mut view = self.lock();
        insert_pool(&mut view, pool);
    }

    /// Watches everything, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.pools(client),
            self.waiting(client),
            self.labelled(client),
            self.nodes(client),
            self.namespaces(client),
        );
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows one watch: `change` takes in what it shows, `None` at the beginning of a list and what
    /// the list had at its end are for removing what is gone.
    async fn follow<K>(
        &self,
        part: Part,
        events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>>,
        mut put: impl FnMut(&mut View, K),
        mut remove: impl FnMut(&mut View, &str),
        keys: impl Fn(&View) -> Vec<String>,
        key: impl Fn(&K) -> String,
    ) {
        let mut events = std::pin::pin!(events.default_backoff());
        let mut listed: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.insert(key(&object));
                    put(&mut self.lock(), object);
                }
                Ok(watcher::Event::InitDone) => {
                    let mut view = self.lock();
                    for gone in keys(&view).iter().filter(|key| !listed.contains(*key)) {
                        remove(&mut view, gone);
                    }
                    drop(view);
                    self.listed.send_modify(|parts| {
                        parts.insert(part);
                    });
                }
                Ok(watcher::Event::Apply(object)) => put(&mut self.lock(), object),
                Ok(watcher::Event::Delete(object)) => remove(&mut self.lock(), &key(&object)),
                Err(error) => {
                    tracing::debug!(?part, %error, "watching");
                    continue;
                }
            }
            self.changed.notify_one();
        }
    }

    async fn pools(&self, client: &Client) {
        let pools: Api<BurstPool> = Api::all(client.clone());
        self.follow(
            Part::Pools,
            watcher(pools, watcher::Config::default()),
            insert_pool,
            |view, name| drop(view.pools.remove(name)),
            |view| view.pools.keys().cloned().collect(),
            BurstPool::name_any,
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
            |view, pod| {
                let known = view.waiting.get(&observed_uid(&pod.pod));
                if known.is_some_and(|known| !newer(&pod.pod, &known.facts)) {
                    return;
                }
                if let Some(waiting) = Waiting::of(pod) {
                    view.waiting.insert(waiting.facts.id.uid.clone(), waiting);
                }
            },
            |view, uid| drop(view.waiting.remove(uid)),
            |view| view.waiting.keys().cloned().collect(),
            |pod| observed_uid(&pod.pod),
        )
        .await;
    }

    async fn labelled(&self, client: &Client) {
        let pods: Api<Observed> = Api::all(client.clone());
        self.follow(
            Part::Labelled,
            watcher(pods, watcher::Config::default().labels(POOL_LABEL)),
            |view, pod| {
                if let Some(facts) = PodFacts::of(&pod.pod) {
                    insert_newer(&mut view.labelled, facts);
                }
            },
            |view, uid| drop(view.labelled.remove(uid)),
            |view| view.labelled.keys().cloned().collect(),
            |pod| observed_uid(&pod.pod),
        )
        .await;
    }

    async fn nodes(&self, client: &Client) {
        let nodes: Api<Node> = Api::all(client.clone());
        self.follow(
            Part::Nodes,
            watcher(nodes, watcher::Config::default().labels(POOL_LABEL)),
            |view, node| {
                view.nodes.insert(node.name_any(), Arc::new(node));
            },
            |view, name| drop(view.nodes.remove(name)),
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
            |view, namespace: PartialObjectMeta<Namespace>| {
                let labels = namespace.metadata.labels.clone().unwrap_or_default();
                view.namespaces.insert(namespace.name_any(), labels);
            },
            |view, name| drop(view.namespaces.remove(name)),
            |view| view.namespaces.keys().cloned().collect(),
            PartialObjectMeta::name_any,
        )
        .await;
    }
}

fn observed_uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn newer(pod: &Pod, known: &PodFacts) -> bool {
    observed::version(pod) >= known.id.resource_version.parse().ok()
}

fn insert_newer(pods: &mut HashMap<String, Arc<PodFacts>>, facts: PodFacts) {
    let version = |facts: &PodFacts| facts.id.resource_version.parse::<u128>().ok();
    let known = pods.get(&facts.id.uid);
    if known.is_none_or(|known| version(known) <= version(&facts)) {
        pods.insert(facts.id.uid.clone(), Arc::new(facts));
    }
}

fn insert_pool(view: &mut View, pool: BurstPool) {
    let version = |pool: &BurstPool| pool.resource_version()?.parse::<u128>().ok();
    let known = view.pools.get(&pool.name_any());
    let same = known.filter(|known| known.uid() == pool.uid());
    if same.is_none_or(|known| version(known) <= version(&pool)) {
        view.pools.insert(pool.name_any(), Arc::new(pool));
    }
}
