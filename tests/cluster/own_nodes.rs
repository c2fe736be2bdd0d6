//! The cluster's own nodes beside a virtual node: what tests of bursting create and wait for.
//!
//! In: differences of a pool and of pods from the defaults. Out: a [`World`] with nodes of its own ("home") and
//! workloads, and on which nodes their pods run.

use std::collections::BTreeMap;

use burstpool::api::BurstPool;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{objects, wait};
use crate::world::{World, is_closed, is_running};

/// The virtual node of the pool's only placement.
pub const AWAY: &str = "burst-shop-weu";

/// A pool with the workload `web`, a Deployment of the same name, and a hold of one second.
pub fn pool(name: &str, changes: &Value) -> BurstPool {
    let mut pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": name},
        "spec": {
            "azure": {},
            "placements": [{"name": "weu", "region": "westeurope"}],
            "workloads": [target("web", "web")],
            "spill": {"after": "1s", "maxReplicas": 10},
        },
    });
    json_patch::merge(&mut pool["spec"], changes);
    serde_json::from_value(pool).expect("a pool")
}

/// A workload that targets a Deployment.
pub fn target(name: &str, deployment: &str) -> Value {
    json!({"name": name, "target":
        {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "default", "name": deployment}})
}

/// A workload that selects pods by this label `app`.
pub fn selected(app: &str) -> Value {
    json!({"name": app, "selector": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": app}}}})
}

/// A template of pods labelled `app: NAME`. Two of them fill a home node.
pub fn template(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "nginx",
                "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}],
        },
    })
}

/// A pod of that template, with changes.
pub fn pod(app: &str, name: &str, changes: &Value) -> Value {
    let mut pod = template(app);
    pod["metadata"]["name"] = name.into();
    json_patch::merge(&mut pod, changes);
    pod
}

/// A Deployment of such pods.
pub fn deployment(app: &str, replicas: i32) -> Deployment {
    let deployment = json!({
        "metadata": {"name": app},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": template(app)},
    });
    serde_json::from_value(deployment).expect("a Deployment")
}

impl World {
    /// Starts a world with two home nodes, each with room for two pods, and an open pool.
    pub async fn with_home(changes: &Value) -> Self {
        // Boxed, because the future is large and every test would contain it.
        let world = Box::pin(Self::start()).await;
        Box::pin(world.furnish(changes)).await;
        world
    }

    /// Adds two home nodes, each with room for two pods, and an open pool.
    pub async fn furnish(&self, changes: &Value) {
        for name in ["home-a", "home-b"] {
            self.home_node(name).await;
        }
        self.add_pool(changes).await;
    }

    /// The same with full home nodes.
    pub async fn with_full_home(changes: &Value) -> Self {
        let world = Box::pin(Self::with_home(changes)).await;
        for n in 0..4 {
            world
                .create(pod("filler", &format!("filler-{n}"), &json!({})))
                .await;
        }
        world.until_spread_of("filler", 4, 0, 0).await;
        world
    }

    pub async fn add_pool(&self, changes: &Value) {
        let pool = pool("shop", changes);
        let created = self.pools().create(&PostParams::default(), &pool).await;
        created.expect("a pool");
        let usable = |node: Option<&Node>| {
            node.is_some_and(|node| objects::is_ready(node) && !is_closed(node))
        };
        self.until_node(AWAY, "the node to take pods", usable).await;
    }

