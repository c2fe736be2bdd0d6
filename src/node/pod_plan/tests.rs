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

fn known(group: GroupPresence) -> PodState {
    PodState {
        group,
        ..PodState::default()
    }
}

fn there(since: i64, read: Option<i64>, ran: bool) -> PodState {
    known(GroupPresence::Exists {
        since: at(since),
        last_read: read.map(at),
        has_run: ran,
    })
}

fn decided(pod: &Pod, known: &PodState, now: i64) -> (PodAction, i64) {
    let decision = next_action(Some(pod), known, &StartLatencies::default(), at(now));
    (decision.action, decision.at.as_second())
}

#[test]
fn a_pod_whose_group_is_not_known_of_is_looked_at_before_anything_else() {
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
fn a_new_pod_is_created_at_once_and_after_a_failure_not_before_its_time() {
    let mut known = known(GroupPresence::Absent { existed: false });
    assert_eq!(
        decided(&pod("Pending", false), &known, 5),
        (PodAction::Create, 5)
    );
    known.retry_times.set(PodAction::Create, Some(at(60)));
    assert_eq!(
        decided(&pod("Pending", false), &known, 5),
        (PodAction::Create, 60)
    );
    known.is_refused = true;
    assert_eq!(
        decided(&pod("Pending", false), &known, 5).0,
        PodAction::Wait
    );
}

#[test]
fn a_ready_pod_that_leaves_is_drained_for_3_s_or_its_grace_period_and_any_other_goes_at_once() {
    let mut group = there(0, Some(90), true);
    group.deletion_seen_at = Some(at(100));
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
    assert_eq!(
        decided(&leaving(pod("Pending", false), 100, 30), &group, 101),
        (PodAction::Delete, 101)
    );
}

#[test]
fn a_pod_that_leaves_is_removed_when_its_group_is_gone_and_not_before() {
    let pod = leaving(pod("Running", true), 100, 30);
    let going = known(GroupPresence::Deleting {
        since: at(104),
        last_read: None,
    });
    assert_eq!(decided(&pod, &going, 104).0, PodAction::Refresh);
    let gone = known(GroupPresence::Absent { existed: true });
    assert_eq!(decided(&pod, &gone, 105), (PodAction::Remove, 105));
}

#[test]
fn the_group_of_a_pod_that_was_deleted_by_force_goes_all_the_same() {
    let starts = StartLatencies::default();
    let decide = |known: &PodState| next_action(None, known, &starts, at(9)).action;
    assert_eq!(decide(&PodState::default()), PodAction::Discover);
    assert_eq!(decide(&there(0, None, false)), PodAction::Delete);
    assert_eq!(
        decide(&known(GroupPresence::Absent { existed: true })),
        PodAction::Remove
    );
}

#[test]
fn a_finished_pods_group_is_kept_for_its_logs_and_then_deleted_and_never_made_again() {
    let group = there(0, Some(90), true);
    assert_eq!(
        decided(&pod("Succeeded", false), &group, 100),
        (PodAction::Delete, 400)
    );
    let gone = known(GroupPresence::Absent { existed: true });
    assert_eq!(
        decided(&pod("Failed", false), &gone, 100).0,
        PodAction::Wait
    );
}

#[test]
fn a_finished_pods_group_is_kept_for_as_long_as_its_logs_are_read_whatever_the_clocks_say() {
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
        let mut group = there(0, Some(seen), true);
        group.finished = Some(at(seen));
        for now in [seen, deleted - 1] {
            let due = decided(&ended, &group, now);
            assert_eq!(due, (PodAction::Delete, deleted), "seen at {seen}");
        }
    }
}

#[test]
fn what_azure_starts_again_although_the_pod_is_finished_is_noticed_and_deleted_at_once() {
    let mut group = there(0, Some(90), true);
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
fn a_group_that_could_not_be_started_is_deleted_at_once_and_made_again_later() {
    let mut group = there(0, Some(90), false);
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
    let gone = known(GroupPresence::Absent { existed: true });
    let never = known(GroupPresence::Absent { existed: false });
    for known in [&gone, &never] {
        let (action, _) = decided(&pod("Running", true), known, 100);
        assert_eq!(action, PodAction::Wait, "its owner makes another pod");
    }
    assert_eq!(
        decided(&pod("Pending", false), &gone, 100),
        (PodAction::Create, 100)
    );
}

#[test]
fn a_running_group_is_read_rarely_unless_somebody_says_that_it_changed() {
    let mut group = there(0, Some(1000), true);
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
fn what_must_wait_holds_up_nothing_else() {
    let leaving = leaving(pod("Pending", false), 100, 30);
    let mut unmade = known(GroupPresence::Absent { existed: false });
    unmade.retry_times.set(PodAction::Create, Some(at(3600)));
    assert_eq!(decided(&leaving, &unmade, 100), (PodAction::Remove, 100));
    let mut unread = there(0, Some(90), true);
    unread.retry_times.set(PodAction::Refresh, Some(at(3600)));
    assert_eq!(decided(&leaving, &unread, 100), (PodAction::Delete, 100));
}

#[test]
fn a_pod_that_leaves_is_drained_by_our_clock_whatever_the_api_servers_says() {
    let mut group = there(0, Some(90), true);
    group.deletion_seen_at = Some(at(100));
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
fn a_finished_pod_of_whose_containers_ends_nobody_knows_when_loses_its_group_too() {
    let mut group = there(0, Some(390), true);
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
    let mut known = PodState::default();
    known.put_accepted(at(0));
    let sight = GroupReading {
        sent_at: at(30),
        is_deleting: false,
        has_started: true,
    };
    known.group_seen(sight, at(30));
    let pod = leaving(pod("Running", true), 100, 30);
    known.deletion_seen_at = Some(at(100));
    let mut deletes = 0;
    for now in 100..7200 {
        let (action, due) = decided(&pod, &known, now);
        if due > now {
            continue;
        }
        match action {
            PodAction::Delete => {
                deletes += 1;
                known.group_denied(Some(&pod), None, at(now));
            }
            // The worker sets this back-off after a read that failed.
            PodAction::Refresh | PodAction::Discover => {
                known
                    .retry_times
                    .set(PodAction::Refresh, Some(at(now + 15)));
            }
            PodAction::Remove => return,
            other => unreachable!("{other:?}"),
        }
    }
    unreachable!("Terminating for ever, after {deletes} DELETE: {known:?}");
}

#[test]
fn throttled_reads_do_not_hold_up_a_delete() {
    let mut known = PodState::default();
    known.put_accepted(at(0));
    // The first GET came too early; the following GETs are throttled.
    known.group_denied(None, None, at(2));
    known.retry_times.set(PodAction::Refresh, Some(at(3600)));
    let pod = leaving(pod("Pending", false), 10, 30);
    known.deletion_seen_at = Some(at(10));
    let (action, due) = decided(&pod, &known, 60);
    assert!(
        action == PodAction::Delete && due <= 60,
        "{action:?} at {due}"
    );
    // The other way round, a GET tells whether the group is gone.
    known.retry_times.set(PodAction::Refresh, None);
    known.retry_times.set(PodAction::Delete, Some(at(3600)));
    let (action, due) = decided(&pod, &known, 60);
    assert!(
        action == PodAction::Refresh && due <= 60,
        "{action:?} at {due}"
    );
}
