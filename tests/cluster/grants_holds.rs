//! Holds: which refusals of the real scheduler start one, when it starts, and that it survives a
//! restart.

use burstpool::api::BurstPool;
use burstpool::api::names::PROVIDER_TAINT;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::own_nodes::{is_granted, marks, pod, selected, time};
use crate::support::{objects, wait};
use crate::world::World;

/// A hold that outlasts every test.
const LONG: &str = "20m";

/// A pool with the workloads `short`, with a hold of three seconds, and `long`, with a hold of
/// [`LONG`].
fn two_holds() -> serde_json::Value {
    let mut long = selected("long");
    long["spill"] = json!({"after": LONG});
    json!({"workloads": [selected("short"), long], "spill": {"after": "3s"}})
}

#[tokio::test]
async fn a_hold_counts_from_the_refusal_and_not_from_a_gate_and_outlives_the_operator() {
    let mut world = World::with_full_home(&two_holds()).await;
    let gated = json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}});
    for (app, name) in [("short", "gated"), ("long", "kept"), ("short", "never")] {
        world.create(pod(app, name, &gated)).await;
    }

    // When this pod's hold is over, so would be those of the pods created before.
    world.create(pod("short", "witness", &json!({}))).await;
    world.until_away("witness").await;
    let ungate = json!({"spec": {"schedulingGates": null}});
    let opened = jiff::Timestamp::now();
    for name in ["gated", "kept"] {
        let before = world.pods().get(name).await.expect("the pod");
        assert_eq!(marks(&before).len(), 0, "{name} was written to at its gate");
        world.change_pod(name, &ungate).await;
    }
    let granted = world.until_away("gated").await;
    let since = time(&granted, "burstpool.io/refused-since");
    let at = time(&granted, "burstpool.io/granted-at");
    assert!(since >= opened, "refused since {since}, opened {opened}");
    assert!(at.duration_since(since).as_secs() >= 3, "{since} {at}");

    // The operator relies on the annotation after a restart. With an older time there, the hold is
    // over at once.
    let stamped = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.annotations().contains_key("burstpool.io/refused-since"))
    };
    world.until_pod("kept", "a stamp", stamped).await;
    world.create(pod("long", "plain", &json!({}))).await;
    world.until_refused("plain").await;
    world.until_counted("long", (2, 0, 0, 0)).await;
    world.kill_and_forget().await;
    let stamp = json!({"metadata": {"annotations": {"burstpool.io/refused-since": "2026-01-01T00:00:00Z"}}});
    world.change_pod("kept", &stamp).await;
    world.run();
    world.until_away("kept").await;
    world.until_counted("long", (1, 0, 1, 0)).await;
    for name in ["plain", "never"] {
        let pod = world.pods().get(name).await.expect("the pod");
        assert!(!is_granted(&pod), "{name} was granted");
    }

    // A node that appears during the hold takes the pods, and none is granted.
    world.home_node("autoscaled").await;
    let home = |pod: Option<&Pod>| pod.and_then(objects::node_of) == Some("autoscaled");
    world
        .until_pod("plain", "the pod to be at home", home)
        .await;
    let plain = world.pods().get("plain").await.expect("the pod");
    assert_eq!(marks(&plain).len(), 0);
    world.end().await;
}

/// When the scheduler refused a pod, according to its condition.
fn refused_at(pod: &Pod) -> Option<jiff::Timestamp> {
    let mut all = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let refused = all.find(|one| one.type_ == "PodScheduled" && one.status == "False");
    Some(refused?.last_transition_time.as_ref()?.0)
}

/// This does not measure speed: the operator plans every 30 s in any case. A grant that comes 15 s
/// after its hold or later shows that the end of the hold did not trigger a plan.
#[tokio::test]
async fn a_pod_is_granted_at_the_end_of_its_hold_without_other_changes_despite_clock_skew() {
    let mut eight = selected("eight");
    eight["spill"] = json!({"after": "8s"});
    let mut world = World::with_full_home(&json!({"workloads": [eight]})).await;
    for (name, shift) in [("exact", 0), ("behind", -90), ("ahead", 90)] {
        if shift != 0 {
            let before = leader(&world).await;
            world.kill_and_forget().await;
            world.arguments = vec![format!("--clock-shift={shift}")];
            world.run();
            let leads = |pool: Option<&BurstPool>| {
                let leader = pool.and_then(|pool| pool.status.as_ref()?.leader.clone());
                leader.is_some() && leader != before
            };
            world.until_pool("shop", "another leader", leads).await;
        }
        let refused = wait::get(world.pods(), name, "its refusal", |pod: Option<&Pod>| {
            pod.and_then(refused_at)
        });
        let created = world.create(pod("eight", name, &json!({})));
        let (refused, _) = tokio::join!(refused, created);
        let refused = refused.expect("it is refused");
        let granted = world.until_away(name).await;
        let held = time(&granted, "burstpool.io/granted-at").duration_since(refused);
        // Both times have whole seconds.
        let late = held.as_millis() - 8000;
        assert!((-1100..15_000).contains(&late), "{name}: held for {held}");
        let log = std::fs::read_to_string(world.log()).expect("its log");
        let is_told = log.contains("this machine's clock is ahead of the API server's");
        assert_eq!(is_told, shift != 0, "{name}");
    }
    world.end().await;
}

