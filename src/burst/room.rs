//! How many more pods each placement can take.
//!
//! In: the placements as the scheduler sees them, what is on them and on its way, how their creates
//! went. Out: for a pod, where there is room. Counted by requests, as the scheduler does, so that no
//! grant is given that cannot help.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::amounts::Amounts;
use super::backend::Door;
use super::observe::Observed;
use super::outcome::Lack;
use super::pod::PodFacts;

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
pub struct Room {
    spots: Vec<Spot>,
}

struct Spot {
    placement: String,
    door: Door,
    offers: Amounts,
    left: Amounts,
    /// How many probes may still be sent where the door is half-open.
    probes: u32,
}

impl Room {
    /// What is left now.
    pub fn of(seen: &Observed<'_>, now: Timestamp) -> Self {
        let mut by_node: BTreeMap<&str, (Amounts, u32)> = BTreeMap::new();
        let spilled = seen.granted.iter().filter(|granted| granted.is_spilled);
        let on_nodes = spilled
            .map(|granted| granted.pod)
            .chain(seen.guests.iter().map(|(pod, _)| *pod));
        for pod in on_nodes {
            if let Some(bound) = pod.bound() {
                let (used, trying) = by_node.entry(bound.node.as_str()).or_default();
                *used = used.plus(pod.asks);
                *trying += u32::from(!bound.has_started && bound.refused.is_none());
            }
        }
        let spots = seen.places.iter().map(|place| {
            let (used, trying) = by_node
                .get(place.node.as_str())
                .copied()
                .unwrap_or_default();
            let door = match (&place.shut, seen.memory.backends().get(&place.placement)) {
                (Some(why), _) => Door::Closed {
                    until: None,
                    why: why.clone(),
                },
                (None, Some(backend)) => backend.door(now),
                (None, None) => Door::Open,
            };
            Spot {
                placement: place.placement.clone(),
                door,
                offers: place.offers,
                left: place.offers.minus(used),
                probes: 1_u32.saturating_sub(trying),
            }
        });
        let mut room = Self {
            spots: spots.collect(),
        };
        room.take_what_is_on_its_way(seen);
        room
    }

    /// Granted pods without a node, also those that only the watch of waiting pods shows granted.
    /// Where a granted pod lands is the scheduler's choice: it is counted where it would fit first.
    fn take_what_is_on_its_way(&mut self, seen: &Observed<'_>) {
        let granted = seen.granted.iter();
        let granted = granted.filter(|granted| !granted.is_spilled && !granted.is_home);
        let reserved = seen.reservations.iter().filter(|one| !one.is_settled);
        let reserved = reserved.filter_map(|one| one.on_its_way);
        for pod in granted.map(|granted| granted.pod).chain(reserved) {
            drop(self.take(pod.asks, fitting(pod, seen)));
        }
    }

    /// Takes room for `asks` in the first of `places` that has it; its name.
    pub fn take(&mut self, asks: Amounts, places: Places) -> Result<String, Lack> {
        let mut lack = None;
        for spot in self.among(places) {
            match spot.lack(asks) {
                None => {
                    spot.left = spot.left.minus(asks);
                    spot.probes = spot.probes.saturating_sub(1);
                    return Ok(spot.placement.clone());
                }
                Some(Lack::Room(what)) => lack = Some(Lack::Room(what)),
                Some(other) => lack = lack.or(Some(other)),
            }
        }
        Err(lack.unwrap_or_else(|| Lack::Closed("it has none".to_owned())))
    }

    /// Keeps what is left in the first open one of `places` for a pod that has waited long, so that
    /// smaller ones do not take it away bit by bit.
    pub fn save(&mut self, asks: Amounts, places: Places) {
        let mut open = self
            .among(places)
            .filter(|spot| spot.door == Door::Open && asks.lacks(spot.offers).is_none());
        if let Some(spot) = open.next() {
            spot.left = spot.left.minus(asks);
        }
    }

    fn among(&mut self, places: Places) -> impl Iterator<Item = &mut Spot> {
        let spots = self.spots.iter_mut().enumerate();
        let those = spots.filter(move |(index, _)| places.has(*index));
        those.map(|(_, spot)| spot)
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
    fn lack(&self, asks: Amounts) -> Option<Lack> {
        let name = &self.placement;
        match &self.door {
            Door::Closed { why, .. } => return Some(Lack::Closed(format!("{name}: {why}"))),
            Door::HalfOpen if self.probes == 0 => {
                return Some(Lack::Closed(format!("{name} is being tried with one pod")));
            }
            Door::HalfOpen | Door::Open => {}
        }
        asks.lacks(self.left).map(Lack::Room)
    }
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
