//! What is decided about pods, told as Events: each once, one after the other.
//!
//! In: plans. Out: Events on the pods and, when a peak begins or ends or a limit is reached, on the pool,
//! by a task of their own, so that a thousand of them delay no grant.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _, ResourceExt as _};
use tokio::sync::mpsc;

use crate::api::BurstPool;
use crate::api::condition::{CAPACITY_LIMITED, SPILLING};
use crate::burst::plan::{First, Peak};
use crate::burst::{Decision, Lack, Outcome, Plan, PodRef};

/// Who Events are from.
const REPORTER: &str = "burstpool";
/// How many may wait to be written; more are dropped, and told when they are decided again.
const BACKLOG: usize = 10_000;

/// How long one may take to be written.
const PATIENCE: Duration = Duration::from_secs(10);

/// An Event that waits to be written.
type Told = (ObjectReference, Event);

/// How a pool is, as far as Events tell of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    is_peak: bool,
    is_limited: bool,
}

impl State {
    /// As the pool's status has it: who begins to lead in a peak tells of none.
    fn of(pool: &BurstPool) -> Self {
        let says = |kind: &str| {
            let mut all = pool.status.iter().flat_map(|status| &status.conditions);
            all.any(|one| one.type_ == kind && one.status == "True")
        };
        Self {
            is_peak: says(SPILLING),
            is_limited: says(CAPACITY_LIMITED),
        }
    }
}

/// Tells what is decided.
pub(super) struct Teller {
    /// By pod, what was told last.
    said: HashMap<String, (&'static str, String)>,
    /// By name, how the pools were.
    pools: HashMap<String, State>,
    queue: mpsc::Sender<Told>,
}

impl Teller {
    /// A teller, and what writes its Events as long as it is polled.
    pub fn new(client: Client, instance: &str) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, mut told) = mpsc::channel::<Told>(BACKLOG);
        let reporter = Reporter {
            controller: REPORTER.to_owned(),
            instance: Some(instance.to_owned()),
        };
        let write = async move {
            while let Some((about, event)) = told.recv().await {
                // One for each: a recorder that is kept counts what has the same reason as the same, and
                // only the first one's words stay.
                let recorder = Recorder::new(client.clone(), reporter.clone());
                let told = recorder.publish(&event, &about);
                match tokio::time::timeout(PATIENCE, told).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "writing an Event"),
                    Err(_) => tracing::debug!("writing an Event: no answer"),
                }
            }
        };
        let teller = Self {
            said: HashMap::new(),
            pools: HashMap::new(),
            queue,
        };
        (teller, write)
    }

    /// Tells what is new in `plan`.
    pub fn tell(&mut self, plan: &Plan) {
        for decision in &plan.decisions {
            if let Some((kind, reason, message)) = words(decision) {
                self.say(&decision.pod, kind, reason, message, plan.is_dry_run);
            }
        }
        for rescue in &plan.rescues {
            let (kind, reason) = (EventType::Warning, "NeverStarted");
            self.say(
                &rescue.pod,
                kind,
                reason,
                rescue.why.clone(),
                plan.is_dry_run,
            );
        }
    }

    /// Tells when a peak of the pool begins or ends, and when a limit is reached.
    pub fn tell_of(&mut self, pool: &BurstPool, plan: &Plan) {
        // One that does not lead the pool yet knows neither.
        if plan.first != First::Nothing {
            return;
        }
        let now = State {
            is_peak: plan.peak != Peak::None,
            is_limited: plan.limited.is_some(),
        };
        let before = self.pools.insert(pool.name_any(), now);
        let before = before.unwrap_or_else(|| State::of(pool));
        let limited = plan.limited.clone().unwrap_or_default();
        let news = [
            (
                now.is_peak && !before.is_peak,
                "PeakBegan",
                "home is full: pods run on ACI, or are on their way there".to_owned(),
            ),
            (
                before.is_peak && !now.is_peak,
                "PeakEnded",
                "no pod is on ACI any more".to_owned(),
            ),
            (
                now.is_limited && !before.is_limited,
                "LimitReached",
                limited,
            ),
        ];
        for (_, reason, note) in news.into_iter().filter(|(is_new, ..)| *is_new) {
            let event = Event {
                type_: EventType::Normal,
                reason: reason.to_owned(),
                note: Some(note),
                action: "Bursting".to_owned(),
                secondary: None,
            };
            // Dropped only where thousands wait already.
            let _ = self.queue.try_send((pool.object_ref(&()), event));
        }
    }

    /// Forgets all pools for which `stays` is false.
    pub fn retain_pools(&mut self, stays: impl Fn(&str) -> bool) {
        self.pools.retain(|name, _| stays(name));
    }

    /// Forgets all pods for which `stays` is false.
    pub fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        self.said.retain(|uid, _| stays(uid));
    }

    fn say(
        &mut self,
        pod: &PodRef,
        type_: EventType,
        reason: &'static str,
        message: String,
        is_dry_run: bool,
    ) {
        let news = (reason, message);
        if self.said.get(&pod.uid) == Some(&news) {
            return;
        }
        let note = if is_dry_run {
            format!("dry run, nothing is written: {}", news.1)
        } else {
            news.1.clone()
        };
        let about = ObjectReference {
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
            note: Some(note.chars().take(1000).collect()),
            action: "Bursting".to_owned(),
            secondary: None,
        };
        if self.queue.try_send((about, event)).is_ok() {
            self.said.insert(pod.uid.clone(), news);
        }
    }
}

/// What is worth an Event. That a pod is held, or waits for its turn, is seen in the pool.
fn words(decision: &Decision) -> Option<(EventType, &'static str, String)> {
    let kind = match &decision.outcome {
        Outcome::Refuse(_) => EventType::Warning,
        Outcome::Hold { .. } if decision.is_denied() => EventType::Warning,
        Outcome::Wait(Lack::Leader | Lack::Rate(_))
        | Outcome::Hold { .. }
        | Outcome::InFlight
        | Outcome::Ignore(_) => return None,
        Outcome::Grant { .. } | Outcome::Wait(_) => EventType::Normal,
    };
    let outcome = &decision.outcome;
    // A time in the words would make them new each time.
    let message = match outcome {
        Outcome::Hold { why, .. } => why.to_string(),
        outcome => outcome.to_string(),
    };
    Some((kind, outcome.reason(), message))
}
