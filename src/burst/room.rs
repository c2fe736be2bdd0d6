//! How many more pods each placement can take.
//!
//! In: the placements as the scheduler sees them, what is on them and on its way, how their creates
//! went. Out: for a pod, where there is room. Counted twice: by requests, as the scheduler does, so that no
//! grant is given that cannot help; and by container groups, as ACI does, so that none is given that ACI
//! could not start.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::amounts::Amounts;
use super::backend::{Door, PROBE};
use super::hold::later;
use super::observe::Observed;
use super::outcome::Lack;
use super::pod::PodFacts;
use super::topology::Topology;

/// Which placements could run a pod: a bit for each, in the pool's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places(u32);

impl Places {
    /// With the placement at `index`.
    #[must_use]
    pub fn with(self, index: usize) -> Self {
        Self(self.0 | 1 << index.min(31))
    }

    /// Whether the placement at `index` is one of them.
    pub fn has(self, index: usize) -> bool {
        self.0 & (1 << index.min(31)) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What the placements have left.
pub struct Room<'a> {
    spots: Vec<Spot>,
    topology: Topology<'a>,
}

struct Spot {
    placement: String,
    door: Door,
    offers: Amounts,
    capacity: Amounts,
    /// What the scheduler still has there.
    left: Amounts,
    /// What ACI still has there.
    groups: Amounts,
    /// Since when the door is half-open, if it is.
    half_open: Option<Timestamp>,
    /// Until when a pod shows whether it works again, where the door is half-open.
    tried_until: Option<Timestamp>,
}

impl<'a> Room<'a> {
    /// What is left now.
    pub fn of(seen: &Observed<'a>, now: Timestamp) -> Self {
        let mut by_node: BTreeMap<&str, (Amounts, Amounts)> = BTreeMap::new();
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
                (Some(why), _) => Door::Closed {
                    until: None,
                    why: why.clone(),
                },
                (None, Some(backend)) => backend.door(now),
                (None, None) => Door::Open,
            };
            let half_open = backend.and_then(|backend| backend.half_open_since(now));
            Spot {
                placement: place.placement.clone(),
                door,
                offers: place.offers,
                capacity: place.capacity,
                left: place.offers.minus(asked),
                groups: place.capacity.minus(used),
                half_open,
                tried_until: half_open.and_then(|since| tried_until(seen, &place.node, since)),
            }
        });
        let mut room = Self {
            spots: spots.collect(),
            topology: Topology::of(seen),
        };
        room.take_what_is_on_its_way(seen);
        room
    }

    /// Granted pods without a node, also those that only the watch of waiting pods shows granted.
    /// Where a granted pod lands is the scheduler's choice: it is counted where it would fit first.
    fn take_what_is_on_its_way(&mut self, seen: &Observed<'a>) {
        let granted = seen.granted.iter();
        let granted = granted.filter(|granted| !granted.is_spilled && !granted.is_home);
        let reserved = seen.reservations.iter().filter(|one| !one.is_settled);
        let reserved = reserved.filter_map(|one| one.on_its_way);
        for pod in granted.map(|granted| granted.pod).chain(reserved) {
            let first = self
                .among(fitting(pod, seen))
                .find(|(_, spot)| spot.lack(pod).is_none());
            if let Some((index, spot)) = first {
                spot.fill(pod);
                self.topology.assume(pod, index);
            }
        }
    }

    /// Takes room for `pod` in the first of `places` that has it; its name.
    pub fn take(
        &mut self,
        pod: &'a PodFacts,
        places: Places,
        now: Timestamp,
    ) -> Result<String, Lack> {
        let (mut lack, mut unmet) = (None, Vec::new());
        let those = (0..self.spots.len()).filter(|index| places.has(*index));
        for index in those {
            let spot = &self.spots[index];
            let tried = spot.half_open.is_some() && spot.tried_until.is_some_and(|at| now < at);
            let why = if tried && spot.door == Door::HalfOpen {
                Some(Lack::Closed(format!(
                    "{} is being tried with one pod",
                    spot.placement
                )))
            } else {
                spot.lack(pod)
            };
            match why {
                None => {
                    if let Some(refusal) = self.topology.refusal(pod, index) {
                        unmet.push(refusal.to_string());
                        continue;
                    }
                    let spot = &mut self.spots[index];
                    spot.fill(pod);
                    spot.tried_until = spot.half_open.map(|_| later(now, PROBE));
                    let placement = spot.placement.clone();
                    self.topology.assume(pod, index);
                    return Ok(placement);
                }
                Some(Lack::Room(what)) => lack = Some(Lack::Room(what)),
                Some(other) => lack = lack.or(Some(other)),
            }
        }
        let unmet = (!unmet.is_empty()).then(|| Lack::Topology(unmet.join("; ")));
        let lack = unmet.or(lack);
        Err(lack.unwrap_or_else(|| Lack::Closed("it has none".to_owned())))
    }

    /// Keeps what is left in the first open one of `places` for a pod that has waited long, so that
    /// smaller ones do not take it away bit by bit.
    pub fn save(&mut self, pod: &PodFacts, places: Places) {
        let mut open = self.among(places).filter(|(_, spot)| {
            let fits = pod
                .asks
                .lacks(spot.offers)
                .or(pod.uses().lacks(spot.capacity));
            spot.door == Door::Open && fits.is_none()
        });
        if let Some((_, spot)) = open.next() {
            spot.fill(pod);
        }
    }

    /// When the next half-open placement may be tried with another pod.
    pub fn next_probe(&self, now: Timestamp) -> Option<Timestamp> {
        let half_open = self.spots.iter().filter(|spot| spot.door == Door::HalfOpen);
        half_open
            .filter_map(|spot| spot.tried_until)
            .filter(|at| now < *at)
            .min()
    }

    fn among(&mut self, places: Places) -> impl Iterator<Item = (usize, &mut Spot)> {
        let spots = self.spots.iter_mut().enumerate();
        spots.filter(move |(index, _)| places.has(*index))
    }

    /// The placements and their doors.
    pub fn doors(&self) -> BTreeMap<String, Door> {
        let doors = self.spots.iter();
        doors
            .map(|spot| (spot.placement.clone(), spot.door.clone()))
            .collect()
    }
}

