//! What an instance has seen: each watch on its own, late, and never going back.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::clocks::InstanceClocks;
use crate::api::BurstPool;
use crate::burst::facts::pod::{PodFacts, PodStage};
use crate::burst::rules::hold;
use crate::burst::rules::hold::PriorRefusal;
use crate::burst::tests::simulation::cluster::{Cluster, NODE};
use crate::k8s::time::later;

/// How long the cache remembers a pod that left the watch of pending pods.
const DEPARTED_TTL: Duration = Duration::from_secs(60);

/// Pending pods, as their watch last showed them.
#[derive(Default)]
struct RefusedView(HashMap<String, RefusedPod>);

/// A pending pod, and the time of refusal in its condition.
struct RefusedPod {
    facts: Rc<PodFacts>,
    transition: Option<Timestamp>,
}

impl RefusedView {
    /// Gives each refused pod its time of refusal by the instance's own clock, as `controller::grants` does.
    fn see(&mut self, waiting: &mut PodView, cluster: &Cluster, clocks: &InstanceClocks) {
        let before = std::mem::take(&mut self.0);
        for pod in &mut waiting.pods {
            let known = before.get(&pod.id.uid);
            if let Some(known) =
                known.filter(|known| known.facts.id.resource_version == pod.id.resource_version)
            {
                *pod = known.facts.clone();
                self.0.insert(
                    pod.id.uid.clone(),
                    RefusedPod {
                        facts: known.facts.clone(),
                        transition: known.transition,
                    },
                );
                continue;
            }
            let transition = refused_at(pod);
            if let Some(transition) = transition {
                let at = match known {
                    None => {
                        let written = cluster.pods.get(&pod.id.uid);
                        let written = written.and_then(|pod| pod.refused_again);
                        clocks.unseen(transition, written.unwrap_or(cluster.now), cluster.now)
                    }
                    Some(known) => {
                        hold::refused_at(transition, known.before(), clocks.own(cluster.now))
                    }
                };
                Rc::make_mut(pod).stage = PodStage::Unschedulable(Some(at));
            }
            let facts = pod.clone();
            self.0
                .insert(pod.id.uid.clone(), RefusedPod { facts, transition });
        }
    }
}

impl RefusedPod {
    fn before(&self) -> PriorRefusal {
        match (self.transition, refused_at(&self.facts)) {
            (Some(transition), Some(at)) => PriorRefusal::Refused { transition, at },
            _ => PriorRefusal::NotRefused,
        }
    }
}

fn refused_at(facts: &PodFacts) -> Option<Timestamp> {
    match facts.stage {
        PodStage::Unschedulable(at) => at,
        _ => None,
    }
}

/// What a watch has shown.
#[derive(Default)]
pub struct PodView {
    pub pods: Vec<Rc<PodFacts>>,
    /// The number of changes at that time.
    pub count: u64,
}

/// Which pods a watch shows.
type Belongs = fn(&PodFacts) -> bool;

/// The pool as the instance last saw it.
#[derive(Clone)]
pub struct PoolView {
    pub pool: Rc<BurstPool>,
    pub version: u64,
}

impl PoolView {
    /// The present pool.
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            pool: cluster.pool.clone(),
            version: cluster.version,
        }
    }

    /// The leader in the pool's status.
    pub fn leader(&self) -> Option<&str> {
        self.pool.status.as_ref()?.leader.as_deref()
    }

    /// Whether `other` leads to the same plan.
    pub fn is_alike(&self, other: &Self) -> bool {
        let reserved = |shared: &Self| {
            let status = shared.pool.status.as_ref();
            status.map(|status| status.reservations.clone())
        };
        self.pool.spec == other.pool.spec
            && self.leader() == other.leader()
            && reserved(self) == reserved(other)
    }
}

/// All views of an instance.
#[derive(Default)]
pub struct InstanceViews {
    pub waiting: PodView,
    /// Pods that left the watch of pending pods, and when.
    pub departed: Vec<(Rc<PodFacts>, Timestamp)>,
    pub labelled: PodView,
    pub bound: PodView,
    refused: RefusedView,
    waiting_count: u64,
    pub pool: Option<PoolView>,
    pub is_triggered: bool,
}

impl InstanceViews {
    /// Updates each watch, or leaves it behind, at random. Returns whether any was updated.
    pub fn sync(&mut self, cluster: &Cluster, clocks: &InstanceClocks, rng: &mut StdRng) -> bool {
        let mut comes = || cluster.is_calm || rng.random_bool(0.6);
        let mut is_new = false;
        let before = self.waiting.pods.clone();
        let stores: [(&mut PodView, Belongs); 3] = [
            (&mut self.waiting, |pod| pod.bound().is_none()),
            (&mut self.labelled, is_labelled),
            (&mut self.bound, |pod| {
                pod.bound().is_some_and(|bound| bound.node == NODE)
            }),
        ];
        let waited = self.waiting_count;
        for (store, belongs) in stores {
            if store.count != cluster.count && comes() {
                store.see(cluster, belongs);
                is_new = true;
            }
        }
        if self.waiting.count != waited {
            self.waiting_count = self.waiting.count;
            self.depart(&before, cluster.now);
            self.refused.see(&mut self.waiting, cluster, clocks);
        }
        let known = self.pool.as_ref().map(|shared| shared.version);
        if known != Some(cluster.version) && comes() {
            self.pool = Some(PoolView::of(cluster));
            is_new = true;
        }
        if self.is_triggered != cluster.is_triggered() && comes() {
            self.is_triggered = cluster.is_triggered();
            is_new = true;
        }
        is_new
    }

    /// Keeps the pods that are in `before` and have left the watch of pending pods, for as long as the cache of
    /// the controller does.
    fn depart(&mut self, before: &[Rc<PodFacts>], now: Timestamp) {
        let waiting: HashSet<&str> = self.waiting.pods.iter().map(|pod| &*pod.id.uid).collect();
        let departed = before.iter().filter(|pod| !waiting.contains(&*pod.id.uid));
        self.departed
            .retain(|(_, at)| now < later(*at, DEPARTED_TTL));
        self.departed.extend(departed.map(|pod| (pod.clone(), now)));
    }

    /// Lists the pods with the pool's label, without lag.
    pub fn count(&mut self, cluster: &Cluster) {
        self.labelled.see(cluster, is_labelled);
    }
}

/// Whether it carries the label of a pool, whosever grant it is of.
fn is_labelled(pod: &PodFacts) -> bool {
    pod.grant.is_some() || pod.foreign_grant.is_some()
}

impl PodView {
    fn see(&mut self, cluster: &Cluster, belongs: Belongs) {
        let all = cluster.pods.values().map(|pod| &pod.facts);
        self.pods = all.filter(|facts| belongs(facts)).cloned().collect();
        self.count = cluster.count;
    }
}
