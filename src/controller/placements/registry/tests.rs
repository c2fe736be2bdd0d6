//! Tests: no pool waits for another's nodes or for an Azure that does not answer, and no task of a node
//! continues after its end.

use std::pin::pin;
use std::time::Duration;

use futures::poll;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::Priority;
use crate::controller::fixtures::context;
use crate::node::last_placement;

/// A generous timeout for something that happens immediately.
const SOON: Duration = Duration::from_secs(1);

/// An Azure that accepts connections and never answers, and its URL.
async fn silent_azure() -> (TcpListener, String) {
    let silent_azure = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let arm = format!("http://{}", silent_azure.local_addr().expect("an address"));
    (silent_azure, arm)
}

/// The connection on which the operator asks the silent Azure for a region's usages.
async fn usages_connection(silent_azure: &TcpListener) -> TcpStream {
    let mut others = Vec::new();
    let usages_request = async {
        loop {
            let (mut connection, _) = silent_azure.accept().await.expect("a connection");
            let mut request = [0; 4096];
            let read = connection.read(&mut request).await.expect("a request");
            if String::from_utf8_lossy(&request[..read]).contains("/usages") {
                return connection;
            }
            others.push(connection);
        }
    };
    timeout(10 * SOON, usages_request)
        .await
        .expect("a request for usages")
}

/// A pool of one placement, with this value of the tag `team`.
fn pool(team: &str) -> BurstPool {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
        "metadata": {"name": "shop", "uid": "u"},
        "spec": {
            "azure": {"subscriptionId": "s", "resourceGroup": "rg", "tags": {"team": team}},
            "placements": [{"name": "weu", "region": "westeurope"}],
        },
    });
    serde_json::from_value(pool).expect("a pool")
}

/// The pool as if it had been deleted and created again: it has another UID, so its nodes are different ones.
fn recreated() -> BurstPool {
    let mut recreated = pool("b");
    recreated.metadata.uid = Some("another".to_owned());
    recreated
}

#[tokio::test]
async fn the_registry_is_not_locked_while_azure_counts_container_groups() {
    let (_silent, arm) = silent_azure().await;
    let context = context(&arm);
    ensure(&pool("a"), &[], &context).await.expect("it runs");

    start_draining("shop", &["weu".to_owned()], &context).await;
    let mut counting = pin!(count_groups("shop", "weu", &context));
    assert!(poll!(&mut counting).is_pending(), "Azure never answers");
    assert!(context.running_pools.try_lock().is_ok());
    let drained = unavailable_placements(&pool("a"), &context).await;
    assert_eq!(drained["weu"], "it is being drained");
}

#[tokio::test]
async fn the_registry_is_not_locked_while_the_tasks_of_a_changed_placement_end() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");

    let changed = recreated();
    let mut changing = pin!(ensure(&changed, &[], &context));
    assert!(
        poll!(&mut changing).is_pending(),
        "the tasks take time to end"
    );
    assert!(context.running_pools.try_lock().is_ok());
    changing.await.expect("it runs");
    let pools = context.running_pools.lock().await;
    assert_eq!(pools["shop"].placements["weu"].spec.tags["team"], "b");
}

#[tokio::test]
async fn a_changed_placement_starts_again_at_once_while_azure_does_not_answer() {
    let (silent_azure, arm) = silent_azure().await;
    let context = context(&arm);
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    let _connection = usages_connection(&silent_azure).await;

    let changed = recreated();
    let ensured = timeout(10 * SOON, ensure(&changed, &[], &context)).await;
    ensured.expect("soon").expect("it runs");
    let pools = context.running_pools.lock().await;
    assert_eq!(pools["shop"].placements["weu"].spec.tags["team"], "b");
}

