//! Placements that drain.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

#[tokio::test]
async fn a_late_answer_about_the_region_does_not_open_a_draining_node() {
    let (silent_azure, arm) = silent_azure().await;
    let registry = registry(&arm);
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    let mut connection = usages_connection(&silent_azure).await;

    registry.start_draining(&[weu()]).await;
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"value\":[]}";
    connection
        .write_all(answer)
        .await
        .expect("the client reads");
    let running = registry.running.lock().await;
    let tasks = running[&weu()].tasks.clone();
    drop(running);
    let region_ends = async {
        while tasks.len() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, region_ends).await.expect("it ends");
    let drained = registry.unavailable_placements(&pool("a")).await;
    let why = drained.get("weu").map(String::as_str);
    assert_eq!(why, Some("it is being drained"));
}

#[tokio::test]
async fn a_draining_placement_that_is_listed_again_opens_unless_its_pool_is_deleted() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    registry.start_draining(&[weu()]).await;

    let mut deleted = pool("a");
    deleted.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    registry.apply_spec(&deleted, &[]).await.expect("it runs");
    let closed = registry.unavailable_placements(&deleted).await;
    assert_eq!(closed["weu"], "it is being drained");

    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    let closed = registry.unavailable_placements(&pool("a")).await;
    assert_ne!(
        closed.get("weu").map(String::as_str),
        Some("it is being drained")
    );
}

#[tokio::test]
async fn a_placement_whose_node_cannot_be_removed_keeps_its_tasks() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    registry.start_draining(&[weu()]).await;
    let removed = registry.delete_node(&weu()).await;
    assert!(removed.is_err(), "no API server removes the node");

    let running = registry.running.lock().await;
    let task = &running[&weu()];
    assert!(task.registration.is_running(), "the node stays registered");
    assert!(!task.cancel.is_cancelled(), "its pods continue");
    drop(running);
    registry.end_placements("shop", &[weu()]).await;
    assert!(!registry.is_tracked("shop").await);
    assert!(registry.running_placements("shop").await.is_empty());
}

#[tokio::test]
async fn a_placement_that_does_not_drain_is_not_removed() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    registry
        .delete_node(&weu())
        .await
        .expect("nothing to remove");
    registry.end_placements("shop", &[weu()]).await;
    let running = registry.running.lock().await;
    assert!(running[&weu()].registration.is_running());
}

#[tokio::test]
async fn an_orphaned_node_runs_closed_with_the_scope_that_it_records() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    let running = registry.running.lock().await;
    let mut config = running[&weu()].node_config.borrow().clone();
    drop(running);
    config.pool = "gone".to_owned();
    let node = node_object::node(&config, Timestamp::now());
    let found = last_placement::discover(&node).expect("a node of this operator");
    let unrecorded = DiscoveredNode {
        last_placement: None,
        pool: "silent".to_owned(),
        ..found.clone()
    };
    assert!(registry.drain_unlisted_node(found).await);
    assert!(!registry.drain_unlisted_node(unrecorded).await);

    let running = registry.running.lock().await;
    let task = &running[&PlacementId::new("gone", "weu")];
    assert_eq!(task.spec.scope.resource_group, "rg");
    assert_eq!(task.pods.owner.node, "burst-gone-weu");
    assert!(task.is_draining() && task.node_config.borrow().unavailable().is_some());
    assert!(!running.is_tracked("silent"));
}

#[tokio::test]
async fn a_draining_placement_that_is_listed_again_is_not_drained_further() {
    let registry = registry("http://127.0.0.1:1");
    let ids = [weu()];
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    registry.start_draining(&ids).await;
    assert!(!registry.is_requested_again(&weu()).await);
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    assert!(registry.is_requested_again(&weu()).await);
    registry
        .delete_node(&weu())
        .await
        .expect("nothing to remove");
    registry.end_placements("shop", &ids).await;
    let running = registry.running.lock().await;
    let task = &running[&weu()];
    assert!(!task.is_draining() && task.registration.is_running());
}

#[tokio::test]
async fn removed_placements_are_known_even_if_the_rest_of_the_spec_is_invalid() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    assert_eq!(
        registry.removed_placements(&pool("a")).await,
        Vec::<PlacementId>::new()
    );
    let mut changed = pool("a");
    changed.spec.placements[0].name = "neu".to_owned();
    changed.spec.placements[0].network.kube_proxy = true;
    let invalid = registry.apply_spec(&changed, &[]).await;
    assert!(
        invalid.is_err(),
        "the address of the API server is not configured"
    );
    assert_eq!(registry.removed_placements(&changed).await, [weu()]);
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
        let registry = registry(&answering(status, body).await);
        registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
        let task = registry.running.lock().await[&weu()].pods.clone();
        assert!(
            !timeout(10 * SOON, task.can_list())
                .await
                .expect("an answer")
        );
        assert_eq!(task.is_list_forbidden(), is_forbidden, "{status} {body}");
    }
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
    let registry = registry(&answering("200 OK", listed).await);
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    assert_eq!(registry.count_groups(&weu()).await, Some(1));
}
