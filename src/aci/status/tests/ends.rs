//! Tests: how pods end.

use super::*;

#[test]
fn the_phase_follows_exit_codes_and_restart_policy() {
    let cases = [
        ("Never", "Succeeded", [0, 0], "Succeeded"),
        ("Never", "Failed", [0, 2], "Failed"),
        ("OnFailure", "Succeeded", [0, 0], "Succeeded"),
        ("OnFailure", "Running", [0, 2], "Running"),
        ("Always", "Running", [0, 0], "Running"),
        ("Always", "Running", [0, 2], "Running"),
    ];
    for (policy, group_state, codes, wanted) in cases {
        let group = group(
            "Succeeded",
            group_state,
            &[("web", terminated(codes[0])), ("log", terminated(codes[1]))],
        );
        let status = status(
            &pod(policy, &["web", "log"], &[]),
            &GroupObservation::Group(&group),
            30,
        );
        assert_eq!(phase(&status), wanted, "{policy} {codes:?}");
        let reason = if codes[1] == 0 { "Completed" } else { "Error" };
        assert_eq!(
            state(&status, "log"),
            format!("ended {} {reason}", codes[1])
        );
        assert_eq!(status.reason, None);
    }
}

#[test]
fn one_container_of_two_that_ended_leaves_the_pod_running() {
    let group = group(
        "Succeeded",
        "Running",
        &[("web", terminated(1)), ("log", running(1))],
    );
    let status = status(
        &pod("Never", &["web", "log"], &[]),
        &GroupObservation::Group(&group),
        30,
    );
    assert_eq!(
        (phase(&status), state(&status, "web").as_str()),
        ("Running", "ended 1 Error")
    );
}

#[test]
fn exit_codes_take_precedence_over_the_detail_of_the_state() {
    let run = |code: Value, detail: &str| json!({"currentState": {"state": "Terminated", "exitCode": code, "detailStatus": detail}});
    let cases = [
        (run(json!(2), "Completed"), "ended 2 Error"),
        (run(json!(0), "Error"), "ended 0 Completed"),
        (run(json!(137), "OOMKilled"), "ended 137 OOMKilled"),
        (run(json!(7147), "Error"), "ended 7147 PlatformMaintenance"),
        (run(json!(7148), ""), "ended 7148 PlatformMaintenance"),
        (run(json!(null), "Completed"), "ended 0 Completed"),
        (run(json!(null), ""), "ended 137 ContainerStatusUnknown"),
        (
            run(json!(3_221_225_477_i64), "Error"),
            "ended -1073741819 Error",
        ),
        (run(json!("x"), "Error"), "ended 137 ContainerStatusUnknown"),
    ];
    for (view, wanted) in cases {
        let group = group("Succeeded", "Failed", &[("web", view.clone())]);
        let status = status(
            &pod("Never", &["web"], &[]),
            &GroupObservation::Group(&group),
            30,
        );
        assert_eq!(state(&status, "web"), wanted, "{view}");
        assert_eq!(
            phase(&status),
            if wanted.starts_with("ended 0") {
                "Succeeded"
            } else {
                "Failed"
            }
        );
    }
}

#[test]
fn a_lost_or_stopped_group_is_a_disruption_of_the_pod_until_the_pod_is_deleted() {
    let stopped = group("Succeeded", "Stopped", &[("web", running(1))]);
    let cases = [
        (GroupObservation::Vanished, "NotFound"),
        (GroupObservation::Group(&stopped), "Stopped"),
    ];
    for (seen, reason) in cases {
        let mut pod = pod("Never", &["web"], &[]);
        let runs = group("Succeeded", "Running", &[("web", running(1))]);
        write(&mut pod, &GroupObservation::Group(&runs), 10);
        for second in [30, 60] {
            let status = write(&mut pod, &seen, second);
            let disruption = condition_text(&status, "DisruptionTarget");
            assert_eq!(disruption, format!("True {reason}"), "after {second} s");
        }
        let status = write(&mut pod, &GroupObservation::Deleted(None), 90);
        assert_eq!(
            condition_text(&status, "DisruptionTarget"),
            format!("True {reason}")
        );
    }
}

#[test]
fn maintenance_is_no_failure_of_the_program() {
    let group = group("Succeeded", "Failed", &[("web", terminated(7148))]);
    let mut pod = pod("Never", &["web"], &[]);
    let status = write(&mut pod, &GroupObservation::Group(&group), 30);
    assert_eq!(
        condition_text(&status, "DisruptionTarget"),
        "True PlatformMaintenance"
    );
    let sent = status_patch(&pod, &status).to_string();
    assert!(sent.contains("DisruptionTarget"));

    let theirs =
        json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
    let theirs: PodCondition = serde_json::from_value(theirs).expect("a condition");
    pod.status.as_mut().expect("one").conditions = Some(vec![theirs.clone()]);
    let status = super::status(&pod, &GroupObservation::Group(&group), 31);
    assert_eq!(condition(&status, "DisruptionTarget"), &theirs);
    assert!(
        !status_patch(&pod, &status)
            .to_string()
            .contains("DisruptionTarget")
    );
}

