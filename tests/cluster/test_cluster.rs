//! The test cluster itself: it behaves like a real one, tests can share it, and it leaves nothing
//! behind.
//!
//! The other tests rely on this: the authorizers and admission of a production cluster, one patch that
//! lets a refused pod run elsewhere (decision D1), and clean ends.

use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    authorization::v1::SubjectAccessReview,
    core::v1::{Pod, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::{Value, json};

use crate::support::{Cluster, Component, Options, objects, wait};

const PROVIDER: &str = "virtual-kubelet.io/provider";

#[tokio::test]
async fn speaks_the_newest_kubernetes_to_rust_and_to_kubectl() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().expect("a client");
    let version = client
        .apiserver_version()
        .await
        .expect("the server's version")
        .git_version;
    assert!(version.starts_with("v1.37."), "{version}");

    let output = cluster
        .kubectl()
        .args(["version", "--output=json"])
        .output()
        .expect("kubectl");
    let said: Value = serde_json::from_slice(&output.stdout).expect("kubectl answers in JSON");
    assert_eq!(said["clientVersion"]["gitVersion"], version.as_str());
    assert_eq!(said["serverVersion"]["gitVersion"], version.as_str());
}

#[tokio::test]
async fn admits_the_administrators_token_and_no_stranger() {
    let cluster = Cluster::shared().await;
    let tenant = cluster.tenant("strangers").await.expect("a tenant");
    let accounts = tenant.api::<ServiceAccount>();
    let request = TokenRequest::default();
    let answer = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .expect("a token of the default service account");
    let token = answer
        .status
        .expect("a token request is answered in its status")
        .token;

    let mut statuses = Vec::new();
    for user in [
        json!({"token": cluster.token()}),
        json!({}),
        json!({"token": "no"}),
        json!({"token": token}), // a service account without a role
    ] {
        statuses.push(status_of_a_list(cluster, &tenant.namespace, &user).await);
    }

    assert_eq!(statuses, [200, 403, 401, 403]);
}

#[tokio::test]
async fn lets_a_node_read_itself_and_no_other() {
    let client = Cluster::shared().await.client().expect("a client");
    let reviews: Api<SubjectAccessReview> = Api::all(client);

    let mut allowed = Vec::new();
    for node in ["ours", "theirs"] {
        let review = serde_json::from_value(json!({"spec": {
            "user": "system:node:ours",
            "groups": ["system:nodes", "system:authenticated"],
            "resourceAttributes": {"verb": "get", "resource": "nodes", "name": node},
        }}))
        .expect("a review");
        let answer = reviews
            .create(&PostParams::default(), &review)
            .await
            .expect("an answer");
        allowed.push(
            answer
                .status
                .expect("a review is answered in its status")
                .allowed,
        );
    }

    // No role is bound to system:nodes, so only the Node authorizer can allow the first request.
    assert_eq!(allowed, [true, false]);
}

#[tokio::test]
async fn gives_a_pod_the_default_service_account_and_its_token() {
    let tenant = Cluster::shared()
        .await
        .tenant("account")
        .await
        .expect("a tenant");
    let pod = tenant.pod("plain", "100m", "64Mi");

    let made = tenant.create(&pod).await.expect("a pod is made");

    let spec = made.spec.expect("a pod has a spec");
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    let volumes = spec.volumes.unwrap_or_default();
    assert!(
        volumes.iter().any(|volume| volume.projected.is_some()),
        "{volumes:?}"
    );
}

#[tokio::test]
async fn tenants_do_not_reach_each_others_nodes() {
    let cluster = Cluster::shared().await;
    let owner = cluster.tenant("owner").await.expect("a tenant");
    let other = cluster.tenant("other").await.expect("a second tenant");
    let node = owner
        .home_node("home", "2", "8Gi")
        .await
        .expect("a home node");

    owner
        .create(&owner.pod("mine", "1", "1Gi"))
        .await
        .expect("the owner's pod");
    other
        .create(&other.pod("foreign", "1", "1Gi"))
        .await
        .expect("the other's pod");

    assert_eq!(bound(&owner.api(), "mine").await, node);
    let refused = |pod: Option<&Pod>| pod.is_some_and(objects::is_refused);
    wait::until(
        other.api::<Pod>(),
        "foreign",
        "the other's pod to be refused",
        refused,
    )
    .await
    .expect("the scheduler refuses it, though there is room");
}

#[tokio::test]
async fn one_patch_sends_one_refused_pod_elsewhere() {
    // Given two full home nodes and a Deployment with a third pod that the scheduler refuses,
    let tenant = Cluster::shared()
        .await
        .tenant("spill")
        .await
        .expect("a tenant");
    let pool = &tenant.namespace; // unique, as the taint must be
    for name in ["home-a", "home-b"] {
        tenant
            .home_node(name, "2", "8Gi")
            .await
            .expect("a home node");
    }
    let pods = tenant.api::<Pod>();
    let web = tenant.deployment("web", 6, "1", "1Gi");
    tenant.create(&web).await.expect("a Deployment");
    let selection = watcher::Config::default().labels("app=web");
    let spread = |pods: &[Pod]| {
        let home = pods.iter().filter_map(objects::node_of).count();
        let refused = pods.iter().filter(|pod| objects::is_refused(pod)).count();
        (home, refused) == (4, 2)
    };
    let all = wait::until_all(pods.clone(), selection, "4 pods at home, 2 refused", spread)
        .await
        .expect("home is full");
    let away = objects::no_schedule(PROVIDER, pool);
    let virtual_node = tenant
        .tainted_node("away", "100", "400Gi", away)
        .await
        .expect("a virtual node");

    // when one of the refused pods is granted,
    let refused: Vec<&Pod> = all.iter().filter(|pod| objects::is_refused(pod)).collect();
    let granted = refused[0].name_any();
    grant_as_it_is(&pods, &granted, pool)
        .await
        .expect("the grant is accepted");

    // then the scheduler binds that pod to the virtual node, and the other one stays pending.
    let node = bound(&pods, &granted).await;
    assert_eq!(node, virtual_node);
    let on_pool = ListParams::default().labels(&format!("burstpool.io/pool={pool}"));
    let labelled = pods.list(&on_pool).await.expect("a list by label").items;
    let labelled: Vec<String> = labelled.iter().map(ResourceExt::name_any).collect();
    assert_eq!(labelled, [granted]);
    let other = pods
        .get(&refused[1].name_any())
        .await
        .expect("the other refused pod");
    assert!(objects::is_refused(&other), "{:?}", other.status);
}

