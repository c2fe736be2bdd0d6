//! A pod's phase, and the container ends that follow from it.
//!
//! In: the inputs of the status and the container statuses. Out: a [`PhaseOutcome`] with phase, reason and message.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};

use super::{
    DEADLINE_EXCEEDED, DEADLINE_EXCEEDED_MESSAGE, GroupObservation, NOT_FOUND, PodRestartPolicy,
    STOPPED, StatusInput, active_deadline, container_state, waiting_reason, whole_seconds,
};
use crate::aci::response::{ContainerGroup, GroupState};

pub const PENDING: &str = "Pending";
pub const RUNNING: &str = "Running";
pub const SUCCEEDED: &str = "Succeeded";
pub const FAILED: &str = "Failed";

/// A pod's phase, with reason and message.
pub struct PhaseOutcome {
    pub phase: &'static str,
    pub reason: Option<String>,
    pub message: Option<String>,
    /// The end of containers whose own end is not known; `None` if no end follows from the phase.
    pub end: Option<UnobservedEnd>,
}

/// The end of containers whose end was not observed.
pub struct UnobservedEnd {
    exit_code: i32,
    reason: &'static str,
    message: &'static str,
    /// Whether it also applies to containers that were never seen running.
    includes_never_run: bool,
}

/// The pod was deleted. The kubelet writes `Error` for a container that it had to kill.
const POD_DELETED: UnobservedEnd = UnobservedEnd {
    exit_code: container_state::UNKNOWN_EXIT_CODE,
    reason: "Error",
    message: "ended with its container group when the pod was deleted; Azure does not report its exit code",
    includes_never_run: false,
};
const GROUP_GONE: UnobservedEnd = UnobservedEnd {
    exit_code: container_state::UNKNOWN_EXIT_CODE,
    reason: NOT_FOUND,
    message: "its container group is gone",
    includes_never_run: false,
};
const GROUP_STOPPED: UnobservedEnd = UnobservedEnd {
    exit_code: container_state::UNKNOWN_EXIT_CODE,
    reason: STOPPED,
    message: "its container group was stopped in Azure",
    includes_never_run: false,
};
/// The pod exceeded its deadline, and its group was deleted.
const ENDED_AT_DEADLINE: UnobservedEnd = UnobservedEnd {
    exit_code: container_state::UNKNOWN_EXIT_CODE,
    reason: "Error",
    message: "ended with its container group at the pod's activeDeadlineSeconds; Azure does not report its exit code",
    includes_never_run: false,
};
const UNREPORTED_SUCCESS: UnobservedEnd = UnobservedEnd {
    exit_code: 0,
    reason: "Completed",
    message: "the container group succeeded",
    includes_never_run: true,
};
const UNREPORTED_FAILURE: UnobservedEnd = UnobservedEnd {
    exit_code: container_state::UNKNOWN_EXIT_CODE,
    reason: container_state::STATUS_UNKNOWN,
    message: "the container group failed, and Azure does not report the state of this container",
    includes_never_run: true,
};

