//! The worker of one pod.
//!
//! In: changes of the pod, what LISTs show of its container group, and new settings. Out: calls to Azure
//! (`actions`) and writes to the API server (`status_writer`). The worker decides, acts, and waits for the next
//! reason to decide again.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::controller::PodUpdate;
use super::events::PodEvents;
use super::group_list::{ListedGroup, ListedState};
use super::status_writer::PendingWrite;
use super::{PodSettings, PodsContext, read_queue};
use crate::aci::failure::{FailureVerdict, RetryPolicy};
use crate::aci::names::GroupName;
use crate::aci::response::ContainerGroup as View;
use crate::aci::status::GroupObservation;
use crate::aci::translate::{Group as Body, Unsupported};
use crate::api;
use crate::k8s::backoff::doubled;
use crate::node::daemon_set;
use crate::node::pod_plan::{self, GroupPresence, PodAction, PodState, ScheduledAction};
use crate::node::watched_pod::WatchedPod;

/// The longest sleep of a worker that waits for a time: the wall clock may be set meanwhile, so it compares again
/// at least once an hour.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// Why a pod has no group, or none that runs. The pod's status shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum CreateProblem {
    /// No problem is known.
    #[default]
    None,
    /// ACI cannot run the pod: the fields that prevent it, each with the reason.
    Refused(Vec<(String, String)>),
    /// A call failed or an object is missing, and the worker will try again.
    Waiting {
        /// One word, in CamelCase.
        reason: String,
        /// A sentence.
        message: String,
    },
}

/// The worker of one pod.
pub(super) struct PodWorker {
    pub context: Arc<PodsContext>,
    /// The pod as last seen in the watch or in the answer to a write.
    pub pod: Pod,
    /// Whether the pod's object exists.
    pub exists: bool,
    /// Whether the last pod from the watch could be decoded. If not, `pod` has its metadata and the rest of the pod
    /// before it.
    pub is_readable: bool,
    /// Fields of the pod that the operator's types do not know.
    pub unknown_fields: Vec<String>,
    pub group_name: GroupName,
    pub state: PodState,
    pub group_view: Option<View>,
    pub problem: CreateProblem,
    /// Whether the tags of the pod's group name another owner.
    pub is_foreign: bool,
    /// How often each attempt failed in a row.
    pub failures: FailureCounts,
    /// The body of the PUT that got no answer.
    pub unanswered_put: Option<Box<Body>>,
    /// Events to write, and the names of those already written.
    pub events: PodEvents,
    /// How often in a row the API server refused to write the pod.
    pub refusals: u32,
    /// The status is not written before this time, because the last write failed.
    pub next_write_at: Option<Timestamp>,
    updates: (Arc<watch::Sender<PodUpdate>>, watch::Receiver<PodUpdate>),
    listed: watch::Receiver<ListedState>,
    settings: watch::Receiver<Arc<PodSettings>>,
    /// The ticket in the read queue, while the worker waits for a GET.
    read_turn: Option<BoxFuture<'static, ()>>,
}

/// The attempts that can fail. Each has its own count of failures; `Create` and `Start` delay the same action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptKind {
    /// Azure accepts a PUT.
    Create,
    /// Azure starts the containers of a group that it accepted.
    Start,
    /// A GET is answered.
    Read,
    /// Azure accepts a DELETE.
    Delete,
}

/// How often each attempt failed in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FailureCounts([u32; 4]);

impl AttemptKind {
    /// The action that waits after this attempt has failed.
    pub fn action(self) -> PodAction {
        match self {
            Self::Create | Self::Start => PodAction::Create,
            Self::Read => PodAction::Refresh,
            Self::Delete => PodAction::Delete,
        }
    }
}

impl FailureCounts {
    /// How often the attempt failed in a row.
    pub fn get(self, attempt: AttemptKind) -> u32 {
        self.0[attempt as usize]
    }

    /// Counts one more failure; returns how many there were before.
    fn increment(&mut self, attempt: AttemptKind) -> u32 {
        let count = &mut self.0[attempt as usize];
        *count = count.saturating_add(1);
        *count - 1
    }

