//! Each Event and status is written once, even if the API server does not answer for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use kube::client::Body;
use serde_json::json;

use super::super::attempts::AttemptKind;
use super::super::fixtures::{kubernetes, listed_worker};
use super::*;
use crate::aci::error::Error;
use crate::aci::failure::{ArmError, FailureClass, FailureVerdict};
use crate::aci::names::GroupName;
use crate::node::pod_plan;
use crate::node::pods::PodSettings;
use crate::node::pods::group_list::ListedState;
use crate::node::watched_pod::WatchedPod;

fn worker(status: &Arc<AtomicU16>) -> PodWorker {
    worker_with_client(kubernetes(status))
}

fn worker_with_client(client: kube::Client) -> PodWorker {
    listed_worker(client, ListedState::NotListed)
}

#[tokio::test]
async fn an_event_without_an_answer_is_written_later_and_a_refused_one_is_dropped() {
    let status = Arc::new(AtomicU16::new(503));
    let mut worker = worker(&status);
    worker.warn("FailedMount", "something is missing");
    worker.write_pending(PendingWrite::Event).await;
    assert_eq!(worker.events.len(), 1, "it is still pending");
    assert!(worker.next_write_at.is_some(), "and not in a loop");
    status.store(201, Ordering::Relaxed);
    worker.write_pending(PendingWrite::Event).await;
    assert_eq!(worker.events.len(), 0);

    status.store(403, Ordering::Relaxed);
    worker.warn("Unsupported", "something else");
    worker.write_pending(PendingWrite::Event).await;
    assert_eq!(worker.events.len(), 0, "its namespace may be terminating");
}

#[tokio::test]
async fn a_refused_status_is_retried_less_and_less_often_and_a_failed_one_soon() {
    let code = Arc::new(AtomicU16::new(403));
    let mut worker = worker(&code);
    let mut paused = async |answer: u16| {
        code.store(answer, Ordering::Relaxed);
        worker.write_status(&PodStatus::default()).await;
        let until = worker.next_write_at.take();
        until.map(|until| until.duration_since(Timestamp::now()).as_secs() + 1)
    };
    let mut pauses = Vec::new();
    for answer in [403, 403, 422, 503, 403, 403, 403, 403, 403] {
        pauses.push(paused(answer).await.unwrap_or_default());
    }
    assert_eq!(pauses, [10, 20, 40, 2, 60, 60, 60, 60, 60]);
    paused(200).await;
    assert_eq!(worker.rejections, 0, "a success ends the row");
}

#[tokio::test]
async fn a_refused_pod_is_tried_again_after_an_edit_that_its_translation_depends_on() {
    let mut worker = worker(&Arc::new(AtomicU16::new(201)));
    worker.state.mark_unsupported(Vec::new());
    let context = worker.context.clone();
    let mut edits = context.settings.subscribe();
    let mut is_noticed = |edit: fn(&mut PodSettings)| {
        let mut settings = (*context.settings()).clone();
        edit(&mut settings);
        context.change(settings.clone());
        assert_eq!(*context.settings(), settings);
        let is_noticed = edits.has_changed();
        edits.mark_unchanged();
        is_noticed.expect("the context is there")
    };
    assert!(!is_noticed(|now| now.placement.capacity.pods = 7));
    assert!(!is_noticed(
        |now| now.placement.labels = [("a".to_owned(), "b".to_owned())].into()
    ));
    assert!(!is_noticed(|now| now.deletion_cost = 5));
    assert!(is_noticed(|now| now.placement.zones = vec!["1".to_owned()]));
    assert!(is_noticed(
        |now| now.tags = [("a".to_owned(), "b".to_owned())].into()
    ));
    worker.settings_changed();
    assert!(!worker.state.pod_state().is_create_blocked);
    worker.mark_unreadable("odd");
    worker.settings_changed();
    assert!(
        worker.state.pod_state().is_create_blocked,
        "no edit makes it readable"
    );
}

fn watched(pod: serde_json::Value) -> WatchedPod {
    serde_json::from_value(pod).expect("it is never an error")
}

#[tokio::test]
async fn an_unreadable_pod_gets_an_event_keeps_its_status_and_can_be_deleted() {
    let mut worker = worker(&Arc::new(AtomicU16::new(201)));
    worker.apply_pod(watched(json!({
        "metadata": {"namespace": "shop", "name": "web", "uid": "1", "generation": 2},
        "spec": {"containers": "none"},
    })));
    assert!(matches!(
        worker.pending_write(Timestamp::now()),
        PendingWrite::Event
    ));
    let event = worker.events.pop().expect("an Event");
    assert_eq!(event.reason, "PodNotReadable");
    assert!(matches!(
        worker.pending_write(Timestamp::now()),
        PendingWrite::Nothing
    ));
    worker.state.pod_state_mut().group = pod_plan::GroupPresence::Absent { existed: false };
    let decided = |worker: &PodWorker| {
        let starts = crate::aci::poll_interval::StartLatencies::default();
        let (pod, state) = (worker.state.existing_pod(), worker.state.pod_state());
        pod_plan::next_action(pod, state, &starts, Timestamp::now()).action
    };
    assert_eq!(decided(&worker), PodAction::Wait);
    worker.apply_pod(watched(json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "1",
            "deletionTimestamp": "2026-07-01T00:00:00Z", "deletionGracePeriodSeconds": 0,
        },
        "spec": {"containers": "none"},
    })));
    assert_eq!(decided(&worker), PodAction::Remove);
}

