//! The state of the emulated Azure: container groups, operations, usages, faults.
//!
//! In: calls from `arm` and `admin`, each with the current time. Out: groups advanced to that time, and
//! the results of operations. One value behind one lock; no call waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::arm::throttle::{Throttle, ThrottleLimits};
use super::faults::FaultRules;
use super::group::id::{GroupId, GroupKey};
use super::group::lifecycle::EmulatedGroup;
use super::group::run::ContainerEvent;
use super::group::script::ContainerScript;
use super::group::stage::StageEffect;
use super::group::view;
use super::options::{EmulatorOptions, SubnetAddresses};
use super::timeline::Timeline;

/// How many finished operations the store remembers. The oldest go first.
const MAX_ENDED_OPERATIONS: usize = 10_000;

/// How a region without capacity fails creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CapacityFailure {
    /// The PUT gets 409 `ServiceUnavailable`.
    Sync,
    /// The PUT gets 201; then the operation fails with `InsufficientCapacity.`.
    Async,
}

/// A long-running operation.
#[derive(Clone, Debug)]
pub struct StoredOperation {
    /// The container group that the operation acts on.
    pub group: GroupId,
    /// When the operation started.
    pub started: Timestamp,
    /// What the operation does.
    pub kind: OperationKind,
    /// The result: whether it succeeded, and the group's events at its end. `None` while it runs.
    pub ended: Option<(bool, Vec<ContainerEvent>)>,
}

/// The kinds of long-running operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Create, update or start a group.
    Deploy,
    /// Delete a group.
    Delete,
}

/// A resource that the emulator stores exactly as it was PUT: virtual networks and subnets.
pub type StoredBody = Value;

/// The emulated Azure.
#[derive(Debug)]
pub struct GroupStore {
    /// Container groups by key.
    pub groups: BTreeMap<GroupKey, EmulatedGroup>,
    /// Operations by id.
    pub operations: HashMap<Uuid, StoredOperation>,
    /// Resource groups that a client created, by subscription and lower-case name.
    pub resource_groups: BTreeMap<(String, String), StoredBody>,
    /// Resource groups that a client deleted. All others exist.
    pub deleted_resource_groups: HashSet<(String, String)>,
    /// Networks and subnets that a client PUT or deleted (`None`), by lower-case id.
    pub networks: BTreeMap<String, Option<StoredBody>>,
    /// Request limits.
    pub limits: ThrottleLimits,
    /// How much of the request limits is used.
    pub throttle: Throttle,
    /// Usage limits by name, where they differ from the default.
    pub quotas: BTreeMap<String, u64>,
    /// Fault rules.
    pub faults: FaultRules,
    /// Regions without capacity, and how many more creates fail there (`None`: all).
    pub capacity: HashMap<String, (CapacityFailure, Option<u64>)>,
    /// Whether nothing at the addresses of groups in subnets answers, as behind a network security group.
    pub is_path_cut: bool,
    /// Role actions that the credential lacks, in lower case.
    pub withheld: BTreeSet<String>,
    /// Scripts set through the admin interface, by group and container.
    pub scripts: HashMap<(String, String), ContainerScript>,
    /// When each group was created, ran and was deleted.
    pub timeline: Timeline,
    /// Groups that GET, LIST and DELETE do not find yet, and until when
    /// ([`super::faults::Fault::Lag`]).
    pub lagging: HashMap<GroupKey, Timestamp>,
    ended: VecDeque<Uuid>,
    addresses: u32,
    /// The value before the first address in a subnet, and the number of these addresses.
    private: (u32, u32),
}

/// The usual range, 10.0.0.4 and up: Azure reserves the first addresses of a subnet and hands out .4
/// first.
const PRIVATE: (u32, u32) = (0x0a00_0003, 0x00ff_0000);
/// Loopback addresses. Each emulator starts at a random one in the upper half of 127.0.0.0/8, so that
/// emulators on the same machine rarely collide.
const LOOPBACK: std::ops::Range<u32> = 0x7f80_0000..0x7ffe_0000;
const LOOPBACK_COUNT: u32 = 0xffff;

impl GroupStore {
    /// Creates an Azure without any groups.
    pub fn new(options: &EmulatorOptions) -> Self {
        let (limits, quotas) = (options.limits, options.quotas.clone());
        let private = match options.subnet_addresses {
            SubnetAddresses::Unreachable => PRIVATE,
            SubnetAddresses::Loopback => (rand::random_range(LOOPBACK), LOOPBACK_COUNT),
            SubnetAddresses::Only(address) => (u32::from(address), 1),
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
            faults: FaultRules::default(),
            capacity: HashMap::new(),
            is_path_cut: false,
            withheld: BTreeSet::new(),
            scripts: HashMap::new(),
            timeline: Timeline::default(),
            lagging: HashMap::new(),
            ended: VecDeque::new(),
            addresses: 0,
            private,
        }
    }

    /// Advances the group to `now` and returns it.
    pub fn group(&mut self, key: &GroupKey, now: Timestamp) -> Option<&mut EmulatedGroup> {
        self.advance(key, now);
        self.groups.get_mut(key)
    }

