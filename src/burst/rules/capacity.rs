//! How many more pods each placement can take.
//!
//! In: the placements as the scheduler sees them, the pods bound to them or on their way, and the results of
//! their creates. Out: the placement with room for a pod. Capacity is counted twice: by pod requests, as the
//! scheduler counts it, so that every grant can be placed; and by container group sizes, as ACI counts it, so
//! that ACI can start every granted pod.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::limits::GrantCandidate;
use super::topology::Topology;
use crate::burst::facts::placement::PlacementSet;
use crate::burst::facts::pod::PodFacts;
use crate::burst::facts::resource_amounts::ResourceAmounts;
use crate::burst::leader_state::placement_health::{PROBE_TIMEOUT, PlacementAvailability};
use crate::burst::observation::ObservedPool;
use crate::burst::outcome::BlockedBy;
use crate::k8s::time::later;

/// The free capacity of the pool's placements.
pub struct FreeCapacity<'a> {
    placements: Vec<PlacementCapacity>,
    topology: Topology<'a>,
    now: Timestamp,
}

struct PlacementCapacity {
    name: String,
    availability: PlacementAvailability,
    allocatable: ResourceAmounts,
    capacity: ResourceAmounts,
    /// Free capacity by pod requests, as the scheduler counts it.
    free: ResourceAmounts,
    /// Free capacity by container group sizes, as ACI counts it.
    free_for_groups: ResourceAmounts,
    /// When it became half-open: one pod at a time tests whether the placement works again.
    probing_since: Option<Timestamp>,
    /// While it is half-open: until when the present test pod may start. Until then no other pod is
    /// granted.
    probe_deadline: Option<Timestamp>,
}

impl<'a> FreeCapacity<'a> {
    /// Computes the free capacity at `now`.
    pub fn of(observed: &ObservedPool<'a>, now: Timestamp) -> Self {
        let mut by_node: BTreeMap<&str, (ResourceAmounts, ResourceAmounts)> = BTreeMap::new();
        let spilled = observed.granted.iter().filter(|granted| granted.is_spilled);
        let on_nodes = spilled
            .map(|granted| granted.pod)
            .chain(observed.user_placed.iter().map(|(pod, _)| *pod));
        for pod in on_nodes {
            if let Some(bound) = pod.bound() {
                let (requested, used) = by_node.entry(bound.node.as_str()).or_default();
                *requested = requested.plus(pod.requests);
                *used = used.plus(pod.node_usage());
            }
        }
        let placements = observed.placements.iter().map(|place| {
            let used = by_node.get(place.node.as_str());
            let (requested, used) = used.copied().unwrap_or_default();
            let health = observed
                .leader_state
                .placement_health()
                .get(&place.placement);
            let availability = match (&place.unavailable, health) {
                (Some(why), _) => PlacementAvailability::Closed {
                    until: None,
                    why: why.clone(),
                },
                (None, Some(health)) => health.availability(now),
                (None, None) => PlacementAvailability::Open,
            };
            let half_open = health.and_then(|health| health.probing_since(now));
            PlacementCapacity {
                name: place.placement.clone(),
                availability,
                allocatable: place.allocatable,
                capacity: place.capacity,
                free: place.allocatable.minus(requested),
                free_for_groups: place.capacity.minus(used),
                probing_since: half_open,
                probe_deadline: half_open
                    .and_then(|since| latest_probe_deadline(observed, &place.node, (since, now))),
            }
        });
        let mut free = Self {
            placements: placements.collect(),
            topology: Topology::of(observed),
            now,
        };
        free.take_in_flight(observed);
        free
    }

