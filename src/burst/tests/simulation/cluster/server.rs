//! How the API server handles requests: at once, late, or not at all.
//!
//! In: patches of pods and updates of the pool's status, each with a version. Out: answers, and some are
//! lost. A request without an answer may be handled later.

use std::rc::Rc;

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Cluster;
use crate::api::condition::{self, SPILLING};
use crate::api::{PodCounts, Reservation, WorkloadStatus};
use crate::burst::PodWriteResult;
use crate::burst::decision::RefusedSinceStamp;
use crate::burst::facts::pod::{GrantRecord, PodReference};
use crate::burst::tests::simulation::checks::{self, ChurnCheck, SlotCounts};

/// The part of the pool's status that a leader needs for its own decisions.
#[derive(Clone, Debug)]
pub struct Leading {
    pub leader: String,
    pub reservations: Vec<Reservation>,
}

/// The part of the pool's status that is for users.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShownStatus {
    pub counts: PodCounts,
    pub workloads: Vec<WorkloadStatus>,
    pub is_peak: bool,
    pub limited: Option<String>,
}

/// The result of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateResult {
    Yes,
    No,
    Unknown,
}

/// A request that got no answer and is handled late.
pub struct DelayedRequest {
    pub(super) at: Timestamp,
    sent: SentWrite,
}

enum SentWrite {
    Grant(PodReference, GrantRecord),
    /// With its version, and the limits that applied when it was sent.
    Write(u64, Leading, SlotCounts),
}

impl Cluster {
    /// Handles a patch that grants a pod.
    pub fn grant(&mut self, id: &PodReference, grant: &GrantRecord) -> PodWriteResult {
        let Some(pod) = self.pods.get(&id.uid) else {
            return PodWriteResult::Gone;
        };
        if pod.facts.id.resource_version != id.resource_version {
            return PodWriteResult::Conflict;
        }
        if self.now < pod.denied_until {
            return PodWriteResult::Denied("a policy says no".to_owned());
        }
        checks::grant(self, pod);
        let (before, app) = (checks::held(self), pod.app);
        self.granted[app] += 1;
        self.change(&id.uid, |facts| {
            facts.grant = Some(grant.clone());
            facts.is_first_generation = false;
        });
        checks::no_slot_more(self, before);
        self.peaks.granted(self.count);
        let at = grant.granted_at.expect("each says when it was decided");
        self.granted_at.push(at);
        checks::rate(self, at);
        PodWriteResult::Granted
    }

    /// Handles a patch that frees a reservation. Occasionally it is lost.
    pub fn release(&mut self, id: &PodReference, rng: &mut StdRng) -> PodWriteResult {
        let Some(pod) = self.pods.get(&id.uid) else {
            return PodWriteResult::Gone;
        };
        if pod.facts.id.resource_version != id.resource_version {
            return PodWriteResult::Conflict;
        }
        if rng.random_bool(0.2) {
            return PodWriteResult::Lost;
        }
        self.churn.release(self, pod);
        self.change(&id.uid, |_| ());
        PodWriteResult::Granted
    }

    /// Handles a patch that stamps a pod. A policy that denies its grant denies this too.
    pub fn stamp(
        &mut self,
        stamp: &RefusedSinceStamp,
        by: &str,
        rng: &mut StdRng,
    ) -> PodWriteResult {
        let id = &stamp.pod;
        let Some(pod) = self.pods.get(&id.uid) else {
            return PodWriteResult::Gone;
        };
        if pod.facts.id.resource_version != id.resource_version {
            return PodWriteResult::Conflict;
        }
        if self.now < pod.denied_until {
            self.refused.stamp(id, by, self.now);
            return PodWriteResult::Denied("a policy says no".to_owned());
        }
        if rng.random_bool(0.1) {
            return PodWriteResult::Lost;
        }
        let since = stamp.since;
        self.change(&id.uid, |facts| facts.refused_since = Some(since));
        PodWriteResult::Granted
    }

    /// A grant without an answer: it is handled now, later, or never.
    pub fn lose(&mut self, id: &PodReference, grant: GrantRecord, rng: &mut StdRng) {
        self.churn.lost(id);
        match rng.random_range(0..3) {
            0 => drop(self.grant(id, &grant)),
            1 => {
                let at = self.after(rng, 1..20);
                let sent = SentWrite::Grant(id.clone(), grant);
                self.late.push(DelayedRequest { at, sent });
            }
            _ => {}
        }
    }

    /// An update of the pool's status by the leader, for this version of the pool. While faults are on, some
    /// get no answer: they are handled now, later, or never, but not after the minute for which a server keeps
    /// a request.
    pub fn write(&mut self, version: u64, leading: &Leading, rng: &mut StdRng) -> UpdateResult {
        let most = checks::limits(self);
        if self.is_calm || rng.random_bool(0.97) {
            let is_done = self.update(version, leading, most);
            return if is_done {
                UpdateResult::Yes
            } else {
                UpdateResult::No
            };
        }
        match rng.random_range(0..3) {
            0 => drop(self.update(version, leading, most)),
            1 => {
                let at = self.after(rng, 1..55);
                let sent = SentWrite::Write(version, leading.clone(), most);
                self.late.push(DelayedRequest { at, sent });
            }
            _ => {}
        }
        UpdateResult::Unknown
    }

    /// Applies the update if the pool still has this version. Returns whether it did.
    fn update(&mut self, version: u64, leading: &Leading, most: SlotCounts) -> bool {
        if self.version != version {
            return false;
        }
        let before = checks::held_knowingly(self);
        self.churns(|churn, cluster| churn.write(cluster, leading));
        let status = Rc::make_mut(&mut self.pool).status.get_or_insert_default();
        if status.leader.as_ref() != Some(&leading.leader) {
            self.disturbed = self.now;
        }
        status.leader = Some(leading.leader.clone());
        status.reservations.clone_from(&leading.reservations);
        self.version += 1;
        checks::within_limits(self, before, most);
        self.changed();
        true
    }

    /// A server-side apply of the rest of the status, whatever the pool's version.
    pub fn write_status(&mut self, shown: &ShownStatus) {
        if self.shown_status == *shown {
            return;
        }
        self.churns(|churn, cluster| churn.record_status(cluster, &cluster.shown_status, shown));
        self.shown_status.clone_from(shown);
        let status = Rc::make_mut(&mut self.pool).status.get_or_insert_default();
        let spilling = condition::build(SPILLING, shown.is_peak, "", "", None, self.now);
        condition::set(&mut status.conditions, spilling);
        self.version += 1;
    }

    fn churns(&mut self, sees: impl FnOnce(&mut ChurnCheck, &Self)) {
        let mut churn = std::mem::take(&mut self.churn);
        sees(&mut churn, self);
        self.churn = churn;
    }

    /// Handles the late requests that are due.
    pub(super) fn catch_up(&mut self) {
        let now = self.now;
        let due: Vec<DelayedRequest> = self.late.extract_if(.., |late| late.at <= now).collect();
        for late in due {
            match late.sent {
                SentWrite::Grant(pod, grant) => drop(self.grant(&pod, &grant)),
                SentWrite::Write(version, leading, most) => {
                    self.update(version, &leading, most);
                }
            }
        }
    }
}