    /// Changes the pool's spec.
    pub async fn change_pool(&self, changes: &Value) {
        let patch = Patch::Merge(json!({"spec": changes}));
        let changed = self
            .pools()
            .patch("shop", &PatchParams::default(), &patch)
            .await;
        changed.expect("the pool is changed");
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object of any kind in the tests' namespace.
    pub async fn make<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).expect("an object of that kind");
        let api: Api<K> = Api::namespaced(self.client.clone(), "default");
        let created = api.create(&PostParams::default(), &object).await;
        created.expect("it is created")
    }

    pub async fn deploy(&self, replicas: i32) {
        self.deploy_this(&deployment("web", replicas)).await;
    }

    pub async fn deploy_this(&self, deployment: &Deployment) {
        let created = self
            .deployments()
            .create(&PostParams::default(), deployment)
            .await;
        created.expect("a Deployment");
    }

    pub async fn scale(&self, replicas: i32) {
        self.scale_this("web", replicas).await;
    }

    pub async fn scale_this(&self, name: &str, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let scaled = self
            .deployments()
            .patch_scale(name, &PatchParams::default(), &patch)
            .await;
        scaled.expect("it is scaled");
    }

    /// Merges changes into a pod.
    pub async fn change_pod(&self, name: &str, changes: &Value) {
        let patch = Patch::Merge(changes);
        let changed = self
            .pods()
            .patch(name, &PatchParams::default(), &patch)
            .await;
        changed.expect("the pod is changed");
    }

    /// Waits until this many pods of `web` run at home, run on ACI, and are pending.
    pub async fn until_spread(&self, home: usize, aci: usize, waiting: usize) -> Vec<Pod> {
        self.until_spread_of("web", home, aci, waiting).await
    }

    /// The same for pods with another label `app`.
    pub async fn until_spread_of(
        &self,
        app: &str,
        home: usize,
        aci: usize,
        waiting: usize,
    ) -> Vec<Pod> {
        let what = format!("{app}: {home} at home, {aci} on ACI, {waiting} waiting");
        let wanted = |pods: &[Pod]| objects::spread(pods) == (home, aci, waiting);
        self.until_pods(app, &what, wanted).await
    }

    /// Waits until the pods with this label `app` are as `wanted`.
    pub async fn until_pods(
        &self,
        app: &str,
        what: &str,
        wanted: impl Fn(&[Pod]) -> bool,
    ) -> Vec<Pod> {
        let config = watcher::Config::default().labels(&format!("app={app}"));
        match wait::until_all(self.pods(), config, what, wanted).await {
            Ok(pods) => pods,
            Err(error) => unreachable!("{error}\n{}", self.tail()),
        }
    }

    /// Waits until a pod runs on ACI, and returns it.
    pub async fn until_away(&self, name: &str) -> Pod {
        let away =
            |pod: Option<&Pod>| is_running(pod) && pod.and_then(objects::node_of) == Some(AWAY);
        self.until_pod(name, "the pod to run on ACI", away).await;
        self.pods().get(name).await.expect("the pod")
    }

    /// Waits until the scheduler has refused a pod.
    pub async fn until_refused(&self, name: &str) -> Pod {
        let refused = |pod: Option<&Pod>| pod.is_some_and(objects::is_refused);
        self.until_pod(name, "the pod to be refused", refused).await;
        self.pods().get(name).await.expect("the pod")
    }

    /// Waits for an Event about a pod with this reason and these words.
    pub async fn until_told(&self, pod: &str, reason: &str, words: &str) {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let told = |events: &[Event]| {
            events.iter().any(|event| {
                let about = event.regarding.as_ref();
                about.and_then(|about| about.name.as_deref()) == Some(pod)
                    && event.reason.as_deref() == Some(reason)
                    && event
                        .note
                        .as_deref()
                        .is_some_and(|note| note.contains(words))
            })
        };
        let what = format!("{pod} to be told {reason}: {words}");
        if let Err(error) = wait::until_all(events, watcher::Config::default(), &what, told).await {
            unreachable!("{error}\n{}", self.tail());
        }
    }

    /// Waits until the pool's status has these counts for a workload: holding, granted, spilled,
    /// refused.
    pub async fn until_counted(&self, workload: &str, counts: (i64, i64, i64, i64)) {
        let what = format!("{workload} to have (holding, granted, spilled, refused) {counts:?}");
        self.until_pool("shop", &what, |pool| {
            pool.and_then(|pool| counted(pool, workload)) == Some(counts)
        })
        .await;
    }
}

/// The counts of a workload: holding, granted, spilled, refused.
fn counted(pool: &BurstPool, workload: &str) -> Option<(i64, i64, i64, i64)> {
    let workloads = &pool.status.as_ref()?.workloads;
    let one = workloads.iter().find(|one| one.name == workload)?;
    Some((one.holding, one.granted, one.spilled, one.refused))
}

/// Whether a pod is granted.
pub fn is_granted(pod: &Pod) -> bool {
    pod.labels().contains_key("burstpool.io/pool")
}

/// Whether a pod uses one of the pool's slots: it is granted, has not finished and is not at home.
pub fn holds_a_slot(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let is_finished = matches!(phase, Some("Succeeded" | "Failed"));
    let is_home = objects::node_of(pod).is_some_and(|node| node != AWAY);
    is_granted(pod) && !is_finished && !is_home
}

/// The names of the pods without a node.
pub fn waiting(pods: &[Pod]) -> Vec<String> {
    let waiting = pods.iter().filter(|pod| objects::node_of(pod).is_none());
    waiting.map(Pod::name_any).collect()
}

/// The time in a pod's annotation.
pub fn time(pod: &Pod, annotation: &str) -> jiff::Timestamp {
    let time = &pod.annotations()[annotation];
    time.parse().expect("a time")
}

/// How many of a pod's tolerations come from a grant.
pub fn grants(pod: &Pod) -> usize {
    let tolerations = pod
        .spec
        .iter()
        .flat_map(|spec| spec.tolerations.iter().flatten());
    let granted = |t: &&k8s_openapi::api::core::v1::Toleration| {
        t.key.as_deref() == Some("virtual-kubelet.io/provider")
            && t.operator.as_deref() == Some("Equal")
            && t.value.as_deref() == Some("shop")
    };
    tolerations.filter(granted).count()
}

/// The labels and annotations of a pod that the operator wrote.
pub fn marks(pod: &Pod) -> BTreeMap<String, String> {
    let labels = pod.labels().iter();
    let all = labels.chain(pod.annotations());
    let ours = all
        .filter(|(key, _)| key.starts_with("burstpool.io/") || key.ends_with("pod-deletion-cost"));
    ours.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
