//! Pods come and go while the operator is killed or Azure fails: no group is lost, doubled or leaked.
//!
//! A seed determines the random events. A failure shows it, and `BURSTPOOL_TEST_SEED` sets it.

use std::collections::BTreeSet;
use std::time::Duration;

use burstpool::emulator::EmulatorOptions;
use burstpool::emulator::timeline::TimelineEntry;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;

use crate::node_in_process::{Burst, is_running};
use crate::world::{self, World};

/// How many pods are created. Half of them are deleted again.
const PODS: usize = 50;
/// How often the operator is killed.
const KILLS: usize = 16;
/// The maximum milliseconds between start and kill: enough to lead and to work.
const MAX_LIFE: u64 = 2500;

/// A seeded random generator that shows its seed when the test fails.
struct Chance {
    seed: u64,
    random: StdRng,
}

impl Chance {
    fn new() -> Self {
        let given = std::env::var("BURSTPOOL_TEST_SEED").ok();
        let given = given.map(|seed| seed.parse().expect("BURSTPOOL_TEST_SEED is a number"));
        let seed = given.unwrap_or_else(rand::random);
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.random_range(0..limit)
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BURSTPOOL_TEST_SEED={}", self.seed);
        }
    }
}

/// A plan of creations and deletions by pod number, one pair of lists for each of `parts` steps.
fn comings_and_goings(chance: &mut Chance, parts: usize) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut plan = vec![(Vec::new(), Vec::new()); parts];
    let mut goers: Vec<usize> = (0..PODS).collect();
    goers.shuffle(&mut chance.random);
    goers.truncate(PODS / 2);
    for n in 0..PODS {
        let comes = n * parts / PODS;
        plan[comes].0.push(n);
        if goers.contains(&n) {
            let later = chance.random.random_range(comes..parts);
            plan[later].1.push(n);
        }
    }
    plan
}

/// Asserts the final state. `groups` are the UIDs of the pods that have a group; `timeline` is the
/// history of every group that ever existed.
fn assert_none_is_lost_or_doubled(
    pods: &[Pod],
    mut groups: Vec<String>,
    timeline: &[TimelineEntry],
) {
    let mut expected: Vec<String> = pods.iter().filter_map(ResourceExt::uid).collect();
    expected.sort();
    groups.sort();
    assert_eq!(
        groups, expected,
        "every pod has one group and every group a pod"
    );
    let again: Vec<&TimelineEntry> = timeline.iter().filter(|entry| entry.puts != 1).collect();
    assert!(
        again.is_empty(),
        "asked for again while it was there: {again:?}"
    );
    let names: BTreeSet<&str> = timeline.iter().map(|entry| entry.group.as_str()).collect();
    assert_eq!(
        names.len(),
        timeline.len(),
        "made again after it was deleted"
    );
    let restarted = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).sum::<i32>()
    };
    assert_eq!(pods.iter().map(restarted).sum::<i32>(), 0);
}

#[tokio::test]
async fn killed_at_any_moment_it_neither_loses_nor_doubles_nor_leaks_anything() {
    let mut chance = Chance::new();
    // A long round trip, so that some calls are in flight when the operator is killed.
    let options = EmulatorOptions {
        speed: 20.0,
        rtt: Duration::from_millis(100),
        ..EmulatorOptions::default()
    };
    let mut world = World::with(options).await;
    world.create_pool("shop").await;
    let plan = comings_and_goings(&mut chance, KILLS);
    let name = |n: usize| format!("pod-{n}");
    for (come, go) in &plan {
        for n in come {
            world.create_pod(&name(*n), "shop", &json!({})).await;
        }
        for n in go {
            world.delete_pod(&name(*n)).await;
        }
        // The random time of the kill is the point of the test; this does not wait for anything.
        tokio::time::sleep(Duration::from_millis(chance.below(MAX_LIFE))).await;
        world.kill_and_forget().await;
        world.run();
    }
    let gone: BTreeSet<usize> = plan.iter().flat_map(|(_, go)| go.iter().copied()).collect();
    for n in 0..PODS {
        if gone.contains(&n) {
            let is_gone = |pod: Option<&Pod>| pod.is_none();
            world
                .until_pod(&name(n), "the pod to be gone", is_gone)
                .await;
        } else {
            world
                .until_pod(&name(n), "the pod to run", world::is_running)
                .await;
        }
    }
    let pods = world.pods().list(&ListParams::default()).await;
    let pods = pods.expect("a list").items;
    assert_none_is_lost_or_doubled(&pods, world.groups(), &world.timeline());
    let log = std::fs::read_to_string(world.log()).expect("a log");
    let led = log.matches(r#""message":"leading""#).count();
    assert!(
        led > KILLS / 4,
        "only {led} operators lived long enough to lead"
    );
    let writes = log.matches("setting the node's taints").count();
    assert!(
        writes < 4 * (KILLS + 1),
        "the node was written {writes} times: {}",
        world.tail()
    );
    world.end().await;
}

#[tokio::test]
async fn while_azure_fails_now_and_then_every_pod_runs_once_or_is_gone() {
    let mut chance = Chance::new();
    let burst = Burst::start("storm").await;
    burst.emulator.shared().store().faults.seed(chance.seed);
    for (rate, fault) in [
        (0.05, json!({"error": {"status": 503}})),
        (0.05, json!({"error": {"status": 429, "retryAfter": 1}})),
        (0.02, json!("loseAnswer")),
        (0.02, json!("drop")),
    ] {
        burst.fault(json!({"rate": rate, "fault": fault})).await;
    }
    // The random faults may miss the most important calls.
    for fault in ["loseAnswer", "drop"] {
        let puts =
            json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 2, "fault": fault});
        burst.fault(puts).await;
    }
    let plan = comings_and_goings(&mut chance, 10);
    let name = |n: usize| format!("pod-{n}");
    for (come, go) in &plan {
        for n in come {
            burst.create(&name(*n), &json!({})).await;
        }
        for n in go {
            burst.delete(&name(*n), Some(1)).await;
        }
        // Pods come and go at all stages of other pods' starts.
        tokio::time::sleep(Duration::from_millis(chance.below(1000))).await;
    }
    let gone: BTreeSet<usize> = plan.iter().flat_map(|(_, go)| go.iter().copied()).collect();
    for n in 0..PODS {
        if gone.contains(&n) {
            burst.until_gone(&name(n)).await;
        } else {
            burst.until(&name(n), "the pod to run", is_running).await;
        }
    }
    let pods = burst.tenant.api::<Pod>().list(&ListParams::default()).await;
    let pods = pods.expect("a list").items;
    let bodies = burst.bodies();
    let tags = bodies.values().filter_map(|body| body.tags.as_ref());
    let groups = tags.filter_map(|tags| tags.get("burstpool-pod-uid").cloned());
    assert_none_is_lost_or_doubled(&pods, groups.collect(), &burst.timeline());
    assert!(pods.iter().all(|pod| is_running(Some(pod))));
}
