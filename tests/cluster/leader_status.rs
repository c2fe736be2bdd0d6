//! A change of leader does not show in a pool's status: a new leader keeps the old values of everything
//! that it has not yet read.

use std::sync::Arc;

use burstpool::api::BurstPool;
use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::triggers_beside_others::always;
use crate::triggers_prometheus::scaled;
use crate::world::{World, said};

/// The status that users and tools look at: everything except leader and reservations, and without
/// messages, which describe the last plan.
fn shown(pool: &BurstPool) -> Value {
    let status = pool.status.clone().unwrap_or_default();
    let conditions = status.conditions.iter();
    let conditions: Vec<_> = conditions
        .map(|one| {
            (
                &one.type_,
                &one.status,
                &one.reason,
                &one.last_transition_time,
            )
        })
        .collect();
    let placements = status.placements.iter();
    let placements: Vec<_> = placements.map(|one| (&one.name, one.ready)).collect();
    let triggers = status.triggers.iter();
    let triggers: Vec<_> = triggers
        .map(|one| (&one.name, one.active, &one.since))
        .collect();
    let workloads = status.workloads.iter();
    let workloads: Vec<_> = workloads
        .map(|one| {
            let scaled = one.scale.as_ref().and_then(|scale| scale.wanted);
            (&one.name, one.desired, one.home, one.spilled, scaled)
        })
        .collect();
    json!([conditions, placements, triggers, workloads, status.pods])
}

fn leader(pool: Option<&BurstPool>) -> Option<String> {
    pool?.status.as_ref()?.leader.clone()
}

#[tokio::test]
async fn a_new_leader_keeps_the_status_of_what_it_has_not_read_yet() {
    let mut world = World::with_home(&json!({
        "workloads": [scaled(&["always"], 1, 8)],
        "triggers": [always(5)],
    }))
    .await;
    world.deploy(1).await;
    world.until_spread(4, 1, 0).await;
    let is_settled = |pool: Option<&BurstPool>| {
        pool.is_some_and(|pool| {
            let is = |kind, status| said(pool, kind).0 == status;
            let pods = pool.status.as_ref().and_then(|status| status.pods);
            let all = [("NodesReady", "True"), ("TriggersHealthy", "True")];
            all.iter().all(|(kind, status)| is(kind, *status))
                && is("Spilling", "True")
                && is("Conflict", "False")
                && pods.is_some_and(|pods| (pods.running, pods.holding) == (1, 0))
        })
    };
    world
        .until_pool("shop", "everything to be said", is_settled)
        .await;
    let before = world.pools().get("shop").await.expect("the pool");

    let seen = Arc::new(Mutex::new(Vec::new()));
    let (pools, record) = (world.pools(), seen.clone());
    let watching = tokio::spawn(async move {
        let pools = watcher(pools, watcher::Config::default()).default_backoff();
        let mut pools = Box::pin(pools.applied_objects());
        while let Some(pool) = pools.next().await {
            let Ok(pool) = pool else { continue };
            record.lock().push(pool);
        }
    });
    world.kill_and_forget().await;
    world.run();
    let (old, what) = (leader(Some(&before)), "another leader");
    let another = |pool: Option<&BurstPool>| leader(pool).is_some_and(|new| Some(new) != old);
    world.until_pool("shop", what, another).await;
    world
        .change_pool(&json!({"scaleIn": {"cooldown": "7m"}}))
        .await;
    let taken_in = |pool: Option<&BurstPool>| {
        pool.is_some_and(|pool| {
            let observed = pool.status.as_ref().and_then(|s| s.observed_generation);
            observed == pool.metadata.generation && observed > before.metadata.generation
        })
    };
    world
        .until_pool("shop", "the change to be taken in", taken_in)
        .await;
    watching.abort();
    let seen = seen.lock().clone();
    assert!(seen.len() > 1, "the watch saw {}", seen.len());
    for pool in &seen {
        assert_eq!(shown(pool), shown(&before), "{}", world.tail());
    }
    world.end().await;
}