#[tokio::test]
async fn changed_placements_end_in_parallel() {
    let two = |mut pool: BurstPool| {
        let mut other = pool.spec.placements[0].clone();
        other.name = "neu".to_owned();
        pool.spec.placements.push(other);
        pool
    };
    let context = context("http://127.0.0.1:1");
    ensure(&two(pool("a")), &[], &context)
        .await
        .expect("both run");
    let pools = context.running_pools.lock().await;
    let all = pools["shop"].placements.values();
    let all: Vec<CancellationToken> = all.map(|task| task.cancel.clone()).collect();
    drop(pools);

    let changed = two(recreated());
    let mut changing = pin!(ensure(&changed, &[], &context));
    assert!(
        poll!(&mut changing).is_pending(),
        "the tasks take time to end"
    );
    assert!(all.iter().all(CancellationToken::is_cancelled));
}

#[tokio::test]
async fn an_edit_reaches_running_tasks_and_restarts_only_those_that_need_another_node() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    let before = {
        let pools = context.running_pools.lock().await;
        let task = &pools["shop"].placements["weu"];
        (task.pods.clone(), task.cancel.clone())
    };
    let mut edited = pool("a");
    let edits: [fn(&mut BurstPool); 8] = [
        |pool| pool.spec.placements[0].capacity.pods = 7,
        |pool| pool.spec.placements[0].labels = [("team".to_owned(), "x".to_owned())].into(),
        |pool| pool.spec.placements[0].zones = vec!["1".to_owned()],
        |pool| pool.spec.placements[0].zones = Vec::new(),
        |pool| pool.spec.placements[0].priority = Priority::Spot,
        |pool| pool.spec.placements[0].network.realtime_metrics = false,
        |pool| pool.spec.azure.tags = [("team".to_owned(), "b".to_owned())].into(),
        |pool| pool.spec.scale_in.deletion_cost = -5,
    ];
    for edit in edits {
        edit(&mut edited);
        ensure(&edited, &[], &context).await.expect("it runs");
        let pools = context.running_pools.lock().await;
        let task = &pools["shop"].placements["weu"];
        assert!(Arc::ptr_eq(&task.pods, &before.0) && !task.cancel.is_cancelled());
        assert!(task.registration.is_running() && !task.is_draining());
        let settings = task.pods.settings();
        assert_eq!(settings.placement, edited.spec.placements[0]);
        assert_eq!(settings.tags, edited.spec.azure.tags);
        assert_eq!(settings.deletion_cost, edited.spec.scale_in.deletion_cost);
        let record = task.node_config.borrow().last_placement.clone();
        assert_eq!(record.placement, edited.spec.placements[0]);
    }
    let other_nodes: [fn(&mut BurstPool); 2] = [
        |pool| pool.metadata.uid = Some("another".to_owned()),
        |pool| pool.spec.placements[0].region = "northeurope".to_owned(),
    ];
    let mut known = before.0;
    for edit in other_nodes {
        edit(&mut edited);
        ensure(&edited, &[], &context).await.expect("it runs");
        let pools = context.running_pools.lock().await;
        let now = pools["shop"].placements["weu"].pods.clone();
        assert!(!Arc::ptr_eq(&now, &known), "the tasks are restarted");
        known = now;
    }
}

#[tokio::test]
async fn a_late_answer_about_the_region_does_not_open_a_draining_node() {
    let (silent_azure, arm) = silent_azure().await;
    let context = context(&arm);
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    let mut connection = usages_connection(&silent_azure).await;

    start_draining("shop", &["weu".to_owned()], &context).await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"value\":[]}";
    connection
        .write_all(answer)
        .await
        .expect("the client reads");
    let pools = context.running_pools.lock().await;
    let tasks = pools["shop"].placements["weu"].tasks.clone();
    drop(pools);
    let region_ends = async {
        while tasks.len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, region_ends).await.expect("it ends");
    let drained = unavailable_placements(&pool("a"), &context).await;
    let why = drained.get("weu").map(String::as_str);
    assert_eq!(why, Some("it is being drained"));
}

