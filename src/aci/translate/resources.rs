//! CPU and memory in ACI's steps: of each container and of the group.
//!
//! What Kubernetes promises is kept, and ACI's shape is filled up around it:
//!
//! - A request is rounded up to 0.01 CPU and 0.1 GB, never down. A container that asks for nothing
//!   gets 0.1 CPU and 0.3 GB, what the scheduler counts for it (100m, 200Mi).
//! - What the pod asks for as a whole (`spec.resources`) goes before what its containers ask for
//!   together, for CPU and for memory each: Kubernetes lets it be no less than that sum, and containers
//!   that ask for nothing share what the others leave of it instead of adding to it.
//! - Memory is requested up to its limit: at home a container may grow beyond its request while the
//!   node has room, here it would be killed at once. CPU is not: it would only be slower, and CPU is
//!   what ACI's quota and price are about.
//! - The group has at least 1 CPU and 1 GB, what the pod asks for as a whole, and what its largest
//!   init container asks for (it has no resources of its own on ACI). What is missing for that is
//!   added to the container that asks for most.
//! - A container may use up to its limit, but not more than the group has; without a limit all that
//!   the group has (ACI would hold it to its request).
//! - A pod that asks for more than the largest group is refused.

use k8s_openapi::api::core::v1::PodSpec;

use super::asked::{Asked, asked, asked_by};
use super::body::{Amounts, Resources};
use super::placement::Placement;
use super::quantity::Amount;
use super::refusals::Refusals;

/// The smallest group (quotas page 2025-11): 1 CPU and 1 GB.
const LEAST: Size = Size {
    cpu: 100,
    memory: 10,
};
/// What a container without requests gets: the scheduler's non-zero defaults, 100m and 200Mi.
const DEFAULT: Size = Size { cpu: 10, memory: 3 };
/// The least that a container has.
const STEP: Size = Size { cpu: 1, memory: 1 };
/// A group's disk (quotas page 2025-11): 50 GB.
pub(super) const DISK: Amount = Amount::whole(50_000_000_000);

/// CPU in hundredths, memory in tenths of a GB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cpu: u64,
    pub(super) memory: u64,
}

impl Size {
    fn amounts(self) -> Amounts {
        let number = |steps: u64| f64::from(u32::try_from(steps).unwrap_or(u32::MAX));
        Amounts {
            cpu: number(self.cpu) / 100.0,
            memory_in_gb: number(self.memory) / 10.0,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
        }
    }

    fn min(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.min(other.cpu),
            memory: self.memory.min(other.memory),
        }
    }
}

/// The sizes of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Request and limit of each container.
    containers: Vec<(Size, Size)>,
    /// What all containers request together.
    pub(super) total: Size,
}

impl Sizes {
    /// The resources of the container at `index`.
    pub(super) fn of(&self, index: usize) -> Option<Resources> {
        let (requests, limits) = self.containers.get(index)?;
        Some(Resources {
            requests: requests.amounts(),
            limits: limits.amounts(),
        })
    }

    /// CPU and bytes of the whole group.
    pub(super) fn total(&self) -> (Amount, Amount) {
        let cpu = Amount::thousandths(self.total.cpu.saturating_mul(10));
        let memory = Amount::whole(self.total.memory.saturating_mul(100_000_000));
        (cpu, memory)
    }
}

/// CPU of a pod's group in thousandths of a core, whatever of the pod ACI refuses.
pub fn group_cpu(spec: &PodSpec) -> i64 {
    let total = measured(spec, &mut Refusals::default()).total;
    i64::try_from(total.cpu.saturating_mul(10)).unwrap_or(i64::MAX)
}

/// The sizes of a pod's group.
pub(super) fn sizes(spec: &PodSpec, placement: &Placement<'_>, refusals: &mut Refusals) -> Sizes {
    let sizes = measured(spec, refusals);
    largest(sizes.total, placement, refusals);
    sizes
}

