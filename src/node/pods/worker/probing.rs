//! The probes that the node runs for the containers of a pod.
//!
//! In: the pod, its container group, and what [`probe`](crate::node::probe) reports. Out: the readiness report for the
//! pod's status, and the Events of probes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;

use super::PodWorker;
use super::azure_probes::AzureProbes;
use crate::aci::events::PodEvent;
use crate::aci::realtime_metrics::EXTENSION_PORT;
use crate::aci::status::{self, BlockedProbe, ContainerReadiness, NodeFacts, ReadinessReport};
use crate::k8s;
use crate::k8s::containers::{container_statuses, has_sidecar, lasting_containers};
use crate::node::daemon_set;
use crate::node::pod_plan::{self, GroupPresence};
use crate::node::probe::{
    PodProbes, ProbeBlocked, ProbeEvent, ProbeSeed, ProbeSpecs, ProbeVerdict, ProbedContainer,
    ProbedPod, ProbedPodState,
};

/// The probes of a worker's pod.
#[derive(Debug, Default)]
pub(super) struct WorkerProbes {
    /// The probes that run; `None` until the worker has looked at its pod, and if the node runs none of its probes.
    handle: Option<PodProbes>,
    /// The probes that the node runs by container, as far as ACI does not run them; `None` until they were decided.
    specs: Option<BTreeMap<String, ProbeSpecs>>,
    /// The containers whose readiness probe ACI runs: their group was created with it.
    probed_by_azure: BTreeSet<String>,
    /// The containers whose readiness probe ACI runs, as far as they were seen.
    pub azure: AzureProbes,
    /// What the probes said last.
    report: ReadinessReport,
}

impl WorkerProbes {
    /// What the probes say; `None` if the pod has none.
    pub fn report(&self) -> Option<&ReadinessReport> {
        (!self.report.is_empty()).then_some(&self.report)
    }

    /// Waits until the probes say something else, or there is an Event.
    pub async fn changed(&mut self) {
        match &mut self.handle {
            Some(handle) => handle.changed().await,
            None => std::future::pending().await,
        }
    }
}

impl PodWorker {
    /// Tells the probes what the pod's containers do, and takes what the probes say.
    pub(super) fn observe_probes(&mut self, now: Timestamp) {
        let is_known = self.state.exists() && self.state.is_readable();
        if !is_known || self.state.keeps_last_status() {
            return;
        }
        self.choose_probes();
        let (mut report, events) = self.observe_node_probes(now);
        self.observe_azure_probes(&mut report);
        let was_ready = |name: &String| self.probes.report.get(name).is_some_and(|c| c.is_ready);
        let is_lost = report
            .iter()
            .any(|(name, now)| now.is_judged_by_node && was_ready(name) && !now.is_ready);
        self.probes.report = report;
        if is_lost {
            // The container may have been restarted.
            self.state.readiness_lost();
        }
        for (container, event) in events {
            let event = self.probe_event(&container, event);
            self.events.add_counted(event);
        }
    }

    /// Tells the node's own probes what the pod's containers do. Returns what these probes say, and their Events by
    /// container.
    fn observe_node_probes(
        &mut self,
        now: Timestamp,
    ) -> (ReadinessReport, Vec<(String, ProbeEvent)>) {
        let Some(handle) = &mut self.probes.handle else {
            return Default::default();
        };
        let (pod, observation) = (self.state.pod(), self.state.observation());
        // The states of containers do not depend on probes.
        let shown = status::pod_status(pod, &observation, &NodeFacts::default(), now);
        let containers = container_statuses(&shown);
        let containers =
            containers.map(|status| (status.name.clone(), ProbedContainer::of(status)));
        handle.update(&ProbedPodState {
            address: address(&self.state),
            is_deleting: pod_plan::is_deleting(pod),
            containers: containers.collect(),
        });
        let specs = self.probes.specs.iter().flatten();
        let verdicts = handle.report();
        let report = specs
            .filter_map(|(name, specs)| Some((name.clone(), readiness(verdicts.get(name)?, specs))))
            .collect();
        (report, handle.take_events())
    }

