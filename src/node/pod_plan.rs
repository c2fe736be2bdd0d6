//! The next action for one pod, and when it is due.
//!
//! In: the pod as the API server has it, what is known of its container group, and the time. Out: one [`PodAction`]
//! and its time. Pure: [`pods`](super::pods) executes the action and records the answer.
//!
//! ```text
//! Unknown ─Discover─▶ Absent ─Create─▶ Exists ─Refresh─▶ Exists ─Delete─▶ Deleting ─Refresh─▶ Absent ─Remove─▶
//!                           └─no answer─▶ Unknown   └─vanished─▶ Absent
//! ```
//!
//! A group becomes Absent only on proof ([`is_gone`]): Azure may deny a group that exists.

mod observations;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use sha2::{Digest as _, Sha256};

use super::absence::{AbsenceEvidence, EvidenceSource, PriorGroupState};
use crate::aci::poll_interval::{self, PollPhase, StartLatencies};
use crate::k8s::time::later;
pub use observations::GroupReading;

/// How long a Ready pod's group outlives the request to delete the pod, so that Services stop sending traffic to it
/// first.
const DRAIN_DELAY: Duration = Duration::from_secs(3);
/// How long the group of a finished pod is kept, so that its logs can be read. After that the group is deleted and
/// no longer counts against the quota.
pub const FINISHED_GROUP_TTL: Duration = Duration::from_secs(300);
/// The shortest time for which the group is kept after the operator saw the pod finished, by the operator's clock.
const MIN_FINISHED_GROUP_TTL: Duration = Duration::from_secs(30);

/// What is known of a pod's container group.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum GroupPresence {
    /// Not known: the operator has just started, or Azure did not answer a request.
    #[default]
    Unknown,
    /// There is no group.
    Absent {
        /// Whether a group existed before: it vanished or was deleted.
        existed: bool,
    },
    /// There is a group.
    Exists {
        /// When the group was created, or since when it is known to exist.
        since: Timestamp,
        /// When the last GET showed it.
        last_read: Option<Timestamp>,
        /// Whether all its containers have started at least once.
        has_run: bool,
    },
    /// Azure is deleting the group.
    Deleting {
        /// When the deletion began, or was first seen.
        since: Timestamp,
        /// When the last GET showed it.
        last_read: Option<Timestamp>,
    },
}

/// What is known of a pod and its group that the decision depends on.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with its name"
)]
pub struct PodState {
    /// The container group.
    pub group: GroupPresence,
    /// The answers that deny the group.
    pub absence: AbsenceEvidence,
    /// Azure did not answer a PUT, which may have created the group. Until the lag of Azure's reads is over, only
    /// the same PUT is sent again.
    pub has_unanswered_put: bool,
    /// The back-off of each action that failed.
    pub retry_times: RetryTimes,
    /// When the pod was first seen to be deleted, by the operator's clock.
    pub deletion_seen_at: Option<Timestamp>,
    /// When the pod was first seen to be finished, by the operator's clock.
    pub finished: Option<Timestamp>,
    /// Azure cannot run this pod as it is: the operator does not try to create a group.
    pub is_refused: bool,
    /// A LIST or a worker found that the group has changed or is gone: it is read at once.
    pub is_stale: bool,
    /// Azure could not start the group. Azure keeps trying, and billing, so the operator deletes this group before
    /// it creates another.
    pub has_failed_to_start: bool,
    /// The group's containers still run, or Azure is restarting them.
    pub is_alive: bool,
}

/// The end of the back-off of each action. They are independent: a create that must wait an hour for quota does not
/// delay a delete, and neither do throttled reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryTimes {
    creating: Option<Timestamp>,
    reading: Option<Timestamp>,
    deleting: Option<Timestamp>,
    removing: Option<Timestamp>,
}

impl RetryTimes {
    /// The time before which the action is not tried again.
    pub fn get(&self, action: PodAction) -> Option<Timestamp> {
        match action {
            PodAction::Create => self.creating,
            PodAction::Discover | PodAction::Refresh => self.reading,
            PodAction::Delete => self.deleting,
            PodAction::Remove => self.removing,
            PodAction::Wait => None,
        }
    }

    /// Sets the time before which the action is not tried again.
    pub fn set(&mut self, action: PodAction, until: Option<Timestamp>) {
        match action {
            PodAction::Create => self.creating = until,
            PodAction::Discover | PodAction::Refresh => self.reading = until,
            PodAction::Delete => self.deleting = until,
            PodAction::Remove => self.removing = until,
            PodAction::Wait => {}
        }
    }
}

/// The next action for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodAction {
    /// Find out whether there is a group.
    Discover,
    /// Create the group.
    Create,
    /// Read the group.
    Refresh,
    /// Delete the group.
    Delete,
    /// Remove the pod's object: its group is gone.
    Remove,
    /// Nothing, until something changes.
    Wait,
}