#[tokio::test]
async fn node_tasks_end_with_the_leadership_even_during_a_reconciliation() {
    let context = Arc::new(context("http://127.0.0.1:1"));
    let lead = CancellationToken::new();
    ensure(&pool("a"), &[], &context).await.expect("it runs");

    let losing = async {
        // Simulates a reconciliation in progress, for which the shutdown waits.
        let pools = context.running_pools.lock().await;
        let tasks = pools["shop"].placements["weu"].tasks.clone();
        tokio::task::yield_now().await;
        lead.cancel();
        tasks.close();
        timeout(SOON, tasks.wait()).await.expect("they end");
    };
    tokio::select! {
        () = crate::controller::run(context.clone(), lead.clone()) => unreachable!("it waits"),
        () = losing => {}
    }
}

#[tokio::test]
async fn a_draining_placement_that_is_listed_again_opens_unless_its_pool_is_deleted() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    start_draining("shop", &["weu".to_owned()], &context).await;

    let mut deleted = pool("a");
    deleted.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    ensure(&deleted, &[], &context).await.expect("it runs");
    let closed = unavailable_placements(&deleted, &context).await;
    assert_eq!(closed["weu"], "it is being drained");

    ensure(&pool("a"), &[], &context).await.expect("it runs");
    let closed = unavailable_placements(&pool("a"), &context).await;
    assert_ne!(
        closed.get("weu").map(String::as_str),
        Some("it is being drained")
    );
}

#[tokio::test]
async fn a_placement_whose_node_cannot_be_removed_keeps_its_tasks() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    start_draining("shop", &["weu".to_owned()], &context).await;
    let removed = unregister_node("shop", "weu", &context).await;
    assert!(removed.is_err(), "no API server removes the node");

    let pools = context.running_pools.lock().await;
    let task = &pools["shop"].placements["weu"];
    assert!(task.registration.is_running(), "the node stays registered");
    assert!(!task.cancel.is_cancelled(), "its pods continue");
    drop(pools);
    end_placements("shop", &["weu".to_owned()], &context).await;
    assert!(context.running_pools.lock().await.is_empty());
}

#[tokio::test]
async fn a_placement_that_does_not_drain_is_not_removed() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    unregister_node("shop", "weu", &context)
        .await
        .expect("nothing to remove");
    end_placements("shop", &["weu".to_owned()], &context).await;
    let pools = context.running_pools.lock().await;
    assert!(pools["shop"].placements["weu"].registration.is_running());
}

#[tokio::test]
async fn an_orphaned_node_runs_closed_with_the_scope_that_it_records() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    let pools = context.running_pools.lock().await;
    let mut config = pools["shop"].placements["weu"].node_config.borrow().clone();
    drop(pools);
    config.pool = "gone".to_owned();
    let node = node_object::node(&config, Timestamp::now());
    let found = last_placement::discover(&node).expect("a node of this operator");
    let unrecorded = DiscoveredNode {
        last_placement: None,
        pool: "silent".to_owned(),
        ..found.clone()
    };
    assert!(adopt_orphan(found, &context).await);
    assert!(!adopt_orphan(unrecorded, &context).await);

    let pools = context.running_pools.lock().await;
    let task = &pools["gone"].placements["weu"];
    assert_eq!(task.spec.scope.resource_group, "rg");
    assert_eq!(task.pods.owner.node, "burst-gone-weu");
    assert!(task.is_draining() && task.node_config.borrow().unavailable().is_some());
    assert!(!pools.contains_key("silent"));
}

#[tokio::test]
async fn a_draining_placement_that_is_listed_again_is_not_drained_further() {
    let context = context("http://127.0.0.1:1");
    let names = ["weu".to_owned()];
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    start_draining("shop", &names, &context).await;
    assert!(!is_requested_again("shop", "weu", &context).await);
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    assert!(is_requested_again("shop", "weu", &context).await);
    unregister_node("shop", "weu", &context)
        .await
        .expect("nothing to remove");
    end_placements("shop", &names, &context).await;
    let pools = context.running_pools.lock().await;
    let task = &pools["shop"].placements["weu"];
    assert!(!task.is_draining() && task.registration.is_running());
}