    /// Decides which probes the node runs, and starts them. A group that was created with readiness probes keeps
    /// them: then ACI decides.
    fn choose_probes(&mut self) {
        let view = self.state.group_view();
        let containers = view.map_or(&[][..], |view| &view.properties.containers);
        let probed = containers
            .iter()
            .filter(|seen| seen.properties.readiness_probe.is_some());
        let probed: BTreeSet<String> = probed.filter_map(|seen| seen.name.clone()).collect();
        // A LIST does not show the containers.
        let is_other = !containers.is_empty() && probed != self.probes.probed_by_azure;
        if self.probes.specs.is_some() && !is_other {
            return;
        }
        if is_other {
            self.probes.probed_by_azure = probed;
        }
        let pod = self.state.pod();
        let in_subnet = self.context.settings().placement.subnet_id.is_some();
        let spec = pod
            .spec
            .iter()
            .filter(|_| !daemon_set::is_daemon_set_pod(pod));
        let containers = spec.flat_map(lasting_containers);
        let specs = containers.filter_map(|container| {
            let by_azure = self.probes.probed_by_azure.contains(&container.name);
            let specs = ProbeSpecs::of(container, in_subnet, by_azure)?;
            Some((container.name.clone(), specs))
        });
        let specs: BTreeMap<String, ProbeSpecs> = specs.collect();
        let statuses: Vec<_> = pod.status.iter().flat_map(container_statuses).collect();
        let seed = |name: &str| {
            let status = statuses.iter().find(|status| status.name == name)?;
            ProbeSeed::of(pod, status)
        };
        let containers = specs.iter();
        let containers = containers.map(|(name, specs)| (name.clone(), specs.clone(), seed(name)));
        let probed = ProbedPod {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            containers: containers.collect(),
            beacon: Some(EXTENSION_PORT),
        };
        let handle = (!specs.is_empty()).then(|| self.context.probes.add(probed));
        (self.probes.handle, self.probes.specs) = (handle, Some(specs));
    }

    fn probe_event(&self, container: &str, event: ProbeEvent) -> PodEvent {
        let pod = self.state.pod();
        let metadata = &pod.metadata;
        let is_sidecar = pod
            .spec
            .as_ref()
            .is_some_and(|spec| has_sidecar(spec, container));
        let list = if is_sidecar {
            "initContainers"
        } else {
            "containers"
        };
        let reason = event.reason.as_str();
        let parts = [
            metadata.uid.as_deref().unwrap_or_default(),
            container,
            reason,
            &event.message,
            &event.first.to_string(),
        ];
        let unique = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, parts.join("\0").as_bytes());
        let name = metadata.name.as_deref().unwrap_or("pod");
        PodEvent {
            name: k8s::events::event_name(name, &unique.simple().to_string()[..16]),
            reason: reason.to_owned(),
            message: event.message,
            event_type: "Warning",
            first_timestamp: Some(event.first),
            last_timestamp: Some(event.last),
            count: i32::try_from(event.count).unwrap_or(i32::MAX),
            field_path: Some(format!("spec.{list}{{{container}}}")),
        }
    }
}

/// The group's address while the group is known to exist. After that, Azure may give it to another pod's group.
pub(super) fn address(state: &super::state::WorkerState) -> Option<IpAddr> {
    let exists = matches!(state.pod_state().group, GroupPresence::Exists { .. });
    state.group_view().filter(|_| exists)?.ip()
}