#[test]
fn a_finished_pod_stays_as_it_ended() {
    let mut pod = pod("Never", &["web"], &[]);
    let end = group("Succeeded", "Failed", &[("web", terminated(2))]);
    let failed = write(&mut pod, &GroupObservation::Group(&end), 30);
    let again = group("Succeeded", "Running", &[("web", running(40))]);
    let stopped = group("Succeeded", "Stopped", &[("web", terminated(0))]);
    for seen in [
        GroupObservation::Group(&again),
        GroupObservation::Group(&stopped),
        GroupObservation::Vanished,
        GroupObservation::NotSubmitted,
        GroupObservation::Deleted(None),
        GroupObservation::Deleted(Some(&again)),
    ] {
        let now = status(&pod, &seen, 90);
        assert!(is_same_status(&failed, &now), "{seen:?}\n{now:?}");
    }
}

#[test]
fn a_group_that_vanished_under_a_running_pod_fails_it() {
    let mut pod = pod("Always", &["web", "log"], &[]);
    let crashed = json!({"restartCount": 1, "previousState": ended(3, 10, 20),
                         "currentState": {"state": "Waiting", "detailStatus": "CrashLoopBackOff"}});
    let group = group(
        "Succeeded",
        "Running",
        &[("web", running(1)), ("log", crashed)],
    );
    write(&mut pod, &GroupObservation::Group(&group), 2);
    let status = write(&mut pod, &GroupObservation::Vanished, 50);
    assert_eq!(
        (phase(&status), status.reason.as_deref()),
        ("Failed", Some("NotFound"))
    );
    assert_eq!(state(&status, "web"), "ended 137 NotFound");
    assert_eq!(state(&status, "log"), "ended 3 Error");
    let end = container(&status, "web")
        .state
        .clone()
        .and_then(|state| state.terminated);
    let end = end.expect("it ended");
    assert_eq!(
        (end.started_at, end.finished_at),
        (Some(Time(at(1))), Some(Time(at(50))))
    );
    assert_eq!(end.container_id, container(&status, "web").container_id);
    assert_eq!(condition_text(&status, "Ready"), "False PodFailed");
    assert_eq!(
        condition_text(&status, "PodReadyToStartContainers"),
        "False"
    );
}

#[test]
fn a_stopped_group_fails_its_pod() {
    for policy in ["Always", "OnFailure", "Never"] {
        let group = group(
            "Succeeded",
            "Stopped",
            &[("web", terminated(0)), ("log", running(1))],
        );
        let status = status(
            &pod(policy, &["web", "log"], &[]),
            &GroupObservation::Group(&group),
            30,
        );
        assert_eq!(
            (phase(&status), status.reason.as_deref()),
            ("Failed", Some("Stopped"))
        );
        assert_eq!(state(&status, "web"), "ended 0 Completed");
        assert_eq!(state(&status, "log"), "ended 137 Stopped");
    }
}

