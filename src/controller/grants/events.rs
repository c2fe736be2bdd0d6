//! Publishes Events about decisions and grants: one per pod and reason, until the content changes. A task
//! writes them in order. If the API server does not accept an Event, the task retries three times;
//! after that a later plan publishes it again.
//!
//! In: plans, and grants that took effect. Out: Events on the pods, and Events on the pool when a peak begins
//! or ends or a limit is reached. Events have a task of their own, so that a thousand of them delay no grant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Reporter};
use kube::{Client, Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::api::BurstPool;
use crate::api::condition::{self, CAPACITY_LIMITED, SPILLING};
use crate::burst::outcome::IgnoreReason;
use crate::burst::plan::{PeakState, Precondition};
use crate::burst::rules::expiry::GrantExpiry;
use crate::burst::select::never_started::{NeverStarted, RescueAction};
use crate::burst::{BlockedBy, BurstPlan, PodDecision, PodOutcome, PodReference};
use crate::k8s::call;
use crate::k8s::events;
use crate::k8s::refused::is_refused;

/// The reporting controller in the Events.
const REPORTER: &str = "burstpool";
/// How many Events may wait to be written. Further ones are dropped; a later plan publishes those about its
/// decisions again.
const QUEUE_CAPACITY: usize = 10_000;

/// The note for a pod that the scheduler placed on ACI after its grant had expired.
const PLACED_AFTER_EXPIRY: &str = "the scheduler has placed the pod on a virtual node after its grant had \
     expired: the pod holds a slot again, and the pool may have more pods on ACI than its maximum until some end";

/// The timeout of writing one Event.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The pauses before each retry of an Event that the API server did not accept.
const RETRY_PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The reason of Events about a pod that never started.
const NEVER_STARTED: &str = "NeverStarted";

/// An Event that waits to be written.
struct QueuedEvent {
    regarding: ObjectReference,
    event: Event,
    /// The pod's UID and the reason, by which a later plan publishes the Event again if this one is lost; `None`
    /// if it is not published again.
    publish_key: Option<(String, &'static str)>,
}

/// By pod UID, the Events that were written or wait, as reason and content. Another Event of the same reason is
/// published only if its content differs.
type PublishedEvents = HashMap<String, Vec<(&'static str, String)>>;

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
}

/// Publishes Events about decisions.
pub(super) struct EventPublisher {
    published: Arc<Mutex<PublishedEvents>>,
    /// By pool name, the state that was last reported.
    pool_states: HashMap<String, PublishedState>,
    queue: mpsc::Sender<QueuedEvent>,
}

impl EventPublisher {
    /// A publisher, and the future that writes its Events for as long as it is polled.
    pub fn new(client: Client, instance: &str) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, mut receiver) = mpsc::channel::<QueuedEvent>(QUEUE_CAPACITY);
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(instance.to_owned()),
        };
        let published = Arc::<Mutex<PublishedEvents>>::default();
        let written = published.clone();
        let write_events = async move {
            while let Some(queued) = receiver.recv().await {
                if !publish(&client, &reporter, &queued).await
                    && let Some((uid, reason)) = &queued.publish_key
                {
                    forget(&written, uid, reason);
                }
            }
        };
        let publisher = Self {
            published,
            pool_states: HashMap::new(),
            queue,
        };
        (publisher, write_events)
    }

    /// Publishes what is new in `plan`.
    pub fn publish_plan(&mut self, plan: &BurstPlan) {
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

    /// A handle that publishes Events about grants.
    pub fn granted_notifier(&self) -> GrantedNotifier {
        GrantedNotifier(self.queue.clone())
    }

    /// Publishes that a peak of the pool begins or ends, or that a limit is reached, if that is new.
    pub fn publish_pool_changes(&mut self, pool: &BurstPool, plan: &BurstPlan) {
        // An instance that does not lead the pool yet knows nothing about peaks and limits.
        if plan.precondition != Precondition::Met {
            return;
        }
        let now = PublishedState {
            is_peak: plan.peak != PeakState::None,
            is_limited: plan.limit_message.is_some(),
        };
        let previous = self.pool_states.insert(pool.name_any(), now);
        let previous = previous.unwrap_or_else(|| PublishedState::from_status(pool));
        let limit_message = plan.limit_message.clone().unwrap_or_default();
        let limit_message = with_dry_run_prefix(plan.is_dry_run, &limit_message);
        let changes = [
            (
                now.is_peak && !previous.is_peak,
                "PeakBegan",
                "the cluster's own nodes are full: pods are starting or running on ACI".to_owned(),
            ),
            (
                previous.is_peak && !now.is_peak,
                "PeakEnded",
                "no pod is on ACI now".to_owned(),
            ),
            (
                now.is_limited && !previous.is_limited,
                "LimitReached",
                limit_message,
            ),
        ];
        for (_, reason, note) in changes.into_iter().filter(|(is_new, ..)| *is_new) {
            let event = Event {
                type_: EventType::Normal,
                reason: reason.to_owned(),
                note: Some(note),
                action: "Bursting".to_owned(),
                secondary: None,
            };
            // Dropped only if thousands wait already.
            let _ = self.queue.try_send(QueuedEvent {
                regarding: pool.object_ref(&()),
                event,
                publish_key: None,
            });
        }
    }

    /// Forgets all pools for which `keep` is false.
    pub fn retain_pools(&mut self, keep: impl Fn(&str) -> bool) {
        self.pool_states.retain(|name, _| keep(name));
    }

    /// Forgets all pods for which `keep` is false.
    pub fn retain_pods(&mut self, keep: impl Fn(&str) -> bool) {
        self.published.lock().retain(|uid, _| keep(uid));
    }

    fn publish_once(
        &mut self,
        pod: &PodReference,
        type_: EventType,
        reason: &'static str,
        message: &str,
        is_dry_run: bool,
    ) {
        let note = with_dry_run_prefix(is_dry_run, message);
        self.publish_if_new(pod_event(pod, type_, reason, &note), pod, reason, note);
    }

    /// Publishes that a pod never started: once for each action, however often its deletion is tried and
    /// however Azure's message changes.
    fn publish_never_started(&mut self, rescue: &NeverStarted, is_dry_run: bool) {
        let note = with_dry_run_prefix(is_dry_run, &rescue.why);
        let event = pod_event(&rescue.pod, EventType::Warning, NEVER_STARTED, &note);
        let content = format!("{:?}", rescue.action);
        self.publish_if_new(
            event,
            &rescue.pod,
            NEVER_STARTED,
            with_dry_run_prefix(is_dry_run, &content),
        );
    }

    /// Queues an Event, unless the last one about the pod with this reason had the same content.
    fn publish_if_new(
        &mut self,
        mut event: QueuedEvent,
        pod: &PodReference,
        reason: &'static str,
        content: String,
    ) {
        // Hold the lock until the Event is queued: the writer may finish, or fail, before it is recorded here.
        let mut published = self.published.lock();
        let previous = published.get(&pod.uid).into_iter().flatten();
        let mut previous = previous.filter(|(other, _)| *other == reason);
        if previous.any(|(_, previous)| *previous == content) {
            return;
        }
        event.publish_key = Some((pod.uid.clone(), reason));
        if self.queue.try_send(event).is_ok() {
            let of_pod = published.entry(pod.uid.clone()).or_default();
            of_pod.retain(|(other, _)| *other != reason);
            of_pod.push((reason, content));
        }
    }
}

