//! The readiness of containers whose readiness probe ACI runs.
//!
//! In: the pod, and its group as the last GET shows it. Out: the readiness of these containers, added to the readiness
//! report, and when to read the group for the sake of it.

use std::collections::BTreeMap;

use super::PodWorker;
use crate::aci::response::GroupContainer;
use crate::aci::status::{AzureReadiness, ContainerReadiness, ReadinessReport};
use crate::node::daemon_set;
use crate::node::pod_plan::GroupPresence;

/// The containers whose readiness probe ACI runs, by name.
pub(super) type AzureProbes = BTreeMap<String, AzureReadiness>;

impl PodWorker {
    /// Adds the containers whose readiness probe ACI runs to `report`, which has those that the node probes.
    pub(super) fn observe_azure_probes(&mut self, report: &mut ReadinessReport) {
        let GroupPresence::Exists {
            last_read: Some(last_read),
            ..
        } = self.state.pod_state().group
        else {
            return;
        };
        let pod = self.state.pod();
        let spec = pod
            .spec
            .iter()
            .filter(|_| !daemon_set::is_daemon_set_pod(pod));
        let statuses = pod.status.iter();
        let statuses = statuses.flat_map(|status| status.container_statuses.iter().flatten());
        let mut next_read = None;
        for container in spec.flat_map(|spec| &spec.containers) {
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
                let mut statuses = statuses.clone();
                statuses.any(|status| status.name == container.name && status.ready)
            };
            let azure = self.probes.azure.entry(container.name.clone());
            let azure = azure.or_insert_with(|| AzureReadiness::new(was_ready()));
            let view = self.state.group_view();
            let seen = view.and_then(|view| view.container(&container.name));
            if let Some(seen) = seen.and_then(GroupContainer::instance_view) {
                azure.observe(probe, seen, last_read);
            }
            next_read = next_read
                .into_iter()
                .chain(azure.next_read(probe, last_read))
                .min();
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
