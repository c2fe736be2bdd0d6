//! Why a container waits, with the kubelet's reasons where they exist.
//!
//! In: what is known of the group and of the container. Out: a waiting state. Called by
//! [`container`](super::container).

use k8s_openapi::api::core::v1::ContainerState;

use super::{GroupObservation, PodRestartPolicy, StatusInput, UNSUPPORTED, container_state};
use crate::aci::failure::{FailureVerdict, is_image_event};
use crate::aci::response::{ContainerInstanceView, InstanceEvent};

/// The usual reason of a waiting container before Azure reports anything about it.
pub const CONTAINER_CREATING: &str = "ContainerCreating";
/// The usual reason while init containers are running.
pub const POD_INITIALIZING: &str = "PodInitializing";
/// The reason of a container whose restart is delayed.
pub const CRASH_LOOP_BACK_OFF: &str = "CrashLoopBackOff";

/// Why a container waits. `usual` is the reason if there is no problem.
pub fn container_state(
    case: &StatusInput,
    view: Option<&ContainerInstanceView>,
    usual: &str,
) -> ContainerState {
    match group_problem(case) {
        Some((reason, message)) => container_state::waiting_state(&reason, Some(message)),
        None => container_waiting(case, view, usual),
    }
}

/// The problem that keeps the whole group from starting: reason word and message.
pub fn group_problem(case: &StatusInput) -> Option<(String, String)> {
    match case.observation {
        GroupObservation::NotSubmitted | GroupObservation::Deleted(None) => None,
        GroupObservation::Rejected(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(field, why)| format!("{field}: {why}"))
                .collect();
            Some((UNSUPPORTED.to_owned(), fields.join("; ")))
        }
        GroupObservation::Waiting { reason, message } => {
            Some((reason.to_owned(), message.to_owned()))
        }
        GroupObservation::Vanished => {
            let message = "the container group is gone, and is created again";
            Some((CONTAINER_CREATING.to_owned(), message.to_owned()))
        }
        GroupObservation::Group(group) | GroupObservation::Deleted(Some(group)) => {
            let verdict = FailureVerdict::from_group(group)?;
            Some((verdict.reason.to_owned(), verdict.message))
        }
    }
}

fn container_waiting(
    case: &StatusInput,
    view: Option<&ContainerInstanceView>,
    usual: &str,
) -> ContainerState {
    let container_events = view.map_or(&[][..], |view| &view.events);
    let group_events = case.group().map_or(&[][..], |group| group.events());
    let current = view.and_then(|view| view.current_state.as_ref());
    let pull_failure = image_pull_failure(container_events);
    let is_resolved = |event: &InstanceEvent| pull_failure.is_none() && is_image_event(event);
    let events = container_events.iter().chain(group_events);
    let warning = newest(events.filter(|event| is_warning(event) && !is_resolved(event)));
    let message = warning.map(|event| event.message.clone());
    if let Some(detail) = current.and_then(|run| run.detail()) {
        return container_state::waiting_state(detail, message);
    }
    let restarts = view.and_then(|view| view.restart_count).unwrap_or_default();
    if let Some(event) = pull_failure {
        let reason = if event.reason().ends_with("BackOff") {
            "ImagePullBackOff"
        } else {
            "ErrImagePull"
        };
        container_state::waiting_state(reason, Some(event.message.clone()))
    } else if restarts > 0 && case.restart_policy != PodRestartPolicy::Never {
        container_state::waiting_state(CRASH_LOOP_BACK_OFF, message)
    } else {
        container_state::waiting_state(usual, message)
    }
}

/// The event that says that the container's image cannot be pulled, unless a newer event says that the pull
/// succeeded.
fn image_pull_failure(events: &[InstanceEvent]) -> Option<&InstanceEvent> {
    let is_success =
        |event: &InstanceEvent| matches!(event.reason(), "Pulled" | "Created" | "Started");
    let pull_events = events
        .iter()
        .filter(|event| is_success(event) || is_image_event(event));
    newest(pull_events).filter(|event| !is_success(event))
}

/// The newest event; of several with the same time, the last in the list.
fn newest<'a>(events: impl Iterator<Item = &'a InstanceEvent>) -> Option<&'a InstanceEvent> {
    events.max_by_key(|event| event.last_seen())
}

/// Whether an event reports a problem. An example in ACI's documentation gives a failed mount the type `Normal`, so
/// the name is checked as well.
fn is_warning(event: &InstanceEvent) -> bool {
    event.kind.as_deref() == Some("Warning") || event.reason().starts_with("Failed")
}
