//! Which `DaemonSet`s have pods on the node, and telling such a pod's reader why it does not run.
//!
//! In: pods as their keepers see them. Out: names for the pool's status, an Event for each pod.
//! [`daemon`] decides everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use k8s_openapi::api::core::v1::Pod;

use super::keeper::Keeper;
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

    /// Whether the pod with this UID is a `DaemonSet`'s.
    pub fn contains(&self, uid: &str) -> bool {
        self.all().contains_key(uid)
    }

    /// That pod is gone.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }

    /// Their names, each once, in order.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<String> = self.all().values().cloned().collect();
        names.into_iter().collect()
    }
}

impl Keeper {
    /// Takes in whether the pod is a `DaemonSet`'s, and says so.
    pub fn heed_daemon_set(&mut self) {
        if let Some(daemon_set) = daemon::daemon_set(&self.pod).filter(|_| self.exists) {
            self.context.daemon_sets.note(&self.pod, daemon_set);
            self.warn(daemon::REASON, daemon::MESSAGE);
        }
    }
}
