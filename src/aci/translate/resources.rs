//! CPU and memory of each container and of the group, in ACI's steps.
//!
//! In: the requests and limits of the pod and its containers. Out: the resources in the group's body, or refusals.
//! What Kubernetes guarantees is kept, and adapted to the rules of ACI:
//!
//! - A request is rounded up to 0.01 CPU and 0.1 GB, never down. A container without requests gets 0.1 CPU and 0.3
//!   GB: the amounts that the scheduler assumes for it (100m, 200Mi), rounded up.
//! - A pod-level request (`spec.resources`) takes precedence over the sum of the containers' requests, separately
//!   for CPU and memory. Kubernetes ensures that it is not lower than the sum. Containers without requests then get
//!   a part of what the others leave of it, and do not add to it.
//! - Memory requests are raised to the memory limit. On a cluster node, a container may exceed its memory request
//!   while the node has free memory; on ACI it would be killed at once. CPU requests are not raised: a container
//!   above its request only becomes slower, and ACI's quota and price depend mainly on CPU.
//! - A native sidecar counts as a container: the scheduler, too, adds its requests to those of the containers.
//! - The group has at least 1 CPU and 1 GB, at least the pod-level request, and at least what its largest init
//!   container requests (an init container has no resources of its own on ACI). The missing amount is added to the
//!   container with the largest request.
//! - A container's limit applies up to the size of the group. A container without a limit may use the whole group
//!   (ACI would otherwise limit it to its request).
//! - A pod that needs more than the largest group is refused.

use k8s_openapi::api::core::v1::PodSpec;

use super::body::{Amounts, Resources};
use super::refusals::Refusals;
use super::requests::{RequestedResources, requested_by_containers, requested_resources};
use super::target::TranslationTarget;
use crate::k8s::containers::is_sidecar;
use crate::k8s::quantity::NanoAmount;

/// The smallest group: 1 CPU and 1 GB (quotas page of 2025-11).
const MIN_GROUP_SIZE: GroupSize = GroupSize {
    cpu: 100,
    memory: 10,
};
/// The size of a container without requests: the scheduler's non-zero defaults of 100m and 200Mi, rounded up.
const DEFAULT_CONTAINER_SIZE: GroupSize = GroupSize { cpu: 10, memory: 3 };
/// The smallest size of a container.
const MIN_CONTAINER_SIZE: GroupSize = GroupSize { cpu: 1, memory: 1 };
/// The disk of a group: 50 GB (quotas page of 2025-11).
pub(super) const GROUP_DISK: NanoAmount = NanoAmount::whole(50_000_000_000);

/// CPU in hundredths of a core, and memory in tenths of a GB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupSize {
    pub(super) cpu: u64,
    pub(super) memory: u64,
}

impl GroupSize {
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

/// The sizes of a group and its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContainerSizes {
    /// The request and the limit of each container that lasts as long as the pod.
    containers: Vec<(GroupSize, GroupSize)>,
    /// The sum of all containers' requests.
    pub(super) total: GroupSize,
}

impl ContainerSizes {
    /// The resources of the container at `index` of those that last as long as the pod.
    pub(super) fn container_resources(&self, index: usize) -> Option<Resources> {
        let (requests, limits) = self.containers.get(index)?;
        Some(Resources {
            requests: requests.amounts(),
            limits: limits.amounts(),
        })
    }

    /// CPU (in cores) and memory (in bytes) of the whole group.
    pub(super) fn total(&self) -> (NanoAmount, NanoAmount) {
        let cpu = NanoAmount::thousandths(self.total.cpu.saturating_mul(10));
        let memory = NanoAmount::whole(self.total.memory.saturating_mul(100_000_000));
        (cpu, memory)
    }
}

/// CPU of a pod's group in millicores. It is computed even if ACI cannot run the pod.
pub fn group_cpu(spec: &PodSpec) -> i64 {
    let total = compute_sizes(spec, &mut Refusals::default()).total;
    i64::try_from(total.cpu.saturating_mul(10)).unwrap_or(i64::MAX)
}

/// The sizes of a pod's group. A group that is too large is refused.
pub(super) fn sizes(
    spec: &PodSpec,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) -> ContainerSizes {
    let sizes = compute_sizes(spec, refusals);
    check_max_size(sizes.total, placement, refusals);
    sizes
}

