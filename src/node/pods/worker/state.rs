//! What a pod worker knows: its pod, the pod's container group, and what failed.
//!
//! In: the pod from the watch, and the answers of Azure and the API server. Out: the input of
//! [`pod_plan`](crate::node::pod_plan) and of the pod's status. The fields are private, and only the methods in this
//! file and in [`group`] change them. They do no I/O: calls, Events and logs are left to the worker.

mod group;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::attempts::{AttemptKind, FailureCounts};
use crate::aci::failure::{FailureVerdict, RetryPolicy};
use crate::aci::response::ContainerGroup as View;
use crate::aci::status::GroupObservation;
use crate::aci::translate::{Group as Body, Unsupported};
use crate::k8s::backoff::doubled;
use crate::node::daemon_set;
use crate::node::pod_plan::{self, GroupPresence, HookPhase, PodAction, PodState};
pub(super) use group::AbsenceOutcome;

/// How long a read or a delete waits after an error that no retry can cure.
const PERMANENT_FAILURE_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Why a pod has no group, or none that runs. The pod's status shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum GroupProblem {
    /// No problem is known.
    #[default]
    None,
    /// ACI cannot run the pod: the fields that prevent it, each with the reason.
    Unsupported(Vec<(String, String)>),
    /// A call failed or an object is missing, and the worker will try again.
    Waiting {
        /// One word, in CamelCase.
        reason: String,
        /// A sentence.
        message: String,
    },
}

/// What the worker of one pod knows.
#[derive(Debug, Default)]
pub(super) struct WorkerState {
    /// The pod as last seen in the watch or in the answer to a write.
    pod: Pod,
    /// Whether the pod's object was deleted.
    is_deleted: bool,
    /// Whether the last pod from the watch could not be decoded. If so, `pod` has its metadata and the rest of the
    /// pod before it.
    is_unreadable: bool,
    /// Fields of the pod that the operator's types do not know.
    unknown_fields: Vec<String>,
    /// What the next action depends on.
    pod_state: PodState,
    /// The group as the last GET or PUT showed it, with later changes from LISTs.
    group_view: Option<View>,
    problem: GroupProblem,
    /// Whether the tags of the pod's group name another owner.
    is_foreign: bool,
    failures: FailureCounts,
    /// The body of the PUT that got no answer.
    unanswered_put: Option<Box<Body>>,
}

/// The pod.
impl WorkerState {
    /// The state of a pod that was just seen. A pod that cannot be decoded must be marked as such.
    pub fn new(pod: Pod, unknown_fields: Vec<String>) -> Self {
        Self {
            pod,
            unknown_fields,
            ..Self::default()
        }
    }

    /// The pod as last seen in the watch or in the answer to a write.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The pod; `None` if its object was deleted.
    pub fn existing_pod(&self) -> Option<&Pod> {
        (!self.is_deleted).then_some(&self.pod)
    }

    /// Whether the pod's object exists.
    pub fn exists(&self) -> bool {
        !self.is_deleted
    }

    /// Whether the pod is being deleted, its object is gone, or its deadline is over: its group is to be deleted.
    pub fn is_leaving(&self) -> bool {
        self.pod_state.deadline_seen_at.is_some()
            || self.existing_pod().is_none_or(pod_plan::is_deleting)
    }

    /// Whether the last pod from the watch could be decoded.
    pub fn is_readable(&self) -> bool {
        !self.is_unreadable
    }

    /// Fields of the pod that the operator's types do not know.
    pub fn unknown_fields(&self) -> &[String] {
        &self.unknown_fields
    }

    /// Records that the pod's object was deleted.
    pub fn pod_deleted(&mut self) {
        self.is_deleted = true;
    }

    /// Records a new state of the pod from the watch.
    pub fn pod_changed(&mut self, pod: Pod, unknown_fields: Vec<String>) {
        if std::mem::take(&mut self.is_unreadable) {
            self.allow_create();
        }
        (self.pod, self.unknown_fields) = (pod, unknown_fields);
    }

    /// Records the pod from the answer to a write.
    pub fn pod_written(&mut self, pod: Pod) {
        self.pod = pod;
    }

    /// Records the metadata of a pod that cannot be decoded.
    pub fn metadata_changed(&mut self, metadata: ObjectMeta) {
        self.pod.metadata = metadata;
    }

    /// Records that the pod cannot be decoded: no group is created for it.
    pub fn pod_unreadable(&mut self, error: &str) {
        self.is_unreadable = true;
        self.pod_state.is_create_blocked = true;
        self.problem = GroupProblem::Unsupported(vec![("pod".to_owned(), error.to_owned())]);
    }

    /// Records that a container is no longer ready: the group is read again, because Azure may have restarted it.
    pub fn readiness_lost(&mut self) {
        self.pod_state.is_stale = true;
    }

    /// Reads the group at this time at the latest, because the readiness of a container may have changed.
    pub fn read_for_readiness_at(&mut self, at: Option<Timestamp>) {
        self.pod_state.readiness_read_at = at;
    }

