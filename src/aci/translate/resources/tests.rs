//! Tests: sizes of containers and of whole pods.

use serde_json::{Value, json};

use super::*;
use crate::aci::translate::refusals::Unsupported;
use crate::api::{self, Priority};

fn sizes_of(spec: &Value, spot: bool) -> Result<ContainerSizes, Vec<Unsupported>> {
    let spec: PodSpec = serde_json::from_value(spec.clone()).expect("a pod");
    let mut place = api::Placement::default();
    if spot {
        place.priority = Priority::Spot;
    }
    let placement = TranslationTarget {
        spec: &place,
        tags: &std::collections::BTreeMap::new(),
        node: "n",
        node_address: None,
        identities: &crate::aci::translate::NO_IDENTITIES,
        accepted: &api::NO_LOSSES,
    };
    let mut refusals = Refusals::default();
    let sizes = sizes(&spec, &placement, &mut refusals);
    refusals.into_result(sizes, placement.accepted)
}

/// `(requests, limits)` of each container, in the format `cpu/GB`.
fn shown(containers: &Value) -> Vec<String> {
    let spec = json!({"containers": containers});
    let sizes = sizes_of(&spec, false).expect("sizes");
    let count = sizes.containers.len();
    let each = (0..count).filter_map(|index| sizes.container_resources(index));
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
fn sizes_are_rounded_up_and_raised_to_the_minimum() {
    let none = json!({});
    let cases = [
        // No requests: the smallest group, which the container may use completely.
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
        // Memory is requested up to its limit. CPU is not, and its limit is cut to the size of the group.
        (
            json!([container(
                &json!({"cpu": "1", "memory": "1G"}),
                &json!({"cpu": "4", "memory": "2Gi"})
            )]),
            vec!["1/2.2 1/2.2"],
        ),
        // A limit without a request counts as the request.
        (
            json!([container(&none, &json!({"cpu": "1500m", "memory": "2G"}))]),
            vec!["1.5/2 1.5/2"],
        ),
        // A sidecar requests little, and may use the whole group.
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
        // A limit below the raised request is raised to it.
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
fn a_group_is_as_large_as_its_init_containers_and_its_pod_request() {
    let init = container(
        &json!({"cpu": "3", "memory": "1G"}),
        &json!({"memory": "5G"}),
    );
    let spec = json!({"containers": [{"name": "a"}], "initContainers": [init]});
    assert_eq!(
        sizes_of(&spec, false).expect("sizes").total,
        GroupSize {
            cpu: 300,
            memory: 50
        }
    );
    let spec = json!({
        "containers": [container(&json!({"memory": "1G"}), &json!({"memory": "9G"})), {"name": "b"}],
        "resources": {"requests": {"cpu": "2", "memory": "2G"}, "limits": {"cpu": "3", "memory": "4G"}},
    });
    let sizes = sizes_of(&spec, false).expect("sizes");
    assert_eq!(
        sizes.total,
        GroupSize {
            cpu: 200,
            memory: 40
        }
    );
    assert_eq!(
        sizes.containers[1].1,
        GroupSize {
            cpu: 200,
            memory: 40
        }
    );
}

#[test]
fn pod_level_requests_take_precedence_over_the_sum_of_the_containers() {
    let silent = || container(&json!({}), &json!({}));
    let cases = [
        // Rounded up. Five containers without requests share it, and do not request 0.5 CPU and 1.5 GB.
        (
            json!({"requests": {"cpu": "1001m", "memory": "1001M"}}),
            json!([silent(), silent(), silent(), silent(), silent()]),
            (101, 11),
        ),
        // One container requests most of it; the other two share the rest.
        (
            json!({"requests": {"cpu": "1200m", "memory": "2G"}}),
            json!([
                container(&json!({"cpu": "1190m", "memory": "1.7G"}), &json!({})),
                silent(),
                silent()
            ]),
            (121, 20),
        ),
        // Less than the smallest group.
        (
            json!({"requests": {"cpu": "10m", "memory": "1"}, "limits": {"cpu": "20m", "memory": "1M"}}),
            json!([silent(), silent()]),
            (100, 10),
        ),
        // Memory only: for CPU, the requests of the containers count.
        (
            json!({"requests": {"memory": "3G"}}),
            json!([container(&json!({"cpu": "1500m"}), &json!({})), silent()]),
            (160, 30),
        ),
        // A limit without a request counts as the request. With a request, memory is raised to its limit, and CPU
        // is not.
        (
            json!({"limits": {"cpu": "2", "memory": "1537Mi"}}),
            json!([silent()]),
            (200, 17),
        ),
        (
            json!({"requests": {"cpu": "1", "memory": "1G"}, "limits": {"cpu": "4", "memory": "2G"}}),
            json!([silent(), silent()]),
            (100, 20),
        ),
    ];
    for (resources, containers, (cpu, memory)) in cases {
        let spec = json!({"containers": containers, "resources": resources});
        let sizes = sizes_of(&spec, false).expect("sizes");
        assert_eq!(sizes.total, GroupSize { cpu, memory }, "{spec}");
        let parts = sizes.containers.iter().map(|(request, _)| *request);
        assert_eq!(
            parts.clone().fold(GroupSize::default(), GroupSize::plus),
            sizes.total
        );
        for (request, limit) in &sizes.containers {
            assert!(request.cpu >= 1 && request.memory >= 1, "{spec}");
            assert!(
                limit.max(*request) == *limit && limit.min(sizes.total) == *limit,
                "{spec}"
            );
        }
    }
    let spec =
        json!({"containers": [{"name": "a"}], "resources": {"requests": {"hugepages-2Mi": "2Mi"}}});
    let refused = sizes_of(&spec, false).expect_err("a refusal");
    assert_eq!(refused[0].field, "spec.resources.requests.hugepages-2Mi");
}

#[test]
fn the_limit_of_a_pod_applies_to_containers_without_a_limit() {
    let spec = json!({
        "containers": [{"name": "a"}, container(&json!({}), &json!({"cpu": "1500m", "memory": "1G"}))],
        "resources": {"requests": {"cpu": "3", "memory": "2G"}, "limits": {"cpu": "3", "memory": "4G"}},
    });
    let sizes = sizes_of(&spec, false).expect("sizes");
    let limits: Vec<GroupSize> = sizes.containers.iter().map(|(_, limit)| *limit).collect();
    let size = |cpu, memory| GroupSize { cpu, memory };
    assert_eq!(sizes.total, size(300, 40));
    assert_eq!(limits[0], size(300, 40));
    assert!(limits[1].cpu >= 150 && limits[1].memory >= 10, "{limits:?}");
}

#[test]
fn a_pod_that_is_too_large_for_a_group_is_refused() {
    let pod_with = |requests: Value| json!({"containers": [container(&requests, &json!({}))]});
    let field = |spec: &Value, spot| {
        let refused = sizes_of(spec, spot).expect_err("a refusal");
        refused[0].field.clone()
    };
    assert!(sizes_of(&pod_with(json!({"cpu": "31", "memory": "240G"})), false).is_ok());
    assert_eq!(
        field(&pod_with(json!({"cpu": "31001m"})), false),
        "spec.containers"
    );
    assert_eq!(
        field(&pod_with(json!({"memory": "240.1G"})), false),
        "spec.containers"
    );
    assert_eq!(
        field(&pod_with(json!({"cpu": "5"})), true),
        "spec.containers"
    );
    assert_eq!(
        field(&pod_with(json!({"ephemeral-storage": "51G"})), false),
        "spec.containers"
    );
    assert_eq!(
        field(&pod_with(json!({"nvidia.com/gpu": "1"})), false),
        "spec.containers[0].resources.requests.nvidia.com/gpu"
    );
    assert_eq!(
        field(&pod_with(json!({"hugepages-2Mi": "4Mi"})), false),
        "spec.containers[0].resources.requests.hugepages-2Mi"
    );
    assert_eq!(
        field(&pod_with(json!({"cpu": "-1"})), false),
        "spec.containers[0].resources.requests.cpu"
    );
    assert!(
        sizes_of(
            &pod_with(json!({"nvidia.com/gpu": "0", "ephemeral-storage": "50G"})),
            false
        )
        .is_ok()
    );
}
