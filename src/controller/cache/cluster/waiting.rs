//! Pods without a node, as the cache keeps them, and since when the scheduler refuses them.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Snapshot, version};
use crate::burst::PodFacts;
use crate::burst::facts::pod;
use crate::burst::facts::pod::PodStage;
use crate::burst::rules::hold;
use crate::node::watched_pod::WatchedPod;
use crate::telemetry::ServerClock;

/// A pod without a node: the fields that plans need, and the whole pod as JSON, which takes a fraction of a
/// typed pod's memory. The JSON is for the translation to ACI and for the grant's patch.
#[derive(Clone, Debug)]
pub struct WaitingPod {
    /// The fields that plans need.
    pub facts: Arc<PodFacts>,
    json: Arc<[u8]>,
    /// The pod's last refusal. It stays while the pod is not refused: the condition keeps its transition time
    /// while its status is `False`, for example during an error of the scheduler.
    refusal: Option<LastRefusal>,
    /// Fields of the pod that the operator's types do not have.
    pub unknown_fields: Arc<[String]>,
}

/// A refusal by the scheduler.
#[derive(Clone, Copy, Debug)]
struct LastRefusal {
    /// The transition time in the pod's `PodScheduled` condition, by the scheduler's clock.
    transition_time: Timestamp,
    /// The start of the refusal, by the operator's monotonic clock.
    at: Timestamp,
}

impl WaitingPod {
    fn from_observed(observed: WatchedPod) -> Option<Self> {
        let facts = PodFacts::from_pod(&observed.pod)?;
        Some(Self {
            refusal: None,
            facts: Arc::new(facts),
            json: serde_json::to_vec(&observed.pod).ok()?.into(),
            unknown_fields: observed.unknown_fields.into(),
        })
    }

    /// The whole pod; `None` if its JSON cannot be parsed.
    pub fn pod(&self) -> Option<Pod> {
        serde_json::from_slice(&self.json).ok()
    }
}

pub(super) fn insert_waiting(snapshot: &mut Snapshot, observed: WatchedPod, clock: &ServerClock) {
    let written = pod::refusal_written(&observed.pod);
    let Some(mut waiting) = WaitingPod::from_observed(observed) else {
        return;
    };
    let uid = waiting.facts.id.uid.clone();
    let cached = snapshot.waiting.get(&uid);
    if cached.is_none_or(|cached| version(&cached.facts) <= version(&waiting.facts)) {
        waiting.refusal = cached.and_then(|cached| cached.refusal);
        if let Some(transition_time) = refused_at(&waiting.facts) {
            let unobserved =
                || hold::PriorRefusal::Unseen(written.map_or(Duration::ZERO, |at| clock.age(at)));
            let prior = cached.map_or_else(unobserved, prior_refusal);
            let at = hold::refused_at(transition_time, prior, clock.steady());
            waiting.refusal = Some(LastRefusal {
                transition_time,
                at,
            });
            Arc::make_mut(&mut waiting.facts).stage = PodStage::Unschedulable(Some(at));
        }
        snapshot.waiting.insert(uid, waiting);
    }
}

/// The refusal of a pod as the cache knows it, before an update.
fn prior_refusal(cached: &WaitingPod) -> hold::PriorRefusal {
    cached
        .refusal
        .map_or(hold::PriorRefusal::NotRefused, |refusal| {
            hold::PriorRefusal::Refused {
                transition: refusal.transition_time,
                at: refusal.at,
            }
        })
}

pub(super) fn refused_at(facts: &PodFacts) -> Option<Timestamp> {
    match facts.stage {
        PodStage::Unschedulable(at) => at,
        _ => None,
    }
}
