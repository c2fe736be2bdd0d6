//! A leadership term of a pool: the state that is kept from one plan to the next, and the identity of this
//! instance in that term.
//!
//! In: the leader that the pool's status names, and the results of writes. Out: whether this instance may
//! decide for the pool. A term ends when another instance claims the pool.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use tokio::time::Instant;

use super::in_flight::InFlightGrants;
use crate::api::BurstPool;
use crate::api::condition::{self, SPILLING};
use crate::burst::{LeaderState, Leadership};
use crate::telemetry::ServerClock;

/// How long a write without an answer may still take effect: API servers give up on a request after one minute.
pub(super) const UNCONFIRMED_WRITE_TTL: Duration = Duration::from_secs(60);

/// The leader that the pool's status names.
pub(super) fn leader(pool: &BurstPool) -> Option<&str> {
    pool.status.as_ref()?.leader.as_deref()
}

/// The state of a pool that is kept from one plan to the next.
#[derive(Default)]
pub(super) struct PoolLeaderState {
    /// The UID of the pool: another pool may be created under the same name.
    pub(super) uid: Option<String>,
    /// The identity of this instance in this term.
    pub(super) identity: String,
    pub(super) leader_state: LeaderState,
    pub(super) in_flight: InFlightGrants,
    /// Whether the pool's status names this identity as the leader.
    pub(super) is_claimed: bool,
    /// Whether the pool's pods have been listed since the claim.
    pub(super) is_counted: bool,
    pub(super) unconfirmed_write: UnconfirmedWrite,
    /// How many writes of its status the API server has rejected in a row.
    pub(super) rejected_writes: u32,
}

/// An unconfirmed write: whether a write of the pool without an answer may still take effect. Holds the pool's
/// version and the time of the write.
#[derive(Debug, Default)]
pub(super) struct UnconfirmedWrite(Option<(Option<String>, Instant)>);

impl UnconfirmedWrite {
    /// Records that a write on this version of the pool was not answered.
    pub(super) fn set(&mut self, pool: &BurstPool) {
        self.0 = Some((pool.resource_version(), Instant::now()));
    }

    /// Whether the write may still take effect. Once the pool has another version, the write has either taken
    /// effect or will be rejected.
    pub(super) fn is_pending(&self, pool: &BurstPool) -> bool {
        let unconfirmed = self.0.as_ref();
        unconfirmed.is_some_and(|(version, _)| *version == pool.resource_version())
    }

    /// Records that this version of the pool was just read from the API server: a write sent at least
    /// [`UNCONFIRMED_WRITE_TTL`] ago can no longer take effect. A version from a watch is no proof, because a
    /// watch may be late.
    pub(super) fn resolve_by_read(&mut self, pool: &BurstPool) {
        let is_pending = self.is_pending(pool);
        self.0
            .take_if(|(_, since)| is_pending && since.elapsed() >= UNCONFIRMED_WRITE_TTL);
    }
}

impl PoolLeaderState {
    pub(super) fn new(pool: &BurstPool, terms: &mut TermCounter) -> Self {
        let mut leader_state = LeaderState::default();
        if condition::is_true(pool, SPILLING) {
            leader_state.record_peak(terms.clock.steady());
        }
        Self {
            uid: pool.uid(),
            identity: terms.begin_term(),
            leader_state,
            ..Self::default()
        }
    }

    /// Records the answers of grants. Returns whether the pool may be planned: not while grants are in flight
    /// that were reserved for another pool of the same name, or in a term that has ended.
    pub(super) fn drain_results(&mut self, pool: &BurstPool) -> bool {
        self.in_flight.drain_results(&mut self.leader_state);
        let is_same = self.uid == pool.uid() && leader(pool) == Some(self.identity.as_str());
        is_same || self.in_flight.is_idle()
    }

