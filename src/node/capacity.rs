//! How much of ACI a placement may offer to the scheduler: never more than Azure would start.
//!
//! In: the placement's capacity, the region's usages, and the pods of its node. Out: their [`NodeLoad`], and the
//! node's [`NodeResourceStatus`]. Pure.
//!
//! The scheduler counts what pods request; ACI counts container groups in whole cores, at least one each. The
//! node's allocatable is in requests but bounded by ACI's count: as a pod takes at least one core, the node offers
//! at most as many pods as there are cores left, and once a pod is bound, the offer shrinks by what its group takes
//! beyond the pod's request.
//!
//! Azure's usage is a snapshot. It includes the groups that were known before the request was sent; all
//! other groups are added to it until the next request. A group that has gone since still counts, so the offer
//! never exceeds the limit, and catches up with the next answer.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::aci::client::QuotaUsage;
use crate::api::{Placement, Priority};
use crate::burst::PodFacts;
use crate::burst::facts::pod::PodStage;
use crate::burst::facts::resource_amounts::ResourceAmounts;
use crate::k8s::quantity::NanoAmount;

/// A core in thousandths.
pub const MILLICORES_PER_CORE: i64 = 1000;

/// Local storage of a container group in bytes (ACI's documents: 50 GB).
const EPHEMERAL_STORAGE_BYTES: i64 = 50_000_000_000;

/// An amount of compute; negative if more is used than there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeResources {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Number of pods.
    pub pods: i64,
}

impl NodeResources {
    /// Reads the amounts of a node's status; `None` if CPU, memory or pods is missing.
    pub fn from_quantities(amounts: &BTreeMap<String, Quantity>) -> Option<Self> {
        let milli = |name: &str| quantity_milli(amounts.get(name)?);
        Some(Self {
            cpu_milli: milli("cpu")?,
            memory_bytes: milli("memory")? / 1000,
            pods: milli("pods")? / 1000,
        })
    }

    /// The amounts of one pod: what it requests, or what its container group takes.
    fn from_amounts(amounts: ResourceAmounts) -> Self {
        Self {
            cpu_milli: amounts.cpu_milli,
            memory_bytes: amounts.memory,
            pods: amounts.pods,
        }
    }

    /// The difference, which may be negative.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    /// Ephemeral storage of that many pods in bytes: each container group has its own.
    pub fn storage_bytes(&self) -> i64 {
        self.pods.saturating_mul(EPHEMERAL_STORAGE_BYTES)
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    /// The smaller value of each amount.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.min(other.cpu_milli),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            pods: self.pods.min(other.pods),
        }
    }
}

/// The capacity of the placement's spec.
pub fn placement_capacity(placement: &Placement) -> NodeResources {
    let capacity = &placement.capacity;
    NodeResources {
        cpu_milli: quantity_milli(&capacity.cpu).unwrap_or_default(),
        memory_bytes: quantity_milli(&capacity.memory).unwrap_or_default() / 1000,
        pods: capacity.pods,
    }
}

/// The name of the usage that a placement's cores count for.
pub fn core_quota_name(placement: &Placement) -> &'static str {
    match placement.priority {
        Priority::Regular => "StandardCores",
        Priority::Spot => "StandardSpotCores",
    }
}

/// What is left of a limit of the region; `None` if Azure does not report it.
pub fn remaining_quota(name: &str, usages: &[QuotaUsage]) -> Option<i64> {
    let usage = usages.iter().find(|usage| usage.is_named(name))?;
    Some(usage.limit.saturating_sub(usage.used.max(0)).max(0))
}

/// What the unfinished pods of a placement's node take, counted in three ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// What they request, as the scheduler counts it.
    pub requests: NodeResources,
    /// What ACI counts for their container groups.
    pub groups: NodeResources,
    /// The part of `groups` that the region's usages did not include yet.
    pub uncounted: NodeResources,
    /// How many of them have no container group yet.
    pub uncreated: i64,
}

impl NodeLoad {
    /// The load of `pods`. `is_counted` says whether the group of the pod with this UID existed before the usages
    /// were read; `is_created`, whether it exists now.
    pub fn from_pods<'a>(
        pods: impl IntoIterator<Item = &'a PodFacts>,
        is_counted: impl Fn(&str) -> bool,
        is_created: impl Fn(&str) -> bool,
    ) -> Self {
        let mut load = Self::default();
        for pod in pods
            .into_iter()
            .filter(|pod| pod.stage != PodStage::Finished)
        {
            let (uid, group) = (
                pod.id.uid.as_str(),
                NodeResources::from_amounts(pod.node_usage()),
            );
            load.requests = load
                .requests
                .plus(NodeResources::from_amounts(pod.requests));
            load.groups = load.groups.plus(group);
            if pod.has_group() && !is_counted(uid) {
                load.uncounted = load.uncounted.plus(group);
            }
            load.uncreated += i64::from(pod.has_group() && !is_created(uid));
        }
        load
    }
}

/// What a placement's node offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeResourceStatus {
    /// In requests, as the scheduler counts: the node's allocatable.
    pub allocatable: NodeResources,
    /// In container groups, as ACI counts: the node's capacity.
    pub capacity: NodeResources,
}

