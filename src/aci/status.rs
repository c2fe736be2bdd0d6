//! A pod's status: what Kubernetes is told of a pod that runs, or is to run, on ACI.
//!
//! In: the pod as it is live, what is known of its container group ([`Seen`]), facts of the node, the
//! time. Out: the whole `PodStatus` ([`pod_status`]); whether it says anything else than the live one
//! ([`same`]) and the patch ([`status_patch`]). Pure. Called by the node's shell for one pod at a time,
//! with the live object: never with what was sent last, since others write too (the node
//! controller sets `Ready` to False when the operator is down).
//!
//! Rules, in the order in which they win:
//!
//! 1. A finished phase never goes back, nor does the end of a container that its restart policy does
//!    not undo (`Never`; `OnFailure` after exit code 0: the API server refuses the whole status).
//! 2. A container that ran and whose end nobody saw has exit code 137, as a kubelet writes it, with a
//!    reason that says how it is known: [`NOT_FOUND`], [`STOPPED`], `Error` (the pod was deleted).
//! 3. With restart policy `Never` the first end counts, although ACI may start such a container again
//!    after a failure (documentation of 2026-07): later runs are not shown.
//! 4. A pod that runs is Running until it ends or its group is gone, whatever Azure is doing to it.
//! 5. Nothing that Azure refuses fails a pod: it is Pending with the reason in its containers. Only
//!    an end, a stop by someone in Azure, or the loss of a group that ran does.
//! 6. An answer without instance views (of a LIST) says nothing of containers: they stay as they are.
//!    Except where provisioning succeeded, which it does once all containers were started, and they
//!    are started again whenever they end: one that was not seen to run before runs since an unknown
//!    time. A GET, which tells more, may be a minute away when a thousand pods start.
//!
//! Conditions of others (`PodScheduled`, those of readiness gates, `DisruptionTarget`) are kept and
//! never sent. ACI does not show readiness probes; a container that runs is ready unless the service
//! calls the group `Unhealthy`, `Repairing` or `Deleting`.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, HostIP, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::view::{Container as SeenContainer, Group, Provisioning};

#[cfg(test)]
pub(in crate::aci) mod arbitrary;
mod condition;
mod container;
mod outdated;
mod phase;
#[cfg(test)]
mod properties;
mod run;
#[cfg(test)]
mod tests;
mod waiting;
mod write;

pub use outdated::{Outdated, images as outdated_images};
pub use write::{is_urgent, same, status_patch};

/// Reason of a pod that lost its group while it ran, and of its containers' ends.
pub const NOT_FOUND: &str = "NotFound";
/// Reason of a pod whose group someone stopped in Azure.
pub const STOPPED: &str = "Stopped";
/// Reason of a pod that ACI cannot run, and of an ephemeral container.
pub const UNSUPPORTED: &str = "Unsupported";
/// Reason of a pod that is not ready because Azure is repairing its group.
pub const REPAIRING: &str = "Repairing";
/// Reason of a container's end by the platform's maintenance (exit codes 7147 and 7148), and of the
/// `DisruptionTarget` condition that lets a Job's failure policy ignore it.
pub const MAINTENANCE: &str = "PlatformMaintenance";

/// What is known of a pod's container group.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Nothing was sent to Azure yet.
    NotSubmitted,
    /// ACI cannot run the pod: fields, each with why. Nothing is sent.
    Refused(&'a [(String, String)]),
    /// Azure did not create it, or something it needs is not there yet; whether it is tried again is
    /// not the status's concern. A reason of [`failure`](super::failure) and Azure's own words.
    Waiting {
        /// One word.
        reason: &'a str,
        /// In words.
        message: &'a str,
    },
    /// The group, as a GET, a PUT or a LIST answered it.
    Group(&'a Group),
    /// There was a group, and there is none, and nobody asked for that.
    Vanished,
    /// The pod was deleted, and its group with it. What was seen of it last.
    Deleted(Option<&'a Group>),
}

/// What a status says of the node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFacts {
    /// The node's address.
    pub host_ip: Option<IpAddr>,
}

/// Everything that a status is made from.
struct Case<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    live: &'a PodStatus,
    seen: Seen<'a>,
    policy: Policy,
    now: Timestamp,
}

/// When containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    OnFailure,
    Never,
}

