//! Which `DaemonSet`s have pods on the node, and the Event that says why such a pod does not run.
//!
//! In: pods as their workers see them. Out: names for the pool's status, and an Event for each pod. [`daemon`]
//! decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use k8s_openapi::api::core::v1::Pod;

use super::keeper::PodWorker;
use super::lock;
use crate::node::daemon;

/// The `DaemonSet`s of the node's pods, by the pods' UIDs.
#[derive(Debug, Default)]
pub(super) struct DaemonSets(Mutex<BTreeMap<String, String>>);

impl DaemonSets {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        lock(&self.0)
    }

    fn note(&self, pod: &Pod, daemon_set: String) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.all().insert(uid, daemon_set);
    }

    /// Whether a `DaemonSet` controls the pod with this UID.
    pub fn contains(&self, uid: &str) -> bool {
        self.all().contains_key(uid)
    }

    /// Forgets the pod with this UID: it is gone.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// The names as namespace/name, sorted and without duplicates.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.all().values().cloned().collect();
        names.into_iter().collect()
    }
}

impl PodWorker {
    /// If a `DaemonSet` controls the pod, records its name and queues the Event.
    pub fn update_daemon_set(&mut self) {
        if let Some(daemon_set) = daemon::daemon_set(&self.pod).filter(|_| self.exists) {
            self.context.daemon_sets.note(&self.pod, daemon_set);
            self.warn(daemon::REASON, daemon::MESSAGE);
        }
    }
}
