//! Images that were changed on a pod after its container group was created.
//!
//! In: the pod and its group. Out: the containers that run another image than the pod's spec names. Pure. A group can
//! name an image by the digest that was read from its registry; the pod's status keeps the name that it had.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use crate::aci::image::pinned_image_id;
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
    let init = init.map(|container| (container, group.any_container(&container.name)));
    let status = pod.status.as_ref();
    let lists = status.map(|status| (&status.init_container_statuses, &status.container_statuses));
    let statuses = lists
        .into_iter()
        .flat_map(|(init, main)| init.iter().chain(main).flatten());
    let live = |container: &Container| {
        let mut statuses = statuses.clone();
        statuses.find(|status| status.name == container.name)
    };
    init.chain(main)
        .filter_map(|(container, group_container)| {
            outdated_container(container, live(container), group_container?)
        })
        .collect()
}

/// The image of a container as the pod names it, and its `imageID`, if `actual` is the name with a digest in the group.
/// The live status tells which of the spec's images it was, if it is about a container with this digest.
pub(super) fn unpinned_image(
    container: &Container,
    live: Option<&ContainerStatus>,
    actual: &str,
) -> Option<(String, String)> {
    let (_, digest) = actual.split_once('@')?;
    let known = live.filter(|live| live.image_id.ends_with(digest));
    let mut names = known
        .map(|live| &live.image)
        .into_iter()
        .chain(&container.image);
    names.find_map(|name| Some((name.clone(), pinned_image_id(actual, name)?)))
}

fn outdated_container(
    container: &Container,
    live: Option<&ContainerStatus>,
    group_container: &GroupContainer,
) -> Option<OutdatedContainer> {
    let (wanted, actual) = (
        container.image.as_ref()?,
        group_container.properties.image.as_ref()?,
    );
    let unpinned = unpinned_image(container, live, actual);
    let actual = unpinned.as_ref().map_or(actual, |(name, _)| name);
    let differs = !actual.trim().is_empty() && actual.trim() != wanted.trim();
    differs.then(|| OutdatedContainer {
        container: container.name.clone(),
        actual_image: actual.clone(),
        wanted_image: wanted.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// The outdated images of a pod whose spec has the image `wanted` and whose status has `live` with `id`.
    fn outdated(wanted: &str, live: Option<(&str, &str)>, actual: &str) -> Vec<String> {
        let statuses: Vec<_> = live
            .map(|(image, id)| {
                json!({"name": "a", "image": image, "imageID": id, "ready": false, "restartCount": 0})
            })
            .into_iter()
            .collect();
        let pod = json!({
            "spec": {"containers": [{"name": "a", "image": wanted}]},
            "status": {"containerStatuses": statuses},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let containers = json!([{"name": "a", "properties": {"image": actual}}]);
        let group = json!({"name": "web", "properties": {"containers": containers}});
        let group = ContainerGroup::from_value(&group).expect("a group");
        let found = images(&pod, &group).into_iter();
        found.map(|outdated| outdated.actual_image).collect()
    }

    #[test]
    fn an_image_that_is_named_by_its_digest_is_the_one_of_the_spec() {
        let pinned = format!("nginx@{DIGEST}");
        let id = format!("docker.io/library/nginx@{DIGEST}");
        let none: [&str; 0] = [];
        assert_eq!(outdated("nginx:1", None, &pinned), none);
        assert_eq!(outdated("nginx:1", Some(("nginx:1", &id)), &pinned), none);
        // The tag was changed after the group was created.
        let live = Some(("nginx:1", id.as_str()));
        assert_eq!(outdated("nginx:2", live, &pinned), ["nginx:1"]);
        // The status is still about the group before, with another digest.
        let old = format!("docker.io/library/nginx@sha256:{}", "0".repeat(64));
        assert_eq!(outdated("nginx:2", Some(("nginx:1", &old)), &pinned), none);
        assert_eq!(outdated("redis:1", None, &pinned), [pinned.as_str()]);
        assert_eq!(outdated("nginx:2", None, "nginx:1"), ["nginx:1"]);
    }
}
