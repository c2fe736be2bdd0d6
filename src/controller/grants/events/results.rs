//! Events about results: what has been written, beside what plans decide.
//!
//! In: grants that took effect in full or in part, expired grants, and what is done with a Job's pod that never
//! started. Out: Events in the queue. A planned write may still be denied, so these Events are published after it.

use kube::runtime::events::EventType;

use super::NEVER_STARTED;
use super::queue::{EventQueue, QueuedEvent};
use crate::burst::rules::expiry::GrantExpiry;
use crate::burst::{PodDecision, PodReference};

/// Publishes Events about results. An Event is dropped only if thousands wait already.
#[derive(Clone)]
pub(in crate::controller::grants) struct ResultNotifier(pub(super) EventQueue);

impl ResultNotifier {
    /// Publishes that the pod was granted.
    pub fn notify_granted(&self, decision: &PodDecision) {
        let (reason, note) = (decision.outcome.reason(), decision.outcome.to_string());
        self.notify(&decision.pod, EventType::Normal, reason, &note);
    }

    /// Publishes what is done with a pod that never started.
    pub fn notify_never_started(&self, pod: &PodReference, note: &str) {
        self.notify(pod, EventType::Warning, NEVER_STARTED, note);
    }

    /// Publishes that a grant has expired and that the pod is marked so.
    pub fn notify_expired(&self, expiry: &GrantExpiry) {
        let note = format!(
            "a virtual node has room for the pod, and the scheduler does not place it there: {}; while it \
             waits, it holds no slot of the pool, and no other pod of its template is granted",
            expiry.why
        );
        self.notify(&expiry.pod, EventType::Warning, "GrantExpired", &note);
    }

    /// Publishes that a grant took effect only in part, and why.
    pub fn notify_incomplete(&self, decision: &PodDecision, why: &str) {
        self.notify(&decision.pod, EventType::Warning, "GrantIncomplete", why);
    }

    fn notify(&self, pod: &PodReference, type_: EventType, reason: &str, note: &str) {
        self.0
            .push(QueuedEvent::about_pod(pod, type_, reason, note));
    }
}
