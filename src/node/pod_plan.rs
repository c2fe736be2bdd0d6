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
//! Before the group of a pod that ends is deleted, its `preStop` hooks run (`termination`).
//!
//! A group becomes Absent only on proof ([`is_gone`]): Azure may not find a group that exists.

mod observations;
mod pod_lifecycle;
mod pod_state;
mod termination;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use sha2::{Digest as _, Sha256};

use super::absence_proof::{EvidenceSource, PriorGroupState};
use crate::aci::poll_interval::{self, PollPhase, StartLatencies};
use crate::k8s::time::later;
pub use observations::GroupReading;
use pod_lifecycle::{always_restarts, finished_at, has_failed, has_start_time, unready_since};
pub use pod_lifecycle::{
    has_exceeded_deadline, has_run, is_deleting, is_finished, is_past_deadline, is_ready,
    never_restarts,
};
pub use pod_state::{GroupPresence, PodState, RetryTimes};
use termination::HookStep;
pub use termination::{GracePeriod, HookPhase, due_hooks};

/// How long a Ready pod's group outlives the request to delete the pod, so that Services stop sending traffic to it
/// first.
const DRAIN_DELAY: Duration = Duration::from_secs(3);
/// How long the group of a finished pod is kept, so that its logs can be read. After that the group is deleted and
/// no longer counts against the quota.
pub const FINISHED_GROUP_TTL: Duration = Duration::from_secs(300);
/// The shortest time for which the group is kept after the operator saw the pod finished, by the operator's clock.
const MIN_FINISHED_GROUP_TTL: Duration = Duration::from_secs(30);

