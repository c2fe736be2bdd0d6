//! What an answer of Azure changes in what is known of a container group.
//!
//! In: one answer, and the time when its request was sent. Out: the new [`PodState`]. Pure: a pod worker calls it,
//! and a property test runs it against a simulated Azure that lags.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{GroupPresence, PodState, is_gone};
use crate::node::absence_proof::{AbsenceEvidence, EvidenceSource};

/// What a GET shows of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupReading {
    /// When the GET was sent.
    pub sent_at: Timestamp,
    /// Whether Azure is deleting the group.
    pub is_deleting: bool,
    /// Whether all of its containers have started.
    pub has_started: bool,
}

impl PodState {
    /// Records that Azure accepted a PUT sent at `sent_at`.
    pub fn put_accepted(&mut self, sent_at: Timestamp) {
        (
            self.has_failed_to_start,
            self.is_stale,
            self.has_unanswered_put,
        ) = (false, false, false);
        self.absence = AbsenceEvidence::after_put(sent_at);
        self.group = GroupPresence::Exists {
            since: sent_at,
            last_read: None,
            has_run: false,
        };
    }

    /// Records that a PUT sent at `sent_at` got no answer: the group may exist.
    pub fn put_unanswered(&mut self, sent_at: Timestamp) {
        self.group = GroupPresence::Unknown;
        self.absence = AbsenceEvidence::after_put(sent_at);
        self.has_unanswered_put = true;
    }

    /// Records that Azure rejected a PUT sent at `sent_at` because it is changing a group of this name.
    pub fn put_too_early(&mut self, sent_at: Timestamp) {
        self.group = GroupPresence::Unknown;
        self.absence = AbsenceEvidence::after_put(sent_at);
    }

    /// Records that Azure rejected a PUT. An earlier PUT without an answer may still have created the group.
    pub fn put_rejected(&mut self) {
        if !self.has_unanswered_put {
            self.group = GroupPresence::Absent { existed: false };
        }
    }

    /// Records that Azure accepted a DELETE sent at `sent_at`.
    pub fn delete_accepted(&mut self, sent_at: Timestamp, now: Timestamp) {
        self.absence.record_delete(sent_at);
        self.group = GroupPresence::Deleting {
            since: now,
            last_read: None,
        };
    }

    /// Records that a GET shows the group.
    pub fn group_seen(&mut self, reading: GroupReading, now: Timestamp) {
        self.absence
            .record_seen(EvidenceSource::Get, reading.sent_at);
        (self.has_unanswered_put, self.is_stale) = (false, false);
        let existing = |since, has_run| GroupPresence::Exists {
            since,
            last_read: Some(now),
            has_run,
        };
        let deleting = |since| GroupPresence::Deleting {
            since,
            last_read: Some(now),
        };
        self.group = match self.group {
            GroupPresence::Exists { since, has_run, .. } if !reading.is_deleting => {
                existing(since, has_run || reading.has_started)
            }
            GroupPresence::Deleting { since, .. } => deleting(since),
            _ if reading.is_deleting => deleting(now),
            _ => existing(now, reading.has_started),
        };
    }

    /// Records that a LIST sent at `sent_at` shows the group.
    pub fn group_listed(&mut self, sent_at: Timestamp, now: Timestamp) {
        match self.group {
            // Azure created a group after it had rejected the PUT, or deletes one late: forget every
            // answer without it.
            GroupPresence::Absent { .. } => {
                self.group = GroupPresence::Unknown;
                self.absence = AbsenceEvidence::default();
            }
            GroupPresence::Unknown => {
                self.absence.record_seen(EvidenceSource::List, sent_at);
                self.group = GroupPresence::Exists {
                    since: now,
                    last_read: None,
                    has_run: false,
                };
                self.is_stale = true;
            }
            GroupPresence::Exists { since, .. } | GroupPresence::Deleting { since, .. }
                if since < sent_at =>
            {
                self.absence.record_seen(EvidenceSource::List, sent_at);
            }
            GroupPresence::Exists { .. } | GroupPresence::Deleting { .. } => {}
        }
    }

    /// Records that a LIST sent at `sent_at` does not contain the group. Returns `true` if that proves that the group
    /// is gone.
    pub fn group_not_listed(&mut self, pod: Option<&Pod>, sent_at: Timestamp) -> bool {
        self.absence.record_not_listed(sent_at);
        let is_gone = self.check_absence(pod);
        let is_later = match self.group {
            GroupPresence::Exists { since, .. } | GroupPresence::Deleting { since, .. } => {
                since < sent_at
            }
            GroupPresence::Unknown | GroupPresence::Absent { .. } => false,
        };
        let needs_read = !self.absence.is_within_lag(EvidenceSource::List, sent_at)
            && self.absence.next_check_at().is_none();
        self.is_stale |= is_later && needs_read;
        is_gone
    }

    /// Records that a GET or a DELETE sent at `sent_at` found no group, although the LIST sent at `listed`
    /// shows it.
    /// Returns `true` if that proves that the group is gone.
    pub fn group_not_found(
        &mut self,
        pod: Option<&Pod>,
        listed: Option<Timestamp>,
        sent_at: Timestamp,
    ) -> bool {
        if let (
            Some(listed),
            GroupPresence::Exists { since, .. } | GroupPresence::Deleting { since, .. },
        ) = (listed, &self.group)
            && *since < listed
        {
            self.absence.record_seen(EvidenceSource::List, listed);
        }
        self.is_stale = false;
        self.absence.record_not_found(sent_at);
        self.check_absence(pod)
    }

    fn check_absence(&mut self, pod: Option<&Pod>) -> bool {
        let is_new = !matches!(self.group, GroupPresence::Absent { .. }) && is_gone(pod, self);
        if is_new {
            let existed = self.group != GroupPresence::Unknown;
            self.group = GroupPresence::Absent { existed };
            self.has_unanswered_put = false;
        }
        is_new
    }
}
