//! Confirms that a container group is gone.
//!
//! In: answers of Azure without the group (a GET that finds no group, a LIST without it), each with the time when its request was sent. Out: whether they prove
//! that the group is gone, and when to ask again if they do not. Pure.
//!
//! Azure Resource Manager is eventually consistent: its replicas may not know a group that was just created, and
//! one of them may not find a group that runs. So no single answer ends a pod:
//!
//! - An answer to a request that was sent less than [`CONSISTENCY_LAG`] after a PUT proves nothing, unless an answer
//!   of the same kind, a GET or a LIST, has shown the group: Azure may lag.
//! - A group that runs is gone after two GETs, [`CONFIRM_INTERVAL`] apart, and a LIST that began after the first of
//!   them.
//! - A group whose DELETE was accepted is gone after one GET and one LIST, both sent after the DELETE. A DELETE
//!   that Azure answers with 200 counts as that GET. A DELETE that finds no group (204) was not accepted: it counts
//!   as a GET that finds no group.
//! - If no LIST is available (one group in it may be unreadable for good), more GETs over a longer time replace it.
//! - Every answer that shows the group restarts the count.

use std::time::Duration;

use jiff::Timestamp;

use crate::k8s::time::later;

/// How long after a PUT was sent Azure may not find the group. Azure documents no limit; its own clients wait for
/// seconds.
pub const CONSISTENCY_LAG: Duration = Duration::from_secs(20);
/// The pause between the two GETs that confirm each other.
pub const CONFIRM_INTERVAL: Duration = Duration::from_secs(5);
/// The pause between GETs while Azure may lag.
const LAG_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// If no LIST is available: how many GETs must find no group, and over how long. First for a group that runs, then
/// for a group whose DELETE was accepted.
const THRESHOLDS_WITHOUT_LIST: [(u32, Duration); 2] =
    [(5, Duration::from_secs(120)), (3, Duration::from_secs(20))];
/// After this many GETs that find no group, the pause between GETs triples.
const SLOW_DOWN_AFTER_GETS: u32 = 8;

/// What was known of the group before Azure did not find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriorGroupState {
    /// It is not known to have been created: any answer that is not lag proves that it was not.
    NotCreated,
    /// It existed, and the operator did not ask for its deletion.
    Existed,
    /// Azure accepted its DELETE, or its pod is being deleted, or an operator may have sent its PUT.
    Deleted,
}

/// The kind of request that Azure answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceSource {
    /// A GET or a DELETE of the group.
    Get,
    /// A LIST.
    List,
}

/// The answers without the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbsenceEvidence {
    /// Answers to requests that were sent before this time prove nothing: for GETs, and for LISTs.
    valid_from: [Option<Timestamp>; 2],
    /// When the first and the last GET that count were sent.
    counted_gets: Option<(Timestamp, Timestamp)>,
    /// How many GETs count.
    get_count: u32,
    /// When the last LIST without the group was sent, if it counts.
    last_list_without: Option<Timestamp>,
    /// When the last GET that found no group was sent, whether or not it counts.
    last_not_found: Option<Timestamp>,
}

impl AbsenceEvidence {
    /// The state after a PUT that was sent at `sent_at`.
    pub fn after_put(sent_at: Timestamp) -> Self {
        Self {
            valid_from: [Some(later(sent_at, CONSISTENCY_LAG)); 2],
            ..Self::default()
        }
    }

    /// Records that an answer to a request sent at `sent_at` shows the group.
    pub fn record_seen(&mut self, source: EvidenceSource, sent_at: Timestamp) {
        self.valid_from[source as usize] = Some(sent_at);
        if self
            .last_not_found
            .is_none_or(|not_found| not_found <= sent_at)
        {
            *self = Self {
                valid_from: self.valid_from,
                ..Self::default()
            };
        }
    }

    /// Records that Azure accepted a DELETE sent at `sent_at`: answers to earlier requests prove nothing.
    pub fn record_delete(&mut self, sent_at: Timestamp) {
        *self = Self {
            valid_from: self.valid_from.map(|from| from.max(Some(sent_at))),
            ..Self::default()
        };
    }

    /// Records that Azure answered a GET or a DELETE sent at `sent_at` that there is no such group.
    pub fn record_not_found(&mut self, sent_at: Timestamp) {
        self.last_not_found = Some(sent_at);
        if !self.is_within_lag(EvidenceSource::Get, sent_at) {
            let first = self.counted_gets.map_or(sent_at, |(first, _)| first);
            self.counted_gets = Some((first, sent_at));
            self.get_count += 1;
        }
    }

    /// Records that a LIST sent at `sent_at` does not contain the group.
    pub fn record_not_listed(&mut self, sent_at: Timestamp) {
        if !self.is_within_lag(EvidenceSource::List, sent_at) {
            self.last_list_without = self.last_list_without.max(Some(sent_at));
        }
    }

    /// Whether such an answer without the group, to a request sent at `sent_at`, proves nothing.
    pub fn is_within_lag(&self, source: EvidenceSource, sent_at: Timestamp) -> bool {
        self.valid_from[source as usize].is_some_and(|from| sent_at < from)
    }

    /// Whether a GET that counts found no group.
    pub fn is_suspected(&self) -> bool {
        self.get_count > 0
    }

    /// Whether the answers prove that the group is gone.
    pub fn is_proven(&self, before: PriorGroupState) -> bool {
        let Some((first, last)) = self.counted_gets else {
            return before == PriorGroupState::NotCreated && self.last_list_without.is_some();
        };
        let spans = |pause: Duration| later(first, pause) <= last;
        let without_list = |(gets, pause): (u32, Duration)| {
            self.get_count >= gets
                && spans(pause)
                && !self.is_within_lag(EvidenceSource::List, last)
        };
        match before {
            PriorGroupState::NotCreated => true,
            PriorGroupState::Existed => {
                let has_list_after = self
                    .last_list_without
                    .is_some_and(|sent_at| sent_at > first);
                (spans(CONFIRM_INTERVAL) && has_list_after)
                    || without_list(THRESHOLDS_WITHOUT_LIST[0])
            }
            PriorGroupState::Deleted => {
                self.last_list_without.is_some() || without_list(THRESHOLDS_WITHOUT_LIST[1])
            }
        }
    }

    /// When to ask again for a group that the last answer did not find; `None` if it was found.
    pub fn next_check_at(&self) -> Option<Timestamp> {
        let pause = match self.get_count {
            0 => LAG_RETRY_INTERVAL,
            gets if gets < SLOW_DOWN_AFTER_GETS => CONFIRM_INTERVAL,
            _ => CONFIRM_INTERVAL * 3,
        };
        Some(later(self.last_not_found?, pause))
    }
}

#[cfg(test)]
mod tests;
