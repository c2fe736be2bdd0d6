//! Checks the region of a placement at regular intervals: quota, usage, and whether Azure accepts creates.
//!
//! In: the region's usages, the pods of its placements, and Azure's answers to creates. Out: what the node offers,
//! and whether the placement is closed and why, into the node's [`NodeConfig`]. If a check fails, the placement is
//! closed; the node stays Ready, and the placement reopens when a check succeeds. If the operator lacks only the
//! permission to read usages, the node offers the placement's `capacity`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::capacity;
use super::node_object::{NodeConfig, Unavailable};
use super::pods::PodsContext;
use crate::aci::client::QuotaUsage;
use crate::aci::error::Error;
use crate::api::Placement;
use crate::k8s::time::later;

/// The interval between two checks.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
/// The interval after a check that failed, and the shortest one when groups have gone.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How long the first check waits for the first LIST of groups.
const FIRST_LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a failure is reported the check runs: many failures are reported at once.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// The shortest time between two checks that failures cause.
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the offer is computed again without a notification: other placements of the region also change it.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(1);
/// A wait for creates that Azure asks for closes the placement if it is longer than this. Shorter waits are over
/// before the API server has the new node status.
const CLOSING_WAIT_THRESHOLD: Duration = Duration::from_secs(10);

/// Keeps the offer in `config`, and whether the region is closed, up to date until `cancel`.
pub async fn run(
    context: Arc<PodsContext>,
    config: watch::Sender<NodeConfig>,
    cancel: CancellationToken,
) {
    // Azure's usage includes the operator's own groups. Until these are known, a node with many groups would seem
    // to be full.
    let listed = tokio::time::timeout(FIRST_LIST_TIMEOUT, context.wait_until_listed());
    if cancel.run_until_cancelled(listed).await.is_some() {
        // Azure may take a minute to answer, and the code that cancels this task waits for its end.
        cancel
            .run_until_cancelled(poll_until_dropped(&context, &config, &cancel))
            .await;
    }
    context.quota.leave(&context);
}

async fn poll_until_dropped(
    context: &Arc<PodsContext>,
    config: &watch::Sender<NodeConfig>,
    cancel: &CancellationToken,
) {
    let mut state = RegionState::default();
    loop {
        let started = Instant::now();
        let before = config.borrow().region_unavailable.clone();
        let mut next = started + state.poll(context, before.as_ref()).await;
        publish(config, cancel, &state, context);
        let mut recount =
            tokio::time::interval_at(Instant::now() + RECOUNT_INTERVAL, RECOUNT_INTERVAL);
        recount.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                () = context.azure_failed.notified() => next = next.min(early_poll_at(started)),
                _ = recount.tick() => if context.quota.is_outdated() {
                    next = next.min(Instant::now().max(started + RETRY_INTERVAL));
                },
            }
            publish(config, cancel, &state, context);
        }
    }
}

/// When to check after a failure. Failures that repeat, as with a thousand pods whose image cannot be pulled, must
/// not use up the pods' rate of reads.
fn early_poll_at(last_poll: Instant) -> Instant {
    (Instant::now() + DEBOUNCE).max(last_poll + MIN_POLL_INTERVAL)
}

/// The region's last answer.
#[derive(Default)]
struct RegionState {
    unavailable: Option<Unavailable>,
    notice: Option<String>,
}

impl RegionState {
    /// Checks the region; returns the time until the next check.
    async fn poll(
        &mut self,
        context: &Arc<PodsContext>,
        previous: Option<&Unavailable>,
    ) -> Duration {
        let (settings, query) = (context.settings(), context.quota.begin_query());
        let placement = &settings.placement;
        let answer = context
            .azure
            .usages(&context.scope, &placement.region)
            .await;
        // If the operator may not list groups either, its identity has no role in the resource group at all.
        let is_forbidden = answer.as_ref().is_err_and(is_forbidden);
        let is_only_unread = is_forbidden && context.can_list().await;
        match answer {
            Ok(usages) => {
                (self.unavailable, self.notice) = (exhausted_quota(placement, &usages), None);
                context.quota.finish_query(query, Some(usages));
                POLL_INTERVAL
            }
            Err(_) if is_only_unread => {
                (self.unavailable, self.notice) =
                    (None, Some(unreadable_quota_message(&placement.region)));
                context.quota.finish_query(query, None);
                POLL_INTERVAL
            }
            Err(error) => {
                let (closed, pause) = poll_failure(&error, previous);
                (self.unavailable, self.notice) = (Some(closed), None);
                pause
            }
        }
    }
}

