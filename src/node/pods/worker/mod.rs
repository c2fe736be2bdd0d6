//! The worker of one pod.
//!
//! In: changes of the pod, what LISTs show of its container group, and new settings. Out: calls to Azure
//! (`actions`) and writes to the API server (`status_writer`). The worker decides, acts, and waits for the next
//! reason to decide again.

mod actions;
mod attempts;
mod azure_probes;
mod events;
mod foreign;
mod group_absence;
mod hooks;
mod image_reads;
mod pod_changes;
mod probing;
mod state;
mod status_writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::controller::PodUpdate;
use super::group_list::ListedState;
use super::{PodSettings, PodsContext, read_queue};
use crate::aci::image::ImagePullBackoff;
use crate::aci::names::GroupName;
use crate::aci::status;
use crate::api;
use crate::node::daemon_set;
use crate::node::pod_plan::{self, GracePeriod, GroupPresence, PodAction, ScheduledAction};
use crate::node::watched_pod::WatchedPod;
use attempts::AttemptKind;
use events::PodEventQueue;
use hooks::{HookEnd, WorkerHooks};
use probing::WorkerProbes;
use state::WorkerState;
use status_writer::PendingWrite;

/// The longest sleep of a worker that waits for a time: the wall clock may be set meanwhile, so it compares again
/// at least once an hour.
const MAX_SLEEP: Duration = Duration::from_secs(3600);

/// The worker of one pod.
pub(super) struct PodWorker {
    context: Arc<PodsContext>,
    group_name: GroupName,
    state: WorkerState,
    /// By image, the back-off after failures to read its configuration.
    image_backoffs: BTreeMap<String, ImagePullBackoff>,
    /// Events to write, and the names of those already written.
    events: PodEventQueue,
    /// The probes that the node runs for the pod.
    probes: WorkerProbes,
    /// The `preStop` hooks that the node runs for the pod.
    hooks: WorkerHooks,
    /// How often in a row the API server rejected a write of the pod.
    rejections: u32,
    /// The status is not written before this time, because the last write failed.
    next_write_at: Option<Timestamp>,
    updates: (Arc<watch::Sender<PodUpdate>>, watch::Receiver<PodUpdate>),
    listed: watch::Receiver<ListedState>,
    settings: watch::Receiver<Arc<PodSettings>>,
    /// The ticket in the read queue, while the worker waits for a GET.
    read_turn: Option<BoxFuture<'static, ()>>,
}