#[tokio::test]
async fn a_grant_from_a_stale_view_is_a_conflict() {
    let tenant = Cluster::shared()
        .await
        .tenant("stale")
        .await
        .expect("a tenant");
    let pods = tenant.api::<Pod>();
    let pod = tenant.pod("late", "1", "1Gi");
    let stale = tenant.create(&pod).await.expect("a pod is made");
    let touch = Patch::Merge(json!({"metadata": {"labels": {"touched": "yes"}}}));
    pods.patch("late", &PatchParams::default(), &touch)
        .await
        .expect("somebody changes the pod");

    let outcome = grant(&pods, &stale, "any").await;

    match outcome {
        Err(kube::Error::Api(status)) => assert!(status.is_conflict(), "{status:?}"),
        other => assert!(other.is_err(), "the stale grant was accepted: {other:?}"),
    }
    let now = pods.get("late").await.expect("the pod");
    assert!(!now.labels().contains_key("burstpool.io/pool"));
}

#[tokio::test]
async fn components_can_be_stopped_killed_and_started_again() {
    let cluster = Cluster::start(Options::default())
        .await
        .expect("a cluster of its own");
    let tenant = cluster.tenant("restart").await.expect("a tenant");
    tenant
        .home_node("home", "2", "8Gi")
        .await
        .expect("a home node");
    let pods = tenant.api::<Pod>();
    let first = cluster.processes();

    cluster
        .stop(Component::Scheduler)
        .await
        .expect("it ends when asked");
    let pod = tenant.pod("meanwhile", "500m", "1Gi");
    tenant
        .create(&pod)
        .await
        .expect("a pod while nobody schedules");
    cluster
        .restart(Component::Scheduler)
        .await
        .expect("it starts again");
    bound(&pods, "meanwhile").await;

    cluster
        .kill(Component::ApiServer)
        .await
        .expect("it ends when killed");
    cluster
        .restart(Component::ApiServer)
        .await
        .expect("it starts again");
    let pod = tenant.pod("afterwards", "500m", "1Gi");
    tenant.create(&pod).await.expect("a pod after the crash");
    bound(&pods, "afterwards").await;

    let second = cluster.processes();
    let changed = second.iter().filter(|(name, pid)| first[*name] != **pid);
    let changed: Vec<&str> = changed.map(|(name, _)| name.as_str()).collect();
    assert_eq!(changed, ["kube-apiserver", "kube-scheduler"]);
}

/// Waits until the scheduler binds the pod, and returns the node.
async fn bound(pods: &Api<Pod>, name: &str) -> String {
    let node = |pod: Option<&Pod>| pod.and_then(objects::node_of).map(str::to_owned);
    wait::get(pods.clone(), name, "the pod to be bound", node)
        .await
        .expect("the scheduler binds it")
}

/// The HTTP status of a list of pods for this user.
async fn status_of_a_list(cluster: &Cluster, namespace: &str, user: &Value) -> u16 {
    let config = cluster.config_of(user).await.expect("a configuration");
    let client = Client::try_from(config).expect("a client");
    match Api::<Pod>::namespaced(client, namespace)
        .list(&ListParams::default())
        .await
    {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => unreachable!("the API server does not answer: {error}"),
    }
}

/// Decision D1, by hand: one JSON Patch, which fails if the pod has changed since it was read.
async fn grant(pods: &Api<Pod>, seen: &Pod, pool: &str) -> kube::Result<Pod> {
    let operations = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": seen.resource_version()},
        {"op": "add", "path": "/spec/tolerations/-", "value": {
            "key": PROVIDER, "operator": "Equal", "value": pool, "effect": "NoSchedule",
        }},
        {"op": "add", "path": "/metadata/labels/burstpool.io~1pool", "value": pool},
        {"op": "add", "path": "/metadata/annotations", "value": {"burstpool.io/granted": "now"}},
    ]);
    let patch = Patch::Json::<()>(serde_json::from_value(operations).expect("a JSON Patch"));
    pods.patch(&seen.name_any(), &PatchParams::default(), &patch)
        .await
}

/// The same, repeated until the pod has not changed. Whenever a node appears, also one of another test,
/// the scheduler updates its message ("0/4 nodes are available"), so an object just read may be stale.
async fn grant_as_it_is(pods: &Api<Pod>, name: &str, pool: &str) -> kube::Result<Pod> {
    loop {
        let seen = pods.get(name).await?;
        match grant(pods, &seen, pool).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            outcome => return outcome,
        }
    }
}
