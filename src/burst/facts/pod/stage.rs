//! The stage of a pod between creation and completion, from its status.
//!
//! In: a pod from a watch. Out: its [`PodStage`], for a bound pod with what its containers report.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec};

use crate::aci::failure::FailureClass;
use crate::aci::status::UNSUPPORTED;
use crate::k8s::containers::container_statuses;

/// The stage of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodStage {
    /// The scheduler has not decided yet, or the pod has scheduling gates.
    Undecided,
    /// The scheduler found no node for it. The time is the condition's transition time, or when the operator
    /// saw it.
    Unschedulable(Option<Timestamp>),
    /// It is bound to a node.
    Bound(BoundPod),
    /// Its phase is `Succeeded` or `Failed`.
    Finished,
}

/// A pod that is bound to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// The node's name.
    pub node: String,
    /// Since when, by the transition time of `PodScheduled`.
    pub bound_since: Option<Timestamp>,
    /// Whether any of its containers has ever started.
    pub has_started: bool,
    /// Whether its phase is `Running`.
    pub is_running: bool,
    /// Why ACI does not run the pod, if Azure refuses it permanently or its node does not send it to Azure.
    pub refusal: Option<String>,
    /// If it waits for Azure: the kind of failure and Azure's message.
    pub waiting_for_azure: Option<(FailureClass, String)>,
}

/// The stage of `pod`, from its node name, phase, conditions and container statuses.
pub(super) fn of_pod(pod: &Pod, spec: &PodSpec) -> PodStage {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return PodStage::Finished;
    }
    let conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let scheduled = conditions.clone().find(|c| c.type_ == "PodScheduled");
    let since = |condition: &PodCondition| condition.last_transition_time.as_ref().map(|at| at.0);
    let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) else {
        return match scheduled {
            Some(refused) if is_unschedulable(refused) => PodStage::Unschedulable(since(refused)),
            _ => PodStage::Undecided,
        };
    };
    let containers: Vec<&ContainerStatus> =
        status.into_iter().flat_map(container_statuses).collect();
    PodStage::Bound(BoundPod {
        node,
        bound_since: scheduled.and_then(since),
        has_started: containers.iter().any(|status| has_started(status)),
        is_running: phase == Some("Running"),
        refusal: containers.iter().find_map(|status| refusal(status)),
        waiting_for_azure: containers
            .iter()
            .find_map(|status| waiting_for_azure(status)),
    })
}

/// Whether the condition says that the scheduler found no node.
pub(super) fn is_unschedulable(condition: &PodCondition) -> bool {
    condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
}

fn has_started(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    let begun = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    begun
        || status.restart_count > 0
        || status
            .last_state
            .as_ref()
            .is_some_and(|last| last.terminated.is_some())
}

/// The failure that makes a pod wait for Azure. `None` if the user must fix it, such as a wrong image name.
fn waiting_for_azure(status: &ContainerStatus) -> Option<(FailureClass, String)> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let class = FailureClass::from_reason(waiting.reason.as_deref()?)?;
    class
        .may_run_elsewhere()
        .then(|| (class, waiting.message.clone().unwrap_or_default()))
}

/// Why ACI does not run a pod: Azure's message, or that of the virtual node, which names fields.
fn refusal(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    [FailureClass::InvalidRequest.reason(), UNSUPPORTED]
        .contains(&reason)
        .then(|| waiting.message.clone().unwrap_or_default())
}
