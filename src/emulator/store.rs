//! What there is in the emulated Azure: container groups, operations, usages, faults.
//!
//! In: calls of `arm` and `admin`, each with the time. Out: groups brought up to that time, and
//! what became of operations. One value behind one lock; no call waits for anything.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::arm::throttle::{Limits, Throttle};
use super::faults::Faults;
use super::group::id::{GroupId, GroupKey};
use super::group::life::Group;
use super::group::run::Event;
use super::group::script::Script;
use super::group::stage::Effect;
use super::group::view;
use super::options::Options;
use super::timeline::Timeline;

/// How many ended operations are remembered.
const OPERATIONS_KEPT: usize = 10_000;

/// How a region lacks capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CapacityFailure {
    /// The PUT is answered 409 `ServiceUnavailable`.
    Sync,
    /// The PUT is answered 201; the operation fails with `InsufficientCapacity.`.
    Async,
}

/// A long-running operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The group it is about.
    pub group: GroupId,
    /// When it began.
    pub started: Timestamp,
    /// What it does.
    pub kind: OperationKind,
    /// How it ended: whether well, and the events at its end.
    pub ended: Option<(bool, Vec<Event>)>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// It creates, updates or starts a group.
    Deploy,
    /// It deletes one.
    Delete,
}

/// A resource that the emulator only keeps: virtual networks and subnets as they were PUT.
pub type Kept = Value;

/// The emulated Azure.
#[derive(Debug)]
pub struct Store {
    /// Container groups by their key.
    pub groups: BTreeMap<GroupKey, Group>,
    /// Operations by their id.
    pub operations: HashMap<Uuid, Operation>,
    /// Resource groups that were made, by subscription and name in lower case.
    pub resource_groups: BTreeMap<(String, String), Kept>,
    /// Resource groups that were deleted: every other one exists.
    pub deleted_resource_groups: HashSet<(String, String)>,
    /// Networks and subnets that were PUT or deleted (`None`), by id in lower case.
    pub networks: BTreeMap<String, Option<Kept>>,
    /// Limits of requests.
    pub limits: Limits,
    /// What has been used of them.
    pub throttle: Throttle,
    /// Limits of usages by name.
    pub quotas: BTreeMap<String, u64>,
    /// Faults on demand.
    pub faults: Faults,
    /// Regions without capacity, and for how many more creates (all if not given).
    pub capacity: HashMap<String, (CapacityFailure, Option<u64>)>,
    /// Actions of roles that the credential lacks, in lower case.
    pub withheld: BTreeSet<String>,
    /// Scripts set by the admin interface, by group and container.
    pub scripts: HashMap<(String, String), Script>,
    /// Times of groups.
    pub timeline: Timeline,
    /// Groups that GET, LIST and DELETE do not know yet, and until when.
    pub lagging: HashMap<GroupKey, Timestamp>,
    ended: VecDeque<Uuid>,
    addresses: u32,
    /// Before the first of the private addresses, and how many there are.
    private: (u32, u32),
}

/// 10.0.0.4 is the first that Azure hands out of its usual network.
const PRIVATE: (u32, u32) = (0x0a00_0003, 0x00ff_0000);
/// The loopback addresses of an emulator, beginning anywhere in the upper half of 127.0.0.0/8: others on
/// this machine begin elsewhere.
const LOOPBACK: std::ops::Range<u32> = 0x7f80_0000..0x7ffe_0000;
const LOOPBACK_COUNT: u32 = 0xffff;

impl Store {
    /// An Azure with nothing in it.
    pub fn new(options: &Options) -> Self {
        let (limits, quotas) = (options.limits, options.quotas.clone());
        let private = if options.loopback_subnets {
            (rand::random_range(LOOPBACK), LOOPBACK_COUNT)
        } else {
            PRIVATE
        };
        Self {
            groups: BTreeMap::new(),
            operations: HashMap::new(),
            resource_groups: BTreeMap::new(),
            deleted_resource_groups: HashSet::new(),
            networks: BTreeMap::new(),
            limits,
            throttle: Throttle::default(),
            quotas,
            faults: Faults::default(),
            capacity: HashMap::new(),
            withheld: BTreeSet::new(),
            scripts: HashMap::new(),
            timeline: Timeline::default(),
            lagging: HashMap::new(),
            ended: VecDeque::new(),
            addresses: 0,
            private,
        }
    }

    /// The group, brought to `now`.
    pub fn group(&mut self, key: &GroupKey, now: Timestamp) -> Option<&mut Group> {
        self.settle(key, now);
        self.groups.get_mut(key)
    }