/// The status of `pod`, given what is seen of its container group.
pub fn pod_status(pod: &Pod, seen: &Seen, facts: &NodeFacts, now: Timestamp) -> PodStatus {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let case = Case::new(pod, *seen, now, &no_spec, &no_status);
    let mut containers = container::main(&case);
    let mut init = container::init(&case, &containers);
    let outcome = phase::of(&case, &init, &containers);
    if let Some(end) = &outcome.end {
        let all = init.iter_mut().chain(&mut containers);
        all.for_each(|status| end.reach(status, &case));
    }
    container::set_ready(&mut init);
    let conditions = condition::all(&case, &outcome, &init, &containers);
    let pod_ip = case.pod_ip();
    let host_ip = facts.host_ip.map(|ip| ip.to_string());
    PodStatus {
        phase: Some(outcome.phase.to_owned()),
        reason: outcome.reason,
        message: outcome.message,
        conditions: some(conditions),
        init_container_statuses: some(init),
        container_statuses: some(containers),
        ephemeral_container_statuses: some(ephemeral(&case)),
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip,
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        start_time: case.live.start_time.clone().or(Some(seconds(now))),
        observed_generation: case.observed_generation(),
        ..case.live.clone()
    }
}

impl<'a> Case<'a> {
    fn new(
        pod: &'a Pod,
        seen: Seen<'a>,
        now: Timestamp,
        no_spec: &'a PodSpec,
        no_status: &'a PodStatus,
    ) -> Self {
        let spec = pod.spec.as_ref().unwrap_or(no_spec);
        let live = pod.status.as_ref().unwrap_or(no_status);
        let policy = match spec.restart_policy.as_deref() {
            Some("Never") => Policy::Never,
            Some("OnFailure") => Policy::OnFailure,
            _ => Policy::Always,
        };
        Self {
            pod,
            spec,
            live,
            seen,
            policy,
            now,
        }
    }

    /// The group, where one was seen.
    fn group(&self) -> Option<&'a Group> {
        match self.seen {
            Seen::Group(group) | Seen::Deleted(Some(group)) => Some(group),
            _ => None,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.seen, Seen::Vanished | Seen::Deleted(_))
    }

    /// Whether the live status says that the pod has ended.
    fn is_finished(&self) -> bool {
        matches!(
            self.live.phase.as_deref(),
            Some(phase::SUCCEEDED | phase::FAILED)
        )
    }

    /// Whether a container of the pod proper ever ran, as far as the live status says.
    fn ran(&self) -> bool {
        let statuses = self.live.container_statuses.as_deref().unwrap_or_default();
        self.live.phase.as_deref() == Some(phase::RUNNING) || statuses.iter().any(run::has_run)
    }

    /// What Azure is doing to the group that makes its containers not ready.
    fn disturbance(&self) -> Option<&'a Provisioning> {
        use Provisioning::{Deleting, Repairing, Unhealthy};
        let state = self.group()?.provisioning()?;
        matches!(state, Unhealthy | Repairing | Deleting).then_some(state)
    }

    /// The pod's address: the group's; while that is not told, the one that is known, unless the pod
    /// is yet to get another group. A pod that has ended keeps the one it had.
    fn pod_ip(&self) -> Option<String> {
        let told = self.group().and_then(Group::ip).map(|ip| ip.to_string());
        let known = self.live.pod_ip.clone().filter(|ip| !ip.is_empty());
        match self.seen {
            _ if self.is_finished() => known.or(told),
            Seen::Vanished if !self.ran() => None,
            _ => told.or(known),
        }
    }

    /// The generation of the pod that its containers are of: an image that was changed since is not used.
    fn observed_generation(&self) -> Option<i64> {
        let is_outdated = |group| !outdated::images(self.pod, group).is_empty();
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

/// Ephemeral containers: ACI has no such thing, and `kubectl debug` prints the message.
fn ephemeral(case: &Case) -> Vec<ContainerStatus> {
    let status = |container: &EphemeralContainer| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(run::waiting(
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

/// The part of the spec and of the group that a container's status is made from.
struct Part<'a> {
    container: &'a Container,
    seen: Option<&'a SeenContainer>,
    live: Option<&'a ContainerStatus>,
}

/// A time as Kubernetes keeps it: whole seconds.
fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
