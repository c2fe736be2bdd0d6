//! Invalid specs, other scopes, and nodes of other owners.

use super::*;
use crate::api::names::{POOL_LABEL, POOL_UID_ANNOTATION};
use crate::controller::placements::drain::PlacementDrain;
use crate::controller::placements::registry::scope_change::PlacementRemains;

#[tokio::test]
async fn with_an_invalid_spec_the_next_leader_runs_nodes_with_their_recorded_settings() {
    let before = registry("http://127.0.0.1:1");
    before.apply_spec(&pool("a"), &[]).await.expect("it runs");
    let running = before.running.lock().await;
    let config = running[&weu()].node_config.borrow().clone();
    drop(running);
    let node = node_object::node(&config, Timestamp::now());

    let next = registry("http://127.0.0.1:1");
    let mut invalid = pool("a");
    invalid.spec.placements[0].capacity.cpu.0 = "lots".to_owned();
    let ensured = next.apply_spec(&invalid, &[node]).await;
    assert!(ensured.is_err(), "the capacity is invalid");
    let running = next.running.lock().await;
    let task = &running[&weu()];
    assert!(task.registration.is_running() && !task.is_draining());
    assert_eq!(task.spec.placement, pool("a").spec.placements[0]);
    drop(running);
    // The spec is corrected: the same node continues with the spec's settings.
    next.apply_spec(&pool("b"), &[]).await.expect("it runs");
    let running = next.running.lock().await;
    assert_eq!(running[&weu()].spec.tags["team"], "b");
}

#[tokio::test]
async fn a_new_leader_rejects_a_spec_whose_scope_differs_from_the_recorded_one() {
    let registry = registry("http://127.0.0.1:1");
    let moved = pool("a");
    let node = registered(&moved, "earlier", &registry);
    // Under the new leader, at every reconciliation: Azure does not answer whether there are container groups.
    for nodes in [&[node][..], &[], &[]] {
        let Err(InvalidSpec(mistake)) = registry.apply_spec(&moved, nodes).await else {
            unreachable!("it is rejected");
        };
        let (to, from) = (
            "spec.azure names resource group rg",
            "are in resource group earlier",
        );
        assert!(
            mistake.starts_with(to) && mistake.contains(from),
            "{mistake}"
        );
        let running = registry.running.lock().await;
        let task = &running[&weu()];
        assert_eq!(task.spec.scope.resource_group, "earlier");
        assert!(!task.is_draining(), "the placement continues as it was");
    }
    // The spec's original resource group.
    let mut back = moved.clone();
    back.spec.azure.resource_group = Some("earlier".to_owned());
    assert_eq!(registry.apply_spec(&back, &[]).await, Ok(()));
}

#[tokio::test]
async fn an_operator_without_a_resource_group_runs_nodes_with_their_recorded_one() {
    let mut parts = fixtures::placement_parts("http://127.0.0.1:1", Arc::default());
    parts.default_scope.resource_group = String::new();
    let registry = PlacementRegistry::new(parts);
    let mut pool = pool("a");
    pool.spec.azure.resource_group = None;
    let node = registered(&pool, "earlier", &registry);
    let Err(InvalidSpec(mistake)) = registry.apply_spec(&pool, &[node]).await else {
        unreachable!("the spec is invalid");
    };
    assert!(mistake.contains("--resource-group"), "{mistake}");
    let running = registry.running.lock().await;
    assert_eq!(running[&weu()].spec.scope.resource_group, "earlier");
}

#[tokio::test]
async fn a_node_runs_for_one_pool_and_the_other_pool_gets_an_error() {
    let registry = registry("http://127.0.0.1:1");
    let named = |name: &str, placement: &str| {
        let mut pool = pool("a");
        pool.metadata.name = Some(name.to_owned());
        pool.metadata.uid = Some(format!("uid-{name}"));
        pool.spec.placements[0].name = placement.to_owned();
        pool
    };
    let (one, other) = (named("shop", "eu-west"), named("shop-eu", "west"));
    assert_eq!(registry.apply_spec(&one, &[]).await, Ok(()));
    let Err(InvalidSpec(mistake)) = registry.apply_spec(&other, &[]).await else {
        unreachable!("the node belongs to the other pool");
    };
    assert!(mistake.contains("belongs to pool shop:"), "{mistake}");
    assert!(registry.running_placements("shop-eu").await.is_empty());
    // Draining and removing the pool without a node must change nothing.
    registry
        .start_draining(&[PlacementId::new("shop-eu", "west")])
        .await;
    registry
        .delete_node(&PlacementId::new("shop-eu", "west"))
        .await
        .expect("nothing to remove");
    let running = registry.running.lock().await;
    assert!(
        running[&PlacementId::new("shop", "eu-west")]
            .registration
            .is_running()
    );
}