    /// Brings one group to `now`; takes it away if it is gone by then.
    pub fn settle(&mut self, key: &GroupKey, now: Timestamp) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let capacity = !self.capacity.contains_key(&group.region);
        let effects = group.advance(now, capacity);
        self.apply(key, effects);
    }

    /// Brings all groups to `now`.
    pub fn settle_all(&mut self, now: Timestamp) {
        let due = |group: &Group| group.next_at().is_some_and(|at| at <= now);
        let keys: Vec<GroupKey> = self
            .groups
            .iter()
            .filter(|(_, g)| due(g))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.settle(&key, now);
        }
    }

    /// Carries out what a group's change means for everything else.
    pub fn apply(&mut self, key: &GroupKey, effects: Vec<Effect>) {
        for effect in effects {
            let Some(group) = self.groups.get(key) else {
                return;
            };
            match effect {
                Effect::OperationEnded { succeeded } => {
                    let (operation, events) = (group.operation, view::all_events(group));
                    self.end_operation(operation, succeeded, events);
                }
                Effect::Running { at } => {
                    self.timeline
                        .note(key, |entry| entry.running = entry.running.or(Some(at)));
                }
                Effect::Gone { at } => {
                    let operation = group.operation;
                    self.remove(key, at);
                    self.end_operation(operation, true, Vec::new());
                }
            }
        }
    }

    /// Whether GET, LIST and DELETE do not know the group yet.
    pub fn lags(&self, key: &GroupKey, now: Timestamp) -> bool {
        self.lagging.get(key).is_some_and(|until| *until > now)
    }

    /// Takes a group away.
    pub fn remove(&mut self, key: &GroupKey, at: Timestamp) -> Option<Group> {
        self.timeline.note(key, |entry| entry.gone = Some(at));
        self.lagging.remove(key);
        self.groups.remove(key)
    }

    /// Begins an operation.
    pub fn begin(&mut self, group: &GroupId, kind: OperationKind, now: Timestamp) -> Uuid {
        let id = Uuid::new_v4();
        let operation = Operation {
            group: group.clone(),
            started: now,
            kind,
            ended: None,
        };
        self.operations.insert(id, operation);
        id
    }

    /// Ends an operation.
    pub fn end_operation(&mut self, id: Uuid, succeeded: bool, events: Vec<Event>) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        if operation.ended.is_some() {
            return;
        }
        operation.ended = Some((succeeded, events));
        self.ended.push_back(id);
        if self.ended.len() > OPERATIONS_KEPT
            && let Some(oldest) = self.ended.pop_front()
        {
            self.operations.remove(&oldest);
        }
    }

    /// An address that no other group was given lately: private ones from 10.0.0.4 or of loopback, public
    /// ones from the range that is set aside for benchmarks (RFC 2544), which leads nowhere.
    pub fn address(&mut self, private: bool) -> Ipv4Addr {
        self.addresses = self.addresses.wrapping_add(1);
        if private {
            let (before, count) = self.private;
            Ipv4Addr::from(before + self.addresses % count)
        } else {
            Ipv4Addr::from(0xc612_0000 + self.addresses % 0x0001_fffe)
        }
    }

    /// What a subscription uses in a region, by the names of `usages`. Groups must be settled.
    pub fn usages(&self, subscription: &str, region: &str) -> BTreeMap<String, u64> {
        let mut used: BTreeMap<String, f64> = BTreeMap::new();
        let subscription = subscription.to_lowercase();
        for (key, group) in &self.groups {
            if key.subscription != subscription || group.region != region {
                continue;
            }
            for (name, amount) in super::group::quota::uses(group) {
                *used.entry(name).or_default() += amount;
            }
        }
        used.into_iter()
            .map(|(name, amount)| (name, whole(amount)))
            .collect()
    }

    /// Whether the credential lacks the right to take this action.
    pub fn lacks(&self, action: &str) -> bool {
        !self.withheld.is_empty() && self.withheld.contains(&action.to_lowercase())
    }

    /// The limit of a usage.
    pub fn quota(&self, name: &str) -> u64 {
        self.quotas
            .get(name)
            .copied()
            .unwrap_or_else(|| super::group::quota::default_limit(name))
    }

    /// Whether a group is still what `operation` deployed as its `generation`, so that an engine's
    /// report about it counts.
    pub fn is_current(&self, key: &GroupKey, generation: u64, operation: Uuid) -> bool {
        self.groups.get(key).is_some_and(|group| {
            (group.generation, group.operation) == (generation, operation) && !group.is_ending()
        })
    }
}

/// A number of cores as the service counts them: whole ones, rounded up.
pub fn whole(amount: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to u64's range"
    )]
    let whole = (amount - 1e-9).ceil().clamp(0.0, 1e15) as u64;
    whole
}