    /// Resets the count of failures.
    pub fn reset(&mut self, attempt: AttemptKind) {
        self.0[attempt as usize] = 0;
    }
}

/// Why a worker stops waiting.
enum WakeReason {
    /// The pod changed, or an action or a write is due.
    Due,
    /// A LIST shows a change of the group.
    Listed,
    /// A user edited the placement or the pool's tags.
    Edited,
    /// The rate limiter allows a GET.
    ReadTurn,
    /// The worker may make one write that is not urgent while it holds this permit.
    LowPriorityWrite(OwnedSemaphorePermit),
}

impl PodWorker {
    pub fn new(
        context: Arc<PodsContext>,
        observed: WatchedPod,
        name: GroupName,
        updates: (Arc<watch::Sender<PodUpdate>>, watch::Receiver<PodUpdate>),
        listed: watch::Receiver<ListedState>,
    ) -> Self {
        let decode_error = observed.decode_error;
        let settings = context.settings.subscribe();
        let mut worker = Self {
            context,
            pod: observed.pod,
            exists: true,
            is_readable: true,
            unknown_fields: observed.unknown_fields,
            group_name: name,
            state: PodState::default(),
            group_view: None,
            problem: CreateProblem::None,
            is_foreign: false,
            failures: FailureCounts::default(),
            unanswered_put: None,
            events: PodEvents::default(),
            refusals: 0,
            next_write_at: None,
            updates,
            listed,
            settings,
            read_turn: None,
        };
        if let Some(error) = decode_error {
            worker.mark_unreadable(&error);
        }
        worker
    }

    /// Runs until both the pod and its group are gone. Rare steps are boxed, so that a worker that waits is small:
    /// without boxes it takes 20 KB (measured), and there may be a thousand.
    pub async fn run(mut self: Box<Self>) {
        let listed = self.listed.borrow_and_update().clone();
        self.apply_listing(&listed);
        loop {
            self.drain_updates();
            self.update_daemon_set();
            let now = Timestamp::now();
            let decision = self.next_action(now);
            let is_due = decision.at <= now && decision.action != PodAction::Wait;
            if is_due && !decision.action.is_read() {
                if Box::pin(self.execute(decision.action)).await {
                    let uid = self.pod.metadata.uid.take().unwrap_or_default();
                    self.context.workers().remove(&uid);
                    self.context.daemon_sets.remove(&uid);
                    return;
                }
                continue;
            }
            match self.pending_write(now) {
                PendingWrite::UrgentStatus(status) => Box::pin(self.write_status(&status)).await,
                write => match self.wait(decision, now, write.is_pending()).await {
                    WakeReason::Due => {}
                    WakeReason::Listed => {
                        let listed = self.listed.borrow_and_update().clone();
                        self.apply_listing(&listed);
                    }
                    WakeReason::Edited => self.settings_changed(),
                    WakeReason::ReadTurn => Box::pin(self.read_group(decision.action)).await,
                    WakeReason::LowPriorityWrite(_permit) => {
                        Box::pin(self.write_pending(write)).await;
                    }
                },
            }
        }
    }

    fn next_action(&mut self, now: Timestamp) -> ScheduledAction {
        if pod_plan::is_deleting(&self.pod) {
            self.state.deletion_seen_at.get_or_insert(now);
        }
        if pod_plan::is_finished(&self.pod) {
            self.state.finished.get_or_insert(now);
        }
        let (pod, starts) = (
            self.exists.then_some(&self.pod),
            *self.context.start_latencies(),
        );
        daemon_set::next_action(pod, &self.state, now)
            .unwrap_or_else(|| pod_plan::next_action(pod, &self.state, &starts, now))
    }

    /// Takes the latest update of the pod from the pod controller.
    pub fn drain_updates(&mut self) {
        let mut update = PodUpdate::None;
        self.updates.1.mark_unchanged();
        self.updates.0.send_if_modified(|slot| {
            update = std::mem::take(slot);
            false
        });
        match update {
            PodUpdate::None => {}
            PodUpdate::Deleted => self.exists = false,
            PodUpdate::Changed(observed) => {
                // The answer to a write can be newer than the watch.
                let version = |pod: &Pod| {
                    api::parse_resource_version(pod.metadata.resource_version.as_ref()?)
                };
                let is_outdated = version(&observed.pod) < version(&self.pod);
                if !is_outdated {
                    self.apply_pod(*observed);
                }
            }
        }
    }