/// The next action for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodAction {
    /// Find out whether there is a group.
    Discover,
    /// Create the group.
    Create,
    /// Read the group.
    Refresh,
    /// Run the `preStop` hooks of the containers.
    RunHooks,
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

    /// This action at this time.
    fn at(self, at: Timestamp) -> ScheduledAction {
        ScheduledAction { action: self, at }
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

impl ScheduledAction {
    /// The same action at `at` if that is earlier.
    fn no_later_than(self, at: Option<Timestamp>) -> Self {
        let at = at.map_or(self.at, |at| at.min(self.at));
        Self { at, ..self }
    }
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
    let is_leaving = state.deadline_seen_at.is_some() || pod.is_none_or(is_deleting);
    let next_check_at = state.absence.next_check_at();
    let hooks = pod.and_then(|pod| termination::hook_step(pod, state, now));
    match &state.group {
        GroupPresence::Unknown => discover(is_leaving, state, now),
        GroupPresence::Absent { .. } => without_group(pod, state, now),
        GroupPresence::Exists { .. } if hooks == Some(HookStep::Run) => PodAction::RunHooks.at(now),
        GroupPresence::Exists { .. } if let Some(HookStep::Await { until }) = hooks => {
            let checked = next_check_at.map(|at| PodAction::Refresh.at(at));
            let read = checked.unwrap_or_else(|| routine_read(pod, state, starts, now));
            read_or_leave_hooks(read, until)
        }
        GroupPresence::Exists { .. }
            if (is_leaving || state.has_failed_to_start)
                && let Some(at) = next_check_at =>
        {
            confirm_before_delete(pod, state, at, now)
        }
        // The last answer found no group: before any other action, the next answer decides.
        GroupPresence::Deleting { .. } | GroupPresence::Exists { .. }
            if let Some(at) = next_check_at =>
        {
            PodAction::Refresh.at(at)
        }
        GroupPresence::Deleting { since, last_read } => {
            let interval = interval_in(PollPhase::Deleting, 0.0, starts);
            next_read(interval, (*since, *last_read), state, now)
        }
        GroupPresence::Exists { .. } if is_leaving => {
            PodAction::Delete.at(drained_at(pod, state, now))
        }
        GroupPresence::Exists {
            since, last_read, ..
        } if let Some(pod) = pod.filter(|pod| is_finished(pod)) => {
            let interval = interval_in(PollPhase::Working, 0.0, starts);
            let refresh = next_read(interval, (*since, *last_read), state, now);
            refresh_or_delete_finished(pod, refresh, state, now)
        }
        GroupPresence::Exists { .. } if state.has_failed_to_start => PodAction::Delete.at(now),
        GroupPresence::Exists { .. } => routine_read(pod, state, starts, now),
    }
}

/// While hooks run, the group is read as before; `until` is when they are left behind. The worker wakes then also
/// while it waits for its turn to read.
fn read_or_leave_hooks(read: ScheduledAction, until: Timestamp) -> ScheduledAction {
    if read.at < until {
        read
    } else {
        PodAction::Delete.at(until)
    }
}

/// The next read of a group that exists and whose pod has not finished.
fn routine_read(
    pod: Option<&Pod>,
    state: &PodState,
    starts: &StartLatencies,
    now: Timestamp,
) -> ScheduledAction {
    let GroupPresence::Exists {
        since,
        last_read,
        has_run,
    } = state.group
    else {
        return PodAction::Refresh.at(now);
    };
    let phase = poll_phase(has_run, pod);
    let interval = interval_in(phase, pod.map_or(0.0, poll_offset), starts);
    let read = next_read(interval, (since, last_read), state, now);
    read.no_later_than(state.readiness_read_at)
}

/// Azure restarts only a group that failed, and only a GET (`refresh`) shows whether it did.
fn refresh_or_delete_finished(
    pod: &Pod,
    refresh: ScheduledAction,
    state: &PodState,
    now: Timestamp,
) -> ScheduledAction {
    let delete = delete_finished(pod, state, now);
    let may_live = has_failed(pod) && refresh.at < delete.at;
    if may_live { refresh } else { delete }
}

/// The time until the next read of a group, by how long it has been in this phase.
fn interval_in(
    phase: PollPhase,
    offset: f64,
    starts: &StartLatencies,
) -> impl Fn(Duration) -> Duration {
    move |since| poll_interval::until_next_read(phase, since, starts, offset)
}

/// How often the group of a pod that is not finished is read.
fn poll_phase(has_run: bool, pod: Option<&Pod>) -> PollPhase {
    match (has_run, pod.is_some_and(always_restarts)) {
        (false, _) => PollPhase::Starting,
        (true, true) => PollPhase::Serving,
        (true, false) => PollPhase::Working,
    }
}

/// The action for a pod without a group.
fn without_group(pod: Option<&Pod>, state: &PodState, now: Timestamp) -> ScheduledAction {
    let action = match pod {
        None => PodAction::Remove,
        Some(pod) if is_deleting(pod) => PodAction::Remove,
        // A pod that has run has failed with its group. Its controller creates another pod when it sees this one
        // failed.
        Some(pod) if state.is_create_blocked || is_finished(pod) || has_run(pod) => PodAction::Wait,
        // The pod fails as soon as its status is written.
        Some(_) if state.deadline_seen_at.is_some() => PodAction::Wait,
        Some(_) => PodAction::Create,
    };
    action.at(now)
}

/// The action for a group that is to be deleted and that the last answer did not find; the next is due at
/// `next_check_at`. A DELETE answers the same question as a GET, has its own budget in ARM, and deletes the group if
/// it exists after all.
fn confirm_before_delete(
    pod: Option<&Pod>,
    state: &PodState,
    next_check_at: Timestamp,
    now: Timestamp,
) -> ScheduledAction {
    let drained_at = if pod.is_none_or(is_deleting) {
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
    action.at(next_check_at.max(drained_at))
}

/// Reads the group until Azure shows it or its absence is proven. A PUT without an answer is sent again.
fn discover(is_leaving: bool, state: &PodState, now: Timestamp) -> ScheduledAction {
    let Some(next_check_at) = state.absence.next_check_at() else {
        return PodAction::Discover.at(now);
    };
    let create_at = state
        .retry_times
        .get(PodAction::Create)
        .unwrap_or(now)
        .max(now);
    if state.has_unanswered_put
        && !is_leaving
        && !state.is_create_blocked
        && state.absence.is_within_lag(EvidenceSource::Get, create_at)
    {
        return PodAction::Create.at(create_at);
    }
    PodAction::Discover.at(next_check_at)
}

/// Whether Azure's answers prove that the group is gone, or was never created.
pub fn is_gone(pod: Option<&Pod>, state: &PodState) -> bool {
    let is_leaving = state.deadline_seen_at.is_some() || pod.is_none_or(is_deleting);
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
fn delete_finished(pod: &Pod, state: &PodState, now: Timestamp) -> ScheduledAction {
    let seen_at = state.finished.unwrap_or(now);
    let ended_at = finished_at(pod).or_else(|| unready_since(pod));
    let (earliest, latest) = (
        later(seen_at, MIN_FINISHED_GROUP_TTL),
        later(seen_at, FINISHED_GROUP_TTL),
    );
    PodAction::Delete.at(if state.is_alive {
        now
    } else {
        later(ended_at.unwrap_or(seen_at), FINISHED_GROUP_TTL).clamp(earliest, latest)
    })
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
    PodAction::Refresh.at(at)
}

/// When the group of a pod that is being deleted may be deleted. A pod that was Ready waits for [`DRAIN_DELAY`], so
/// that Services drop it, but not longer than its grace period. The wait is counted from when the operator saw the
/// deletion: by the API server's clock, a difference of a minute would mean a minute of Terminating, or no draining
/// at all. A hook that makes the app fail its readiness probe does not end the wait. A pod that exceeded its deadline is
/// not drained, as by a kubelet: it stays Ready until its containers end.
fn drained_at(pod: Option<&Pod>, state: &PodState, now: Timestamp) -> Timestamp {
    let (Some(pod), Some(since)) = (pod, state.draining_since) else {
        return now;
    };
    let grace = pod
        .metadata
        .deletion_grace_period_seconds
        .unwrap_or_default();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    later(since, DRAIN_DELAY.min(grace))
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
