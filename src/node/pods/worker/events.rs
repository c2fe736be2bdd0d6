//! The Events of one pod: each is written once, and the number that is remembered is limited.
//!
//! In: Azure's events as a GET shows them, and the worker's own. Out: the Events to write, oldest first.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use crate::aci::events::PodEvent;

/// How many of Azure's events are remembered: the newest of one GET.
const MAX_AZURE_EVENTS: usize = 128;
/// How many of the worker's own Events are remembered. An Event that is forgotten and happens again is written
/// again under the same name.
const MAX_OWN_EVENTS: usize = 32;
/// How many Events wait to be written while the API server does not answer. The oldest are dropped first.
const MAX_PENDING_EVENTS: usize = 64;

/// Events to write, and the names of those already queued.
#[derive(Debug, Default)]
pub(super) struct PodEventQueue {
    /// Names of the events that the last GET showed, with their counts.
    azure_counts: HashMap<String, i32>,
    /// Names of the worker's own Events, oldest first.
    own_names: VecDeque<String>,
    pending: VecDeque<PodEvent>,
}

impl PodEventQueue {
    /// Queues the new ones of the events that a GET shows, oldest first. Events that Azure no longer shows are
    /// forgotten.
    pub fn observe_azure_events(&mut self, mut events: Vec<PodEvent>, now: Timestamp) {
        let older = events.len().saturating_sub(MAX_AZURE_EVENTS);
        events.drain(..older);
        let mut previous = std::mem::take(&mut self.azure_counts);
        for event in events {
            let (name, count) = event.key();
            let written = previous.remove(name);
            let name = name.to_owned();
            let is_new = event.is_fresh(now) && written.is_none_or(|written| written < count);
            if is_new || written.is_some() {
                self.azure_counts
                    .insert(name, written.map_or(count, |written| written.max(count)));
            }
            if is_new {
                self.enqueue(event);
            }
        }
    }

    /// Queues an Event of the worker's own, unless it is one of the last [`MAX_OWN_EVENTS`].
    pub fn add(&mut self, event: PodEvent) {
        if self.own_names.contains(&event.name) {
            return;
        }
        if self.own_names.len() == MAX_OWN_EVENTS {
            self.own_names.pop_front();
        }
        self.own_names.push_back(event.name.clone());
        self.enqueue(event);
    }

    /// Queues an Event that is counted elsewhere: it has happened again if it has the name of an earlier one.
    pub fn add_counted(&mut self, event: PodEvent) {
        self.enqueue(event);
    }

    fn enqueue(&mut self, event: PodEvent) {
        // An event with a higher count replaces the earlier one of the same name.
        self.pending.retain(|pending| pending.name != event.name);
        if self.pending.len() == MAX_PENDING_EVENTS {
            self.pending.pop_front();
        }
        self.pending.push_back(event);
    }

    /// Takes the next Event to write.
    pub fn pop(&mut self) -> Option<PodEvent> {
        self.pending.pop_front()
    }

    /// Puts back an Event that could not be written: it is the next again.
    pub fn put_back(&mut self, event: PodEvent) {
        self.pending.push_front(event);
    }

    /// Whether there is no Event to write.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn event(name: &str, count: i32) -> PodEvent {
        PodEvent {
            name: name.to_owned(),
            reason: "BackOff".to_owned(),
            message: String::new(),
            event_type: "Warning",
            first_timestamp: Some(NOW),
            last_timestamp: Some(NOW),
            count,
            field_path: None,
        }
    }

    fn written(events: &mut PodEventQueue) -> Vec<(String, i32)> {
        let next = std::iter::from_fn(|| events.pop());
        next.map(|event| (event.name, event.count)).collect()
    }

    #[test]
    fn each_event_is_written_once_and_again_when_its_count_grows() {
        let mut events = PodEventQueue::default();
        events.observe_azure_events(vec![event("a", 1), event("b", 1)], NOW);
        events.observe_azure_events(vec![event("a", 2), event("b", 1)], NOW);
        assert_eq!(
            written(&mut events),
            [("b".to_owned(), 1), ("a".to_owned(), 2)]
        );
        events.observe_azure_events(vec![event("a", 2), event("b", 1)], NOW);
        events.add(event("ours", 1));
        events.add(event("ours", 1));
        assert_eq!(written(&mut events), [("ours".to_owned(), 1)]);
    }

    #[test]
    fn the_events_of_a_container_that_crashes_for_weeks_take_bounded_memory() {
        let mut events = PodEventQueue::default();
        for n in 0..10_000 {
            events.observe_azure_events(vec![event("crash", n), event(&n.to_string(), 1)], NOW);
            events.add(event(&format!("ours-{n}"), 1));
        }
        assert!(events.azure_counts.len() <= 2 && events.own_names.len() <= MAX_OWN_EVENTS);
        assert!(events.len() <= MAX_PENDING_EVENTS, "{}", events.len());
        let many = (0..10_000).map(|n| event(&n.to_string(), 1)).collect();
        events.observe_azure_events(many, NOW);
        assert!(
            events.azure_counts.len() <= MAX_AZURE_EVENTS && events.len() <= MAX_PENDING_EVENTS
        );
    }
}