#[tokio::test]
async fn removed_placements_are_known_even_if_the_rest_of_the_spec_is_invalid() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    assert_eq!(
        removed_placements(&pool("a"), &context).await,
        Vec::<String>::new()
    );
    let mut changed = pool("a");
    changed.spec.placements[0].name = "neu".to_owned();
    changed.spec.placements[0].network.kube_proxy = true;
    let invalid = ensure(&changed, &[], &context).await;
    assert!(
        invalid.is_err(),
        "the address of the API server is not configured"
    );
    assert_eq!(removed_placements(&changed, &context).await, ["weu"]);
}

#[tokio::test]
async fn with_an_invalid_spec_the_next_leader_runs_nodes_with_their_recorded_settings() {
    let before = context("http://127.0.0.1:1");
    ensure(&pool("a"), &[], &before).await.expect("it runs");
    let pools = before.running_pools.lock().await;
    let config = pools["shop"].placements["weu"].node_config.borrow().clone();
    drop(pools);
    let node = node_object::node(&config, Timestamp::now());

    let next = context("http://127.0.0.1:1");
    let mut invalid = pool("a");
    invalid.spec.placements[0].capacity.cpu.0 = "lots".to_owned();
    let ensured = ensure(&invalid, &[node], &next).await;
    assert!(ensured.is_err(), "the capacity is invalid");
    let pools = next.running_pools.lock().await;
    let task = &pools["shop"].placements["weu"];
    assert!(task.registration.is_running() && !task.is_draining());
    assert_eq!(task.spec.placement, pool("a").spec.placements[0]);
    drop(pools);
    // The spec is corrected: the same node continues with the spec's settings.
    ensure(&pool("b"), &[], &next).await.expect("it runs");
    let pools = next.running_pools.lock().await;
    assert_eq!(pools["shop"].placements["weu"].spec.tags["team"], "b");
}

/// The node of the placement of [`pool`], registered with its container groups in this resource group.
fn registered(pool: &BurstPool, resource_group: &str, context: &ControllerContext) -> Node {
    let scope = GroupScope {
        subscription: "s".to_owned(),
        resource_group: resource_group.to_owned(),
    };
    let wanted = PlacementSpec::from_pool(pool, &pool.spec.placements[0], &scope);
    node_object::node(&task::node_config(&wanted, None, context), Timestamp::now())
}

#[tokio::test]
async fn a_new_leader_refuses_a_spec_whose_scope_differs_from_the_recorded_one() {
    let context = context("http://127.0.0.1:1");
    let moved = pool("a");
    let node = registered(&moved, "earlier", &context);
    // Under the new leader, at every reconciliation: Azure does not answer whether there are container groups.
    for nodes in [&[node][..], &[], &[]] {
        let Err(InvalidSpec(mistake)) = ensure(&moved, nodes, &context).await else {
            unreachable!("it is refused");
        };
        let (to, from) = (
            "spec.azure names resource group rg",
            "are in resource group earlier",
        );
        assert!(
            mistake.starts_with(to) && mistake.contains(from),
            "{mistake}"
        );
        let pools = context.running_pools.lock().await;
        let task = &pools["shop"].placements["weu"];
        assert_eq!(task.spec.scope.resource_group, "earlier");
        assert!(!task.is_draining(), "the placement continues as it was");
    }
    // The spec's original resource group.
    let mut back = moved.clone();
    back.spec.azure.resource_group = Some("earlier".to_owned());
    assert_eq!(ensure(&back, &[], &context).await, Ok(()));
}

