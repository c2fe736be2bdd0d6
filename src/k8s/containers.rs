//! The containers of a pod. A native sidecar is an init container that runs beside the other containers.
//!
//! In: the spec or the status of a pod. Out: which of its init containers are sidecars, which containers last as long as
//! the pod, and the statuses of all of them.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, PodStatus};

/// Whether an init container is a sidecar: it has `restartPolicy: Always` of its own.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// The sidecars of the pod, in order.
pub fn sidecars(spec: &PodSpec) -> impl Iterator<Item = &Container> + Clone {
    let init = spec.init_containers.iter().flatten();
    init.filter(|container| is_sidecar(container))
}

/// The containers that last as long as the pod: its containers, then its sidecars.
pub fn lasting_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> + Clone {
    spec.containers.iter().chain(sidecars(spec))
}

/// Whether the pod has a sidecar of this name.
pub fn has_sidecar(spec: &PodSpec, name: &str) -> bool {
    sidecars(spec).any(|container| container.name == name)
}

/// The statuses of all containers and init containers, without those of ephemeral containers.
pub fn container_statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> + Clone {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sidecar_is_an_init_container_that_always_restarts() {
        let spec = json!({
            "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"},
                {"name": "never", "restartPolicy": "Never"}],
            "containers": [{"name": "app"}, {"name": "log", "restartPolicy": "Always"}],
        });
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod");
        let names: Vec<&str> = lasting_containers(&spec).map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["app", "log", "proxy"]);
        assert!(has_sidecar(&spec, "proxy"));
        assert!(
            ["setup", "never", "log"]
                .iter()
                .all(|name| !has_sidecar(&spec, name))
        );
    }
}
