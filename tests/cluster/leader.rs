//! A maximum that holds across changes of leader (design D1a), and changes of leader that pods on ACI do
//! not notice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::{Duration, Instant};

use burstpool::api::BurstPool;
use burstpool::emulator::Options as AzureOptions;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{Options, objects, wait};
use crate::world::process::Instance;
use crate::world::{World, is_closed, is_running};

const PODS: usize = 500;
const NODE: &str = "burst-shop-weu";
/// The pool's maximum, raised step by step: each is granted under another leader.
const STEPS: [usize; 3] = [20, 35, 50];

/// Another leads by then after a kill: 20 s on a machine that does nothing else, which `make bench`
/// measures.
const TAKEOVER: Duration = Duration::from_secs(40);
/// The same of a leader that ends by itself and gives its lease back: sooner than the lease could be over.
const HANDOVER: Duration = Duration::from_secs(10);
/// How long a node's lease may go without being renewed before the node controller calls the node
/// unreachable (`--node-monitor-grace-period`).
const NODE_GRACE: Duration = Duration::from_secs(50);

/// Pods that hold a slot, at the moment and at most so far.
#[derive(Clone, Debug, Default)]
struct Slots {
    held: BTreeSet<String>,
    most: usize,
}

/// Whether a pod holds one of the pool's slots: granted, not finished and not at home.
fn holds(pod: &Pod) -> bool {
    let tolerations = pod
        .spec
        .iter()
        .flat_map(|spec| spec.tolerations.iter().flatten());
    let tolerates = tolerations.into_iter().any(|one| {
        one.key.as_deref() == Some("virtual-kubelet.io/provider")
            && one.value.as_deref() == Some("shop")
    });
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let is_home = objects::node_of(pod).is_some_and(|node| !node.starts_with("burst-"));
    let is_granted = tolerates
        && pod
            .labels()
            .get("burstpool.io/pool")
            .is_some_and(|p| p == "shop");
    is_granted && !is_home && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Counts the slots that all pods hold, at each change of any of them.
fn count(pods: Api<Pod>) -> (watch::Receiver<Slots>, JoinHandle<()>) {
    let (sender, slots) = watch::channel(Slots::default());
    let counting = tokio::spawn(async move {
        let mut events = Box::pin(watcher(pods, watcher::Config::default()).default_backoff());
        while let Some(event) = events.next().await {
            let (pod, is_there) = match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => (pod, true),
                Ok(watcher::Event::Delete(pod)) => (pod, false),
                _ => continue,
            };
            sender.send_modify(|slots| {
                if is_there && holds(&pod) {
                    slots.held.insert(pod.name_any());
                } else {
                    slots.held.remove(&pod.name_any());
                }
                slots.most = slots.most.max(slots.held.len());
            });
        }
    });
    (slots, counting)
}

/// A world whose home is full, with pods that home has refused.
async fn refused(pods: usize) -> World {
    let world = World::without_operator(Options::default(), AzureOptions::default()).await;
    world.home_node("home-a").await;
    for name in ["first", "second"] {
        let resources = json!({"requests": {"cpu": "2", "memory": "1Gi"}});
        let full = json!({
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "main", "image": "nginx", "resources": resources}]},
        });
        world.create(full).await;
        world.until_pod(name, "home to be full", is_running).await;
    }
    let resources = json!({"requests": {"cpu": "500m", "memory": "512Mi"}});
    let waits = |number: usize| {
        let pod = json!({
            "metadata": {"name": format!("web-{number}"), "labels": {"app": "web"}},
            "spec": {"automountServiceAccountToken": false, "enableServiceLinks": false,
                "containers": [{"name": "main", "image": "nginx", "resources": resources}]},
        });
        world.create(pod)
    };
    let created: Vec<Pod> = futures::stream::iter(0..pods)
        .map(waits)
        .buffer_unordered(16)
        .collect()
        .await;
    assert_eq!(created.len(), pods);
    let all = |seen: &[Pod]| seen.iter().filter(|pod| objects::is_refused(pod)).count() == pods;
    let config = watcher::Config::default().labels("app=web");
    let refused = wait::until_all(world.pods(), config, "home to refuse them", all).await;
    refused.expect("they are refused");
    world
}

