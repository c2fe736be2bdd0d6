//! The pods that are bound to a virtual node. Each pod has a pod worker: a task of its own.
//!
//! In: the watch of the node's pods, and the LIST of container groups. Out: for each pod a container group in Azure
//! and a status in Kubernetes; when the pod is deleted, the worker deletes its group and then removes its object.
//! [`pod_plan`](super::pod_plan) decides, and the pod worker executes the decision and learns from the answer, so a
//! slow or throttled call for one pod does not delay another pod. The workers of a node share [`PodsContext`]:
//! clients, the rate limiter for reads, how long starts take.
//!
//! ```text
//! watch of the node's pods ─▶ pod controller ─▶ pod worker (one per pod) ─▶ actions ─▶ Azure
//!                                                 ▲       └──▶ status writer ─▶ status, Events ─▶ API server
//! garbage collection (LIST each minute) ─▶ group list ─┘  groups that vanished; groups without a pod
//! ```
//!
//! Urgent calls come first. A PUT or a DELETE waits only for its own back-off and for one of 64 permits. A status
//! that changes the phase, the readiness or an address is written at once, at most eight at a time. Everything else
//! (that containers are being created, details, Events) is written one at a time, so that a thousand pods that start
//! together do not keep the API server from binding the next pod.
//!
//! A GET waits for the rate limiter. While pod workers wait in the read queue, the operator lists the groups about
//! once a second: a LIST has no instance views, but it gives the provisioning state of all groups at once, which is
//! enough to report a pod with `restartPolicy: Always` as running. The pod's GET adds the details.

mod controller;
mod daemon_sets;
#[cfg(test)]
pub(crate) mod fixtures;
mod garbage_collection;
mod group_list;
mod pod_index;
mod post_bind;
mod read_queue;
mod worker;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::core::{DeserializeGuard, Status};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aci::client::{AciClient as Azure, GroupScope};
use crate::aci::failure::FailureClass;
use crate::aci::names::{GroupName, GroupOwner};
use crate::aci::poll_interval::StartLatencies;
use crate::aci::rate_limiter::RateLimiter;
use crate::aci::translate::{self, IdentityNamespaces};
use crate::api::Placement;
use crate::burst::PodFacts;
use crate::k8s::watch_health::{report_errors, skip_unreadable};
use crate::node::environment::KubeProxy;
use crate::node::quota::RegionQuota;
use controller::PodController;
use group_list::{GroupChanges, GroupListing, ListedState};
use pod_index::PodIndex;
pub use pod_index::{ContainerInfo, PodInfo};
use read_queue::ReadQueue;

/// Default interval between two LISTs of the container groups.
pub const LIST_INTERVAL: Duration = Duration::from_secs(60);
/// How long a group must have been without a pod before it is deleted, by default: the watch may not have delivered
/// a pod that was just bound, and a group without a pod is not urgent.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(120);
/// How many container groups the workers of a node may be creating or deleting at once.
const MAX_CONCURRENT_GROUP_WRITES: usize = 64;

/// How long Azure must deny a resource group before its groups count as gone: a single answer may be wrong.
const RESOURCE_GROUP_DENIED_THRESHOLD: Duration = Duration::from_secs(20);
/// The most create results that wait to be taken ([`PodsContext::take_create_results`]); later ones are dropped. The
/// caller takes them several times a second.
const MAX_CREATE_RESULTS: usize = 1000;
/// How many statuses may be written at once. One LIST may show that a thousand pods run: eight writes keep an API
/// server busy and still leave room for grants, bindings and other clients' writes.
const MAX_CONCURRENT_STATUS_WRITES: usize = 8;

/// Whether the API server rejects the write itself. With any other status it is overloaded or failing, and may
/// accept the same write later.
fn is_permanent_rejection(status: &Status) -> bool {
    (400..429).contains(&status.code)
}