impl PodAction {
    /// Whether the action only reads from Azure, and so waits for the rate limiter.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Discover | Self::Refresh)
    }
}

/// An action and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledAction {
    /// The action.
    pub action: PodAction,
    /// When the action is due; if this is past, now.
    pub at: Timestamp,
}

/// The next action for the pod. `pod` is `None` if its object was removed by force: its group must be deleted all
/// the same.
pub fn next_action(
    pod: Option<&Pod>,
    state: &PodState,
    starts: &StartLatencies,
    now: Timestamp,
) -> ScheduledAction {
    let decision = choose_action(pod, state, starts, now);
    let pause = state.retry_times.get(decision.action);
    ScheduledAction {
        at: pause.map_or(decision.at, |until| decision.at.max(until)),
        ..decision
    }
}

fn choose_action(
    pod: Option<&Pod>,
    state: &PodState,
    starts: &StartLatencies,
    now: Timestamp,
) -> ScheduledAction {
    let act = |action| ScheduledAction { action, at: now };
    let is_leaving = pod.is_none_or(is_deleting);
    match &state.group {
        GroupPresence::Unknown => discover(is_leaving, state, now),
        GroupPresence::Absent { .. } if is_leaving => act(PodAction::Remove),
        GroupPresence::Absent { .. } if state.is_refused || pod.is_some_and(is_finished) => {
            act(PodAction::Wait)
        }
        // The pod has failed with its group. Its controller creates another pod when it sees this one failed.
        GroupPresence::Absent { .. } if pod.is_some_and(has_run) => act(PodAction::Wait),
        GroupPresence::Absent { .. } => act(PodAction::Create),
        // An answer denied the group that is to be deleted. A DELETE answers the same question as a GET, has
        // its own budget in ARM, and deletes the group if it exists after all.
        GroupPresence::Exists { .. }
            if (is_leaving || state.has_failed_to_start)
                && let Some(at) = state.absence.next_check_at() =>
        {
            let drained = if is_leaving {
                drained_at(pod, state, now)
            } else {
                now
            };
            // Both find out whether the group exists: the one that may be sent first.
            let retry_at = |action| state.retry_times.get(action);
            let action = if retry_at(PodAction::Delete) > retry_at(PodAction::Refresh) {
                PodAction::Refresh
            } else {
                PodAction::Delete
            };
            ScheduledAction {
                action,
                at: at.max(drained),
            }
        }
        // An answer denied the group: before any other action, the next answer decides.
        GroupPresence::Deleting { .. } | GroupPresence::Exists { .. }
            if let Some(at) = state.absence.next_check_at() =>
        {
            let action = PodAction::Refresh;
            ScheduledAction { action, at }
        }
        GroupPresence::Deleting { since, last_read } => {
            let interval =
                |since| poll_interval::until_next_read(PollPhase::Deleting, since, starts, 0.0);
            next_read(interval, (*since, *last_read), state, now)
        }
        GroupPresence::Exists { .. } if is_leaving => ScheduledAction {
            action: PodAction::Delete,
            at: drained_at(pod, state, now),
        },
        GroupPresence::Exists {
            since, last_read, ..
        } if pod.is_some_and(is_finished) => {
            let interval =
                |since| poll_interval::until_next_read(PollPhase::Working, since, starts, 0.0);
            let refresh = next_read(interval, (*since, *last_read), state, now);
            let delete = delete_finished(pod, state, now);
            // Azure restarts only a group that failed, and only a GET shows whether it did.
            let may_live = pod.is_some_and(has_failed) && refresh.at < delete.at;
            if may_live { refresh } else { delete }
        }
        GroupPresence::Exists { .. } if state.has_failed_to_start => act(PodAction::Delete),
        GroupPresence::Exists {
            since,
            last_read,
            has_run,
        } => {
            let phase = match (has_run, pod.is_some_and(always_restarts)) {
                (false, _) => PollPhase::Starting,
                (true, true) => PollPhase::Serving,
                (true, false) => PollPhase::Working,
            };
            let offset = pod.map_or(0.0, poll_offset);
            let interval = |since| poll_interval::until_next_read(phase, since, starts, offset);
            next_read(interval, (*since, *last_read), state, now)
        }
    }
}

/// Reads the group until Azure shows it or its absence is proven. A PUT without an answer is sent again.
fn discover(is_leaving: bool, state: &PodState, now: Timestamp) -> ScheduledAction {
    let Some(next_check_at) = state.absence.next_check_at() else {
        return ScheduledAction {
            action: PodAction::Discover,
            at: now,
        };
    };
    let create_at = state
        .retry_times
        .get(PodAction::Create)
        .unwrap_or(now)
        .max(now);
    if state.has_unanswered_put
        && !is_leaving
        && !state.is_refused
        && state.absence.is_within_lag(EvidenceSource::Get, create_at)
    {
        return ScheduledAction {
            action: PodAction::Create,
            at: create_at,
        };
    }
    ScheduledAction {
        action: PodAction::Discover,
        at: next_check_at,
    }
}

