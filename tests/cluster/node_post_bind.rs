//! The patch of a pod that is bound to a virtual node: its deletion cost, and how long it tolerates an
//! unreachable node; and which values of others the operator does not overwrite.

use burstpool::node::post_bind_patch;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::Cluster;
use crate::support::wait::by_and_by;
use crate::world::{World, is_running};

const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const DAY: Option<i64> = Some(86_400);

fn tolerations(pod: &Pod) -> &[Toleration] {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.tolerations.as_deref())
        .unwrap_or_default()
}

/// How long the pod tolerates a node that is not ready, and one that is unreachable, in seconds.
fn patience(pod: &Pod) -> [Option<i64>; 2] {
    ["not-ready", "unreachable"].map(|taint| {
        let key = format!("node.kubernetes.io/{taint}");
        let mut all = tolerations(pod).iter();
        all.find(|one| one.key.as_ref() == Some(&key))?
            .toleration_seconds
    })
}

/// Whether the pod has everything that the operator writes after binding.
pub fn is_settled(pod: &Pod) -> bool {
    pod.annotations().contains_key(COST) && patience(pod) == [DAY, DAY]
}

/// A pod that names its node itself, without a grant.
pub fn bound(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "nginx"}]},
    })
}

/// A pod for the pool, with additional tolerations.
fn pod(name: &str, annotations: &Value, more: &[Value]) -> Value {
    let mut tolerations = vec![json!({"key": "virtual-kubelet.io/provider", "operator": "Exists"})];
    tolerations.extend(more.iter().cloned());
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "tolerations": tolerations,
            "nodeSelector": {"burstpool.io/pool": "shop"},
            "containers": [{"name": "main", "image": "nginx"}],
        },
    })
}

#[tokio::test]
async fn what_a_user_set_on_a_pod_is_kept_and_only_the_rest_is_written() {
    let world = World::start().await;
    world.create_pool("shop").await;
    // Its user sets the cost; its tolerations are Kubernetes' defaults.
    world.create(pod("costly", &json!({COST: "7"}), &[])).await;
    // Its user sets tolerations, and no cost.
    let no_execute = |key: &str, seconds: Option<i64>| {
        let mut one = json!({"key": key, "operator": "Exists", "effect": "NoExecute"});
        if let Some(seconds) = seconds {
            one["tolerationSeconds"] = seconds.into();
        }
        one
    };
    let own = [
        no_execute("node.kubernetes.io/not-ready", None),
        no_execute("node.kubernetes.io/unreachable", Some(200_000)),
        no_execute("theirs", Some(60)),
    ];
    let patient = world.create(pod("patient", &Value::Null, &own)).await;
    // A short toleration of any taint, including taints that do not concern burstpool.
    let hasty = json!({"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60});
    let hasty = world
        .create(pod("hasty", &json!({"a": "b"}), &[hasty]))
        .await;

    let raised = |pod: Option<&Pod>| pod.is_some_and(|pod| patience(pod) == [DAY, DAY]);
    world.until_pod("costly", "its tolerations", raised).await;
    world.until_pod("hasty", "its tolerations", raised).await;
    let cost = |pod: &Pod| pod.annotations().get(COST).cloned();
    let costs = |pod: Option<&Pod>| pod.is_some_and(|pod| cost(pod).as_deref() == Some("-1000"));
    world.until_pod("patient", "its cost", costs).await;

    for name in ["costly", "patient", "hasty"] {
        world.until_pod(name, "the pod to run", is_running).await;
    }
    let now = |name: &'static str| {
        let pods = world.pods();
        async move { pods.get(name).await.expect("the pod") }
    };
    let costly = now("costly").await;
    assert_eq!(cost(&costly).as_deref(), Some("7"));
    let after = now("patient").await;
    assert_eq!(tolerations(&after), tolerations(&patient));
    let after = now("hasty").await;
    assert_eq!(cost(&after).as_deref(), Some("-1000"));
    assert_eq!(after.annotations().get("a").map(String::as_str), Some("b"));
    assert_eq!(tolerations(&after)[2..], *tolerations(&hasty));
    for pod in [&costly, &after] {
        // The generation counts changes of the spec.
        assert_eq!(pod.metadata.generation, Some(2), "written once: {pod:?}");
    }
}

/// `kubectl apply` replaces a pod's list of tolerations, which is atomic, without a conflict.
#[tokio::test]
async fn a_bare_pod_is_applied_again_and_has_its_day_again() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let is_released = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| {
            let entries = pod.metadata.managed_fields.iter().flatten();
            let mut managers = entries.filter_map(|entry| entry.manager.as_deref());
            is_settled(pod) && managers.all(|name| name != "burstpool-binding" && name != "unknown")
        })
    };
    let manifest = pod("web", &Value::Null, &[]);
    let apply = PatchParams::apply("somebody");
    for _ in 0..2 {
        let applied = world
            .pods()
            .patch("web", &apply, &Patch::Apply(&manifest))
            .await;
        applied.expect("there is no conflict");
        world.until_pod("web", "its tolerations", is_released).await;
        world.until_pod("web", "it to run", is_running).await;
    }
    // What `kubectl apply` sends: the whole list.
    let list = json!({"spec": {"tolerations": manifest["spec"]["tolerations"]}});
    let patch = Patch::Strategic(&list);
    let pods = world.pods();
    let patched = pods.patch("web", &PatchParams::default(), &patch).await;
    assert_eq!(patience(&patched.expect("it may")), [Some(300), Some(300)]);
    let raised = |pod: Option<&Pod>| pod.is_some_and(|pod| patience(pod) == [DAY, DAY]);
    world.until_pod("web", "its tolerations", raised).await;
}