/// Writes an Event, with retries if the API server does not accept it for now. Returns `false` if it is lost. A
/// refusal is final, for example in a namespace that is being deleted, and counts as written.
async fn publish(client: &Client, reporter: &Reporter, queued: &QueuedEvent) -> bool {
    let mut pauses = RETRY_PAUSES.iter();
    loop {
        let written = events::publish(client, reporter, &queued.event, &queued.regarding);
        let error = match call::with_timeout(CALL_TIMEOUT, written).await {
            Ok(()) => return true,
            Err(error) => error,
        };
        tracing::debug!(%error, "writing an Event");
        if let kube::Error::Api(status) = &error
            && (is_refused(status) || call::is_object_not_found(status))
        {
            return true;
        }
        let Some(pause) = pauses.next() else {
            return false;
        };
        tokio::time::sleep(*pause).await;
    }
}

fn forget(published: &Mutex<PublishedEvents>, uid: &str, reason: &str) {
    let mut published = published.lock();
    if let Some(of_pod) = published.get_mut(uid) {
        of_pod.retain(|(other, _)| *other != reason);
    }
}

/// Publishes Events about results: grants that took effect in full or in part, expired grants, and what is done
/// with a Job's pod that never started. A planned write may still be denied.
#[derive(Clone)]
pub(super) struct GrantedNotifier(mpsc::Sender<QueuedEvent>);

