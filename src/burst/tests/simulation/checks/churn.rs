//! Checks that no write is undone and repeated without a reason, and that writes come to rest.
//!
//! In: each write of the pool's status, each release of a reservation, and grants without an answer. A pod
//! whose grant a policy denies is tried again with backoff.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use crate::api::Reservation;
use crate::burst::facts::pod::PodReference;
use crate::burst::tests::simulation::cluster::{Cluster, Leading, ShownStatus, SimPod};
use crate::k8s::time::later;

/// How many times one leader may reserve one version of a pod while nothing denies the grant. More than once,
/// because another pod may need the slot more in between.
const AGAIN: u32 = 3;
/// The first and the longest pause after a denied grant.
const DENIED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// How long nothing has been written at the end. This is the part of the still time that is left when every pod
/// has been served, including pods with denied grants, which are tried only occasionally.
const REST: Duration = Duration::from_secs(300);

/// What was written, and when.
#[derive(Default)]
pub struct ChurnCheck {
    made: BTreeMap<Reservation, ReservationCount>,
    /// Versions of pods with a grant that was not answered, by UID.
    lost: BTreeSet<(String, String)>,
    /// The last change of a reservation, except of pods with denied grants, and when.
    reserved: Option<(Timestamp, Reservation)>,
    /// The last two status contents, written while no pod's grant was denied, and when.
    last_status_change: Option<(Timestamp, [ShownStatus; 2])>,
}

/// How many times a reservation was made.
#[derive(Default)]
struct ReservationCount {
    /// How many times while a policy denied the pod's grant, and when last.
    denied: u32,
    at: Timestamp,
    others: u32,
}

impl ChurnCheck {
    /// A leader writes the pool: with a change, and without undoing what it just wrote.
    pub fn write(&mut self, cluster: &Cluster, new: &Leading) {
        let old = cluster.reservations();
        let status = cluster.pool.status.as_ref();
        let is_led = status.and_then(|status| status.leader.as_ref()) == Some(&new.leader);
        assert!(
            !is_led || old != new.reservations,
            "the pool is written, and says the same"
        );
        for entry in new.reservations.iter().filter(|entry| !old.contains(entry)) {
            self.make(entry, cluster);
        }
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (old.iter().collect(), new.reservations.iter().collect());
        let mut changed = old.symmetric_difference(&new);
        if let Some(entry) = changed.find(|entry| !is_denied(cluster, &entry.uid)) {
            self.reserved = Some((cluster.now, (*entry).clone()));
        }
    }

    fn make(&mut self, entry: &Reservation, cluster: &Cluster) {
        let now = cluster.now;
        let is_denied = is_denied(cluster, &entry.uid);
        if is_denied && !cluster.is_calm {
            return;
        }
        let made = self.made.entry(entry.clone()).or_default();
        if is_denied {
            let longer = 2_u32.saturating_pow(made.denied.saturating_sub(1).min(16));
            let pause = DENIED.0.saturating_mul(longer).min(DENIED.1);
            assert!(
                made.denied == 0 || later(made.at, pause) <= now,
                "{} is tried again though it was denied {} times, last at {}",
                entry.name,
                made.denied,
                made.at
            );
            (made.denied, made.at) = (made.denied + 1, now);
        } else {
            assert!(
                made.others < AGAIN,
                "{} is reserved again and again",
                entry.name
            );
            made.others += 1;
        }
    }

    /// Records a grant whose result is unknown.
    pub fn lost(&mut self, id: &PodReference) {
        let version = (id.uid.clone(), id.resource_version.clone());
        self.lost.insert(version);
    }

    /// A pod is changed to free its reservation. The reservation must exist, and a grant for it may still be in
    /// flight.
    pub fn release(&self, cluster: &Cluster, pod: &SimPod) {
        let PodReference {
            uid,
            name,
            resource_version: version,
            ..
        } = &pod.facts.id;
        assert!(
            pod.facts.grant.is_none(),
            "{name} is granted, and gives its reservation back"
        );
        let mut entries = cluster.reservations().iter();
        let entry = entries.find(|entry| entry.uid == *uid && entry.resource_version == *version);
        let entry = entry.expect("what is given back is reserved");
        let status = cluster.pool.status.as_ref();
        let leader = status.and_then(|status| status.leader.as_ref());
        let is_lost = self.lost.contains(&(uid.clone(), version.clone()));
        assert!(
            is_lost || leader != Some(&entry.holder),
            "{name} is changed, and nothing of it is on its way"
        );
    }

    /// The content of the status changes.
    pub fn record_status(&mut self, cluster: &Cluster, old: &ShownStatus, new: &ShownStatus) {
        let numbers =
            |status: &ShownStatus| (status.counts, status.is_peak, status.limited.is_some());
        let ends = old.is_peak && !new.is_peak;
        let tries = cluster.pods.keys().any(|uid| is_denied(cluster, uid));
        if numbers(old) != numbers(new) && !ends && !tries {
            self.last_status_change = Some((cluster.now, [old.clone(), new.clone()]));
        }
    }

    /// Every pod that could be granted has been, and no more is written.
    pub fn rests(&self, now: Timestamp) {
        let is_old = |at: Timestamp| later(at, REST) <= now;
        let reserved = self.reserved.as_ref().filter(|(at, _)| !is_old(*at));
        assert!(reserved.is_none(), "reserved still: {reserved:?}");
        let changed = self
            .last_status_change
            .as_ref()
            .filter(|(at, _)| !is_old(*at));
        assert!(changed.is_none(), "the status still changes: {changed:?}");
    }
}

fn is_denied(cluster: &Cluster, uid: &str) -> bool {
    let pod = cluster.pods.get(uid);
    pod.is_some_and(|pod| cluster.now < pod.denied_until)
}
