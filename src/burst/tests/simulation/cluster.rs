//! The API server: pods, the pool and its status, workloads that come and go, and the clock.

mod region;
mod server;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::api::{BurstPool, BurstPoolStatus, Reservation};
use crate::burst::TargetScales;
use crate::burst::facts::pod::{PodFacts, PodStage};
use crate::burst::facts::topology_rules::TopologyRules;
use crate::burst::fixtures::{pod, pool, target};
use crate::k8s::time::later;

use super::checks::{ChurnCheck, PeakCheck, RefusalCheck};
use region::SimRegion;
use server::DelayedRequest;

pub use server::{Leading, ShownStatus, UpdateResult};

/// The names of the workloads.
pub const APPS: [&str; 3] = ["web", "db", "job"];
/// The placement's node.
pub const NODE: &str = "burst-shop-weu";
/// Millicores that no node has: the scheduler never places a pod that requests them.
pub const NEVER: i64 = 1_000_000;
/// The topology key of the zones. The virtual node is alone in its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The longest step of the clock.
const MAX_STEP: Duration = Duration::from_secs(120);

/// A pod as the API server has it, plus what only the model knows.
#[derive(Clone, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts of one pod, in any combination"
)]
pub struct SimPod {
    pub facts: Rc<PodFacts>,
    /// The index of its workload in [`APPS`].
    pub app: usize,
    pub first_refused: Option<Timestamp>,
    /// When the API server last wrote its refusal.
    pub refused_again: Option<Timestamp>,
    pub gated_until: Option<Timestamp>,
    /// When the scheduler nominated it, and when the nomination ends.
    pub nominated_at: Option<Timestamp>,
    pub nominated_until: Option<Timestamp>,
    /// Translation refuses it.
    pub is_ineligible: bool,
    /// Until then the scheduler places it on no virtual node, whatever it tolerates.
    pub kept_off_until: Option<Timestamp>,
    /// Azure always refuses it with an unknown error.
    pub is_rejected: bool,
    /// It neither starts nor fails, as with a wrong image name.
    pub is_stuck: bool,
    /// It was bound when the node offered less than when it was granted.
    pub is_late: bool,
    /// It carries the marks of another pod's grant.
    pub is_foreign: bool,
    /// Until then, or forever, a policy denies its grant and its stamp.
    pub denied_until: Timestamp,
    /// When its object is removed, once it is being deleted.
    pub gone_at: Option<Timestamp>,
    /// When Azure next tries to start it.
    pub try_at: Timestamp,
    /// How long it runs if it belongs to a job, and once it runs, when it finishes.
    pub runs_for: Option<Duration>,
    pub finishes_at: Option<Timestamp>,
}

impl SimPod {
    /// When the model next changes the pod without an outside event.
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
    /// Whether nothing fails.
    pub is_calm: bool,
    /// The start of the time in which nothing fails.
    pub calm_from: Timestamp,
    /// Whether users change nothing.
    pub is_still: bool,
    /// Until when the lease is held.
    pub lease: Timestamp,
    pub pool: Rc<BurstPool>,
    /// The version of the pool.
    pub version: u64,
    /// The content of its status, except the leader and the reservations.
    pub shown_status: ShownStatus,
    pub pods: BTreeMap<String, SimPod>,
    pub desired: [u64; 3],
    /// How many pods the cluster's own nodes have room for.
    pub home: usize,
    /// How many cores the quota of the region has.
    pub capacity: i64,
    /// In some clusters pods of `db` have anti-affinity by zone: only one of them can run on ACI at a time.
    apart: Option<TopologyRules>,
    /// Until then Azure starts almost nothing.
    pub failing_until: Timestamp,
    /// The quota, its shares, and how many creates Azure takes.
    pub region: SimRegion,
    /// Until then Azure throttles creates.
    pub throttled_until: Timestamp,
    /// When the node's capacity last shrank.
    pub shrunk: Timestamp,
    /// Whether the node has the taint of a closed placement.
    pub is_closed: bool,
    /// Whether the pool's trigger is active, in clusters where the pool has one.
    trigger: Option<bool>,
    pub granted_at: Vec<Timestamp>,
    /// How many seconds a job's pod runs.
    job: Range<u64>,
    /// How many pods of each workload have been granted.
    pub granted: [u64; 3],
    /// When the leader last changed, or memory was lost.
    pub disturbed: Timestamp,
    pub churn: ChurnCheck,
    pub refused: RefusalCheck,
    pub peaks: PeakCheck,
    /// The number of changes so far.
    pub count: u64,
    /// How far the scheduler's clock is ahead.
    pub scheduler_skew: SignedDuration,
    /// The present and earlier names of the workloads, each with its index in [`APPS`].
    names: Vec<(usize, String)>,
    /// How many times a workload was renamed.
    pub renamed: u64,
    scales: TargetScales,
    late: Vec<DelayedRequest>,
    next_change: Timestamp,
    changes: u64,
}

/// A pool's spec, and how many seconds its jobs run.
fn random_spec(rng: &mut StdRng) -> (Value, Range<u64>) {
    let mut workloads = json!([target("web"), target("db"), target("job")]);
    workloads[0]["weight"] = json!(rng.random_range(1..4));
    if rng.random_bool(0.5) {
        let percent = format!("{}%", rng.random_range(10..90));
        workloads[1]["spill"] = json!({"maxReplicas": percent, "after": "40s"});
    }
    if rng.random_bool(0.3) {
        let jobs = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "job"}}});
        let most = rng.random_range(1..6);
        workloads[2] = json!({"name": "job", "selector": jobs, "spill": {"maxReplicas": most}});
    }
    // In some clusters jobs come and go faster than pods may spill, so that their workload always holds the
    // fewest slots.
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
    (spec, job)
}