impl NodeResourceStatus {
    /// The offer of a node with this load, with `left` still available as ACI counts. The pods are bounded by the
    /// cores, since a pod takes at least one.
    pub fn new(load: &NodeLoad, left: NodeResources) -> Self {
        let pods = left.pods.min(left.cpu_milli / MILLICORES_PER_CORE).max(0);
        let left = NodeResources {
            cpu_milli: left.cpu_milli.max(0),
            memory_bytes: left.memory_bytes.max(0),
            pods,
        };
        Self {
            allocatable: load.requests.plus(left),
            capacity: load.groups.plus(left),
        }
    }
}

/// A quantity in thousandths, rounded up; `None` if it is invalid or negative.
pub fn quantity_milli(quantity: &Quantity) -> Option<i64> {
    let milli = NanoAmount::from_quantity(quantity)?.in_steps_of(NanoAmount::thousandths(1));
    Some(i64::try_from(milli).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Capacity;
    use crate::burst::facts::pod::OwnerKind;
    use crate::burst::fixtures;

    fn placement(cpu: &str, memory: &str, pods: i64) -> Placement {
        let capacity = Capacity {
            cpu: Quantity(cpu.to_owned()),
            memory: Quantity(memory.to_owned()),
            pods,
        };
        Placement {
            capacity,
            ..Placement::default()
        }
    }

    fn usage(name: &str, used: i64, limit: i64) -> QuotaUsage {
        QuotaUsage {
            name: name.to_owned(),
            used,
            limit,
        }
    }

    /// A pod that requests `cpu` thousandths of a core; its group takes whole cores.
    fn pod(name: &str, cpu: i64) -> PodFacts {
        let mut pod = fixtures::pod(name).on("burst-shop-weu");
        pod.requests.cpu_milli = cpu;
        pod.group_requests.cpu_milli = (cpu + 999) / 1000 * 1000;
        pod
    }

    fn load(pods: &[PodFacts], counted: &[&str]) -> NodeLoad {
        let is_counted = |uid: &str| counted.iter().any(|name| uid == format!("uid-{name}"));
        NodeLoad::from_pods(pods, is_counted, is_counted)
    }

    #[test]
    fn what_remains_of_a_limit_is_never_negative() {
        for (used, limit, left) in [
            (30, 50, 20),
            (60, 50, 0),
            (-5, 50, 50),
            (i64::MIN, i64::MAX, i64::MAX),
            (i64::MAX, i64::MIN, 0),
        ] {
            let usages = [usage("standardcores", used, limit)];
            assert_eq!(remaining_quota("StandardCores", &usages), Some(left));
        }
        assert_eq!(remaining_quota("ContainerGroups", &[]), None);
        let mut spot = placement("100", "8Gi", 100);
        assert_eq!(core_quota_name(&spot), "StandardCores");
        spot.priority = Priority::Spot;
        assert_eq!(core_quota_name(&spot), "StandardSpotCores");
    }

    #[test]
    fn small_pods_are_offered_no_more_than_the_whole_cores_of_their_groups() {
        let left = NodeResources {
            cpu_milli: 5000,
            memory_bytes: 1 << 40,
            pods: 100,
        };
        let empty = NodeResourceStatus::new(&NodeLoad::default(), left);
        assert_eq!(
            (empty.allocatable.cpu_milli, empty.allocatable.pods),
            (5000, 5)
        );
        // Two pods are bound: ACI has three cores left, and the scheduler may place three more pods.
        let two = load(&[pod("a", 250), pod("b", 250)], &[]);
        assert_eq!((two.uncounted.cpu_milli, two.uncreated), (2000, 2));
        let after = NodeResourceStatus::new(&two, left.minus(two.uncounted));
        assert_eq!(
            (after.allocatable.cpu_milli, after.allocatable.pods),
            (3500, 5)
        );
        assert_eq!((after.capacity.cpu_milli, after.capacity.pods), (5000, 5));
    }

    #[test]
    fn pods_without_groups_take_no_quota_and_counted_groups_are_not_counted_again() {
        let mut refused = pod("refused", 250);
        if let PodStage::Bound(bound) = &mut refused.stage {
            bound.refusal = Some("no such sku".to_owned());
        }
        let mut daemon = pod("daemon", 100);
        if let Some(owner) = &mut daemon.owner {
            owner.kind = OwnerKind::DaemonSet;
        }
        let mut finished = pod("finished", 4000);
        finished.stage = PodStage::Finished;
        let pods = [refused, daemon, finished, pod("old", 1500), pod("new", 500)];
        let load = load(&pods, &["old"]);
        assert_eq!(load.requests.cpu_milli, 250 + 100 + 1500 + 500);
        assert_eq!(load.groups.cpu_milli, 250 + 100 + 2000 + 1000);
        assert_eq!((load.uncounted.cpu_milli, load.uncounted.pods), (1000, 1));
        assert_eq!(load.uncreated, 1);
    }

    #[test]
    fn a_node_over_its_limit_offers_only_what_its_pods_use() {
        let load = load(&[pod("a", 1000)], &[]);
        let over = NodeResources {
            cpu_milli: -3000,
            memory_bytes: -1,
            pods: -7,
        };
        let offer = NodeResourceStatus::new(&load, over);
        assert_eq!(offer.allocatable, load.requests);
        assert_eq!(offer.capacity, load.groups);
    }
}
