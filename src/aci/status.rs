//! Computes the status of a pod that runs, or will run, on ACI.
//!
//! In: the live pod, what is known of its container group ([`GroupObservation`]), the node's address, and the time.
//! Out: the complete `PodStatus` ([`pod_status`]), whether it differs from the live status ([`is_same_status`]), and
//! the patch ([`status_patch`]). Pure. The pod worker calls it for one pod at a time, always with the live object and
//! not with the status that was sent last: others write the status too (the node controller sets `Ready` to False
//! when the operator is down).
//!
//! Rules, in order of precedence:
//!
//! 1. A finished phase is final. So is the end of a container that the restart policy does not restart (`Never`;
//!    `OnFailure` after exit code 0): the API server would reject the whole status.
//! 2. A container that ran, and whose end was not observed, gets exit code 137, as the kubelet writes it. The
//!    reason says how the end is known: [`NOT_FOUND`], [`STOPPED`], or `Error` (the pod was deleted).
//! 3. With restart policy `Never`, the first end counts. ACI may restart such a container after a failure
//!    (documentation of 2026-07); the later runs are not shown.
//! 4. A running pod stays Running until it ends or its container group is gone, whatever Azure does to the group.
//! 5. An error of Azure never fails a pod: the pod is Pending, and its containers show the reason. A pod fails only
//!    if its containers end, if the group is stopped in Azure, if a group that ran is lost, or at its own deadline.
//! 6. A pod fails at its `activeDeadlineSeconds`, with the kubelet's reason and message, once its group is gone: as
//!    with a kubelet, no pod is Failed while its containers may run.
//! 7. An answer without instance views (from a LIST) says nothing about containers, so their statuses stay as they
//!    are. There is one exception: if provisioning succeeded and the restart policy is `Always`, all containers
//!    were started and ACI restarts them whenever they end. A container that was not seen running before is then
//!    Running since an unknown time. A GET would show more, but may be sent a minute later if a thousand pods start.
//!
//! Conditions that belong to other writers (`PodScheduled`, readiness gates, `DisruptionTarget`) are kept and never
//! sent.
//!
//! A container is ready if it runs, if the probes that the node runs succeed ([`ReadinessReport`]), and unless Azure
//! reports its group as `Repairing` or `Deleting`. ACI does not report the results of the readiness probes that it
//! runs itself: [`ReadinessReport`] has what the group's events tell of them. A container without a readiness probe is
//! ready unless its group is `Unhealthy`.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, HostIP, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::response::{ContainerGroup, GroupContainer, Provisioning};

#[cfg(test)]
pub(in crate::aci) mod arbitrary;
mod azure_readiness;
mod condition;
mod container;
mod container_state;
mod deadline;
mod image_changes;
mod patch;
mod phase;
mod pre_stop;
#[cfg(test)]
mod properties;
mod readiness;
#[cfg(test)]
mod tests;
mod waiting_reason;

pub use azure_readiness::AzureReadiness;
pub use deadline::{DEADLINE_EXCEEDED, DEADLINE_EXCEEDED_MESSAGE, active_deadline};
pub use image_changes::{OutdatedContainer, images as outdated_images};
pub use patch::{is_same_status, is_urgent, status_patch};
pub use pre_stop::{PreStopProgress, PreStopRecord};
pub use readiness::{BlockedProbe, ContainerReadiness, ReadinessReport};

/// Reason of a pod whose container group disappeared while it ran, and of its containers' ends.
pub const NOT_FOUND: &str = "NotFound";
/// Reason of a pod whose container group was stopped in Azure.
pub const STOPPED: &str = "Stopped";
/// Reason of a pod that ACI cannot run, and of an ephemeral container.
pub const UNSUPPORTED: &str = "Unsupported";
/// Reason of a pod that is not ready because Azure is repairing its container group.
pub const REPAIRING: &str = "Repairing";
/// Reason of a container that the platform's maintenance ended (exit codes 7147 and 7148), and of the
/// `DisruptionTarget` condition, by which a Job's pod failure policy can ignore that failure.
pub const MAINTENANCE: &str = "PlatformMaintenance";

/// What is known of a pod's container group.
#[derive(Clone, Copy, Debug)]
pub enum GroupObservation<'a> {
    /// The operator has not sent anything to Azure yet.
    NotSubmitted,
    /// ACI cannot run the pod: the unsupported fields, each with the reason. The operator sends nothing to Azure.
    Rejected(&'a [(String, String)]),
    /// Azure did not create the group, or an object that the pod refers to does not exist yet. The status does not
    /// depend on whether the operator retries.
    Waiting {
        /// A reason word of [`failure`](super::failure).
        reason: &'a str,
        /// Azure's own message, or an explanation.
        message: &'a str,
    },
    /// The group, as Azure returned it to a GET, PUT or LIST.
    Group(&'a ContainerGroup),
    /// The group existed and is gone, and the operator did not delete it; or the pod exceeded its deadline and has no
    /// group.
    Vanished,
    /// The pod was deleted and so was its group; with the last known state of the group, if there is one.
    Deleted(Option<&'a ContainerGroup>),
}

/// What the node contributes to a pod's status.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFacts<'a> {
    /// The node's IP address.
    pub host_ip: Option<IpAddr>,
    /// What is known about the probes of this pod; `None` if it has none.
    pub readiness: Option<&'a ReadinessReport>,
    /// How far the pod's `preStop` hooks are; `None` keeps what the live status says.
    pub pre_stop: Option<&'a PreStopProgress>,
}

/// The inputs of a status.
struct StatusInput<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    live: &'a PodStatus,
    observation: GroupObservation<'a>,
    readiness: Option<&'a ReadinessReport>,
    pre_stop: Option<&'a PreStopProgress>,
    restart_policy: PodRestartPolicy,
    now: Timestamp,
}

