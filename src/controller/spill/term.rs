//! A term of leading a pool: what is remembered of the pool from one plan to the next, and who we are in it.
//!
//! In: what the pool's status says of who leads, and how writes ended. Out: whether we may decide for the
//! pool. Nobody's term outlives another's claim.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use tokio::time::Instant;

use super::granting::Granting;
use crate::api::BurstPool;
use crate::api::condition::{self, SPILLING};
use crate::burst::{Memory, Standing};
use crate::telemetry::Clock;

/// How long a write may be on its way of which nobody knows what became: API servers give up on a
/// request after a minute.
pub(super) const DOUBT: Duration = Duration::from_secs(60);

/// Who leads the pool, as its status says.
pub(super) fn leader(pool: &BurstPool) -> Option<&str> {
    pool.status.as_ref()?.leader.as_deref()
}

/// What is remembered of a pool from one plan to the next.
#[derive(Default)]
pub(super) struct Pool {
    /// Which pool: another may come under the same name.
    pub(super) uid: Option<String>,
    /// Who we are in this term of leading it.
    pub(super) identity: String,
    pub(super) memory: Memory,
    pub(super) granting: Granting,
    /// Its status has named us.
    pub(super) is_claimed: bool,
    /// Its pods have been listed since.
    pub(super) is_counted: bool,
    pub(super) doubt: Doubt,
    /// How often in a row the API server has refused a write of its status.
    pub(super) refused: u32,
}

/// Whether a write of the pool may still be done.
#[derive(Debug, Default)]
pub(super) struct Doubt(Option<(Option<String>, Instant)>);

impl Doubt {
    /// A write that was made with this version of the pool was not answered.
    pub(super) fn open(&mut self, pool: &BurstPool) {
        self.0 = Some((pool.resource_version(), Instant::now()));
    }

    /// Not once the pool is of another version: then it was done, or is refused.
    pub(super) fn is_open(&self, pool: &BurstPool) -> bool {
        let doubt = self.0.as_ref();
        doubt.is_some_and(|(version, _)| *version == pool.resource_version())
    }

    /// The pool was read just now: no write of it comes any more that was sent so long ago. What a watch
    /// has shown does not tell, since it may be late.
    pub(super) fn read(&mut self, pool: &BurstPool) {
        let is_open = self.is_open(pool);
        self.0
            .take_if(|(_, since)| is_open && since.elapsed() >= DOUBT);
    }
}

impl Pool {
    pub(super) fn of(pool: &BurstPool, terms: &mut Terms) -> Self {
        let mut memory = Memory::default();
        if condition::is_true(pool, SPILLING) {
            memory.found_a_peak(terms.clock.steady());
        }
        Self {
            uid: pool.uid(),
            identity: terms.begin(),
            memory,
            ..Self::default()
        }
    }

    /// Takes in what grants came to. Whether the pool may be looked at: not while any is on its way that was
    /// reserved in another pool of its name, or in a term that is over.
    pub(super) fn hear(&mut self, pool: &BurstPool) -> bool {
        self.granting.hear(&mut self.memory);
        let is_same = self.uid == pool.uid() && leader(pool) == Some(self.identity.as_str());
        is_same || self.granting.is_done()
    }

    /// What the pool's status says of who leads. One that somebody has taken from us is claimed and
    /// counted anew, in a new term, if we still hold the leader's lease: it was taken by one that did not
    /// know it had lost it.
    pub(super) fn led_by(
        &mut self,
        leader: Option<&str>,
        name: &str,
        terms: &mut Terms,
    ) -> Standing {
        let leads = leader == Some(self.identity.as_str());
        if self.is_claimed && !leads {
            tracing::warn!(pool = name, leader, "the pool names another instance");
            self.identity = terms.begin();
        }
        self.is_claimed = leads;
        self.is_counted &= leads;
        match (leads, self.is_counted) {
            (false, _) => Standing::Unclaimed,
            (true, false) => Standing::Uncounted,
            (true, true) => Standing::Leading,
        }
    }
}

/// Terms of leading, each with an identity of its own: a reservation of an earlier one may be in the
/// hands of who led in between.
pub(super) struct Terms {
    pub(super) instance: String,
    pub(super) begun: u64,
    pub(super) clock: Arc<Clock>,
}

impl Terms {
    pub(super) fn begin(&mut self) -> String {
        self.begun += 1;
        format!("{}-{}", self.instance, self.begun)
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
    fn a_pool_that_was_taken_from_us_is_claimed_and_counted_anew_in_another_term() {
        let mut terms = Terms {
            instance: "us".to_owned(),
            begun: 0,
            clock: Arc::default(),
        };
        let mut state = Pool::of(&pool("1"), &mut terms);
        let mut says =
            |state: &mut Pool, leader: Option<&str>| state.led_by(leader, "shop", &mut terms);
        assert_eq!(says(&mut state, None), Standing::Unclaimed);
        assert_eq!(says(&mut state, Some("us-1")), Standing::Uncounted);
        state.is_counted = true;
        assert_eq!(says(&mut state, Some("us-1")), Standing::Leading);
        assert_eq!(says(&mut state, Some("a stale one")), Standing::Unclaimed);
        assert_eq!(says(&mut state, Some("us-1")), Standing::Unclaimed);
        assert_eq!(says(&mut state, Some("us-2")), Standing::Uncounted);
    }

    #[test]
    fn who_begins_to_lead_in_a_peak_goes_on_with_it() {
        let mut terms = Terms {
            instance: "us".to_owned(),
            begun: 0,
            clock: Arc::default(),
        };
        let mut shop = pool("1");
        assert_eq!(Pool::of(&shop, &mut terms).memory.busy(), None);
        let peak = condition::condition(SPILLING, true, "Fading", "", None, Timestamp::now());
        shop.status.get_or_insert_default().conditions.push(peak);
        assert!(Pool::of(&shop, &mut terms).memory.busy().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_is_in_doubt_until_the_pool_changes_or_no_server_remembers_it()
     {
        let mut doubt = Doubt::default();
        assert!(!doubt.is_open(&pool("1")));
        doubt.open(&pool("1"));
        assert!(doubt.is_open(&pool("1")) && !doubt.is_open(&pool("2")));
        doubt.read(&pool("1"));
        tokio::time::advance(DOUBT).await;
        assert!(doubt.is_open(&pool("1")), "a watch may be late");
        doubt.read(&pool("2"));
        assert!(doubt.is_open(&pool("1")));
        doubt.read(&pool("1"));
        assert!(!doubt.is_open(&pool("1")));
    }
}
