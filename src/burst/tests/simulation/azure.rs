//! Azure: starts the pods that are bound to the node, unless it fails.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::cluster::{Cluster, NODE};
use crate::aci::failure::FailureClass;
use crate::burst::facts::pod::PodStage;

/// The result of a create.
pub type StartResult = Result<(), FailureClass>;

impl Cluster {
    /// Tries to start pods that have not started, and returns the results.
    pub fn start_groups(&mut self, rng: &mut StdRng) -> Vec<StartResult> {
        let due: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| {
                pod.facts
                    .bound()
                    .is_some_and(|b| b.node == NODE && !b.has_started)
            })
            .filter(|(_, pod)| pod.try_at <= self.now && !pod.facts.is_deleting)
            .map(|(uid, _)| uid.clone())
            .collect();
        let mut ended = Vec::new();
        for uid in due {
            if let Some(class) = self.refusal(&uid, rng) {
                ended.push(Err(class));
                let next = self.after(rng, 20..90);
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.try_at = next;
                }
                self.change(&uid, |facts| {
                    if let PodStage::Bound(bound) = &mut facts.stage {
                        bound.waiting_for_azure = Some((class, "Azure starts it not".to_owned()));
                    }
                });
                continue;
            }
            ended.push(Ok(()));
            self.change(&uid, |facts| {
                if let PodStage::Bound(bound) = &mut facts.stage {
                    (bound.has_started, bound.is_running) = (true, true);
                }
            });
            self.runs(&uid);
        }
        ended
    }

    /// Why Azure does not start a pod now. `None` if it starts it.
    fn refusal(&mut self, uid: &str, rng: &mut StdRng) -> Option<FailureClass> {
        if self.pods[uid].is_rejected {
            return Some(FailureClass::Unknown);
        }
        if self.now < self.throttled_until || !self.takes_create() {
            return Some(FailureClass::Throttled);
        }
        // Occasionally a pod starts for which Azure already had capacity.
        let class = [
            FailureClass::Capacity,
            FailureClass::Quota,
            FailureClass::Transient,
        ];
        let fails = self.now < self.failing_until && !rng.random_bool(0.1);
        if fails && self.creates_left().is_some() {
            // This create used up a part of the budget that other pods were granted for.
            self.shrunk = self.now;
        }
        fails.then(|| class[rng.random_range(0..3)])
    }
}
