//! How soon another instance leads after the leader is killed, or asked to end, and how soon after that
//! the node's lease is renewed. Real API server; the follower has synced its caches before.

use std::time::{Duration, Instant};

use burstpool::api::BurstPool;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use super::emulator::quantile;
use super::pods::{NODE, Parts, pool, start};
use super::support::wait;

/// Rounds per case. The results vary with the remaining time of the lease.
const ROUNDS: usize = 5;
/// How long a follower gets to sync its caches.
const WARM: Duration = Duration::from_secs(5);

/// Measures and prints.
pub async fn run() {
    let parts = Parts::start().await;
    let mut leader = start(&parts);
    pool(&parts.client).await;
    let mut name = led_by_another(&parts.client, None).await;
    println!(
        "\nthe leader gets | another leads after, p50/most | and renews the node's lease after"
    );
    for signal in ["KILL", "TERM"] {
        let (mut led, mut renewed) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let follower = start(&parts);
            tokio::time::sleep(WARM).await;
            let (began, at) = (Instant::now(), Timestamp::now());
            leader.signal(signal);
            name = led_by_another(&parts.client, Some(&name)).await;
            let took = began.elapsed();
            let since = at + SignedDuration::try_from(took).expect("seconds");
            until_renewed(&parts.client, since).await;
            led.push(took);
            renewed.push(began.elapsed());
            leader = follower;
        }
        println!("SIG{signal} | {} | {}", told(led), told(renewed));
    }
}

/// Waits until an instance other than `other` leads the pool. Returns its identity.
async fn led_by_another(client: &Client, other: Option<&str>) -> String {
    let pools: Api<BurstPool> = Api::all(client.clone());
    let found = |pool: Option<&BurstPool>| {
        let leader = pool?.status.as_ref()?.leader.clone()?;
        (Some(leader.as_str()) != other).then_some(leader)
    };
    let leader = wait::get(pools, "bench", "another leader", found).await;
    leader.expect("another leads")
}

async fn until_renewed(client: &Client, since: Timestamp) {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let is_renewed = |lease: Option<&Lease>| {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
        renewed.is_some_and(|renewed| renewed.0 > since)
    };
    let renewed = wait::until(leases, NODE, "the node's lease to be renewed", is_renewed).await;
    renewed.expect("it is renewed");
}

fn told(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let seconds = |share| quantile(&took, share).as_secs_f64();
    format!("{:.1}/{:.1} s", seconds(0.5), seconds(1.0))
}
