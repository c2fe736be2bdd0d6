//! Azure's limits of a region: a quota that placements of two pools share, and a budget of creates.
//!
//! In: the pods on the node, and another placement whose pods come and go. Out: the node's capacity, from the
//! shares that `node::quota` computes. The other placement may still use what it was offered until a moment ago.

use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::{Cluster, NODE};
use crate::burst::facts::resource_amounts::ResourceAmounts;
use crate::burst::tests::simulation::checks;
use crate::k8s::time::later;
use crate::node::capacity::{MILLICORES_PER_CORE, NodeLoad, NodeResourceStatus, NodeResources};
use crate::node::quota::division::{HANDOVER_DELAY, QuotaShare, ShareRequest, divide};

/// How long a budget of creates lasts.
const WINDOW: Duration = Duration::from_secs(3600);
/// How many cores the other placement takes if it can.
const HUNGRY: i64 = 20;

/// A region of a subscription.
pub struct SimRegion {
    /// The start of the simulation, by its own clock and by the clock of the shares.
    epoch: (Timestamp, Instant),
    /// The shares of the node and of the other placement.
    shares: [QuotaShare; 2],
    /// How many cores the other placement has taken.
    pub other: i64,
    /// How many cores it has taken so far.
    pub taken: u64,
    /// Whether it would take more. `None` if there is no other placement.
    is_hungry: Option<bool>,
    /// How many cores it was offered, and until when the scheduler may still use them.
    offered: Vec<(Timestamp, i64)>,
    /// Whether more is in use than the quota has, since the quota was reduced. What is in use stays.
    pub is_exceeded: bool,
    /// How many creates are left, of how many, and until when. `None` if Azure reports no budget.
    creates: Option<(i64, i64, Timestamp)>,
}

impl SimRegion {
    pub fn new(rng: &mut StdRng, start: Timestamp) -> Self {
        let creates = rng.random_bool(0.3).then(|| rng.random_range(4..40));
        Self {
            epoch: (start, Instant::now()),
            shares: [QuotaShare::default(), QuotaShare::default()],
            other: 0,
            taken: 0,
            is_hungry: rng.random_bool(0.5).then_some(false),
            offered: Vec::new(),
            is_exceeded: false,
            creates: creates.map(|most| (most, most, later(start, WINDOW))),
        }
    }
}

impl Cluster {
    /// Pods of the other placement come and go, and the rest of the quota is divided again.
    pub fn share_quota(&mut self, rng: &mut StdRng) {
        let now = self.now;
        if let Some((left, most, until)) = &mut self.region.creates
            && *until <= now
        {
            (*left, *until) = (*most, later(now, WINDOW));
            self.changed();
        }
        if self.is_still {
            self.region.creates = None;
        }
        self.divide();
        let is_over = |until: Timestamp| until <= now;
        let region = &mut self.region;
        region.offered.retain(|(until, _)| !is_over(*until));
        if let Some(is_hungry) = &mut region.is_hungry
            && !self.is_still
        {
            if rng.random_bool(0.02) {
                *is_hungry = !*is_hungry;
            }
            if rng.random_bool(0.05) {
                region.other = (region.other - rng.random_range(1..4)).max(0);
            }
            let late = region.offered.iter().map(|(_, given)| *given).max();
            let most = late.unwrap_or(0).max(region.shares[1].assigned);
            if *is_hungry && rng.random_bool(0.3) {
                let more = rng.random_range(1..4).min(most - region.other).max(0);
                region.other += more;
                region.taken += more.unsigned_abs();
                if more > 0 {
                    checks::starts_all(self);
                }
            }
        }
    }

    fn divide(&mut self) {
        let has = self.load().groups.cpu_milli / MILLICORES_PER_CORE;
        let region = &mut self.region;
        let offered = region.offered.iter().map(|(_, given)| *given).max();
        let other = offered.unwrap_or(0).max(region.other);
        region.is_exceeded &= has + other > self.capacity;
        let since = self.now.duration_since(region.epoch.0);
        let now = region.epoch.1 + Duration::try_from(since).unwrap_or_default();
        let before = region.shares[0].assigned;
        let other = region.is_hungry == Some(true) && !self.is_still;
        region
            .offered
            .push((later(self.now, HANDOVER_DELAY), region.shares[1].assigned));
        let [own, theirs] = &mut region.shares;
        let wishes = vec![
            ShareRequest {
                share: own,
                used: has,
                additional: 100,
            },
            ShareRequest {
                share: theirs,
                used: region.other,
                additional: if other { HUNGRY } else { 0 },
            },
        ];
        divide(Some(self.capacity - has - region.other), wishes, now);
        if region.shares[0].assigned < before {
            self.shrunk = self.now;
        }
        if region.shares[0].assigned != before {
            self.changed();
        }
    }

    /// The quota has been reduced: earlier offers no longer count.
    pub fn cut(&mut self) {
        self.region.shares = [QuotaShare::default(), QuotaShare::default()];
        self.region.offered.clear();
        self.region.is_exceeded = true;
        self.shrunk = self.now;
    }

    /// Sends a create to Azure. Returns whether Azure takes it.
    pub fn takes_create(&mut self) -> bool {
        match &mut self.region.creates {
            None => true,
            Some((0, ..)) => false,
            Some((left, ..)) => {
                *left -= 1;
                true
            }
        }
    }

    /// Why the region takes no pods. `None` if it takes pods.
    pub fn shut(&self) -> Option<String> {
        let is_throttled = self.now < self.throttled_until || self.creates_left() == Some(0);
        is_throttled.then(|| "Azure asks to wait with creates".to_owned())
    }

    /// How many creates Azure still takes.
    pub fn creates_left(&self) -> Option<i64> {
        self.region.creates.map(|(left, ..)| left)
    }

    /// The node's `allocatable`, for the scheduler.
    pub fn offers(&self) -> ResourceAmounts {
        amounts(self.offer().allocatable)
    }

    /// The node's `capacity`, as Azure counts it.
    pub fn groups(&self) -> ResourceAmounts {
        amounts(self.offer().capacity)
    }

    /// The load of the pods on the node. For pods that have started, the create was sent.
    fn load(&self) -> NodeLoad {
        let bound = self.pods.values().map(|pod| &*pod.facts);
        let bound = bound.filter(|facts| facts.bound().is_some_and(|bound| bound.node == NODE));
        let has_started = |uid: &str| {
            let pod = self.pods.get(uid);
            let bound = pod.and_then(|pod| pod.facts.bound());
            bound.is_some_and(|bound| bound.has_started)
        };
        NodeLoad::from_pods(bound, |_| true, has_started)
    }

    fn offer(&self) -> NodeResourceStatus {
        let load = self.load();
        let given = self.region.shares[0].assigned;
        let creates = self.creates_left().map(|left| left - load.uncreated);
        let left = NodeResources {
            cpu_milli: given * MILLICORES_PER_CORE - load.groups.cpu_milli,
            memory_bytes: (given << 30) - load.groups.memory_bytes,
            pods: creates.unwrap_or(i64::MAX).min(given - load.groups.pods),
        };
        NodeResourceStatus::new(&load, left)
    }

    /// When the creates' budget is full again.
    pub fn refill(&self) -> Option<Timestamp> {
        self.region.creates.map(|(.., until)| until)
    }
}

fn amounts(room: NodeResources) -> ResourceAmounts {
    ResourceAmounts {
        cpu_milli: room.cpu_milli,
        memory: room.memory_bytes,
        storage: 0,
        pods: room.pods,
    }
}
