//! Which action is chosen for a pod, given what is known of its group.

use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn pod(phase: &str, ready: bool) -> Pod {
    let condition = PodCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        ..PodCondition::default()
    };
    let status = PodStatus {
        phase: Some(phase.into()),
        conditions: Some(vec![condition]),
        ..PodStatus::default()
    };
    Pod {
        spec: Some(PodSpec::default()),
        status: Some(status),
        ..Pod::default()
    }
}

fn leaving(mut pod: Pod, asked: i64, grace: i64) -> Pod {
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod.metadata.deletion_timestamp = Some(Time(at(asked + grace)));
    pod
}

fn state_with(group: GroupPresence) -> PodState {
    PodState {
        group,
        ..PodState::default()
    }
}

fn existing(since: i64, last_read: Option<i64>, has_run: bool) -> PodState {
    state_with(GroupPresence::Exists {
        since: at(since),
        last_read: last_read.map(at),
        has_run,
    })
}

fn decided(pod: &Pod, state: &PodState, now: i64) -> (PodAction, i64) {
    let decision = next_action(Some(pod), state, &StartLatencies::default(), at(now));
    (decision.action, decision.at.as_second())
}

#[test]
fn a_group_that_is_not_known_is_looked_for_first() {
    for pod in [
        pod("Pending", false),
        leaving(pod("Running", true), 0, 30),
        pod("Failed", false),
    ] {
        assert_eq!(
            decided(&pod, &PodState::default(), 5),
            (PodAction::Discover, 5)
        );
    }
}

#[test]
fn a_new_group_is_created_at_once_and_after_a_failure_when_its_back_off_ends() {
    let mut state = state_with(GroupPresence::Absent { existed: false });
    assert_eq!(
        decided(&pod("Pending", false), &state, 5),
        (PodAction::Create, 5)
    );
    state.retry_times.set(PodAction::Create, Some(at(60)));
    assert_eq!(
        decided(&pod("Pending", false), &state, 5),
        (PodAction::Create, 60)
    );
    state.is_create_blocked = true;
    assert_eq!(
        decided(&pod("Pending", false), &state, 5).0,
        PodAction::Wait
    );
}

#[test]
fn a_ready_pod_is_drained_for_3_s_or_its_grace_period_and_any_other_is_not() {
    let mut group = existing(0, Some(90), true);
    (group.deletion_seen_at, group.draining_since) = (Some(at(100)), Some(at(100)));
    assert_eq!(
        decided(&leaving(pod("Running", true), 100, 30), &group, 101),
        (PodAction::Delete, 103)
    );
    assert_eq!(
        decided(&leaving(pod("Running", true), 100, 1), &group, 101),
        (PodAction::Delete, 101)
    );
    assert_eq!(
        decided(&leaving(pod("Running", true), 100, 0), &group, 100),
        (PodAction::Delete, 100)
    );
    // It was Ready when its deletion was seen, and a hook has made it fail its readiness probe.
    assert_eq!(
        decided(&leaving(pod("Running", false), 100, 30), &group, 101),
        (PodAction::Delete, 103)
    );
    group.draining_since = None;
    assert_eq!(
        decided(&leaving(pod("Pending", false), 100, 30), &group, 101),
        (PodAction::Delete, 101)
    );
}

#[test]
fn a_deleted_pod_is_removed_only_when_its_group_is_gone() {
    let pod = leaving(pod("Running", true), 100, 30);
    let deleting = state_with(GroupPresence::Deleting {
        since: at(104),
        last_read: None,
    });
    assert_eq!(decided(&pod, &deleting, 104).0, PodAction::Refresh);
    let gone = state_with(GroupPresence::Absent { existed: true });
    assert_eq!(decided(&pod, &gone, 105), (PodAction::Remove, 105));
}

#[test]
fn the_group_of_a_pod_that_was_deleted_by_force_is_deleted_too() {
    let starts = StartLatencies::default();
    let decide = |state: &PodState| next_action(None, state, &starts, at(9)).action;
    assert_eq!(decide(&PodState::default()), PodAction::Discover);
    assert_eq!(decide(&existing(0, None, false)), PodAction::Delete);
    assert_eq!(
        decide(&state_with(GroupPresence::Absent { existed: true })),
        PodAction::Remove
    );
}

#[test]
fn the_group_of_a_finished_pod_is_kept_for_its_logs_and_not_created_again() {
    let group = existing(0, Some(90), true);
    assert_eq!(
        decided(&pod("Succeeded", false), &group, 100),
        (PodAction::Delete, 400)
    );
    let gone = state_with(GroupPresence::Absent { existed: true });
    assert_eq!(
        decided(&pod("Failed", false), &gone, 100).0,
        PodAction::Wait
    );
}

