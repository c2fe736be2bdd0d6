//! Thousands of hours of a cluster that bursts, with everything going wrong that can.
//!
//! A model of the API server, the scheduler, home, workloads and Azure, and two instances of the
//! operator of which one decides. Watches lag, each by itself, that of the pool too; patches and updates are
//! refused, conflict, are lost and come late; the scheduler nominates pods and thinks better of it; leaders
//! crash, or freeze with patches in their hands and thaw when another has taken over. The clock is virtual.
//! Invariants are checked at every write; what fails names the seed, with which
//! `SEED=... cargo test --lib simulation` shows the same again. The seeds are the same each time, so that a
//! change is judged by itself; `SEEDS_FROM=N` tries others.

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

use crate::aci::failure::Class;
use cluster::Cluster;
use happened::Happened;
use operator::Operator;

/// Episodes, each with a cluster of its own, and how long each lasts.
const EPISODES: u64 = 400;
const EPISODE: Duration = Duration::from_secs(7 * 3600);
/// How long everything goes well at the end of an episode.
const CALM: Duration = Duration::from_secs(120 * 60);
/// How long nothing changes at the end of that, so that whoever waits must be served: longer than those
/// wait for their turn that pass by pods for which room is kept.
const STILL: Duration = Duration::from_secs(20 * 60);
/// How long a lease lasts whose holder is silent.
const LEASE: Duration = Duration::from_secs(15);

struct Simulation {
    rng: StdRng,
    cluster: Cluster,
    operators: [Operator; 2],
    /// Which of them holds the lease, and until when.
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
            checks::nobody_is_passed_by(&self.cluster, leader, &mut self.passed_by);
            if self.cluster.is_calm {
                checks::nobody_waits_in_vain(&self.cluster, calm);
            }
        }
        checks::nobody_starves(&self.cluster, &self.operators[self.leader]);
        self.cluster.churn.rests(self.cluster.now);
        self.happened.peaks += self.cluster.peaks.begun;
    }

    fn step(&mut self) {
        let (rng, cluster) = (&mut self.rng, &mut self.cluster);
        cluster.live(rng);
        cluster.schedule(rng);
        let ended = cluster.start_groups(rng);
        for operator in &mut self.operators {
            operator.sync(cluster, rng);
            operator.learn(&ended, cluster.now);
            let classes = ended.iter().filter_map(|one| one.err());
            for class in classes {
                self.happened.throttled += u64::from(class == Class::Throttled);
                self.happened.rejected += u64::from(class == Class::Unknown);
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
        let again = self.operators[self.leader].look_again;
        self.cluster.pass(again, &mut self.rng);
    }

    /// The lease goes to the other one when its holder is silent for too long.
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

/// What happened, or what failed.
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
                    // The others need not go on.
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