    /// Subtracts granted pods without a node, including those that only the watch of pending pods shows as
    /// granted, and reserved pods that no watch shows at the moment because they have just been bound. The
    /// scheduler chooses where they go. They are counted in the first placement that has room and
    /// that their constraints permit. If there is none, they are counted in the first placement with room, but
    /// not as neighbors of other pods there, because the scheduler does not place them there now.
    fn take_in_flight(&mut self, observed: &ObservedPool<'a>) {
        let granted = observed.granted.iter();
        let granted = granted.filter(|granted| !granted.is_spilled && !granted.is_home);
        let reserved = observed.reservations.iter().filter(|one| !one.is_settled);
        let reserved = reserved.filter_map(|pod| pod.in_flight.or(pod.departed));
        let all = granted.map(|granted| granted.pod).chain(reserved);
        let mut all: Vec<&'a PodFacts> = all.collect();
        // The caches have no order. The same pods must be counted in the same placements in every plan.
        all.sort_unstable_by_key(|pod| (pod.created, &pod.id));
        for pod in all {
            let places = fitting_placements(pod, observed);
            let mut first = None;
            for index in self.placements_in(places) {
                if self.placements[index].blocked_by(pod).is_some() {
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
                self.placements[index].allocate(pod);
            }
        }
    }

    /// The index of the first placement that has room for the pod.
    ///
    /// # Errors
    ///
    /// The reason why no placement takes the pod: missing room or else a closed placement, of the placements
    /// that the pod's constraints permit; if they permit none, the constraints.
    pub fn check(&mut self, candidate: &GrantCandidate<'a>) -> Result<usize, BlockedBy> {
        let (mut lack, mut unmet) = (None, Vec::new());
        for index in self.placements_in(candidate.placements) {
            // First, because room in a placement that the constraints do not permit is of no use to the pod.
            if let Some(refusal) = self.topology.refusal(candidate.pod, index) {
                unmet.push(refusal.to_string());
                continue;
            }
            match self.placements[index].lack_at(candidate.pod, self.now) {
                None => return Ok(index),
                Some(BlockedBy::Capacity(what)) => lack = Some(BlockedBy::Capacity(what)),
                Some(other) => lack = lack.or(Some(other)),
            }
        }
        let unmet = (!unmet.is_empty()).then(|| BlockedBy::Topology(unmet.join("; ")));
        let lack = lack.or(unmet);
        Err(lack.unwrap_or_else(|| BlockedBy::PlacementClosed("it has none".to_owned())))
    }

    /// Takes the pod's room in the placement at `index`, and returns that placement's name.
    pub fn take(&mut self, candidate: &GrantCandidate<'a>, index: usize) -> String {
        let placement = &mut self.placements[index];
        placement.allocate(candidate.pod);
        placement.probe_deadline = placement
            .probing_since
            .map(|_| later(self.now, PROBE_TIMEOUT));
        self.topology.assume(candidate.pod, index);
        placement.name.clone()
    }

    /// Keeps the free capacity of the first open placement for a pod that has waited long, so that
    /// smaller pods do not use it up. Only a placement counts that the pod's constraints permit, and that the
    /// pod would fit if it were empty.
    pub fn hold_back_for(&mut self, candidate: &GrantCandidate<'a>) {
        let pod = candidate.pod;
        for index in self.placements_in(candidate.placements) {
            let placement = &mut self.placements[index];
            let fits = pod
                .requests
                .shortage_in(placement.allocatable)
                .or(pod.node_usage().shortage_in(placement.capacity));
            if placement.availability == PlacementAvailability::Open
                && fits.is_none()
                && self.topology.refusal(pod, index).is_none()
            {
                placement.allocate(pod);
                return;
            }
        }
    }

    /// The indexes of the placements in `places`.
    fn placements_in(&self, places: PlacementSet) -> impl Iterator<Item = usize> + use<> {
        (0..self.placements.len()).filter(move |index| places.contains(*index))
    }

    /// When the next half-open placement may be tested with another pod.
    pub fn next_probe_at(&self) -> Option<Timestamp> {
        let half_open = self
            .placements
            .iter()
            .filter(|placement| placement.availability == PlacementAvailability::OneProbe);
        half_open
            .filter_map(|placement| placement.probe_deadline)
            .filter(|at| self.now < *at)
            .min()
    }

    /// Whether each placement takes pods, by the placement's name.
    pub fn availability(&self) -> BTreeMap<String, PlacementAvailability> {
        let placements = self.placements.iter();
        placements
            .map(|placement| (placement.name.clone(), placement.availability.clone()))
            .collect()
    }
}

impl PlacementCapacity {
    fn blocked_by(&self, pod: &PodFacts) -> Option<BlockedBy> {
        if let PlacementAvailability::Closed { why, .. } = &self.availability {
            return Some(BlockedBy::PlacementClosed(format!("{}: {why}", self.name)));
        }
        let lack = pod.requests.shortage_in(self.free);
        lack.or_else(|| pod.node_usage().shortage_in(self.free_for_groups))
            .map(BlockedBy::Capacity)
    }

    /// As [`blocked_by`](Self::blocked_by), for a pod that is not granted yet: a placement that is being tested takes no
    /// other pod.
    fn lack_at(&self, pod: &PodFacts, now: Timestamp) -> Option<BlockedBy> {
        let is_tested =
            self.probing_since.is_some() && self.probe_deadline.is_some_and(|at| now < at);
        if is_tested && self.availability == PlacementAvailability::OneProbe {
            let why = format!("{} is being tried with one pod", self.name);
            return Some(BlockedBy::PlacementClosed(why));
        }
        self.blocked_by(pod)
    }

    fn allocate(&mut self, pod: &PodFacts) {
        self.free = self.free.minus(pod.requests);
        self.free_for_groups = self.free_for_groups.minus(pod.node_usage());
    }
}

/// Until when a granted pod tests the node's placement, which has been half-open since `since`. User-placed
/// pods do not count: they may be waiting for something that only their users can provide.
///
/// A grant may carry a time of the future, if the API server's clock has been set back since: it counts as `now`.
fn latest_probe_deadline(
    observed: &ObservedPool<'_>,
    node: &str,
    (since, now): (Timestamp, Timestamp),
) -> Option<Timestamp> {
    let granted = observed.granted.iter().filter(|granted| !granted.is_home);
    let trying = granted.filter(|granted| match granted.pod.bound() {
        Some(bound) => bound.node == node && !bound.has_started && bound.refusal.is_none(),
        None => true,
    });
    let deadline =
        |at: Option<Timestamp>| later(at.unwrap_or(since).min(now).max(since), PROBE_TIMEOUT);
    let granted = trying.map(|granted| deadline(observed.granted_at(granted.pod)));
    let reserved = observed.reservations.iter().filter(|one| !one.is_settled);
    let reserved = reserved.filter_map(|one| one.in_flight);
    let reserved = reserved.map(|pod| deadline(observed.granted_at(pod)));
    granted.chain(reserved).max()
}

/// The placements whose nodes the pod's own rules (node selector, node affinity, tolerations) permit.
pub fn fitting_placements(pod: &PodFacts, observed: &ObservedPool<'_>) -> PlacementSet {
    let all = observed.placements.iter().enumerate();
    all.filter(|(_, place)| {
        let refusal = pod
            .node_constraints
            .refusal(&place.node, &place.labels, &place.taints);
        refusal.is_none()
    })
    .fold(PlacementSet::default(), |places, (index, _)| {
        places.with(index)
    })
}