/// Computes the pod's phase.
pub fn pod_phase(
    case: &StatusInput,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> PhaseOutcome {
    if case.is_finished() {
        return already_finished(case);
    }
    match case.observation {
        GroupObservation::Deleted(_) => deleted(containers),
        GroupObservation::Vanished
            if active_deadline(case.pod).is_some_and(|deadline| deadline <= case.now) =>
        {
            failed(
                DEADLINE_EXCEEDED,
                DEADLINE_EXCEEDED_MESSAGE,
                ENDED_AT_DEADLINE,
            )
        }
        GroupObservation::Vanished if case.has_run() => {
            let message = "the container group is gone although the pod was not deleted";
            failed(NOT_FOUND, message, GROUP_GONE)
        }
        GroupObservation::Group(group) => match ended(case, group, init, containers) {
            Some(outcome) => outcome,
            None => unfinished(case, containers),
        },
        _ => unfinished(case, containers),
    }
}

/// Keeps a finished phase. If the group is gone, containers that were still running have ended with it.
fn already_finished(case: &StatusInput) -> PhaseOutcome {
    let succeeded = case.live.phase.as_deref() == Some(SUCCEEDED);
    let end = match case.observation {
        GroupObservation::Vanished => GROUP_GONE,
        _ => POD_DELETED,
    };
    PhaseOutcome {
        phase: if succeeded { SUCCEEDED } else { FAILED },
        reason: case.live.reason.clone(),
        message: case.live.message.clone(),
        end: case.is_gone().then_some(end),
    }
}

/// The phase of a deleted pod, by the kubelet's rule: Succeeded if every container ended with exit code 0, else
/// Failed. Jobs with a `podFailurePolicy` or `podReplacementPolicy: Failed` wait for this phase.
fn deleted(containers: &[ContainerStatus]) -> PhaseOutcome {
    let ended_well = |status: &ContainerStatus| {
        let end = container_state::termination(status).or_else(|| {
            let waits = !container_state::is_running(status);
            container_state::last_termination(status).filter(|_| waits)
        });
        end.is_some_and(|end| end.exit_code == 0)
    };
    let succeeded = !containers.is_empty() && containers.iter().all(ended_well);
    without_reason(
        if succeeded { SUCCEEDED } else { FAILED },
        Some(POD_DELETED),
    )
}

/// The phase of a pod whose group has ended; `None` if it has not.
fn ended(
    case: &StatusInput,
    group: &ContainerGroup,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Option<PhaseOutcome> {
    let state = group.state().filter(|_| group.is_terminal());
    if state == Some(&GroupState::Stopped) {
        return Some(failed(
            STOPPED,
            "the container group was stopped in Azure",
            GROUP_STOPPED,
        ));
    }
    let codes: Vec<i32> = containers
        .iter()
        .filter_map(container_state::termination)
        .map(|end| end.exit_code)
        .collect();
    let all_ended = !containers.is_empty() && codes.len() == containers.len();
    let all_well = codes.iter().all(|code| *code == 0);
    let none_ran = !containers.iter().any(container_state::has_run);
    let init_failed = none_ran
        && init
            .iter()
            .filter_map(container_state::termination)
            .any(|end| end.exit_code != 0);
    match (case.restart_policy, state) {
        (PodRestartPolicy::Always, _) => None,
        (PodRestartPolicy::Never, _) if init_failed => Some(without_reason(FAILED, None)),
        (_, _) if all_ended && all_well => Some(without_reason(SUCCEEDED, None)),
        (PodRestartPolicy::Never, _) if all_ended => Some(without_reason(FAILED, None)),
        (_, Some(GroupState::Succeeded)) if all_well => {
            Some(without_reason(SUCCEEDED, Some(UNREPORTED_SUCCESS)))
        }
        (PodRestartPolicy::Never, Some(_)) => {
            Some(without_reason(FAILED, Some(UNREPORTED_FAILURE)))
        }
        (PodRestartPolicy::OnFailure | PodRestartPolicy::Never, _) => None,
    }
}

/// Pending, or Running once a container has run. It never goes back to Pending.
fn unfinished(case: &StatusInput, containers: &[ContainerStatus]) -> PhaseOutcome {
    let ran = case.has_run() || containers.iter().any(container_state::has_run);
    let trouble = waiting_reason::group_problem(case);
    let (reason, message) = trouble.unzip();
    PhaseOutcome {
        phase: if ran { RUNNING } else { PENDING },
        reason,
        message,
        end: None,
    }
}

fn without_reason(phase: &'static str, end: Option<UnobservedEnd>) -> PhaseOutcome {
    PhaseOutcome {
        phase,
        reason: None,
        message: None,
        end,
    }
}

fn failed(reason: &str, message: &str, end: UnobservedEnd) -> PhaseOutcome {
    PhaseOutcome {
        phase: FAILED,
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        end: Some(end),
    }
}

impl UnobservedEnd {
    /// Ends a container that has not ended. If it was waiting for a restart, its last end becomes its end. If it
    /// never ran, it stays as it is, as with the kubelet, unless the end applies to all containers.
    pub fn apply(&self, status: &mut ContainerStatus, case: &StatusInput) {
        if container_state::termination(status).is_some() {
            return;
        }
        let started_at = match &status.state {
            Some(state) if state.running.is_some() => state
                .running
                .as_ref()
                .and_then(|running| running.started_at.clone()),
            _ => match container_state::last_termination(status).cloned() {
                Some(last) => {
                    (status.state, status.last_state) =
                        (Some(container_state::terminated_state(last)), None);
                    return;
                }
                None if self.includes_never_run => None,
                None => return,
            },
        };
        let is_running = container_state::is_running(status);
        status.state = Some(container_state::terminated_state(
            ContainerStateTerminated {
                exit_code: self.exit_code,
                reason: Some(self.reason.to_owned()),
                message: Some(self.message.to_owned()),
                started_at,
                finished_at: is_running.then(|| whole_seconds(case.now)),
                container_id: status.container_id.clone(),
                ..ContainerStateTerminated::default()
            },
        ));
        (status.ready, status.started) = (false, Some(false));
    }
}
