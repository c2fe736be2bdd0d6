//! The readiness of containers whose readiness probe ACI runs.
//!
//! In: the pod, and its group as the last GET shows it. Out: the readiness of these containers, added to the readiness
//! report, and when to read the group for the sake of it.

use std::collections::BTreeMap;

use super::PodWorker;
use crate::aci::response::GroupContainer;
use crate::aci::status::{AzureReadiness, ContainerReadiness, ReadinessReport};
use crate::k8s::containers::{container_statuses, lasting_containers};
use crate::node::daemon_set;
use crate::node::pod_plan::GroupPresence;
use crate::node::probe::ProbeSeed;

/// The containers whose readiness probe ACI runs, by name.
pub(super) type AzureProbes = BTreeMap<String, AzureReadiness>;

impl PodWorker {
    /// Adds the containers whose readiness probe ACI runs to `report`, which has those that the node probes. Only a
    /// GET of the group changes their readiness: before the first one it is that of the pod's status.
    pub(super) fn observe_azure_probes(&mut self, report: &mut ReadinessReport) {
        let last_read = match self.state.pod_state().group {
            GroupPresence::Exists { last_read, .. } => last_read,
            _ => None,
        };
        let pod = self.state.pod();
        let spec = pod
            .spec
            .iter()
            .filter(|_| !daemon_set::is_daemon_set_pod(pod));
        let statuses: Vec<_> = pod.status.iter().flat_map(container_statuses).collect();
        let mut next_read = None;
        for container in spec.flat_map(lasting_containers) {
            let by_node = report.get(&container.name);
            let is_judged_by_node = by_node.is_some_and(|by_node| by_node.is_judged_by_node);
            let Some(probe) = container
                .readiness_probe
                .as_ref()
                .filter(|_| !is_judged_by_node)
            else {
                continue;
            };
            let was_ready = || {
                let mut statuses = statuses.iter();
                let status = statuses.find(|status| status.name == container.name);
                let seed = status.and_then(|status| ProbeSeed::of(pod, status));
                seed.is_some_and(|seed| seed.ready)
            };
            let azure = self.probes.azure.entry(container.name.clone());
            let azure = azure.or_insert_with(|| AzureReadiness::new(was_ready()));
            if let Some(last_read) = last_read {
                let view = self.state.group_view();
                let seen = view.and_then(|view| view.container(&container.name));
                if let Some(seen) = seen.and_then(GroupContainer::instance_view) {
                    azure.observe(probe, seen, last_read);
                }
                let at = azure.next_read(probe, last_read);
                next_read = next_read.into_iter().chain(at).min();
            }
            let has_started = by_node.is_none_or(|by_node| by_node.has_started);
            let readiness = ContainerReadiness {
                has_started,
                is_ready: has_started && azure.is_ready(),
                is_judged_by_node: false,
                blocked: by_node.and_then(|by_node| by_node.blocked.clone()),
            };
            report.insert(container.name.clone(), readiness);
        }
        self.state.read_for_readiness_at(next_read);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU16;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::PodWorker;
    use super::super::fixtures::{kubernetes, listed_worker};
    use super::super::status_writer::PendingWrite;
    use crate::aci::response::{ContainerGroup, Provisioning};
    use crate::node::pod_plan::GroupPresence;
    use crate::node::pods::group_list::{ListedGroup, ListedState};

    /// A worker whose pod has an exec readiness probe and this status.
    fn worker(status: &Value) -> PodWorker {
        let client = kubernetes(&Arc::new(AtomicU16::new(201)));
        let mut worker = listed_worker(client, ListedState::NotListed);
        let probe = json!({"exec": {"command": ["true"]}, "periodSeconds": 10});
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": {"containers": [{"name": "main", "image": "a", "readinessProbe": probe}]},
            "status": status,
        });
        *worker.state.pod_mut() = serde_json::from_value(pod).expect("a pod");
        worker
    }

    /// The status of a pod whose container runs.
    fn runs(is_ready: bool) -> Value {
        json!({"phase": "Running", "startTime": "2026-07-01T00:00:00Z", "containerStatuses": [{
            "name": "main", "image": "a", "imageID": "", "restartCount": 0, "ready": is_ready, "started": true,
            "state": {"running": {"startedAt": "2026-07-01T00:00:00Z"}},
        }]})
    }

    /// Whether the container is ready in the pod's status, once the worker has written it.
    fn written_ready(worker: &mut PodWorker) -> bool {
        let now = Timestamp::now();
        worker.observe_probes(now);
        let write = worker.pending_write(now);
        if let PendingWrite::UrgentStatus(status) | PendingWrite::Status(status) = write {
            worker.state.pod_mut().status = Some(*status);
        }
        let status = worker.state.pod().status.as_ref().expect("a status");
        status.container_statuses.as_ref().expect("a container")[0].ready
    }

    fn list(worker: &mut PodWorker) {
        let listed = ListedGroup {
            provisioning: Some(Provisioning::Succeeded),
            ip: Some([10, 0, 0, 4].into()),
        };
        let now = Timestamp::now();
        worker.state.group_listed(&listed, now, now);
    }

    /// A GET shows that the container runs since a minute and that its probe has failed this often.
    fn get(worker: &mut PodWorker, failures: i64) {
        let now = Timestamp::now();
        let since = now - jiff::SignedDuration::from_secs(60);
        let event =
            json!({"name": "Unhealthy", "count": failures, "message": "Readiness probe failed: a"});
        let view = json!({"restartCount": 0, "events": [event],
            "currentState": {"state": "Running", "startTime": since.to_string()}});
        let container = json!({"name": "main", "properties": {"image": "a", "instanceView": view}});
        let group = json!({"name": "g", "properties": {"provisioningState": "Succeeded",
            "ipAddress": {"ip": "10.0.0.4"}, "containers": [container],
            "instanceView": {"state": "Running"}}});
        let group = ContainerGroup::from_value(&group).expect("a group");
        worker.state.group_read(group, now, now);
    }

    #[tokio::test]
    async fn another_leader_does_not_make_a_pod_ready_before_it_has_read_its_group() {
        let mut worker = worker(&runs(false));
        assert!(!written_ready(&mut worker), "before the first LIST");
        list(&mut worker);
        assert!(!written_ready(&mut worker), "before the first GET");
        get(&mut worker, 50);
        assert!(!written_ready(&mut worker), "the probe has just failed");
    }

    #[tokio::test]
    async fn another_leader_keeps_a_ready_pod_ready_until_it_has_read_its_group() {
        let mut worker = worker(&runs(true));
        assert!(written_ready(&mut worker));
        list(&mut worker);
        assert!(written_ready(&mut worker));
    }

    #[tokio::test]
    async fn a_start_that_only_a_list_shows_makes_no_pod_ready() {
        let mut worker = worker(&json!({"phase": "Pending"}));
        worker
            .state
            .put_accepted(None, Timestamp::now() - jiff::SignedDuration::from_secs(90));
        list(&mut worker);
        assert!(!written_ready(&mut worker));
        get(&mut worker, 5);
        assert!(!written_ready(&mut worker), "the probe has just failed");
    }

    #[tokio::test]
    async fn the_end_of_its_group_makes_no_pod_ready() {
        let mut worker = worker(&runs(false));
        list(&mut worker);
        get(&mut worker, 50);
        assert!(!written_ready(&mut worker));
        let now = Timestamp::now();
        worker.state.pod_state_mut().delete_accepted(now, now);
        assert!(matches!(
            worker.state.pod_state().group,
            GroupPresence::Deleting { .. }
        ));
        assert!(!written_ready(&mut worker));
    }
}
