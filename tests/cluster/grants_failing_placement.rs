//! A placement whose pods do not start: it closes, its pods are replaced, one probe pod opens it; and
//! failures of a single pod.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::own_nodes::{AWAY, deployment, is_granted, selected, target, template, waiting};
use crate::support::{objects, wait};
use crate::world::{World, is_closed, is_running, said};

const FULL: &str = "No machines are left in this region.";

/// Makes Azure reject all creates, or with `group` only those of groups with another prefix.
async fn refuse(world: &World, group: Option<&str>, code: &str, status: u16, message: &str) {
    let error = json!({"status": status, "code": code, "message": message});
    let mut rule =
        json!({"operation": "ContainerGroups_CreateOrUpdate", "fault": {"error": error}});
    if let Some(group) = group {
        rule["group"] = group.into();
    }
    world.admin("faults", &rule).await;
}

/// Makes a pod look as if it had been bound ten minutes ago.
async fn age(world: &World, name: &str) {
    let then = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(10);
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": then.to_string()});
    let patch: Patch<Value> = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let aged = world
        .pods()
        .patch_status(name, &PatchParams::default(), &patch)
        .await;
    aged.expect("it is written");
}

fn is_away(pod: &Pod) -> bool {
    objects::node_of(pod) == Some(AWAY)
}

/// Waits until a pod of each workload waits only because the pool's limit is 0.
async fn until_both_wait_for_the_limit(world: &World) {
    world
        .until_pool("shop", "both to wait for the limit alone", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let mut workloads = status.workloads.iter();
                workloads.len() == 2
                    && workloads.all(|one| one.holding == 1 && one.message.contains("maxReplicas"))
            })
        })
        .await;
}

/// Waits until two pods of `web` wait for the placement, with an Event that says why.
async fn until_others_wait(world: &World) {
    world
        .until_pool("shop", "others to wait for the placement", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                status.workloads[0].holding >= 2 && status.workloads[0].message.contains(FULL)
            })
        })
        .await;
    let two_wait = |pods: &[Pod]| waiting(pods).len() == 2;
    for name in waiting(&world.until_pods("web", "two to wait", two_wait).await) {
        world.until_told(&name, "PlacementClosed", FULL).await;
    }
}

/// A pod that has not started for a long time is replaced if that costs its owner nothing, or else reported.
async fn assert_replaced_or_reported(world: &World, stuck: &str, job: &str) {
    // A ReplicaSet replaces its pod, which may fit at home. A Job would count a failure.
    age(world, job).await;
    age(world, stuck).await;
    let replaced = |pods: &[Pod]| {
        pods.len() == 3
            && pods
                .iter()
                .all(|pod| pod.name_any() != stuck && !is_granted(pod))
    };
    world
        .until_pods("web", "the stuck one to be replaced", replaced)
        .await;
    world.until_told(job, "NeverStarted", FULL).await;
    assert!(world.pods().get(job).await.is_ok());
    // Now the Job may have a failure.
    let more = r#"{"spec": {"backoffLimit": 3}}"#;
    world.kubectl(&["patch", "job", "job", "--type=merge", "-p", more]);
    let another = |pods: &[Pod]| {
        let mut others = pods.iter().filter(|pod| pod.name_any() != job);
        others.any(|pod| pod.metadata.deletion_timestamp.is_none())
    };
    world
        .until_pods("job", "the Job to make another", another)
        .await;
    let evicted = "its Job creates a replacement";
    world.until_told(job, "NeverStarted", evicted).await;
}

/// Waits until a pod of `web` runs, and asserts that no other was sent before.
async fn assert_one_probe_runs_first(world: &World) {
    let at_once = AtomicUsize::new(0);
    let first_runs = |pods: &[Pod]| {
        let granted = pods.iter().filter(|pod| is_granted(pod));
        let started = granted.clone().filter(|pod| is_running(Some(pod))).count();
        if started == 0 {
            at_once.fetch_max(granted.count(), Ordering::Relaxed);
        }
        started > 0
    };
    world.until_pods("web", "a probe to run", first_runs).await;
    assert!(at_once.into_inner() <= 1, "more than one was sent to see");
}

