//! The pods that are bound to a virtual node, each kept by a task of its own.
//!
//! In: the pods of the node as they are watched, and the container groups that there are. Out: for
//! each pod its container group, its status, and in the end neither. `plan` decides; a `keeper` a pod
//! carries it out and learns from it, so a slow or throttled call for one pod delays no other. What is
//! shared between keepers is in [`Context`]: clients, the pace of reading, how long starts take.
//!
//! ```text
//! watch of the node's pods ─▶ keeper (one a pod) ─plan─▶ act ─▶ Azure
//!                               ▲          └──▶ status, events ─▶ API server
//! sweep (LIST each minute) ─────┘  vanished groups; groups without a pod
//! ```

mod act;
mod keeper;
mod report;
mod sweep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aci::client::{Client as Azure, Scope};
use crate::aci::names::{GroupName, Owner};
use crate::aci::pace::Pace;
use crate::aci::schedule::Starts;
use crate::aci::translate;
use crate::api::Placement;
use crate::node::capacity::Room;
use keeper::Keeper;

/// How often the groups are listed, usually.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long a group must have been without a pod before it is deleted, usually: a pod that was just
/// bound may not have been seen yet, and nothing here is in a hurry.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(120);
/// How many keepers may be talking to Azure at once, besides the pace of reading.
const AT_ONCE: usize = 64;

/// What the keepers of one node share.
pub struct Context {
    parts: Parts,
    /// The cluster's Services, for the variables that name them.
    services: Store<Service>,
    watched: Mutex<Option<Writer<Service>>>,
    /// How long starts take here.
    starts: Mutex<Starts>,
    /// What the last LIST showed; nothing before the first.
    listed: watch::Sender<Option<Arc<Listing>>>,
    /// UIDs of the pods that have a keeper.
    kept: Mutex<HashSet<String>>,
    turns: Semaphore,
}

/// What a node's keepers are given.
pub struct Parts {
    /// Kubernetes, with retries.
    pub client: Client,
    /// Azure.
    pub azure: Azure,
    /// Where the node's groups are.
    pub scope: Scope,
    /// Whose they are.
    pub owner: Owner,
    /// The placement, as the pool has it.
    pub placement: Placement,
    /// The pool's tags for groups.
    pub tags: BTreeMap<String, String>,
    /// The node's address.
    pub address: String,
    /// The pace of reading, kept with everybody else who reads in this subscription.
    pub pace: Arc<Pace>,
    /// Told when Azure answers badly: whoever looks at the region looks at once.
    pub trouble: Arc<Notify>,
    /// How often the groups are listed.
    pub sweep_every: Duration,
    /// How long a group must have been without a pod before it is deleted.
    pub orphan_grace: Duration,
}