#[tokio::test]
async fn an_operator_without_a_resource_group_runs_nodes_with_their_recorded_one() {
    let mut context = context("http://127.0.0.1:1");
    context.default_scope.resource_group = String::new();
    let mut pool = pool("a");
    pool.spec.azure.resource_group = None;
    let node = registered(&pool, "earlier", &context);
    let Err(InvalidSpec(mistake)) = ensure(&pool, &[node], &context).await else {
        unreachable!("the spec is invalid");
    };
    assert!(mistake.contains("--resource-group"), "{mistake}");
    let pools = context.running_pools.lock().await;
    assert_eq!(
        pools["shop"].placements["weu"].spec.scope.resource_group,
        "earlier"
    );
}

#[tokio::test]
async fn a_node_runs_for_one_pool_and_the_other_pool_gets_an_error() {
    let context = context("http://127.0.0.1:1");
    let named = |name: &str, placement: &str| {
        let mut pool = pool("a");
        pool.metadata.name = Some(name.to_owned());
        pool.metadata.uid = Some(format!("uid-{name}"));
        pool.spec.placements[0].name = placement.to_owned();
        pool
    };
    let (one, other) = (named("shop", "eu-west"), named("shop-eu", "west"));
    assert_eq!(ensure(&one, &[], &context).await, Ok(()));
    let Err(InvalidSpec(mistake)) = ensure(&other, &[], &context).await else {
        unreachable!("the node belongs to the other pool");
    };
    assert!(mistake.contains("belongs to pool shop:"), "{mistake}");
    assert!(running_placements("shop-eu", &context).await.is_empty());
    // Draining and removing the pool without a node must change nothing.
    start_draining("shop-eu", &["west".to_owned()], &context).await;
    unregister_node("shop-eu", "west", &context)
        .await
        .expect("nothing to remove");
    let pools = context.running_pools.lock().await;
    assert!(
        pools["shop"].placements["eu-west"]
            .registration
            .is_running()
    );
}

#[tokio::test]
async fn an_unreadable_pool_does_not_take_the_node_of_another_pool() {
    let context = context("http://127.0.0.1:1");
    let mut one = pool("a");
    one.spec.placements[0].name = "eu-west".to_owned();
    ensure(&one, &[], &context).await.expect("it runs");
    let config = {
        let pools = context.running_pools.lock().await;
        pools["shop"].placements["eu-west"]
            .node_config
            .borrow()
            .clone()
    };
    // A node that a user relabelled: its name is the same for the other pool.
    let node = node_object::node(&config, Timestamp::now());
    let mut found = last_placement::discovered_node(&node, "shop-eu", "west");
    found.last_placement = Some(config.last_placement.clone());
    resume_from_node(found.clone(), &context).await;
    assert!(running_placements("shop-eu", &context).await.is_empty());

    let names = ["eu-west".to_owned()];
    start_draining("shop", &names, &context).await;
    end_placements("shop", &names, &context).await;
    resume_from_node(found, &context).await;
    assert_eq!(running_placements("shop-eu", &context).await, ["west"]);
}

#[test]
fn only_an_empty_list_proves_that_no_container_group_is_left() {
    for (groups, is_forbidden, expected) in [
        (Some(0), false, PlacementRemains::Nothing),
        (Some(2), false, PlacementRemains::Something),
        (None, false, PlacementRemains::Something),
        (None, true, PlacementRemains::Unlisted),
    ] {
        let left = PlacementRemains::of(groups, is_forbidden);
        assert_eq!(left, expected, "{groups:?} {is_forbidden}");
    }
    let scope = |resource_group: &str| GroupScope {
        subscription: "s".to_owned(),
        resource_group: resource_group.to_owned(),
    };
    let InvalidSpec(mistake) = validation::unlisted(&scope("old"), &scope("new"));
    let right = "Microsoft.ContainerInstance/containerGroups/read";
    assert!(
        mistake.contains("spec.azure names resource group new"),
        "{mistake}"
    );
    assert!(
        mistake.contains(&format!("{right} on resource group old")),
        "{mistake}"
    );
}

