//! The cluster's own nodes come first: before a grant, between grant and binding, and for pods that ACI cannot run.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::own_nodes::{
    AWAY, deployment, grants, holds_a_slot, is_granted, marks, pod, selected, target, waiting,
};
use crate::support::{Component, objects, wait};
use crate::world::{World, said};

#[tokio::test]
async fn what_finds_room_at_home_is_never_granted() {
    let world = World::with_home(&json!({})).await;
    world.deploy(2).await;
    world.until_spread(2, 0, 0).await;
    world.scale(4).await;
    let pods = world.until_spread(4, 0, 0).await;
    assert!(pods.iter().all(|pod| marks(pod).is_empty()));
    assert_eq!(world.puts(), 0);
    world.end().await;
}

/// A large home node that takes at most this many pods. The virtual node's taint is a preference that
/// the scheduler weighs against other scores, so a home node that is nearly full might lose.
async fn roomy_home_node(world: &World, name: &str, pods: u32) {
    let mut node = objects::kwok_node(name, "64", "64Gi", &[]);
    let status = node.status.as_mut().expect("a status");
    for room in [&mut status.capacity, &mut status.allocatable] {
        let room = room.as_mut().expect("it has room");
        room.get_mut("pods").expect("for pods").0 = pods.to_string();
    }
    let nodes: Api<Node> = Api::all(world.client.clone());
    let created = nodes.create(&PostParams::default(), &node).await;
    created.expect("a home node");
    let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
    world.until_node(name, "a home node", ready).await;
}

#[tokio::test]
async fn grants_on_their_way_count_and_one_that_lands_home_frees_its_slot() {
    let world = World::with_home(&json!({"spill": {"after": "4s", "maxReplicas": 2}})).await;
    world.deploy(8).await;
    let refused = |pods: &[Pod]| pods.iter().filter(|pod| objects::is_refused(pod)).count() == 4;
    world.until_pods("web", "4 to be refused", refused).await;
    // Without the scheduler, granted pods stay unbound.
    let stopped = world.cluster.stop(Component::Scheduler).await;
    stopped.expect("the scheduler ends");
    world.until_counted("web", (2, 2, 0, 0)).await;
    world
        .until_pool("shop", "the limit to be said", |pool| {
            pool.is_some_and(|pool| said(pool, "CapacityLimited").0 == "True")
        })
        .await;
    // A grant may be counted before it is written.
    let labelled = watcher::Config::default().labels("burstpool.io/pool");
    let two = |pods: &[Pod]| pods.len() == 2;
    let granted = wait::until_all(world.pods(), labelled, "two to be granted", two).await;
    let granted = granted.expect("they are granted");
    let granted: Vec<String> = granted.iter().map(Pod::name_any).collect();

    // A home node appears with room for the granted and the pending pods, because the scheduler's
    // order is not known: home wins, although the virtual node would take two.
    roomy_home_node(&world, "home-c", 4).await;
    let started = world.cluster.restart(Component::Scheduler).await;
    started.expect("the scheduler starts");
    world.until_spread(8, 0, 0).await;
    world.until_counted("web", (0, 0, 0, 0)).await;
    for name in &granted {
        let pod = world.pods().get(name).await.expect("the pod");
        assert!(is_granted(&pod));
        assert!(
            !pod.annotations()
                .keys()
                .any(|key| key.ends_with("pod-deletion-cost"))
        );
    }
    // The slots of pods that landed at home are free.
    world.scale(11).await;
    world.until_spread(8, 2, 1).await;
    world.until_counted("web", (1, 0, 2, 0)).await;
    world.end().await;
}