/// Whether Azure's answers prove that the group is gone, or was never created.
pub fn is_gone(pod: Option<&Pod>, state: &PodState) -> bool {
    let is_leaving = pod.is_none_or(is_deleting);
    let before = match state.group {
        GroupPresence::Absent { .. } => return true,
        GroupPresence::Deleting { .. } => PriorGroupState::Deleted,
        GroupPresence::Exists { .. } => PriorGroupState::Existed,
        GroupPresence::Unknown if is_leaving => PriorGroupState::Deleted,
        GroupPresence::Unknown if pod.is_some_and(has_run) => PriorGroupState::Existed,
        // An operator wrote the pod's start time and may have sent a PUT: this process, or the one before it.
        GroupPresence::Unknown if pod.is_some_and(has_start_time) => PriorGroupState::Deleted,
        GroupPresence::Unknown => PriorGroupState::NotCreated,
    };
    state.absence.is_proven(before)
}

/// When to delete the group of a finished pod: [`FINISHED_GROUP_TTL`] after its end, so that its logs can be read. If
/// Azure has restarted containers although the pod is finished, the group is deleted at once.
///
/// The time of its end is by Azure's clock, which may differ from the operator's. So it counts only within bounds
/// from when the operator saw the end: an operator whose clock is ahead leaves [`MIN_FINISHED_GROUP_TTL`] to read
/// the logs, and one whose clock is behind keeps the group no longer than [`FINISHED_GROUP_TTL`].
fn delete_finished(pod: Option<&Pod>, state: &PodState, now: Timestamp) -> ScheduledAction {
    let seen_at = state.finished.unwrap_or(now);
    let ended_at = pod.and_then(|pod| finished_at(pod).or_else(|| unready_since(pod)));
    let (earliest, latest) = (
        later(seen_at, MIN_FINISHED_GROUP_TTL),
        later(seen_at, FINISHED_GROUP_TTL),
    );
    ScheduledAction {
        action: PodAction::Delete,
        at: if state.is_alive {
            now
        } else {
            later(ended_at.unwrap_or(seen_at), FINISHED_GROUP_TTL).clamp(earliest, latest)
        },
    }
}

/// The pod's offset, from 0 to 1, within the interval at which running groups are read. It is derived from the UID,
/// so it is stable and spreads the reads.
fn poll_offset(pod: &Pod) -> f64 {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let digest = Sha256::digest(uid);
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

fn next_read(
    interval: impl Fn(Duration) -> Duration,
    (since, last_read): (Timestamp, Option<Timestamp>),
    state: &PodState,
    now: Timestamp,
) -> ScheduledAction {
    let last_seen = last_read.unwrap_or(since);
    let at = if state.is_stale {
        now
    } else {
        later(last_seen, interval(elapsed(since, last_seen)))
    };
    ScheduledAction {
        action: PodAction::Refresh,
        at,
    }
}

/// When the group of a pod that is being deleted may be deleted. A Ready pod waits for [`DRAIN_DELAY`], so that
/// Services drop it, but not longer than its grace period. The wait is counted from when the operator saw the
/// deletion: by the API server's clock, a difference of a minute would mean a minute of Terminating, or no draining
/// at all.
fn drained_at(pod: Option<&Pod>, state: &PodState, now: Timestamp) -> Timestamp {
    let Some(pod) = pod.filter(|pod| is_ready(pod)) else {
        return now;
    };
    let grace = pod
        .metadata
        .deletion_grace_period_seconds
        .unwrap_or_default();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    later(
        state.deletion_seen_at.unwrap_or(now),
        DRAIN_DELAY.min(grace),
    )
}

/// Whether the pod has a deletion timestamp.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod's phase is Succeeded or Failed.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn has_failed(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Failed")
}

/// Whether the pod's status in Kubernetes says that it runs: such a pod is never started a second time.
pub fn has_run(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Running")
}

/// Whether an operator has written a status of the pod: it has a start time.
fn has_start_time(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .is_some_and(|status| status.start_time.is_some())
}

fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Ready")
}

fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is not ready. A pod that has ended became unready at its end or before.
fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = ready_condition(pod).filter(|condition| condition.status != "True")?;
    Some(condition.last_transition_time.as_ref()?.0)
}

fn always_restarts(pod: &Pod) -> bool {
    matches!(restart_policy(pod), None | Some("Always"))
}

/// Whether the pod's containers run at most once.
pub fn never_restarts(pod: &Pod) -> bool {
    restart_policy(pod) == Some("Never")
}

fn restart_policy(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.restart_policy.as_deref()
}

/// When the last container ended.
fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = statuses.iter().filter_map(|status| {
        status
            .state
            .as_ref()?
            .terminated
            .as_ref()?
            .finished_at
            .as_ref()
            .map(|time| time.0)
    });
    ends.max()
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
