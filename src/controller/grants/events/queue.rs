//! The queue of Events, and the task that writes them in order.
//!
//! In: Events. Out: writes. If the API server does not accept an Event, the task retries three times; after that
//! it forgets that the Event was published, so that a later plan publishes it again.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Reporter};
use tokio::sync::mpsc;

use super::published::PublishedEvents;
use crate::burst::PodReference;
use crate::k8s::call;
use crate::k8s::events;
use crate::k8s::rejected::is_rejected;

/// The reporting controller in the Events.
const REPORTER: &str = "burstpool";
/// How many Events may wait to be written. Further ones are dropped; a later plan publishes those about its
/// decisions again.
pub(super) const QUEUE_CAPACITY: usize = 10_000;

/// The timeout of writing one Event.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses before each retry of an Event that the API server did not accept.
const RETRY_PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// An Event that waits to be written.
pub(super) struct QueuedEvent {
    pub regarding: ObjectReference,
    pub event: Event,
    /// The pod's UID and the reason, by which a later plan publishes the Event again if this one is lost; `None`
    /// if it is not published again.
    pub publish_key: Option<(String, &'static str)>,
}

impl QueuedEvent {
    /// An Event about this object. It is not published again.
    pub fn new(regarding: ObjectReference, type_: EventType, reason: &str, note: String) -> Self {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Bursting".to_owned(),
            secondary: None,
        };
        Self {
            regarding,
            event,
            publish_key: None,
        }
    }

    /// An Event about this pod. It is not published again.
    pub fn about_pod(pod: &PodReference, type_: EventType, reason: &str, note: &str) -> Self {
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        Self::new(regarding, type_, reason, note.to_owned())
    }
}

/// The Events that wait to be written.
#[derive(Clone)]
pub(super) struct EventQueue(mpsc::Sender<QueuedEvent>);

impl EventQueue {
    /// An empty queue, and its other end.
    pub fn new() -> (Self, mpsc::Receiver<QueuedEvent>) {
        let (sender, receiver) = mpsc::channel(QUEUE_CAPACITY);
        (Self(sender), receiver)
    }

    /// Adds an Event. Returns `false` if it is dropped, because [`QUEUE_CAPACITY`] Events wait already.
    pub fn push(&self, event: QueuedEvent) -> bool {
        self.0.try_send(event).is_ok()
    }

    /// How many Events can still be added.
    #[cfg(test)]
    pub fn free_capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// Writes the Events of a queue, for as long as this future is polled. `instance` is the identity of this
/// instance of the operator.
pub(super) fn write_events(
    client: Client,
    instance: &str,
    mut waiting: mpsc::Receiver<QueuedEvent>,
    published: PublishedEvents,
) -> impl Future<Output = ()> + use<> {
    let reporter = Reporter {
        controller: REPORTER.to_owned(),
        instance: Some(instance.to_owned()),
    };
    async move {
        while let Some(queued) = waiting.recv().await {
            if !write(&client, &reporter, &queued).await
                && let Some((uid, reason)) = &queued.publish_key
            {
                published.forget(uid, reason);
            }
        }
    }
}

/// Writes an Event, with retries if the API server does not accept it for now. Returns `false` if it is lost. A
/// rejection is final, for example in a namespace that is being deleted, and counts as written.
async fn write(client: &Client, reporter: &Reporter, queued: &QueuedEvent) -> bool {
    let mut pauses = RETRY_PAUSES.iter();
    loop {
        let written = events::publish(client, reporter, &queued.event, &queued.regarding);
        let error = match call::with_timeout(CALL_TIMEOUT, written).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        tracing::debug!(%error, "cannot write an Event");
        if let kube::Error::Api(status) = &error
            && (is_rejected(status) || call::is_object_not_found(status))
        {
            return true;
        }
        let Some(pause) = pauses.next() else {
            return false;
        };
        tokio::time::sleep(*pause).await;
    }
}