#[test]
fn a_deleted_pod_ends_as_its_containers_did() {
    let crashed = json!({"restartCount": 1, "previousState": ended(3, 10, 20),
                         "currentState": {"state": "Waiting", "detailStatus": "CrashLoopBackOff"}});
    let cases = [
        (
            [terminated(0), terminated(0)],
            "Succeeded",
            ["ended 0 Completed", "ended 0 Completed"],
        ),
        (
            [terminated(0), terminated(4)],
            "Failed",
            ["ended 0 Completed", "ended 4 Error"],
        ),
        (
            [terminated(0), running(1)],
            "Failed",
            ["ended 0 Completed", "ended 137 Error"],
        ),
        (
            [running(1), crashed],
            "Failed",
            ["ended 137 Error", "ended 3 Error"],
        ),
        (
            [running(1), Value::Null],
            "Failed",
            ["ended 137 Error", "waiting ContainerCreating"],
        ),
        (
            [Value::Null, waiting("")],
            "Failed",
            ["waiting ContainerCreating", "waiting ContainerCreating"],
        ),
    ];
    for (views, wanted, states) in cases {
        let [web, log] = views.clone();
        let group = group("Succeeded", "Running", &[("web", web), ("log", log)]);
        let mut pod = pod("Always", &["web", "log"], &[]);
        for last in [Some(&group), None] {
            let status = status(&pod, &GroupObservation::Deleted(last), 60);
            if last.is_some() {
                write(&mut pod, &GroupObservation::Group(&group), 50); // again, now based on the live status
            }
            assert_eq!(phase(&status), wanted, "{views:?}");
            assert_eq!(
                [state(&status, "web"), state(&status, "log")],
                states,
                "{views:?}"
            );
            assert_eq!(status.reason, None);
            assert!(!container(&status, "web").ready);
        }
    }
    let unasked = status(
        &pod("Never", &["web"], &[]),
        &GroupObservation::Deleted(None),
        1,
    );
    assert_eq!(
        (phase(&unasked), state(&unasked, "web").as_str()),
        ("Failed", "waiting ContainerCreating")
    );
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts_and_no_other() {
    for (policy, wanted) in [
        ("Never", "Failed"),
        ("OnFailure", "Pending"),
        ("Always", "Pending"),
    ] {
        let group = group_with_init(
            "Creating",
            "Pending",
            &[("web", Value::Null)],
            &[("one", terminated(5))],
        );
        let status = status(
            &pod(policy, &["web"], &["one"]),
            &GroupObservation::Group(&group),
            30,
        );
        assert_eq!(phase(&status), wanted, "{policy}");
        assert_eq!(state(&status, "one"), "ended 5 Error");
        assert_eq!(
            condition_text(&status, "Initialized"),
            "False ContainersNotInitialized"
        );
    }
}

#[test]
fn a_group_that_ended_ends_containers_without_a_reported_state() {
    for (group_state, wanted, code) in [
        ("Succeeded", "Succeeded", "ended 0 Completed"),
        ("Failed", "Failed", "ended 137 ContainerStatusUnknown"),
    ] {
        let group = group("Succeeded", group_state, &[("web", Value::Null)]);
        let status = status(
            &pod("Never", &["web"], &[]),
            &GroupObservation::Group(&group),
            30,
        );
        assert_eq!(
            (phase(&status), state(&status, "web").as_str()),
            (wanted, code)
        );
    }
}

#[test]
fn a_pod_that_exceeded_its_deadline_fails_only_when_its_group_is_gone() {
    let mut pod = pod("Always", &["a"], &[]);
    pod.spec.as_mut().expect("a spec").active_deadline_seconds = Some(30);
    let group = group("Succeeded", "Running", &[("a", running(5))]);
    let seen = GroupObservation::Group(&group);
    let first = write(&mut pod, &seen, 10);
    // A controller would start a replacement beside containers that run.
    for second in [39, 40, 100] {
        let later = write(&mut pod, &seen, second);
        assert_eq!(
            (later.phase.as_deref(), later.reason),
            (Some("Running"), None)
        );
        assert_eq!(later.start_time, first.start_time);
    }
    let lost = status(&pod, &GroupObservation::Vanished, 39);
    assert_eq!(lost.reason.as_deref(), Some(NOT_FOUND));

    let failed = write(&mut pod, &GroupObservation::Vanished, 40);
    let told = (failed.phase.as_deref(), failed.reason.as_deref());
    assert_eq!(told, (Some("Failed"), Some("DeadlineExceeded")));
    assert_eq!(
        failed.message.as_deref(),
        Some("Pod was active on the node longer than the specified deadline")
    );
    let container = &failed.container_statuses.as_ref().expect("one")[0];
    let end = container
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let end = end.expect("an end");
    assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("Error")));
    let message = end.message.as_deref().expect("a message");
    assert!(message.contains("activeDeadlineSeconds"), "{message}");
    let conditions = failed.conditions.as_ref().expect("conditions");
    let mut disrupted = conditions
        .iter()
        .filter(|kind| kind.type_ == "DisruptionTarget");
    assert_eq!(disrupted.next(), None, "the pod is at fault");
}

#[test]
fn a_pod_that_ended_before_its_deadline_was_noticed_keeps_its_own_end() {
    let mut pod = pod("Never", &["a"], &[]);
    pod.spec.as_mut().expect("a spec").active_deadline_seconds = Some(30);
    let running = group("Succeeded", "Running", &[("a", running(5))]);
    write(&mut pod, &GroupObservation::Group(&running), 10);
    let ended = group("Succeeded", "Succeeded", &[("a", terminated(0))]);
    let done = status(&pod, &GroupObservation::Group(&ended), 100);
    assert_eq!(
        (done.phase.as_deref(), done.reason),
        (Some("Succeeded"), None)
    );
}

#[test]
fn a_pod_that_never_got_a_group_fails_at_its_deadline_too() {
    let mut pod = pod("Always", &["a"], &[]);
    pod.spec.as_mut().expect("a spec").active_deadline_seconds = Some(30);
    write(&mut pod, &GroupObservation::NotSubmitted, 0);
    let unknown = status(&pod, &GroupObservation::NotSubmitted, 30);
    assert_eq!(
        unknown.phase.as_deref(),
        Some("Pending"),
        "there may be a group"
    );
    let failed = status(&pod, &GroupObservation::Vanished, 30);
    assert_eq!(failed.reason.as_deref(), Some("DeadlineExceeded"));
}
