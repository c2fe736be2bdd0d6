//! Tests: which Events plans lead to, and when they are published again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use kube::client::Body;
use serde_json::json;

use super::queue::QUEUE_CAPACITY;
use super::*;
use crate::api::LossSet;
use crate::burst::decision::SlotState;
use crate::burst::outcome::HoldReason;
use crate::controller::fixtures;

fn plan(outcome: PodOutcome, is_dry_run: bool) -> BurstPlan {
    let decision = PodDecision {
        pod: PodReference {
            namespace: "default".to_owned(),
            name: "web-1".to_owned(),
            uid: "web-1".to_owned(),
            resource_version: "1".to_owned(),
        },
        workload: "web".to_owned(),
        outcome,
        slot: SlotState::None,
        hold_start: None,
    };
    BurstPlan {
        decisions: vec![decision],
        is_dry_run,
        ..BurstPlan::default()
    }
}

fn grant() -> PodOutcome {
    PodOutcome::Grant {
        placement: "weu".to_owned(),
        not_kept: LossSet::default(),
    }
}

/// The Events of these plans, in order.
fn published(plans: &[BurstPlan]) -> Vec<String> {
    let (queue, mut waiting) = EventQueue::new();
    let publisher = EventPublisher {
        published: PublishedEvents::default(),
        pool_states: HashMap::new(),
        queue,
    };
    for plan in plans {
        publisher.publish_plan(plan);
    }
    std::iter::from_fn(|| waiting.try_recv().ok())
        .map(|queued| queued.event)
        .map(|event| format!("{}: {}", event.reason, event.note.unwrap_or_default()))
        .collect()
}

#[test]
fn each_reason_is_published_once_until_its_content_changes() {
    let denied = || {
        let why = HoldReason::Denied("no".to_owned());
        let until = jiff::Timestamp::UNIX_EPOCH;
        plan(PodOutcome::Hold { until, why }, false)
    };
    let blocked = |by| plan(PodOutcome::Blocked(by), false);
    let rounds = [
        denied(),
        plan(grant(), false),
        denied(),
        blocked(BlockedBy::PoolLimit(1)),
        blocked(BlockedBy::Capacity("cpu")),
        blocked(BlockedBy::PoolLimit(1)),
        blocked(BlockedBy::PoolLimit(2)),
    ];
    let published = published(&rounds);
    let reasons: Vec<&str> = published
        .iter()
        .filter_map(|event| event.split(':').next())
        .collect();
    let limit = "PoolLimitReached";
    assert_eq!(reasons, ["GrantDenied", limit, "NoRoom", limit]);
}

#[test]
fn events_of_a_dry_run_are_marked_and_published_again_after_it() {
    let lack = || PodOutcome::Blocked(BlockedBy::PoolLimit(1));
    let published = published(&[plan(grant(), true), plan(lack(), true), plan(lack(), false)]);
    let is_marked: Vec<bool> = published
        .iter()
        .map(|event| event.contains("dry run"))
        .collect();
    assert_eq!(is_marked, [true, true, false], "{published:?}");
}

fn never_started(why: &str) -> BurstPlan {
    let plan = plan(grant(), false);
    BurstPlan {
        never_started: vec![NeverStarted {
            pod: plan.decisions[0].pod.clone(),
            action: RescueAction::Delete,
            owner: None,
            why: why.to_owned(),
            template_fault: None,
        }],
        ..plan
    }
}

#[test]
fn a_pod_that_never_started_gets_one_event_for_many_deletion_attempts() {
    let published = published(&["no quota: 3 of 4", "no quota: 4 of 4", "429"].map(never_started));
    assert_eq!(published, ["NeverStarted: no quota: 3 of 4"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_not_written_is_retried_and_then_published_with_a_later_plan() {
    let code = Arc::new(AtomicU16::new(503));
    let sent = Arc::new(AtomicU16::new(0));
    let (answer, counted) = (code.clone(), sent.clone());
    let service = tower::service_fn(move |_: http::Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let code = answer.load(Ordering::Relaxed);
        let status = json!({"kind": "Status", "status": "Failure", "reason": "", "message": "", "code": code});
        let event = json!({"metadata": {}, "eventTime": null});
        let body = if code < 400 { event } else { status };
        let answer = http::Response::builder().status(code);
        std::future::ready(answer.body(Body::from(body.to_string().into_bytes())))
    });
    let (publisher, publishing) = EventPublisher::new(Client::new(service, "default"), "us");
    let publishing = tokio::spawn(publishing);
    let lack = plan(PodOutcome::Blocked(BlockedBy::PoolLimit(1)), false);
    let sent_after = async |code_now: u16| {
        code.store(code_now, Ordering::Relaxed);
        publisher.publish_plan(&lack);
        tokio::time::sleep(Duration::from_secs(60)).await;
        sent.swap(0, Ordering::Relaxed)
    };
    assert_eq!(sent_after(503).await, 4, "the API server has no capacity");
    assert_eq!(sent_after(201).await, 1, "it was not published yet");
    assert_eq!(sent_after(201).await, 0, "it is published");
    publishing.abort();
}

#[tokio::test]
async fn a_grant_gets_its_event_when_it_took_effect_and_not_when_it_is_planned() {
    let planned = plan(grant(), false);
    assert_eq!(
        published(std::slice::from_ref(&planned)),
        Vec::<String>::new()
    );
    let client = fixtures::unreachable_client();
    let (publisher, _publishing) = EventPublisher::new(client, "us");
    assert_eq!(publisher.queue.free_capacity(), QUEUE_CAPACITY);
    publisher
        .result_notifier()
        .notify_granted(&planned.decisions[0]);
    assert_eq!(publisher.queue.free_capacity(), QUEUE_CAPACITY - 1);
}
