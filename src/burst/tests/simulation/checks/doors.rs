//! Checks that a placement's door does not flap: it follows Azure's answers and its backoff.
//!
//! In: the door before and after each create that ended, and in each plan of one term of one leader. The
//! expected door is computed here independently of `PlacementHealth`.

use std::time::Duration;

use jiff::Timestamp;

use crate::burst::leader_state::placement_health::PROBE_TIMEOUT;
use crate::burst::plan::BurstPlan;
use crate::burst::tests::simulation::azure::StartResult;
use crate::burst::tests::simulation::cluster::{Cluster, NODE};
use crate::burst::tests::simulation::operator::InstanceClocks;
use crate::burst::{LeaderState, PlacementAvailability};
use crate::k8s::time::{later, shifted};

/// The first and the longest time that a door stays closed. It doubles each time in a row.
const CLOSED: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// A door, and how many times in a row it has been closed.
pub struct DoorCheck {
    last: PlacementAvailability,
    closings: u32,
    /// When it last became half-open.
    half_open: Timestamp,
}

impl Default for DoorCheck {
    fn default() -> Self {
        Self {
            last: PlacementAvailability::Open,
            closings: 0,
            half_open: Timestamp::MIN,
        }
    }
}

impl DoorCheck {
    /// Records the result of a create in `memory`, and checks the door.
    pub fn ended(&mut self, ended: StartResult, memory: &mut LeaderState, now: Timestamp) {
        let backend = memory.placement_health_mut("weu");
        let before = backend.availability(now);
        self.passes(&before, now);
        match ended {
            Ok(()) => backend.record_success(now),
            Err(class) => backend.record_failure(class, "Azure starts nothing", now),
        }
        let after = backend.availability(now);
        match (until(&before), until(&after)) {
            (Some(_), _) => assert!(is_same(&before, &after), "{before:?}, then {after:?}"),
            (None, Some(until)) => {
                assert!(ended.is_err(), "it closes though a create succeeded");
                let longer = 2_u32.saturating_pow(self.closings.min(16));
                let least = CLOSED.0.saturating_mul(longer).min(CLOSED.1);
                assert!(
                    later(now, least) <= until,
                    "closed from {now} until {until}, after {} times in a row",
                    self.closings
                );
                self.closings += 1;
            }
            (None, None) if ended.is_ok() => {
                assert_eq!(after, PlacementAvailability::Open, "a create has succeeded");
                self.closings = 0;
            }
            (None, None) => assert_eq!(before, after, "a create has failed"),
        }
        self.last = after;
    }

    /// Checks a plan: it has the door that the creates led to, and grants only as many pods as the door lets
    /// in.
    pub fn planned(&mut self, plan: &BurstPlan, cluster: &Cluster, clocks: &InstanceClocks) {
        let now = clocks.own(cluster.now);
        let door = &plan.availability["weu"];
        if matches!(door, PlacementAvailability::Closed { until: None, .. }) {
            // Azure throttles, whatever the results of earlier creates.
            assert_eq!(plan.grants().count(), 0, "granted into a closed region");
            return;
        }
        self.passes(door, now);
        self.last = door.clone();
        let grants = plan.grants().count();
        match door {
            PlacementAvailability::Open => return,
            PlacementAvailability::Closed { .. } => {
                assert_eq!(grants, 0, "granted into a closed placement");
            }
            PlacementAvailability::OneProbe => assert!(grants <= 1, "tried with {grants} pods"),
        }
        // If a reserved pod is in no watch, the leader cannot know that it is on its way.
        if grants > 0 && plan.unwatched_reservations.is_empty() {
            let granted = plan.grants().map(|one| one.pod.uid.as_str());
            let granted: Vec<&str> = granted.collect();
            let mut tries = cluster.away().into_iter().filter(|uid| {
                let facts = &cluster.pods[*uid].facts;
                // When the scheduler places a pod with an expired grant, the leader cannot know it in advance.
                let has_expired = facts.grant.as_ref().is_some_and(|grant| grant.is_expired);
                let at = facts.grant.as_ref().and_then(|grant| grant.granted_at);
                let at = at.map(|at| shifted(at, -clocks.ahead()));
                // A probe that proves nothing for this long no longer counts.
                let is_new = later(at.unwrap_or(self.half_open), PROBE_TIMEOUT) > now;
                let bound = facts.bound();
                let tries = bound.is_none_or(|bound| bound.node == NODE && !bound.has_started);
                !has_expired && tries && (is_new || later(self.half_open, PROBE_TIMEOUT) > now)
            });
            let other = tries.find(|uid| !granted.contains(uid));
            assert!(other.is_none(), "tried with {granted:?} beside {other:?}");
        }
    }

    /// Without a create, the door only changes to half-open, when its time is over.
    fn passes(&mut self, door: &PlacementAvailability, now: Timestamp) {
        let expected = match until(&self.last) {
            Some(until) if until <= now => {
                self.half_open = until;
                &PlacementAvailability::OneProbe
            }
            _ => &self.last,
        };
        assert!(
            is_same(expected, door),
            "it is {door:?} instead of {expected:?}, and no create has ended"
        );
    }
}

fn until(door: &PlacementAvailability) -> Option<Timestamp> {
    match door {
        PlacementAvailability::Closed { until, .. } => Some(until.expect("creates closed it")),
        PlacementAvailability::Open | PlacementAvailability::OneProbe => None,
    }
}

/// Compares doors without their messages.
fn is_same(one: &PlacementAvailability, other: &PlacementAvailability) -> bool {
    until(one) == until(other) && (until(one).is_some() || one == other)
}
