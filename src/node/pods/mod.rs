//! The pods that are bound to a virtual node, each kept by a task of its own.
//!
//! In: the pods of the node as they are watched, and the container groups that there are. Out: for
//! each pod its container group, its status, and in the end neither. `plan` decides; a `keeper` a pod
//! carries it out and learns from it, so a slow or throttled call for one pod delays no other. What is
//! shared between keepers is in [`Context`]: clients, the pace of reading, how long starts take.
//!
//! ```text
//! watch of the node's pods ─▶ herd ─▶ keeper (one a pod) ─plan─▶ act ─▶ Azure
//!                                       ▲          └──▶ report ─▶ status, Events ─▶ API server
//! sweep (LIST each minute) ─▶ shown ────┘  vanished groups; groups without a pod
//! ```
//!
//! What is urgent comes first. A PUT or a DELETE waits for nothing but its own time. A status that
//! changes a phase, readiness or an address is written at once; everything else that is said (that
//! containers are being created, details, Events) goes through a quiet lane, one after the other, so
//! that a thousand pods at once do not keep the API server from binding the next.
//!
//! A GET waits for its turn of the pace. While keepers wait in line, the groups are listed every
//! second or so: a LIST has no instance views, but says of all groups at once how far they are, which
//! is enough to call a service's pod running. Details follow with its GET.

mod absent;
mod act;
mod changed;
mod daemons;
mod events;
#[cfg(test)]
pub(crate) mod fixtures;
mod herd;
mod hosted;
mod keeper;
mod line;
mod report;
mod settle;
mod shown;
mod sweep;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::core::{DeserializeGuard, Status};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aci::client::{Client as Azure, Scope};
use crate::aci::failure::Class;
use crate::aci::names::{GroupName, Owner};
use crate::aci::pace::Pace;
use crate::aci::schedule::Starts;
use crate::aci::translate::{self, Identities};
use crate::api::Placement;
use crate::burst::PodFacts;
use crate::node::environment::KubeProxy;
use crate::node::quota::Quota;
use crate::node::watched::{readable, reported};
use herd::Herd;
use hosted::AllHosted;
pub use hosted::{Hosted, HostedContainer};
use line::Line;
use shown::{Listing, Shown, Since};

/// How often the groups are listed, usually.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How long a group must have been without a pod before it is deleted, usually: a pod that was just
/// bound may not have been seen yet, and nothing here is in a hurry.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(120);
/// How many keepers may be creating or deleting groups at once.
const AT_ONCE: usize = 64;

/// For how long Azure must deny a resource group until its groups count as gone: one answer may be wrong.
const DENIED_FOR: Duration = Duration::from_secs(20);
/// How many ends of creates are kept for who asks: they are asked for several times a second.
const MOST_ENDED: usize = 1000;
/// How many statuses may be written at once. One LIST may tell of a thousand pods that run: as many as keep an
/// API server busy, and no more, so that grants, bindings and everybody else's writes find their turn.
const WRITES_AT_ONCE: usize = 8;

/// Whether the API server does not want what was written; else it is short of time or strength, and may take
/// the same later.
fn is_refused(status: &Status) -> bool {
    (400..429).contains(&status.code)
}

/// What the keepers of one node share.
pub struct Context {
    parts: Parts,
    /// The settings as they are now. Workers are notified of those that translation uses.
    settings: watch::Sender<Arc<Settings>>,
    /// The cluster's Services, for the variables that name them.
    services: Store<Service>,
    watched: Mutex<Option<Writer<Service>>>,
    /// How long starts take here.
    starts: Mutex<Starts>,
    /// What the last LIST showed; nothing before the first.
    listed: watch::Sender<Option<Arc<Listing>>>,
    /// Whether the node's pods have been listed.
    pods_listed: watch::Sender<bool>,
    /// Whether Azure refused the last LIST.
    may_not_list: AtomicBool,
    /// Since when each LIST is answered that there is no such resource group.
    denied_since: Mutex<Option<Instant>>,
    /// What was learned of groups since.
    since: Mutex<Since>,
    /// By UID, the pods that have a keeper: their groups, and what their keepers hear of LISTs.
    kept: Mutex<HashMap<String, (GroupName, watch::Sender<Shown>)>>,
    /// Creating and deleting groups.
    turns: Semaphore,
    /// Writing to Kubernetes what is urgent.
    urgent: Semaphore,
    /// Writing what is not: one at a time.
    quiet: Arc<Semaphore>,
    /// Keepers that wait to read.
    line: Line,
    /// What matters of the node's pods for bursting, by UID.
    facts: Mutex<HashMap<String, Arc<PodFacts>>>,
    /// How creates ended, until somebody asks.
    ended: Mutex<Vec<Ended>>,
    daemon_sets: daemons::DaemonSets,
    /// The node's pods, for the kubelet API.
    hosted: AllHosted,
}