    /// Applies what a LIST showed of the group. Before the first LIST the worker sends no GET for its own group: a
    /// thousand pods cost one request, not a thousand.
    pub fn apply_listing(&mut self, listed: &ListedState) {
        let now = Timestamp::now();
        match (&self.state.group, listed) {
            (GroupPresence::Unknown, ListedState::Foreign) if !self.state.has_unanswered_put => {
                self.mark_foreign();
            }
            (_, ListedState::Absent { requested_at }) => {
                self.mark_owned();
                self.group_not_listed(*requested_at);
            }
            (
                group,
                ListedState::Exists {
                    requested_at: sent_at,
                    group: listed_group,
                },
            ) => {
                let has_started = matches!(group, GroupPresence::Exists { has_run: true, .. });
                let is_newer = listed_group.is_newer(*sent_at, group);
                self.state.group_listed(*sent_at, now);
                if is_newer {
                    self.apply_listed_group(listed_group, has_started);
                }
            }
            _ => {}
        }
    }

    /// Applies the provisioning state and address from a LIST. Until the containers have run, the pod's status
    /// shows them, and a GET follows once provisioning has succeeded; after that, any difference from the last GET
    /// makes the group stale, so that a GET follows.
    fn apply_listed_group(&mut self, listed: &ListedGroup, has_run: bool) {
        let last_seen = self.group_view.as_ref().map(ListedGroup::from_group);
        if last_seen.as_ref() == Some(listed) {
            return;
        }
        if has_run {
            self.state.is_stale |= last_seen.is_some();
            return;
        }
        self.state.is_stale |= listed.has_started();
        let view = self.group_view.get_or_insert_default();
        view.apply_listed(listed.provisioning.clone(), listed.ip);
    }

    /// Waits until the decision is due, or there is a reason to decide again.
    async fn wait(
        &mut self,
        decision: ScheduledAction,
        now: Timestamp,
        has_pending_write: bool,
    ) -> WakeReason {
        let until_due = Duration::try_from(decision.at.duration_since(now)).unwrap_or_default();
        if until_due.is_zero() && self.may_read(decision.action) {
            let context = self.context.clone();
            self.read_turn
                .get_or_insert_with(|| read_queue::wait_for_read_turn(context));
        } else {
            self.read_turn = None;
        }
        let has_time = decision.action != PodAction::Wait && !until_due.is_zero();
        let due = has_time.then(|| until_due.min(MAX_SLEEP));
        let until_write = self.next_write_at;
        let until_write =
            until_write.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        let low_priority = self.context.low_priority_write_permit.clone();
        let (updates, listed, settings) =
            (&mut self.updates.1, &mut self.listed, &mut self.settings);
        tokio::select! {
            biased;
            changed = updates.changed() => if changed.is_err() { std::future::pending().await },
            changed = listed.changed() => match changed {
                Ok(()) => return WakeReason::Listed,
                Err(_) => std::future::pending().await,
            },
            changed = settings.changed() => match changed {
                Ok(()) => return WakeReason::Edited,
                Err(_) => std::future::pending().await,
            },
            () = or_pending(&mut self.read_turn) => {
                self.read_turn = None;
                return WakeReason::ReadTurn;
            }
            () = sleep_or_pending(due) => {}
            () = sleep_or_pending(until_write) => {}
            permit = low_priority.acquire_owned(), if has_pending_write => {
                return permit.map_or(WakeReason::Due, WakeReason::LowPriorityWrite);
            }
        }
        WakeReason::Due
    }

    /// Whether the worker may queue for a GET. Before the first LIST no worker looks for its group: the LIST
    /// answers for all of them.
    fn may_read(&self, action: PodAction) -> bool {
        match action {
            PodAction::Refresh => true,
            PodAction::Discover => {
                let is_listed = *self.listed.borrow() != ListedState::NotListed;
                is_listed
                    || self.state.has_unanswered_put
                    || self.failures.get(AttemptKind::Read) > 0
            }
            _ => false,
        }
    }

