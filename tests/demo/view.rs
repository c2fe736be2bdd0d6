//! The live view: where the replicas are, and what the pool says, whenever that changes.

use std::time::Instant;

use burstpool::api::BurstPool;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};

use crate::support::objects;

/// Shows both for as long as it is polled.
pub async fn show(client: Client, began: Instant) -> anyhow::Result<()> {
    tokio::try_join!(replicas(client.clone(), began), words(client, began)).map(drop)
}

fn line(began: Instant, text: &str) {
    println!("{:5.1} s  {text}", began.elapsed().as_secs_f64());
}

/// One character a replica: at home, on ACI, waiting.
async fn replicas(client: Client, began: Instant) -> anyhow::Result<()> {
    let (store, writer) = reflector::store();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let web = watcher::Config::default().labels("app=web");
    let mut changes = watcher(pods, web)
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .boxed();
    let mut shown = (0, 0, 0);
    while changes.try_next().await?.is_some() {
        let pods: Vec<Pod> = store.state().iter().map(|pod| (**pod).clone()).collect();
        let now @ (home, aci, waiting) = objects::spread(&pods);
        if now != shown {
            let bars = ["#".repeat(home), "~".repeat(aci), ".".repeat(waiting)].concat();
            line(
                began,
                &format!(
                    "         {bars:<14} {home} at home #, {aci} on ACI ~, {waiting} waiting ."
                ),
            );
            shown = now;
        }
    }
    Ok(())
}

/// What the pool's condition `Spilling` says.
async fn words(client: Client, began: Instant) -> anyhow::Result<()> {
    let pools: Api<BurstPool> = Api::all(client);
    let mut changes = watcher(pools, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    let mut said = String::new();
    while let Some(pool) = changes.try_next().await? {
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        let spilling = conditions.into_iter().find(|one| one.type_ == "Spilling");
        let Some(condition) = spilling else { continue };
        let now = format!("pool peak: {}: {}", condition.reason, condition.message);
        if now != said {
            line(began, &format!("         {now}"));
            said = now;
        }
    }
    Ok(())
}
