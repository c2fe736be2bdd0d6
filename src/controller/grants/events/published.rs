//! Which Events about pods have been published: one per pod and reason, until the content changes.
//!
//! In: the Events of plans. Out: whether an Event is new. The publisher and the task that writes Events share
//! this record.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// By pod UID, the Events that were written or wait, as reason and content.
type EventsByPod = HashMap<String, Vec<(&'static str, String)>>;

/// The Events that were written or wait. Another Event of the same pod and reason is published only if its
/// content differs.
#[derive(Clone, Default)]
pub(super) struct PublishedEvents(Arc<Mutex<EventsByPod>>);

impl PublishedEvents {
    /// Calls `publish`, unless the last Event about the pod with this reason had the same content. Records the
    /// content if `publish` returns `true`.
    pub fn publish_if_new(
        &self,
        uid: &str,
        reason: &'static str,
        content: String,
        publish: impl FnOnce() -> bool,
    ) {
        // Hold the lock until the Event is queued: the writer may finish, or fail, before it is recorded here.
        let mut published = self.0.lock();
        let previous = published.get(uid).into_iter().flatten();
        let mut previous = previous.filter(|(other, _)| *other == reason);
        if previous.any(|(_, previous)| *previous == content) {
            return;
        }
        if publish() {
            let of_pod = published.entry(uid.to_owned()).or_default();
            of_pod.retain(|(other, _)| *other != reason);
            of_pod.push((reason, content));
        }
    }

    /// Forgets an Event that was lost: the next one is new, whatever its content.
    pub fn forget(&self, uid: &str, reason: &str) {
        if let Some(of_pod) = self.0.lock().get_mut(uid) {
            of_pod.retain(|(other, _)| *other != reason);
        }
    }

    /// Forgets all pods for which `keep` is false.
    pub fn retain_pods(&self, keep: impl Fn(&str) -> bool) {
        self.0.lock().retain(|uid, _| keep(uid));
    }
}
