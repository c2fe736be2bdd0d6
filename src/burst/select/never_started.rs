//! What to do about granted pods that are bound to a virtual node and never started.
//!
//! In: pods in placements whose creates fail, pods that ACI does not run, and pods that wait for
//! Azure. Out: the pods to delete, so that a replacement can run elsewhere, and the pods only to report. A pod
//! is deleted only if its controller replaces it. For a pod of a Job, [`jobs`](crate::burst::facts::jobs) checks that when
//! the rescue is carried out. Each pod is rescued once: its replacement is a new pod.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::aci::failure::FailureClass;
use crate::burst::facts::pod::{BoundPod, OwnerKind, PodFacts, PodOwner, PodReference};
use crate::burst::leader_state::PodWrite;
use crate::burst::observation::ObservedPool;
use crate::k8s::time::later;

/// How long a pod may take to start in a placement where no pod starts, or while it waits for Azure: longer
/// than an image pull, and longer than the first closed times of a placement.
pub const START_TIMEOUT: Duration = Duration::from_secs(300);

/// How long a pod stays that ACI does not run. Only a change of its owner's template could help it.
pub const REFUSAL_GRACE_PERIOD: Duration = Duration::from_secs(60);

/// How long a pod must have waited for Azure, since that was seen first: a first attempt that fails is repeated before.
const AZURE_WAIT_GRACE_PERIOD: Duration = Duration::from_secs(60);

/// A pod that never started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeverStarted {
    /// The pod.
    pub pod: PodReference,
    /// What to do about it.
    pub action: RescueAction,
    /// Its controller.
    pub owner: Option<PodOwner>,
    /// Why it has not started, with Azure's message, and what follows.
    pub why: String,
    /// If Azure's message shows that the template is the cause: the template and the message.
    pub template_fault: Option<(String, String)>,
}

/// What to do about a pod that never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RescueAction {
    /// Delete it, if its UID is still the same. Its controller replaces it.
    Delete,
    /// Read its Job. If the Job replaces the pod, evict the pod: an eviction adds a disruption condition, which
    /// the Job's pod failure policy may ignore. Otherwise only report it.
    AskJob,
    /// Only report it: as far as is known, nothing replaces it.
    Report,
}

/// The pods to act on, and what the next plan needs.
#[derive(Clone, Debug, Default)]
pub struct DueRescues {
    /// Pods whose time to start is over, except those whose deletion failed recently.
    pub rescues: Vec<NeverStarted>,
    /// Pods whose time to start is over because of their template, also if their deletion failed recently.
    pub faults: Vec<NeverStarted>,
    /// When the time of the next pod is over.
    pub next: Option<Timestamp>,
    /// Pods that have not started, by UID, with the time since when each has been waiting for Azure.
    pub waiting: HashMap<String, Timestamp>,
}

/// Finds the pods whose time to start is over at `now`.
///
/// A pod may have waited for something else first, for example a `ConfigMap`, before the operator created its
/// container group. So a pod that waits for Azure is also left for a minute from when the operator first saw that
/// it does. New create attempts in between do not restart that minute.
pub fn find_due(observed: &ObservedPool<'_>, now: Timestamp) -> DueRescues {
    let mut due = DueRescues::default();
    let spilled = observed.granted.iter().filter(|granted| granted.is_spilled);
    for pod in spilled.map(|granted| granted.pod) {
        let Some(bound) = pod.bound().filter(|bound| !bound.has_started) else {
            continue;
        };
        let cause = NotStartedCause::from_bound_pod(bound, observed);
        let waits = matches!(cause, Some(NotStartedCause::WaitingForAzure(..))).then_some(now);
        let waits = observed.leader_state.waits_since(&pod.id.uid).or(waits);
        if let Some(since) = waits {
            due.waiting.insert(pod.id.uid.clone(), since);
        }
        let (Some(cause), Some(bound_at), false) = (cause, bound.bound_since, pod.is_deleting)
        else {
            continue;
        };
        let until = later(
            observed.by_our_clock(bound_at).min(now),
            cause.grace_period(),
        );
        let until = match cause {
            NotStartedCause::WaitingForAzure(..) => {
                until.max(later(waits.unwrap_or(now), AZURE_WAIT_GRACE_PERIOD))
            }
            NotStartedCause::Refused(_) | NotStartedCause::PlacementFailing(..) => until,
        };
        if now < until {
            due.next = Some(due.next.map_or(until, |next| next.min(until)));
            continue;
        }
        let rescue = never_started(pod, &cause);
        if rescue.template_fault.is_some() {
            due.faults.push(rescue.clone());
        }
        if !observed.is_backing_off(PodWrite::Delete, &pod.id, now) {
            due.rescues.push(rescue);
        }
    }
    due
}