impl GrantedNotifier {
    /// Publishes that the pod was granted.
    pub(super) fn notify(&self, decision: &PodDecision) {
        let (reason, note) = (decision.outcome.reason(), decision.outcome.to_string());
        // Dropped only if thousands wait already.
        let _ = self
            .0
            .try_send(pod_event(&decision.pod, EventType::Normal, reason, &note));
    }

    /// Publishes what is done with a pod that never started.
    pub(super) fn notify_never_started(&self, pod: &PodReference, note: &str) {
        // Dropped only if thousands wait already.
        let _ = self
            .0
            .try_send(pod_event(pod, EventType::Warning, NEVER_STARTED, note));
    }

    /// Publishes that a grant has expired and that the pod is marked so.
    pub(super) fn notify_expired(&self, expiry: &GrantExpiry) {
        let note = format!(
            "a virtual node has room for the pod, and the scheduler does not place it there: {}; while it \
             waits, it holds no slot of the pool, and no other pod of its template is granted",
            expiry.why
        );
        let event = pod_event(&expiry.pod, EventType::Warning, "GrantExpired", &note);
        // Dropped only if thousands wait already.
        let _ = self.0.try_send(event);
    }

    /// Publishes that a grant took effect only in part, and why.
    pub(super) fn notify_incomplete(&self, decision: &PodDecision, why: &str) {
        let event = pod_event(&decision.pod, EventType::Warning, "GrantIncomplete", why);
        // Dropped only if thousands wait already.
        let _ = self.0.try_send(event);
    }
}

fn with_dry_run_prefix(is_dry_run: bool, note: &str) -> String {
    let prefix = if is_dry_run {
        "dry run, nothing is written: "
    } else {
        ""
    };
    format!("{prefix}{note}")
}