#[test]
fn the_group_of_a_finished_pod_is_kept_for_its_logs_whatever_the_clock_skew() {
    // The pod ended at 100 by Azure's clock; the operator saw its end at this time by its own.
    let mut ended = pod("Succeeded", false);
    let conditions = ended.status.as_mut().and_then(|s| s.conditions.as_mut());
    conditions.expect("conditions")[0].last_transition_time = Some(Time(at(100)));
    for (seen, deleted) in [
        (100, 400),
        (250, 400),
        (390, 420),
        (7_000, 7_030),
        (-7_000, -6_700),
    ] {
        let mut group = existing(0, Some(seen), true);
        group.finished = Some(at(seen));
        for now in [seen, deleted - 1] {
            let due = decided(&ended, &group, now);
            assert_eq!(due, (PodAction::Delete, deleted), "seen at {seen}");
        }
    }
}

#[test]
fn a_group_that_azure_restarts_after_its_pod_finished_is_deleted_at_once() {
    let mut group = existing(0, Some(90), true);
    assert_eq!(
        decided(&pod("Failed", false), &group, 100).0,
        PodAction::Refresh
    );
    group.group = GroupPresence::Exists {
        since: at(0),
        last_read: Some(at(399)),
        has_run: true,
    };
    assert_eq!(
        decided(&pod("Failed", false), &group, 100),
        (PodAction::Delete, 400)
    );
    group.is_alive = true;
    assert_eq!(
        decided(&pod("Failed", false), &group, 100),
        (PodAction::Delete, 100)
    );
}

#[test]
fn a_group_that_could_not_be_started_is_deleted_at_once_and_created_again_later() {
    let mut group = existing(0, Some(90), false);
    group.has_failed_to_start = true;
    group.retry_times.set(PodAction::Create, Some(at(200)));
    let pending = pod("Pending", false);
    assert_eq!(decided(&pending, &group, 100), (PodAction::Delete, 100));
    group.retry_times.set(PodAction::Delete, Some(at(130)));
    assert_eq!(
        decided(&pending, &group, 100),
        (PodAction::Delete, 130),
        "a delete that failed is not tried in a loop"
    );
    (group.has_failed_to_start, group.group) = (false, GroupPresence::Absent { existed: true });
    assert_eq!(decided(&pending, &group, 100), (PodAction::Create, 200));
}

#[test]
fn a_group_that_vanished_before_it_ran_is_created_again_and_one_that_ran_is_not() {
    let gone = state_with(GroupPresence::Absent { existed: true });
    let never_created = state_with(GroupPresence::Absent { existed: false });
    for state in [&gone, &never_created] {
        let (action, _) = decided(&pod("Running", true), state, 100);
        assert_eq!(
            action,
            PodAction::Wait,
            "its controller creates another pod"
        );
    }
    assert_eq!(
        decided(&pod("Pending", false), &gone, 100),
        (PodAction::Create, 100)
    );
}

#[test]
fn a_running_group_is_read_rarely_unless_it_is_stale() {
    let mut group = existing(0, Some(1000), true);
    let (action, at) = decided(&pod("Running", true), &group, 1001);
    assert!(
        action == PodAction::Refresh && (1067..1203).contains(&at),
        "{at}"
    );
    group.is_stale = true;
    assert_eq!(
        decided(&pod("Running", true), &group, 1001),
        (PodAction::Refresh, 1001)
    );
}

#[test]
fn the_back_off_of_one_action_does_not_delay_another() {
    let leaving = leaving(pod("Pending", false), 100, 30);
    let mut uncreated = state_with(GroupPresence::Absent { existed: false });
    uncreated.retry_times.set(PodAction::Create, Some(at(3600)));
    assert_eq!(decided(&leaving, &uncreated, 100), (PodAction::Remove, 100));
    let mut unread = existing(0, Some(90), true);
    unread.retry_times.set(PodAction::Refresh, Some(at(3600)));
    assert_eq!(decided(&leaving, &unread, 100), (PodAction::Delete, 100));
}

#[test]
fn a_pod_is_drained_by_the_operators_clock_whatever_the_api_servers_is() {
    let mut group = existing(0, Some(90), true);
    (group.deletion_seen_at, group.draining_since) = (Some(at(100)), Some(at(100)));
    for skew in [-3600, 3600] {
        let pod = leaving(pod("Running", true), 100 + skew, 30);
        assert_eq!(
            decided(&pod, &group, 101),
            (PodAction::Delete, 103),
            "{skew} s"
        );
    }
}

