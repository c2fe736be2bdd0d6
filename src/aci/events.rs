//! Translates Azure's events to Events of a pod, each exactly once.
//!
//! In: a pod and its container group. Out: [`PodEvent`]s for the status writer. Pure and deterministic: the same
//! group gives the same events under the same names, also in another process. A name is made from the pod's UID,
//! the container, the event's name, its message and the time at which it first happened. Applying the same event
//! again under its name changes nothing. An event that only happened more often keeps its name and gets another
//! [`key`](PodEvent::key).
//!
//! By default, Kubernetes deletes Events after an hour; Azure keeps its own longer. A process that does not know
//! whether an event was already written must write only [fresh](PodEvent::is_fresh) ones. Otherwise, each restart
//! of the operator would repeat old Events.
//!
//! The message is Azure's text, unchanged except for its length. It is treated as data.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest as _, Sha256};

use super::response::{self, ContainerGroup, InstanceEvent};
use crate::k8s::events;

/// The age up to which an Event is fresh: less than the hour for which an API server keeps Events by default.
const MAX_EVENT_AGE: Duration = Duration::from_secs(45 * 60);
/// Reasons that are always warnings, whatever type Azure gives them: an example in ACI's documentation calls a
/// failed mount `Normal`.
const WARNING_REASONS: [&str; 4] = ["Failed", "FailedMount", "BackOff", "InsufficientCapacity"];

/// An Event to write about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The name of the Event object.
    pub name: String,
    /// The reason, in one word.
    pub reason: String,
    /// The message: Azure's, or the node's own.
    pub message: String,
    /// The Event's type: `Normal` or `Warning`.
    pub event_type: &'static str,
    /// When it first happened.
    pub first_timestamp: Option<Timestamp>,
    /// When it last happened.
    pub last_timestamp: Option<Timestamp>,
    /// How often it has happened, at least 1.
    pub count: i32,
    /// The container in the form of `involvedObject.fieldPath`; `None` if the event is about the whole group.
    pub field_path: Option<String>,
}

impl PodEvent {
    /// The name and the count. They change only if there is something new to write.
    pub fn key(&self) -> (&str, i32) {
        (&self.name, self.count)
    }

    /// Whether the event may be written at `now` by a process that does not know whether it was already written. An
    /// event without a time is never fresh, because it would stay fresh forever.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let age = self.last_timestamp.map(|last| now.duration_since(last));
        age.is_some_and(|age| age.is_negative() || age.unsigned_abs() < MAX_EVENT_AGE)
    }
}

/// The events of the group and of the pod's containers, oldest first.
pub fn pod_events(pod: &Pod, group: &ContainerGroup) -> Vec<PodEvent> {
    let mut events: Vec<PodEvent> = group
        .events()
        .iter()
        .map(|event| pod_event(pod, None, event))
        .collect();
    let mut add =
        |field: &str, container: &Container, group_container: Option<&response::GroupContainer>| {
            let path = format!("spec.{field}{{{}}}", container.name);
            let container_events = group_container
                .and_then(response::GroupContainer::instance_view)
                .map_or(&[][..], |view| &view.events);
            events.extend(
                container_events
                    .iter()
                    .map(|event| pod_event(pod, Some(&path), event)),
            );
        };
    let spec = pod.spec.as_ref();
    for container in spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
    {
        let seen = group.any_container(&container.name);
        add("initContainers", container, seen);
    }
    for container in spec.map_or(&[][..], |spec| &spec.containers) {
        add("containers", container, group.container(&container.name));
    }
    // If Azure lists an event twice, the one with the higher count is newer and is kept.
    events.sort_by(|one, other| (&one.name, other.count).cmp(&(&other.name, one.count)));
    events.dedup_by(|one, other| one.name == other.name);
    events.sort_by(|one, other| {
        (one.last_timestamp, &one.name).cmp(&(other.last_timestamp, &other.name))
    });
    events
}

fn pod_event(pod: &Pod, field_path: Option<&str>, event: &InstanceEvent) -> PodEvent {
    let reason = event_reason(event);
    let is_warning = event.kind.as_deref().is_some_and(|kind| kind != "Normal");
    let is_warning = is_warning || WARNING_REASONS.contains(&reason.as_str());
    let (first, last) = (event.first_timestamp, event.last_timestamp);
    PodEvent {
        name: event_name(pod, field_path, event),
        message: events::truncate_note(&event.message),
        event_type: if is_warning { "Warning" } else { "Normal" },
        first_timestamp: first.or(last),
        last_timestamp: last.or(first),
        count: i32::try_from(event.count.unwrap_or(1).max(1)).unwrap_or(i32::MAX),
        field_path: field_path.map(str::to_owned),
        reason,
    }
}

/// Reduces the event's reason to letters and digits, as an Event requires; `AzureEvent` if nothing is left.
fn event_reason(event: &InstanceEvent) -> String {
    let letters = event.reason().chars().filter(char::is_ascii_alphanumeric);
    let letters: String = letters.collect();
    if letters.is_empty() {
        "AzureEvent".to_owned()
    } else {
        events::truncate_reason(&letters)
    }
}

/// The name of the Event: the pod's name, as is usual, and 16 hex digits of a hash of the identifying fields.
fn event_name(pod: &Pod, field_path: Option<&str>, event: &InstanceEvent) -> String {
    let metadata = &pod.metadata;
    let first = event.first_timestamp.or(event.last_timestamp);
    let parts = [
        metadata.uid.as_deref().unwrap_or_default(),
        field_path.unwrap_or_default(),
        &event.name,
        &event.message,
        &first.map(|first| first.to_string()).unwrap_or_default(),
    ];
    let digest = Sha256::digest(parts.join("\0"));
    let unique = &format!("{digest:x}")[..16];
    let pod_name = metadata.name.as_deref().unwrap_or("pod");
    events::event_name(pod_name, unique)
}

#[cfg(test)]
mod tests;