    /// Compares the leader in the pool's status with this term. If another instance has claimed the pool, a new
    /// term begins; if this instance still holds the Lease, it claims and counts the pool again. The other
    /// instance did not know that it had lost the Lease.
    pub(super) fn update_leadership(
        &mut self,
        leader: Option<&str>,
        name: &str,
        terms: &mut TermCounter,
    ) -> Leadership {
        let is_leader = leader == Some(self.identity.as_str());
        if self.is_claimed && !is_leader {
            tracing::warn!(
                pool = name,
                leader,
                "the pool's status names another leader"
            );
            self.identity = terms.begin_term();
        }
        self.is_claimed = is_leader;
        self.is_counted &= is_leader;
        match (is_leader, self.is_counted) {
            (false, _) => Leadership::Unclaimed,
            (true, false) => Leadership::Uncounted,
            (true, true) => Leadership::Leading,
        }
    }
}

/// A counter of terms; each term has its own identity, because the leader of a term in between may have used a
/// reservation of an earlier one.
pub(super) struct TermCounter {
    pub(super) instance: String,
    pub(super) terms_begun: u64,
    pub(super) clock: Arc<ServerClock>,
}

impl TermCounter {
    pub(super) fn begin_term(&mut self) -> String {
        self.terms_begun += 1;
        format!("{}-{}", self.instance, self.terms_begun)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn pool(version: &str) -> BurstPool {
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "shop", "uid": "u", "resourceVersion": version},
            "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}]},
        });
        serde_json::from_value(pool).expect("a pool")
    }

    #[test]
    fn a_pool_that_another_instance_claimed_is_claimed_and_counted_in_a_new_term() {
        let mut terms = TermCounter {
            instance: "us".to_owned(),
            terms_begun: 0,
            clock: Arc::default(),
        };
        let mut state = PoolLeaderState::new(&pool("1"), &mut terms);
        let mut update = |state: &mut PoolLeaderState, leader: Option<&str>| {
            state.update_leadership(leader, "shop", &mut terms)
        };
        assert_eq!(update(&mut state, None), Leadership::Unclaimed);
        assert_eq!(update(&mut state, Some("us-1")), Leadership::Uncounted);
        state.is_counted = true;
        assert_eq!(update(&mut state, Some("us-1")), Leadership::Leading);
        assert_eq!(
            update(&mut state, Some("a stale one")),
            Leadership::Unclaimed
        );
        assert_eq!(update(&mut state, Some("us-1")), Leadership::Unclaimed);
        assert_eq!(update(&mut state, Some("us-2")), Leadership::Uncounted);
    }

    #[test]
    fn a_leader_that_starts_during_a_peak_continues_the_peak() {
        let mut terms = TermCounter {
            instance: "us".to_owned(),
            terms_begun: 0,
            clock: Arc::default(),
        };
        let mut shop = pool("1");
        assert_eq!(
            PoolLeaderState::new(&shop, &mut terms)
                .leader_state
                .last_peak(),
            None
        );
        let peak = condition::build(SPILLING, true, "Fading", "", None, Timestamp::now());
        shop.status.get_or_insert_default().conditions.push(peak);
        assert!(
            PoolLeaderState::new(&shop, &mut terms)
                .leader_state
                .last_peak()
                .is_some()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_unconfirmed_until_the_pool_changes_or_its_ttl_ends() {
        let mut write = UnconfirmedWrite::default();
        assert!(!write.is_pending(&pool("1")));
        write.set(&pool("1"));
        assert!(write.is_pending(&pool("1")) && !write.is_pending(&pool("2")));
        write.resolve_by_read(&pool("1"));
        tokio::time::advance(UNCONFIRMED_WRITE_TTL).await;
        assert!(write.is_pending(&pool("1")), "a watch may be late");
        write.resolve_by_read(&pool("2"));
        assert!(write.is_pending(&pool("1")));
        write.resolve_by_read(&pool("1"));
        assert!(!write.is_pending(&pool("1")));
    }
}
