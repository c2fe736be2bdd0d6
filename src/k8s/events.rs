//! Builds Events that pass the API server's validation, whatever text they contain.
//!
//! In: what happened, and the object that it happened to. Out: an Event within the limits of
//! `pkg/apis/core/validation/events.go` of Kubernetes 1.37, written to the API server. All limits are in bytes. The
//! API server rejects an Event that exceeds one of them, and the report would be lost; therefore burstpool builds
//! the name and the texts of every Event here.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Reporter};
use kube::{Api, Client};

/// The longest note, in bytes.
const MAX_NOTE_BYTES: usize = 1024;
/// The longest reason, action and reporting instance, in bytes.
const MAX_REASON_BYTES: usize = 128;
/// The longest name of an object, in bytes.
const MAX_NAME_BYTES: usize = 253;
/// The end of a truncated text.
const ELLIPSIS: &str = "...";

/// Truncates a text to the length of an Event's note or message: 1,024 bytes, on a character boundary. A truncated
/// text ends with three dots.
pub fn truncate_note(text: &str) -> String {
    if text.len() <= MAX_NOTE_BYTES {
        return text.to_owned();
    }
    format!(
        "{}{ELLIPSIS}",
        truncate(text, MAX_NOTE_BYTES - ELLIPSIS.len())
    )
}

/// Truncates a text to the length of an Event's reason or action: 128 bytes, on a character boundary.
pub fn truncate_reason(text: &str) -> String {
    truncate(text, MAX_REASON_BYTES).to_owned()
}

/// The name of an Event: the name of its object, a dot, and `unique` (at most 64 letters and digits). If the result
/// would be too long, the object's name is truncated.
pub fn event_name(object: &str, unique: &str) -> String {
    let prefix = truncate(object, MAX_NAME_BYTES - unique.len() - 1);
    // Each part between dots must end with a letter or a digit.
    format!("{}.{unique}", prefix.trim_end_matches(['.', '-']))
}

/// Writes one Event about `object`. Unlike kube's `Recorder`, which merges Events of the same reason into one and
/// keeps the first note, it writes a new Event each time.
///
/// # Errors
///
/// If the API server rejects the Event or does not answer. The caller sets the timeout.
pub async fn publish(
    client: &Client,
    reporter: &Reporter,
    event: &Event,
    object: &ObjectReference,
) -> kube::Result<()> {
    let event = build_event(reporter, event, object, Timestamp::now());
    // Events about cluster-scoped objects go to this namespace, as Kubernetes' own do.
    let namespace = object.namespace.as_deref().unwrap_or("default");
    let events: Api<Object> = Api::namespaced(client.clone(), namespace);
    events.create(&PostParams::default(), &event).await?;
    Ok(())
}

/// Builds the Event object.
fn build_event(
    reporter: &Reporter,
    event: &Event,
    object: &ObjectReference,
    now: Timestamp,
) -> Object {
    let controller = &reporter.controller;
    let kind = match event.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let unique = format!("{:x}", now.as_nanosecond());
    Object {
        metadata: ObjectMeta {
            name: Some(event_name(
                object.name.as_ref().unwrap_or(controller),
                &unique,
            )),
            namespace: object.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some(truncate_reason(&event.action)),
        event_time: Some(MicroTime(now)),
        note: event.note.as_deref().map(truncate_note),
        reason: Some(truncate_reason(&event.reason)),
        regarding: Some(object.clone()),
        related: event.secondary.clone(),
        reporting_controller: Some(controller.clone()),
        reporting_instance: Some(truncate_reason(
            reporter.instance.as_ref().unwrap_or(controller),
        )),
        type_: Some(kind.to_owned()),
        ..Object::default()
    }
}

/// The start of `text`: at most `bytes` bytes, ending on a character boundary.
fn truncate(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Arbitrary text, often longer than every limit, and often with multi-byte characters.
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
            let written = build_event(&reporter, &event, &about, Timestamp::now());
            let (kept_note, kept_reason) = (written.note.expect("a note"), written.reason.expect("a reason"));
            prop_assert!(kept_note.len() <= 1024 && kept_reason.len() <= 128);
            prop_assert!(written.action.expect("an action").len() <= 128);
            prop_assert!(written.reporting_instance.expect("an instance").len() <= 128);
            if note.len() <= 1024 {
                prop_assert_eq!(&kept_note, &note);
            } else {
                prop_assert!(kept_note.len() > 1024 - 4 && kept_note.ends_with(ELLIPSIS));
            }
            let is_long_enough = kept_reason == reason || kept_reason.len() > 128 - 4;
            prop_assert!(reason.starts_with(&kept_reason) && is_long_enough);
            let name = written.metadata.name.expect("a name");
            prop_assert!(name.len() <= 253);
            // The rules of RFC 1123 that truncation can violate.
            let is_label = |part: &str| !part.ends_with('-') && !part.is_empty();
            prop_assert!(is_label(name.split('.').next_back().expect("a part")));
            let prefix = name.rsplit_once('.').expect("two parts").0;
            prop_assert!(!prefix.ends_with(['.', '-']), "{name}");
        }
    }

    #[test]
    fn a_note_is_cut_between_multi_byte_characters() {
        let long = "€".repeat(1000);
        let cut = truncate_note(&long);
        assert_eq!((cut.len(), cut.chars().count()), (1023, 343));
        assert_eq!(truncate_note("short"), "short");
    }

    #[test]
    fn the_name_of_an_event_ends_with_its_unique_part() {
        assert_eq!(event_name("web-1", "2a"), "web-1.2a");
        let long = format!("{}-{}", "a".repeat(249), "b".repeat(3));
        assert_eq!(event_name(&long, "2a"), format!("{}.2a", "a".repeat(249)));
    }
}
