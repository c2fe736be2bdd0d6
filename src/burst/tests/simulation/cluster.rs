//! The API server: pods, the pool and its status, workloads that come and go, and the clock.

mod server;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::json;

use crate::api::{BurstPool, BurstPoolStatus, Reservation};
use crate::burst::Scales;
use crate::burst::amounts::Amounts;
use crate::burst::fixtures::{pod, pool, target};
use crate::burst::hold::later;
use crate::burst::pod::{PodFacts, Stage};
use crate::node::capacity::{Load, Offer, Room};

use super::checks::{Churn, Peaks};
use server::Late;

pub use server::{Leading, Told, Written};

/// What the names of workloads are.
pub const APPS: [&str; 3] = ["web", "db", "job"];
/// The placement's node.
pub const NODE: &str = "burst-shop-weu";
/// The longest step of the clock.
const LONGEST: Duration = Duration::from_secs(120);

/// A pod as the API server has it, and what only the model knows of it.
#[derive(Clone, Debug)]
pub struct SimPod {
    pub facts: Rc<PodFacts>,
    /// Its workload's place in [`APPS`].
    pub app: usize,
    pub first_refused: Option<Timestamp>,
    /// When the API server wrote its refusal last.
    pub refused_again: Option<Timestamp>,
    pub gated_until: Option<Timestamp>,
    /// Since when the scheduler makes room for it, and when that ends.
    pub nominated_at: Option<Timestamp>,
    pub nominated_until: Option<Timestamp>,
    /// Translation refuses it.
    pub is_ineligible: bool,
    /// The scheduler places it on no virtual node until then, whatever it tolerates.
    pub kept_off_until: Option<Timestamp>,
    /// Azure refuses it in words that nobody knows, whenever it is asked.
    pub is_rejected: bool,
    /// It neither starts nor fails, as one whose image's name is wrong.
    pub is_stuck: bool,
    /// A policy denies its grant until then, or for ever.
    pub denied_until: Timestamp,
    /// When its object goes, once it is being deleted.
    pub gone_at: Option<Timestamp>,
    /// When Azure is asked next to start it.
    pub try_at: Timestamp,
    /// How long it runs, if it is a job's, and when that is over once it runs.
    pub runs_for: Option<Duration>,
    pub finishes_at: Option<Timestamp>,
}

impl SimPod {
    /// When something happens to it by itself.
    fn due(&self) -> impl Iterator<Item = Timestamp> {
        let starts = self
            .facts
            .bound()
            .is_some_and(|bound| !bound.has_started)
            .then_some(self.try_at);
        let times = [self.gated_until, self.gone_at, self.finishes_at, starts];
        let others = [self.nominated_until, self.kept_off_until];
        times.into_iter().chain(others).flatten()
    }
}

/// The whole cluster.
pub struct Cluster {
    pub now: Timestamp,
    /// Nothing goes wrong.
    pub is_calm: bool,
    /// Since when, or from when on.
    pub calm_from: Timestamp,
    /// Nobody changes anything.
    pub is_still: bool,
    /// Until when the lease is held.
    pub lease: Timestamp,
    pub pool: Rc<BurstPool>,
    /// The version of the pool.
    pub version: u64,
    /// What its status says beside who leads it and what is reserved.
    pub told: Told,
    pub pods: BTreeMap<String, SimPod>,
    pub desired: [u64; 3],
    /// How many pods home has room for.
    pub home: usize,
    pub capacity: i64,
    /// Azure starts nothing until then.
    pub failing_until: Timestamp,
    /// Azure takes no creates until then.
    pub throttled_until: Timestamp,
    /// When the node last had less to offer than before.
    pub shrunk: Timestamp,
    /// Whether the node has the taint of a closed placement.
    pub is_closed: bool,
    /// In some clusters the pool has a trigger: whether it is active.
    trigger: Option<bool>,
    pub granted_at: Vec<Timestamp>,
    /// How many seconds a job's pod runs.
    job: Range<u64>,
    /// How many pods of each workload were granted so far.
    pub granted: [u64; 3],
    /// When leaders changed, or anything was forgotten.
    pub disturbed: Timestamp,
    pub churn: Churn,
    pub peaks: Peaks,
    /// Counts what changed.
    pub count: u64,
    /// How far the scheduler's clock is ahead.
    pub scheduler_skew: SignedDuration,
    scales: Scales,
    late: Vec<Late>,
    next_change: Timestamp,
    changes: u64,
}

impl Cluster {
    pub fn new(rng: &mut StdRng) -> Self {
        let mut workloads = json!([target("web"), target("db"), target("job")]);
        workloads[0]["weight"] = json!(rng.random_range(1..4));
        if rng.random_bool(0.5) {
            let percent = format!("{}%", rng.random_range(10..90));
            workloads[1]["spill"] = json!({"maxReplicas": percent, "after": "40s"});
        }
        // In some clusters jobs come and go faster than pods may spill: their workload always holds least.
        let (rate, job) = if rng.random_bool(0.3) {
            (1..4, 10..60)
        } else {
            (3..20, 60..1200)
        };
        let mut spec = json!({"workloads": workloads, "spill": {
            "after": format!("{}s", rng.random_range(0..60)),
            "maxReplicas": rng.random_range(1..20),
            "rate": {"pods": rng.random_range(rate), "per": "1m"},
        }, "scaleIn": {"cooldown": format!("{}s", rng.random_range(30..600))}});
        if rng.random_bool(0.5) {
            spec["spill"]["afterWhenTriggered"] = json!(format!("{}s", rng.random_range(1..20)));
        }
        let start = Timestamp::from_second(1_000_000).expect("in range");
        let mut pool = pool("shop", &spec);
        pool.status = Some(BurstPoolStatus::default());
        let mut cluster = Self {
            now: start,
            is_calm: false,
            calm_from: Timestamp::MAX,
            is_still: false,
            lease: start,
            pool: Rc::new(pool),
            version: 0,
            told: Told::default(),
            pods: BTreeMap::new(),
            desired: [3, 3, 0],
            scheduler_skew: SignedDuration::from_secs([-90, 0, 0, 90][rng.random_range(0..4)]),
            home: rng.random_range(4..12),
            capacity: rng.random_range(5..25),
            job,
            failing_until: start,
            throttled_until: start,
            shrunk: start,
            is_closed: false,
            trigger: rng.random_bool(0.4).then_some(false),
            granted_at: Vec::new(),
            granted: [0; 3],
            disturbed: start,
            churn: Churn::default(),
            peaks: Peaks::new(start),
            count: 0,
            scales: Scales::new(),
            late: Vec::new(),
            next_change: start,
            changes: 0,
        };
        if rng.random_bool(0.3) {
            cluster.add_stranger();
        }
        cluster
    }