/// What the pod workers of one node share.
pub struct PodsContext {
    config: PodsConfig,
    /// The current settings. Pod workers are notified only when a setting that translation uses changes.
    settings: watch::Sender<Arc<PodSettings>>,
    /// The cluster's Services, for the `{SERVICE}_SERVICE_HOST` environment variables.
    services: Store<Service>,
    services_writer: Mutex<Option<Writer<Service>>>,
    /// How long starts take on this node.
    start_latencies: Mutex<StartLatencies>,
    /// The result of the last LIST; `None` before the first.
    last_listing: watch::Sender<Option<Arc<GroupListing>>>,
    /// Whether the watch has delivered the initial list of the node's pods.
    pods_listed: watch::Sender<bool>,
    /// Whether Azure refused the last LIST with 403.
    is_list_refused: AtomicBool,
    /// Since when Azure answers each LIST that the resource group or the subscription does not exist.
    denied_since: Mutex<Option<Instant>>,
    /// What workers learned about groups since the last LIST.
    changes_since_list: Mutex<GroupChanges>,
    /// The pods that have a worker, by UID: the name of the group, and the channel that carries what each LIST
    /// shows of it.
    workers: Mutex<HashMap<String, (GroupName, watch::Sender<ListedState>)>>,
    /// Limits concurrent creates and deletes of groups.
    group_write_permits: Semaphore,
    /// Limits concurrent status writes.
    status_write_permits: Semaphore,
    /// Limits writes that are not urgent: one at a time.
    low_priority_write_permit: Arc<Semaphore>,
    /// The read queue: workers that wait for a GET.
    read_queue: ReadQueue,
    /// The facts about the node's pods that burst decisions use, by UID.
    pod_facts: Mutex<HashMap<String, Arc<PodFacts>>>,
    /// Create results that were not taken yet.
    create_results: Mutex<Vec<CreateResult>>,
    daemon_sets: daemon_sets::DaemonSets,
    /// The node's pods, for the kubelet API.
    pod_index: PodIndex,
}

/// How the creation of a container group ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateResult {
    /// When it ended.
    pub at: Timestamp,
    /// What was wrong; `None` if the containers started.
    pub class: Option<FailureClass>,
    /// Azure's message; empty if the containers started.
    pub message: String,
}

/// What a node's [`PodsContext`] is built from.
pub struct PodsConfig {
    /// The Kubernetes client, which retries.
    pub client: Client,
    /// The Azure client.
    pub azure: Azure,
    /// The subscription and resource group of the node's container groups.
    pub scope: GroupScope,
    /// The cluster, pool and node that own the groups: the groups' tags name them.
    pub owner: GroupOwner,
    /// The settings that may change while the node's pods run, with their initial values.
    pub settings: PodSettings,
    /// The node's IP address.
    pub address: String,
    /// The rate limiter for reads, shared by all readers of this subscription.
    pub rate_limiter: Arc<RateLimiter>,
    /// Notified when the region must be checked immediately: Azure returned an error, or the settings changed.
    pub azure_failed: Arc<Notify>,
    /// Notified when anything about the node's pods changed.
    pub pods_changed: Arc<Notify>,
    /// The regional quota that the node's groups count against.
    pub quota: Arc<RegionQuota>,
    /// The interval between two LISTs of the groups.
    pub list_interval: Duration,
    /// How long a group must have been without a pod before it is deleted.
    pub orphan_grace: Duration,
    /// The namespaces whose pods may choose managed identities.
    pub identities: IdentityNamespaces,
}

/// The settings of a placement and its pool that may change while pods run there. Groups that exist keep what they
/// were created with.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSettings {
    /// The placement from the pool's spec. Its name, region and subnet do not change.
    pub placement: Placement,
    /// The pool's tags for container groups.
    pub tags: BTreeMap<String, String>,
    /// The input of ACI's kube-proxy, if the placement enables it.
    pub kube_proxy: Option<KubeProxy>,
    /// The deletion cost of pods that are bound to the node from now on.
    pub deletion_cost: i32,
}