    /// What is known of the group, in the form that the status needs.
    pub fn observation(&self) -> GroupObservation<'_> {
        let is_absent = matches!(self.state.group, GroupPresence::Absent { .. });
        match (&self.problem, &self.group_view) {
            _ if is_absent && pod_plan::has_run(&self.pod) => GroupObservation::Vanished,
            _ if daemon_set::is_daemon_set_pod(&self.pod) => daemon_set::GROUP_OBSERVATION,
            (CreateProblem::Refused(fields), _) => GroupObservation::Refused(fields),
            (CreateProblem::Waiting { reason, message }, None) => {
                GroupObservation::Waiting { reason, message }
            }
            (_, Some(view)) => GroupObservation::Group(view),
            (CreateProblem::None, None) => GroupObservation::NotSubmitted,
        }
    }

    /// Records that ACI cannot run the pod: no group is created.
    pub fn refuse(&mut self, refusals: Vec<Unsupported>) {
        self.state.is_refused = true;
        let fields = refusals
            .into_iter()
            .map(|refusal| (refusal.field, refusal.why));
        self.problem = CreateProblem::Refused(fields.collect());
    }

    /// Records a failure, and when the verdict allows the next try.
    pub fn record_failure(&mut self, attempt: AttemptKind, verdict: &FailureVerdict) {
        let tries = self.failures.increment(attempt);
        let pause = match verdict.retry {
            RetryPolicy::After(pause) => Some(pause),
            RetryPolicy::Backoff { first, limit } => Some(doubled(first, tries, limit)),
            RetryPolicy::Never => None,
        };
        match pause {
            Some(pause) => self.pause_action(attempt.action(), pause),
            None => self.state.is_refused = true,
        }
        self.set_waiting(verdict.reason, &verdict.message);
    }

    /// Delays the action by `pause` from now.
    pub fn pause_action(&mut self, action: PodAction, pause: Duration) {
        let until = Timestamp::now().checked_add(pause).ok();
        self.state.retry_times.set(action, until);
    }

    /// Records why the pod waits, for its status.
    pub fn set_waiting(&mut self, reason: &str, message: &str) {
        self.problem = CreateProblem::Waiting {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
    }

    /// Records success: the back-off starts again at its first value.
    pub fn record_success(&mut self, attempt: AttemptKind) {
        self.failures.reset(attempt);
        self.state.retry_times.set(attempt.action(), None);
    }

    /// What the last LIST showed of the group.
    pub fn listed_state(&self) -> watch::Ref<'_, ListedState> {
        self.listed.borrow()
    }
}

/// Completes when `turn` completes; never, if it is `None`.
async fn or_pending(turn: &mut Option<BoxFuture<'static, ()>>) {
    match turn {
        Some(turn) => turn.await,
        None => std::future::pending().await,
    }
}

async fn sleep_or_pending(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU16;

    use serde_json::json;

    use super::super::status_writer::tests::{kubernetes, listed_worker};
    use super::*;

    fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_worker_that_waits_is_small() {
        let bytes = size(PodWorker::run);
        assert!(bytes < 2048, "{bytes} bytes for each pod");
    }

    #[tokio::test]
    async fn the_group_of_a_finished_pod_is_kept_from_when_its_end_was_first_seen() {
        let client = kubernetes(&Arc::new(AtomicU16::new(201)));
        let mut worker = listed_worker(client, ListedState::NotListed);
        worker.pod.status =
            serde_json::from_value(json!({"phase": "Succeeded"})).expect("a status");
        let now = Timestamp::now();
        worker.state.group_listed(now, now);
        let due = now.checked_add(pod_plan::FINISHED_GROUP_TTL);
        let due = due.expect("in range");
        for seconds in [0, 10, 200] {
            let now = now + jiff::SignedDuration::from_secs(seconds);
            let decision = worker.next_action(now);
            assert_eq!((decision.action, decision.at), (PodAction::Delete, due));
        }
    }
}
