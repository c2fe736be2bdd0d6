//! Which `DaemonSet`s have pods on the node.
//!
//! In: pods as their workers see them. Out: names for the pool's status.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Mutex, MutexGuard};

/// The `DaemonSet`s of the node's pods, by the pods' UIDs.
#[derive(Debug, Default)]
pub(super) struct DaemonSets(Mutex<BTreeMap<String, String>>);

impl DaemonSets {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock()
    }

    /// Records that `daemon_set` (namespace/name) controls the pod.
    pub fn insert(&self, pod: &Pod, daemon_set: String) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.entries().insert(uid, daemon_set);
    }

    /// Whether a `DaemonSet` controls the pod with this UID.
    pub fn contains(&self, uid: &str) -> bool {
        self.entries().contains_key(uid)
    }

    /// Removes the pod with this UID, which is gone.
    pub fn remove(&self, uid: &str) {
        self.entries().remove(uid);
    }

    /// The names as namespace/name, sorted and without duplicates.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.entries().values().cloned().collect();
        names.into_iter().collect()
    }
}