#[tokio::test]
async fn a_changed_image_gets_an_event_if_the_group_runs_and_a_new_group_if_not() {
    let pod = |image: &str, generation: i64| {
        json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1", "generation": generation},
            "spec": {"containers": [{"name": "main", "image": image}]},
        })
    };
    let group = json!({"name": "g", "properties": {"containers": [
        {"name": "main", "properties": {"image": "web:1"}},
    ]}});
    for ran in [false, true] {
        let mut worker = worker(&Arc::new(AtomicU16::new(201)));
        worker.apply_pod(watched(pod("web:1", 1)));
        worker
            .state
            .set_group_view(View::from_value(&group).expect("a group"));
        worker.state.pod_state_mut().group = pod_plan::GroupPresence::Exists {
            since: Timestamp::now(),
            last_read: None,
            has_run: ran,
        };
        let wanted = |worker: &PodWorker| {
            let observation = worker.state.observation();
            let facts = NodeFacts::default();
            let status =
                status::pod_status(worker.state.pod(), &observation, &facts, Timestamp::now());
            status.observed_generation
        };
        assert_eq!(wanted(&worker), Some(1));
        worker.apply_pod(watched(pod("web:2", 2)));
        assert_eq!(
            worker.state.pod_state().has_failed_to_start,
            !ran,
            "it is deleted, and created again"
        );
        assert_eq!(
            wanted(&worker),
            None,
            "the group does not have the pod's image"
        );
        let message = worker.events.pop().map(|event| event.message);
        assert_eq!(message.is_some(), ran);
        assert!(message.is_none_or(|text| text.contains("web:1") && text.contains("web:2")));
    }
}

#[tokio::test]
async fn each_kind_of_attempt_has_its_own_back_off() {
    let mut worker = worker(&Arc::new(AtomicU16::new(201)));
    let verdict = FailureVerdict::new(FailureClass::Transient, None, "an outage".to_owned());
    let now = Timestamp::now();
    let retry_time = |worker: &PodWorker, action| worker.state.pod_state().retry_times.get(action);
    for _ in 0..5 {
        worker
            .state
            .record_failure(AttemptKind::Read, &verdict, now);
    }
    assert_eq!(retry_time(&worker, PodAction::Create), None);
    worker
        .state
        .record_failure(AttemptKind::Create, &verdict, now);
    let soon = Timestamp::now() + Duration::from_secs(2);
    assert!(retry_time(&worker, PodAction::Create).is_some_and(|until| until < soon));
    worker.state.record_success(AttemptKind::Read);
    assert_eq!(retry_time(&worker, PodAction::Refresh), None);
    assert!(retry_time(&worker, PodAction::Create).is_some());
    assert_eq!(worker.state.failure_count(AttemptKind::Create), 1);
}

#[tokio::test]
async fn an_image_that_changes_in_the_answer_to_a_status_write_gets_an_event() {
    use crate::aci::response::ContainerGroup as View;
    let pod = |generation: u32, version: u32, image: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": "web", "uid": "1", "generation": generation,
                "resourceVersion": version.to_string()},
            "spec": {"containers": [{"name": "a", "image": image}]},
            "status": {"phase": "Running"},
        })
    };
    let answered = pod(2, 12, "nginx:2").to_string();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let answer = http::Response::builder().status(200);
        std::future::ready(answer.body(Body::from(answered.clone().into_bytes())))
    });
    for is_written_between in [false, true] {
        let mut worker = worker_with_client(kube::Client::new(service.clone(), "default"));
        worker.apply_pod(watched(pod(1, 10, "nginx:1")));
        worker.state.pod_state_mut().group = pod_plan::GroupPresence::Exists {
            since: Timestamp::UNIX_EPOCH,
            last_read: None,
            has_run: true,
        };
        let view = json!({"name": "g", "properties": {"containers": [
            {"name": "a", "properties": {"image": "nginx:1"}}]}});
        worker
            .state
            .set_group_view(View::from_value(&view).expect("a group"));
        // The user sets the image (version 11); the worker writes a status (12), and the answer contains both.
        if is_written_between {
            worker.write_status(&PodStatus::default()).await;
        }
        worker.apply_pod(watched(pod(2, 11, "nginx:2")));
        worker.apply_pod(watched(pod(2, 12, "nginx:2")));
        let event = worker.events.pop();
        assert!(
            event.is_some_and(|event| event.reason == "ImageNotChanged"),
            "written between: {is_written_between}"
        );
    }
}

