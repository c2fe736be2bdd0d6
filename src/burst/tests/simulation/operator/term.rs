//! A term of leadership: the instance claims the pool, counts its pods, writes reservations, and tracks a write
//! whose result is unknown. Follows `controller::grants` around the plan, call by call.

use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::StdRng;

use super::Operator;
use super::views::PoolView;
use crate::api::condition::{self, SPILLING};
use crate::burst::observation::Leadership;
use crate::burst::plan::BurstPlan;
use crate::burst::tests::simulation::Happened;
use crate::burst::tests::simulation::cluster::{Cluster, Leading, UpdateResult};
use crate::k8s::time::later;

/// How long a write whose result is unknown may be in flight.
const DOUBT: Duration = Duration::from_secs(60);

/// The state of the instance's leadership of the pool.
#[derive(Default)]
pub struct LeaderTerm {
    /// It has read the pool since it got the lease.
    is_begun: bool,
    is_claimed: bool,
    pub is_counted: bool,
    /// The version of the pool in a write that was not answered, and when it was sent.
    doubt: Option<(u64, Timestamp)>,
}

impl LeaderTerm {
    /// Whether a write may still be in flight. When the pool has another version, it was done, or will be
    /// refused.
    pub fn is_in_doubt(&self, pool: &PoolView) -> bool {
        self.doubt
            .is_some_and(|(version, _)| version == pool.version)
    }
}

impl Operator {
    /// Whether it may plan: not while a grant is in flight that was reserved in an earlier term.
    pub(super) fn may_look(&self, pool: &PoolView) -> bool {
        let is_same = pool.leader() == Some(self.identity().as_str());
        is_same || (self.unsent_grants.is_empty() && self.answers.is_empty())
    }

    /// The leadership state by the pool's status. If another instance took the pool, it must be claimed and
    /// counted again.
    pub(super) fn led_by(
        &mut self,
        pool: &PoolView,
        cluster: &mut Cluster,
        happened: &mut Happened,
    ) -> Leadership {
        if !self.term.is_begun {
            self.term.is_begun = true;
            let is_told = condition::is_true(&pool.pool, SPILLING);
            if is_told {
                happened.found_peaks += 1;
                self.memory.record_peak(self.clocks.own(cluster.now));
            }
            cluster.peaks.taken_over(is_told, cluster.now);
        }
        let leads = pool.leader() == Some(self.identity().as_str());
        if self.term.is_claimed && !leads {
            happened.taken += 1;
            self.terms += 1;
        }
        self.term.is_claimed = leads;
        self.term.is_counted &= leads;
        match (leads, self.term.is_counted) {
            (false, _) => Leadership::Unclaimed,
            (true, false) => Leadership::Uncounted,
            (true, true) => Leadership::Leading,
        }
    }

    /// Claims the pool if the instance holds the lease, and keeps the present reservations.
    pub(super) fn claim(
        &mut self,
        plan: &BurstPlan,
        pool: &PoolView,
        is_leader: bool,
        (cluster, rng): (&mut Cluster, &mut StdRng),
        happened: &mut Happened,
    ) {
        self.is_stale &= is_leader;
        self.term.is_claimed = is_leader && self.reserve(plan, pool, cluster, rng, happened);
        self.is_due |= self.term.is_claimed;
    }

    /// Writes the leader and the reservations, if the pool has not changed since the plan, except for messages.
    pub(super) fn reserve(
        &mut self,
        plan: &BurstPlan,
        pool: &PoolView,
        cluster: &mut Cluster,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) -> bool {
        let leading = Leading {
            leader: self.identity(),
            reservations: plan.reservations.clone(),
        };
        let mut version = pool.version;
        let mut written = cluster.write(version, &leading, rng);
        if written == UpdateResult::No {
            let now = self.read(cluster);
            if pool.is_alike(&now) {
                happened.retold += 1;
                version = now.version;
                written = cluster.write(version, &leading, rng);
            }
        }
        match written {
            UpdateResult::Yes => {
                self.memory
                    .record_reservations_written(self.clocks.own(cluster.now));
                self.read(cluster);
            }
            UpdateResult::No => happened.fenced += 1,
            UpdateResult::Unknown => {
                happened.unanswered += 1;
                self.term.doubt = Some((version, cluster.now));
            }
        }
        written == UpdateResult::Yes
    }

    /// Nothing needs to be written that would resolve the unknown write, so the instance reads the pool.
    pub(super) fn resolve(&mut self, cluster: &Cluster) {
        let pool = self.read(cluster);
        let is_open = self.term.is_in_doubt(&pool);
        let is_over = |since: Timestamp| later(since, DOUBT) <= cluster.now;
        self.term
            .doubt
            .take_if(|(_, since)| is_open && is_over(*since));
    }

    /// Reads the present pool, and plans with it from now on.
    fn read(&mut self, cluster: &Cluster) -> PoolView {
        let pool = PoolView::of(cluster);
        self.views.pool = Some(pool.clone());
        pool
    }
}
