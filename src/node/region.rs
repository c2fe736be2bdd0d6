//! What a placement's region has to offer, looked at again and again.
//!
//! In: the region's usages, and what our own groups use. Out: the node's room, and whether it is
//! closed and why, into its [`Facts`]. A region that cannot be asked closes the placement; it never
//! makes the node not ready. Recovery opens it by itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::capacity::{self, Room};
use super::object::{Closed, Facts};
use super::pods::Context;
use crate::aci::client::Usage;
use crate::aci::error::Error;
use crate::api::Placement;

/// How often a region is asked.
const EVERY: Duration = Duration::from_secs(30);
/// How soon again when it answers badly.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the first look waits for the first LIST of groups.
const LISTED: Duration = Duration::from_secs(5);
/// How long after somebody told of trouble it is asked: many are told of at once.
const SETTLE: Duration = Duration::from_millis(200);
/// How long after it was asked it is asked again at the earliest.
const APART: Duration = Duration::from_secs(2);

/// Keeps the facts' room and closedness until `cancel`.
pub async fn keep(context: Arc<Context>, facts: watch::Sender<Facts>, cancel: CancellationToken) {
    // What is left of a quota is told with our own groups in what is used: until they are known, a node that
    // has many would seem to be full.
    let listed = tokio::time::timeout(LISTED, context.until_listed());
    if cancel.run_until_cancelled(listed).await.is_none() {
        return;
    }
    loop {
        let asked = Instant::now();
        let usages = context
            .azure
            .usages(&context.scope, &context.placement.region);
        // Azure may take a minute to answer, and whoever ends this waits until it has ended.
        let Some(answer) = cancel.run_until_cancelled(usages).await else {
            return;
        };
        let pause = match answer {
            Ok(usages) => {
                let room = capacity::offered(&context.placement, &usages, context.ours());
                let closed = exhausted(&context.placement, &usages);
                set(&facts, &cancel, Some(room), closed);
                EVERY
            }
            Err(error) => {
                let (closed, pause) = unasked(&error, facts.borrow().closed.as_ref());
                set(&facts, &cancel, None, Some(closed));
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = told(&context.trouble, asked) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// Returns when there is trouble. Trouble that goes on, as a thousand pods have it whose image nobody can
/// pull, does not take from their reads.
async fn told(trouble: &Notify, asked: Instant) {
    trouble.notified().await;
    let soon = Instant::now() + SETTLE;
    tokio::time::sleep_until(soon.max(asked + APART)).await;
}

/// Says so, unless the region is not to be looked at any more: whoever ends that says so first, and then what
/// the node is to be.
fn set(
    facts: &watch::Sender<Facts>,
    cancel: &CancellationToken,
    room: Option<Room>,
    closed: Option<Closed>,
) {
    facts.send_if_modified(|facts| {
        if cancel.is_cancelled() {
            return false;
        }
        let before = (facts.room, facts.closed.clone());
        facts.room = room.unwrap_or(facts.room);
        facts.closed = closed;
        let changed = (facts.room, &facts.closed) != (before.0, &before.1);
        if changed && facts.closed != before.1 {
            let node = facts.name();
            let why_before = before.1.as_ref().map(|closed| &closed.reason);
            match &facts.closed {
                Some(Closed { reason, message }) if why_before != Some(reason) => {
                    tracing::warn!(%node, %reason, %message, "closed");
                }
                Some(Closed { reason, message }) => {
                    tracing::debug!(%node, %reason, %message, "closed still");
                }
                None => tracing::info!(%node, "open"),
            }
        }
        changed
    });
}

/// What closes a region that cannot be asked, and how soon it is asked again. Where that is what closes it
/// already, its words stay: the node and the pool's status are written whenever they change.
fn unasked(error: &Error, before: Option<&Closed>) -> (Closed, Duration) {
    let reason = error.verdict().reason;
    let before = before.filter(|before| before.reason == reason);
    let (message, pause, is_told) = if let Error::Waiting { what, wait } = error {
        // Asked sooner, nothing would be sent. What Azure said when it asked for that says more than this.
        let message = format!("{what}: not sent, Azure asked to wait");
        (message, EVERY.min(*wait), before.is_some())
    } else {
        let message = error.story();
        let is_told = before.is_some_and(|before| gist(&before.message).eq(gist(&message)));
        (message, AGAIN, is_told)
    };
    let new = || Closed {
        reason: reason.to_owned(),
        message,
    };
    let told = before.filter(|_| is_told).cloned();
    (told.unwrap_or_else(new), pause)
}

/// The words of a message without numbers, times and traces, which the directory's errors have new ones of
/// each time. A code with digits begins with a capital and is one word.
fn gist(message: &str) -> impl Iterator<Item = &str> {
    let words = message.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'));
    words.filter(|word| {
        let is_code = word.starts_with(|c: char| c.is_ascii_uppercase()) && !word.contains('-');
        is_code || !word.contains(|c: char| c.is_ascii_digit())
    })
}

/// Why the region's limits leave nothing, if they do.
fn exhausted(placement: &Placement, usages: &[Usage]) -> Option<Closed> {
    let cores = capacity::cores(placement);
    let full = usages.iter().find(|usage| {
        (usage.is_of("ContainerGroups") || usage.is_of(cores)) && usage.used >= usage.limit
    })?;
    Some(Closed {
        reason: "QuotaExhausted".to_owned(),
        message: format!(
            "the quota '{}' in region '{}' is used up: {} of {}",
            full.name, placement.region, full.used, full.limit
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Priority;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_looked_into_at_once_and_trouble_that_goes_on_only_now_and_then() {
        let trouble = Notify::new();
        let asked = Instant::now();
        tokio::time::advance(EVERY).await;
        trouble.notify_one();
        let told_at = Instant::now();
        told(&trouble, asked).await;
        assert_eq!(told_at.elapsed(), SETTLE);
        let asked = Instant::now();
        for times in 1..=5 {
            trouble.notify_one();
            let before = Instant::now();
            told(&trouble, before).await;
            assert_eq!(asked.elapsed(), APART * times);
        }
    }

    /// We wait for so long still, because Azure asked us to.
    fn waiting(seconds: u64) -> Error {
        Error::Waiting {
            what: "reading usages of westus".to_owned(),
            wait: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn while_azure_asks_to_wait_a_region_stays_closed_in_the_same_words() {
        let throttled = Closed {
            reason: "Throttled".to_owned(),
            message: "too many requests".to_owned(),
        };
        let (closed, pause) = unasked(&waiting(590), Some(&throttled));
        assert_eq!((&closed, pause), (&throttled, EVERY));
        let (closed, pause) = unasked(&waiting(7), Some(&closed));
        assert_eq!((closed, pause), (throttled, Duration::from_secs(7)));
        // Another call was told to wait.
        let (first, _) = unasked(&waiting(590), None);
        let (second, _) = unasked(&waiting(585), Some(&first));
        assert_eq!(first, second);
    }

    #[test]
    fn an_error_that_only_counts_otherwise_than_before_closes_in_the_same_words() {
        let refused = |code: &str, trace: &str, at: &str| Error::Credential {
            what: "reading usages of westus".to_owned(),
            source: format!("{code}: Invalid secret. Trace ID: {trace} Timestamp: {at}").into(),
        };
        let first = refused("AADSTS7000215", "0a1f-77c0", "2026-11-24 10:00:00Z");
        let again = refused("AADSTS7000215", "93be-1d2c", "2026-11-24 10:00:05Z");
        let other = refused("AADSTS7000222", "93be-1d2c", "2026-11-24 10:00:05Z");
        let (first, pause) = unasked(&first, None);
        assert_eq!(pause, AGAIN);
        assert_eq!(unasked(&again, Some(&first)).0, first);
        assert_ne!(unasked(&other, Some(&first)).0, first);
    }

    #[test]
    fn a_quota_that_is_used_up_closes_in_words_and_another_priority_has_its_own() {
        let usage = |name: &str, used, limit| Usage {
            name: name.to_owned(),
            used,
            limit,
        };
        let usages = [
            usage("ContainerGroups", 3, 100),
            usage("StandardCores", 10, 10),
        ];
        let regular = Placement {
            region: "westus".to_owned(),
            ..Placement::default()
        };
        let closed = exhausted(&regular, &usages).expect("it is full");
        assert_eq!(
            closed.message,
            "the quota 'StandardCores' in region 'westus' is used up: 10 of 10"
        );
        let spot = Placement {
            priority: Priority::Spot,
            ..regular
        };
        assert_eq!(exhausted(&spot, &usages), None);
    }
}