/// Pods that ACI or its node cannot run: name, changes and a part of the message.
const ODD: [(&str, &str, &str); 8] = [
    (
        "selects",
        r#"{"spec": {"nodeSelector": {"agentpool": "x"}}}"#,
        "nodeSelector",
    ),
    (
        "spreads",
        r#"{"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "odd"}}}]}}"#,
        "topologySpreadConstraints",
    ),
    (
        "network",
        r#"{"spec": {"hostNetwork": true}}"#,
        "hostNetwork",
    ),
    (
        "path",
        r#"{"spec": {"volumes": [{"name": "host", "hostPath": {"path": "/var"}}]}}"#,
        "hostPath",
    ),
    (
        "large",
        r#"{"spec": {"containers": [{"name": "main", "image": "nginx", "resources": {"requests": {"cpu": "64", "memory": "1Gi"}}}]}}"#,
        "64 CPU",
    ),
    (
        "gpu",
        r#"{"spec": {"containers": [{"name": "main", "image": "nginx",
            "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"nvidia.com/gpu": "1"}}}]}}"#,
        "nvidia.com/gpu",
    ),
    (
        "port",
        r#"{"spec": {"containers": [{"name": "main", "image": "nginx", "ports": [{"containerPort": 80, "hostPort": 80}],
            "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}]}}"#,
        "hostPort",
    ),
    (
        "privileged",
        r#"{"spec": {"containers": [{"name": "main", "image": "nginx", "securityContext": {"privileged": true},
            "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}]}}"#,
        "privileged",
    ),
];

#[tokio::test]
async fn what_aci_or_its_node_cannot_take_is_refused_by_name() {
    let zone = json!({"topology.kubernetes.io/zone": "aci"});
    let changes = json!({"workloads": [selected("odd"), selected("even")],
        "placements": [{"name": "weu", "region": "westeurope", "labels": zone}]});
    let world = World::with_full_home(&changes).await;
    let cases = ODD.map(|(name, changes, field)| {
        let changes: Value = serde_json::from_str(changes).expect(changes);
        (name, changes, field)
    });
    for (name, changes, _) in &cases {
        world.create(pod("odd", name, changes)).await;
    }
    world.create(pod("even", "plain", &json!({}))).await;
    // No pod matches the required affinity. That may change.
    let term = json!({"topologyKey": "topology.kubernetes.io/zone",
        "labelSelector": {"matchLabels": {"app": "none"}}});
    let together = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
    let lonely = json!({"spec": {"affinity": {"podAffinity": together}}});
    world.create(pod("odd", "lonely", &lonely)).await;
    for (name, _, field) in &cases {
        world.until_told(name, "CannotSpill", field).await;
    }
    let told = "spec.affinity.podAffinity";
    world.until_told("lonely", "ConstraintNotMet", told).await;
    world.until_away("plain").await;
    world.until_counted("odd", (1, 0, 0, 8)).await;
    for (name, ..) in &cases {
        let pod = world.pods().get(name).await.expect("the pod");
        assert!(
            objects::is_refused(&pod) && !is_granted(&pod),
            "{name} was granted"
        );
    }
    let company = json!({"metadata": {"labels": {"app": "none"}}, "spec": {"nodeName": AWAY}});
    world.create(pod("none", "company", &company)).await;
    world.until_away("lonely").await;
    world.end().await;
}

