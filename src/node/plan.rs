//! What is to be done for one pod now, and if nothing, when to look again.
//!
//! In: the pod as the API server has it, what is known of its container group, and the time. Out: one
//! [`Action`], or the time of the next. Pure: `pods` carries it out and learns from it.
//!
//! ```text
//! Unknown ─Look─▶ Absent ─Create─▶ There ─Read─▶ There ... ─Delete─▶ Going ─Read─▶ Absent ─Remove─▶
//!                   ▲       └─no answer─▶ Unknown            └─(vanished)─▶ Absent
//! ```
//!
//! Every way into Absent takes proof ([`is_gone`]): Azure may deny a group that is there.

mod learn;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use sha2::{Digest as _, Sha256};

use super::absence::{Absence, Before, Source};
use crate::aci::schedule::{self, Phase, Starts};
pub use learn::Sight;

/// How long a Ready pod's group outlives the request to delete it, so that Services drop it first.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the group of a finished pod is kept, so that its logs can be read; after that it no longer
/// counts against the quota.
pub const KEEP_FINISHED: Duration = Duration::from_secs(300);

/// What is known of a pod's container group.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Group {
    /// Nothing: the operator has just started, or a request got no answer.
    #[default]
    Unknown,
    /// There is none.
    Absent {
        /// Whether there was one before, which vanished or was deleted.
        was_there: bool,
    },
    /// There is one.
    There {
        /// Since when, or since when it is known to be.
        since: Timestamp,
        /// When it was read last.
        read: Option<Timestamp>,
        /// Whether its containers have run.
        ran: bool,
    },
    /// It is being deleted.
    Going {
        /// Since when.
        since: Timestamp,
        /// When it was read last.
        read: Option<Timestamp>,
    },
}

/// What is known that bears on the decision.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with its name"
)]
pub struct Known {
    /// The container group.
    pub group: Group,
    /// The answers that deny the group.
    pub absence: Absence,
    /// A PUT got no answer, and may have created the group. Until Azure must know of it, only the same PUT
    /// is sent again.
    pub is_unanswered: bool,
    /// What failed is not tried again before its time.
    pub pauses: Pauses,
    /// Since when the pod is seen to leave, by our clock.
    pub leaving: Option<Timestamp>,
    /// Azure cannot run this pod as it is: nothing is tried at all.
    pub is_refused: bool,
    /// Somebody says that the group has changed or is gone: it is read at once.
    pub is_stale: bool,
    /// The group could not be started. Azure goes on trying, and billing: it is deleted before
    /// another is made.
    pub is_failed: bool,
    /// Its containers still run, or are started again.
    pub is_alive: bool,
}

/// Until when what failed waits. Each thing by itself: a create that must wait an hour for a quota holds up
/// no delete, and neither do reads that are throttled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    creating: Option<Timestamp>,
    reading: Option<Timestamp>,
    deleting: Option<Timestamp>,
    removing: Option<Timestamp>,
}

impl Pauses {
    /// Until when this is not tried.
    pub fn of(&self, action: Action) -> Option<Timestamp> {
        match action {
            Action::Create => self.creating,
            Action::Look | Action::Read => self.reading,
            Action::Delete => self.deleting,
            Action::Remove => self.removing,
            Action::Rest => None,
        }
    }

