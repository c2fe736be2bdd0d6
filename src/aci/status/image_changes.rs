//! Images that were changed on a pod after its container group was created.
//!
//! In: the pod and its group. Out: the containers that run another image than the pod's spec names. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::aci::response::{ContainerGroup, GroupContainer};

/// A container that runs another image than its pod's spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutdatedContainer {
    /// The container's name.
    pub container: String,
    /// The image in the group.
    pub actual_image: String,
    /// The image in the pod's spec.
    pub wanted_image: String,
}

/// The containers whose image was changed on the pod but not in the group.
pub fn images(pod: &Pod, group: &ContainerGroup) -> Vec<OutdatedContainer> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let main = spec.containers.iter();
    let main = main.map(|container| (container, group.container(&container.name)));
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|container| (container, group.init_container(&container.name)));
    init.chain(main)
        .filter_map(|(container, group_container)| outdated_container(container, group_container?))
        .collect()
}

fn outdated_container(
    container: &Container,
    group_container: &GroupContainer,
) -> Option<OutdatedContainer> {
    let (wanted, actual) = (
        container.image.as_ref()?,
        group_container.properties.image.as_ref()?,
    );
    let differs = !actual.trim().is_empty() && actual.trim() != wanted.trim();
    differs.then(|| OutdatedContainer {
        container: container.name.clone(),
        actual_image: actual.clone(),
        wanted_image: wanted.clone(),
    })
}