    /// Advances one group to `now`, and removes it if it ends by then.
    pub fn advance(&mut self, key: &GroupKey, now: Timestamp) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let capacity = !self.capacity.contains_key(&group.region);
        let effects = group.advance(now, capacity);
        self.apply(key, effects);
    }

    /// Advances all groups to `now`.
    pub fn advance_all(&mut self, now: Timestamp) {
        let due = |group: &EmulatedGroup| group.next_at().is_some_and(|at| at <= now);
        let keys: Vec<GroupKey> = self
            .groups
            .iter()
            .filter(|(_, g)| due(g))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.advance(&key, now);
        }
    }

    /// Applies the effects of a group's changes to operations, timeline and groups.
    pub fn apply(&mut self, key: &GroupKey, effects: Vec<StageEffect>) {
        for effect in effects {
            let Some(group) = self.groups.get(key) else {
                return;
            };
            match effect {
                StageEffect::OperationEnded { succeeded } => {
                    let (operation, events) = (group.operation, view::all_events(group));
                    self.end_operation(operation, succeeded, events);
                }
                StageEffect::Running { at } => {
                    self.timeline
                        .update(key, |entry| entry.running = entry.running.or(Some(at)));
                }
                StageEffect::Gone { at } => {
                    let operation = group.operation;
                    self.remove(key, at);
                    self.end_operation(operation, true, Vec::new());
                }
            }
        }
    }

    /// Whether GET, LIST and DELETE do not find the group yet.
    pub fn is_lagging(&self, key: &GroupKey, now: Timestamp) -> bool {
        self.lagging.get(key).is_some_and(|until| *until > now)
    }

    /// Removes a group and records the time in the timeline.
    pub fn remove(&mut self, key: &GroupKey, at: Timestamp) -> Option<EmulatedGroup> {
        self.timeline.update(key, |entry| entry.gone = Some(at));
        self.lagging.remove(key);
        self.groups.remove(key)
    }

    /// Starts an operation and returns its id.
    pub fn begin_operation(
        &mut self,
        group: &GroupId,
        kind: OperationKind,
        now: Timestamp,
    ) -> Uuid {
        let id = Uuid::new_v4();
        let operation = StoredOperation {
            group: group.clone(),
            started: now,
            kind,
            ended: None,
        };
        self.operations.insert(id, operation);
        id
    }

    /// Ends an operation. Does nothing if it has already ended.
    pub fn end_operation(&mut self, id: Uuid, succeeded: bool, events: Vec<ContainerEvent>) {
        let Some(operation) = self.operations.get_mut(&id) else {
            return;
        };
        if operation.ended.is_some() {
            return;
        }
        operation.ended = Some((succeeded, events));
        self.ended.push_back(id);
        if self.ended.len() > MAX_ENDED_OPERATIONS
            && let Some(oldest) = self.ended.pop_front()
        {
            self.operations.remove(&oldest);
        }
    }

    /// The next address: one for a group in a subnet ([`SubnetAddresses`]), or a public one from the range for
    /// benchmarks (RFC 2544), to which no traffic is routed. Addresses repeat only after the whole
    /// range is used.
    pub fn address(&mut self, private: bool) -> Ipv4Addr {
        self.addresses = self.addresses.wrapping_add(1);
        if private {
            let (before, count) = self.private;
            Ipv4Addr::from(before + self.addresses % count)
        } else {
            Ipv4Addr::from(0xc612_0000 + self.addresses % 0x0001_fffe)
        }
    }

    /// What a subscription uses in a region, by the names of `usages`. Advance all groups first.
    pub fn usages(&self, subscription: &str, region: &str) -> BTreeMap<String, u64> {
        let mut used: BTreeMap<String, f64> = BTreeMap::new();
        let subscription = subscription.to_lowercase();
        for (key, group) in &self.groups {
            if key.subscription != subscription || group.region != region {
                continue;
            }
            for (name, amount) in super::group::quota::current_usage(group) {
                *used.entry(name).or_default() += amount;
            }
        }
        used.into_iter()
            .map(|(name, amount)| (name, whole_cores(amount)))
            .collect()
    }

    /// Whether the credential lacks the right to take this action.
    pub fn is_withheld(&self, action: &str) -> bool {
        !self.withheld.is_empty() && self.withheld.contains(&action.to_lowercase())
    }

    /// The limit of a usage: the configured one, or the service's default.
    pub fn quota(&self, name: &str) -> u64 {
        self.quotas
            .get(name)
            .copied()
            .unwrap_or_else(|| super::group::quota::default_limit(name))
    }

    /// Whether the group is still the `generation` that `operation` deployed. If not, the engine's
    /// report about it is outdated.
    pub fn is_current(&self, key: &GroupKey, generation: u64, operation: Uuid) -> bool {
        self.groups.get(key).is_some_and(|group| {
            (group.generation, group.operation) == (generation, operation) && !group.is_ending()
        })
    }
}

/// A number of cores as the service counts it: rounded up to whole cores.
pub fn whole_cores(amount: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to u64's range"
    )]
    let whole = (amount - 1e-9).ceil().clamp(0.0, 1e15) as u64;
    whole
}
