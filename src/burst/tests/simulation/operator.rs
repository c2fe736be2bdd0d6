//! An instance of the operator: its watches, its memory, and the shell around the plan.

mod hands;

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::Happened;
use super::azure::Ended;
use super::cluster::{Cluster, NODE};
use crate::aci::translate::{self, Unsupported};
use crate::api::BurstPool;
use crate::burst::fixtures::{namespaces, place};
use crate::burst::hold::later;
use crate::burst::observe::Standing;
use crate::burst::plan::{First, Plan, Slot};
use crate::burst::pod::{Grant, PodFacts, PodRef};
use crate::burst::{Answer, Claims, Memory, Own, Verdicts, World, observe, plan};

/// What a watch has shown so far.
#[derive(Default)]
struct Store {
    pods: Vec<Rc<PodFacts>>,
    /// How much had happened then.
    count: u64,
}

/// Which pods a watch shows.
type Belongs = fn(&PodFacts) -> bool;

/// An instance of the operator.
pub struct Operator {
    number: u32,
    /// How often it was started, and came to lead: its identity is another each time.
    run: u32,
    term: u32,
    waiting: Store,
    labelled: Store,
    bound: Store,
    memory: Memory,
    standing: Standing,
    /// The pool as it was read last, and its status' version.
    pool: Option<(BurstPool, u64)>,
    /// It is dead or frozen until then.
    away_until: Option<Timestamp>,
    /// Patches that it has in its hands.
    hands: VecDeque<(PodRef, Grant)>,
    /// Answers that have not come yet: what they tell of is done, and may be seen already.
    answers: VecDeque<(PodRef, Answer)>,
    /// It was frozen, and believes still that it leads.
    is_stale: bool,
    /// All that was done this turn ended as planned.
    is_clean: bool,
    /// When it looks again although nothing changes, and whether it has reason to look.
    due: Timestamp,
    is_due: bool,
    /// It gathers what happens for a moment before it decides again.
    rests_until: Timestamp,
    pub look_again: Option<Duration>,
    pub last: Plan,
    verdicts: Verdicts,
}

impl Operator {
    pub fn new(number: u32, now: Timestamp) -> Self {
        Self {
            number,
            run: 0,
            term: 0,
            waiting: Store::default(),
            labelled: Store::default(),
            bound: Store::default(),
            memory: Memory::default(),
            standing: Standing::Unclaimed,
            pool: None,
            away_until: None,
            hands: VecDeque::new(),
            answers: VecDeque::new(),
            is_stale: false,
            is_clean: false,
            due: now,
            is_due: true,
            rests_until: now,
            look_again: None,
            last: Plan::default(),
            verdicts: Verdicts::default(),
        }
    }