impl Spot {
    fn lack(&self, pod: &PodFacts) -> Option<Lack> {
        if let Door::Closed { why, .. } = &self.door {
            return Some(Lack::Closed(format!("{}: {why}", self.placement)));
        }
        let lack = pod.asks.lacks(self.left);
        lack.or_else(|| pod.uses().lacks(self.groups))
            .map(Lack::Room)
    }

    fn fill(&mut self, pod: &PodFacts) {
        self.left = self.left.minus(pod.asks);
        self.groups = self.groups.minus(pod.uses());
    }
}

/// Until when pods that we chose show whether the placement works again, which is half-open since then. Others
/// may wait for what only their users can give them, and show nothing.
fn tried_until(seen: &Observed<'_>, node: &str, since: Timestamp) -> Option<Timestamp> {
    let granted = seen.granted.iter().filter(|granted| !granted.is_home);
    let trying = granted.filter(|granted| match granted.pod.bound() {
        Some(bound) => bound.node == node && !bound.has_started && bound.refused.is_none(),
        None => true,
    });
    let deadline = |at: Option<Timestamp>| later(at.unwrap_or(since).max(since), PROBE);
    let granted = trying.map(|granted| deadline(seen.granted_at(granted.pod)));
    let reserved = seen.reservations.iter().filter(|one| !one.is_settled);
    let reserved = reserved.filter_map(|one| one.on_its_way);
    let reserved = reserved.map(|pod| deadline(seen.granted_at(pod)));
    granted.chain(reserved).max()
}

/// The placements whose nodes a pod's own rules let it onto.
pub fn fitting(pod: &PodFacts, seen: &Observed<'_>) -> Places {
    let all = seen.places.iter().enumerate();
    all.filter(|(_, place)| {
        let refusal = pod
            .demands
            .refusal(&place.node, &place.labels, &place.taints);
        refusal.is_none()
    })
    .fold(Places::default(), |places, (index, _)| places.with(index))
}
