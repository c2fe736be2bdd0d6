//! What a keeper does with answers that deny its pod's group.
//!
//! In: a GET or a DELETE that is answered with 404, a LIST without the group. Out: what is known of the
//! group; [`absence`](crate::node::absence) decides what the answers prove.

use jiff::Timestamp;

use super::keeper::{Keeper, Trouble};
use super::shown::Shown;
use crate::node::plan::{Group, is_deleting};

impl Keeper {
    /// A GET or a DELETE that was sent then denies the group.
    pub fn denied(&mut self, asked: Timestamp) {
        // Keepers do not wake for a LIST that shows what the one before showed.
        let listed = match *self.shown_now() {
            Shown::There { asked, .. } => Some(asked),
            Shown::Nothing | Shown::Absent { .. } | Shown::Foreign => None,
        };
        let before = self.known.group.clone();
        let pod = self.exists.then_some(&self.pod);
        if self.known.denied(pod, listed, asked) {
            self.lost(&before);
        } else if self.known.absence.is_suspected() {
            tracing::info!(pod = %self.pod_name(), group = %self.name, "Azure denies the container group: confirming");
            self.context.line.want_list();
        }
    }

    /// A LIST that was sent then lacks the group.
    pub fn not_listed(&mut self, asked: Timestamp) {
        let before = self.known.group.clone();
        let pod = self.exists.then_some(&self.pod);
        if self.known.not_listed(pod, asked) {
            self.lost(&before);
        }
    }

    /// The group is gone.
    fn lost(&mut self, before: &Group) {
        self.context.learn(&self.name, false);
        self.unanswered = None;
        let is_wanted = self.exists && !is_deleting(&self.pod);
        if matches!(before, Group::There { .. }) && is_wanted {
            tracing::warn!(pod = %self.pod_name(), group = %self.name, "the container group vanished");
            if !self.known.is_failed {
                self.trouble = Trouble::None;
            }
            (self.known.is_failed, self.view) = (false, None);
        }
    }
}