#[test]
fn the_group_of_a_finished_pod_without_end_times_is_deleted_too() {
    let mut group = existing(0, Some(390), true);
    let mut ended = pod("Succeeded", false);
    assert_eq!(decided(&ended, &group, 400), (PodAction::Delete, 700));
    let conditions = ended.status.as_mut().and_then(|s| s.conditions.as_mut());
    conditions.expect("conditions")[0].last_transition_time = Some(Time(at(50)));
    group.finished = Some(at(100));
    assert_eq!(decided(&ended, &group, 400), (PodAction::Delete, 350));
}

/// If the resource group was deleted, a DELETE answers that there is no group, and there is no LIST.
#[test]
fn a_pod_ends_although_its_resource_group_is_gone() {
    let mut state = PodState::default();
    state.put_accepted(at(0));
    let reading = GroupReading {
        sent_at: at(30),
        is_deleting: false,
        has_started: true,
    };
    state.group_seen(reading, at(30));
    let pod = leaving(pod("Running", true), 100, 30);
    state.deletion_seen_at = Some(at(100));
    let mut deletes = 0;
    for now in 100..7200 {
        let (action, due) = decided(&pod, &state, now);
        if due > now {
            continue;
        }
        match action {
            PodAction::Delete => {
                deletes += 1;
                state.group_not_found(Some(&pod), None, at(now));
            }
            // The worker sets this back-off after a read that failed.
            PodAction::Refresh | PodAction::Discover => {
                state
                    .retry_times
                    .set(PodAction::Refresh, Some(at(now + 15)));
            }
            PodAction::Remove => return,
            other => unreachable!("{other:?}"),
        }
    }
    unreachable!("Terminating for ever, after {deletes} DELETE: {state:?}");
}

#[test]
fn throttled_reads_do_not_delay_a_delete() {
    let mut state = PodState::default();
    state.put_accepted(at(0));
    // The first GET came too early; the following GETs are throttled.
    state.group_not_found(None, None, at(2));
    state.retry_times.set(PodAction::Refresh, Some(at(3600)));
    let pod = leaving(pod("Pending", false), 10, 30);
    state.deletion_seen_at = Some(at(10));
    let (action, due) = decided(&pod, &state, 60);
    assert!(
        action == PodAction::Delete && due <= 60,
        "{action:?} at {due}"
    );
    // The other way round, a GET shows whether the group is gone.
    state.retry_times.set(PodAction::Refresh, None);
    state.retry_times.set(PodAction::Delete, Some(at(3600)));
    let (action, due) = decided(&pod, &state, 60);
    assert!(
        action == PodAction::Refresh && due <= 60,
        "{action:?} at {due}"
    );
}

#[test]
fn the_group_of_a_pod_that_exceeded_its_deadline_is_deleted_at_once_and_none_is_created() {
    let running = pod("Running", true);
    let mut state = existing(0, Some(90), true);
    assert_eq!(decided(&running, &state, 100).0, PodAction::Refresh);
    state.deadline_seen_at = Some(at(90));
    assert_eq!(decided(&running, &state, 100), (PodAction::Delete, 100));
    // The deadline does not shorten the wait of a pod that is being deleted.
    let deleted = leaving(running, 98, 30);
    (state.deletion_seen_at, state.draining_since) = (Some(at(99)), Some(at(99)));
    assert_eq!(decided(&deleted, &state, 100), (PodAction::Delete, 102));

    let late = pod("Pending", false);
    let mut absent = state_with(GroupPresence::Absent { existed: false });
    assert_eq!(decided(&late, &absent, 100).0, PodAction::Create);
    absent.deadline_seen_at = Some(at(90));
    assert_eq!(decided(&late, &absent, 100).0, PodAction::Wait);
}

#[test]
fn a_put_without_an_answer_is_not_sent_again_after_the_deadline() {
    let late = pod("Pending", false);
    let mut state = existing(0, None, false);
    state.put_unanswered(at(10));
    state.group_not_found(Some(&late), None, at(11));
    assert_eq!(decided(&late, &state, 11).0, PodAction::Create);
    state.deadline_seen_at = Some(at(90));
    assert_eq!(decided(&late, &state, 11).0, PodAction::Discover);
}

#[test]
fn only_a_pod_that_has_not_finished_exceeds_its_deadline() {
    let mut pod = pod("Running", true);
    pod.spec.as_mut().expect("a spec").active_deadline_seconds = Some(60);
    assert!(!is_past_deadline(&pod, at(1000)), "it has no start time");
    let status = pod.status.as_mut().expect("a status");
    status.start_time = Some(Time(at(10)));
    assert!(!is_past_deadline(&pod, at(69)) && is_past_deadline(&pod, at(70)));
    pod.status.as_mut().expect("a status").phase = Some("Succeeded".into());
    assert!(!is_past_deadline(&pod, at(70)));
}
