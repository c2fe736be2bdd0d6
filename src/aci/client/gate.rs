//! Waiting because Azure asked us to.
//!
//! In: each 429's `Retry-After`. Out: how long requests of that class must still wait. A class is
//! what ARM counts together: reads, writes and deletes of a subscription, and the service's own
//! creates and deletes of container groups.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long to wait after a 429 without `Retry-After`.
const USUAL: Duration = Duration::from_secs(5);
/// The longest wait that is believed: ARM's windows are an hour at most.
const LONGEST: Duration = Duration::from_secs(3600);

/// What Azure counts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// GET.
    Reads,
    /// PUT of container groups.
    Creates,
    /// DELETE of container groups.
    Deletes,
    /// POST: exec, stop.
    Actions,
}

/// Classes of subscriptions that must wait.
#[derive(Debug, Default)]
pub struct Gate(Mutex<HashMap<(String, Class), Instant>>);

impl Gate {
    /// How long requests of `class` must still wait.
    pub fn wait(&self, subscription: &str, class: Class) -> Option<Duration> {
        let closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = closed.get(&(subscription.to_owned(), class))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Closes the gate of `class` after a 429.
    pub fn close(&self, subscription: &str, class: Class, retry_after: Option<Duration>) {
        let until = Instant::now() + retry_after.unwrap_or(USUAL).min(LONGEST);
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = closed
            .entry((subscription.to_owned(), class))
            .or_insert(until);
        *entry = until.max(*entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_class_waits_as_long_as_it_was_asked_to_and_no_other_does() {
        let gate = Gate::default();
        gate.close("s", Class::Creates, Some(Duration::from_secs(10)));
        gate.close("s", Class::Creates, Some(Duration::from_secs(1)));
        assert_eq!(
            gate.wait("s", Class::Creates),
            Some(Duration::from_secs(10))
        );
        assert_eq!(
            (gate.wait("s", Class::Reads), gate.wait("t", Class::Creates)),
            (None, None)
        );
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(gate.wait("s", Class::Creates), None);
    }
}
