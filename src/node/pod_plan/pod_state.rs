//! What is known of a pod and its container group that the next action depends on.

use jiff::Timestamp;

use super::{HookPhase, PodAction};
use crate::node::absence_proof::AbsenceEvidence;

/// What is known of a pod's container group.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GroupPresence {
    /// Not known: the operator has just started, or Azure did not answer a request.
    #[default]
    Unknown,
    /// There is no group.
    Absent {
        /// Whether a group existed before: it vanished or was deleted.
        existed: bool,
    },
    /// There is a group.
    Exists {
        /// When the group was created, or since when it is known to exist.
        since: Timestamp,
        /// When the last GET showed it.
        last_read: Option<Timestamp>,
        /// Whether all its containers have started at least once.
        has_run: bool,
    },
    /// Azure is deleting the group.
    Deleting {
        /// When the deletion began, or was first seen.
        since: Timestamp,
        /// When the last GET showed it.
        last_read: Option<Timestamp>,
    },
}

/// What is known of a pod and its group that the decision depends on.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with its name"
)]
pub struct PodState {
    /// The container group.
    pub group: GroupPresence,
    /// The answers without the group.
    pub absence: AbsenceEvidence,
    /// Azure did not answer a PUT, which may have created the group. Until the lag of Azure's reads is over, only
    /// the same PUT is sent again.
    pub has_unanswered_put: bool,
    /// The back-off of each action that failed.
    pub retry_times: RetryTimes,
    /// When the pod was first seen to be deleted, by the operator's clock.
    pub deletion_seen_at: Option<Timestamp>,
    /// Since when Services stop sending traffic to the pod: it was Ready when it was first seen to be deleted.
    pub draining_since: Option<Timestamp>,
    /// When the pod was first seen to be finished, by the operator's clock.
    pub finished: Option<Timestamp>,
    /// When the pod was first seen to have been active for longer than its `activeDeadlineSeconds`, by the operator's
    /// clock, without having finished: its group is deleted.
    pub deadline_seen_at: Option<Timestamp>,
    /// How far this process is with the pod's `preStop` hooks.
    pub hooks: HookPhase,
    /// Azure cannot run this pod as it is: the operator does not try to create a group.
    pub is_create_blocked: bool,
    /// A LIST or a worker found that the group has changed or is gone: it is read at once.
    pub is_stale: bool,
    /// When to read the group at the latest, because ACI runs a readiness probe and its result may have changed.
    pub readiness_read_at: Option<Timestamp>,
    /// Azure could not start the group. Azure keeps trying, and billing, so the operator deletes this group before
    /// it creates another.
    pub has_failed_to_start: bool,
    /// The group's containers still run, or Azure is restarting them.
    pub is_alive: bool,
}

/// The end of the back-off of each action. They are independent: a create that must wait an hour for quota does not
/// delay a delete, and neither do throttled reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryTimes {
    creating: Option<Timestamp>,
    reading: Option<Timestamp>,
    deleting: Option<Timestamp>,
    removing: Option<Timestamp>,
}

impl RetryTimes {
    /// The time before which the action is not tried again.
    pub fn get(&self, action: PodAction) -> Option<Timestamp> {
        match action {
            PodAction::Create => self.creating,
            PodAction::Discover | PodAction::Refresh => self.reading,
            PodAction::Delete => self.deleting,
            PodAction::Remove => self.removing,
            PodAction::RunHooks | PodAction::Wait => None,
        }
    }

    /// Sets the time before which the action is not tried again.
    pub fn set(&mut self, action: PodAction, until: Option<Timestamp>) {
        match action {
            PodAction::Create => self.creating = until,
            PodAction::Discover | PodAction::Refresh => self.reading = until,
            PodAction::Delete => self.deleting = until,
            PodAction::Remove => self.removing = until,
            PodAction::RunHooks | PodAction::Wait => {}
        }
    }
}