    /// A pod that a user has placed on the node, and that waits for ever for what only the user can give it.
    fn add_stranger(&mut self) {
        let mut facts = pod("stranger").of_app("stranger").on(NODE);
        if let Stage::Bound(bound) = &mut facts.stage {
            (bound.has_started, bound.is_running) = (false, false);
        }
        let uid = facts.id.uid.clone();
        let stranger = SimPod {
            facts: Rc::new(facts),
            app: APPS.len(),
            first_refused: None,
            refused_again: None,
            gated_until: None,
            nominated_at: None,
            nominated_until: None,
            is_ineligible: false,
            kept_off_until: None,
            is_rejected: false,
            is_stuck: true,
            denied_until: self.now,
            gone_at: None,
            try_at: Timestamp::MAX,
            runs_for: None,
            finishes_at: None,
        };
        self.pods.insert(uid, stranger);
    }

    pub fn later(&self, by: Duration) -> Timestamp {
        later(self.now, by)
    }

    pub fn after(&self, rng: &mut StdRng, seconds: Range<u64>) -> Timestamp {
        self.later(Duration::from_secs(rng.random_range(seconds)))
    }

    /// Time passes: little while anything is on its way, else until something is due.
    pub fn pass(&mut self, again: Option<Duration>, rng: &mut StdRng) {
        let moves = self
            .pods
            .values()
            .any(|pod| pod.facts.stage == Stage::New && pod.gated_until.is_none());
        let busy = moves || self.changes > 0;
        self.changes = self.changes.saturating_sub(1);
        let step = if busy {
            Duration::from_millis(rng.random_range(300..6000))
        } else {
            let pods = self.pods.values().flat_map(SimPod::due);
            let due = pods
                .chain(self.late.iter().map(|late| late.at))
                .chain([self.next_change]);
            let due = due.filter(|at| *at > self.now).min();
            let due = due.and_then(|at| Duration::try_from(at.duration_since(self.now)).ok());
            let due = due.unwrap_or(LONGEST).min(again.unwrap_or(LONGEST));
            due.clamp(Duration::from_millis(500), LONGEST)
        };
        self.now = self.later(step);
    }

    /// Something changed: for the next steps there is something to see.
    pub fn changed(&mut self) {
        self.count += 1;
        self.changes = 2;
    }

    /// The pod runs now.
    pub fn runs(&mut self, uid: &str) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.finishes_at = pod.runs_for.map(|span| later(now, span));
        }
    }

    /// Changes a pod; it has a new version then.
    pub fn change(&mut self, uid: &str, change: impl FnOnce(&mut PodFacts)) {
        self.count += 1;
        let version = self.count.to_string();
        if let Some(pod) = self.pods.get_mut(uid) {
            let facts = Rc::make_mut(&mut pod.facts);
            change(facts);
            facts.id.resource_version = version;
        }
        self.changed();
    }

    pub fn reservations(&self) -> &[Reservation] {
        let status = self.pool.status.as_ref();
        status.map_or(&[], |status| status.reservations.as_slice())
    }

    /// What `/scale` says.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Whether a trigger of the pool is active.
    pub fn is_triggered(&self) -> bool {
        self.trigger == Some(true)
    }

    /// What the node offers to the scheduler.
    pub fn offers(&self) -> Amounts {
        amounts(self.offer().allocatable)
    }

    /// What the node offers, as Azure counts.
    pub fn groups(&self) -> Amounts {
        amounts(self.offer().capacity)
    }

    fn offer(&self) -> Offer {
        let bound = self.pods.values().map(|pod| &*pod.facts);
        let bound = bound.filter(|facts| facts.bound().is_some_and(|bound| bound.node == NODE));
        let load = Load::of(bound, |_| true, |_| true);
        let all = Room {
            cpu_milli: self.capacity * 1000,
            memory_bytes: self.capacity << 30,
            pods: self.capacity,
        };
        Offer::of(&load, all.minus(load.groups))
    }

    /// The UIDs of pods that are on the node, or on their way there.
    pub fn away(&self) -> BTreeSet<&str> {
        let away = self.pods.values().filter(|pod| {
            let home = pod.facts.bound().is_some_and(|bound| bound.node != NODE);
            let is_granted = pod.facts.grant.is_some() && !pod.facts.has_expired();
            is_granted && !home && pod.facts.stage != Stage::Finished
        });
        away.map(|pod| pod.facts.id.uid.as_str()).collect()
    }
}

fn amounts(room: Room) -> Amounts {
    Amounts {
        cpu_milli: room.cpu_milli,
        memory: room.memory_bytes,
        storage: 0,
        pods: room.pods,
    }
}