/// Whether Azure answered that the operator's identity lacks the permission.
fn is_forbidden(error: &Error) -> bool {
    error.failure().is_some_and(|failure| failure.status == 403)
}

fn unreadable_quota_message(region: &str) -> String {
    format!(
        "the quotas of region '{region}' cannot be read: the operator's identity lacks \
         Microsoft.ContainerInstance/locations/usages/read on the subscription"
    )
}

/// Why Azure accepts no creates at present; `None` if it accepts them.
fn create_throttling(context: &PodsContext) -> Option<Unavailable> {
    let (settings, now) = (context.settings(), Timestamp::now());
    let region = &settings.placement.region;
    let blocked_until = context.azure.creates_blocked_until(&context.scope);
    let blocked_until = blocked_until.filter(|until| later(now, CLOSING_WAIT_THRESHOLD) < *until);
    let spent_until = context.azure.remaining_creates(&context.scope);
    let spent_until = spent_until
        .filter(|(left, _)| *left == 0)
        .map(|(_, until)| until);
    let message = match (blocked_until, spent_until) {
        (Some(until), _) => format!(
            "Azure asks to wait with creating container groups in region '{region}' until {until:.0}"
        ),
        (None, Some(until)) => format!(
            "Azure accepts no more new container groups in region '{region}' until {until:.0} at the latest"
        ),
        (None, None) => return None,
    };
    Some(Unavailable {
        reason: "Throttled".to_owned(),
        message,
    })
}

/// Writes the result into `config`, unless the check was cancelled: the code that cancels it decides what the node
/// shows from then on.
fn publish(
    config: &watch::Sender<NodeConfig>,
    cancel: &CancellationToken,
    state: &RegionState,
    context: &Arc<PodsContext>,
) {
    let offer = context.quota.offer(context);
    let closed = state
        .unavailable
        .clone()
        .or_else(|| create_throttling(context));
    config.send_if_modified(|config| {
        if cancel.is_cancelled() {
            return false;
        }
        let previous = config.region_unavailable.clone();
        // While Azure does not answer, the last offer stands.
        let offer = if state
            .unavailable
            .as_ref()
            .is_some_and(|closed| closed.reason != QUOTA_EXHAUSTED)
        {
            config.offer
        } else {
            offer
        };
        let changed = (
            config.offer,
            &config.region_unavailable,
            &config.region_notice,
        ) != (offer, &closed, &state.notice);
        (config.offer, config.region_unavailable) = (offer, closed);
        config.region_notice.clone_from(&state.notice);
        if config.region_unavailable != previous {
            log_change(config.region_unavailable.as_ref(), previous.as_ref());
        }
        changed
    });
}

fn log_change(unavailable: Option<&Unavailable>, previous: Option<&Unavailable>) {
    match unavailable {
        Some(Unavailable { reason, message })
            if previous.is_none_or(|unavailable| unavailable.reason != *reason) =>
        {
            tracing::warn!(%reason, %message, "the placement is closed");
        }
        Some(Unavailable { reason, message }) => {
            tracing::debug!(%reason, %message, "the placement is still closed");
        }
        None => tracing::info!("the placement is open"),
    }
}

/// Why a failed check closes the placement, and the time until the next check. If the placement is already closed
/// for the same reason, the old message stays: every change of it writes the node and the pool's status.
fn poll_failure(error: &Error, previous: Option<&Unavailable>) -> (Unavailable, Duration) {
    let reason = error.verdict().reason;
    let previous = previous.filter(|previous| previous.reason == reason);
    let (message, pause, keeps_message) = if let Error::Waiting { what, wait } = error {
        // Before the wait is over, the client sends nothing. An earlier message with Azure's own text says more.
        let message = format!("{what}: not sent, Azure asked to wait");
        (message, POLL_INTERVAL.min(*wait), previous.is_some())
    } else {
        let message = error.error_chain();
        let keeps_message = previous
            .is_some_and(|previous| stable_words(&previous.message).eq(stable_words(&message)));
        (message, RETRY_INTERVAL, keeps_message)
    };
    let new = || Unavailable {
        reason: reason.to_owned(),
        message,
    };
    let kept = previous.filter(|_| keeps_message).cloned();
    (kept.unwrap_or_else(new), pause)
}

/// The words of a message without numbers, times and trace IDs, which differ in each error of Microsoft Entra ID. A
/// word with digits that begins with a capital and has no hyphen is an error code, and is kept.
fn stable_words(message: &str) -> impl Iterator<Item = &str> {
    let words = message.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_'));
    words.filter(|word| {
        let is_code = word.starts_with(|c: char| c.is_ascii_uppercase()) && !word.contains('-');
        is_code || !word.contains(|c: char| c.is_ascii_digit())
    })
}

