//! The end of a pod's containers, before its group is deleted.
//!
//! In: the pod, what is known of it, and the time. Out: what to do before the DELETE, if anything. Pure.
//!
//! ```text
//! NotStarted ─RunHooks─▶ Running ─Wait─▶ Ended ─Delete─▶
//!                           └── the grace period is over ──┘
//! ```
//!
//! As in a kubelet (`pkg/kubelet/kuberuntime/kuberuntime_container.go` of Kubernetes 1.37), the `preStop` hooks of all
//! containers run at the same time, and share one grace period with the end of the containers. A hook that has not ended
//! by then is left behind. A grace period of zero, as of a pod that is deleted by force, skips the hooks. A pod whose
//! `activeDeadlineSeconds` are over has the grace period of its spec.
//!
//! The grace period counts from when the operator first saw that the pod ends, by its own clock. Another leader counts
//! from when the hooks began, by the pod's condition, and goes on: a `sleep` ends when it would have ended, hooks that
//! have ended are not run again, and a request that may not have been answered is sent again, as by a kubelet after its
//! own restart.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{PodState, is_deleting};
use crate::aci::pre_stop::PreStopHook;
use crate::aci::status::PreStopRecord;
use crate::k8s::time::later;

/// The grace period of a pod whose spec does not have one: the default of the API, in seconds.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// How far this process is with the hooks of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookPhase {
    /// It has not started them, and need not if there are none.
    #[default]
    NotStarted,
    /// It runs them.
    Running,
    /// They have ended.
    Ended,
}

/// The time that hooks and the end of the containers share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracePeriod {
    began_at: Timestamp,
    length: Duration,
}

impl GracePeriod {
    /// The grace period of a pod that ends; `None` if it does not end.
    pub fn of(pod: &Pod, state: &PodState) -> Option<Self> {
        let (seen_at, seconds) = if is_deleting(pod) {
            let seconds = pod.metadata.deletion_grace_period_seconds;
            (state.deletion_seen_at?, seconds.unwrap_or_default())
        } else {
            let seconds = pod.spec.as_ref()?.termination_grace_period_seconds;
            let seen_at = state.deadline_seen_at?;
            (seen_at, seconds.unwrap_or(DEFAULT_GRACE_SECONDS))
        };
        // Recorded in whole seconds: rounded up, so that no hook has less time than it asks for.
        let recorded_at = PreStopRecord::of(pod).and_then(|record| record.since);
        let recorded_at = recorded_at.map(|at| later(at, Duration::from_secs(1)));
        Some(Self {
            began_at: recorded_at.map_or(seen_at, |at| seen_at.min(at)),
            length: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        })
    }

    /// When it is over.
    pub fn ends_at(&self) -> Timestamp {
        later(self.began_at, self.length)
    }

    /// How much of it is left.
    pub fn left(&self, now: Timestamp) -> Duration {
        Duration::try_from(self.ends_at().duration_since(now)).unwrap_or_default()
    }

    /// How much of `pause`, which began with the grace period, is left.
    pub fn left_of(&self, pause: Duration, now: Timestamp) -> Duration {
        let ends_at = later(self.began_at, pause);
        let left = Duration::try_from(ends_at.duration_since(now)).unwrap_or_default();
        left.min(self.left(now))
    }
}

/// The hooks to run, each with the container's name: those of the containers that run, but not those that have ended
/// by the pod's status. A kubelet runs no hook of a container that has ended by itself.
pub fn due_hooks(pod: &Pod) -> Vec<(String, PreStopHook)> {
    let recorded = PreStopRecord::of(pod);
    let statuses = pod.status.as_ref();
    let statuses = statuses.and_then(|status| status.container_statuses.as_ref());
    let running = statuses.into_iter().flatten().filter(|status| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some())
    });
    let running: BTreeSet<&String> = running.map(|status| &status.name).collect();
    let has_ended = |name: &String| {
        let mut recorded = recorded.iter();
        recorded.any(|record| !record.progress.running.contains(name))
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let due = containers
        .filter(|container| running.contains(&container.name) && !has_ended(&container.name));
    // The group exists, so its hooks were accepted for its placement.
    let hooks = due.filter_map(|container| {
        let hook = PreStopHook::of(container, true, "").ok()??;
        Some((container.name.clone(), hook))
    });
    hooks.collect()
}

/// What comes before the DELETE of the group of a pod that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookStep {
    /// The hooks are to be run.
    Run,
    /// The hooks have not ended.
    Await {
        /// When they are left behind.
        until: Timestamp,
    },
}

/// What comes before the DELETE; `None` if hooks do not hold it back.
pub(super) fn hook_step(pod: &Pod, state: &PodState, now: Timestamp) -> Option<HookStep> {
    let until = GracePeriod::of(pod, state)?.ends_at();
    if now >= until {
        return None;
    }
    match state.hooks {
        HookPhase::NotStarted if due_hooks(pod).is_empty() => None,
        HookPhase::NotStarted => Some(HookStep::Run),
        HookPhase::Running => Some(HookStep::Await { until }),
        HookPhase::Ended => None,
    }
}

#[cfg(test)]
mod tests;
