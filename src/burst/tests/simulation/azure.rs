//! Azure: starts what is on the node, unless it fails.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::cluster::{Cluster, NODE};
use crate::aci::failure::Class;
use crate::burst::pod::Stage;

/// How a create ended.
pub type Ended = Result<(), Class>;

impl Cluster {
    /// Tries to start what has not started; how that ended.
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
            // Now and then one starts for which Azure had room before.
            if self.now < self.failing_until && !rng.random_bool(0.1) {
                let class = [Class::Capacity, Class::Quota, Class::Transient];
                ended.push(Err(class[rng.random_range(0..3)]));
                let next = self.after(rng, 20..90);
                if let Some(pod) = self.pods.get_mut(&uid) {
                    pod.try_at = next;
                }
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
}
