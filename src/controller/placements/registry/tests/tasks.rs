//! No pool waits for another's nodes or for an Azure that does not answer, and no task of a node continues after
//! its end.

use std::pin::pin;

use futures::poll;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::Priority;
use crate::controller::context::ControllerContext;
use crate::controller::run_context;

#[tokio::test]
async fn the_registry_is_not_locked_while_azure_counts_container_groups() {
    let (_silent, arm) = silent_azure().await;
    let registry = registry(&arm);
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");

    registry.start_draining(&[weu()]).await;
    let weu = weu();
    let mut counting = pin!(registry.count_groups(&weu));
    assert!(poll!(&mut counting).is_pending(), "Azure never answers");
    assert!(registry.running.try_lock().is_ok());
    let drained = registry.unavailable_placements(&pool("a")).await;
    assert_eq!(drained["weu"], "it is being drained");
}

#[tokio::test]
async fn the_registry_is_not_locked_while_the_tasks_of_a_changed_placement_end() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");

    let changed = recreated();
    let mut changing = pin!(registry.apply_spec(&changed, &[]));
    assert!(
        poll!(&mut changing).is_pending(),
        "the tasks take time to end"
    );
    assert!(registry.running.try_lock().is_ok());
    changing.await.expect("it runs");
    let running = registry.running.lock().await;
    assert_eq!(running[&weu()].spec.tags["team"], "b");
}

#[tokio::test]
async fn a_changed_placement_starts_again_at_once_while_azure_does_not_answer() {
    let (silent_azure, arm) = silent_azure().await;
    let registry = registry(&arm);
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    let _connection = usages_connection(&silent_azure).await;

    let changed = recreated();
    let ensured = timeout(10 * SOON, registry.apply_spec(&changed, &[])).await;
    ensured.expect("soon").expect("it runs");
    let running = registry.running.lock().await;
    assert_eq!(running[&weu()].spec.tags["team"], "b");
}

#[tokio::test]
async fn changed_placements_end_in_parallel() {
    let two = |mut pool: BurstPool| {
        let mut other = pool.spec.placements[0].clone();
        other.name = "neu".to_owned();
        pool.spec.placements.push(other);
        pool
    };
    let registry = registry("http://127.0.0.1:1");
    registry
        .apply_spec(&two(pool("a")), &[])
        .await
        .expect("both run");
    let running = registry.running.lock().await;
    let all = running.of_pool("shop");
    let all: Vec<CancellationToken> = all.map(|(_, task)| task.cancel.clone()).collect();
    drop(running);

    let changed = two(recreated());
    let mut changing = pin!(registry.apply_spec(&changed, &[]));
    assert!(
        poll!(&mut changing).is_pending(),
        "the tasks take time to end"
    );
    assert!(all.iter().all(CancellationToken::is_cancelled));
}

#[tokio::test]
async fn an_edit_reaches_running_tasks_and_restarts_only_those_that_need_another_node() {
    let registry = registry("http://127.0.0.1:1");
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");
    let before = {
        let running = registry.running.lock().await;
        let task = &running[&weu()];
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
        registry.apply_spec(&edited, &[]).await.expect("it runs");
        let running = registry.running.lock().await;
        let task = &running[&weu()];
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
        registry.apply_spec(&edited, &[]).await.expect("it runs");
        let running = registry.running.lock().await;
        let now = running[&weu()].pods.clone();
        assert!(!Arc::ptr_eq(&now, &known), "the tasks are restarted");
        known = now;
    }
}

#[tokio::test]
async fn node_tasks_end_with_the_leadership_even_during_a_reconciliation() {
    let parts = fixtures::parts("http://127.0.0.1:1");
    let context = Arc::new(ControllerContext::new(parts));
    let (registry, lead) = (context.registry.clone(), CancellationToken::new());
    registry.apply_spec(&pool("a"), &[]).await.expect("it runs");

    let losing = async {
        // Simulates a reconciliation in progress, for which the shutdown waits.
        let running = registry.running.lock().await;
        let tasks = running[&weu()].tasks.clone();
        tokio::task::yield_now().await;
        lead.cancel();
        tasks.close();
        timeout(SOON, tasks.wait()).await.expect("they end");
    };
    tokio::select! {
        () = run_context(context.clone(), lead.clone()) => unreachable!("it waits"),
        () = losing => {}
    }
}