fn compute_sizes(spec: &PodSpec, refusals: &mut Refusals) -> ContainerSizes {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let requested = requested_by_containers(init, "spec.initContainers", refusals);
    let (sidecars, init): (Vec<_>, Vec<_>) = init
        .iter()
        .zip(requested)
        .partition(|(container, _)| is_sidecar(container));
    let init: Vec<RequestedResources> = init.into_iter().map(|(_, requested)| requested).collect();
    let mut main = requested_by_containers(&spec.containers, "spec.containers", refusals);
    main.extend(sidecars.into_iter().map(|(_, requested)| requested));
    let pod = requested_resources(spec.resources.as_ref(), "spec.resources", refusals);
    check_disk(&init, &main, refusals);

    let default = default_size(&pod, &main);
    let mut requests: Vec<GroupSize> = main
        .iter()
        .map(|requested| {
            let mut size = requested.request_or(default).max(MIN_CONTAINER_SIZE);
            if pod.memory_limit.is_none() {
                size.memory = size
                    .memory
                    .max(requested.limit_or(GroupSize::default()).memory);
            }
            size
        })
        .collect();
    let mut wanted = MIN_GROUP_SIZE.max(pod.request_or(GroupSize::default()));
    wanted.memory = wanted.memory.max(pod.limit_or(GroupSize::default()).memory);
    for requested in &init {
        wanted = wanted.max(requested.request_or(GroupSize::default()));
        wanted.memory = wanted
            .memory
            .max(requested.limit_or(GroupSize::default()).memory);
    }
    raise_total_to(&mut requests, wanted);
    let total = requests
        .iter()
        .copied()
        .fold(GroupSize::default(), GroupSize::plus);

    let max = pod.limit_or(total).min(total);
    let limits = main
        .iter()
        .map(|requested| requested.limit_or(max).min(max));
    let containers = requests.iter().zip(limits);
    let containers = containers.map(|(request, limit)| (*request, limit.max(*request)));
    ContainerSizes {
        containers: containers.collect(),
        total,
    }
}

/// The size of a container without requests. With a pod-level request, it is at most an equal part of what the
/// other containers leave.
fn default_size(pod: &RequestedResources, main: &[RequestedResources]) -> GroupSize {
    let (cpu, memory) = pod.explicit_request();
    let part = |whole: Option<u64>, of: fn(&RequestedResources) -> Option<u64>, usual: u64| {
        let Some(whole) = whole else { return usual };
        let requested: u64 = main.iter().filter_map(of).fold(0, u64::saturating_add);
        let without_request = main
            .iter()
            .filter(|container| of(container).is_none())
            .count();
        let without_request = u64::try_from(without_request.max(1)).unwrap_or(u64::MAX);
        usual.min(whole.saturating_sub(requested) / without_request)
    };
    GroupSize {
        cpu: part(
            cpu,
            |container| container.explicit_request().0,
            DEFAULT_CONTAINER_SIZE.cpu,
        ),
        memory: part(
            memory,
            |container| container.explicit_request().1,
            DEFAULT_CONTAINER_SIZE.memory,
        ),
    }
}

/// Raises the total to `wanted` by adding the missing amount to the container with the largest request; of several,
/// the first.
fn raise_total_to(requests: &mut [GroupSize], wanted: GroupSize) {
    let total = requests
        .iter()
        .copied()
        .fold(GroupSize::default(), GroupSize::plus);
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

/// Refuses a pod that exceeds the largest group. The limits are those of the quotas page of 2025-11; the FAQ says
/// 32 CPU and 256 GB, and only the smaller numbers are safe.
fn check_max_size(total: GroupSize, placement: &TranslationTarget<'_>, refusals: &mut Refusals) {
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

/// Refuses a pod that needs more ephemeral storage than the disk of a group has.
fn check_disk(init: &[RequestedResources], main: &[RequestedResources], refusals: &mut Refusals) {
    let together = main
        .iter()
        .fold(NanoAmount::default(), |sum, a| sum.plus(a.disk));
    let largest_init = init.iter().map(|a| a.disk).max().unwrap_or_default();
    refusals.require(
        together.max(largest_init) <= GROUP_DISK,
        "spec.containers",
        "together they need more ephemeral-storage than a container group's 50 GB",
    );
}

#[cfg(test)]
mod tests;