impl PodSettings {
    /// Whether every pod translates to the same group with these settings as with `other`.
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

impl Deref for PodsContext {
    type Target = PodsConfig;

    fn deref(&self) -> &PodsConfig {
        &self.config
    }
}

impl PodsContext {
    /// The current settings.
    pub fn settings(&self) -> Arc<PodSettings> {
        self.settings.borrow().clone()
    }

    /// Applies new settings while pods run; no container group is restarted. The region is checked again, because
    /// the capacity or the priority may have changed.
    pub fn change(&self, settings: PodSettings) {
        self.settings.send_if_modified(|current| {
            let is_change = !settings.translates_as(current);
            *current = Arc::new(settings);
            is_change
        });
        self.azure_failed.notify_one();
        self.pods_changed.notify_one();
    }

    /// The placement in the form that translation takes.
    fn translation_target<'a>(
        &'a self,
        settings: &'a PodSettings,
    ) -> translate::TranslationTarget<'a> {
        translate::TranslationTarget {
            spec: &settings.placement,
            tags: &settings.tags,
            node: &self.owner.node,
            node_address: Some(&self.address),
            identities: &self.identities,
        }
    }

    /// A context that has not yet seen any pod or group.
    pub fn new(config: PodsConfig) -> Self {
        let (services, writer) = reflector::store();
        Self {
            services,
            services_writer: Mutex::new(Some(writer)),
            settings: watch::Sender::new(Arc::new(config.settings.clone())),
            config,
            start_latencies: Mutex::default(),
            last_listing: watch::Sender::new(None),
            pods_listed: watch::Sender::new(false),
            is_list_refused: AtomicBool::new(false),
            denied_since: Mutex::default(),
            changes_since_list: Mutex::default(),
            workers: Mutex::default(),
            group_write_permits: Semaphore::new(MAX_CONCURRENT_GROUP_WRITES),
            status_write_permits: Semaphore::new(MAX_CONCURRENT_STATUS_WRITES),
            low_priority_write_permit: Arc::new(Semaphore::new(1)),
            read_queue: ReadQueue::default(),
            pod_facts: Mutex::default(),
            create_results: Mutex::default(),
            daemon_sets: daemon_sets::DaemonSets::default(),
            pod_index: PodIndex::default(),
        }
    }

    /// Whether the node is known to have pods or groups. Pods of `DaemonSet`s do not count: they have no groups,
    /// and stay as long as the node does.
    pub fn has_pods_or_groups(&self) -> bool {
        self.is_any_kept() || self.group_count().is_some_and(|groups| groups > 0)
    }

    /// Whether any pod has a worker. A worker also outlives its pod until the pod's group is gone. Pods of
    /// `DaemonSet`s do not count.
    pub fn is_any_kept(&self) -> bool {
        let workers = self.workers();
        workers.keys().any(|uid| !self.daemon_sets.contains(uid))
    }

    /// Whether Azure answered the last LIST of groups with 403: the operator's identity lacks the right. Azure also
    /// answers this for a deleted resource group if the right was assigned there.
    pub fn is_list_refused(&self) -> bool {
        self.is_list_refused.load(Ordering::Relaxed)
    }

    /// Asks Azure how many groups the node has now. `None` if the LIST fails or an element of the answer cannot be
    /// read. Once Azure has denied the resource group for 20 s, the count is 0.
    pub async fn count_groups(&self) -> Option<usize> {
        match garbage_collection::list_groups(self).await {
            Some(groups) => groups.is_whole.then_some(groups.groups.len()),
            None => self.is_resource_group_gone().then_some(0),
        }
    }

    /// Whether Azure answers a LIST of the groups.
    pub async fn can_list(&self) -> bool {
        garbage_collection::list_groups(self).await.is_some()
    }

    fn is_resource_group_gone(&self) -> bool {
        self.denied_since
            .lock()
            .is_some_and(|since| since.elapsed() >= RESOURCE_GROUP_DENIED_THRESHOLD)
    }

    /// Waits until the node's groups and its pods have been listed once.
    pub async fn wait_until_listed(&self) {
        let (mut groups, mut pods) = (self.last_listing.subscribe(), self.pods_listed.subscribe());
        // `wait_for` fails only if the sender is dropped, and `self` owns both senders.
        let _ = groups.wait_for(Option::is_some).await;
        let _ = pods.wait_for(|listed| *listed).await;
    }

    /// Whether the watch has delivered the initial list of the node's pods.
    pub fn has_listed_pods(&self) -> bool {
        *self.pods_listed.borrow()
    }

    /// The UIDs of the pods whose groups are known to exist.
    pub fn pods_with_groups(&self) -> HashSet<String> {
        let workers = self.workers();
        let listed = self.last_listing.borrow();
        let changes = self.changes_since_list.lock();
        let exists = |name: &GroupName| changes.exists(name.as_str(), listed.as_deref());
        let existing = workers.iter().filter(|(_, (name, _))| exists(name));
        existing.map(|(uid, _)| uid.clone()).collect()
    }

    /// The facts about the node's pods that burst decisions use.
    pub fn pod_facts(&self) -> Vec<Arc<PodFacts>> {
        self.pod_facts.lock().values().cloned().collect()
    }

    /// Takes the create results since the last call.
    pub fn take_create_results(&self) -> Vec<CreateResult> {
        std::mem::take(&mut self.create_results.lock())
    }

    fn record_create_result(&self, class: Option<FailureClass>, message: &str) {
        let mut results = self.create_results.lock();
        if results.len() < MAX_CREATE_RESULTS {
            results.push(CreateResult {
                at: Timestamp::now(),
                class,
                message: message.to_owned(),
            });
        }
        drop(results);
        self.pods_changed.notify_one();
    }

    /// The `DaemonSet`s that have pods on the node, as namespace/name.
    pub fn daemon_sets(&self) -> Vec<String> {
        self.daemon_sets.names()
    }

    /// The node's pod of this name.
    pub fn find_pod(&self, namespace: &str, name: &str) -> Option<Arc<PodInfo>> {
        self.pod_index.get(namespace, name)
    }

    /// All pods of the node.
    pub fn all_pods(&self) -> Vec<Arc<PodInfo>> {
        self.pod_index.all()
    }

    fn workers(&self) -> MutexGuard<'_, HashMap<String, (GroupName, watch::Sender<ListedState>)>> {
        self.workers.lock()
    }

    fn start_latencies(&self) -> MutexGuard<'_, StartLatencies> {
        self.start_latencies.lock()
    }
}

/// Runs the pods of the node until `cancel`. After that the groups and pods stay as they are.
pub async fn run(context: Arc<PodsContext>, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    tasks.spawn(garbage_collection::run(context.clone(), cancel.clone()));
    tasks.spawn(watch_services(context.clone(), cancel.clone()));
    let mut controller = PodController {
        context,
        cancel: cancel.clone(),
        tasks: tasks.clone(),
        workers: HashMap::new(),
        post_bind_states: HashMap::new(),
    };
    tokio::select! {
        () = controller.run() => {}
        () = cancel.cancelled() => {}
    }
    tasks.close();
    tasks.wait().await;
}

/// Watches the cluster's Services until `cancel`.
async fn watch_services(context: Arc<PodsContext>, cancel: CancellationToken) {
    let writer = context.services_writer.lock().take();
    let Some(writer) = writer else { return };
    let services: Api<DeserializeGuard<Service>> = Api::all(context.client.clone());
    let events = skip_unreadable(watcher(services, watcher::Config::default()).default_backoff());
    // The pod controller starts no worker before this watch has delivered the Services.
    let events = report_errors("Services", events).reflect(writer);
    tokio::select! {
        () = events.for_each(async |_| {}) => {}
        () = cancel.cancelled() => {}
    }
}
