//! What a pod worker records when Azure does not find its container group.
//!
//! In: a GET or a DELETE that Azure answers with 404, or a LIST without the group. Out: what is known of the group;
//! [`absence_proof`](crate::node::absence_proof) decides what the answers prove.

use jiff::Timestamp;

use super::PodWorker;
use super::state::AbsenceOutcome;
use crate::node::pods::group_list::ListedState;

impl PodWorker {
    /// Records that a GET or a DELETE sent at `sent_at` found no group.
    pub fn group_not_found(&mut self, sent_at: Timestamp) {
        // A LIST that shows the same as the one before does not wake the worker: read it here.
        let listed = match *self.listed_state() {
            ListedState::Exists { requested_at, .. } => Some(requested_at),
            ListedState::NotListed
            | ListedState::Unlisted
            | ListedState::Absent { .. }
            | ListedState::Foreign => None,
        };
        let outcome = self.state.group_not_found(listed, sent_at);
        self.apply_absence(outcome);
        if outcome == AbsenceOutcome::Unproven && self.state.pod_state().absence.is_suspected() {
            tracing::info!("Azure does not find the container group: confirming that it is gone");
            self.context.read_queue.request_list();
        }
    }

    /// Records that a LIST sent at `sent_at` does not contain the group.
    pub fn group_not_listed(&mut self, sent_at: Timestamp) {
        let outcome = self.state.group_not_listed(sent_at);
        self.apply_absence(outcome);
    }

    /// If the group is gone, counts it as gone until the next LIST.
    fn apply_absence(&self, outcome: AbsenceOutcome) {
        if outcome == AbsenceOutcome::Unproven {
            return;
        }
        self.context.record_group_change(&self.group_name, false);
        if outcome == AbsenceOutcome::Vanished {
            tracing::warn!("the container group vanished");
        }
    }
}
