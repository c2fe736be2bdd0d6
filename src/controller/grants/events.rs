//! Publishes Events about decisions and grants: one per pod and reason, until the content changes.
//!
//! In: plans, and grants that took effect. Out: Events on the pods, and Events on the pool when a peak begins
//! or ends or a limit is reached. A task of its own writes them, so that a thousand of them delay no grant.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`published`] | records which Events have been published |
//! | [`queue`] | writes the Events in order, with retries |
//! | [`results`] | publishes what has been written, such as grants |

mod published;
mod queue;
mod results;

use std::collections::HashMap;

use kube::runtime::events::EventType;
use kube::{Client, Resource as _, ResourceExt as _};

use self::published::PublishedEvents;
use self::queue::{EventQueue, QueuedEvent, write_events};
use crate::api::BurstPool;
use crate::api::condition::{self, CAPACITY_LIMITED, SPILLING};
use crate::burst::outcome::IgnoreReason;
use crate::burst::plan::{PeakState, Precondition};
use crate::burst::select::never_started::{NeverStarted, RescueAction};
use crate::burst::{BlockedBy, BurstPlan, PodDecision, PodOutcome, PodReference};

pub(super) use self::results::ResultNotifier;

/// The note for a pod that the scheduler placed on ACI after its grant had expired.
const PLACED_AFTER_EXPIRY: &str = "the scheduler has placed the pod on a virtual node after its grant had \
     expired: the pod holds a slot again, and the pool may have more pods on ACI than its maximum until some end";

/// The reason of Events about a pod that never started.
const NEVER_STARTED: &str = "NeverStarted";

/// The part of a pool's state that Events report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PublishedState {
    is_peak: bool,
    is_limited: bool,
}

impl PublishedState {
    /// The state in the pool's status, so that a leader that starts during a peak does not report it again.
    fn from_status(pool: &BurstPool) -> Self {
        Self {
            is_peak: condition::is_true(pool, SPILLING),
            is_limited: condition::is_true(pool, CAPACITY_LIMITED),
        }
    }

    /// The state after a plan.
    fn from_plan(plan: &BurstPlan) -> Self {
        Self {
            is_peak: plan.peak != PeakState::None,
            is_limited: plan.limit_message.is_some(),
        }
    }
}

/// Publishes Events about decisions.
pub(super) struct EventPublisher {
    published: PublishedEvents,
    /// By pool name, the state that was last reported.
    pool_states: HashMap<String, PublishedState>,
    queue: EventQueue,
}

