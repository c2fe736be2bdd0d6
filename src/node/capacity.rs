//! How much of ACI a placement may offer to the scheduler: never more than Azure would start.
//!
//! In: the placement's capacity, the region's usages, and what our own groups use of them. Out:
//! [`Room`]. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::aci::client::Usage;
use crate::aci::translate::quantity::Amount;
use crate::api::{Placement, Priority};

/// Local storage of a container group in bytes (ACI's documents: 50 GB).
const STORAGE: i64 = 50_000_000_000;

/// An amount of compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Pods.
    pub pods: i64,
}

impl Room {
    /// As a node's status has it; nothing if it has not all of it.
    pub fn of(amounts: &BTreeMap<String, Quantity>) -> Option<Self> {
        let milli = |name: &str| milli(amounts.get(name)?);
        Some(Self {
            cpu_milli: milli("cpu")?,
            memory_bytes: milli("memory")? / 1000,
            pods: milli("pods")? / 1000,
        })
    }

    /// Ephemeral storage of that many pods in bytes: each container group has its own.
    pub fn storage_bytes(&self) -> i64 {
        self.pods.saturating_mul(STORAGE)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    /// The lesser of both, by each measure.
    #[must_use]
    pub fn at_most(self, other: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.min(other.cpu_milli),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            pods: self.pods.min(other.pods),
        }
    }
}

/// What the placement asks to offer.
pub fn asked(placement: &Placement) -> Room {
    let capacity = &placement.capacity;
    Room {
        cpu_milli: milli(&capacity.cpu).unwrap_or_default(),
        memory_bytes: milli(&capacity.memory).unwrap_or_default() / 1000,
        pods: capacity.pods,
    }
}

/// The name of the usage that a placement's cores count for.
pub fn cores(placement: &Placement) -> &'static str {
    match placement.priority {
        Priority::Regular => "StandardCores",
        Priority::Spot => "StandardSpotCores",
    }
}

/// What the placement may offer: what it asks, or what the region's limits leave besides what others
/// use, if that is less. `ours` is what our own groups use: the scheduler counts their pods itself.
pub fn offered(placement: &Placement, usages: &[Usage], ours: Room) -> Room {
    let cores = cores(placement);
    let free = |name: &str, ours: i64| {
        let usage = usages.iter().find(|usage| usage.is_of(name))?;
        let others = usage.used.saturating_sub(ours);
        Some(usage.limit.saturating_sub(others).max(0))
    };
    let own_cores = ours.cpu_milli.saturating_add(999) / 1000;
    let limit = Room {
        cpu_milli: free(cores, own_cores).map_or(i64::MAX, |cores| cores.saturating_mul(1000)),
        memory_bytes: i64::MAX,
        pods: free("ContainerGroups", ours.pods).unwrap_or(i64::MAX),
    };
    asked(placement).at_most(limit)
}

/// A quantity in thousandths, rounded up; nothing if it is none, or negative.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    let milli = Amount::of(quantity)?.in_steps_of(Amount::thousandths(1));
    Some(i64::try_from(milli).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Capacity;

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

    fn usage(name: &str, used: i64, limit: i64) -> Usage {
        Usage {
            name: name.to_owned(),
            used,
            limit,
        }
    }

    #[test]
    fn what_the_region_leaves_bounds_what_is_offered_and_our_own_use_is_not_counted_twice() {
        let usages = [
            usage("StandardCores", 30, 50),
            usage("ContainerGroups", 90, 100),
        ];
        let none = offered(&placement("100", "8Gi", 100), &usages, Room::default());
        assert_eq!((none.cpu_milli, none.pods), (20_000, 10));
        let ours = Room {
            cpu_milli: 9_500,
            memory_bytes: 0,
            pods: 5,
        };
        let with_ours = offered(&placement("100", "8Gi", 100), &usages, ours);
        assert_eq!((with_ours.cpu_milli, with_ours.pods), (30_000, 15));
        let asked_less = offered(&placement("4", "8Gi", 2), &usages, Room::default());
        assert_eq!((asked_less.cpu_milli, asked_less.pods), (4_000, 2));
        let over = offered(
            &placement("4", "8Gi", 2),
            &[usage("StandardCores", 60, 50)],
            ours,
        );
        assert_eq!(
            over.cpu_milli, 0,
            "a limit that was lowered below what is used leaves nothing"
        );
    }

    #[test]
    fn numbers_that_cannot_be_are_no_reason_to_fall_over() {
        let ours = Room {
            cpu_milli: i64::MAX,
            memory_bytes: i64::MAX,
            pods: i64::MAX,
        };
        let usages = [
            usage("standardcores", i64::MIN, i64::MAX),
            usage("ContainerGroups", i64::MAX, i64::MIN),
        ];
        let asked = placement("100", "8Gi", 100);
        let offered = offered(&asked, &usages, ours);
        assert_eq!((offered.cpu_milli, offered.pods), (100_000, 0));
    }

    #[test]
    fn spot_has_a_limit_of_its_own() {
        let mut spot = placement("100", "8Gi", 100);
        spot.priority = Priority::Spot;
        let usages = [
            usage("StandardCores", 0, 100),
            usage("StandardSpotCores", 8, 10),
        ];
        assert_eq!(offered(&spot, &usages, Room::default()).cpu_milli, 2_000);
    }
}