#[tokio::test]
async fn a_placement_without_capacity_closes_its_pods_are_rescued_and_one_probe_opens_it() {
    let changes =
        json!({"workloads": [target("web", "web"), selected("job")], "spill": {"maxReplicas": 0}});
    let world = World::with_full_home(&changes).await;
    refuse(&world, None, "ServiceUnavailable", 409, FULL).await;
    world.deploy(1).await;
    let mut pods = template("job");
    pods["spec"]["restartPolicy"] = "Never".into();
    let job = json!({"metadata": {"name": "job"}, "spec": {"backoffLimit": 0, "template": pods}});
    let _: Job = world.make(job).await;
    // Both must be granted at the same time: a result of the first would hold back the second.
    until_both_wait_for_the_limit(&world).await;
    world
        .change_pool(&json!({"spill": {"maxReplicas": 10}}))
        .await;
    let bound = |pods: &[Pod]| pods.len() == 1 && is_away(&pods[0]);
    let stuck = world.until_pods("web", "a pod to be bound", bound).await[0].name_any();
    world
        .until_pool("shop", "the pool to say why nothing starts", |pool| {
            pool.is_some_and(|pool| {
                let (nodes, why) = said(pool, "NodesReady");
                nodes == "False" && why.contains(FULL) && said(pool, "Ready").0 == "True"
            })
        })
        .await;
    world
        .until_node(AWAY, "the node to be closed", |node| {
            node.is_some_and(is_closed)
        })
        .await;
    let job = until_job_has_a_pod(&world).await;
    world.scale(3).await;
    until_others_wait(&world).await;
    assert_replaced_or_reported(&world, &stuck, &job).await;

    // Without the Job, nothing on the node retries, and a pending pod becomes the probe.
    world.kubectl(&["delete", "job", "job"]);
    world
        .until_pod(&job, "the Job's pod to be gone", |pod| pod.is_none())
        .await;
    world.no_faults().await;
    until_open(&world).await;
    assert_one_probe_runs_first(&world).await;
    world.until_spread(0, 3, 0).await;
    world
        .until_pool("shop", "the placement to be open", |pool| {
            pool.is_some_and(|pool| said(pool, "NodesReady").0 == "True")
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn a_pod_without_room_in_a_placement_waits_with_a_reason_until_the_placement_grows() {
    let sized = |cpu: &str| {
        let capacity = json!({"cpu": cpu, "memory": "16Gi", "pods": 10});
        json!({"placements": [{"name": "weu", "region": "westeurope", "capacity": capacity}]})
    };
    let world = World::with_full_home(&sized("3")).await;
    world.deploy(2).await;
    for name in waiting(&world.until_spread(0, 1, 1).await) {
        let why = "no placement that can run it has enough cpu left";
        world.until_told(&name, "NoRoom", why).await;
    }
    world.change_pool(&sized("4")).await;
    world.until_spread(0, 2, 0).await;
    world.end().await;
}

/// Waits until the node takes pods. A second closing lasts as long as one wait.
async fn until_open(world: &World) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let is_open = |node: Option<&Node>| node.is_some_and(|node| !is_closed(node));
    let what = "the node to take a pod";
    if wait::until(nodes, AWAY, what, is_open).await.is_err() {
        world.until_node(AWAY, what, is_open).await;
    }
}

async fn until_job_has_a_pod(world: &World) -> String {
    let bound = |pods: &[Pod]| pods.len() == 1 && is_away(&pods[0]);
    let pods = world
        .until_pods("job", "the Job's pod to be bound", bound)
        .await;
    pods[0].name_any()
}

#[tokio::test]
async fn a_template_that_azure_refuses_is_not_granted_again_and_others_go_on() {
    let changes = json!({"workloads": [target("web", "web"), target("bad", "bad")]});
    let world = World::with_full_home(&changes).await;
    let (code, why) = (
        "PriorityNotSpecified",
        "This template is not to Azure's taste.",
    );
    refuse(&world, Some("default-bad-"), code, 400, why).await;
    world.deploy_this(&deployment("bad", 1)).await;
    let refused = |pods: &[Pod]| {
        let status = serde_json::to_string(&pods.first().and_then(|pod| pod.status.clone()));
        status.is_ok_and(|status| status.contains(why))
    };
    world
        .until_pods("bad", "Azure to refuse one", refused)
        .await;
    world.scale_this("bad", 3).await;
    world.until_counted("bad", (0, 0, 1, 2)).await;
    world.deploy(2).await;
    world.until_spread(0, 2, 0).await;
    world
        .until_pool("shop", "the pool to tell the two apart", |pool| {
            pool.is_some_and(|pool| {
                let workloads = &pool.status.as_ref().expect("a status").workloads;
                said(pool, "NodesReady").0 == "True"
                    && workloads[1].message.contains(why)
                    && workloads[0].message.is_empty()
            })
        })
        .await;
    world.end().await;
}

/// A Deployment of pods that request less than the minimum size of a container group.
fn small(replicas: i32) -> k8s_openapi::api::apps::v1::Deployment {
    let mut small = deployment("web", replicas);
    let pod = small.spec.template.spec.as_mut();
    for container in &mut pod.expect("a template").containers {
        let requests =
            serde_json::from_value(json!({"requests": {"cpu": "250m", "memory": "64Mi"}}));
        container.resources = Some(requests.expect("resources"));
    }
    small
}

/// Waits until both placements are open, and say that the right `usages` is missing.
async fn until_quotas_unread(world: &World, usages: &str) {
    world
        .until_pool(
            "shop",
            "the pool to say that quotas cannot be read",
            |pool| {
                let status = pool.and_then(|pool| pool.status.as_ref());
                status.is_some_and(|status| {
                    let mut placements = status.placements.iter();
                    placements.len() == 2
                        && placements.all(|one| one.ready && one.message.contains(usages))
                })
            },
        )
        .await;
}

async fn until_quotas_read(world: &World, usages: &str) {
    world
        .until_pool("shop", "the quotas to be read", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                status
                    .placements
                    .iter()
                    .all(|one| !one.message.contains(usages))
            })
        })
        .await;
}

