//! Bursting on the real scheduler: what home refuses spills, and goes first when the peak is over.

use burstpool::api::BurstPool;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::{objects, wait};
use crate::world::{World, is_closed, said};

/// A pool of workload `web`, a Deployment of the same name, that spills after a second.
fn pool(changes: &Value) -> BurstPool {
    let mut pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "shop"},
        "spec": {
            "azure": {},
            "placements": [{"name": "weu", "region": "westeurope"}],
            "workloads": [{"name": "web", "target":
                {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "default", "name": "web"}}],
            "spill": {"after": "1s", "maxReplicas": 10},
        },
    });
    json_patch::merge(&mut pool["spec"], changes);
    serde_json::from_value(pool).expect("a pool")
}

/// A Deployment of pods with half a node's room each.
fn deployment(replicas: i32) -> Deployment {
    let pods = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "nginx",
                "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}],
        },
    });
    let deployment = json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": pods},
    });
    serde_json::from_value(deployment).expect("a Deployment")
}

impl World {
    /// A world with two home nodes, each with room for two pods, and a pool that is open.
    async fn with_home(changes: &Value) -> Self {
        let world = Self::start().await;
        for name in ["home-a", "home-b"] {
            world.home_node(name).await;
        }
        world.add_pool(changes).await;
        world
    }

    async fn add_pool(&self, changes: &Value) {
        let pool = pool(changes);
        let created = self.pools().create(&PostParams::default(), &pool).await;
        created.expect("a pool");
        let usable = |node: Option<&k8s_openapi::api::core::v1::Node>| {
            node.is_some_and(|node| objects::is_ready(node) && !is_closed(node))
        };
        self.until_node("burst-shop-weu", "the node to take pods", usable)
            .await;
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn deploy(&self, replicas: i32) {
        let created = self
            .deployments()
            .create(&PostParams::default(), &deployment(replicas))
            .await;
        created.expect("a Deployment");
    }

    async fn scale(&self, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let scaled = self
            .deployments()
            .patch_scale("web", &PatchParams::default(), &patch)
            .await;
        scaled.expect("it is scaled");
    }

    /// Waits until so many pods run at home, on ACI, and wait.
    async fn until_spread(&self, home: usize, aci: usize, waiting: usize) -> Vec<Pod> {
        let what = format!("{home} at home, {aci} on ACI, {waiting} waiting");
        let wanted = |pods: &[Pod]| spread(pods) == (home, aci, waiting);
        let config = watcher::Config::default().labels("app=web");
        match wait::until_all(self.pods(), config, &what, wanted).await {
            Ok(pods) => pods,
            Err(error) => unreachable!("{error}\n{}", self.tail()),
        }
    }
}

/// How many pods run at home and on ACI, and how many have no node.
fn spread(pods: &[Pod]) -> (usize, usize, usize) {
    let runs = |pod: &&Pod| crate::world::is_running(Some(pod));
    let on = |pod: &&Pod, aci: bool| {
        objects::node_of(pod).is_some_and(|node| node.starts_with("burst-") == aci)
    };
    let placed = |aci| pods.iter().filter(runs).filter(|pod| on(pod, aci)).count();
    let waiting = pods.iter().filter(|pod| objects::node_of(pod).is_none());
    (placed(false), placed(true), waiting.count())
}

#[tokio::test]
async fn what_home_refuses_spills_and_exactly_that_goes_first() {
    let world = World::with_home(&json!({})).await;
    world.deploy(8).await;
    let pods = world.until_spread(4, 4, 0).await;
    let away: Vec<&Pod> = pods
        .iter()
        .filter(|pod| objects::node_of(pod) == Some("burst-shop-weu"))
        .collect();
    for pod in &away {
        assert_eq!(pod.labels()["burstpool.io/pool"], "shop");
        assert_eq!(pod.annotations()["burstpool.io/workload"], "web");
    }
    world
        .until_pool("shop", "the pool to count them", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            status.is_some_and(|status| {
                let counts = status.pods.unwrap_or_default();
                let web = status.workloads.first().cloned().unwrap_or_default();
                (counts.spilled, counts.running, counts.holding) == (4, 4, 0)
                    && (web.desired, web.home, web.spilled) == (Some(8), Some(4), 4)
                    && status.reservations.is_empty()
            })
        })
        .await;
    let said = world.kubectl(&["get", "bp", "shop"]);
    assert!(said.contains("True"), "{said}");

