//! Waiting because Azure asked us to.
//!
//! In: each 429's `Retry-After`. Out: how long requests that are counted together must still wait: a
//! subscription's by class and, where the service counts creates and deletes of container groups
//! itself, by region, so that one that is busy does not hold up the others.

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
    /// GET of Azure Monitor's metrics: nothing else is to wait because of them.
    Metrics,
}

impl Class {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Creates => "creates",
            Self::Deletes => "deletes",
            Self::Actions => "actions",
            Self::Metrics => "metrics",
        }
    }
}

/// Requests that Azure counts together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Counted {
    /// The subscription's id.
    pub subscription: String,
    /// The region, where each has a count of its own.
    pub region: Option<String>,
    /// The class.
    pub class: Class,
}

impl Counted {
    /// A request of `class` in `region`.
    pub fn new(subscription: &str, region: Option<&str>, class: Class) -> Self {
        let is_by_region = matches!(class, Class::Creates | Class::Deletes);
        Self {
            subscription: subscription.to_owned(),
            region: region.filter(|_| is_by_region).map(str::to_owned),
            class,
        }
    }
}

/// Requests that must wait.
#[derive(Debug, Default)]
pub struct Gate(Mutex<HashMap<Counted, Instant>>);

impl Gate {
    /// How long such requests must still wait.
    pub fn wait(&self, counted: &Counted) -> Option<Duration> {
        let closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = closed.get(counted)?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Closes the gate to such requests after a 429.
    pub fn close(&self, counted: Counted, retry_after: Option<Duration>) {
        let until = Instant::now() + retry_after.unwrap_or(USUAL).min(LONGEST);
        let mut closed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = closed.entry(counted).or_insert(until);
        *entry = until.max(*entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_together_waits_as_long_as_it_was_asked_to_and_nothing_else_does() {
        let gate = Gate::default();
        let counted = |subscription: &str, class| Counted::new(subscription, Some("weu"), class);
        let creates = counted("s", Class::Creates);
        gate.close(creates.clone(), Some(Duration::from_secs(10)));
        gate.close(creates.clone(), Some(Duration::from_secs(1)));
        assert_eq!(gate.wait(&creates), Some(Duration::from_secs(10)));
        for other in [
            counted("s", Class::Reads),
            counted("t", Class::Creates),
            Counted::new("s", Some("neu"), Class::Creates),
        ] {
            assert_eq!(gate.wait(&other), None, "{other:?}");
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(gate.wait(&creates), None);
        gate.close(counted("s", Class::Reads), None);
        let elsewhere = Counted::new("s", Some("neu"), Class::Reads);
        assert!(
            gate.wait(&elsewhere).is_some(),
            "reads are the subscription's"
        );
    }
}