/// While Azure asks to wait for ten minutes, bound pods are given back, and no more are sent there.
async fn assert_returned_while_azure_asks_to_wait(world: &World) {
    world.scale(0).await;
    world.until_spread(0, 0, 0).await;
    let error = json!({"status": 429, "code": "TooManyRequests", "retryAfter": 600});
    let rule = json!({"operation": "ContainerGroups_CreateOrUpdate", "fault": {"error": error}});
    world.admin("faults", &rule).await;
    world.scale(1).await;
    let bound = |pods: &[Pod]| pods.len() == 1 && objects::node_of(&pods[0]).is_some();
    let stuck = world.until_pods("web", "a pod to be bound", bound).await[0].name_any();
    let words = "Azure asks to wait with creating container groups in region 'westeurope'";
    world
        .until_pool("shop", "both placements to be closed", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let mut placements = status.placements.iter();
                placements.all(|one| !one.ready && one.message.contains(words))
            })
        })
        .await;
    world.scale(3).await;
    let two_wait = |pods: &[Pod]| waiting(pods).len() == 2;
    for name in waiting(&world.until_pods("web", "two to wait", two_wait).await) {
        world.until_told(&name, "PlacementClosed", words).await;
    }
    age(world, &stuck).await;
    let replaced =
        |pods: &[Pod]| waiting(pods).len() == 3 && pods.iter().all(|pod| pod.name_any() != stuck);
    world
        .until_pods("web", "the stuck one to be replaced", replaced)
        .await;
}

#[tokio::test]
async fn no_more_is_bound_than_azure_starts_and_what_it_lets_wait_is_given_back() {
    let azure = burstpool::emulator::EmulatorOptions {
        speed: 20.0,
        quotas: [("StandardCores".to_owned(), 5)].into(),
        ..burstpool::emulator::EmulatorOptions::default()
    };
    let world = Box::pin(World::with(azure)).await;
    // Both are in the same region. At first the operator may not read its usages.
    let usages = "Microsoft.ContainerInstance/locations/usages/read";
    let withheld = |actions: &[&str]| {
        let actions = actions.iter().map(|action| action.to_lowercase());
        world.azure.shared().store().withheld = actions.collect();
    };
    withheld(&[usages]);
    let placements =
        json!([{"name": "weu", "region": "westeurope"}, {"name": "two", "region": "westeurope"}]);
    let changes = json!({"placements": placements, "spill": {"maxReplicas": 20}});
    world.furnish(&changes).await;
    for n in 0..4 {
        let name = format!("filler-{n}");
        world
            .create(crate::own_nodes::pod("filler", &name, &json!({})))
            .await;
    }
    world.until_spread_of("filler", 4, 0, 0).await;
    until_quotas_unread(&world, usages).await;
    withheld(&[]);
    until_quotas_read(&world, usages).await;

    // Each small pod counts as one core on any placement.
    world.deploy_this(&small(12)).await;
    for name in waiting(&world.until_spread(0, 5, 7).await) {
        let events = "no placement that can run it has enough";
        let told = world.until_told(&name, "NoRoom", events);
        let closed = world.until_told(&name, "PlacementClosed", "is used up: 5 of 5");
        tokio::select! { () = told => {}, () = closed => {} }
    }
    assert_eq!(world.puts(), 5, "none was refused for the quota");
    assert_returned_while_azure_asks_to_wait(&world).await;
    world.end().await;
}
