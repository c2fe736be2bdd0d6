//! A worker runs hooks, with an API server that accepts nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::fixtures::{kubernetes, listed_worker};
use super::*;
use crate::aci::response::ContainerGroup;
use crate::node::pod_plan::PodAction;
use crate::node::pods::group_list::ListedState;

/// A worker whose pod is being deleted, and has a running container for each of these hooks.
fn worker(hooks: &[(&str, Value)]) -> PodWorker {
    let mut worker = listed_worker(
        kubernetes(&Arc::new(AtomicU16::new(503))),
        ListedState::NotListed,
    );
    let containers = hooks
        .iter()
        .map(|(name, hook)| json!({"name": name, "lifecycle": {"preStop": hook}}));
    let statuses = hooks.iter().map(|(name, _)| {
        json!({"name": name, "image": "", "imageID": "", "restartCount": 0, "ready": true,
            "state": {"running": {"startedAt": "2026-07-01T00:00:00Z"}}})
    });
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "1",
            "deletionTimestamp": Timestamp::now().to_string(), "deletionGracePeriodSeconds": 600},
        "spec": {"containers": containers.collect::<Vec<_>>()},
        "status": {"phase": "Running", "containerStatuses": statuses.collect::<Vec<_>>()},
    });
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    *worker.state.pod_mut() = pod;
    let now = Timestamp::now();
    let group = json!({"name": "g", "properties": {"provisioningState": "Succeeded",
        "ipAddress": {"ip": "127.0.0.1"}, "containers": []}});
    let group = ContainerGroup::from_value(&group).expect("a group");
    worker.state.set_group_view(group);
    worker.state.pod_state_mut().group_listed(now, now);
    worker
}

/// The hooks whose request nothing answers: nothing listens at this port.
fn unanswered() -> Value {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    json!({"httpGet": {"port": port}})
}

fn decide(worker: &mut PodWorker) -> PodAction {
    let now = Timestamp::now();
    let decision = worker.next_action(now);
    // Reads go on meanwhile.
    if decision.at <= now && !decision.action.is_read() {
        decision.action
    } else {
        PodAction::Wait
    }
}

fn running(worker: &PodWorker) -> Vec<&str> {
    let progress = worker.hooks.progress().expect("hooks have begun");
    progress.running.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn all_hooks_run_at_the_same_time_and_one_that_fails_is_told_and_holds_nothing_back() {
    let sleep = json!({"sleep": {"seconds": 300}});
    let mut worker = worker(&[("main", unanswered()), ("log", sleep)]);
    assert_eq!(decide(&mut worker), PodAction::RunHooks);
    worker.execute(PodAction::RunHooks).await;
    assert_eq!(running(&worker), ["log", "main"]);
    assert_eq!(decide(&mut worker), PodAction::Wait);

    let end = worker.hooks.ended().await;
    worker.hook_ended(end).await;
    assert_eq!(running(&worker), ["log"]);
    let event = worker.events.pop().expect("an Event");
    assert_eq!(
        (
            event.reason.as_str(),
            event.message.as_str(),
            event.event_type
        ),
        ("FailedPreStopHook", "PreStopHook failed", "Warning")
    );
    assert_eq!(event.field_path.as_deref(), Some("spec.containers{main}"));
    assert_eq!(decide(&mut worker), PodAction::Wait);

    // A second deletion with a shorter grace period leaves the other hook behind.
    worker
        .state
        .pod_mut()
        .metadata
        .deletion_grace_period_seconds = Some(0);
    assert_eq!(decide(&mut worker), PodAction::Delete);
    worker.leave_hooks();
    assert!(running(&worker).is_empty());
    let ended = tokio::time::timeout(Duration::from_millis(20), worker.hooks.ended());
    assert!(ended.await.is_err(), "nothing runs");
}

#[tokio::test]
async fn the_group_is_deleted_when_the_last_hook_has_ended() {
    let sleep = json!({"sleep": {"seconds": 0}});
    let mut worker = worker(&[("main", sleep.clone()), ("log", sleep)]);
    worker.next_action(Timestamp::now());
    worker.execute(PodAction::RunHooks).await;
    for left in [1, 0] {
        assert_eq!(decide(&mut worker), PodAction::Wait);
        let end = worker.hooks.ended().await;
        worker.hook_ended(end).await;
        assert_eq!(running(&worker).len(), left);
    }
    assert_eq!(decide(&mut worker), PodAction::Delete);
    assert!(worker.events.is_empty());
}
