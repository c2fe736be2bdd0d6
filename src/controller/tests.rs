//! Tests: how often statuses are written after plans, and the deadline of a reconciliation.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::{Client, Config};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::change_events::{STATUS_DEBOUNCE, debounced};
use super::context::ControllerContext;
use super::{fixtures, reconcile};

#[tokio::test(start_paused = true)]
async fn constant_changes_yield_one_item_per_second_including_the_last_change() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let changes = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let sending = tokio::spawn(async move {
        for _ in 0..500 {
            sender.send(()).expect("the stream is read");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let began = Instant::now();
    let written = debounced(changes).map(|()| began.elapsed());
    let written: Vec<Duration> = written.collect().await;
    sending.await.expect("the task ends");
    let (collect_time, min_interval) = STATUS_DEBOUNCE;
    assert_eq!(written.first(), Some(&collect_time), "the first is soon");
    assert!(
        written
            .windows(2)
            .all(|two| two[1] >= two[0] + min_interval),
        "{written:?}"
    );
    assert_eq!(written.len(), 6);
    let last = written.last().copied().unwrap_or_default();
    assert!(last >= Duration::from_millis(4990), "{written:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reconciliation_ends_if_the_api_server_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let config = Config::new(url.parse().expect("a URL"));
    let mut parts = fixtures::parts("http://127.0.0.1:1");
    parts.client = Client::try_from(config).expect("a client");
    parts.placements.client = parts.client.clone();
    let context = Arc::new(ControllerContext::new(parts));
    let (finalizers, deleted_at) = (json!(["burstpool.io/drain"]), "2026-11-24T10:00:00Z");
    for metadata in [
        json!({"name": "new"}),
        json!({"name": "kept", "finalizers": finalizers}),
        json!({"name": "leaves", "finalizers": finalizers, "deletionTimestamp": deleted_at}),
    ] {
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool", "metadata": metadata,
            "spec": {
                "azure": {"subscriptionId": "s", "resourceGroup": "rg"},
                "placements": [{"name": "weu", "region": "westeurope"}],
            },
        });
        let pool = serde_json::from_value(pool).expect("a pool");
        let reconciled = reconcile::reconcile(Arc::new(pool), context.clone());
        let reconciled = tokio::time::timeout(Duration::from_secs(900), reconciled).await;
        assert!(
            reconciled.expect("the reconciliation ends").is_err(),
            "{metadata}"
        );
    }
}