fn measured(spec: &PodSpec, refusals: &mut Refusals) -> Sizes {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let init = asked_by(init, "spec.initContainers", refusals);
    let proper = asked_by(&spec.containers, "spec.containers", refusals);
    let pod = asked(spec.resources.as_ref(), "spec.resources", refusals);
    disk(&init, &proper, refusals);

    let default = default(&pod, &proper);
    let mut requests: Vec<Size> = proper
        .iter()
        .map(|asked| {
            let mut size = asked.request(default).max(STEP);
            if pod.memory_limit.is_none() {
                size.memory = size.memory.max(asked.limit(Size::default()).memory);
            }
            size
        })
        .collect();
    let mut wanted = LEAST.max(pod.request(Size::default()));
    wanted.memory = wanted.memory.max(pod.limit(Size::default()).memory);
    for asked in &init {
        wanted = wanted.max(asked.request(Size::default()));
        wanted.memory = wanted.memory.max(asked.limit(Size::default()).memory);
    }
    fill_up(&mut requests, wanted);
    let total = requests.iter().copied().fold(Size::default(), Size::plus);

    let most = pod.limit(total).min(total);
    let limits = proper.iter().map(|asked| asked.limit(most).min(most));
    let containers = requests.iter().zip(limits);
    let containers = containers.map(|(request, limit)| (*request, limit.max(*request)));
    Sizes {
        containers: containers.collect(),
        total,
    }
}

/// What a container gets that asks for nothing: of what the pod asks for as a whole, no more than its
/// part of what the others leave.
fn default(pod: &Asked, proper: &[Asked]) -> Size {
    let (cpu, memory) = pod.given();
    let part = |whole: Option<u64>, of: fn(&Asked) -> Option<u64>, usual: u64| {
        let Some(whole) = whole else { return usual };
        let asked: u64 = proper.iter().filter_map(of).fold(0, u64::saturating_add);
        let silent = proper.iter().filter(|asked| of(asked).is_none()).count();
        let silent = u64::try_from(silent.max(1)).unwrap_or(u64::MAX);
        usual.min(whole.saturating_sub(asked) / silent)
    };
    Size {
        cpu: part(cpu, |asked| asked.given().0, DEFAULT.cpu),
        memory: part(memory, |asked| asked.given().1, DEFAULT.memory),
    }
}

/// Adds what is missing to `wanted` to those who request most, the first of equals.
fn fill_up(requests: &mut [Size], wanted: Size) {
    let total = requests.iter().copied().fold(Size::default(), Size::plus);
    let by_cpu = requests
        .iter()
        .enumerate()
        .rev()
        .max_by_key(|(_, size)| size.cpu);
    let by_memory = requests
        .iter()
        .enumerate()
        .rev()
        .max_by_key(|(_, size)| size.memory);
    if let (Some((by_cpu, _)), Some((by_memory, _))) = (by_cpu, by_memory) {
        requests[by_cpu].cpu += wanted.cpu.saturating_sub(total.cpu);
        requests[by_memory].memory += wanted.memory.saturating_sub(total.memory);
    }
}

/// Refuses what is more than the largest group (quotas page 2025-11; its FAQ says 32 CPU and 256 GB,
/// and the smaller is what can be relied on).
fn largest(total: Size, placement: &Placement<'_>, refusals: &mut Refusals) {
    let (kind, cpu, memory) = if placement.is_spot() {
        ("Spot", 4, 16)
    } else if placement.is_confidential() {
        ("Confidential", 31, 180)
    } else {
        ("Standard", 31, 240)
    };
    if total.cpu > cpu * 100 || total.memory > memory * 10 {
        let amounts = total.amounts();
        let why = format!(
            "together they need {} CPU and {} GB with their memory limits, and a {kind} container \
             group has {cpu} CPU and {memory} GB at most",
            amounts.cpu, amounts.memory_in_gb
        );
        refusals.refuse("spec.containers", why);
    }
}

/// Refuses a pod that needs a larger disk than a group's.
fn disk(init: &[Asked], proper: &[Asked], refusals: &mut Refusals) {
    let together = proper
        .iter()
        .fold(Amount::default(), |sum, a| sum.plus(a.disk));
    let most = init.iter().map(|a| a.disk).max().unwrap_or_default();
    refusals.require(
        together.max(most) <= DISK,
        "spec.containers",
        "together they need more ephemeral-storage than a container group's 50 GB",
    );
}

#[cfg(test)]
mod tests;