fn readiness(verdict: &ProbeVerdict, specs: &ProbeSpecs) -> ContainerReadiness {
    let blocked = verdict.blocked.as_ref();
    ContainerReadiness {
        has_started: verdict.started,
        is_ready: verdict.ready,
        is_judged_by_node: specs.readiness.is_some(),
        blocked: blocked.map(|blocked| BlockedProbe {
            reason: match blocked {
                ProbeBlocked::Unproven { .. } => "PathUnproven",
                ProbeBlocked::Broken { .. } => "PathBroken",
                ProbeBlocked::Node { .. } => "NodeCannotConnect",
            },
            message: blocked.message().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU16;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::super::fixtures::{kubernetes, listed_worker};
    use super::*;
    use crate::aci::response::ContainerGroup;
    use crate::node::pods::PodSettings;
    use crate::node::pods::group_list::ListedState;

    /// A worker whose pod has a readiness probe and runs in a subnet, with this container in its group.
    fn worker(container: &Value, is_ready: bool) -> PodWorker {
        let mut worker = listed_worker(
            kubernetes(&Arc::new(AtomicU16::new(201))),
            ListedState::NotListed,
        );
        let mut settings: PodSettings = (*worker.context.settings()).clone();
        settings.placement.subnet_id = Some("subnet".to_owned());
        worker.context.change(settings);
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": {"containers": [{"name": "main", "readinessProbe": {"tcpSocket": {"port": 80}}}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "main", "image": "", "imageID": "", "restartCount": 0, "ready": is_ready, "started": true,
                "state": {"running": {"startedAt": "2026-07-01T00:00:00Z"}},
            }]},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        *worker.state.pod_mut() = pod;
        see(&mut worker, container);
        worker
    }

    /// A GET shows this container of the group.
    fn see(worker: &mut PodWorker, container: &Value) {
        let now = Timestamp::now();
        let container = json!({"name": "main", "properties": container});
        let group = json!({"name": "g", "properties": {"provisioningState": "Succeeded",
            "ipAddress": {"ip": "10.0.0.4"}, "containers": [container]}});
        let group = ContainerGroup::from_value(&group).expect("a group");
        worker.state.set_group_view(group);
        worker.state.pod_state_mut().group_listed(now, now);
        worker.observe_probes(now);
    }

    fn running() -> Value {
        json!({"instanceView": {"currentState": {"state": "Running", "startTime": "2026-07-01T00:00:00Z"}}})
    }

    fn is_ready(worker: &PodWorker) -> Option<bool> {
        let report = worker.probes.report()?;
        Some(report["main"].is_ready)
    }

    #[tokio::test]
    async fn a_container_is_ready_when_its_probe_says_so_or_an_earlier_leader_did() {
        for seed in [false, true] {
            let worker = worker(&running(), seed);
            assert_eq!(is_ready(&worker), Some(seed));
            assert_eq!(address(&worker.state), Some([10, 0, 0, 4].into()));
        }
    }

    #[tokio::test]
    async fn a_group_with_a_readiness_probe_of_azure_is_judged_by_azure() {
        let mut old = running();
        old["readinessProbe"] = json!({"httpGet": {"port": 80}});
        let mut worker = worker(&old, true);
        assert!(worker.probes.handle.is_none(), "the node runs no probe");
        assert_eq!(is_ready(&worker), Some(true), "as the pod's status says");
        // The pod gets another group, which has none.
        see(&mut worker, &running());
        assert!(worker.probes.handle.is_some(), "the node runs the probe");
        assert_eq!(is_ready(&worker), Some(true));
    }

    #[tokio::test]
    async fn a_group_that_is_not_known_to_exist_is_not_probed_and_keeps_its_verdict() {
        let mut worker = worker(&running(), true);
        worker.state.pod_state_mut().group = GroupPresence::Unknown;
        worker.observe_probes(Timestamp::now());
        assert_eq!(address(&worker.state), None);
        assert_eq!(is_ready(&worker), Some(true));
    }

    #[tokio::test]
    async fn a_readiness_that_is_lost_makes_the_worker_read_the_group() {
        let mut worker = worker(&running(), true);
        worker.state.pod_state_mut().is_stale = false;
        let ended =
            json!({"instanceView": {"currentState": {"state": "Terminated", "exitCode": 1}}});
        see(&mut worker, &ended);
        assert_eq!(is_ready(&worker), Some(false));
        assert!(worker.state.pod_state().is_stale);
    }

    #[tokio::test]
    async fn an_event_that_happens_again_keeps_its_name() {
        let worker = worker(&running(), true);
        let event = |count, message: &str| ProbeEvent {
            reason: crate::node::probe::ProbeEventReason::Unhealthy,
            message: message.to_owned(),
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::now(),
            count,
        };
        let named = |container, event| worker.probe_event(container, event).name;
        let first = named("main", event(1, "a"));
        assert_eq!(named("main", event(2, "a")), first);
        assert_ne!(named("main", event(1, "b")), first);
        assert_ne!(named("log", event(1, "a")), first);
        let written = worker.probe_event("main", event(7, "a"));
        let about = written.field_path.as_deref();
        assert_eq!((written.count, about), (7, Some("spec.containers{main}")));
    }
}
