//! An in-memory index of a node's pods, for the kubelet API.
//!
//! In: pods from the watch. Out: by namespace and name, what a request to the kubelet API needs, without a call to
//! the API server.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use parking_lot::Mutex;

use crate::aci::address::is_reserved;
use crate::aci::names::GroupName;
use crate::k8s::containers::{container_statuses, is_sidecar, lasting_containers};

/// A pod of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The name of its container group.
    pub group: GroupName,
    /// Its containers and native sidecars, which run side by side.
    pub containers: Vec<ContainerInfo>,
    /// Its init containers that end before these start.
    pub init_containers: Vec<ContainerInfo>,
    /// Its IP address, once it has one.
    pub address: Option<IpAddr>,
    /// Its start time (`status.startTime`).
    pub started_at: Option<Timestamp>,
    /// Whether its phase is Succeeded or Failed.
    pub has_ended: bool,
    /// Whether the operator asked Azure to delete its container group: Azure may then give its address to another
    /// pod.
    pub is_group_deleted: bool,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its name.
    pub name: String,
    /// Its image, as the pod's spec names it.
    pub image: String,
    /// When it was started, if it runs.
    pub running_since: Option<Timestamp>,
    /// Whether its current state is terminated.
    pub has_ended: bool,
}

impl PodInfo {
    /// What the index holds for a pod; `None` if the pod has no spec, namespace, name or UID.
    pub fn from_pod(cluster: &str, pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref();
        let spec = pod.spec.as_ref()?;
        let info = |container| ContainerInfo::from_spec_and_status(container, status);
        let init_containers = spec.init_containers.iter().flatten();
        let init_containers = init_containers.filter(|container| !is_sidecar(container));
        let phase = status.and_then(|status| status.phase.as_deref());
        Some(Self {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            group: GroupName::from_pod(cluster, pod),
            containers: lasting_containers(spec).map(info).collect(),
            init_containers: init_containers.map(info).collect(),
            // A user who may write a pod's status must not reach the cloud's own addresses through the node.
            address: status
                .and_then(|status| status.pod_ip.as_ref()?.parse().ok())
                .filter(|address| !is_reserved(*address)),
            started_at: status.and_then(|status| Some(status.start_time.as_ref()?.0)),
            has_ended: matches!(phase, Some("Succeeded" | "Failed")),
            is_group_deleted: false,
        })
    }

    /// The container or init container of this name.
    pub fn container(&self, name: &str) -> Option<&ContainerInfo> {
        let mut containers = self.containers.iter().chain(&self.init_containers);
        containers.find(|container| container.name == name)
    }
}

impl ContainerInfo {
    fn from_spec_and_status(container: &Container, status: Option<&PodStatus>) -> Self {
        let mut statuses = status.into_iter().flat_map(container_statuses);
        let state = statuses.find(|status| status.name == container.name);
        let state = state.and_then(|status| status.state.as_ref());
        let running = state.and_then(|state| state.running.as_ref());
        Self {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            running_since: running.and_then(|running| Some(running.started_at.as_ref()?.0)),
            has_ended: state.is_some_and(|state| state.terminated.is_some()),
        }
    }
}

/// A node's pods by namespace and name.
#[derive(Default)]
pub(super) struct PodIndex(Mutex<HashMap<(String, String), Arc<PodInfo>>>);

impl PodIndex {
    /// Adds or replaces a pod. A new pod replaces an earlier one of the same name.
    pub fn insert(&self, mut pod: PodInfo) {
        let key = (pod.namespace.clone(), pod.name.clone());
        let mut pods = self.0.lock();
        let previous = pods.get(&key).filter(|previous| previous.uid == pod.uid);
        // The pod from the watch does not contain this: keep it if it is the same pod.
        pod.is_group_deleted = previous.is_some_and(|previous| previous.is_group_deleted);
        pods.insert(key, Arc::new(pod));
    }

    /// Records that the operator asked Azure to delete a pod's group, or that Azure created one.
    pub fn set_group_deleted(&self, uid: &str, is_deleted: bool) {
        let mut pods = self.0.lock();
        for pod in pods.values_mut().filter(|pod| pod.uid == uid) {
            Arc::make_mut(pod).is_group_deleted = is_deleted;
        }
    }

    /// Removes the pod with this UID; a later pod of the same name stays.
    pub fn remove(&self, uid: &str) {
        self.0.lock().retain(|_, pod| pod.uid != uid);
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<PodInfo>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().get(&key).cloned()
    }

    pub fn all(&self) -> Vec<Arc<PodInfo>> {
        self.0.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str) -> PodInfo {
        let pod = json!({
            "metadata": {"namespace": "n", "name": "web-0", "uid": uid},
            "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]},
            "status": {"podIP": "10.0.0.4", "phase": "Running", "containerStatuses": [{
                "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-24T10:00:00Z"}},
            }]},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        PodInfo::from_pod("cluster", &pod).expect("it has a name")
    }

    #[test]
    fn a_pod_ip_that_is_reserved_for_the_cloud_is_not_indexed() {
        for (address, is_kept) in [
            ("10.0.0.4", true),
            ("169.254.169.254", false),
            ("168.63.129.16", false),
            ("64:ff9b::a9fe:a9fe", false),
        ] {
            let pod = json!({
                "metadata": {"namespace": "n", "name": "web-0", "uid": "1"},
                "spec": {"containers": [{"name": "c"}]},
                "status": {"podIP": address},
            });
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let info = PodInfo::from_pod("cluster", &pod).expect("it has a name");
            assert_eq!(info.address.is_some(), is_kept, "{address}");
        }
    }

    #[test]
    fn pods_and_their_containers_are_found_by_name() {
        let index = PodIndex::default();
        index.insert(pod("1"));
        let found = index.get("n", "web-0").expect("it is there");
        assert_eq!(found.address, "10.0.0.4".parse().ok());
        assert!(
            found
                .container("c")
                .is_some_and(|c| c.running_since.is_some())
        );
        assert!(
            found
                .container("i")
                .is_some_and(|c| c.running_since.is_none())
        );
        assert!(found.container("x").is_none() && index.get("other", "web-0").is_none());
    }

    #[test]
    fn a_deleted_group_is_remembered_until_a_new_one_is_created() {
        let index = PodIndex::default();
        let is_deleted = || {
            index
                .get("n", "web-0")
                .is_some_and(|pod| pod.is_group_deleted)
        };
        index.insert(pod("1"));
        index.set_group_deleted("2", true);
        assert!(!is_deleted(), "another pod's");
        index.set_group_deleted("1", true);
        index.insert(pod("1"));
        assert!(is_deleted(), "a change of the pod keeps it");
        index.set_group_deleted("1", false);
        assert!(!is_deleted());
        index.set_group_deleted("1", true);
        index.insert(pod("2"));
        assert!(!is_deleted(), "it was another pod's");
    }

    #[test]
    fn removing_a_pod_keeps_the_next_pod_of_the_same_name() {
        let index = PodIndex::default();
        index.insert(pod("1"));
        index.insert(pod("2"));
        index.remove("1");
        assert_eq!(index.all().len(), 1);
        index.remove("2");
        assert_eq!(index.all().len(), 0);
    }
}
