//! Azure: starts the pods that are bound to the node, unless it fails.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::cluster::{Cluster, NODE};
use crate::aci::failure::Class;
use crate::burst::pod::Stage;

/// The result of a create.
pub type Ended = Result<(), Class>;

impl Cluster {
    /// Tries to start pods that have not started, and returns the results.
    pub fn start_groups(&mut self, rng: &mut StdRng) -> Vec<Ended> {
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
                    if let Stage::Bound(bound) = &mut facts.stage {
                        bound.waits = Some((class, "Azure starts it not".to_owned()));
                    }
                });
                continue;
            }
            ended.push(Ok(()));
            self.change(&uid, |facts| {
                if let Stage::Bound(bound) = &mut facts.stage {
                    (bound.has_started, bound.is_running) = (true, true);
                }
            });
            self.runs(&uid);
        }
        ended
    }

    /// Why Azure does not start a pod now. `None` if it starts it.
    fn refusal(&mut self, uid: &str, rng: &mut StdRng) -> Option<Class> {
        if self.pods[uid].is_rejected {
            return Some(Class::Unknown);
        }
        if self.now < self.throttled_until || !self.takes_create() {
            return Some(Class::Throttled);
        }
        // Occasionally a pod starts for which Azure already had capacity.
        let class = [Class::Capacity, Class::Quota, Class::Transient];
        let fails = self.now < self.failing_until && !rng.random_bool(0.1);
        if fails && self.creates_left().is_some() {
            // This create used up a part of the budget that other pods were granted for.
            self.shrunk = self.now;
        }
        fails.then(|| class[rng.random_range(0..3)])
    }
}