/// The reason for a quota that is used up.
const QUOTA_EXHAUSTED: &str = "QuotaExhausted";

/// The limit of the region that is reached, if any.
fn exhausted_quota(placement: &Placement, usages: &[QuotaUsage]) -> Option<Unavailable> {
    let cores = capacity::core_quota_name(placement);
    let full = usages.iter().find(|usage| {
        (usage.is_named("ContainerGroups") || usage.is_named(cores)) && usage.used >= usage.limit
    })?;
    Some(Unavailable {
        reason: QUOTA_EXHAUSTED.to_owned(),
        message: format!(
            "the quota '{}' in region '{}' is used up: {} of {}",
            full.name, placement.region, full.used, full.limit
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aci::failure::ArmError;
    use crate::api::Priority;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_checked_at_once_and_repeated_failures_only_now_and_then() {
        let long_ago = Instant::now();
        tokio::time::advance(POLL_INTERVAL).await;
        assert_eq!(early_poll_at(long_ago), Instant::now() + DEBOUNCE);
        let just_now = Instant::now();
        assert_eq!(early_poll_at(just_now), just_now + MIN_POLL_INTERVAL);
    }

    #[test]
    fn a_region_whose_usages_are_forbidden_differs_from_one_that_does_not_answer() {
        let refused = |status: u16, code: &str| {
            let body = format!(r#"{{"error": {{"code": "{code}", "message": "no"}}}}"#);
            let failure = Box::new(ArmError::parse(status, body.as_bytes(), None));
            let what = "reading usages of westus".to_owned();
            Error::Refused { what, failure }
        };
        assert!(is_forbidden(&refused(403, "AuthorizationFailed")));
        for (status, code) in [
            (401, "AuthenticationFailed"),
            (404, "SubscriptionNotFound"),
            (503, ""),
        ] {
            assert!(!is_forbidden(&refused(status, code)), "{status}");
        }
        assert!(!is_forbidden(&waiting(5)));
        assert!(unreadable_quota_message("westus").contains("locations/usages/read"));
    }

    /// The client's error while Azure has asked it to wait for `seconds` more.
    fn waiting(seconds: u64) -> Error {
        Error::Waiting {
            what: "reading usages of westus".to_owned(),
            wait: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn while_azure_asks_to_wait_a_region_stays_closed_with_the_same_message() {
        let throttled = Unavailable {
            reason: "Throttled".to_owned(),
            message: "too many requests".to_owned(),
        };
        let (closed, pause) = poll_failure(&waiting(590), Some(&throttled));
        assert_eq!((&closed, pause), (&throttled, POLL_INTERVAL));
        let (closed, pause) = poll_failure(&waiting(7), Some(&closed));
        assert_eq!((closed, pause), (throttled, Duration::from_secs(7)));
        // Another call got the request to wait.
        let (first, _) = poll_failure(&waiting(590), None);
        let (second, _) = poll_failure(&waiting(585), Some(&first));
        assert_eq!(first, second);
    }

    #[test]
    fn an_error_that_differs_only_in_numbers_keeps_the_message() {
        let refused = |code: &str, trace: &str, at: &str| Error::Credential {
            what: "reading usages of westus".to_owned(),
            source: format!("{code}: Invalid secret. Trace ID: {trace} Timestamp: {at}").into(),
        };
        let first = refused("AADSTS7000215", "0a1f-77c0", "2026-11-24 10:00:00Z");
        let again = refused("AADSTS7000215", "93be-1d2c", "2026-11-24 10:00:05Z");
        let other = refused("AADSTS7000222", "93be-1d2c", "2026-11-24 10:00:05Z");
        let (first, pause) = poll_failure(&first, None);
        assert_eq!(pause, RETRY_INTERVAL);
        assert_eq!(poll_failure(&again, Some(&first)).0, first);
        assert_ne!(poll_failure(&other, Some(&first)).0, first);
    }

    #[test]
    fn a_quota_that_is_used_up_closes_only_placements_of_its_priority() {
        let usage = |name: &str, used, limit| QuotaUsage {
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
        let closed = exhausted_quota(&regular, &usages).expect("it is full");
        assert_eq!(
            closed.message,
            "the quota 'StandardCores' in region 'westus' is used up: 10 of 10"
        );
        let spot = Placement {
            priority: Priority::Spot,
            ..regular
        };
        assert_eq!(exhausted_quota(&spot, &usages), None);
    }
}
