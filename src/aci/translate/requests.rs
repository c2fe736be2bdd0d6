//! Requests and limits of a container or pod, in the steps of ACI.
//!
//! In: `ResourceRequirements`. Out: amounts in multiples of 0.01 CPU and 0.1 GB, or refusals.

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

use super::refusals::Refusals;
use super::resources::GroupSize;
use crate::k8s::quantity::NanoAmount;

/// The steps of ACI: 0.01 CPU and 0.1 GB of 10^9 bytes (from its documentation and from azure-aci).
const CPU_STEP: NanoAmount = NanoAmount::thousandths(10);
const MEMORY_STEP: NanoAmount = NanoAmount::whole(100_000_000);

/// The requests and limits of a container or a pod.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestedResources {
    cpu: Option<NanoAmount>,
    cpu_limit: Option<NanoAmount>,
    memory: Option<NanoAmount>,
    pub(super) memory_limit: Option<NanoAmount>,
    pub(super) disk: NanoAmount,
}

impl RequestedResources {
    /// The limits, in steps; `otherwise` where there is none.
    pub(super) fn limit_or(&self, otherwise: GroupSize) -> GroupSize {
        GroupSize {
            cpu: self.cpu_limit.map_or(otherwise.cpu, cpu_steps),
            memory: self.memory_limit.map_or(otherwise.memory, memory_steps),
        }
    }

    /// CPU and memory requests, in steps. A limit without a request counts as the request; `None` if there is
    /// neither.
    pub(super) fn explicit_request(&self) -> (Option<u64>, Option<u64>) {
        let cpu = self.cpu.or(self.cpu_limit).map(cpu_steps);
        (cpu, self.memory.or(self.memory_limit).map(memory_steps))
    }

    /// The requests, in steps; `otherwise` where there is none. A limit without a request counts as the request.
    pub(super) fn request_or(&self, otherwise: GroupSize) -> GroupSize {
        let (cpu, memory) = self.explicit_request();
        GroupSize {
            cpu: cpu.unwrap_or(otherwise.cpu),
            memory: memory.unwrap_or(otherwise.memory),
        }
    }
}

fn cpu_steps(amount: NanoAmount) -> u64 {
    amount.in_steps_of(CPU_STEP)
}

fn memory_steps(amount: NanoAmount) -> u64 {
    amount.in_steps_of(MEMORY_STEP)
}

/// The requests and limits of each of the containers; `at` is the field path of the list.
pub(super) fn requested_by_containers(
    containers: &[Container],
    at: &str,
    refusals: &mut Refusals,
) -> Vec<RequestedResources> {
    let containers = containers.iter().enumerate();
    containers
        .map(|(index, container)| {
            let at = format!("{at}[{index}].resources");
            requested_resources(container.resources.as_ref(), &at, refusals)
        })
        .collect()
}

/// The requests and limits in `resources`; `at` is its field path.
pub(super) fn requested_resources(
    resources: Option<&ResourceRequirements>,
    at: &str,
    refusals: &mut Refusals,
) -> RequestedResources {
    let mut requested = RequestedResources::default();
    let Some(resources) = resources else {
        return requested;
    };
    let lists = [
        ("requests", &resources.requests),
        ("limits", &resources.limits),
    ];
    for (list, amounts) in lists {
        for (name, quantity) in amounts.iter().flatten() {
            let at = format!("{at}.{list}.{name}");
            let Some(amount) = NanoAmount::from_quantity(quantity) else {
                refusals.refuse(at, format!("'{}' is not an amount", quantity.0));
                continue;
            };
            // To the kubelet, a limit of 0 means no limit. Users set it to override the default of a LimitRange.
            let limit = Some(amount).filter(|amount| !amount.is_zero());
            match (name.as_str(), list) {
                ("cpu", "requests") => requested.cpu = Some(amount),
                ("cpu", _) => requested.cpu_limit = limit,
                ("memory", "requests") => requested.memory = Some(amount),
                ("memory", _) => requested.memory_limit = limit,
                ("ephemeral-storage", "requests") => requested.disk = amount,
                ("ephemeral-storage", _) => {}
                _ => refusals.require(
                    amount.is_zero(),
                    at,
                    "ACI supports only cpu, memory and ephemeral-storage",
                ),
            }
        }
    }
    requested
}
