//! Why a container waits, in a kubelet's words where it has one.
//!
//! In: what is seen of the group and of the container. Out: a waiting state. Called by
//! [`container`](super::container).

use k8s_openapi::api::core::v1::ContainerState;

use super::{Case, Policy, Seen, UNSUPPORTED, run};
use crate::aci::failure::{Verdict, is_about_an_image};
use crate::aci::view::{ContainerView, Event};

/// What a container waits for that was never heard of.
pub const CREATING: &str = "ContainerCreating";
/// The same while init containers are at work.
pub const INITIALIZING: &str = "PodInitializing";
/// A container's restart is being put off.
pub const CRASH_LOOP: &str = "CrashLoopBackOff";

/// Why a container waits. `usual` is what it waits for if nothing is wrong.
pub fn state(case: &Case, view: Option<&ContainerView>, usual: &str) -> ContainerState {
    match trouble(case) {
        Some((reason, message)) => run::waiting(&reason, Some(message)),
        None => of_container(case, view, usual),
    }
}

/// What keeps the whole group from starting: one word, and in words.
pub fn trouble(case: &Case) -> Option<(String, String)> {
    match case.seen {
        Seen::NotSubmitted | Seen::Deleted(None) => None,
        Seen::Refused(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(field, why)| format!("{field}: {why}"))
                .collect();
            Some((UNSUPPORTED.to_owned(), fields.join("; ")))
        }
        Seen::Waiting { reason, message } => Some((reason.to_owned(), message.to_owned())),
        Seen::Vanished => {
            let message = "the container group is gone, and is created again";
            Some((CREATING.to_owned(), message.to_owned()))
        }
        Seen::Group(group) | Seen::Deleted(Some(group)) => {
            let verdict = Verdict::of_group(group)?;
            Some((verdict.reason.to_owned(), verdict.message))
        }
    }
}

fn of_container(case: &Case, view: Option<&ContainerView>, usual: &str) -> ContainerState {
    let own = view.map_or(&[][..], |view| &view.events);
    let groups = case.group().map_or(&[][..], |group| group.events());
    let current = view.and_then(|view| view.current_state.as_ref());
    let pulling = pulling(own);
    let is_over = |event: &Event| pulling.is_none() && is_about_an_image(event);
    let all = own.iter().chain(groups);
    let warning = newest(all.filter(|event| is_warning(event) && !is_over(event)));
    let message = warning.map(|event| event.message.clone());
    if let Some(detail) = current.and_then(|run| run.detail()) {
        return run::waiting(detail, message);
    }
    let restarts = view.and_then(|view| view.restart_count).unwrap_or_default();
    if let Some(event) = pulling {
        let reason = if event.word().ends_with("BackOff") {
            "ImagePullBackOff"
        } else {
            "ErrImagePull"
        };
        run::waiting(reason, Some(event.message.clone()))
    } else if restarts > 0 && case.policy != Policy::Never {
        run::waiting(CRASH_LOOP, message)
    } else {
        run::waiting(usual, message)
    }
}

/// The event by which the image of a container cannot be pulled, if that is the last that was heard of
/// its image.
fn pulling(events: &[Event]) -> Option<&Event> {
    let is_good = |event: &Event| matches!(event.word(), "Pulled" | "Created" | "Started");
    let told = events
        .iter()
        .filter(|event| is_good(event) || is_about_an_image(event));
    newest(told).filter(|event| !is_good(event))
}

/// The newest event; of those at the same time, the last in the list.
fn newest<'a>(events: impl Iterator<Item = &'a Event>) -> Option<&'a Event> {
    events.max_by_key(|event| event.at())
}

/// Whether an event is trouble. The service's own example calls a failed mount normal.
fn is_warning(event: &Event) -> bool {
    event.kind.as_deref() == Some("Warning") || event.word().starts_with("Failed")
}