    world.scale(4).await;
    let left = world.until_spread(4, 0, 0).await;
    let kept: Vec<String> = left.iter().map(kube::ResourceExt::name_any).collect();
    let home = pods
        .iter()
        .filter(|pod| objects::node_of(pod) != Some("burst-shop-weu"));
    for pod in home {
        assert!(kept.contains(&pod.name_any()), "a pod at home was removed");
    }
    let none = |pods: &[Pod]| pods.len() == 4;
    let all = wait::until_all(world.pods(), watcher::Config::default(), "four pods", none);
    all.await.expect("the others are gone");
    assert_eq!(world.groups(), Vec::<String>::new());
}

#[tokio::test]
async fn no_more_than_the_maximum_spill_and_the_pool_says_why_others_wait() {
    let world = World::with_home(&json!({"spill": {"maxReplicas": 2}})).await;
    world.deploy(9).await;
    world.until_spread(4, 2, 3).await;
    world
        .until_pool("shop", "the pool to say why", |pool| {
            pool.is_some_and(|pool| {
                said(pool, "CapacityLimited").0 == "True" && said(pool, "Spilling").0 == "True"
            })
        })
        .await;
    let labelled = ListParams::default().labels("burstpool.io/pool");
    let granted = world.pods().list(&labelled).await.expect("a list").items;
    assert_eq!(granted.len(), 2);
    let patch = Patch::Merge(json!({"spec": {"spill": {"maxReplicas": 4}}}));
    let raised = world
        .pools()
        .patch("shop", &PatchParams::default(), &patch)
        .await;
    raised.expect("the maximum is raised");
    world.until_spread(4, 4, 1).await;
}

#[tokio::test]
async fn a_pod_that_aci_cannot_run_waits_for_home_and_is_told_why() {
    let world = World::with_home(&json!({})).await;
    let mut bound_to_home = deployment(6);
    let template = &mut bound_to_home.spec.template;
    let spec = template.spec.as_mut().expect("a pod");
    let volume = json!({"name": "host", "hostPath": {"path": "/var/log"}});
    spec.volumes = Some(vec![serde_json::from_value(volume).expect("a volume")]);
    let created = world
        .deployments()
        .create(&PostParams::default(), &bound_to_home)
        .await;
    created.expect("a Deployment");
    let pods = world.until_spread(4, 0, 2).await;
    world
        .until_pool("shop", "the pool to count them as refused", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let counts = status.and_then(|status| status.pods).unwrap_or_default();
            (counts.refused, counts.spilled, counts.granted) == (2, 0, 0)
        })
        .await;
    let waiting = pods.iter().find(|pod| objects::node_of(pod).is_none());
    let name = waiting.expect("one waits").name_any();
    let events: Api<k8s_openapi::api::events::v1::Event> =
        Api::namespaced(world.client.clone(), "default");
    let told = |events: &[k8s_openapi::api::events::v1::Event]| {
        events.iter().any(|event| {
            let about = event
                .regarding
                .as_ref()
                .and_then(|about| about.name.as_deref());
            let note = event.note.as_deref().unwrap_or_default();
            about == Some(name.as_str()) && note.contains("hostPath")
        })
    };
    wait::until_all(events, watcher::Config::default(), "an Event", told)
        .await
        .expect("it is told");
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_do_and_writes_nothing_to_pods() {
    let world = World::with_home(&json!({"mode": "DryRun"})).await;
    world.deploy(6).await;
    let pods = world.until_spread(4, 0, 2).await;
    world
        .until_pool("shop", "the pool to say so", |pool| {
            pool.is_some_and(|pool| said(pool, "Spilling").1.contains("DryRun"))
        })
        .await;
    let versions = |pods: &[Pod]| -> Vec<Option<String>> {
        let waiting = pods.iter().filter(|pod| objects::node_of(pod).is_none());
        waiting
            .map(|pod| pod.metadata.generation.map(|n| n.to_string()))
            .collect()
    };
    let now = world.until_spread(4, 0, 2).await;
    assert_eq!(versions(&now), versions(&pods));
    assert!(
        now.iter()
            .all(|pod| !pod.labels().contains_key("burstpool.io/pool"))
    );
}