impl World {
    /// A pool of these pods, none of which may be on ACI yet; returns when it takes pods.
    async fn add_empty_pool(&self) {
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "shop"},
            "spec": {
                "azure": {}, "placements": [{"name": "weu", "region": "westeurope"}],
                "workloads": [{"name": "web", "selector": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                    "podSelector": {"matchLabels": {"app": "web"}}}}],
                "spill": {"after": "1s", "maxReplicas": 0, "rate": {"pods": 1000, "per": "1m"}},
            },
        });
        let pool: BurstPool = serde_json::from_value(pool).expect("a pool");
        let created = self.pools().create(&PostParams::default(), &pool).await;
        created.expect("a pool");
        let usable = |node: Option<&Node>| {
            node.is_some_and(|node| objects::is_ready(node) && !is_closed(node))
        };
        self.until_node(NODE, "the node to take pods", usable).await;
    }

    async fn raise(&self, most: usize) {
        let patch = Patch::Merge(json!({"spec": {"spill": {"maxReplicas": most}}}));
        let raised = self
            .pools()
            .patch("shop", &PatchParams::default(), &patch)
            .await;
        raised.expect("the maximum is raised");
    }

    /// Who leads the pool, as soon as it is somebody else than `other`.
    async fn leader(&self, other: Option<&str>, instances: &[&Instance]) -> String {
        let found = wait::get(
            self.pools(),
            "shop",
            "a leader",
            |pool: Option<&BurstPool>| {
                let leader = pool?.status.as_ref()?.leader.clone()?;
                (Some(leader.as_str()) != other).then_some(leader)
            },
        );
        match found.await {
            Ok(leader) => leader,
            Err(error) => {
                let tails: Vec<String> = instances.iter().map(|one| one.tail()).collect();
                unreachable!("{error}\n{}", tails.join("\n---\n"))
            }
        }
    }

    /// Returns as soon as something is reserved.
    async fn until_reserved(&self) {
        self.until_pool("shop", "a reservation", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| !status.reservations.is_empty())
        })
        .await;
    }

    /// Returns when nothing is reserved, and so many are granted as far as the pool knows.
    async fn until_settled(&self, granted: usize) {
        self.until_pool("shop", "the pool to be at rest", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let counts = status.pods.unwrap_or_default();
                status.reservations.is_empty()
                    && usize::try_from(counts.granted + counts.spilled) == Ok(granted)
            })
        })
        .await;
    }
}

/// Waits until `number` pods hold a slot, and checks that there never were more.
async fn exactly(number: usize, slots: &mut watch::Receiver<Slots>, instance: &Instance) {
    let full = slots.wait_for(|slots| slots.held.len() >= number);
    let full = tokio::time::timeout(wait::DEADLINE, full).await.is_ok();
    let seen = slots.borrow().clone();
    assert!(
        full,
        "{} hold a slot:\n{}",
        seen.held.len(),
        instance.tail()
    );
    assert_eq!((seen.held.len(), seen.most), (number, number));
}

#[tokio::test]
async fn a_leader_that_is_killed_while_it_grants_leaves_exactly_as_many_to_be_granted() {
    let world = refused(PODS).await;
    let (mut slots, counting) = count(world.pods());
    let mut first = world.instance("log-0");
    world.add_empty_pool().await;
    let mut leader = world.leader(None, &[&first]).await;
    for (step, most) in STEPS.into_iter().enumerate() {
        let before = slots.borrow().held.len();
        let second = world.instance(&format!("log-{}", step + 1));
        world.raise(most).await;
        let granting = slots.wait_for(|slots| slots.held.len() > before);
        let granting = tokio::time::timeout(wait::DEADLINE, granting).await;
        assert!(granting.is_ok_and(|seen| seen.is_ok()), "{}", first.tail());
        first.signal("KILL").await;
        first.ended().await;
        let (killed, at) = (slots.borrow().held.len(), Instant::now());
        leader = world.leader(Some(&leader), &[&second]).await;
        let took = at.elapsed();
        eprintln!("killed at {killed} of {most}; another leads after {took:?}");
        assert!(took < TAKEOVER, "{took:?}");
        exactly(most, &mut slots, &second).await;
        world.until_settled(most).await;
        exactly(most, &mut slots, &second).await;
        first = second;
    }
    counting.abort();
    drop(first);
    world.end().await;
}

#[tokio::test]
async fn a_leader_that_was_frozen_over_its_lease_between_reserving_and_granting_exceeds_nothing() {
    let world = refused(PODS).await;
    let (mut slots, counting) = count(world.pods());
    let mut first = world.instance("log-0");
    world.add_empty_pool().await;
    let mut leader = world.leader(None, &[&first]).await;
    for (step, most) in STEPS.into_iter().enumerate() {
        let second = world.instance(&format!("log-{}", step + 1));
        let reserved = world.until_reserved();
        tokio::join!(world.raise(most), reserved);
        first.signal("STOP").await;
        let frozen = slots.borrow().held.len();
        leader = world.leader(Some(&leader), &[&second]).await;
        first.signal("CONT").await;
        eprintln!("frozen at {frozen} of {most}");
        exactly(most, &mut slots, &second).await;
        let (ended, said) = (first.ended().await, first.tail());
        assert!(
            !ended.success() && said.contains("another process leads now"),
            "it says that it has lost the lead: {ended}\n{said}"
        );
        world.until_settled(most).await;
        exactly(most, &mut slots, &second).await;
        // The frozen one has taken nothing from its successor.
        assert_eq!(world.leader(None, &[&second]).await, leader);
        first = second;
    }
    counting.abort();
    drop(first);
    world.end().await;
}

/// Names of pods and nodes, and when they were first seen not to be Ready after they had been.
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

/// Notes when each object was first seen not to be ready.
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

/// Returns when somebody has renewed the node's lease later than so long after `at`.
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
    // It must be waiting for the lease, not only starting.
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
