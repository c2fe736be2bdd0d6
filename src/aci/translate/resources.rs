//! CPU and memory in ACI's steps: of each container and of the group.
//!
//! What Kubernetes promises is kept, and ACI's shape is filled up around it:
//!
//! - A request is rounded up to 0.01 CPU and 0.1 GB, never down. A container that asks for nothing
//!   gets 0.1 CPU and 0.3 GB, what the scheduler counts for it (100m, 200Mi).
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

/// The sizes of a pod's group.
pub(super) fn sizes(spec: &PodSpec, placement: &Placement<'_>, refusals: &mut Refusals) -> Sizes {
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let init = asked_by(init, "spec.initContainers", refusals);
    let proper = asked_by(&spec.containers, "spec.containers", refusals);
    let pod = asked(spec.resources.as_ref(), "spec.resources", refusals);
    disk(&init, &proper, refusals);

    let mut requests: Vec<Size> = proper
        .iter()
        .map(|asked| {
            let mut size = asked.request(DEFAULT).max(Size { cpu: 1, memory: 1 });
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
    largest(total, placement, refusals);

    let most = pod.limit(total).min(total);
    let limits = proper.iter().map(|asked| asked.limit(most).min(most));
    let containers = requests.iter().zip(limits);
    let containers = containers.map(|(request, limit)| (*request, limit.max(*request)));
    Sizes {
        containers: containers.collect(),
        total,
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
mod tests {
    use serde_json::{Value, json};

    use super::super::refusals::Unsupported;
    use super::*;
    use crate::api::{self, Priority};

    fn of(spec: &Value, spot: bool) -> Result<Sizes, Vec<Unsupported>> {
        let spec: PodSpec = serde_json::from_value(spec.clone()).expect("a pod");
        let mut place = api::Placement::default();
        if spot {
            place.priority = Priority::Spot;
        }
        let placement = Placement {
            spec: &place,
            tags: &std::collections::BTreeMap::new(),
            node: "n",
            node_address: None,
        };
        let mut refusals = Refusals::default();
        let sizes = sizes(&spec, &placement, &mut refusals);
        refusals.or(sizes)
    }

    /// `(requests, limits)` of each container, as `cpu/GB`.
    fn shown(containers: &Value) -> Vec<String> {
        let spec = json!({"containers": containers});
        let sizes = of(&spec, false).expect("sizes");
        let count = sizes.containers.len();
        let each = (0..count).filter_map(|index| sizes.of(index));
        each.map(|r| {
            let (a, b) = (r.requests, r.limits);
            format!("{}/{} {}/{}", a.cpu, a.memory_in_gb, b.cpu, b.memory_in_gb)
        })
        .collect()
    }

    fn container(requests: &Value, limits: &Value) -> Value {
        json!({"name": "a", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn sizes_are_rounded_up_and_filled_up() {
        let none = json!({});
        let cases = [
            // Nothing asked: the smallest group, all of it to use.
            (json!([container(&none, &none)]), vec!["1/1 1/1"]),
            (
                json!([container(
                    &json!({"cpu": "1981m", "memory": "3.41G"}),
                    &none
                )]),
                vec!["1.99/3.5 1.99/3.5"],
            ),
            (
                json!([container(&json!({"cpu": "2", "memory": "1Gi"}), &none)]),
                vec!["2/1.1 2/1.1"],
            ),
            // Memory up to its limit; CPU not: its limit is what the group has.
            (
                json!([container(
                    &json!({"cpu": "1", "memory": "1G"}),
                    &json!({"cpu": "4", "memory": "2Gi"})
                )]),
                vec!["1/2.2 1/2.2"],
            ),
            // A limit alone is a request.
            (
                json!([container(&none, &json!({"cpu": "1500m", "memory": "2G"}))]),
                vec!["1.5/2 1.5/2"],
            ),
            // A side car asks for little, and may use what the group has.
            (
                json!([
                    container(&none, &none),
                    container(&json!({"cpu": "2", "memory": "4G"}), &none)
                ]),
                vec!["0.1/0.3 2.1/4.3", "2/4 2.1/4.3"],
            ),
            (
                json!([
                    container(&json!({"cpu": "250m"}), &json!({"cpu": "300m"})),
                    container(&json!({"cpu": "250m"}), &none)
                ]),
                vec!["0.75/0.7 0.75/1", "0.25/0.3 1/1"],
            ),
            // A limit below what was filled up follows it.
            (
                json!([container(
                    &json!({"cpu": "0", "memory": "1"}),
                    &json!({"cpu": "0.5"})
                )]),
                vec!["1/1 1/1"],
            ),
        ];
        for (containers, expected) in cases {
            assert_eq!(shown(&containers), expected, "{containers}");
        }
    }

    #[test]
    fn a_group_is_as_large_as_its_init_containers_and_its_pod_ask() {
        let init = container(
            &json!({"cpu": "3", "memory": "1G"}),
            &json!({"memory": "5G"}),
        );
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [init]});
        assert_eq!(
            of(&spec, false).expect("sizes").total,
            Size {
                cpu: 300,
                memory: 50
            }
        );
        let spec = json!({
            "containers": [container(&json!({"memory": "1G"}), &json!({"memory": "9G"})), {"name": "b"}],
            "resources": {"requests": {"cpu": "2", "memory": "2G"}, "limits": {"cpu": "3", "memory": "4G"}},
        });
        let sizes = of(&spec, false).expect("sizes");
        assert_eq!(
            sizes.total,
            Size {
                cpu: 200,
                memory: 40
            }
        );
        assert_eq!(
            sizes.containers[1].1,
            Size {
                cpu: 200,
                memory: 40
            }
        );
    }

    #[test]
    fn what_no_group_holds_is_refused() {
        let asks = |requests: Value| json!({"containers": [container(&requests, &json!({}))]});
        let field = |spec: &Value, spot| {
            let refused = of(spec, spot).expect_err("a refusal");
            refused[0].field.clone()
        };
        assert!(of(&asks(json!({"cpu": "31", "memory": "240G"})), false).is_ok());
        assert_eq!(
            field(&asks(json!({"cpu": "31001m"})), false),
            "spec.containers"
        );
        assert_eq!(
            field(&asks(json!({"memory": "240.1G"})), false),
            "spec.containers"
        );
        assert_eq!(field(&asks(json!({"cpu": "5"})), true), "spec.containers");
        assert_eq!(
            field(&asks(json!({"ephemeral-storage": "51G"})), false),
            "spec.containers"
        );
        assert_eq!(
            field(&asks(json!({"nvidia.com/gpu": "1"})), false),
            "spec.containers[0].resources.requests.nvidia.com/gpu"
        );
        assert_eq!(
            field(&asks(json!({"hugepages-2Mi": "4Mi"})), false),
            "spec.containers[0].resources.requests.hugepages-2Mi"
        );
        assert_eq!(
            field(&asks(json!({"cpu": "-1"})), false),
            "spec.containers[0].resources.requests.cpu"
        );
        assert!(
            of(
                &asks(json!({"nvidia.com/gpu": "0", "ephemeral-storage": "50G"})),
                false
            )
            .is_ok()
        );
    }
}