/// Why a pod has not started.
enum NotStartedCause<'a> {
    /// Azure refuses it permanently, or its node does not send it to Azure; with this message.
    Refused(&'a str),
    /// No pod starts in its placement: the placement's name and Azure's message.
    PlacementFailing(&'a str, &'a str),
    /// It waits for Azure: the kind of failure and the message.
    WaitingForAzure(FailureClass, &'a str),
}

impl<'a> NotStartedCause<'a> {
    fn from_bound_pod(bound: &'a BoundPod, observed: &'a ObservedPool<'_>) -> Option<Self> {
        if let Some(why) = &bound.refusal {
            return Some(Self::Refused(why));
        }
        let place = observed
            .placements
            .iter()
            .find(|place| place.node == bound.node);
        let trouble = place.and_then(|place| {
            let health = observed
                .leader_state
                .placement_health()
                .get(&place.placement)?;
            Some(Self::PlacementFailing(
                &place.placement,
                health.failure_message()?,
            ))
        });
        let waits = bound.waiting_for_azure.as_ref();
        trouble.or_else(|| waits.map(|(class, why)| Self::WaitingForAzure(*class, why)))
    }

    fn grace_period(&self) -> Duration {
        match self {
            Self::Refused(_) => REFUSAL_GRACE_PERIOD,
            Self::PlacementFailing(..) | Self::WaitingForAzure(..) => START_TIMEOUT,
        }
    }

    /// Azure's message, if the next pod of the template would fail in the same way.
    fn template_fault(&self) -> Option<&str> {
        match self {
            Self::Refused(why) | Self::WaitingForAzure(FailureClass::Unknown, why) => Some(why),
            Self::PlacementFailing(..) | Self::WaitingForAzure(..) => None,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Refused(why) => format!("ACI does not run it: {why}"),
            Self::PlacementFailing(placement, why) => {
                format!("placement {placement} starts no pods: {why}")
            }
            Self::WaitingForAzure(class, why) => {
                let minutes = START_TIMEOUT.as_secs() / 60;
                format!(
                    "it has not started in {minutes} minutes, and waits for Azure ({}): {why}",
                    class.reason()
                )
            }
        }
    }
}

fn never_started(pod: &PodFacts, cause: &NotStartedCause<'_>) -> NeverStarted {
    let owner = pod.owner.as_ref();
    let (action, then) = match owner.map(|owner| owner.kind) {
        Some(OwnerKind::ReplicaController) => {
            let then = "; it is to be deleted, and its owner makes another";
            (RescueAction::Delete, then)
        }
        Some(OwnerKind::Job) => (RescueAction::AskJob, ""),
        _ => (
            RescueAction::Report,
            "; it stays: it has no owner that makes another",
        ),
    };
    let template = owner.map(|owner| owner.template.clone());
    NeverStarted {
        pod: pod.id.clone(),
        action,
        owner: owner.cloned(),
        why: format!("{}{then}", cause.message()),
        template_fault: template
            .and_then(|template| Some((template, cause.template_fault()?.to_owned()))),
    }
}
