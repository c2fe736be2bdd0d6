//! Changes of leader without any effect on pods on ACI and their node.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use burstpool::emulator::EmulatorOptions as AzureOptions;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{NODE, TAKEOVER};
use crate::support::{Options, objects, wait};
use crate::world::World;

/// How soon another instance must lead after the leader ends regularly and releases its lease: sooner
/// than the lease could expire.
const HANDOVER: Duration = Duration::from_secs(10);
/// How long a node's lease may stay without renewal before the node controller marks the node
/// unreachable (`--node-monitor-grace-period`).
const NODE_GRACE: Duration = Duration::from_secs(50);

/// Names of pods and nodes that stopped being Ready, and when this was first seen.
fn unready(
    world: &World,
) -> (
    watch::Receiver<BTreeMap<String, Timestamp>>,
    [JoinHandle<()>; 2],
) {
    let (sender, seen) = watch::channel(BTreeMap::new());
    let nodes = sender.clone();
    let web = watcher::Config::default().labels("app=web");
    let pods = note(world.pods(), web, objects::is_pod_ready, sender);
    let only = watcher::Config::default().fields(&format!("metadata.name={NODE}"));
    let all: Api<Node> = Api::all(world.client.clone());
    (seen, [pods, note(all, only, objects::is_ready, nodes)])
}

/// Records when each object was first seen not to be ready.
fn note<K>(
    api: Api<K>,
    which: watcher::Config,
    is_ready: fn(&K) -> bool,
    seen: watch::Sender<BTreeMap<String, Timestamp>>,
) -> JoinHandle<()>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let changes = watcher(api, which).default_backoff().applied_objects();
    let noted = changes.try_for_each(move |object| {
        if !is_ready(&object) {
            let now = Timestamp::now();
            seen.send_modify(|seen| {
                let _ = seen.entry(object.name_any()).or_insert(now);
            });
        }
        std::future::ready(Ok(()))
    });
    tokio::spawn(async move { drop(noted.await) })
}

/// Waits until the node's lease is renewed later than `after` past `at`.
async fn renewed(world: &World, at: Timestamp, after: Duration) {
    let then = at + jiff::SignedDuration::try_from(after).expect("seconds");
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-node-lease");
    let since = |lease: Option<&Lease>| {
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
        renewed.is_some_and(|renewed| renewed.0 > then)
    };
    let renewed = wait::until(leases, NODE, "the node's lease to be renewed", since).await;
    renewed.expect("it is renewed");
}

#[tokio::test]
async fn pods_on_aci_and_their_node_stay_ready_when_the_leader_dies_or_ends() {
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    let world = World::without_operator(Options::default(), azure).await;
    let mut first = world.instance("log-0");
    world.create_pool("shop").await;
    for name in ["a", "b", "c"] {
        world.create_pod(name, "shop", &json!({})).await;
    }
    let config = || watcher::Config::default().labels("app=web");
    let ready = |pods: &[Pod]| pods.len() == 3 && pods.iter().all(objects::is_pod_ready);
    let run = wait::until_all(world.pods(), config(), "pods on ACI", ready).await;
    run.expect("they are ready");
    let leader = world.leader(None, &[&first]).await;
    let mut second = world.instance("log-1");
    let (seen, watching) = unready(&world);

    let (killed, at) = (Instant::now(), Timestamp::now());
    first.signal("KILL").await;
    first.ended().await;
    let leader = world.leader(Some(&leader), &[&second]).await;
    let took = killed.elapsed();
    renewed(&world, at, took).await;
    let renewed_after = killed.elapsed();
    eprintln!(
        "killed: another leads after {took:?}, and has renewed the node's lease after {renewed_after:?}"
    );
    assert!(took < TAKEOVER, "{took:?}");
    assert!(renewed_after < NODE_GRACE, "{renewed_after:?}");

    let third = world.instance("log-2");
    // It must be waiting for the lease, not still starting.
    let waits = tokio::time::timeout(wait::DEADLINE, async {
        while !third.tail().contains("locked by other identity") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waits.await.is_ok(), "{}", third.tail());
    let (asked, at) = (Instant::now(), Timestamp::now());
    second.signal("TERM").await;
    assert!(second.ended().await.success());
    world.leader(Some(&leader), &[&third]).await;
    let took = asked.elapsed();
    renewed(&world, at, took).await;
    let renewed_after = asked.elapsed();
    eprintln!(
        "ended: another leads after {took:?}, and has renewed the node's lease after {renewed_after:?}"
    );
    assert!(took < HANDOVER, "{took:?}");
    assert!(renewed_after < NODE_GRACE, "{renewed_after:?}");

    assert_eq!(*seen.borrow(), BTreeMap::new());
    let still = wait::until_all(world.pods(), config(), "pods on ACI", ready).await;
    assert_eq!(
        still
            .expect("they are ready")
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some())
            .count(),
        0
    );
    for task in watching {
        task.abort();
    }
    drop(third);
    world.end().await;
}
