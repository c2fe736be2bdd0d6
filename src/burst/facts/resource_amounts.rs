//! Resource amounts that a pod requests and a node has, counted as the scheduler counts them.
//!
//! In: a pod's spec, a node. Out: [`ResourceAmounts`]. The sums follow upstream's `PodRequests`
//! (component-helpers/resource): sidecars, init containers, pod-level requests and overhead.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::aci::translate;
use crate::k8s::containers::is_sidecar;
use crate::k8s::quantity::NanoAmount;

type Quantities = BTreeMap<String, Quantity>;

/// Amounts of the resources that a virtual node has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceAmounts {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub storage: i64,
    /// Number of pods.
    pub pods: i64,
}

impl ResourceAmounts {
    /// Adds two amounts, resource by resource. Saturates.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.combine(other, i64::saturating_add)
    }

    /// Subtracts `other`. The result is negative if a node is overcommitted. Saturates.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.combine(other, i64::saturating_sub)
    }

    /// The greater value of each resource.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        self.combine(other, i64::max)
    }

    fn combine(self, other: Self, each: fn(i64, i64) -> i64) -> Self {
        Self {
            cpu_milli: each(self.cpu_milli, other.cpu_milli),
            memory: each(self.memory, other.memory),
            storage: each(self.storage, other.storage),
            pods: each(self.pods, other.pods),
        }
    }

    /// The first resource that `room` has too little of, or `None` if everything fits. As in the scheduler, a
    /// resource with a request of zero always fits, even if `room` is negative.
    pub fn shortage_in(self, room: Self) -> Option<&'static str> {
        [
            ("pods", self.pods, room.pods),
            ("cpu", self.cpu_milli, room.cpu_milli),
            ("memory", self.memory, room.memory),
            ("ephemeral-storage", self.storage, room.storage),
        ]
        .into_iter()
        .find_map(|(name, asked, has)| (asked > 0 && asked > has).then_some(name))
    }

    fn from_quantities(quantities: Option<&Quantities>) -> Self {
        let amount = |name: &str, step: NanoAmount| {
            let quantity = quantities.and_then(|all| all.get(name));
            let amount = quantity
                .and_then(NanoAmount::from_quantity)
                .unwrap_or_default();
            i64::try_from(amount.in_steps_of(step)).unwrap_or(i64::MAX)
        };
        Self {
            cpu_milli: amount("cpu", NanoAmount::thousandths(1)),
            memory: amount("memory", NanoAmount::whole(1)),
            storage: amount("ephemeral-storage", NanoAmount::whole(1)),
            pods: amount("pods", NanoAmount::whole(1)),
        }
    }
}

/// The requests of a pod with this spec, as the scheduler counts them.
pub fn pod_requests(spec: &PodSpec) -> ResourceAmounts {
    let of = |container: &Container| {
        let resources = container.resources.as_ref();
        ResourceAmounts::from_quantities(
            resources.and_then(|resources| resources.requests.as_ref()),
        )
    };
    let mut total = spec
        .containers
        .iter()
        .map(of)
        .fold(ResourceAmounts::default(), ResourceAmounts::plus);
    let (mut side_cars, mut starting) = (ResourceAmounts::default(), ResourceAmounts::default());
    for container in spec.init_containers.iter().flatten() {
        let asked = of(container);
        if is_sidecar(container) {
            total = total.plus(asked);
            side_cars = side_cars.plus(asked);
            starting = starting.max(side_cars);
        } else {
            starting = starting.max(side_cars.plus(asked));
        }
    }
    total = total.max(starting);
    let whole = spec
        .resources
        .as_ref()
        .and_then(|all| all.requests.as_ref());
    let pod_level = ResourceAmounts::from_quantities(whole);
    if whole.is_some_and(|all| all.contains_key("cpu")) {
        total.cpu_milli = pod_level.cpu_milli;
    }
    if whole.is_some_and(|all| all.contains_key("memory")) {
        total.memory = pod_level.memory;
    }
    total = total.plus(ResourceAmounts::from_quantities(spec.overhead.as_ref()));
    ResourceAmounts { pods: 1, ..total }
}

