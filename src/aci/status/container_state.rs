//! The states of one container: converts a run from Azure's instance view to Kubernetes.
//!
//! In: a run of an instance view. Out: `ContainerState`s. Called by [`container`](super::container).

use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus,
};
use sha2::{Digest as _, Sha256};

use super::{MAINTENANCE, PodRestartPolicy, StatusInput, whole_seconds};
use crate::aci::response::{self, ContainerInstanceView, ContainerRunView};

/// Exit codes of a container that the platform's maintenance ended (documentation of 2025-04).
pub const MAINTENANCE_EXIT_CODES: [i32; 2] = [7147, 7148];
/// The exit code if the real one is not known. It is the kubelet's: the code for SIGKILL.
pub const UNKNOWN_EXIT_CODE: i32 = 137;
/// The kubelet's reason for an end that it did not observe.
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

/// The state of a waiting container.
pub fn waiting_state(reason: &str, message: Option<String>) -> ContainerState {
    let reason = Some(reason.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason, message }),
        ..ContainerState::default()
    }
}

/// The state of a container that has ended.
pub fn terminated_state(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}

/// The state of a running container.
pub fn running_state(run: &ContainerRunView) -> ContainerState {
    let started_at = run.start_time.map(whole_seconds);
    ContainerState {
        running: Some(ContainerStateRunning { started_at }),
        ..ContainerState::default()
    }
}

/// How the container ended, if its status says so.
pub fn termination(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// How the container's previous run ended, if its status says so.
pub fn last_termination(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

/// Whether the container is running.
pub fn is_running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

/// Whether the container is running or has ever run.
pub fn has_run(status: &ContainerStatus) -> bool {
    is_running(status) || termination(status).is_some() || last_termination(status).is_some()
}

/// The ID of one run of a container. ACI has no such ID, so it is a hash of the pod's UID, the container's name and
/// the start time.
pub fn container_id(case: &StatusInput, name: &str, run: &ContainerRunView) -> Option<String> {
    let start = run.start_time?.as_millisecond();
    let digest = Sha256::digest(format!("{}/{name}/{start}", case.uid()));
    Some(format!("aci://{digest:x}"))
}

/// How a run ended.
pub fn run_termination(
    case: &StatusInput,
    name: &str,
    run: &ContainerRunView,
) -> ContainerStateTerminated {
    let code = exit_code(run);
    let reason = match (code, run.detail()) {
        (None, _) => STATUS_UNKNOWN,
        (Some(code), _) if MAINTENANCE_EXIT_CODES.contains(&code) => MAINTENANCE,
        (Some(0), None | Some("Error")) => "Completed",
        (Some(0), Some(detail)) => detail,
        (Some(_), None | Some("Completed")) => "Error",
        (Some(_), Some(detail)) => detail,
    };
    let message = match (code, reason) {
        (None, _) => Some("Azure does not report the exit code".to_owned()),
        (_, MAINTENANCE) => Some("ended by maintenance of Azure's platform".to_owned()),
        _ => None,
    };
    ContainerStateTerminated {
        exit_code: code.unwrap_or(UNKNOWN_EXIT_CODE),
        reason: Some(reason.to_owned()),
        message,
        started_at: run.start_time.map(whole_seconds),
        finished_at: run.finish_time.map(whole_seconds),
        container_id: container_id(case, name, run),
        ..ContainerStateTerminated::default()
    }
}

/// The previous run, if it has ended.
pub fn previous_run(view: &ContainerInstanceView) -> Option<&ContainerRunView> {
    let is_end = |run: &&ContainerRunView| run.kind() == response::ContainerState::Terminated;
    view.previous_state.as_ref().filter(is_end)
}

/// The first end of a container with restart policy `Never` that Azure restarted nevertheless.
///
/// The caller has already checked whether the live status contains the first end. Otherwise, the previous state is
/// the first run's, as long as there was only one restart. After more restarts the first end is lost, and the
/// oldest known end is used instead. If no end is known, it was a failure, because the platform restarts such
/// containers only after failures.
pub fn first_termination(
    case: &StatusInput,
    name: &str,
    view: &ContainerInstanceView,
) -> Option<ContainerStateTerminated> {
    let restarts = view.restart_count.unwrap_or_default();
    let previous = previous_run(view);
    if case.restart_policy != PodRestartPolicy::Never || (restarts <= 0 && previous.is_none()) {
        return None;
    }
    let mut first = previous.map_or_else(
        || ContainerStateTerminated {
            exit_code: UNKNOWN_EXIT_CODE,
            reason: Some(STATUS_UNKNOWN.to_owned()),
            ..ContainerStateTerminated::default()
        },
        |run| run_termination(case, name, run),
    );
    let which = match (previous, restarts) {
        (None, _) => "how it ended first is not known",
        (Some(_), ..=1) => "this is how it ended first",
        (Some(_), _) => "how it ended first was not seen, and this is the oldest end that is known",
    };
    let note = format!("Azure started it again although its restart policy is Never; {which}");
    first.message = Some(
        first
            .message
            .map_or(note.clone(), |message| format!("{message}; {note}")),
    );
    Some(first)
}

/// The exit code. Windows exit codes are unsigned; they are converted to signed numbers as a container runtime
/// does.
fn exit_code(run: &ContainerRunView) -> Option<i32> {
    let Some(code) = run.exit_code else {
        return (run.detail() == Some("Completed")).then_some(0);
    };
    let windows = || u32::try_from(code).ok().map(u32::cast_signed);
    Some(
        i32::try_from(code)
            .ok()
            .or_else(windows)
            .unwrap_or(UNKNOWN_EXIT_CODE),
    )
}
