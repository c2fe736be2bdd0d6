//! The default scheduler, with its delays: the cluster's own nodes first, then the virtual node for pods that
//! tolerate it.

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::checks;
use super::cluster::{Cluster, NEVER, NODE};
use crate::burst::facts::pod::{BoundPod, PodStage};
use crate::burst::facts::resource_amounts::ResourceAmounts;
use crate::k8s::time::shifted;

impl Cluster {
    /// Tries some of the pending pods.
    pub fn schedule(&mut self, rng: &mut StdRng) {
        let waiting: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| {
                matches!(
                    pod.facts.stage,
                    PodStage::Undecided | PodStage::Unschedulable(_)
                )
            })
            .filter(|(_, pod)| !pod.facts.is_deleting)
            .map(|(uid, _)| uid.clone())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let mut room = self.left();
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
            self.place(&uid, &mut room);
            let is_refused = matches!(self.pods[&uid].facts.stage, PodStage::Unschedulable(_));
            if is_refused && !self.is_calm && rng.random_bool(0.02) {
                self.nominate(&uid, rng);
            }
        }
    }

    /// Nominates the pod: others must leave a node for it. Once per pod, because a late watch cannot
    /// distinguish two nominations.
    fn nominate(&mut self, uid: &str, rng: &mut StdRng) {
        let (now, until) = (self.now, self.after(rng, 5..120));
        let pod = self.pods.get_mut(uid);
        let Some(pod) = pod.filter(|pod| pod.nominated_at.is_none()) else {
            return;
        };
        (pod.nominated_at, pod.nominated_until) = (Some(now), Some(until));
        self.change(uid, |facts| facts.is_nominated = true);
    }

    /// Removing the gate changes the spec, and leaves the condition's time as it was.
    fn ungate(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.gated_until = None;
        }
        self.change(uid, |facts| facts.is_first_generation = false);
    }

    /// How many pods the cluster's own nodes have room for, and what the virtual node has left.
    fn left(&self) -> (usize, ResourceAmounts) {
        let (mut home, mut node) = (self.home, self.offers());
        for pod in self.pods.values() {
            match pod.facts.bound() {
                Some(bound) if bound.node == NODE => node = node.minus(pod.facts.requests),
                Some(_) => home = home.saturating_sub(1),
                None => {}
            }
        }
        (home, node)
    }

    fn place(&mut self, uid: &str, (home, node): &mut (usize, ResourceAmounts)) {
        let pod = self.pods[uid].facts.clone();
        let kept_off_until = self.pods[uid].kept_off_until;
        let can_run = pod.requests.cpu_milli < NEVER;
        let is_let_in = (pod.grant.is_some() || pod.foreign_grant.is_some())
            && kept_off_until.is_none_or(|until| until <= self.now);
        let is_kept_out = self.keeps_out_there(&self.pods[uid]);
        if *home > 0 && can_run {
            *home -= 1;
            self.bind(uid, "home-1");
        } else if is_let_in
            && !is_kept_out
            && pod.requests.shortage_in(*node).is_none()
            && !self.is_closed
        {
            *node = node.minus(pod.requests);
            self.bind(uid, NODE);
        } else if pod.stage == PodStage::Undecided {
            self.refuse(uid);
        } else if pod.grant.as_ref().is_some_and(|one| one.refused.is_none()) {
            self.change(uid, |facts| {
                let grant = facts.grant.as_mut();
                grant.expect("it is granted").refused = Some("no node".to_owned());
            });
        }
    }

    fn bind(&mut self, uid: &str, node: &str) {
        let bound = BoundPod {
            node: node.to_owned(),
            bound_since: Some(self.now),
            has_started: node != NODE,
            is_running: node != NODE,
            refusal: None,
            waiting_for_azure: None,
        };
        self.change(uid, |facts| facts.stage = PodStage::Bound(bound));
        if node == NODE {
            let shrunk = self.shrunk;
            let (mut is_ours, mut is_expired) = (false, false);
            if let Some(pod) = self.pods.get_mut(uid) {
                let grant = pod.facts.grant.as_ref();
                let granted = grant.and_then(|grant| grant.granted_at);
                is_expired = grant.is_some_and(|grant| grant.is_expired);
                // What has expired was not counted until now.
                pod.is_late = granted.is_some_and(|at| at <= shrunk) || is_expired;
                is_ours = !pod.is_foreign;
            }
            if is_ours {
                checks::starts_all(self);
                checks::creates_all(self);
            }
            // No grant has renewed the peak since it may have ended.
            if is_expired {
                self.peaks.granted(self.count);
            }
        }
        if node != NODE {
            self.runs(uid);
        }
    }

    fn refuse(&mut self, uid: &str) {
        let (now, skew) = (self.now, self.scheduler_skew);
        // A pod that had a gate keeps the time of its gate.
        self.change(uid, |facts| {
            let since: Timestamp = if facts.is_first_generation {
                shifted(now, skew)
            } else {
                facts.created
            };
            facts.stage = PodStage::Unschedulable(Some(since));
        });
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.first_refused.get_or_insert(now);
            pod.refused_again = Some(now);
        }
    }
}