    /// Records since when the pod is being deleted, is finished, and is past its deadline, by the operator's clock.
    pub fn record_times(&mut self, now: Timestamp) {
        if !self.is_unreadable && pod_plan::is_past_deadline(&self.pod, now) {
            self.pod_state.deadline_seen_at.get_or_insert(now);
        }
        if pod_plan::is_deleting(&self.pod) && self.pod_state.deletion_seen_at.is_none() {
            self.pod_state.deletion_seen_at = Some(now);
            self.pod_state.draining_since = pod_plan::is_ready(&self.pod).then_some(now);
        }
        if pod_plan::is_finished(&self.pod) {
            self.pod_state.finished.get_or_insert(now);
        }
    }

    /// Records how far this process is with the pod's `preStop` hooks.
    pub fn set_hook_phase(&mut self, phase: HookPhase) {
        self.pod_state.hooks = phase;
    }
}

/// Failures and problems.
impl WorkerState {
    /// What the next action depends on.
    pub fn pod_state(&self) -> &PodState {
        &self.pod_state
    }

    /// How often the attempt failed in a row.
    pub fn failure_count(&self, attempt: AttemptKind) -> u32 {
        self.failures.get(attempt)
    }

    /// Records that ACI cannot run the pod: no group is created.
    pub fn mark_unsupported(&mut self, unsupported: Vec<Unsupported>) {
        self.pod_state.is_create_blocked = true;
        let fields = unsupported
            .into_iter()
            .map(|unsupported| (unsupported.field, unsupported.why));
        self.problem = GroupProblem::Unsupported(fields.collect());
    }

    /// Records an edit of the settings or of the pod: a create is tried again.
    pub fn allow_create(&mut self) {
        (self.pod_state.is_create_blocked, self.problem) = (false, GroupProblem::None);
    }

    /// Records a failure, and when the verdict allows the next try.
    pub fn record_failure(
        &mut self,
        attempt: AttemptKind,
        verdict: &FailureVerdict,
        now: Timestamp,
    ) {
        match self.count_failure(attempt, verdict) {
            Some(pause) => self.pause_action(attempt.action(), pause, now),
            None => self.pod_state.is_create_blocked = true,
        }
        self.set_waiting(verdict.reason, &verdict.message);
    }

    /// Records that a read or a delete failed: the back-off changes, the pod's status does not. The action is tried
    /// again also after an error that no retry can cure, so that the operator does not forget a group.
    pub fn call_failed(&mut self, attempt: AttemptKind, verdict: &FailureVerdict, now: Timestamp) {
        let pause = self.count_failure(attempt, verdict);
        let pause = pause.unwrap_or(PERMANENT_FAILURE_RETRY_INTERVAL);
        self.pause_action(attempt.action(), pause, now);
    }

    /// Counts a failure; returns the pause before the next try, or `None` if the verdict allows none.
    fn count_failure(
        &mut self,
        attempt: AttemptKind,
        verdict: &FailureVerdict,
    ) -> Option<Duration> {
        let tries = self.failures.increment(attempt);
        match verdict.retry {
            RetryPolicy::After(pause) => Some(pause),
            RetryPolicy::Backoff { first, limit } => Some(doubled(first, tries, limit)),
            RetryPolicy::Never => None,
        }
    }

    /// Records success: the back-off starts again at its first value.
    pub fn record_success(&mut self, attempt: AttemptKind) {
        self.failures.reset(attempt);
        self.pod_state.retry_times.set(attempt.action(), None);
    }

    /// Delays the action by `pause` from now.
    pub fn pause_action(&mut self, action: PodAction, pause: Duration, now: Timestamp) {
        let until = now.checked_add(pause).ok();
        self.pod_state.retry_times.set(action, until);
    }

    /// Records why the pod waits, for its status.
    pub fn set_waiting(&mut self, reason: &str, message: &str) {
        self.problem = GroupProblem::Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
    }
}

/// What the pod's status shows.
impl WorkerState {
    /// The group as the last GET or PUT showed it, with later changes from LISTs.
    pub fn group_view(&self) -> Option<&View> {
        self.group_view.as_ref()
    }

    /// What is known of the group, in the form that the status needs.
    pub fn observation(&self) -> GroupObservation<'_> {
        let is_absent = matches!(self.pod_state.group, GroupPresence::Absent { .. });
        match (&self.problem, &self.group_view) {
            _ if is_absent
                && (pod_plan::has_run(&self.pod) || self.pod_state.deadline_seen_at.is_some()) =>
            {
                GroupObservation::Vanished
            }
            _ if daemon_set::is_daemon_set_pod(&self.pod) => daemon_set::GROUP_OBSERVATION,
            (GroupProblem::Unsupported(fields), _) => GroupObservation::Rejected(fields),
            (GroupProblem::Waiting { reason, message }, None) => {
                GroupObservation::Waiting { reason, message }
            }
            (_, Some(view)) => GroupObservation::Group(view),
            (GroupProblem::None, None) => GroupObservation::NotSubmitted,
        }
    }
}

/// Access for tests that begin in the middle of a pod's life.
#[cfg(test)]
impl WorkerState {
    pub fn pod_mut(&mut self) -> &mut Pod {
        &mut self.pod
    }

    pub fn pod_state_mut(&mut self) -> &mut PodState {
        &mut self.pod_state
    }

    pub fn set_group_view(&mut self, view: View) {
        self.group_view = Some(view);
    }

    pub fn problem(&self) -> &GroupProblem {
        &self.problem
    }

    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }
}