/// How a create ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// What was wrong; nothing if its containers started.
    pub class: Option<Class>,
    /// Azure's words.
    pub message: String,
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
    /// What may change while the node's pods run, as it is at first.
    pub settings: Settings,
    /// The node's address.
    pub address: String,
    /// The pace of reading, kept with everybody else who reads in this subscription.
    pub pace: Arc<Pace>,
    /// Told when Azure answers badly: whoever looks at the region looks at once.
    pub trouble: Arc<Notify>,
    /// Told when something of the node's pods changed.
    pub changed: Arc<Notify>,
    /// The quota that the node's groups count for.
    pub quota: Arc<Quota>,
    /// How often the groups are listed.
    pub sweep_every: Duration,
    /// How long a group must have been without a pod before it is deleted.
    pub orphan_grace: Duration,
    /// The namespaces whose pods may choose managed identities.
    pub identities: Identities,
}

/// What of a placement and of its pool may change while pods run there. Groups that exist keep what they were
/// created with.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The placement, as the pool has it. Its name, region and subnet stay the same.
    pub placement: Placement,
    /// The pool's tags for groups.
    pub tags: BTreeMap<String, String>,
    /// What ACI's kube-proxy is given, where the placement wants one.
    pub kube_proxy: Option<KubeProxy>,
    /// The deletion cost of pods that are bound to the node from now on.
    pub deletion_cost: i32,
}

