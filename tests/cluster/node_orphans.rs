//! Orphaned nodes, which are in no pool's spec: any leader drains them, even if their pool is
//! gone.

use burstpool::api::BurstPool;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::node_post_bind::bound;
use crate::support::wait;
use crate::telemetry::address;
use crate::world::{World, is_closed, is_running, said};

const TWO: [(&str, &str); 2] = [("weu", "westeurope"), ("neu", "northeurope")];
const NODE: &str = "burst-shop-neu";

impl World {
    fn budgets(&self) -> Api<PodDisruptionBudget> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a budget that prevents the eviction of the pod `web`.
    pub async fn hold_web(&self) {
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        });
        let budget: PodDisruptionBudget = serde_json::from_value(budget).expect("a budget");
        let created = self.budgets().create(&PostParams::default(), &budget).await;
        created.expect("a budget");
        let counted = |budget: Option<&PodDisruptionBudget>| {
            let status = budget.and_then(|budget| budget.status.as_ref());
            status.is_some_and(|status| status.current_healthy == Some(1))
        };
        let counts = wait::until(self.budgets(), "web", "the budget to count", counted).await;
        counts.expect("it counts");
    }

    /// Deletes the budget.
    pub async fn release_web(&self) {
        let deleted = self.budgets().delete("web", &DeleteParams::default()).await;
        deleted.expect("deleted");
    }

    /// Creates a pool with two placements, and the pod `web` on the second one, protected by a budget.
    async fn create_held(&self) {
        self.create_pool_in("shop", &json!({}), &TWO).await;
        let there = json!({"burstpool.io/placement": "neu"});
        self.create_pod_where("web", &there, &json!({})).await;
        self.until_pod("web", "the pod to run", is_running).await;
        self.hold_web().await;
    }

    async fn remove_placement(&self) {
        let left = json!({"placements": [{"name": "weu", "region": "westeurope"}]});
        self.change_pool(&left).await;
    }

    /// Waits until the pool's status names what the drain waits for.
    async fn until_waits_for(&self, what: &str) {
        self.until_pool("shop", "the pool to say what it waits for", |pool| {
            pool.is_some_and(|pool| said(pool, "Ready").1.contains(what))
        })
        .await;
    }

    /// Waits until the second node's lease is renewed later than `at`.
    async fn until_kept_after(&self, at: Timestamp) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), "kube-node-lease");
        let renewed = |lease: Option<&Lease>| {
            let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref());
            renewed.is_some_and(|renewed| renewed.0 > at)
        };
        let kept = wait::until(leases, NODE, "the node to be kept", renewed).await;
        assert!(kept.is_ok(), "{kept:?}\n{}", self.tail());
    }

    /// Removes the finalizer of a pool that is being deleted.
    async fn remove_finalizer(&self) {
        let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let removed = self.pools();
        let removed = removed.patch("shop", &PatchParams::default(), &none).await;
        removed.expect("an administrator may");
        self.until_pool("shop", "the pool to be gone", |pool| pool.is_none())
            .await;
    }

    /// Waits until the second node, its pod and all groups are gone.
    async fn until_nothing_is_left(&self) {
        self.until_pod("web", "the pod to be gone", |pod| pod.is_none())
            .await;
        self.until_node(NODE, "the node to be gone", |node| node.is_none())
            .await;
        assert_eq!(self.groups(), Vec::<String>::new());
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}