#[tokio::test]
async fn an_unreadable_pool_does_not_take_the_node_of_another_pool() {
    let registry = registry("http://127.0.0.1:1");
    let mut one = pool("a");
    one.spec.placements[0].name = "eu-west".to_owned();
    registry.apply_spec(&one, &[]).await.expect("it runs");
    let config = {
        let running = registry.running.lock().await;
        running[&PlacementId::new("shop", "eu-west")]
            .node_config
            .borrow()
            .clone()
    };
    // A node that a user relabelled: its name is the same for the other pool.
    let node = node_object::node(&config, Timestamp::now());
    let mut found = last_placement::discovered_node(&node, "shop-eu", "west");
    found.last_placement = Some(config.last_placement.clone());
    registry.resume_from_node(found.clone()).await;
    assert!(registry.running_placements("shop-eu").await.is_empty());

    let ids = [PlacementId::new("shop", "eu-west")];
    registry.start_draining(&ids).await;
    registry.end_placements("shop", &ids).await;
    registry.resume_from_node(found).await;
    assert_eq!(
        registry.running_placements("shop-eu").await,
        [PlacementId::new("shop-eu", "west")]
    );
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

#[tokio::test]
async fn a_placement_whose_groups_may_not_be_listed_is_neither_moved_nor_removed() {
    let body = r#"{"error": {"code": "AuthorizationFailed", "message": "no"}}"#;
    let arm = answering("403 Forbidden", body).await;
    let mut parts = fixtures::placement_parts(&arm, Arc::default());
    parts.client = without_pods();
    let client = parts.client.clone();
    let registry = Arc::new(PlacementRegistry::new(parts));
    let moved = pool("a");
    let node = registered(&moved, "earlier", &registry);
    // Rejected without a look at Azure, since the node says where its groups are.
    assert!(registry.apply_spec(&moved, &[node]).await.is_err());
    let Err(InvalidSpec(mistake)) = registry.apply_spec(&moved, &[]).await else {
        unreachable!("its groups may still run")
    };
    assert!(mistake.contains("Azure answers 403"), "{mistake}");
    let drain = PlacementDrain {
        client_no_retry: client.clone(),
        client,
        registry,
    };
    let left = drain.drain_and_remove_each(&[weu()]).await;
    let left = left.expect("pods are listed").concat();
    assert!(left.contains("Azure answers 403"), "{left}");
}

#[tokio::test]
async fn an_edited_placement_does_not_take_a_node_that_another_owner_has_meanwhile() {
    let registry = registry("http://127.0.0.1:1");
    let pool = pool("a");
    let scope = GroupScope {
        subscription: "s".to_owned(),
        resource_group: "rg".to_owned(),
    };
    let placement = &pool.spec.placements[0];
    let change = |node: &Node| {
        let live = LiveNode {
            read: None,
            watched: Some(node),
        };
        placement_change(&pool, placement, &Ok(scope.clone()), live, &[])
    };
    let wanted = PlacementSpec::from_pool(&pool, placement, &scope);
    let mut node = registered(&pool, "rg", &registry);
    assert_eq!(
        change(&node),
        PlacementChange::RunAsSpecified(wanted.clone())
    );
    // The watch may show a record from before a change of the resource group that this instance has made.
    let outdated = registered(&pool, "earlier", &registry);
    assert_eq!(change(&outdated), PlacementChange::RunAsSpecified(wanted));
    let labels = node.metadata.labels.get_or_insert_default();
    labels.insert(POOL_LABEL.to_owned(), "another".to_owned());
    let annotations = node.metadata.annotations.get_or_insert_default();
    annotations.insert(POOL_UID_ANNOTATION.to_owned(), "other".to_owned());
    assert!(matches!(change(&node), PlacementChange::Reject(_)));
}
