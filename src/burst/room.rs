//! How many more pods each placement can take.
//!
//! In: the placements as the scheduler sees them, the pods bound to them or on their way, and the results of
//! their creates. Out: the placement with room for a pod. Capacity is counted twice: by pod requests, as the
//! scheduler counts it, so that every grant can be placed; and by container group sizes, as ACI counts it, so
//! that ACI can start every granted pod.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::amounts::ResourceAmounts;
use super::backend::{Admittance, PROBE};
use super::hold::later;
use super::observe::ObservedPool;
use super::outcome::BlockedBy;
use super::pod::PodFacts;
use super::topology::Topology;

/// The placements that could run a pod: one bit each, in the order of the pool's spec. At most 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacementSet(u32);

impl PlacementSet {
    /// Adds the placement at `index`.
    #[must_use]
    pub fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index.min(31))
    }

    /// Whether the set contains the placement at `index`.
    pub fn has(self, index: usize) -> bool {
        self.0 & (1 << index.min(31)) != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The free capacity of the pool's placements.
pub struct FreeCapacity<'a> {
    spots: Vec<PlacementCapacity>,
    topology: Topology<'a>,
}

struct PlacementCapacity {
    placement: String,
    door: Admittance,
    offers: ResourceAmounts,
    capacity: ResourceAmounts,
    /// Free capacity by pod requests, as the scheduler counts it.
    left: ResourceAmounts,
    /// Free capacity by container group sizes, as ACI counts it.
    groups: ResourceAmounts,
    /// When the door became half-open: one pod at a time tests whether the placement works again.
    half_open: Option<Timestamp>,
    /// While the door is half-open: until when the present test pod may start. Until then no other pod is
    /// granted.
    tried_until: Option<Timestamp>,
}

impl<'a> FreeCapacity<'a> {
    /// Computes the free capacity at `now`.
    pub fn of(seen: &ObservedPool<'a>, now: Timestamp) -> Self {
        let mut by_node: BTreeMap<&str, (ResourceAmounts, ResourceAmounts)> = BTreeMap::new();
        let spilled = seen.granted.iter().filter(|granted| granted.is_spilled);
        let on_nodes = spilled
            .map(|granted| granted.pod)
            .chain(seen.guests.iter().map(|(pod, _)| *pod));
        for pod in on_nodes {
            if let Some(bound) = pod.bound() {
                let (asked, used) = by_node.entry(bound.node.as_str()).or_default();
                *asked = asked.plus(pod.asks);
                *used = used.plus(pod.uses());
            }
        }
        let spots = seen.places.iter().map(|place| {
            let used = by_node.get(place.node.as_str());
            let (asked, used) = used.copied().unwrap_or_default();
            let backend = seen.memory.backends().get(&place.placement);
            let door = match (&place.shut, backend) {
                (Some(why), _) => Admittance::Closed {
                    until: None,
                    why: why.clone(),
                },
                (None, Some(backend)) => backend.door(now),
                (None, None) => Admittance::Open,
            };
            let half_open = backend.and_then(|backend| backend.half_open_since(now));
            PlacementCapacity {
                placement: place.placement.clone(),
                door,
                offers: place.offers,
                capacity: place.capacity,
                left: place.offers.minus(asked),
                groups: place.capacity.minus(used),
                half_open,
                tried_until: half_open
                    .and_then(|since| tried_until(seen, &place.node, (since, now))),
            }
        });
        let mut room = Self {
            spots: spots.collect(),
            topology: Topology::of(seen),
        };
        room.take_what_is_on_its_way(seen);
        room
    }

    /// Subtracts granted pods without a node, including those that only the watch of pending pods shows as
    /// granted. The scheduler chooses where they go. They are counted in the first placement that has room and
    /// that their constraints permit. If there is none, they are counted in the first placement with room, but
    /// not as neighbors of other pods there, because the scheduler does not place them there now.
    fn take_what_is_on_its_way(&mut self, seen: &ObservedPool<'a>) {
        let granted = seen.granted.iter();
        let granted = granted.filter(|granted| !granted.is_spilled && !granted.is_home);
        let reserved = seen.reservations.iter().filter(|one| !one.is_settled);
        let reserved = reserved.filter_map(|one| one.on_its_way);
        let all = granted.map(|granted| granted.pod).chain(reserved);
        let mut all: Vec<&'a PodFacts> = all.collect();
        // The caches have no order. The same pods must be counted in the same placements in every plan.
        all.sort_unstable_by_key(|pod| (pod.created, &pod.id));
        for pod in all {
            let places = fitting(pod, seen);
            let mut first = None;
            for index in self.among(places) {
                if self.spots[index].lack(pod).is_some() {
                    continue;
                }
                first.get_or_insert(index);
                if self.topology.refusal(pod, index).is_none() {
                    first = Some(index);
                    self.topology.assume(pod, index);
                    break;
                }
            }
            if let Some(index) = first {
                self.spots[index].fill(pod);
            }
        }
    }