#[tokio::test]
async fn a_patch_that_was_made_from_a_pod_as_it_was_writes_over_nothing() {
    let cluster = Cluster::shared().await;
    let tenant = cluster.tenant("stale").await.expect("a tenant");
    let pods = tenant.api::<Pod>();
    let send = async |patch: json_patch::Patch| {
        let (params, patch) = (PatchParams::default(), Patch::Json::<()>(patch));
        pods.patch("web", &params, &patch).await
    };
    let new: Pod = serde_json::from_value(bound("web", "nowhere")).expect("a pod");
    let kubernetes_minds = |outcome: kube::Result<Pod>| match outcome {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 422, "{status:?}"),
        other => unreachable!("it should be refused: {other:?}"),
    };

    let stale = tenant.create(&new).await.expect("a pod");
    let patch = post_bind_patch::patch(&stale, -1000).expect("it needs one");
    let mut raised = tolerations(&stale).to_vec();
    raised[1].toleration_seconds = Some(100_000);
    for theirs in [
        json!({"metadata": {"annotations": {COST: "7"}}}),
        json!({"metadata": {"annotations": null}, "spec": {"tolerations": raised}}),
    ] {
        pods.patch("web", &PatchParams::default(), &Patch::Merge(&theirs))
            .await
            .expect("theirs is taken");
        kubernetes_minds(send(patch.clone()).await);
    }
    let fresh = pods.get("web").await.expect("the pod");
    let patch = post_bind_patch::patch(&fresh, -1000).expect("it needs one");
    let settled = send(patch.clone()).await.expect("it is taken");
    assert_eq!(
        settled.annotations().get(COST).map(String::as_str),
        Some("-1000")
    );
    assert_eq!(patience(&settled), [DAY, Some(100_000)]);
    assert_eq!(post_bind_patch::patch(&settled, -1000), None);

    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("web", &at_once).await.expect("deleted");
    tenant.create(&new).await.expect("another of this name");
    kubernetes_minds(send(patch).await);
}

/// Makes the API server deny deletion costs until the returned binding is deleted.
async fn no_costs(world: &World) -> Api<ValidatingAdmissionPolicyBinding> {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "no-costs"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["UPDATE"],
            }]},
            "validations": [{
                "expression": format!("!('{COST}' in object.metadata.?annotations.orValue({{}}))"),
                "message": "No costs.",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "no-costs"},
        "spec": {"policyName": "no-costs", "validationActions": ["Deny"]},
    });
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(policy).expect("a policy");
    let binding: ValidatingAdmissionPolicyBinding =
        serde_json::from_value(binding).expect("a binding");
    let made = PostParams::default();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
    policies.create(&made, &policy).await.expect("a policy");
    let bindings = Api::all(world.client.clone());
    bindings.create(&made, &binding).await.expect("a binding");
    // The API server applies policies after a delay, and no watch shows when.
    world.create(bound("probe", "nowhere")).await;
    let (try_it, cost) = (
        PatchParams {
            dry_run: true,
            ..PatchParams::default()
        },
        Patch::Merge(json!({"metadata": {"annotations": {COST: "1"}}})),
    );
    let pods = world.pods();
    by_and_by("the policy to be in force", async || {
        pods.patch("probe", &try_it, &cost).await.is_err()
    })
    .await;
    bindings
}

#[tokio::test]
async fn a_patch_that_is_refused_is_tried_again_and_holds_up_neither_group_nor_status() {
    let world = World::start().await;
    world.create_pool("shop").await;
    let policy = no_costs(&world).await;
    world.create(pod("web", &Value::Null, &[])).await;
    world.until_pod("web", "the pod to run", is_running).await;
    by_and_by("a refusal", async || {
        let log = std::fs::read_to_string(world.log()).expect("a log");
        log.contains("No costs.")
    })
    .await;
    let running = world.pods().get("web").await.expect("the pod");
    assert!(!is_settled(&running));
    policy
        .delete("no-costs", &DeleteParams::default())
        .await
        .expect("deleted");
    world
        .until_pod("web", "what was refused", |pod| pod.is_some_and(is_settled))
        .await;
}