impl EventPublisher {
    /// A publisher, and the future that writes its Events for as long as it is polled.
    pub fn new(client: Client, instance: &str) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, waiting) = EventQueue::new();
        let published = PublishedEvents::default();
        let writing = write_events(client, instance, waiting, published.clone());
        let publisher = Self {
            published,
            pool_states: HashMap::new(),
            queue,
        };
        (publisher, writing)
    }

    /// Publishes what is new in `plan`.
    pub fn publish_plan(&self, plan: &BurstPlan) {
        for decision in &plan.decisions {
            if let Some((kind, reason, message)) = event_for(decision, plan.is_dry_run) {
                self.publish_once(&decision.pod, kind, reason, &message, plan.is_dry_run);
            }
        }
        for rescue in &plan.never_started {
            // The Event about a Job's pod is published after the Job has been read.
            if rescue.action != RescueAction::AskJob || plan.is_dry_run {
                self.publish_never_started(rescue, plan.is_dry_run);
            }
        }
        for late in &plan.late {
            let (kind, reason) = (EventType::Warning, "PlacedAfterExpiry");
            self.publish_once(late, kind, reason, PLACED_AFTER_EXPIRY, plan.is_dry_run);
        }
    }

    /// A handle that publishes Events about results.
    pub fn result_notifier(&self) -> ResultNotifier {
        ResultNotifier(self.queue.clone())
    }

    /// Publishes that a peak of the pool begins or ends, or that a limit is reached, if that is new.
    pub fn publish_pool_changes(&mut self, pool: &BurstPool, plan: &BurstPlan) {
        // An instance that does not lead the pool yet knows nothing about peaks and limits.
        if plan.precondition != Precondition::Met {
            return;
        }
        let now = PublishedState::from_plan(plan);
        let previous = self.pool_states.insert(pool.name_any(), now);
        let previous = previous.unwrap_or_else(|| PublishedState::from_status(pool));
        for (reason, note) in pool_changes(previous, now, plan) {
            let regarding = pool.object_ref(&());
            // Dropped only if thousands wait already.
            self.queue
                .push(QueuedEvent::new(regarding, EventType::Normal, reason, note));
        }
    }

    /// Forgets all pools for which `keep` is false.
    pub fn retain_pools(&mut self, keep: impl Fn(&str) -> bool) {
        self.pool_states.retain(|name, _| keep(name));
    }

    /// Forgets all pods for which `keep` is false.
    pub fn retain_pods(&self, keep: impl Fn(&str) -> bool) {
        self.published.retain_pods(keep);
    }

    fn publish_once(
        &self,
        pod: &PodReference,
        type_: EventType,
        reason: &'static str,
        message: &str,
        is_dry_run: bool,
    ) {
        let note = with_dry_run_prefix(is_dry_run, message);
        let event = QueuedEvent::about_pod(pod, type_, reason, &note);
        self.publish_if_new(event, pod, reason, note);
    }

    /// Publishes that a pod never started: once for each action, however often its deletion is tried and
    /// however Azure's message changes.
    fn publish_never_started(&self, rescue: &NeverStarted, is_dry_run: bool) {
        let note = with_dry_run_prefix(is_dry_run, &rescue.why);
        let event = QueuedEvent::about_pod(&rescue.pod, EventType::Warning, NEVER_STARTED, &note);
        let content = with_dry_run_prefix(is_dry_run, &format!("{:?}", rescue.action));
        self.publish_if_new(event, &rescue.pod, NEVER_STARTED, content);
    }

    /// Queues an Event, unless the last one about the pod with this reason had the same content.
    fn publish_if_new(
        &self,
        mut event: QueuedEvent,
        pod: &PodReference,
        reason: &'static str,
        content: String,
    ) {
        event.publish_key = Some((pod.uid.clone(), reason));
        let push = || self.queue.push(event);
        self.published
            .publish_if_new(&pod.uid, reason, content, push);
    }
}

/// The changes of a pool's state that Events report, as reason and note.
fn pool_changes(
    previous: PublishedState,
    now: PublishedState,
    plan: &BurstPlan,
) -> Vec<(&'static str, String)> {
    let mut changes = Vec::new();
    if now.is_peak && !previous.is_peak {
        let note = "the cluster's own nodes are full: pods are starting or running on ACI";
        changes.push(("PeakBegan", note.to_owned()));
    }
    if previous.is_peak && !now.is_peak {
        changes.push(("PeakEnded", "no pod is on ACI now".to_owned()));
    }
    if now.is_limited && !previous.is_limited {
        let why = plan.limit_message.as_deref().unwrap_or_default();
        let note = with_dry_run_prefix(plan.is_dry_run, why);
        changes.push(("LimitReached", note));
    }
    changes
}

fn with_dry_run_prefix(is_dry_run: bool, note: &str) -> String {
    let prefix = if is_dry_run {
        "dry run, nothing is written: "
    } else {
        ""
    };
    format!("{prefix}{note}")
}

/// The Event for a decision, if it deserves one. The pool's status shows held pods and those that wait for the
/// rate limit, so they get no Event, except after a denied grant. A grant gets its Event when it has taken
/// effect; in dry-run mode, when it is planned.
fn event_for(
    decision: &PodDecision,
    is_dry_run: bool,
) -> Option<(EventType, &'static str, String)> {
    let kind = match &decision.outcome {
        PodOutcome::Grant { .. } if !is_dry_run => return None,
        PodOutcome::Refuse(_) | PodOutcome::Ignore(IgnoreReason::ForeignGrant) => {
            EventType::Warning
        }
        PodOutcome::Hold { .. } if decision.is_denied() => EventType::Warning,
        PodOutcome::Blocked(BlockedBy::NotLeading | BlockedBy::RateLimit(_))
        | PodOutcome::Hold { .. }
        | PodOutcome::InFlight
        | PodOutcome::Ignore(_) => return None,
        PodOutcome::Grant { .. } | PodOutcome::Blocked(_) => EventType::Normal,
    };
    let outcome = &decision.outcome;
    // A time in the message would make every Event new.
    let message = match outcome {
        PodOutcome::Hold { why, .. } => why.to_string(),
        outcome => outcome.to_string(),
    };
    Some((kind, outcome.reason(), message))
}

#[cfg(test)]
mod tests;
