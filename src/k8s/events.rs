//! Events that the API server accepts, whatever their words are.
//!
//! In: what happened, and the object that it happened to. Out: an Event within the limits of
//! `pkg/apis/core/validation/events.go` of Kubernetes 1.37, and its write. All limits are in bytes. An Event
//! beyond one of them is refused as invalid, and then the news is lost: every Event of burstpool takes its
//! name and its words from here.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Reporter};
use kube::{Api, Client};

/// The longest note, in bytes.
const NOTE: usize = 1024;
/// The longest reason, action and reporting instance, in bytes.
const WORD: usize = 128;
/// The longest name of an object, in bytes.
const NAME: usize = 253;
/// Ends a text that was cut.
const CUT: &str = "...";

/// The text as an Event's note or message: at most 1,024 bytes, cut between characters. A text that was
/// cut ends with three dots.
pub fn note(text: &str) -> String {
    if text.len() <= NOTE {
        return text.to_owned();
    }
    format!("{}{CUT}", within(text, NOTE - CUT.len()))
}

/// The text as an Event's reason or action: at most 128 bytes, cut between characters.
pub fn word(text: &str) -> String {
    within(text, WORD).to_owned()
}

/// The name of an Event: the name of its object and, after a dot, what makes it unique (at most 64 letters
/// and digits). The object's name is cut to what an object's name may be, and not within `unique`.
pub fn name(object: &str, unique: &str) -> String {
    let front = within(object, NAME - unique.len() - 1);
    // Each part between dots must end with a letter or a digit.
    format!("{}.{unique}", front.trim_end_matches(['.', '-']))
}

/// Writes one Event about `object`. Unlike kube's `Recorder`, which counts Events of the same reason as one
/// and keeps the first one's note, it writes a new Event each time.
///
/// # Errors
///
/// When the API server refuses the Event or does not answer. The caller limits the time.
pub async fn publish(
    client: &Client,
    reporter: &Reporter,
    event: &Event,
    object: &ObjectReference,
) -> kube::Result<()> {
    let event = of(reporter, event, object, Timestamp::now());
    // Events about objects without a namespace are in this one, as Kubernetes' own are.
    let namespace = object.namespace.as_deref().unwrap_or("default");
    let events: Api<Object> = Api::namespaced(client.clone(), namespace);
    events.create(&PostParams::default(), &event).await?;
    Ok(())
}

/// The object that is written.
fn of(reporter: &Reporter, event: &Event, object: &ObjectReference, now: Timestamp) -> Object {
    let controller = &reporter.controller;
    let kind = match event.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let unique = format!("{:x}", now.as_nanosecond());
    Object {
        metadata: ObjectMeta {
            name: Some(name(object.name.as_ref().unwrap_or(controller), &unique)),
            namespace: object.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some(word(&event.action)),
        event_time: Some(MicroTime(now)),
        note: event.note.as_deref().map(note),
        reason: Some(word(&event.reason)),
        regarding: Some(object.clone()),
        related: event.secondary.clone(),
        reporting_controller: Some(controller.clone()),
        reporting_instance: Some(word(reporter.instance.as_ref().unwrap_or(controller))),
        type_: Some(kind.to_owned()),
        ..Object::default()
    }
}

/// The beginning of `text`: at most so many bytes, whole characters.
fn within(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any text, often longer than every limit and often of characters of more than one byte.
    fn text() -> impl Strategy<Value = String> {
        ("[aé€🦀.-]{1,5}", 0..500_usize).prop_map(|(part, times)| part.repeat(times))
    }

    proptest! {
        #[test]
        fn every_event_is_within_the_limits_and_keeps_as_much_as_fits(
            note in text(), reason in text(), action in text(), instance in text(),
            object in "[a-z]([a-z.-]{0,260}[a-z])?",
        ) {
            let reporter = Reporter { controller: "burstpool".to_owned(), instance: Some(instance) };
            let event = Event {
                type_: EventType::Normal,
                reason: reason.clone(),
                note: Some(note.clone()),
                action,
                secondary: None,
            };
            let about = ObjectReference { name: Some(object), ..ObjectReference::default() };
            let written = of(&reporter, &event, &about, Timestamp::now());
            let (kept, said) = (written.note.expect("a note"), written.reason.expect("a reason"));
            prop_assert!(kept.len() <= 1024 && said.len() <= 128);
            prop_assert!(written.action.expect("an action").len() <= 128);
            prop_assert!(written.reporting_instance.expect("an instance").len() <= 128);
            if note.len() <= 1024 {
                prop_assert_eq!(&kept, &note);
            } else {
                prop_assert!(kept.len() > 1024 - 4 && kept.ends_with(CUT));
            }
            prop_assert!(reason.starts_with(&said) && (said == reason || said.len() > 128 - 4));
            let name = written.metadata.name.expect("a name");
            prop_assert!(name.len() <= 253);
            // RFC 1123, as far as cutting can break it.
            let is_label = |part: &str| !part.ends_with('-') && !part.is_empty();
            prop_assert!(is_label(name.split('.').next_back().expect("a part")));
            let before = name.rsplit_once('.').expect("two parts").0;
            prop_assert!(!before.ends_with(['.', '-']), "{name}");
        }
    }

    #[test]
    fn a_note_of_many_bytes_in_few_characters_is_cut_between_them() {
        let long = "€".repeat(1000);
        let cut = note(&long);
        assert_eq!((cut.len(), cut.chars().count()), (1023, 343));
        assert_eq!(note("short"), "short");
    }

    #[test]
    fn the_name_of_an_event_ends_with_what_makes_it_unique() {
        assert_eq!(name("web-1", "2a"), "web-1.2a");
        let long = format!("{}-{}", "a".repeat(249), "b".repeat(3));
        assert_eq!(name(&long, "2a"), format!("{}.2a", "a".repeat(249)));
    }
}