#[tokio::test]
async fn a_node_whose_pods_are_listed_after_its_groups_does_not_stay_full() {
    use crate::aci::client::QuotaUsage;
    use crate::burst::fixtures;
    use crate::node::pods::group_list::{GroupListing, ListedGroup};
    use crate::node::quota::RegionQuota;
    use std::collections::{HashMap, HashSet};
    let worker = worker(&Arc::new(AtomicU16::new(201)));
    let context = worker.context.clone();
    let quota = Arc::new(RegionQuota::default());
    quota.join(&context);
    let pods: Vec<_> = (0..50)
        .map(|n| fixtures::pod(&format!("p{n}")).on("n"))
        .collect();
    let name = |uid: &str| {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"namespace": "shop", "name": "x", "uid": uid}}),
        )
        .expect("a pod");
        GroupName::from_pod("c", &pod)
    };
    // A new leader: the LIST of groups has arrived; the LIST of pods has not, and the region check did not wait for
    // it.
    let groups: HashMap<String, ListedGroup> = pods
        .iter()
        .map(|pod| {
            (
                name(&pod.id.uid).as_str().to_owned(),
                ListedGroup::default(),
            )
        })
        .collect();
    context.apply_listing(GroupListing {
        requested_at: Timestamp::now(),
        groups,
        foreign: HashSet::new(),
    });
    let query = quota.begin_query();
    // The pods arrive while Azure answers.
    for pod in &pods {
        drop(context.watch_group(&pod.id.uid, &name(&pod.id.uid)));
        context
            .pod_facts
            .lock()
            .insert(pod.id.uid.clone(), Arc::new(pod.clone()));
    }
    let usage = |name: &str, used, limit| QuotaUsage {
        name: name.to_owned(),
        used,
        limit,
    };
    let usages = || {
        Some(vec![
            usage("StandardCores", 50, 90),
            usage("ContainerGroups", 50, 100),
        ])
    };
    quota.finish_query(query, usages());
    let offer = quota.offer(&context);
    assert_eq!(
        offer.allocatable.cpu_milli, 50_000,
        "they are counted twice"
    );
    context.pods_listed.send_replace(true);
    assert!(quota.is_outdated(), "Azure is asked again soon");
    quota.finish_query(quota.begin_query(), usages());
    assert!(!quota.is_outdated());
    let offer = quota.offer(&context);
    assert_eq!(
        (offer.allocatable.cpu_milli, offer.allocatable.pods),
        (90_000, 90)
    );
}

#[tokio::test]
async fn an_edit_of_the_settings_does_not_let_a_worker_write_a_foreign_group() {
    for (listed, is_refused) in [
        (ListedState::Foreign, true),
        (ListedState::NotListed, false),
    ] {
        let mut worker = listed_worker(kubernetes(&Arc::new(AtomicU16::new(201))), listed);
        worker.mark_foreign();
        assert!(worker.state.pod_state().is_create_blocked);
        worker.settings_changed();
        assert_eq!(worker.state.pod_state().is_create_blocked, is_refused);
    }
}

#[tokio::test]
async fn a_worker_does_not_wait_for_a_list_that_azure_refuses() {
    let worker = worker(&Arc::new(AtomicU16::new(201)));
    let context = worker.context.clone();
    let mut listed = context.watch_group("2", &worker.group_name);
    context.mark_unlisted();
    assert!(listed.has_changed().expect("the sender exists"));
    assert_eq!(*listed.borrow_and_update(), ListedState::Unlisted);
    context.mark_unlisted();
    assert!(!listed.has_changed().expect("the sender exists"), "once");
    context.apply_listing(crate::node::pods::group_list::GroupListing {
        requested_at: Timestamp::UNIX_EPOCH,
        groups: std::collections::HashMap::new(),
        foreign: std::collections::HashSet::new(),
    });
    let requested_at = Timestamp::UNIX_EPOCH;
    assert_eq!(
        *listed.borrow_and_update(),
        ListedState::Absent { requested_at }
    );
    context.mark_unlisted();
    assert!(
        !listed.has_changed().expect("the sender exists"),
        "it is listed"
    );
}

#[tokio::test]
async fn a_pod_whose_group_may_not_be_deleted_gets_an_event_with_the_remedy() {
    let mut worker = worker(&Arc::new(AtomicU16::new(201)));
    let refused = |status: u16| {
        let body = br#"{"error": {"code": "AuthorizationFailed", "message": "no role"}}"#;
        let failure = Box::new(ArmError::parse(status, body, None));
        let what = "deleting a container group".to_owned();
        Error::Refused { what, failure }
    };
    worker.call_failed(AttemptKind::Delete, &refused(403));
    assert!(worker.events.is_empty(), "the pod is not being deleted");
    worker.state.pod_mut().metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    worker.call_failed(AttemptKind::Delete, &refused(503));
    assert!(worker.events.is_empty(), "Azure will answer");
    for attempt in [AttemptKind::Read, AttemptKind::Delete] {
        worker.call_failed(attempt, &refused(403));
    }
    let event = worker.events.pop().expect("an Event");
    assert_eq!(event.reason, "FailedKillPod");
    let remedies = [
        "role on resource group rg",
        "kubectl delete pod web -n shop --force",
        "no role",
    ];
    for text in remedies {
        assert!(event.message.contains(text), "{}", event.message);
    }
    assert!(worker.events.is_empty(), "once");
}