impl Cluster {
    pub fn new(rng: &mut StdRng) -> Self {
        let (spec, job) = random_spec(rng);
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
            shown_status: ShownStatus::default(),
            pods: BTreeMap::new(),
            desired: [3, 3, 0],
            scheduler_skew: SignedDuration::from_secs([-90, 0, 0, 90][rng.random_range(0..4)]),
            home: rng.random_range(4..12),
            capacity: rng.random_range(5..25),
            region: SimRegion::new(rng, start),
            apart: rng.random_bool(0.4).then(apart),
            job,
            failing_until: start,
            throttled_until: start,
            shrunk: start,
            is_closed: false,
            trigger: rng.random_bool(0.4).then_some(false),
            granted_at: Vec::new(),
            granted: [0; 3],
            disturbed: start,
            churn: ChurnCheck::default(),
            refused: RefusalCheck::default(),
            peaks: PeakCheck::new(start),
            count: 0,
            names: APPS.map(str::to_owned).into_iter().enumerate().collect(),
            renamed: 0,
            scales: TargetScales::new(),
            late: Vec::new(),
            next_change: start,
            changes: 0,
        };
        if rng.random_bool(0.3) {
            cluster.add_stranger();
        }
        cluster
    }

    /// Adds a user-placed pod that waits forever for something that only the user can provide.
    fn add_stranger(&mut self) {
        let mut facts = pod("stranger").of_app("stranger").on(NODE);
        if let PodStage::Bound(bound) = &mut facts.stage {
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
            is_late: false,
            is_foreign: false,
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

    /// Advances the clock: a little while something is in flight, otherwise until something is due.
    pub fn pass(&mut self, again: Option<Duration>, rng: &mut StdRng) {
        let moves = self
            .pods
            .values()
            .any(|pod| pod.facts.stage == PodStage::Undecided && pod.gated_until.is_none());
        let busy = moves || self.changes > 0;
        self.changes = self.changes.saturating_sub(1);
        let step = if busy {
            Duration::from_millis(rng.random_range(300..6000))
        } else {
            let pods = self.pods.values().flat_map(SimPod::due);
            let due = pods
                .chain(self.late.iter().map(|late| late.at))
                .chain([self.next_change])
                .chain(self.refill());
            let due = due.filter(|at| *at > self.now).min();
            let due = due.and_then(|at| Duration::try_from(at.duration_since(self.now)).ok());
            let due = due.unwrap_or(MAX_STEP).min(again.unwrap_or(MAX_STEP));
            due.clamp(Duration::from_millis(500), MAX_STEP)
        };
        self.now = self.later(step);
    }

    /// Records a change. The next steps are short, because there is something to see.
    pub fn changed(&mut self) {
        self.count += 1;
        self.changes = 2;
    }

    /// Records that the pod runs now.
    pub fn runs(&mut self, uid: &str) {
        let now = self.now;
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.finishes_at = pod.runs_for.map(|span| later(now, span));
        }
    }

    /// Changes a pod, and gives it a new version.
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

    /// The content of `/scale`.
    pub fn scales(&self) -> &TargetScales {
        &self.scales
    }

    /// Whether a trigger of the pool is active.
    pub fn is_triggered(&self) -> bool {
        self.trigger == Some(true)
    }

    /// The pods on the node, or on their way there, that keep this one out of its zone.
    pub fn keeps_out(&self, pod: &SimPod) -> impl Iterator<Item = &SimPod> {
        let (has_rules, app) = (pod.facts.rules.is_some(), pod.app);
        let uid = pod.facts.id.uid.clone();
        self.pods.values().filter(move |other| {
            let is_home = other.facts.bound().is_some_and(|bound| bound.node != NODE);
            // The plan does not count a pod whose grant has expired until the scheduler places it.
            let is_granted = other.facts.grant.is_some() && !other.facts.has_expired();
            let may_come = is_granted || other.facts.bound().is_some();
            let is_other = other.app == app && other.facts.id.uid != uid;
            let is_finished = other.facts.stage == PodStage::Finished;
            has_rules && is_other && may_come && !is_home && !is_finished
        })
    }

    /// Whether a pod on the node keeps this one out of its zone, as the scheduler sees it.
    pub fn keeps_out_there(&self, pod: &SimPod) -> bool {
        let is_there = |other: &&SimPod| {
            let bound = other.facts.bound();
            other.app == pod.app && bound.is_some_and(|bound| bound.node == NODE)
        };
        pod.facts.rules.is_some() && self.pods.values().any(|other| is_there(&other))
    }

    /// The UIDs of granted pods that are on the node, or may be placed there.
    pub fn away(&self) -> BTreeSet<&str> {
        let away = self.pods.values().filter(|pod| {
            let home = pod.facts.bound().is_some_and(|bound| bound.node != NODE);
            let is_granted =
                pod.facts.grant.is_some() && !pod.facts.has_expired() && !pod.is_foreign;
            is_granted && !home && pod.facts.stage != PodStage::Finished
        });
        away.map(|pod| pod.facts.id.uid.as_str()).collect()
    }
}

/// The anti-affinity by zone of the workload `db`.
fn apart() -> TopologyRules {
    let spec = json!({"containers": [], "affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "db"}},
        }],
    }}});
    let spec = serde_json::from_value(spec).expect("a spec");
    TopologyRules::of(&spec, &BTreeMap::new()).expect("it has rules")
}