/// The identity of the pool's leader.
async fn leader(world: &World) -> Option<String> {
    let pool = world.pools().get("shop").await.expect("the pool");
    pool.status.and_then(|status| status.leader)
}

#[tokio::test]
async fn what_waits_for_its_victims_is_deleted_or_is_another_schedulers_is_not_granted() {
    let world = World::with_home(&two_holds()).await;
    let classes: Api<PriorityClass> = Api::all(world.client.clone());
    let urgent = json!({"metadata": {"name": "urgent"}, "value": 1000});
    let urgent = serde_json::from_value(urgent).expect("a PriorityClass");
    classes
        .create(&PostParams::default(), &urgent)
        .await
        .expect("a PriorityClass");
    // The finalizer keeps the pods at home until the test removes it.
    let lingers = json!({"metadata": {"finalizers": ["example.com/wait"]}});
    for n in 0..4 {
        world
            .create(pod("filler", &format!("filler-{n}"), &lingers))
            .await;
    }
    world.until_spread_of("filler", 4, 0, 0).await;

    let important = json!({"spec": {"priorityClassName": "urgent"}});
    world.create(pod("short", "urgent", &important)).await;
    world
        .until_pod("urgent", "a nomination", |pod| {
            let status = pod.and_then(|pod| pod.status.as_ref());
            status.is_some_and(|status| status.nominated_node_name.is_some())
        })
        .await;
    let foreign = json!({"spec": {"schedulerName": "another"}});
    world.create(pod("short", "foreign", &foreign)).await;
    let refused = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False",
        "reason": "Unschedulable", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let refused = kube::api::Patch::Merge(refused);
    world
        .pods()
        .patch_status("foreign", &kube::api::PatchParams::default(), &refused)
        .await
        .expect("the other scheduler refuses it");
    world
        .until_told("foreign", "CannotSpill", "schedulerName")
        .await;
    world.create(pod("short", "leaving", &lingers)).await;
    world.until_refused("leaving").await;
    world.delete_pod("leaving").await;

    world.create(pod("short", "witness", &json!({}))).await;
    world.until_away("witness").await;
    // One pod is held, one is not for this pool, and the one being deleted does not count.
    world.until_counted("short", (1, 0, 1, 1)).await;
    for name in ["urgent", "foreign", "leaving"] {
        let pod = world.pods().get(name).await.expect("the pod");
        assert!(!is_granted(&pod), "{name} was granted");
    }

    let free = json!({"metadata": {"finalizers": null}});
    for n in 0..4 {
        world.change_pod(&format!("filler-{n}"), &free).await;
    }
    let home = |pod: Option<&Pod>| {
        pod.and_then(objects::node_of)
            .is_some_and(|node| node.starts_with("home-"))
    };
    world
        .until_pod("urgent", "the pod to be at home", home)
        .await;
    let urgent = world.pods().get("urgent").await.expect("the pod");
    assert_eq!(marks(&urgent).len(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_pod_that_a_deleted_pool_granted_is_granted_by_its_present_pool() {
    let world = World::with_full_home(&two_holds()).await;
    let at = "2026-01-01T00:00:00Z";
    let left = json!({
        "metadata": {
            "labels": {"burstpool.io/pool": "gone"},
            "annotations": {"burstpool.io/workload": "web", "burstpool.io/granted-at": at},
        },
        "spec": {"tolerations": [{"key": PROVIDER_TAINT, "operator": "Equal", "value": "gone"}]},
    });
    world.create(pod("short", "left", &left)).await;
    let granted = world.until_away("left").await;
    assert_eq!(granted.labels()["burstpool.io/pool"], "shop");
    assert_ne!(granted.annotations()["burstpool.io/granted-at"], at);
    world.until_told("left", "Granted", "").await;
    world.until_counted("short", (0, 0, 1, 0)).await;
    world.end().await;
}
