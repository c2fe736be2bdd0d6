//! That no pool waits for another's nodes: what takes long is awaited without the lock on what is kept.

use std::pin::pin;

use futures::poll;
use serde_json::json;

use super::*;
use crate::controller::fixtures::context;

/// A pool of one placement, with such tags.
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

#[tokio::test]
async fn nobody_waits_while_azure_is_asked_for_the_groups_of_a_node_that_is_drained() {
    // It takes connections, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("a port");
    let arm = format!("http://{}", silent.local_addr().expect("an address"));
    let context = context(&arm);
    ensure(&pool("a"), &context).await.expect("it is kept");

    let mut closing = pin!(close("shop", "weu", &context));
    assert!(poll!(&mut closing).is_pending(), "Azure never answers");
    assert!(context.pools.try_lock().is_ok());
    let drained = closed_regions(&pool("a"), &context).await;
    assert_eq!(drained["weu"], "it is being drained");
}

#[tokio::test]
async fn nobody_waits_while_the_tasks_of_a_placement_that_changed_end() {
    let context = context("http://127.0.0.1:1");
    ensure(&pool("a"), &context).await.expect("it is kept");

    let changed = pool("b");
    let mut changing = pin!(ensure(&changed, &context));
    assert!(
        poll!(&mut changing).is_pending(),
        "tasks end later than at once"
    );
    assert!(context.pools.try_lock().is_ok());
    changing.await.expect("it is kept");
    let pools = context.pools.lock().await;
    assert_eq!(pools["shop"].placements["weu"].tags["team"], "b");
}