    fn identity(&self) -> String {
        format!("{}-{}-{}", self.number, self.run, self.term)
    }

    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.away_until.is_none_or(|until| until <= now)
    }

    /// It holds the lease now.
    pub fn elected(&mut self) {
        self.term += 1;
        self.standing = Standing::Unclaimed;
        self.memory = Memory::default();
        self.pool = None;
    }

    /// Each watch may or may not have shown what is new; none ever goes back.
    pub fn sync(&mut self, cluster: &Cluster, rng: &mut StdRng) {
        let calm = cluster.is_calm;
        let stores: [(&mut Store, Belongs); 3] = [
            (&mut self.waiting, |pod| pod.bound().is_none()),
            (&mut self.labelled, |pod| pod.grant.is_some()),
            (&mut self.bound, |pod| {
                pod.bound().is_some_and(|bound| bound.node == NODE)
            }),
        ];
        for (store, belongs) in stores {
            if store.count != cluster.count && (calm || rng.random_bool(0.6)) {
                let all = cluster.pods.values().map(|pod| &pod.facts);
                store.pods = all.filter(|facts| belongs(facts)).cloned().collect();
                store.count = cluster.count;
                self.is_due = true;
            }
        }
        self.is_due |= self.due <= cluster.now;
    }

    /// Creates have ended: the node's keepers say so to whoever runs them, here both.
    pub fn learn(&mut self, ended: &[Ended], now: Timestamp) {
        self.is_due |= !ended.is_empty();
        for one in ended {
            let backend = self.memory.backend("weu");
            match one {
                Ok(()) => backend.succeeded(now),
                Err(class) => backend.failed(*class, "Azure starts nothing", now),
            }
        }
    }

    /// One turn.
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
            while let Some((pod, grant)) = self.hands.pop_front() {
                self.send(&pod, grant, cluster, rng, happened);
            }
        }
        if is_leader {
            self.is_stale = false;
        } else if !self.is_stale || rng.random_bool(0.5) {
            // It looks at the lease, and is none.
            self.is_stale = false;
            return;
        }
        if !self.hands.is_empty() {
            let left = rng.random_range(0..=self.hands.len());
            self.is_due |= left < self.hands.len();
            self.empty_hands(left, cluster, rng, happened);
        }
        let unheard = if cluster.is_calm {
            0
        } else {
            rng.random_range(0..=self.answers.len())
        };
        self.hear(unheard, cluster);
        if self.is_due && self.rests_until <= cluster.now && self.claims(cluster, is_leader) {
            self.decide(cluster, is_leader, rng, happened);
        }
    }

    /// Writes who it is into the pool, then lists what is labelled; whether it may decide.
    fn claims(&mut self, cluster: &mut Cluster, is_leader: bool) -> bool {
        match self.standing {
            Standing::Leading => return true,
            _ if !is_leader || !self.hands.is_empty() || !self.answers.is_empty() => return false,
            Standing::Unclaimed => {
                let identity = self.identity();
                let claim = cluster.write(cluster.version, |status| status.leader = Some(identity));
                let version = claim.expect("it has just read the version");
                self.pool = Some((cluster.pool.clone(), version));
                self.standing = Standing::Uncounted;
                cluster.disturbed = cluster.now;
            }
            Standing::Uncounted => {
                let all = cluster.pods.values().map(|pod| &pod.facts);
                self.labelled.pods = all.filter(|facts| facts.grant.is_some()).cloned().collect();
                self.standing = Standing::Leading;
            }
        }
        true
    }

    fn decide(
        &mut self,
        cluster: &mut Cluster,
        is_leader: bool,
        rng: &mut StdRng,
        happened: &mut Happened,
    ) {
        let Some((mut pool, version)) = self.pool.take() else {
            return;
        };
        if pool.spec.spill != cluster.pool.spec.spill {
            pool.spec = cluster.pool.spec.clone();
        }
        self.judge(&pool, cluster);
        let plan = self.plan(&pool, cluster);
        happened.plans += 1;
        let expected = match self.standing {
            Standing::Leading => First::Nothing,
            Standing::Uncounted => First::Count,
            Standing::Unclaimed => First::Claim,
        };
        assert_eq!(plan.first, expected);
        self.is_clean = plan.unseen.is_empty();
        // Those that are reserved already do not wait for the write.
        self.take_in_hand(&plan, Slot::Reserved, cluster, happened);
        let sent = rng.random_range(0..=self.hands.len());
        self.empty_hands(self.hands.len() - sent, cluster, rng, happened);
        let mut version = version;
        if plan.must_reserve {
            let reservations = plan.reservations.clone();
            let written = cluster.write(version, |status| status.reservations = reservations);
            let Ok(written) = written else {
                happened.fenced += 1;
                assert!(!is_leader, "only another leader's write makes ours fail");
                self.standing = Standing::Unclaimed;
                self.is_stale = false;
                return;
            };
            version = written;
            self.memory.wrote(cluster.now);
        }
        if let Some(status) = &mut pool.status {
            status.reservations.clone_from(&plan.reservations);
        }
        self.pool = Some((pool, version));
        self.carry_out(&plan, cluster, rng, happened);
        let waiting: HashSet<&str> = self
            .waiting
            .pods
            .iter()
            .map(|pod| pod.id.uid.as_str())
            .collect();
        self.memory.keep(&plan, &waiting, cluster.now);
        if self.is_clean
            && self.hands.is_empty()
            && self.answers.is_empty()
            && rng.random_bool(0.05)
        {
            self.plans_nothing_new(cluster);
        }
        self.look_again = plan.look_again_in;
        let again = plan.look_again_in.unwrap_or(Duration::from_secs(3600));
        self.due = later(cluster.now, again);
        self.rests_until = later(
            cluster.now,
            Duration::from_millis(rng.random_range(0..6000)),
        );
        // What was done is seen at once in memory and in the pool's status.
        self.is_due = plan.must_reserve || plan.grants().next().is_some();
        self.last = plan;
        if !cluster.is_calm && is_leader && rng.random_bool(0.001) {
            self.crash(cluster, rng, happened);
        }
    }

    /// The same state plans nothing new.
    fn plans_nothing_new(&self, cluster: &Cluster) {
        let Some((pool, _)) = &self.pool else { return };
        let again = self.plan(pool, cluster);
        let known = |uid: &str| {
            let mut known = pool.status.iter().flat_map(|status| &status.reservations);
            known.any(|entry| entry.uid == uid)
        };
        let mut new = again.grants().filter(|decision| !known(&decision.pod.uid));
        let new = new.next();
        assert!(new.is_none(), "planned anew: {new:?}");
    }

    fn plan(&self, pool: &BurstPool, cluster: &Cluster) -> Plan {
        let namespaces = namespaces();
        let waiting: Vec<&PodFacts> = self.waiting.pods.iter().map(|pod| &**pod).collect();
        let labelled: Vec<&PodFacts> = self.labelled.pods.iter().map(|pod| &**pod).collect();
        let bound: Vec<&PodFacts> = self.bound.pods.iter().map(|pod| &**pod).collect();
        let mut place = place("weu", 0);
        place.offers = cluster.offers();
        let world = World {
            pools: &[pool],
            waiting: &waiting,
            labelled: &labelled,
            placed: &bound,
            scales: cluster.scales(),
            namespaces: &namespaces,
            claims: &Claims::new(),
        };
        let identity = self.identity();
        let own = Own {
            places: &[place],
            bound: &bound,
            verdicts: &self.verdicts,
            memory: &self.memory,
            is_triggered: false,
            standing: self.standing,
            identity: &identity,
        };
        plan(pool, &observe(pool, &world, &own), cluster.now)
    }

    /// Asks about versions of pods that are new to it.
    fn judge(&mut self, pool: &BurstPool, cluster: &Cluster) {
        let placement = translate::Placement {
            spec: &pool.spec.placements[0],
            tags: &pool.spec.azure.tags,
            node: NODE,
            node_address: None,
        };
        for pod in &self.waiting.pods {
            let verdicts = &mut self.verdicts;
            let asked = verdicts.id(placement.spec, placement.tags, placement.node);
            if asked.is_some_and(|asked| verdicts.of(&pod.id, asked).is_some()) {
                continue;
            }
            let known = cluster.pods.get(&pod.id.uid);
            let refusal = known.filter(|pod| pod.is_ineligible).map(|_| Unsupported {
                field: "spec.hostNetwork".to_owned(),
                why: "there is no host".to_owned(),
            });
            verdicts.learn(&pod.id, &placement, refusal.into_iter().collect());
        }
        let waiting = self.waiting.pods.iter().map(|pod| pod.id.uid.as_str());
        self.verdicts.retain(&waiting.collect());
    }
}