#[tokio::test]
async fn the_next_leader_drains_a_removed_placement_whose_pods_a_budget_holds() {
    let mut world = World::start().await;
    world.create_held().await;
    world.remove_placement().await;
    world.until_waits_for("default/web").await;

    world.kill_and_forget().await;
    let at = Timestamp::now();
    world.run();
    world.until_kept_after(at).await;
    let node = world.nodes().get(NODE).await.expect("the node");
    assert!(is_closed(&node), "it takes no pods");
    let pod = world.pods().get("web").await.expect("the pod");
    assert!(is_running(Some(&pod)) && pod.metadata.deletion_timestamp.is_none());
    assert_eq!(world.groups(), [pod.uid().expect("a UID")]);

    world.release_web().await;
    world.until_nothing_is_left().await;
    world
        .until_pool("shop", "the pool to be whole", |pool| {
            pool.is_some_and(|pool| {
                let placements = pool.status.iter().flat_map(|status| &status.placements);
                said(pool, "Ready").0 == "True" && placements.count() == 1
            })
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn a_deleted_pool_goes_after_the_nodes_that_an_earlier_leader_began_to_drain() {
    let mut world = World::start().await;
    world.create_held().await;
    world.remove_placement().await;
    world.until_waits_for("default/web").await;
    world.kill_and_forget().await;
    world.delete_pool("shop").await;
    let at = Timestamp::now();
    world.run();
    world.until_kept_after(at).await;
    world.until_waits_for("default/web").await;
    world.release_web().await;
    world.until_no_pool("shop").await;
    world.until_nothing_is_left().await;
    world.end().await;
}

#[tokio::test]
async fn a_pool_without_its_finalizer_is_drained_and_forgotten() {
    let world = World::start().await;
    world.create_held().await;
    world.delete_pool("shop").await;
    world.until_waits_for("default/web").await;
    world.remove_finalizer().await;
    // The drain goes on until the budget allows the eviction.
    world.until_kept_after(Timestamp::now()).await;
    assert_eq!(world.groups().len(), 1);
    world.release_web().await;
    world.until_nothing_is_left().await;
    let metrics = format!("{}/metrics", address(&world).await);
    wait::by_and_by("the pool to be measured no more", async || {
        let answer = reqwest::get(&metrics).await.expect("an answer");
        !answer.text().await.expect("text").contains("shop")
    })
    .await;

    // A pool of the same name can be created again.
    world.create_pool_in("shop", &json!({}), &TWO).await;
    world.end().await;
}

#[tokio::test]
async fn nodes_of_a_pool_that_went_without_an_operator_are_drained_and_foreign_nodes_stay() {
    let mut world = World::start().await;
    world.create_held().await;
    // A home node with the pool's labels, which a kubelet may set on its own node.
    world.home_node("home").await;
    let label = Patch::Merge(json!({"metadata": {"labels": {
        "burstpool.io/pool": "shop", "burstpool.io/placement": "home", "type": "virtual-kubelet"}}}));
    let nodes = world.nodes();
    let labelled = nodes.patch("home", &PatchParams::default(), &label).await;
    labelled.expect("a label");
    world.create(bound("theirs", "home")).await;

    world.kill_and_forget().await;
    world.delete_pool("shop").await;
    world.remove_finalizer().await;
    let at = Timestamp::now();
    world.run();
    world.until_kept_after(at).await;
    assert_eq!(world.groups().len(), 1);
    world.release_web().await;
    world.until_nothing_is_left().await;
    world
        .until_node("burst-shop-weu", "the node to be gone", |node| {
            node.is_none()
        })
        .await;
    nodes.get("home").await.expect("home's node stays");
    let pod = world.pods().get("theirs").await.expect("home's pod stays");
    assert_eq!(pod.metadata.deletion_timestamp, None);
    world.end().await;
}

/// Creates a policy that denies the deletion of virtual nodes. It applies until the test deletes it.
async fn forbid_removal(world: &World) -> Api<ValidatingAdmissionPolicy> {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "stays"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["nodes"], "operations": ["DELETE"],
            }]},
            "validations": [{"expression": "!request.name.startsWith('burst-')", "message": "nodes stay"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "stays"},
        "spec": {"policyName": "stays", "validationActions": ["Deny"]},
    });
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(policy).expect("a policy");
    let binding: ValidatingAdmissionPolicyBinding =
        serde_json::from_value(binding).expect("a binding");
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.client.clone());
    let create = PostParams::default();
    policies.create(&create, &policy).await.expect("a policy");
    bindings.create(&create, &binding).await.expect("a binding");
    let dry_run = DeleteParams::default().dry_run();
    wait::by_and_by("the policy to hold", async || {
        world.nodes().delete(NODE, &dry_run).await.is_err()
    })
    .await;
    policies
}

