//! An instance of the operator: its watches, its memory, and the code that runs the plan.

mod clocks;
mod execution;
mod term;
mod views;

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Happened;
use super::azure::StartResult;
use super::checks::{self, DoorCheck, peaks};
use super::cluster::{Cluster, NODE, ShownStatus, ZONE};
use crate::aci::translate::{self, Unsupported};
use crate::api::BurstPool;
use crate::burst::facts::neighbors::ListResult;
use crate::burst::facts::pod::{GrantRecord, PodFacts, PodReference, PodStage};
use crate::burst::fixtures::{namespaces, placement_facts};
use crate::burst::observation::Leadership;
use crate::burst::plan::{BurstPlan, PeakState, Precondition};
use crate::burst::{
    BlockedBy, ClaimStates, ClusterInputs, EligibilityCache, LeaderState, Neighbors,
    PlacementAvailability, PodOutcome, PodWriteResult, PoolInputs, observe, plan,
};
use crate::k8s::time::later;
pub use clocks::InstanceClocks;
use term::LeaderTerm;
use views::{InstanceViews, PoolView};

/// An instance of the operator.
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts of one instance, in any combination"
)]
pub struct Operator {
    number: u32,
    /// How often it was started, and how often it became the leader. Both are part of its identity.
    run: u32,
    terms: u32,
    views: InstanceViews,
    clocks: InstanceClocks,
    memory: LeaderState,
    doors: DoorCheck,
    term: LeaderTerm,
    /// What it is about to write to the pool's status.
    unwritten_status: Option<ShownStatus>,
    /// Until then it is dead or frozen.
    away_until: Option<Timestamp>,
    /// Grants that it has not sent yet.
    unsent_grants: VecDeque<(PodReference, GrantRecord)>,
    /// Answers that have not arrived. Their writes are done, and watches may show them.
    answers: VecDeque<(PodReference, PodWriteResult)>,
    /// It was frozen, and still believes that it leads.
    is_stale: bool,
    /// Everything since its plan went as planned.
    is_clean: bool,
    /// When it plans again even if nothing changes, and whether it has a reason to plan now.
    due: Timestamp,
    is_due: bool,
    /// Whether Azure throttled creates when it last looked.
    is_throttled: bool,
    /// Until then it collects events before it plans again.
    rests_until: Timestamp,
    look_again: Option<Duration>,
    pub last: BurstPlan,
    verdicts: EligibilityCache,
}

impl Operator {
    pub fn new(number: u32, now: Timestamp, rng: &mut StdRng) -> Self {
        Self {
            number,
            run: 0,
            terms: 0,
            views: InstanceViews::default(),
            clocks: InstanceClocks::new(rng),
            memory: LeaderState::default(),
            doors: DoorCheck::default(),
            term: LeaderTerm::default(),
            unwritten_status: None,
            away_until: None,
            unsent_grants: VecDeque::new(),
            answers: VecDeque::new(),
            is_stale: false,
            is_clean: false,
            due: now,
            is_due: true,
            is_throttled: false,
            rests_until: now,
            look_again: None,
            last: BurstPlan::default(),
            verdicts: EligibilityCache::default(),
        }
    }