/// The pod's restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PodRestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// Computes the status of `pod` from the state of its container group.
pub fn pod_status(
    pod: &Pod,
    observation: &GroupObservation,
    facts: &NodeFacts,
    now: Timestamp,
) -> PodStatus {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let mut case = StatusInput::new(pod, *observation, now, &no_spec, &no_status);
    (case.readiness, case.pre_stop) = (facts.readiness, facts.pre_stop);
    let mut containers = container::container_statuses(&case);
    let mut init = container::init_container_statuses(&case, &containers);
    let outcome = phase::pod_phase(&case, &init, &containers);
    if let Some(end) = &outcome.end {
        let statuses = init.iter_mut().chain(&mut containers);
        statuses.for_each(|status| end.apply(status, &case));
    }
    container::set_init_ready(&case, &mut init);
    let conditions = condition::pod_conditions(&case, &outcome, &init, &containers);
    let pod_ip = case.pod_ip();
    let host_ip = facts.host_ip.map(|ip| ip.to_string());
    PodStatus {
        phase: Some(outcome.phase.to_owned()),
        reason: outcome.reason,
        message: outcome.message,
        conditions: non_empty(conditions),
        init_container_statuses: non_empty(init),
        container_statuses: non_empty(containers),
        ephemeral_container_statuses: non_empty(ephemeral_statuses(&case)),
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip,
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: case.live.start_time.clone().or(Some(whole_seconds(now))),
        observed_generation: case.observed_generation(),
        ..case.live.clone()
    }
}

impl<'a> StatusInput<'a> {
    fn new(
        pod: &'a Pod,
        observation: GroupObservation<'a>,
        now: Timestamp,
        no_spec: &'a PodSpec,
        no_status: &'a PodStatus,
    ) -> Self {
        let spec = pod.spec.as_ref().unwrap_or(no_spec);
        let live = pod.status.as_ref().unwrap_or(no_status);
        let restart_policy = match spec.restart_policy.as_deref() {
            Some("Never") => PodRestartPolicy::Never,
            Some("OnFailure") => PodRestartPolicy::OnFailure,
            _ => PodRestartPolicy::Always,
        };
        Self {
            pod,
            spec,
            live,
            observation,
            readiness: None,
            pre_stop: None,
            restart_policy,
            now,
        }
    }

    /// The group, if Azure returned one.
    fn group(&self) -> Option<&'a ContainerGroup> {
        match self.observation {
            GroupObservation::Group(group) | GroupObservation::Deleted(Some(group)) => Some(group),
            _ => None,
        }
    }

    /// What probes say about a container; `None` if neither the node nor ACI runs a readiness or startup probe of it.
    fn container_readiness(&self, name: &str) -> Option<&'a ContainerReadiness> {
        self.readiness?.get(name)
    }

    fn is_gone(&self) -> bool {
        matches!(
            self.observation,
            GroupObservation::Vanished | GroupObservation::Deleted(_)
        )
    }

    /// Whether the live status says that the pod has ended.
    fn is_finished(&self) -> bool {
        matches!(
            self.live.phase.as_deref(),
            Some(phase::SUCCEEDED | phase::FAILED)
        )
    }

    /// Whether the live status says that a container of the pod (other than an init container) has ever run.
    fn has_run(&self) -> bool {
        let statuses = self.live.container_statuses.as_deref().unwrap_or_default();
        self.live.phase.as_deref() == Some(phase::RUNNING)
            || statuses.iter().any(container_state::has_run)
    }

    /// The group's provisioning state, if it makes the containers not ready.
    fn unready_state(&self) -> Option<&'a Provisioning> {
        use Provisioning::{Deleting, Repairing, Unhealthy};
        let state = self.group()?.provisioning()?;
        matches!(state, Unhealthy | Repairing | Deleting).then_some(state)
    }

    /// The pod's IP address: the group's address, else the one in the live status. A pod that will get another
    /// group has none until then. A pod that has ended keeps its address.
    fn pod_ip(&self) -> Option<String> {
        let assigned = self
            .group()
            .and_then(ContainerGroup::ip)
            .map(|ip| ip.to_string());
        let previous = self.live.pod_ip.clone().filter(|ip| !ip.is_empty());
        match self.observation {
            _ if self.is_finished() => previous.or(assigned),
            GroupObservation::Vanished if !self.has_run() => None,
            _ => assigned.or(previous),
        }
    }

    /// The generation of the pod's spec that the containers run. It does not advance if an image was changed after
    /// the group was created, because the group still runs the old image.
    fn observed_generation(&self) -> Option<i64> {
        let is_outdated = |group| !image_changes::images(self.pod, group).is_empty();
        if self.group().is_some_and(is_outdated) {
            self.live.observed_generation
        } else {
            self.pod.metadata.generation
        }
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }
}

/// Ephemeral containers: ACI does not support them. `kubectl debug` prints the message.
fn ephemeral_statuses(case: &StatusInput) -> Vec<ContainerStatus> {
    let status = |container: &EphemeralContainer| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(container_state::waiting_state(
            UNSUPPORTED,
            Some("Azure Container Instances cannot add a container to a running group".to_owned()),
        )),
        ..ContainerStatus::default()
    };
    case.spec
        .ephemeral_containers
        .iter()
        .flatten()
        .map(status)
        .collect()
}

/// The parts of the spec, of the group and of the live status that determine one container's status.
struct ContainerInput<'a> {
    container: &'a Container,
    group_container: Option<&'a GroupContainer>,
    live: Option<&'a ContainerStatus>,
}

/// Truncates a time to whole seconds, as Kubernetes stores it.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
