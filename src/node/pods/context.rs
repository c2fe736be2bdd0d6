//! What the pod workers of one node share, and what other modules ask about the node's pods.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use super::create_results::{CreateResult, CreateResults};
use super::daemon_sets::DaemonSets;
use super::group_list::{GroupChanges, GroupListing, ListedState};
use super::list_failures::ListFailures;
use super::pod_index::{PodIndex, PodInfo};
use super::read_queue::ReadQueue;
use super::{PodSettings, PodsConfig, garbage_collection};
use crate::aci::failure::FailureClass;
use crate::aci::names::GroupName;
use crate::aci::poll_interval::StartLatencies;
use crate::aci::translate;
use crate::api::LossSet;
use crate::burst::PodFacts;
use crate::node::probe::{ProbeManager, ProbePath};

/// How many container groups the workers of a node may be creating or deleting at once.
pub(super) const MAX_CONCURRENT_GROUP_WRITES: usize = 64;
/// How many statuses may be written at once. One LIST may show that a thousand pods run: eight writes keep an API
/// server busy and still leave room for grants, bindings and other clients' writes.
const MAX_CONCURRENT_STATUS_WRITES: usize = 8;

/// The pods that have a worker, by UID: the name of the group, and the channel that carries what each LIST shows of it.
pub(super) type WorkersByUid = HashMap<String, (GroupName, watch::Sender<ListedState>)>;

/// What the pod workers of one node share.
pub struct PodsContext {
    config: PodsConfig,
    /// The current settings. Pod workers are notified only when a setting that translation uses changes.
    pub(super) settings: watch::Sender<Arc<PodSettings>>,
    /// How long starts take on this node.
    pub(super) start_latencies: Mutex<StartLatencies>,
    /// The result of the last LIST; `None` before the first.
    pub(super) last_listing: watch::Sender<Option<Arc<GroupListing>>>,
    /// Whether the watch has delivered the initial list of the node's pods.
    pub(super) pods_listed: watch::Sender<bool>,
    /// Why the last LIST failed.
    pub(super) list_failures: ListFailures,
    /// What workers learned about groups since the last LIST.
    pub(super) changes_since_list: Mutex<GroupChanges>,
    /// The pods that have a worker, by UID: the name of the group, and the channel that carries what each LIST
    /// shows of it.
    pub(super) workers: Mutex<WorkersByUid>,
    /// Limits concurrent creates and deletes of groups.
    pub(super) group_write_permits: Semaphore,
    /// Limits concurrent status writes.
    pub(super) status_write_permits: Semaphore,
    /// Limits writes that are not urgent: one at a time.
    pub(super) low_priority_write_permit: Arc<Semaphore>,
    /// The read queue: workers that wait for a GET.
    pub(super) read_queue: ReadQueue,
    /// The facts about the node's pods that burst decisions use, by UID.
    pub(super) pod_facts: Mutex<HashMap<String, Arc<PodFacts>>>,
    /// Create results that were not taken yet.
    pub(super) create_results: CreateResults,
    pub(super) daemon_sets: DaemonSets,
    /// The node's pods, for the kubelet API.
    pub(super) pod_index: PodIndex,
    /// The probes that the node runs.
    pub(super) probes: ProbeManager,
}

impl Deref for PodsContext {
    type Target = PodsConfig;

    fn deref(&self) -> &PodsConfig {
        &self.config
    }
}

impl PodsContext {
    /// Whether the node's probes reach its pods; `None` before a pod has answered or has failed to answer.
    pub fn probe_path(&self) -> Option<ProbePath> {
        self.probes.path()
    }

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

    /// The placement in the form that translation takes, for a pod that may lose what is `accepted`.
    pub(super) fn translation_target<'a>(
        &'a self,
        settings: &'a PodSettings,
        accepted: &'a LossSet,
    ) -> translate::TranslationTarget<'a> {
        translate::TranslationTarget {
            spec: &settings.placement,
            tags: &settings.tags,
            node: &self.owner.node,
            node_address: Some(&self.address),
            identities: &self.identities,
            accepted,
        }
    }

    /// A context that has not yet seen any pod or group.
    pub fn new(config: PodsConfig) -> Self {
        Self {
            settings: watch::Sender::new(Arc::new(config.settings.clone())),
            config,
            start_latencies: Mutex::default(),
            last_listing: watch::Sender::new(None),
            pods_listed: watch::Sender::new(false),
            list_failures: ListFailures::default(),
            changes_since_list: Mutex::default(),
            workers: Mutex::default(),
            group_write_permits: Semaphore::new(MAX_CONCURRENT_GROUP_WRITES),
            status_write_permits: Semaphore::new(MAX_CONCURRENT_STATUS_WRITES),
            low_priority_write_permit: Arc::new(Semaphore::new(1)),
            read_queue: ReadQueue::default(),
            pod_facts: Mutex::default(),
            create_results: CreateResults::default(),
            daemon_sets: DaemonSets::default(),
            pod_index: PodIndex::default(),
            probes: ProbeManager::new(Timestamp::now()),
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
    pub fn is_list_forbidden(&self) -> bool {
        self.list_failures.is_forbidden()
    }

    /// Asks Azure how many groups the node has now. `None` if the LIST fails or an element of the answer cannot be
    /// read. Once Azure has not found the resource group for 20 s, the count is 0.
    pub async fn count_groups(&self) -> Option<usize> {
        match garbage_collection::list_groups(self).await {
            Some(groups) => groups.is_whole.then_some(groups.groups.len()),
            None => self.list_failures.is_resource_group_gone().then_some(0),
        }
    }

    /// Whether Azure answers a LIST of the groups.
    pub async fn can_list(&self) -> bool {
        garbage_collection::list_groups(self).await.is_some()
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
        self.create_results.take()
    }

    /// Records how a create ended; `class` is `None` if the containers started.
    pub(super) fn record_create_result(&self, class: Option<FailureClass>, message: &str) {
        self.create_results.record(class, message);
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

    /// The pods that have a worker, by UID.
    pub(super) fn workers(&self) -> MutexGuard<'_, WorkersByUid> {
        self.workers.lock()
    }

    /// How long starts take on this node.
    pub(super) fn start_latencies(&self) -> MutexGuard<'_, StartLatencies> {
        self.start_latencies.lock()
    }
}