    /// This is not tried before then.
    pub fn set(&mut self, action: Action, until: Option<Timestamp>) {
        match action {
            Action::Create => self.creating = until,
            Action::Look | Action::Read => self.reading = until,
            Action::Delete => self.deleting = until,
            Action::Remove => self.removing = until,
            Action::Rest => {}
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out whether there is a group.
    Look,
    /// Create the group.
    Create,
    /// Read the group.
    Read,
    /// Delete the group.
    Delete,
    /// Remove the pod's object: nothing is left behind it.
    Remove,
    /// Nothing, until something changes.
    Rest,
}

impl Action {
    /// Whether it only asks Azure, and so waits for its turn.
    pub fn reads(self) -> bool {
        matches!(self, Self::Look | Self::Read)
    }
}

/// An action, and from when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub action: Action,
    /// From when on; now if it is past.
    pub at: Timestamp,
}

/// Decides. `pod` is nothing when its object is gone already, by force: its group must go all the same.
pub fn plan(pod: Option<&Pod>, known: &Known, starts: &Starts, now: Timestamp) -> Decision {
    let decision = decide(pod, known, starts, now);
    let pause = known.pauses.of(decision.action);
    Decision {
        at: pause.map_or(decision.at, |until| decision.at.max(until)),
        ..decision
    }
}

fn decide(pod: Option<&Pod>, known: &Known, starts: &Starts, now: Timestamp) -> Decision {
    let act = |action| Decision { action, at: now };
    let leaves = pod.is_none_or(is_deleting);
    match &known.group {
        Group::Unknown => look(leaves, known, now),
        Group::Absent { .. } if leaves => act(Action::Remove),
        Group::Absent { .. } if known.is_refused || pod.is_some_and(is_finished) => {
            act(Action::Rest)
        }
        // Its owner makes another pod, once it is told that this one has failed.
        Group::Absent { .. } if pod.is_some_and(has_run) => act(Action::Rest),
        Group::Absent { .. } => act(Action::Create),
        // An answer denies the group that is to be deleted: a DELETE asks as well as a GET does, has a budget
        // of its own, and deletes the group if it is there after all.
        Group::There { .. }
            if (leaves || known.is_failed)
                && let Some(at) = known.absence.ask_again() =>
        {
            let drained = if leaves {
                drained(pod, known, now)
            } else {
                now
            };
            let action = Action::Delete;
            Decision {
                action,
                at: at.max(drained),
            }
        }
        // Whatever else is due: an answer denies the group, and the next one decides.
        Group::Going { .. } | Group::There { .. } if let Some(at) = known.absence.ask_again() => {
            let action = Action::Read;
            Decision { action, at }
        }
        Group::Going { since, read } => {
            let wait = |since| schedule::wait(Phase::Going, since, starts, 0.0);
            read_next(wait, (*since, *read), known, now)
        }
        Group::There { .. } if leaves => Decision {
            action: Action::Delete,
            at: drained(pod, known, now),
        },
        Group::There { since, read, .. } if pod.is_some_and(is_finished) => {
            let wait = |since| schedule::wait(Phase::Working, since, starts, 0.0);
            let look = read_next(wait, (*since, *read), known, now);
            let delete = delete_finished(pod, known, now);
            // Only what failed is ever started again; whether it was, only a read tells.
            let may_live = pod.is_some_and(has_failed) && look.at < delete.at;
            if may_live { look } else { delete }
        }
        Group::There { .. } if known.is_failed => act(Action::Delete),
        Group::There { since, read, ran } => {
            let phase = match (ran, pod.is_some_and(is_service)) {
                (false, _) => Phase::Starting,
                (true, true) => Phase::Serving,
                (true, false) => Phase::Working,
            };
            let share = pod.map_or(0.0, share);
            let wait = |since| schedule::wait(phase, since, starts, share);
            read_next(wait, (*since, *read), known, now)
        }
    }
}

/// Looks for the group, until Azure shows it or must know of it. A PUT without an answer is sent again.
fn look(leaves: bool, known: &Known, now: Timestamp) -> Decision {
    let Some(again) = known.absence.ask_again() else {
        return Decision {
            action: Action::Look,
            at: now,
        };
    };
    let create = known.pauses.of(Action::Create).unwrap_or(now).max(now);
    if known.is_unanswered
        && !leaves
        && !known.is_refused
        && known.absence.is_lag(Source::Get, create)
    {
        return Decision {
            action: Action::Create,
            at: create,
        };
    }
    Decision {
        action: Action::Look,
        at: again,
    }
}

/// Whether Azure's answers prove that the group is gone, or was never created.
pub fn is_gone(pod: Option<&Pod>, known: &Known) -> bool {
    let leaves = pod.is_none_or(is_deleting);
    let before = match known.group {
        Group::Absent { .. } => return true,
        Group::Going { .. } => Before::Deleted,
        Group::There { .. } => Before::There,
        Group::Unknown if leaves => Before::Deleted,
        Group::Unknown if pod.is_some_and(has_run) => Before::There,
        // An operator has seen the pod, and may have sent a PUT: this one, or the one before.
        Group::Unknown if pod.is_some_and(was_seen) => Before::Deleted,
        Group::Unknown => Before::NotCreated,
    };
    known.absence.is_proven(before)
}

/// When the group of a finished pod goes: when its logs could be read, but what Azure started again
/// although the pod is finished must not run on, whatever Azure's clock says of its end.
fn delete_finished(pod: Option<&Pod>, known: &Known, now: Timestamp) -> Decision {
    let finished = pod.and_then(|pod| finished_at(pod).or_else(|| unready_since(pod)));
    let finished = finished.unwrap_or(now);
    Decision {
        action: Action::Delete,
        at: if known.is_alive {
            now
        } else {
            later(finished, KEEP_FINISHED)
        },
    }
}

/// The pod's share of the time in which those that run are read, from 0 to 1: the same each time.
fn share(pod: &Pod) -> f64 {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let digest = Sha256::digest(uid);
    f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

fn read_next(
    wait: impl Fn(Duration) -> Duration,
    (since, read): (Timestamp, Option<Timestamp>),
    known: &Known,
    now: Timestamp,
) -> Decision {
    let last = read.unwrap_or(since);
    let at = if known.is_stale {
        now
    } else {
        later(last, wait(between(since, last)))
    };
    Decision {
        action: Action::Read,
        at,
    }
}

/// When the group of a pod that leaves may be deleted: a Ready one's only after Services have dropped
/// it, but never later than its grace period. Counted from when it was seen to leave: the API server's
/// clock is not ours, and a minute between them would be a minute of Terminating, or no draining at all.
fn drained(pod: Option<&Pod>, known: &Known, now: Timestamp) -> Timestamp {
    let Some(pod) = pod.filter(|pod| is_ready(pod)) else {
        return now;
    };
    let grace = pod
        .metadata
        .deletion_grace_period_seconds
        .unwrap_or_default();
    let grace = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    later(known.leaving.unwrap_or(now), DRAIN.min(grace))
}

/// Whether the pod is to be deleted.
pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod has succeeded or failed for good.
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

/// Whether Kubernetes has been told that the pod runs: it is never started a second time.
pub fn has_run(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Running")
}

/// Whether an operator has written a status of the pod.
fn was_seen(pod: &Pod) -> bool {
    pod.status
        .as_ref()
        .is_some_and(|status| status.start_time.is_some())
}

fn ready(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Ready")
}

fn is_ready(pod: &Pod) -> bool {
    ready(pod).is_some_and(|condition| condition.status == "True")
}

/// Since when the pod is not ready: of one that has ended, that is at the latest when it did.
fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let condition = ready(pod).filter(|condition| condition.status != "True")?;
    Some(condition.last_transition_time.as_ref()?.0)
}

fn is_service(pod: &Pod) -> bool {
    matches!(restart_policy(pod), None | Some("Always"))
}

/// Whether the pod's containers run once at most.
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

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