#[tokio::test]
async fn tolerations_that_are_there_stay_and_those_of_users_need_no_grant() {
    let changes = json!({"workloads": [selected("web"), selected("own")]});
    let world = World::with_full_home(&changes).await;
    let key = "virtual-kubelet.io/provider";
    let other = json!({"key": key, "operator": "Equal", "value": "azure", "effect": "NoSchedule"});
    let tolerates = json!({"spec": {"tolerations": [other]}});
    world.create(pod("web", "conflict", &tolerates)).await;
    let exists = json!({"spec": {"tolerations": [{"key": key, "operator": "Exists"}]}});
    world.create(pod("own", "own", &exists)).await;

    let conflict = world.until_away("conflict").await;
    assert_eq!(grants(&conflict), 1);
    let tolerations = conflict.spec.and_then(|spec| spec.tolerations);
    let tolerations = serde_json::to_value(tolerations).expect("JSON");
    assert_eq!(tolerations[0], other, "{tolerations}");
    let own = world.until_away("own").await;
    assert!(!is_granted(&own));
    world
        .until_pool("shop", "the pool to count both apart", |pool| {
            let counts = pool.and_then(|pool| pool.status.as_ref()?.pods);
            counts.is_some_and(|counts| (counts.spilled, counts.user_placed) == (1, 1))
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn a_cordoned_virtual_node_gets_nothing_and_its_pods_stay() {
    let world = World::with_home(&json!({})).await;
    world.deploy(5).await;
    world.until_spread(4, 1, 0).await;
    world.kubectl(&["cordon", AWAY]);
    world.scale(7).await;
    world
        .until_pool("shop", "the pool to say why pods wait", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                status.workloads[0].holding == 2 && status.workloads[0].message.contains("cordon")
            })
        })
        .await;
    let pods = world.until_spread(4, 1, 2).await;
    assert_eq!(pods.iter().filter(|pod| holds_a_slot(pod)).count(), 1);
    for name in waiting(&pods) {
        world.until_told(&name, "PlacementClosed", "cordon").await;
    }
    world.kubectl(&["uncordon", AWAY]);
    world.until_spread(4, 3, 0).await;

    // A deleted node comes back, and takes pods again.
    world.kubectl(&["delete", "node", AWAY]);
    world.scale(8).await;
    world.until_spread(4, 4, 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_pod_that_others_write_all_the_time_is_granted_once() {
    let world = World::with_home(&json!({})).await;
    world.deploy(8).await;
    let writes = async {
        let mut n = 0_u64;
        loop {
            let all = world.pods().list(&ListParams::default()).await;
            for pod in all.expect("a list").items {
                let note = json!({"metadata": {"annotations": {"example.com/n": n.to_string()}}});
                world.change_pod(&pod.name_any(), &note).await;
                n += 1;
            }
        }
    };
    let pods = tokio::select! {
        pods = world.until_spread(4, 4, 0) => pods,
        () = writes => unreachable!("it goes on"),
    };
    for pod in pods
        .iter()
        .filter(|pod| objects::node_of(pod) == Some(AWAY))
    {
        assert_eq!(grants(pod), 1);
    }
    world.end().await;
}

#[tokio::test]
async fn an_hpas_replicas_spill_up_to_a_percentage_and_no_foreign_object_is_written() {
    let options = crate::support::Options {
        controller_manager: &["--horizontal-pod-autoscaler-sync-period=1s"],
        ..crate::support::Options::default()
    };
    let world = World::on(options).await;
    world
        .furnish(&json!({"spill": {"maxReplicas": "20%"}}))
        .await;
    world.deploy_this(&deployment("web", 4)).await;
    world.until_spread(4, 0, 0).await;
    let hpa = json!({"metadata": {"name": "web"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 7, "maxReplicas": 20}});
    let _: k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler = world.make(hpa).await;
    // 20 % of seven is two (rounded up), of eleven three.
    world.until_spread(4, 2, 1).await;
    let range =
        |min: i32, max: i32| format!(r#"{{"spec":{{"minReplicas":{min},"maxReplicas":{max}}}}}"#);
    world.kubectl(&["patch", "hpa", "web", "--type=merge", "-p", &range(11, 20)]);
    world.until_spread(4, 3, 4).await;
    // The same for a workload: 40 % of eleven are five.
    let mut own = target("web", "web");
    own["spill"] = json!({"maxReplicas": "40%"});
    let changes = json!({"spill": {"maxReplicas": 10}, "workloads": [own]});
    world.change_pool(&changes).await;
    for name in waiting(&world.until_spread(4, 5, 2).await) {
        let why = "its maxReplicas lets it: 5";
        world.until_told(&name, "WorkloadLimitReached", why).await;
    }
    world.kubectl(&["patch", "hpa", "web", "--type=merge", "-p", &range(1, 4)]);
    world.until_spread(4, 0, 0).await;
    for kind in ["deployment", "replicaset", "hpa"] {
        let arguments = ["get", kind, "-o", "yaml", "--show-managed-fields"];
        let text = world.kubectl(&arguments);
        assert!(text.contains("managedFields"));
        assert!(!text.contains("burstpool"), "{text}");
    }
    world.end().await;
}
