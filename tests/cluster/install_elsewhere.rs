//! The operator's account with another namespace and name, as `config/elsewhere` installs it: the
//! admission policies apply there, too. If no policy applies to the account, the operator reports it.

use burstpool::emulator::EmulatorOptions as AzureOptions;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::support::Options;
use crate::support::wait::by_and_by;
use crate::telemetry::{address, get};
use crate::world::World;

/// The namespace and the account of `config/elsewhere`.
const ELSEWHERE: &str = "elsewhere";
const ACCOUNT: &str = "spiller";

/// Installs the operator's rights there. Returns a client with its account.
async fn installed(world: &mut World) -> Client {
    world
        .cluster
        .apply(ELSEWHERE, &["--force-conflicts"])
        .expect("it is accepted");
    let deployment = [
        "scale",
        "-n",
        ELSEWHERE,
        "deployment/burstpool",
        "--replicas=0",
    ];
    world.kubectl(&deployment);
    let token = world.kubectl(&["create", "token", ACCOUNT, "-n", ELSEWHERE]);
    let operator = json!({"token": token.trim()});
    world.run_in(ELSEWHERE, &operator);
    let config = world.cluster.config_of(&operator).await;
    Client::try_from(config.expect("a configuration")).expect("a client")
}

fn is_denied<T: std::fmt::Debug>(attempt: &kube::Result<T>) -> bool {
    let policy = "ValidatingAdmissionPolicy 'burstpool-";
    matches!(attempt, Err(kube::Error::Api(status)) if status.message.contains(policy))
}

/// Waits until the policies apply to an account, and checks that they do not restrict an administrator.
async fn until_bound(world: &World, client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let dry = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    by_and_by("the policies to bind it", async || {
        is_denied(&nodes.delete("home-a", &dry).await)
            && is_denied(&pods.delete("home", &dry).await)
    })
    .await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let deleted = nodes.delete("home-a", &dry).await;
    deleted.expect("an administrator's node");
}

/// The account may only request tokens for its kube-proxies, which are in its own namespace.
async fn tokens(world: &World, client: &Client) {
    let role = "create clusterrole tokens --verb=create --resource=serviceaccounts/token";
    world.kubectl(&role.split(' ').collect::<Vec<_>>());
    let subject = format!("--serviceaccount={ELSEWHERE}:{ACCOUNT}");
    world.kubectl(&[
        "create",
        "clusterrolebinding",
        "tokens",
        "--clusterrole=tokens",
        &subject,
    ]);
    for (namespace, name) in [
        (ELSEWHERE, "burstpool-kube-proxy"),
        ("default", "burstpool-kube-proxy"),
        (ELSEWHERE, "default"),
    ] {
        if name != "default" {
            world.kubectl(&["create", "serviceaccount", name, "-n", namespace]);
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let request = serde_json::from_value(json!({"spec": {"audiences": []}}));
        let request = request.expect("a request");
        let params = PostParams::default();
        let given = accounts.create_token_request(name, &params, &request).await;
        let is_its_own = (namespace, name) == (ELSEWHERE, "burstpool-kube-proxy");
        assert_eq!(given.is_ok(), is_its_own, "{namespace}/{name}: {given:?}");
        assert!(is_its_own || is_denied(&given), "{given:?}");
    }
}

// Multi-threaded: Azure must answer while the test blocks on kubectl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policies_follow_the_account_and_an_operator_without_policies_reports_it() {
    let azure = AzureOptions {
        speed: 20.0,
        ..AzureOptions::default()
    };
    let mut world = Box::pin(World::without_rights(Options::default(), azure)).await;
    let mut unbound = world.instance("unbound");
    by_and_by("a warning", async || {
        unbound.has_said("no admission policy narrows the operator")
    })
    .await;
    unbound.signal("TERM").await;
    unbound.ended().await;

    let client = installed(&mut world).await;
    world.home_node("home-a").await;
    let home = json!({"metadata": {"name": "home"}, "spec": {
        "nodeName": "home-a", "containers": [{"name": "main", "image": "nginx"}]}});
    world.make::<Pod>(home).await;
    until_bound(&world, &client).await;
    tokens(&world, &client).await;

    world.run();
    world.create_pool("shop").await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let image = json!({"spec": {"containers": [{"name": "main", "image": "evil"}]}});
    let (params, image) = (PatchParams::default(), Patch::Strategic(image));
    assert!(is_denied(&pods.patch("home", &params, &image).await));
    // The right to renew leases is in the namespace of all nodes' leases.
    let lease = ["get", "lease", "burst-shop-weu", "-n", "kube-node-lease"];
    by_and_by("a heartbeat", async || world.cluster.ask(&lease).is_ok()).await;
    let ready = get(&format!("{}/readyz", address(&world).await)).await;
    assert_eq!(ready, (200, "ok\n".to_owned()));
    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    world.end().await;
}
