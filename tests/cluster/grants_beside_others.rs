//! Bursting beside others: policies, other pools and workloads, an API server that goes away.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::own_nodes::{AWAY, deployment, grants, is_granted, pod, pool, selected, target};
use crate::support::{Component, objects};
use crate::world::World;

/// The message of the younger of two pools with one workload.
const BELONGS: &str = "all pods of its selection belong to workload web of pool shop";

/// Creates a policy on updates of pods.
async fn policy(world: &World, name: &str, when: &str, validations: &Value) {
    let policy = json!({
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["UPDATE"],
            }]},
            "matchConditions": [{"name": "when", "expression": when}],
            "validations": validations,
        },
    });
    let binding = json!({
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(policy).expect("a policy");
    let binding: ValidatingAdmissionPolicyBinding =
        serde_json::from_value(binding).expect("a binding");
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
    let created = policies.create(&PostParams::default(), &policy).await;
    created.expect("a policy");
    let created = bindings(world)
        .create(&PostParams::default(), &binding)
        .await;
    created.expect("a binding");
}

fn bindings(world: &World) -> Api<ValidatingAdmissionPolicyBinding> {
    Api::all(world.client.clone())
}

/// Repeats a write to a pod until it is denied, or allowed. The API server applies policies after a
/// delay, and no watch shows when.
async fn until_denied(world: &World, name: &str, changes: &Value, is_denied: bool) {
    let as_leader = PatchParams {
        dry_run: true,
        field_manager: Some("burstpool-leader".to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(changes);
    let trying = async {
        let pods = world.pods();
        while pods.patch(name, &as_leader, &patch).await.is_err() != is_denied {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let tried = tokio::time::timeout(crate::support::wait::DEADLINE, trying).await;
    tried.expect("the policy comes into force");
}

#[tokio::test]
async fn a_grant_that_a_policy_denies_is_reported_and_retried_and_others_go_on() {
    let world = World::with_full_home(&json!({"workloads": [selected("web")]})).await;
    // One policy denies the grants of some pods. The other one allows a leader to write nothing but
    // grants.
    let denied =
        json!([{"expression": "!has(object.metadata.labels.denied)", "message": "Not this one."}]);
    policy(
        &world,
        "denies",
        "'burstpool.io/pool' in object.metadata.?labels.orValue({})",
        &denied,
    )
    .await;
    let same = |map: &str, key: &str| {
        format!(
            "object.metadata.?{map}.orValue({{}}).all(k, {key} || \
             (k in oldObject.metadata.?{map}.orValue({{}}) && oldObject.metadata.{map}[k] == object.metadata.{map}[k]))"
        )
    };
    let guard = json!([
        {"expression": "object.spec.containers == oldObject.spec.containers"},
        {"expression": "object.spec.tolerations.size() <= oldObject.spec.tolerations.size() + 1"},
        {"expression": "oldObject.spec.tolerations.all(t, object.spec.tolerations.exists(u, u == t))"},
        {"expression": same("labels", "k == 'burstpool.io/pool'")},
        {"expression": same("annotations", "k.startsWith('burstpool.io/')")},
    ]);
    policy(
        &world,
        "guards",
        "request.options.?fieldManager.orValue('') == 'burstpool-leader'",
        &guard,
    )
    .await;
    let more = json!({"metadata": {"labels": {"more": "x"}}});
    until_denied(&world, "filler-0", &more, true).await;
    let mark = json!({"metadata": {"labels": {"burstpool.io/pool": "shop", "denied": "x"}}});
    world
        .change_pod(
            "filler-1",
            &json!({"metadata": {"labels": {"denied": "x"}}}),
        )
        .await;
    until_denied(&world, "filler-1", &mark, true).await;

    let marked = json!({"metadata": {"labels": {"denied": "x"}}});
    world.create(pod("web", "denied", &marked)).await;
    world
        .until_told("denied", "GrantDenied", "Not this one.")
        .await;
    for n in 0..2 {
        world
            .create(pod("web", &format!("other-{n}"), &json!({})))
            .await;
    }
    world.until_spread(0, 2, 1).await;
    world.until_counted("web", (1, 0, 2, 0)).await;
    let lifted = DeleteParams::default();
    let lifted = bindings(&world).delete("denies", &lifted).await;
    lifted.expect("the policy is lifted");
    world.until_spread(0, 3, 0).await;
    world.end().await;
}

#[tokio::test]
async fn workloads_share_the_pools_maximum_by_weight_and_what_one_leaves_is_lent() {
    let mut heavy = target("heavy", "heavy");
    heavy["weight"] = 3.into();
    let world = World::with_full_home(&json!({
        "workloads": [target("light", "light"), heavy],
        "spill": {"maxReplicas": 8, "rate": {"pods": 1000}},
    }))
    .await;
    // Alone, a workload gets all slots. They are not taken back when another one comes.
    world.deploy_this(&deployment("light", 8)).await;
    world.until_spread_of("light", 0, 8, 0).await;
    world.deploy_this(&deployment("heavy", 8)).await;
    world.until_counted("heavy", (8, 0, 0, 0)).await;
    let pods = world.until_spread_of("light", 0, 8, 0).await;
    assert!(pods.iter().all(is_granted));
    // Free slots go to the workload that has less than its share.
    world.scale_this("light", 2).await;
    world.until_spread_of("heavy", 0, 6, 2).await;
    world.scale_this("light", 8).await;
    world.until_counted("light", (6, 0, 2, 0)).await;
    world.until_counted("heavy", (2, 0, 6, 0)).await;
    world.end().await;
}

#[tokio::test]
async fn the_rate_limits_grants_and_the_other_pods_wait() {
    let world = World::with_full_home(&json!({"spill": {"rate": {"pods": 3, "per": "1h"}}})).await;
    world.deploy(5).await;
    world.until_spread(0, 3, 2).await;
    world.until_counted("web", (2, 0, 3, 0)).await;
    // Grants of the current period count even if their pods are gone.
    world.scale(2).await;
    world.until_spread(0, 2, 0).await;
    world.scale(4).await;
    world.until_counted("web", (2, 0, 2, 0)).await;
    // A unit test shows the end of the period. Here the test shortens it.
    world
        .change_pool(&json!({"spill": {"rate": {"per": "1s"}}}))
        .await;
    world.until_spread(0, 4, 0).await;
    world.end().await;
}

#[tokio::test]
async fn of_two_pools_with_one_workload_the_older_gets_it_and_the_other_reports_that() {
    // A long hold, so that both pools see the pods.
    let world = World::with_full_home(&json!({"spill": {"after": "20m"}})).await;
    // Creation times have whole seconds. If they are equal, the first pool by name wins.
    let created = world
        .pools()
        .create(&PostParams::default(), &pool("youth", &json!({})))
        .await;
    created.expect("a pool");
    world.deploy(2).await;
    world
        .until_pool("youth", "the younger pool to say whose they are", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let web = status.and_then(|status| status.workloads.first());
            web.is_some_and(|web| web.message == BELONGS && (web.holding, web.home) == (0, Some(0)))
        })
        .await;
    world.until_counted("web", (2, 0, 0, 0)).await;
    world.change_pool(&json!({"spill": {"after": "1s"}})).await;
    let pods = world.until_spread(0, 2, 0).await;
    for pod in &pods {
        assert_eq!(pod.labels()["burstpool.io/pool"], "shop");
        assert_eq!(objects::node_of(pod), Some(AWAY));
    }
    // Also when no pod is pending. The other pool's pods on ACI do not count as pods at home.
    world.until_counted("web", (0, 0, 2, 0)).await;
    world.scale(3).await;
    world.until_spread(0, 3, 0).await;
    world
        .until_pool("youth", "the younger pool to count again", |pool| {
            let status = pool.and_then(|pool| pool.status.as_ref());
            let web = status.and_then(|status| status.workloads.first());
            web.is_some_and(|web| {
                web.message == BELONGS && (web.desired, web.home) == (Some(3), Some(0))
            })
        })
        .await;
    world.end().await;
}

#[tokio::test]
async fn an_api_server_that_goes_away_in_the_middle_leads_to_no_grant_too_many() {
    let mut world =
        World::with_full_home(&json!({"spill": {"maxReplicas": 5, "rate": {"pods": 1000}}})).await;
    world.deploy(12).await;
    let some = |pods: &[Pod]| pods.iter().any(is_granted);
    world.until_pods("web", "the first grant", some).await;
    world.may_be_refused();
    let killed = world.cluster.kill(Component::ApiServer).await;
    killed.expect("it ends when killed");
    let started = world.cluster.restart(Component::ApiServer).await;
    started.expect("it starts again");
    world.until_spread(0, 5, 7).await;
    world
        .change_pool(&json!({"spill": {"maxReplicas": 6}}))
        .await;
    world.until_spread(0, 6, 6).await;
    world.until_counted("web", (6, 0, 6, 0)).await;
    let labelled = ListParams::default().labels("burstpool.io/pool");
    let granted = world.pods().list(&labelled).await.expect("a list").items;
    assert_eq!(granted.len(), 6);
    assert!(granted.iter().all(|pod| grants(pod) == 1));
    world.end().await;
}