    /// Takes room for `pod` in the first of `places` that has room, and returns that placement's name.
    ///
    /// # Errors
    ///
    /// The reason why no placement takes the pod: missing room or else a closed placement, of the placements
    /// that the pod's constraints permit; if they permit none, the constraints.
    pub fn take(
        &mut self,
        pod: &'a PodFacts,
        places: PlacementSet,
        now: Timestamp,
    ) -> Result<String, BlockedBy> {
        let (mut lack, mut unmet) = (None, Vec::new());
        for index in self.among(places) {
            // First, because room in a placement that the constraints do not permit is of no use to the pod.
            if let Some(refusal) = self.topology.refusal(pod, index) {
                unmet.push(refusal.to_string());
                continue;
            }
            let spot = &mut self.spots[index];
            match spot.lack_at(pod, now) {
                None => {
                    spot.fill(pod);
                    spot.tried_until = spot.half_open.map(|_| later(now, PROBE));
                    let placement = spot.placement.clone();
                    self.topology.assume(pod, index);
                    return Ok(placement);
                }
                Some(BlockedBy::Room(what)) => lack = Some(BlockedBy::Room(what)),
                Some(other) => lack = lack.or(Some(other)),
            }
        }
        let unmet = (!unmet.is_empty()).then(|| BlockedBy::Topology(unmet.join("; ")));
        let lack = lack.or(unmet);
        Err(lack.unwrap_or_else(|| BlockedBy::Closed("it has none".to_owned())))
    }

    /// Keeps the free capacity of the first open placement in `places` for a pod that has waited long, so that
    /// smaller pods do not use it up. Only a placement counts that the pod's constraints permit, and that the
    /// pod would fit if it were empty.
    pub fn save(&mut self, pod: &'a PodFacts, places: PlacementSet) {
        for index in self.among(places) {
            let spot = &mut self.spots[index];
            let fits = pod
                .asks
                .lacks(spot.offers)
                .or(pod.uses().lacks(spot.capacity));
            if spot.door == Admittance::Open
                && fits.is_none()
                && self.topology.refusal(pod, index).is_none()
            {
                spot.fill(pod);
                return;
            }
        }
    }

    /// The indices of the spots in `places`.
    fn among(&self, places: PlacementSet) -> impl Iterator<Item = usize> + use<> {
        (0..self.spots.len()).filter(move |index| places.has(*index))
    }

    /// When the next half-open placement may be tested with another pod.
    pub fn next_probe(&self, now: Timestamp) -> Option<Timestamp> {
        let half_open = self
            .spots
            .iter()
            .filter(|spot| spot.door == Admittance::HalfOpen);
        half_open
            .filter_map(|spot| spot.tried_until)
            .filter(|at| now < *at)
            .min()
    }

    /// Each placement's door, by the placement's name.
    pub fn doors(&self) -> BTreeMap<String, Admittance> {
        let doors = self.spots.iter();
        doors
            .map(|spot| (spot.placement.clone(), spot.door.clone()))
            .collect()
    }
}

impl PlacementCapacity {
    fn lack(&self, pod: &PodFacts) -> Option<BlockedBy> {
        if let Admittance::Closed { why, .. } = &self.door {
            return Some(BlockedBy::Closed(format!("{}: {why}", self.placement)));
        }
        let lack = pod.asks.lacks(self.left);
        lack.or_else(|| pod.uses().lacks(self.groups))
            .map(BlockedBy::Room)
    }

    /// As [`lack`](Self::lack), for a pod that is not granted yet: a placement that is being tested takes no
    /// other pod.
    fn lack_at(&self, pod: &PodFacts, now: Timestamp) -> Option<BlockedBy> {
        let is_tested = self.half_open.is_some() && self.tried_until.is_some_and(|at| now < at);
        if is_tested && self.door == Admittance::HalfOpen {
            let why = format!("{} is being tried with one pod", self.placement);
            return Some(BlockedBy::Closed(why));
        }
        self.lack(pod)
    }

    fn fill(&mut self, pod: &PodFacts) {
        self.left = self.left.minus(pod.asks);
        self.groups = self.groups.minus(pod.uses());
    }
}

/// Until when a granted pod tests the node's placement, which has been half-open since `since`. User-placed
/// pods do not count: they may be waiting for something that only their users can provide.
///
/// A grant may carry a time of the future, if the API server's clock has been set back since: it counts as `now`.
fn tried_until(
    seen: &ObservedPool<'_>,
    node: &str,
    (since, now): (Timestamp, Timestamp),
) -> Option<Timestamp> {
    let granted = seen.granted.iter().filter(|granted| !granted.is_home);
    let trying = granted.filter(|granted| match granted.pod.bound() {
        Some(bound) => bound.node == node && !bound.has_started && bound.refused.is_none(),
        None => true,
    });
    let deadline = |at: Option<Timestamp>| later(at.unwrap_or(since).min(now).max(since), PROBE);
    let granted = trying.map(|granted| deadline(seen.granted_at(granted.pod)));
    let reserved = seen.reservations.iter().filter(|one| !one.is_settled);
    let reserved = reserved.filter_map(|one| one.on_its_way);
    let reserved = reserved.map(|pod| deadline(seen.granted_at(pod)));
    granted.chain(reserved).max()
}

/// The placements whose nodes the pod's own rules (node selector, node affinity, tolerations) permit.
pub fn fitting(pod: &PodFacts, seen: &ObservedPool<'_>) -> PlacementSet {
    let all = seen.places.iter().enumerate();
    all.filter(|(_, place)| {
        let refusal = pod
            .demands
            .refusal(&place.node, &place.labels, &place.taints);
        refusal.is_none()
    })
    .fold(PlacementSet::default(), |places, (index, _)| {
        places.with(index)
    })
}
