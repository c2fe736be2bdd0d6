//! The operator's writes to pods: their results, and when a failed one is repeated.

use jiff::Timestamp;

use crate::k8s::rejected;
use crate::k8s::time::later;

/// The result of a patch that grants a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodWriteResult {
    /// The API server applied it.
    Granted,
    /// 409: the pod has changed.
    Conflict,
    /// 403 or 422: the API server or an admission webhook denied it, with this message.
    Denied(String),
    /// 404: the pod is gone.
    Gone,
    /// Unknown: there was no answer, or a server error. The patch may have been applied.
    Lost,
    /// The operator did not send it, because the reason for the plan no longer holds.
    Unsent,
    /// The API server applied it, but a mutating admission policy removed the label and annotations of the
    /// grant and left the toleration. The text is the reason. The pod may run on ACI, but no watch of granted
    /// pods shows it.
    Unmarked(String),
}

/// Writes to a pod other than a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodWrite {
    /// The refused-since time.
    RefusedSince,
    /// The change of the pod that frees its reservation.
    Release,
    /// The deletion or eviction of a pod that never started.
    Delete,
    /// The mark that the pod's grant has expired.
    Expire,
}

/// Why and for how long the operator does not retry a grant or another write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodBackoff {
    /// The end of the pause.
    pub until: Timestamp,
    /// The API server's message, or another text for the reason.
    pub why: String,
    pub(super) attempts: u32,
}

impl PodBackoff {
    /// The pause after `before`, twice as long each time.
    pub(super) fn next_after(before: Option<&Self>, why: String, now: Timestamp) -> Self {
        let tries = before.map_or(0, |denial| denial.attempts);
        Self {
            until: later(now, rejected::pause(tries)),
            why,
            attempts: tries.saturating_add(1),
        }
    }
}

/// The state of the last grant patch of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LastPatch {
    pub(super) resource_version: String,
    pub(super) outcome: PatchState,
    /// The result of an earlier patch for the same version is unknown. That patch may still be applied,
    /// whatever the result of the next one.
    pub(super) is_lost: bool,
}

/// The result of a grant patch, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchState {
    InFlight,
    Unknown,
    Granted,
    Conflict,
    NotApplied,
}

/// What is known about a pod's last grant patch, at the pod's version in the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchOutcome {
    /// No patch was applied, and none can be: none was sent for this version, or it was denied.
    NotApplied,
    /// A patch is in flight, was applied, or met a conflict: its result or the pod's next version will show.
    Pending,
    /// A patch may have been applied, or may still be.
    Unknown,
}