/// An Azure that answers every request with this status and body, and its URL.
async fn answering(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let arm = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 8192];
                while connection
                    .read(&mut request)
                    .await
                    .is_ok_and(|read| read > 0)
                {
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                    );
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    arm
}

#[tokio::test]
async fn only_the_answer_403_means_that_the_operator_may_not_list_groups() {
    for (status, body, is_forbidden) in [
        (
            "403 Forbidden",
            r#"{"error": {"code": "AuthorizationFailed", "message": "no"}}"#,
            true,
        ),
        (
            "404 Not Found",
            r#"{"error": {"code": "SubscriptionNotFound", "message": "no"}}"#,
            false,
        ),
        (
            "404 Not Found",
            r#"{"error": {"code": "ResourceGroupNotFound", "message": "no"}}"#,
            false,
        ),
    ] {
        let context = context(&answering(status, body).await);
        ensure(&pool("a"), &[], &context).await.expect("it runs");
        let task = context.running_pools.lock().await["shop"].placements["weu"]
            .pods
            .clone();
        assert!(
            !timeout(10 * SOON, task.can_list())
                .await
                .expect("an answer")
        );
        assert_eq!(task.is_list_refused(), is_forbidden, "{status} {body}");
    }
}

/// A client of an API server that has no pods and answers every other request with an error.
fn without_pods() -> kube::Client {
    let service = tower::service_fn(|request: http::Request<kube::client::Body>| {
        let (code, body) = if request.uri().path().ends_with("/pods") {
            (
                200,
                json!({"metadata": {"resourceVersion": "1"}, "items": []}),
            )
        } else {
            (
                500,
                json!({"kind": "Status", "status": "Failure", "code": 500}),
            )
        };
        let answer = http::Response::builder().status(code);
        let body = kube::client::Body::from(body.to_string().into_bytes());
        std::future::ready(answer.body(body))
    });
    kube::Client::new(service, "default")
}

#[tokio::test]
async fn a_placement_whose_groups_may_not_be_listed_is_neither_moved_nor_removed() {
    let body = r#"{"error": {"code": "AuthorizationFailed", "message": "no"}}"#;
    let mut context = context(&answering("403 Forbidden", body).await);
    context.client = without_pods();
    let moved = pool("a");
    let node = registered(&moved, "earlier", &context);
    // Refused without a look at Azure, since the node says where its groups are.
    assert!(ensure(&moved, &[node], &context).await.is_err());
    let Err(InvalidSpec(mistake)) = ensure(&moved, &[], &context).await else {
        unreachable!("its groups may still run")
    };
    assert!(mistake.contains("Azure answers 403"), "{mistake}");
    let left = drain::drain_placements("shop", &["weu".to_owned()], &context).await;
    let left = left.expect("pods are listed").concat();
    assert!(left.contains("Azure answers 403"), "{left}");
}

#[tokio::test]
async fn groups_with_the_tags_of_another_owner_or_of_no_pod_do_not_count() {
    let listed = r#"{"value": [
        {"name": "ours", "properties": {}, "tags": {"burstpool-cluster": "cluster", "burstpool-pool": "shop",
            "burstpool-node": "burst-shop-weu", "burstpool-namespace": "n", "burstpool-pod": "p",
            "burstpool-pod-uid": "u"}},
        {"name": "other", "properties": {}, "tags": {"burstpool-cluster": "other", "burstpool-pool": "shop",
            "burstpool-node": "burst-shop-weu", "burstpool-namespace": "n", "burstpool-pod": "p",
            "burstpool-pod-uid": "u"}},
        {"name": "by-hand", "properties": {}, "tags": {"burstpool-cluster": "cluster", "burstpool-pool": "shop",
            "burstpool-node": "burst-shop-weu"}}]}"#;
    let context = context(&answering("200 OK", listed).await);
    ensure(&pool("a"), &[], &context).await.expect("it runs");
    assert_eq!(count_groups("shop", "weu", &context).await, Some(1));
}
