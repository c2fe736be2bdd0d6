//! What a pod worker records when an answer denies its container group.
//!
//! In: a GET or a DELETE that Azure answers with 404, or a LIST without the group. Out: what is known of the group;
//! [`absence`](crate::node::absence) decides what the answers prove.

use jiff::Timestamp;

use super::group_list::ListedState;
use super::worker::{CreateProblem, PodWorker};
use crate::node::pod_plan::{GroupPresence, is_deleting};

impl PodWorker {
    /// Records that a GET or a DELETE sent at `sent_at` denies the group.
    pub fn group_denied(&mut self, sent_at: Timestamp) {
        // A LIST that shows the same as the one before does not wake the worker: read it here.
        let listed = match *self.listed_state() {
            ListedState::Exists { requested_at, .. } => Some(requested_at),
            ListedState::NotListed
            | ListedState::Unlisted
            | ListedState::Absent { .. }
            | ListedState::Foreign => None,
        };
        let previous = self.state.group.clone();
        let pod = self.exists.then_some(&self.pod);
        if self.state.group_denied(pod, listed, sent_at) {
            self.group_lost(&previous);
        } else if self.state.absence.is_suspected() {
            tracing::info!(pod = %self.pod_name(), group = %self.group_name, "Azure denies the container group: confirming");
            self.context.read_queue.request_list();
        }
    }

    /// Records that a LIST sent at `sent_at` does not contain the group.
    pub fn group_not_listed(&mut self, sent_at: Timestamp) {
        let previous = self.state.group.clone();
        let pod = self.exists.then_some(&self.pod);
        if self.state.group_not_listed(pod, sent_at) {
            self.group_lost(&previous);
        }
    }

    /// Records that the group is gone.
    fn group_lost(&mut self, previous: &GroupPresence) {
        self.context.record_group_change(&self.group_name, false);
        self.unanswered_put = None;
        let is_wanted = self.exists && !is_deleting(&self.pod);
        if matches!(previous, GroupPresence::Exists { .. }) && is_wanted {
            tracing::warn!(pod = %self.pod_name(), group = %self.group_name, "the container group vanished");
            if !self.state.has_failed_to_start {
                self.problem = CreateProblem::None;
            }
            (self.state.has_failed_to_start, self.group_view) = (false, None);
        }
    }
}
