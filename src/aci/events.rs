//! Azure's events as a pod's Events, each once.
//!
//! In: a pod and its container group. Out: [`PodEvent`]s for whoever writes Events. Pure; two calls
//! with the same group give the same events under the same names, also in another process: a name is
//! made of the pod's UID, the container, what happened, in which words, and when first. Writing one
//! again, by a server-side apply under its name, changes nothing; one that only happened more often
//! keeps its name and has another [`key`](PodEvent::key).
//!
//! Kubernetes forgets Events after an hour, Azure keeps its own longer: an event that is not
//! [fresh](PodEvent::is_fresh) must not be written by a process that does not know whether it was
//! already, or a restart of the operator would tell old news.
//!
//! A message is what Azure wrote, data and nothing else.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest as _, Sha256};

use super::view::{self, Event, Group};
use crate::k8s::events;

/// How long an Event is news: less than the hour for which an API server keeps it by default.
const NEWS: Duration = Duration::from_secs(45 * 60);
/// Events that are warnings, whatever the service calls them: its own example calls a failed mount
/// normal.
const WARNINGS: [&str; 4] = ["Failed", "FailedMount", "BackOff", "InsufficientCapacity"];

/// An Event to be written about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The Event object's name.
    pub name: String,
    /// What happened, in one word.
    pub reason: String,
    /// What happened, in Azure's words.
    pub message: String,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// When first.
    pub first: Option<Timestamp>,
    /// When last.
    pub last: Option<Timestamp>,
    /// How often.
    pub count: i32,
    /// The container, as `involvedObject.fieldPath` names it; nothing if it is about the whole group.
    pub field_path: Option<String>,
}

impl PodEvent {
    /// What identifies this saying: the same as long as there is nothing new to write.
    pub fn key(&self) -> (&str, i32) {
        (&self.name, self.count)
    }

    /// Whether it is still worth telling at `now` by who cannot know whether it was told. One without
    /// a time is not: it would be news for ever.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        let age = self.last.map(|last| now.duration_since(last));
        age.is_some_and(|age| age.is_negative() || age.unsigned_abs() < NEWS)
    }
}

/// The events of the group and of the pod's containers, oldest first.
pub fn events(pod: &Pod, group: &Group) -> Vec<PodEvent> {
    let mut all: Vec<PodEvent> = group
        .events()
        .iter()
        .map(|event| of(pod, None, event))
        .collect();
    let mut add = |field: &str, container: &Container, seen: Option<&view::Container>| {
        let path = format!("spec.{field}{{{}}}", container.name);
        let events = seen
            .and_then(view::Container::view)
            .map_or(&[][..], |view| &view.events);
        all.extend(events.iter().map(|event| of(pod, Some(&path), event)));
    };
    let spec = pod.spec.as_ref();
    for container in spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
    {
        add(
            "initContainers",
            container,
            group.init_container(&container.name),
        );
    }
    for container in spec.map_or(&[][..], |spec| &spec.containers) {
        add("containers", container, group.container(&container.name));
    }
    // Told twice, the telling that counted further is the newer.
    all.sort_by(|one, other| (&one.name, other.count).cmp(&(&other.name, one.count)));
    all.dedup_by(|one, other| one.name == other.name);
    all.sort_by(|one, other| (one.last, &one.name).cmp(&(other.last, &other.name)));
    all
}

fn of(pod: &Pod, field_path: Option<&str>, event: &Event) -> PodEvent {
    let reason = reason(event);
    let is_warning = event.kind.as_deref().is_some_and(|kind| kind != "Normal");
    let is_warning = is_warning || WARNINGS.contains(&reason.as_str());
    let (first, last) = (event.first_timestamp, event.last_timestamp);
    PodEvent {
        name: name(pod, field_path, event),
        message: events::note(&event.message),
        kind: if is_warning { "Warning" } else { "Normal" },
        first: first.or(last),
        last: last.or(first),
        count: i32::try_from(event.count.unwrap_or(1).max(1)).unwrap_or(i32::MAX),
        field_path: field_path.map(str::to_owned),
        reason,
    }
}

/// A word that an Event may have for a reason.
fn reason(event: &Event) -> String {
    let letters = event.word().chars().filter(char::is_ascii_alphanumeric);
    let letters: String = letters.collect();
    if letters.is_empty() {
        "AzureEvent".to_owned()
    } else {
        events::word(&letters)
    }
}

/// The name of the Event: the pod's, as usual, and 16 hex digits of what identifies it.
fn name(pod: &Pod, field_path: Option<&str>, event: &Event) -> String {
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
    events::name(pod_name, unique)
}

#[cfg(test)]
mod tests;
