//! The default scheduler, with its delays: home first, then whoever tolerates the virtual node.

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::cluster::{Cluster, NODE};
use crate::burst::amounts::Amounts;
use crate::burst::pod::{Bound, Stage};

impl Cluster {
    /// Looks at some of the pods that wait.
    pub fn schedule(&mut self, rng: &mut StdRng) {
        let waiting: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| matches!(pod.facts.stage, Stage::New | Stage::Refused(_)))
            .filter(|(_, pod)| !pod.facts.is_deleting)
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in waiting {
            let Some(gate) = self.pods.get(&uid).map(|pod| pod.gated_until) else {
                continue;
            };
            if gate.is_some_and(|until| self.now < until) || rng.random_bool(0.3) {
                continue;
            }
            if gate.is_some() {
                self.ungate(&uid);
            }
            self.place(&uid);
        }
    }

    /// The gate's removal is a change of the spec, and leaves the condition's time as it was.
    fn ungate(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.gated_until = None;
        }
        self.change(uid, |facts| facts.is_first_generation = false);
    }

    fn place(&mut self, uid: &str) {
        let pod = &self.pods[uid].facts;
        let at_home = self.pods.values().filter(|pod| {
            let home = pod.facts.bound().is_some_and(|bound| bound.node != NODE);
            home && pod.facts.stage != Stage::Finished
        });
        let used = self
            .pods
            .values()
            .filter(|pod| pod.facts.bound().is_some_and(|bound| bound.node == NODE))
            .fold(Amounts::default(), |sum, pod| sum.plus(pod.facts.asks));
        let fits = pod.asks.lacks(self.offers().minus(used)).is_none();
        if at_home.count() < self.home {
            self.bind(uid, "home-1");
        } else if pod.grant.is_some() && fits && !self.is_closed {
            self.bind(uid, NODE);
        } else if pod.stage == Stage::New {
            self.refuse(uid);
        }
    }

    fn bind(&mut self, uid: &str, node: &str) {
        let bound = Bound {
            node: node.to_owned(),
            since: Some(self.now),
            has_started: node != NODE,
            is_running: node != NODE,
            refused: None,
        };
        self.change(uid, |facts| facts.stage = Stage::Bound(bound));
    }

    fn refuse(&mut self, uid: &str) {
        let now = self.now;
        // A pod that was gated keeps the time of its gate.
        self.change(uid, |facts| {
            let since: Timestamp = if facts.is_first_generation {
                now
            } else {
                facts.created
            };
            facts.stage = Stage::Refused(Some(since));
        });
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.first_refused.get_or_insert(now);
        }
    }
}