#[tokio::test]
async fn a_pod_that_comes_before_its_node_is_gone_is_finished_like_the_others() {
    let world = World::start().await;
    world.create_pool_in("shop", &json!({}), &TWO).await;
    let policies = forbid_removal(&world).await;
    world.remove_placement().await;
    world.until_waits_for("node burst-shop-neu (").await;
    let at = Timestamp::now();

    // Like a scheduler that decided before it saw the node's taint.
    world.create(bound("web", NODE)).await;
    world
        .until_pod("web", "the pod to be finished", |pod: Option<&Pod>| {
            pod.is_none()
        })
        .await;
    // The operator keeps the node's lease meanwhile.
    world.until_kept_after(at).await;
    let deleted = policies.delete("stays", &DeleteParams::default()).await;
    deleted.expect("deleted");
    world.until_nothing_is_left().await;
    world.end().await;
}

#[tokio::test]
async fn a_node_that_two_pools_mean_is_the_first_ones_and_the_others_when_that_is_gone() {
    let world = World::start().await;
    let (node, west) = ("burst-shop-eu-west", "westeurope");
    world
        .create_pool_in("shop", &json!({}), &[("eu-west", west)])
        .await;
    let there = json!({"burstpool.io/placement": "eu-west"});
    world.create_pod_where("web", &there, &json!({})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    let before = world.nodes().get(node).await.expect("the node");

    let second = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": {"name": "shop-eu"},
        "spec": {"azure": {}, "placements": [{"name": "west", "region": "northeurope"}]},
    });
    let second: BurstPool = serde_json::from_value(second).expect("a pool");
    for _ in 0..2 {
        let created = world.pools().create(&PostParams::default(), &second).await;
        created.expect("a pool");
        world
            .until_pool("shop-eu", "the pool to say whose the node is", |pool| {
                pool.is_some_and(|pool| {
                    said(pool, "Stalled").1.contains("belongs to pool shop:")
                        && said(pool, "Ready").0 == "False"
                })
            })
            .await;
        let after = world.nodes().get(node).await.expect("the node");
        assert_eq!(
            (after.uid(), after.labels()),
            (before.uid(), before.labels())
        );
        if world.pods().get("web").await.is_ok() {
            world.delete_pool("shop-eu").await;
            world.until_no_pool("shop-eu").await;
            let pod = world.pods().get("web").await.expect("the pod");
            assert!(is_running(Some(&pod)) && pod.metadata.deletion_timestamp.is_none());
            world.delete_pod("web").await;
            world
                .until_pod("web", "the pod to be gone", |pod| pod.is_none())
                .await;
        }
    }
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    world
        .until_pool("shop-eu", "the pool to have the node", |pool| {
            pool.is_some_and(|pool| said(pool, "Ready").0 == "True")
        })
        .await;
    let after = world.nodes().get(node).await.expect("the node");
    assert_eq!(after.labels()["burstpool.io/pool"], "shop-eu");
    world.end().await;
}

#[tokio::test]
async fn groups_are_found_although_the_next_leader_never_saw_the_spec_that_placed_them() {
    let mut world = World::start().await;
    world.create_pool("shop").await;
    world.create_pod("web", "shop", &json!({})).await;
    world.until_pod("web", "the pod to run", is_running).await;
    world.kill_and_forget().await;
    let elsewhere = json!({"azure": {"resourceGroup": "elsewhere"}});
    world.change_pool(&elsewhere).await;
    world.run();
    world.until_waits_for("resource group elsewhere").await;
    let pod = world.pods().get("web").await.expect("the pod");
    assert!(is_running(Some(&pod)));
    assert_eq!(world.groups(), [pod.uid().expect("a UID")]);

    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    world
        .until_pod("web", "the pod to be gone", |pod| pod.is_none())
        .await;
    assert_eq!(world.groups(), Vec::<String>::new());
    world.end().await;
}
