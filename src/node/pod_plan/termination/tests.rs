//! When hooks run, and how long the DELETE waits for them.

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::{GroupPresence, PodAction, StartLatencies, next_action};
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

/// A pod whose containers `main` and `log` run: one asks for a sleep of 20 s, the other for a request.
fn pod() -> Pod {
    let status = |name: &str| {
        json!({"name": name, "image": "", "imageID": "", "restartCount": 0, "ready": true,
            "state": {"running": {"startedAt": at(0).to_string()}}})
    };
    let pod = json!({
        "spec": {"terminationGracePeriodSeconds": 45, "containers": [
            {"name": "main", "lifecycle": {"preStop": {"sleep": {"seconds": 20}}}},
            {"name": "log", "lifecycle": {"preStop": {"httpGet": {"port": 8080}}}},
            {"name": "other"},
        ]},
        "status": {"phase": "Running",
            "containerStatuses": [status("main"), status("log"), status("other")]},
    });
    serde_json::from_value(pod).expect("a pod")
}

/// The pod, deleted at 100 with this grace period.
fn deleted(grace: i64) -> Pod {
    let mut pod = pod();
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod.metadata.deletion_timestamp = Some(Time(at(100 + grace)));
    pod
}

/// The condition that the hooks of these containers have begun at 100 and not ended.
fn record(pod: &mut Pod, running: &[&str]) {
    let progress = running.iter().map(|name| (*name).to_owned()).collect();
    let condition = PodCondition {
        type_: "burstpool.io/PreStop".to_owned(),
        status: if running.is_empty() { "True" } else { "False" }.to_owned(),
        message: crate::aci::status::PreStopProgress { running: progress }.message(),
        last_transition_time: Some(Time(at(100))),
        ..PodCondition::default()
    };
    pod.status.as_mut().expect("a status").conditions = Some(vec![condition]);
}

/// What is known of a pod whose end was first seen at `seen`.
fn state(seen: i64, hooks: HookPhase) -> PodState {
    PodState {
        group: GroupPresence::Exists {
            since: at(0),
            last_read: Some(at(90)),
            has_run: true,
        },
        deletion_seen_at: Some(at(seen)),
        hooks,
        ..PodState::default()
    }
}

fn decided(pod: Option<&Pod>, state: &PodState, now: i64) -> (PodAction, i64) {
    let decision = next_action(pod, state, &StartLatencies::default(), at(now));
    (decision.action, decision.at.as_second())
}