/// What ACI counts for the container group of a pod that requests `asks`. CPU is rounded up to whole cores, at
/// least one, as ACI bills it, and as a quota counts it at most. ACI has no quota for memory.
pub fn group_requests(spec: &PodSpec, asks: ResourceAmounts) -> ResourceAmounts {
    let cpu = translate::group_cpu(spec).max(asks.cpu_milli);
    ResourceAmounts {
        cpu_milli: cpu.saturating_add(999) / 1000 * 1000,
        ..asks
    }
}

/// The node's `status.allocatable`, from which the scheduler subtracts pod requests.
pub fn allocatable(node: &Node) -> ResourceAmounts {
    let status = node.status.as_ref();
    ResourceAmounts::from_quantities(status.and_then(|status| status.allocatable.as_ref()))
}

/// The node's `status.capacity`, from which container groups are subtracted.
pub fn capacity(node: &Node) -> ResourceAmounts {
    let status = node.status.as_ref();
    ResourceAmounts::from_quantities(status.and_then(|status| status.capacity.as_ref()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> (i64, i64) {
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let amounts = pod_requests(&spec);
        assert_eq!(amounts.pods, 1);
        (amounts.cpu_milli, amounts.memory)
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn side_car(cpu: &str) -> Value {
        let mut container = asks(cpu, "0");
        container["restartPolicy"] = json!("Always");
        container
    }

    #[test]
    fn requests_are_summed_as_the_scheduler_sums_them() {
        let two = json!([asks("250m", "10"), asks("1", "20")]);
        assert_eq!(of(json!({"containers": two})), (1250, 30));
        assert_eq!(of(json!({"containers": [{"name": "a"}]})), (0, 0));
        let init = json!([asks("2", "5")]);
        assert_eq!(
            of(json!({"containers": two, "initContainers": init})),
            (2000, 30)
        );
        // Sidecars run next to the containers, and next to the init containers that start after them.
        let init = json!([side_car("1"), asks("2", "0"), side_car("500m")]);
        assert_eq!(
            of(json!({"containers": two, "initContainers": init})),
            (3000, 30)
        );
        let init = json!([side_car("1"), asks("1", "0")]);
        assert_eq!(
            of(json!({"containers": two, "initContainers": init})),
            (2250, 30)
        );
    }

    #[test]
    fn what_the_pod_asks_as_a_whole_replaces_the_sum_and_its_overhead_is_added() {
        let pod = json!({
            "containers": [asks("1", "20")],
            "resources": {"requests": {"cpu": "300m"}},
            "overhead": {"cpu": "50m", "memory": "7"},
        });
        assert_eq!(of(pod), (350, 27));
    }

    #[test]
    fn a_group_takes_whole_cores_and_at_least_one() {
        let taken = |spec: Value| {
            let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
            group_requests(&spec, pod_requests(&spec)).cpu_milli
        };
        assert_eq!(taken(json!({"containers": [{"name": "a"}]})), 1000);
        assert_eq!(taken(json!({"containers": [asks("250m", "1Gi")]})), 1000);
        let two = json!([asks("250m", "1Gi"), asks("1", "1Gi")]);
        assert_eq!(taken(json!({"containers": two})), 2000);
        let init = json!([asks("3", "0")]);
        let pod = json!({"containers": two, "initContainers": init});
        assert_eq!(taken(pod), 3000);
        let pod = json!({"containers": [asks("1", "0")], "overhead": {"cpu": "50m"}});
        assert_eq!(taken(pod), 2000);
    }

    #[test]
    fn only_what_is_asked_for_can_be_lacking() {
        let room = ResourceAmounts {
            cpu_milli: 1000,
            memory: -5,
            storage: 0,
            pods: 1,
        };
        let pod = ResourceAmounts {
            cpu_milli: 1000,
            pods: 1,
            ..ResourceAmounts::default()
        };
        assert_eq!(pod.shortage_in(room), None);
        assert_eq!(
            ResourceAmounts { memory: 1, ..pod }.shortage_in(room),
            Some("memory")
        );
        assert_eq!(pod.shortage_in(room.minus(pod)), Some("pods"));
    }
}