fn pod_event(pod: &PodReference, type_: EventType, reason: &str, note: &str) -> QueuedEvent {
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.to_owned()),
        action: "Bursting".to_owned(),
        secondary: None,
    };
    QueuedEvent {
        regarding,
        event,
        publish_key: None,
    }
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
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::burst::decision::SlotState;
    use crate::burst::outcome::HoldReason;
    use crate::controller::fixtures;

    fn plan(outcome: PodOutcome, is_dry_run: bool) -> BurstPlan {
        let decision = PodDecision {
            pod: PodReference {
                namespace: "default".to_owned(),
                name: "web-1".to_owned(),
                uid: "web-1".to_owned(),
                resource_version: "1".to_owned(),
            },
            workload: "web".to_owned(),
            outcome,
            slot: SlotState::None,
            hold_start: None,
        };
        BurstPlan {
            decisions: vec![decision],
            is_dry_run,
            ..BurstPlan::default()
        }
    }

    fn grant() -> PodOutcome {
        PodOutcome::Grant {
            placement: "weu".to_owned(),
        }
    }

    /// The Events of these plans, in order.
    fn published(plans: &[BurstPlan]) -> Vec<String> {
        let (queue, mut waiting) = mpsc::channel(QUEUE_CAPACITY);
        let mut publisher = EventPublisher {
            published: Arc::default(),
            pool_states: HashMap::new(),
            queue,
        };
        for plan in plans {
            publisher.publish_plan(plan);
        }
        std::iter::from_fn(|| waiting.try_recv().ok())
            .map(|queued| queued.event)
            .map(|event| format!("{}: {}", event.reason, event.note.unwrap_or_default()))
            .collect()
    }

    #[test]
    fn each_reason_is_published_once_until_its_content_changes() {
        let denied = || {
            let why = HoldReason::Denied("no".to_owned());
            let until = jiff::Timestamp::UNIX_EPOCH;
            plan(PodOutcome::Hold { until, why }, false)
        };
        let blocked = |by| plan(PodOutcome::Blocked(by), false);
        let rounds = [
            denied(),
            plan(grant(), false),
            denied(),
            blocked(BlockedBy::PoolLimit(1)),
            blocked(BlockedBy::Capacity("cpu")),
            blocked(BlockedBy::PoolLimit(1)),
            blocked(BlockedBy::PoolLimit(2)),
        ];
        let published = published(&rounds);
        let reasons: Vec<&str> = published
            .iter()
            .filter_map(|event| event.split(':').next())
            .collect();
        let limit = "PoolLimitReached";
        assert_eq!(reasons, ["GrantDenied", limit, "NoRoom", limit]);
    }

    #[test]
    fn events_of_a_dry_run_are_marked_and_published_again_after_it() {
        let lack = || PodOutcome::Blocked(BlockedBy::PoolLimit(1));
        let published = published(&[plan(grant(), true), plan(lack(), true), plan(lack(), false)]);
        let is_marked: Vec<bool> = published
            .iter()
            .map(|event| event.contains("dry run"))
            .collect();
        assert_eq!(is_marked, [true, true, false], "{published:?}");
    }

    fn never_started(why: &str) -> BurstPlan {
        let plan = plan(grant(), false);
        BurstPlan {
            never_started: vec![NeverStarted {
                pod: plan.decisions[0].pod.clone(),
                action: RescueAction::Delete,
                owner: None,
                why: why.to_owned(),
                template_fault: None,
            }],
            ..plan
        }
    }

    #[test]
    fn a_pod_that_never_started_gets_one_event_for_many_deletion_attempts() {
        let published =
            published(&["no quota: 3 of 4", "no quota: 4 of 4", "429"].map(never_started));
        assert_eq!(published, ["NeverStarted: no quota: 3 of 4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_was_not_written_is_retried_and_then_published_with_a_later_plan() {
        let code = Arc::new(AtomicU16::new(503));
        let sent = Arc::new(AtomicU16::new(0));
        let (answer, counted) = (code.clone(), sent.clone());
        let service = tower::service_fn(move |_: http::Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let code = answer.load(Ordering::Relaxed);
            let status = json!({"kind": "Status", "status": "Failure", "reason": "", "message": "", "code": code});
            let event = json!({"metadata": {}, "eventTime": null});
            let body = if code < 400 { event } else { status };
            let answer = http::Response::builder().status(code);
            std::future::ready(answer.body(Body::from(body.to_string().into_bytes())))
        });
        let (mut publisher, publishing) =
            EventPublisher::new(Client::new(service, "default"), "us");
        let publishing = tokio::spawn(publishing);
        let lack = plan(PodOutcome::Blocked(BlockedBy::PoolLimit(1)), false);
        let mut sent_after = async |code_now: u16| {
            code.store(code_now, Ordering::Relaxed);
            publisher.publish_plan(&lack);
            tokio::time::sleep(Duration::from_secs(60)).await;
            sent.swap(0, Ordering::Relaxed)
        };
        assert_eq!(sent_after(503).await, 4, "the API server has no capacity");
        assert_eq!(sent_after(201).await, 1, "it was not published yet");
        assert_eq!(sent_after(201).await, 0, "it is published");
        publishing.abort();
    }

    #[tokio::test]
    async fn a_grant_gets_its_event_when_it_took_effect_and_not_when_it_is_planned() {
        let planned = plan(grant(), false);
        assert_eq!(
            published(std::slice::from_ref(&planned)),
            Vec::<String>::new()
        );
        let client = fixtures::context("http://127.0.0.1:1").client.clone();
        let (publisher, _publishing) = EventPublisher::new(client, "us");
        assert_eq!(publisher.queue.capacity(), QUEUE_CAPACITY);
        publisher.granted_notifier().notify(&planned.decisions[0]);
        assert_eq!(publisher.queue.capacity(), QUEUE_CAPACITY - 1);
    }
}