    fn identity(&self) -> String {
        format!("{}-{}-{}", self.number, self.run, self.terms)
    }

    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.away_until.is_none_or(|until| until <= now)
    }

    /// It gets the lease.
    pub fn elected(&mut self) {
        self.terms += 1;
        self.memory = LeaderState::default();
        self.doors = DoorCheck::default();
        self.term = LeaderTerm::default();
        self.unwritten_status = None;
        self.is_due = true;
    }

    /// Receives what the watches show.
    pub fn sync(&mut self, cluster: &Cluster, rng: &mut StdRng) {
        self.clocks.learn(rng);
        self.is_due |= self.views.sync(cluster, &self.clocks, rng);
        self.is_due |= self.due <= cluster.now;
        // The node says so.
        let is_throttled = cluster.shut().is_some();
        self.is_due |= is_throttled != self.is_throttled;
        self.is_throttled = is_throttled;
    }

    /// Creates have ended: the pod workers report it to the instance that runs them, here to both.
    pub fn learn(&mut self, ended: &[StartResult], now: Timestamp) {
        self.is_due |= !ended.is_empty();
        for one in ended {
            let now = self.clocks.own(now);
            self.doors.ended(*one, &mut self.memory, now);
        }
    }

    /// After how long it plans again even if nothing changes. While it collects events, the clock must not pass the
    /// end of that.
    pub fn plans_again_in(&self, now: Timestamp) -> Option<Duration> {
        let rests = Duration::try_from(self.rests_until.duration_since(now)).ok();
        let rests = rests.filter(|rests| self.is_due && !rests.is_zero());
        rests.or(self.look_again)
    }

    /// One step of the instance.
    pub fn act(
        &mut self,
        cluster: &mut Cluster,
        is_leader: bool,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        if !self.is_alive(cluster.now) {
            return;
        }
        if self.away_until.take().is_some() {
            cluster.changed();
            while let Some((pod, grant)) = self.unsent_grants.pop_front() {
                self.send(&pod, grant, cluster, rng, happened);
            }
        }
        if is_leader {
            self.is_stale = false;
        } else if !self.is_stale || rng.random_bool(0.5) {
            // It reads the lease, and finds that it is not the leader.
            self.is_stale = false;
            return;
        }
        if !self.unsent_grants.is_empty() {
            let left = rng.random_range(0..=self.unsent_grants.len());
            self.is_due |= left < self.unsent_grants.len();
            self.send_grants(left, cluster, rng, happened);
        }
        let outstanding = if cluster.is_calm {
            0
        } else {
            rng.random_range(0..=self.answers.len())
        };
        self.receive_answers(outstanding, cluster);
        if let Some(status) = self.unwritten_status.take_if(|_| rng.random_bool(0.7)) {
            cluster.write_status(&status);
        }
        if self.is_due && self.rests_until <= cluster.now {
            self.decide(cluster, is_leader, rng, happened);
        }
    }

    fn decide(
        &mut self,
        cluster: &mut Cluster,
        is_leader: bool,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        let Some(pool) = self.views.pool.clone().filter(|pool| self.may_look(pool)) else {
            return;
        };
        let standing = self.led_by(&pool, cluster, happened);
        self.judge(&pool.pool, cluster);
        let plan = self.plan(&pool.pool, standing, cluster);
        checks::held_no_longer(&plan, cluster);
        self.count(&plan, &pool, cluster, happened);
        let expected = match standing {
            Leadership::Leading => Precondition::Met,
            Leadership::Uncounted => Precondition::CountPods,
            Leadership::Unclaimed => Precondition::ClaimLeadership,
        };
        assert_eq!(plan.precondition, expected);
        self.look_again = plan.replan_after;
        let again = plan.replan_after.unwrap_or(Duration::from_secs(3600));
        self.due = later(cluster.now, again);
        self.rests_until = later(
            cluster.now,
            Duration::from_millis(rng.random_range(0..6000)),
        );
        // The instance sees its own writes at once, in memory and in the pool's status.
        self.is_due = plan.must_write_reservations || plan.grants().next().is_some();
        self.shut(&plan, cluster, happened);
        if standing == Leadership::Leading {
            self.record_status(&plan, is_leader, &pool, cluster);
        }
        self.carry_out(&plan, &pool, is_leader, (cluster, rng), happened);
        let waiting = self.views.waiting.pods.iter();
        let waiting: HashSet<&str> = waiting.map(|pod| pod.id.uid.as_str()).collect();
        self.memory
            .record_plan(&plan.record(), &waiting, self.clocks.own(cluster.now));
        let is_done = self.is_clean && self.unsent_grants.is_empty() && self.answers.is_empty();
        if is_done && rng.random_bool(0.05) {
            self.plans_nothing_new(cluster);
        }
        self.last = plan;
        if !cluster.is_calm && is_leader && rng.random_bool(0.001) {
            self.crash(cluster, rng, happened);
        }
    }

    /// Counts what the plan shows.
    fn count(&self, plan: &BurstPlan, pool: &PoolView, cluster: &Cluster, happened: &mut Happened) {
        happened.plans += 1;
        happened.late += plan.late.len() as u64;
        happened.skewed += u64::from(self.clocks.are_skewed());
        let decisions = plan.decisions.iter();
        let kept_out = decisions
            .filter(|one| matches!(one.outcome, PodOutcome::Blocked(BlockedBy::Topology(_))));
        happened.kept_out += kept_out.count() as u64;
        happened.spent += u64::from(cluster.creates_left() == Some(0));
        happened.outdated += u64::from(pool.version != cluster.version);
    }

    /// Sets the node's taint as planned.
    fn shut(&mut self, plan: &BurstPlan, cluster: &mut Cluster, happened: &mut Happened) {
        self.doors.planned(plan, cluster, &self.clocks);
        let door = &plan.availability["weu"];
        let is_closed = matches!(door, PlacementAvailability::Closed { .. });
        happened.closures += u64::from(is_closed && !cluster.is_closed);
        if *door == PlacementAvailability::OneProbe {
            happened.probes += plan.grants().count() as u64;
        }
        if is_closed != cluster.is_closed {
            cluster.is_closed = is_closed;
            cluster.changed();
        }
    }

    /// Publishes the leader's plan in the pool's status.
    fn record_status(
        &mut self,
        plan: &BurstPlan,
        is_leader: bool,
        pool: &PoolView,
        cluster: &mut Cluster,
    ) {
        if is_leader {
            let labelled = &self.views.labelled;
            let is_away = |pod: &Rc<PodFacts>| {
                let is_home = pod.bound().is_some_and(|bound| bound.node != NODE);
                let is_granted = pod.grant.is_some() && !pod.has_expired();
                is_granted && !is_home && pod.stage != PodStage::Finished
            };
            cluster.peaks.planned(&peaks::Planned {
                peak: plan.peak,
                is_busy: labelled.pods.iter().any(is_away),
                count: labelled.count,
                cooldown: pool.pool.spec.scale_in.cooldown.into(),
                now: cluster.now,
            });
        }
        self.unwritten_status = Some(ShownStatus {
            counts: plan.counts,
            workloads: plan.workloads.clone(),
            is_peak: plan.peak != PeakState::None,
            limited: plan.limit_message.clone(),
        });
    }

    /// A second plan from the same state contains nothing new.
    fn plans_nothing_new(&self, cluster: &Cluster) {
        let Some(PoolView { pool, .. }) = &self.views.pool else {
            return;
        };
        let again = self.plan(pool, Leadership::Leading, cluster);
        let known = |uid: &str| {
            let mut known = pool.status.iter().flat_map(|status| &status.reservations);
            known.any(|entry| entry.uid == uid)
        };
        let mut new = again.grants().filter(|decision| !known(&decision.pod.uid));
        let new = new.next();
        assert!(new.is_none(), "planned again: {new:?}");
    }

    fn plan(&self, pool: &BurstPool, standing: Leadership, cluster: &Cluster) -> BurstPlan {
        let namespaces = namespaces();
        let waiting: Vec<&PodFacts> = self.views.waiting.pods.iter().map(|pod| &**pod).collect();
        let departed: Vec<&PodFacts> = self.views.departed.iter().map(|(pod, _)| &**pod).collect();
        let labelled: Vec<&PodFacts> = self.views.labelled.pods.iter().map(|pod| &**pod).collect();
        let bound: Vec<&PodFacts> = self.views.bound.pods.iter().map(|pod| &**pod).collect();
        let mut place = placement_facts("weu", 0);
        place.allocatable = cluster.offers();
        place.capacity = cluster.groups();
        place.unavailable = cluster.shut();
        place.labels.insert(ZONE.to_owned(), "aci".to_owned());
        // The plan knows the pods of its own nodes by itself, and home is in other zones.
        let neighbors = Neighbors {
            nodes: ListResult::Listed(Vec::new()),
            pods: [("shop".to_owned(), ListResult::Listed(Vec::new()))].into(),
        };
        let world = ClusterInputs {
            pools: &[pool],
            nodes: &std::collections::HashMap::new(),
            waiting: &waiting,
            departed: &departed,
            labelled: &labelled,
            on_pool_nodes: &bound,
            scales: cluster.scales(),
            namespaces: &namespaces,
            claims: &ClaimStates::new(),
            neighbors: &neighbors,
        };
        let identity = self.identity();
        let own = PoolInputs {
            placements: &[place],
            bound: &bound,
            eligibility: &self.verdicts,
            leader_state: &self.memory,
            is_triggered: self.views.is_triggered,
            leadership: standing,
            identity: &identity,
            ahead: self.clocks.ahead(),
        };
        let now = self.clocks.own(cluster.now);
        plan(pool, &observe(pool, &world, &own), now)
    }

    /// Evaluates versions of pods that are new to it.
    fn judge(&mut self, pool: &BurstPool, cluster: &Cluster) {
        let placement = translate::TranslationTarget {
            spec: &pool.spec.placements[0],
            tags: &pool.spec.azure.tags,
            node: NODE,
            node_address: None,
            identities: &translate::NO_IDENTITIES,
            accepted: &crate::api::NO_LOSSES,
        };
        let verdicts = &mut self.verdicts;
        let mut asked = None;
        for pod in &self.views.waiting.pods {
            asked = asked
                .or_else(|| verdicts.target_id(placement.spec, placement.tags, placement.node));
            if asked.is_some_and(|asked| verdicts.get(&pod.id, asked).is_some()) {
                continue;
            }
            let known = cluster.pods.get(&pod.id.uid);
            let refusal = known
                .filter(|pod| pod.is_ineligible)
                .map(|_| Unsupported::new("spec.hostNetwork", "there is no host"));
            verdicts.insert(&pod.id, &placement, refusal.into_iter().collect());
        }
        let waiting = self
            .views
            .waiting
            .pods
            .iter()
            .map(|pod| pod.id.uid.as_str());
        self.verdicts.retain(&waiting.collect());
    }
}