impl Settings {
    /// Whether a pod may be translated to another group with these settings than with `other`.
    fn translates_as(&self, other: &Self) -> bool {
        let node_only = Placement {
            labels: other.placement.labels.clone(),
            capacity: other.placement.capacity.clone(),
            ..self.placement.clone()
        };
        let same_cost = Self {
            placement: node_only,
            deletion_cost: other.deletion_cost,
            ..self.clone()
        };
        same_cost == *other
    }
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Context {
    /// The settings as they are now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// Applies new settings to what runs: nothing is restarted. The region is asked again, since capacity or
    /// priority may be others.
    pub fn change(&self, settings: Settings) {
        self.settings.send_if_modified(|now| {
            let is_other = !settings.translates_as(now);
            *now = Arc::new(settings);
            is_other
        });
        self.trouble.notify_one();
        self.changed.notify_one();
    }

    /// Where the node's pods go, as their translation wants it.
    fn place<'a>(&'a self, settings: &'a Settings) -> translate::Placement<'a> {
        translate::Placement {
            spec: &settings.placement,
            tags: &settings.tags,
            node: &self.owner.node,
            node_address: Some(&self.address),
            identities: &self.identities,
        }
    }

    /// A context in which nothing has been seen yet.
    pub fn new(parts: Parts) -> Self {
        let (services, watched) = reflector::store();
        Self {
            services,
            watched: Mutex::new(Some(watched)),
            settings: watch::Sender::new(Arc::new(parts.settings.clone())),
            parts,
            starts: Mutex::default(),
            listed: watch::Sender::new(None),
            pods_listed: watch::Sender::new(false),
            may_not_list: AtomicBool::new(false),
            denied_since: Mutex::default(),
            since: Mutex::default(),
            kept: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            urgent: Semaphore::new(WRITES_AT_ONCE),
            quiet: Arc::new(Semaphore::new(1)),
            line: Line::default(),
            facts: Mutex::default(),
            ended: Mutex::default(),
            daemon_sets: daemons::DaemonSets::default(),
            hosted: AllHosted::default(),
        }
    }

    /// Whether the node is known to have pods or groups. Pods of `DaemonSet`s do not count: they have no
    /// groups, and stay as long as the node does.
    pub fn has_any(&self) -> bool {
        self.is_any_kept() || self.groups().is_some_and(|groups| groups > 0)
    }

    /// Whether a pod, or the group of one that is gone, is still looked after. Not those of `DaemonSet`s.
    pub fn is_any_kept(&self) -> bool {
        let kept = self.kept();
        kept.keys().any(|uid| !self.daemon_sets.contains(uid))
    }

    /// Whether Azure answered the last LIST of groups that there is no such subscription or resource group, or
    /// that the operator has no rights there.
    pub fn may_not_list(&self) -> bool {
        self.may_not_list.load(Ordering::Relaxed)
    }

    /// How many groups the node has now: asks Azure. Nothing if it does not answer, or if an answer could not
    /// be read as a whole. Once Azure has denied the resource group for `DENIED_FOR`, there are none.
    pub async fn count(&self) -> Option<usize> {
        match sweep::list(self).await {
            Some(groups) => groups.is_whole.then_some(groups.all.len()),
            None => self.is_resource_group_gone().then_some(0),
        }
    }

    fn is_resource_group_gone(&self) -> bool {
        lock(&self.denied_since).is_some_and(|since| since.elapsed() >= DENIED_FOR)
    }

    /// Returns when the node's groups and its pods have been listed once.
    pub async fn until_listed(&self) {
        let (mut groups, mut pods) = (self.listed.subscribe(), self.pods_listed.subscribe());
        // The senders are ours: they are not dropped.
        let _ = groups.wait_for(Option::is_some).await;
        let _ = pods.wait_for(|listed| *listed).await;
    }

    /// Whether the node's pods have been listed.
    pub fn has_listed_pods(&self) -> bool {
        *self.pods_listed.borrow()
    }

    /// The UIDs of pods whose groups are known to be there.
    pub fn created(&self) -> HashSet<String> {
        let kept = self.kept();
        let listed = self.listed.borrow();
        let since = lock(&self.since);
        let is_there = |name: &GroupName| since.is_there(name.as_str(), listed.as_deref());
        let there = kept.iter().filter(|(_, (name, _))| is_there(name));
        there.map(|(uid, _)| uid.clone()).collect()
    }

    /// What matters of the node's pods for bursting.
    pub fn pods(&self) -> Vec<Arc<PodFacts>> {
        lock(&self.facts).values().cloned().collect()
    }

    /// How creates ended since this was asked last.
    pub fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut lock(&self.ended))
    }

    fn ended(&self, class: Option<Class>, message: &str) {
        let mut ended = lock(&self.ended);
        if ended.len() < MOST_ENDED {
            ended.push(Ended {
                at: Timestamp::now(),
                class,
                message: message.to_owned(),
            });
        }
        drop(ended);
        self.changed.notify_one();
    }

    /// The `DaemonSet`s that have pods on the node, as namespace/name.
    pub fn daemon_sets(&self) -> Vec<String> {
        self.daemon_sets.names()
    }

    /// The node's pod of this name.
    pub fn hosted(&self, namespace: &str, name: &str) -> Option<Arc<Hosted>> {
        self.hosted.get(namespace, name)
    }

    /// All pods of the node.
    pub fn all_hosted(&self) -> Vec<Arc<Hosted>> {
        self.hosted.all()
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, (GroupName, watch::Sender<Shown>)>> {
        lock(&self.kept)
    }

    fn starts(&self) -> MutexGuard<'_, Starts> {
        lock(&self.starts)
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
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
        settled: HashMap::new(),
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
    let writer = lock(&context.watched).take();
    let Some(writer) = writer else { return };
    let services: Api<DeserializeGuard<Service>> = Api::all(context.client.clone());
    let watched = readable(watcher(services, watcher::Config::default()).default_backoff());
    // No pod is looked after before they are known.
    let watched = reported("Services", watched).reflect(writer);
    tokio::select! {
        () = watched.for_each(async |_| {}) => {}
        () = cancel.cancelled() => {}
    }
}
