//! Simulates thousands of hours of a bursting cluster, with every fault that can happen.
//!
//! In: a random seed. The model contains the API server, the scheduler, the cluster's own nodes, workloads,
//! Azure, and two instances of the operator; one leads. Each watch lags on its own, including that of
//! the pool. Patches and updates are refused, conflict, are lost, or arrive late. The scheduler nominates pods
//! and withdraws nominations. Leaders crash, or freeze with patches in flight and resume after another instance
//! has taken over. The clock is virtual.
//!
//! Out: every write is checked against the invariants. A failure prints its seed, and
//! `SEED=... cargo test --lib simulation` reproduces it. The seeds are always the same, so that a test run
//! judges only the change. `SEEDS_FROM=N` tries others.

mod azure;
mod checks;
mod cluster;
mod happened;
mod operator;
mod scheduler;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::aci::failure::FailureClass;
use cluster::Cluster;
use happened::Happened;
use operator::Operator;

/// The number of episodes, each with its own cluster, and the length of each.
const EPISODES: u64 = 400;
const EPISODE: Duration = Duration::from_secs(7 * 3600);
/// How long nothing fails at the end of an episode.
const CALM: Duration = Duration::from_secs(120 * 60);
/// How long nothing changes at the end of that, so that every waiting pod must be served. Longer than pods wait
/// while room is kept for larger ones, and than these together: the longest back-off of a placement without
/// capacity (10 minutes), the time that a group may take to start (5 minutes), and the rest that the end requires
/// (5 minutes).
const STILL: Duration = Duration::from_secs(30 * 60);
/// How long a lease lasts after its holder stops renewing it.
const LEASE: Duration = Duration::from_secs(15);

struct Simulation {
    rng: StdRng,
    cluster: Cluster,
    operators: [Operator; 2],
    /// The index of the instance that holds the lease.
    leader: usize,
    passed_by: checks::PassedBy,
    happened: Happened,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = Cluster::new(&mut rng);
        let now = cluster.now;
        let operators = [0, 1].map(|number| Operator::new(number, now, &mut rng));
        Self {
            rng,
            operators,
            cluster,
            leader: 0,
            passed_by: [(now, 0); 3],
            happened: Happened::default(),
        }
    }

    fn run(&mut self) {
        let end = self.cluster.later(EPISODE);
        let before = |span: Duration| end.saturating_sub(span).expect("in range");
        let (calm, still) = (before(CALM), before(STILL));
        while self.cluster.now < end {
            self.cluster.is_calm = self.cluster.now >= calm;
            self.cluster.calm_from = calm;
            self.cluster.is_still = self.cluster.now >= still;
            self.step();
            let leader = &self.operators[self.leader];
            checks::no_workload_is_passed_by(&self.cluster, leader, &mut self.passed_by);
            if self.cluster.is_calm {
                checks::every_bound_pod_starts(&self.cluster, calm);
            }
        }
        checks::no_pod_starves(&self.cluster, &self.operators[self.leader]);
        self.cluster.churn.rests(self.cluster.now);
        self.happened.peaks += self.cluster.peaks.begun;
        self.happened.renamed += self.cluster.renamed;
        self.happened.shared += self.cluster.region.taken;
    }

    fn step(&mut self) {
        let (rng, cluster) = (&mut self.rng, &mut self.cluster);
        cluster.live(rng);
        cluster.share_quota(rng);
        cluster.schedule(rng);
        let ended = cluster.start_groups(rng);
        for operator in &mut self.operators {
            operator.sync(cluster, rng);
            operator.learn(&ended, cluster.now);
            let classes = ended.iter().filter_map(|one| one.err());
            for class in classes {
                self.happened.throttled += u64::from(class == FailureClass::Throttled);
                self.happened.rejected += u64::from(class == FailureClass::Unknown);
            }
        }
        self.elect();
        for index in [0, 1] {
            let is_leader = index == self.leader;
            let operator = &mut self.operators[index];
            operator.act(
                &mut self.cluster,
                is_leader,
                &mut self.rng,
                &mut self.happened,
            );
        }
        let again = self.operators[self.leader].plans_again_in(self.cluster.now);
        self.cluster.pass(again, &mut self.rng);
    }

    /// The other instance takes the lease when it has expired.
    fn elect(&mut self) {
        let now = self.cluster.now;
        let other = 1 - self.leader;
        if self.operators[self.leader].is_alive(now) {
            self.cluster.lease = self.cluster.later(LEASE);
        } else if now >= self.cluster.lease && self.operators[other].is_alive(now) {
            self.leader = other;
            self.operators[other].elected();
            self.cluster.lease = self.cluster.later(LEASE);
        }
    }
}

/// Runs one episode. Returns what happened, or the failure.
fn episode(seed: u64) -> std::thread::Result<Happened> {
    let mut simulation = Simulation::new(seed);
    let run = std::panic::AssertUnwindSafe(|| simulation.run());
    if let Err(cause) = std::panic::catch_unwind(run) {
        eprintln!("the simulation failed with SEED={seed}");
        return Err(cause);
    }
    Ok(simulation.happened)
}

fn unwound<T>(run: std::thread::Result<T>) -> T {
    run.unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

#[test]
fn every_invariant_holds_in_thousands_of_hours_of_faults() {
    if let Some(seed) = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        eprintln!("{:?}", unwound(episode(seed)));
        return;
    }
    let first = std::env::var("SEEDS_FROM").ok();
    let first: u64 = first.and_then(|first| first.parse().ok()).unwrap_or(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicU64::new(0);
    let run = || {
        let mut all = Happened::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= EPISODES {
                return all;
            }
            match episode(first + number) {
                Ok(some) => all.add(&some),
                Err(cause) => {
                    // Stops the other threads.
                    next.store(EPISODES, Ordering::Relaxed);
                    std::panic::resume_unwind(cause);
                }
            }
        }
    };
    let mut all = Happened::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in running {
            all.add(&unwound(thread.join()));
        }
    });
    eprintln!("{} hours: {all:?}", EPISODES * EPISODE.as_secs() / 3600);
    assert!(
        all.is_everything(),
        "not everything happened that should: {all:?}"
    );
}