/// Why a worker stops waiting.
enum WakeReason {
    /// The pod changed, or an action or a write is due.
    Due,
    /// A LIST shows a change of the group.
    Listed,
    /// A user edited the placement or the pool's tags.
    Edited,
    /// A `preStop` hook ended.
    HookEnded(Option<HookEnd>),
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
            group_name: name,
            state: WorkerState::new(observed.pod, observed.unknown_fields),
            image_backoffs: BTreeMap::new(),
            events: PodEventQueue::default(),
            probes: WorkerProbes::default(),
            hooks: WorkerHooks::default(),
            rejections: 0,
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
                    let uid = self.state.pod().metadata.uid.clone().unwrap_or_default();
                    self.context.workers().remove(&uid);
                    self.context.daemon_sets.remove(&uid);
                    return;
                }
                continue;
            }
            self.observe_probes(now);
            match self.pending_write(now) {
                PendingWrite::UrgentStatus(status) => Box::pin(self.write_status(&status)).await,
                write => match self.wait(decision, now, write.is_pending()).await {
                    WakeReason::Due => {}
                    WakeReason::Listed => {
                        let listed = self.listed.borrow_and_update().clone();
                        self.apply_listing(&listed);
                    }
                    WakeReason::Edited => self.settings_changed(),
                    WakeReason::HookEnded(end) => Box::pin(self.hook_ended(end)).await,
                    WakeReason::ReadTurn => Box::pin(self.read_group(decision.action)).await,
                    WakeReason::LowPriorityWrite(_permit) => {
                        Box::pin(self.write_pending(write)).await;
                    }
                },
            }
        }
    }

    fn next_action(&mut self, now: Timestamp) -> ScheduledAction {
        self.state.record_times(now);
        let (pod, state) = (self.state.existing_pod(), self.state.pod_state());
        let starts = *self.context.start_latencies();
        daemon_set::next_action(pod, state, now)
            .unwrap_or_else(|| pod_plan::next_action(pod, state, &starts, now))
    }

    /// Takes the latest update of the pod from the pod controller.
    fn drain_updates(&mut self) {
        let mut update = PodUpdate::None;
        self.updates.1.mark_unchanged();
        self.updates.0.send_if_modified(|slot| {
            update = std::mem::take(slot);
            false
        });
        match update {
            PodUpdate::None => {}
            PodUpdate::Deleted => self.state.pod_deleted(),
            PodUpdate::Changed(observed) => {
                // The answer to a write can be newer than the watch.
                let version = |pod: &Pod| {
                    api::parse_resource_version(pod.metadata.resource_version.as_ref()?)
                };
                let is_outdated = version(&observed.pod) < version(self.state.pod());
                if !is_outdated {
                    self.apply_pod(*observed);
                }
            }
        }
    }

    /// Applies what a LIST showed of the group. Before the first LIST the worker sends no GET for its own group: a
    /// thousand pods cost one request, not a thousand.
    fn apply_listing(&mut self, listed: &ListedState) {
        let state = self.state.pod_state();
        match listed {
            ListedState::Foreign
                if state.group == GroupPresence::Unknown && !state.has_unanswered_put =>
            {
                self.mark_foreign();
            }
            ListedState::Absent { requested_at } => {
                self.state.group_owned();
                self.group_not_listed(*requested_at);
            }
            ListedState::Exists {
                requested_at,
                group,
            } => self
                .state
                .group_listed(group, *requested_at, Timestamp::now()),
            ListedState::NotListed | ListedState::Unlisted | ListedState::Foreign => {}
        }
    }

    /// Waits until there is an update of the pod.
    async fn pod_update(&mut self) {
        if self.updates.1.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
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
        // At its deadline the pod gets another status, and at the end of its grace period its hooks are left behind.
        let pod = self.state.pod();
        let grace = GracePeriod::of(pod, self.state.pod_state());
        let ends = [
            status::active_deadline(pod),
            grace.map(|grace| grace.ends_at()),
        ];
        let ends = ends.into_iter().flatten().filter(|at| *at > now);
        let until_write = self.next_write_at.into_iter().chain(ends).min();
        let until_write =
            until_write.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
        let until_write = until_write.map(|pause| pause.min(MAX_SLEEP));
        let low_priority = self.context.low_priority_write_permit.clone();
        let (updates, listed, settings) =
            (&mut self.updates.1, &mut self.listed, &mut self.settings);
        let (probes, hooks) = (&mut self.probes, &mut self.hooks);
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
            () = probes.changed() => {}
            end = hooks.ended() => return WakeReason::HookEnded(end),
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
                    || self.state.pod_state().has_unanswered_put
                    || self.state.failure_count(AttemptKind::Read) > 0
            }
            _ => false,
        }
    }

    /// If a `DaemonSet` controls the pod, records its name and queues the Event.
    fn update_daemon_set(&mut self) {
        let pod = self.state.existing_pod();
        if let Some(daemon_set) = pod.and_then(daemon_set::daemon_set_name) {
            self.context
                .daemon_sets
                .insert(self.state.pod(), daemon_set);
            self.warn(daemon_set::REASON, daemon_set::MESSAGE);
        }
    }

    /// What the last LIST showed of the group.
    fn listed_state(&self) -> watch::Ref<'_, ListedState> {
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
pub(super) mod fixtures;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU16;

    use serde_json::json;

    use super::fixtures::{kubernetes, listed_worker};
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
        worker.state.pod_mut().status =
            serde_json::from_value(json!({"phase": "Succeeded"})).expect("a status");
        let now = Timestamp::now();
        worker.state.pod_state_mut().group_listed(now, now);
        let due = now.checked_add(pod_plan::FINISHED_GROUP_TTL);
        let due = due.expect("in range");
        for seconds in [0, 10, 200] {
            let now = now + jiff::SignedDuration::from_secs(seconds);
            let decision = worker.next_action(now);
            assert_eq!((decision.action, decision.at), (PodAction::Delete, due));
        }
    }
}