fn names(pod: &Pod) -> Vec<String> {
    due_hooks(pod).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn hooks_run_at_once_and_the_group_is_deleted_when_they_have_ended_or_the_grace_period_is_over() {
    use HookPhase::{Ended, NotStarted, Running};
    use PodAction::{Delete, RunHooks};
    for (hooks, grace, now, wanted) in [
        (NotStarted, 30, 100, (RunHooks, 100)),
        (Running, 30, 100, (Delete, 130)),
        (Running, 30, 129, (Delete, 130)),
        (Ended, 30, 101, (Delete, 101)),
        // A hook outlives the grace period.
        (Running, 30, 130, (Delete, 130)),
        (NotStarted, 30, 130, (Delete, 130)),
        // A second deletion shortens it.
        (Running, 5, 103, (Delete, 105)),
        (Running, 5, 106, (Delete, 106)),
        // A grace period of zero.
        (NotStarted, 0, 100, (Delete, 100)),
        (Running, 0, 100, (Delete, 100)),
    ] {
        let decision = decided(Some(&deleted(grace)), &state(100, hooks), now);
        assert_eq!(decision, wanted, "{hooks:?} {grace} {now}");
    }
}

#[test]
fn the_group_is_read_while_its_hooks_run() {
    let pod = deleted(3600);
    let mut state = state(100, HookPhase::Running);
    let (action, due) = decided(Some(&pod), &state, 101);
    assert!(
        action == PodAction::Refresh && due < 3700,
        "{action:?} at {due}"
    );
    state.is_stale = true;
    assert_eq!(decided(Some(&pod), &state, 101), (PodAction::Refresh, 101));
    state.group_not_found(Some(&pod), None, at(101));
    assert_eq!(decided(Some(&pod), &state, 101).0, PodAction::Refresh);
    assert_eq!(decided(Some(&pod), &state, 3700).0, PodAction::Delete);
}

#[test]
fn a_deletion_by_force_ends_the_hooks() {
    let state = state(100, HookPhase::Running);
    assert_eq!(decided(None, &state, 101), (PodAction::Delete, 101));
}

#[test]
fn services_drop_a_pod_while_its_hooks_run() {
    let mut state = state(100, HookPhase::NotStarted);
    state.draining_since = Some(at(100));
    let pod = deleted(30);
    assert_eq!(decided(Some(&pod), &state, 100).0, PodAction::RunHooks);
    state.hooks = HookPhase::Ended;
    assert_eq!(decided(Some(&pod), &state, 101), (PodAction::Delete, 103));
    assert_eq!(decided(Some(&pod), &state, 120).0, PodAction::Delete);
}

#[test]
fn the_hooks_of_all_containers_that_run_are_due_and_no_others() {
    let mut pod = deleted(30);
    assert_eq!(names(&pod), ["main", "log"]);
    let statuses = pod
        .status
        .as_mut()
        .and_then(|s| s.container_statuses.as_mut());
    statuses.expect("statuses")[0].state = None;
    assert_eq!(names(&pod), ["log"]);
    pod.status = None;
    let state = state(100, HookPhase::NotStarted);
    assert_eq!(decided(Some(&pod), &state, 100), (PodAction::Delete, 100));
}

#[test]
fn another_leader_goes_on_with_the_hooks_that_have_not_ended() {
    let mut pod = deleted(30);
    record(&mut pod, &["main"]);
    assert_eq!(names(&pod), ["main"], "the other one has ended");
    // It sees the pod for the first time after 12 s.
    let state = state(112, HookPhase::NotStarted);
    assert_eq!(decided(Some(&pod), &state, 112), (PodAction::RunHooks, 112));
    let grace = GracePeriod::of(&pod, &state).expect("the pod ends");
    assert_eq!(
        (grace.ends_at(), grace.left(at(112))),
        (at(131), Duration::from_secs(19))
    );
    let sleep = Duration::from_secs(20);
    assert_eq!(grace.left_of(sleep, at(112)), Duration::from_secs(9));
    record(&mut pod, &[]);
    assert_eq!(decided(Some(&pod), &state, 113), (PodAction::Delete, 113));
}

#[test]
fn a_leader_with_a_clock_ahead_does_not_lengthen_the_grace_period_of_the_next() {
    let mut pod = deleted(30);
    record(&mut pod, &["main"]);
    let grace = GracePeriod::of(&pod, &state(40, HookPhase::NotStarted));
    assert_eq!(grace.expect("the pod ends").ends_at(), at(70));
}

#[test]
fn a_sleep_ends_with_the_grace_period() {
    let grace = GracePeriod::of(&deleted(10), &state(100, HookPhase::NotStarted));
    let grace = grace.expect("the pod ends");
    let sleep = Duration::from_secs(20);
    assert_eq!(grace.left_of(sleep, at(100)), Duration::from_secs(10));
    assert_eq!(grace.left_of(sleep, at(111)), Duration::ZERO);
}

#[test]
fn a_pod_whose_deadline_is_over_has_the_grace_period_of_its_spec() {
    let mut late = state(0, HookPhase::NotStarted);
    (late.deletion_seen_at, late.deadline_seen_at) = (None, Some(at(100)));
    assert_eq!(
        decided(Some(&pod()), &late, 100),
        (PodAction::RunHooks, 100)
    );
    late.hooks = HookPhase::Running;
    assert_eq!(decided(Some(&pod()), &late, 101), (PodAction::Delete, 145));
}

#[test]
fn a_pod_that_does_not_end_runs_no_hook() {
    let mut going = state(0, HookPhase::NotStarted);
    going.deletion_seen_at = None;
    assert_eq!(decided(Some(&pod()), &going, 100).0, PodAction::Refresh);
    // Its group is replaced, because it did not start.
    going.has_failed_to_start = true;
    assert_eq!(decided(Some(&pod()), &going, 100).0, PodAction::Delete);
}

#[test]
fn hooks_run_although_the_last_answer_did_not_find_the_group() {
    let mut state = state(100, HookPhase::NotStarted);
    let pod = deleted(30);
    state.group_not_found(Some(&pod), None, at(99));
    assert_eq!(decided(Some(&pod), &state, 100), (PodAction::RunHooks, 100));
}