/// What a LIST showed.
#[derive(Debug)]
struct Listing {
    /// When it was asked for: it knows of nothing that came later.
    asked: Timestamp,
    /// The names of the node's groups.
    names: HashSet<String>,
    /// The names of everybody else's.
    foreign: HashSet<String>,
    /// What they use together.
    used: Room,
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Context {
    /// A context in which nothing has been seen yet.
    pub fn new(parts: Parts) -> Self {
        let (services, watched) = reflector::store();
        Self {
            services,
            watched: Mutex::new(Some(watched)),
            parts,
            starts: Mutex::default(),
            listed: watch::Sender::new(None),
            kept: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// How many groups the node has, as far as the last LIST showed; nothing before the first.
    pub fn groups(&self) -> Option<usize> {
        self.listed
            .borrow()
            .as_ref()
            .map(|listing| listing.names.len())
    }

    /// How many groups the node has now: asks Azure. Nothing if it does not answer.
    pub async fn count(&self) -> Option<usize> {
        sweep::list(self).await.map(|groups| groups.len())
    }

    /// What the node's groups use together, as far as the last LIST showed.
    pub fn ours(&self) -> Room {
        self.listed
            .borrow()
            .as_ref()
            .map(|listing| listing.used)
            .unwrap_or_default()
    }

    fn kept(&self) -> MutexGuard<'_, HashSet<String>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn starts(&self) -> MutexGuard<'_, Starts> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pod as it was watched.
#[derive(Clone, Debug)]
struct Observed {
    pod: Pod,
    /// Fields that our types do not know.
    unknown: Vec<String>,
}

/// Keeps the pods of the node until `cancel`; groups and pods stay as they are then.
pub async fn keep(context: Arc<Context>, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    tasks.spawn(sweep::keep(context.clone(), cancel.clone()));
    tasks.spawn(services(context.clone(), cancel.clone()));
    let mut herd = Herd {
        context,
        cancel: cancel.clone(),
        tasks: tasks.clone(),
        keepers: HashMap::new(),
    };
    tokio::select! {
        () = herd.watch() => {}
        () = cancel.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
}

/// Watches the cluster's Services until `cancel`.
async fn services(context: Arc<Context>, cancel: CancellationToken) {
    let writer = context
        .watched
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(writer) = writer else { return };
    let services: Api<Service> = Api::all(context.client.clone());
    let watched = watcher(services, watcher::Config::default())
        .default_backoff()
        .reflect(writer);
    let mut watched = Box::pin(watched);
    tokio::select! {
        () = async { while watched.next().await.is_some() {} } => {}
        () = cancel.cancelled() => {}
    }
}

/// The keepers of the node's pods, by the pods' UIDs.
struct Herd {
    context: Arc<Context>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    keepers: HashMap<String, watch::Sender<Option<Arc<Observed>>>>,
}

impl Herd {
    /// Watches raw objects, so that fields which our types do not know are not lost unseen.
    async fn watch(&mut self) {
        // A pod that is created before the Services are known would lack their variables.
        let _ = self.context.services.wait_until_ready().await;
        let kind = ApiResource::erase::<Pod>(&());
        let pods: Api<DynamicObject> = Api::all_with(self.context.client.clone(), &kind);
        let ours = format!("spec.nodeName={}", self.context.owner.node);
        let config = watcher::Config::default().fields(&ours);
        let mut events = Box::pin(watcher(pods, config).default_backoff());
        let mut listed: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.extend(pod.metadata.uid.clone());
                    self.seen(pod);
                }
                Ok(watcher::Event::InitDone) => {
                    let gone = self.keepers.keys().filter(|uid| !listed.contains(*uid));
                    for uid in gone.cloned().collect::<Vec<_>>() {
                        self.gone(&uid);
                    }
                }
                Ok(watcher::Event::Apply(pod)) => self.seen(pod),
                Ok(watcher::Event::Delete(pod)) => {
                    if let Some(uid) = &pod.metadata.uid {
                        self.gone(uid);
                    }
                }
                Err(error) => tracing::debug!(%error, "watching the node's pods"),
            }
        }
    }

    fn seen(&mut self, raw: DynamicObject) {
        let Some(uid) = raw.metadata.uid.clone() else {
            return;
        };
        let decoded = serde_json::to_value(raw).and_then(translate::decode);
        let (pod, unknown) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => return tracing::warn!(%uid, %error, "a pod that cannot be read"),
        };
        let observed = Some(Arc::new(Observed { pod, unknown }));
        match self.keepers.get(&uid) {
            Some(keeper) if !keeper.is_closed() => drop(keeper.send_replace(observed)),
            _ => self.start(uid, observed),
        }
    }

    fn start(&mut self, uid: String, observed: Option<Arc<Observed>>) {
        self.keepers.retain(|_, keeper| !keeper.is_closed());
        let Some(pod) = observed.as_ref().map(|observed| observed.pod.clone()) else {
            return;
        };
        let (sender, pods) = watch::channel(observed);
        let name = GroupName::of(&self.context.owner.cluster, &pod);
        let keeper = Keeper::new(self.context.clone(), pod, name, pods);
        let (cancel, context, kept) = (self.cancel.clone(), self.context.clone(), uid.clone());
        context.kept().insert(uid.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = keeper.keep() => {}
                () = cancel.cancelled() => {}
            }
            context.kept().remove(&kept);
        });
        self.keepers.insert(uid, sender);
    }

    /// The pod's object is gone: its keeper ends when its group is gone, too.
    fn gone(&mut self, uid: &str) {
        if let Some(keeper) = self.keepers.get(uid) {
            keeper.send_replace(None);
        }
    }
}
