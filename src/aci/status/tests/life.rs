//! Tests: from binding to running, and what prevents a start.

use super::*;

#[test]
fn a_pod_whose_group_was_not_requested_yet_waits_for_its_creation() {
    let status = status(
        &pod("Always", &["web", "log"], &[]),
        &GroupObservation::NotSubmitted,
        0,
    );
    assert_eq!(phase(&status), "Pending");
    assert_eq!(state(&status, "web"), "waiting ContainerCreating");
    assert_eq!(condition_text(&status, "Ready"), "False ContainersNotReady");
    assert_eq!(
        condition(&status, "Ready").message.as_deref(),
        Some("containers with unready status: [web log]")
    );
    assert_eq!(condition_text(&status, "Initialized"), "True");
    assert_eq!(condition_text(&status, "PodScheduled"), "True");
    assert_eq!(
        condition_text(&status, "PodReadyToStartContainers"),
        "False"
    );
    assert_eq!(status.start_time, Some(Time(at(0))));
    assert_eq!(status.host_ip.as_deref(), Some("10.1.0.1"));
    assert_eq!((status.pod_ip, status.observed_generation), (None, Some(3)));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_pod_runs_when_its_containers_run_and_shows_their_state() {
    let mut pod = pod("Always", &["web"], &[]);
    write(&mut pod, &GroupObservation::NotSubmitted, 0);
    let digest = "nginx@sha256:7fd1b0f92598e73e13d996d6ce279905ac5f2381d635c712a86bf8e49cabf0be";
    let mut view = running(9);
    view["events"] = json!([{"name": "Pulled", "count": 1, "lastTimestamp": time(5),
        "message": format!("Successfully pulled image \"{digest}\"")}]);
    let status = write(
        &mut pod,
        &GroupObservation::Group(&group("Succeeded", "Running", &[("web", view)])),
        12,
    );

    assert_eq!(
        (phase(&status), state(&status, "web").as_str()),
        ("Running", "running")
    );
    let web = container(&status, "web");
    assert_eq!(
        (web.image.as_str(), web.image_id.as_str()),
        ("nginx:1", digest)
    );
    assert_eq!(
        (web.ready, web.started, web.restart_count),
        (true, Some(true), 0)
    );
    let started = web
        .state
        .clone()
        .and_then(|state| state.running)
        .and_then(|run| run.started_at);
    assert_eq!(started, Some(Time(at(9))));
    let id = web.container_id.clone().unwrap_or_default();
    assert!(id.starts_with("aci://") && id.len() == 70, "{id}");
    for kind in [
        "Ready",
        "ContainersReady",
        "Initialized",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition_text(&status, kind), "True");
        assert_eq!(condition(&status, kind).observed_generation, Some(3));
    }
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.4"));
    let ips: Vec<_> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.as_str())
        .collect();
    assert_eq!(ips, ["10.0.0.4"]);
    assert_eq!(status.start_time, Some(Time(at(0))));
    assert_eq!(
        condition(&status, "Ready").last_transition_time,
        Some(Time(at(12)))
    );
    assert_eq!(
        condition(&status, "Initialized").last_transition_time,
        Some(Time(at(0)))
    );
}

#[test]
fn a_partly_started_group_shows_running_containers_and_why_others_wait() {
    let pull = "Failed to pull image \"x\": manifest unknown";
    let event = |name: &str, message: &str, second: i64| {
        json!({"name": name, "message": message, "type": "Warning", "count": 1,
               "firstTimestamp": time(second), "lastTimestamp": time(second)})
    };
    let with = |detail: &str, events: Value| {
        let mut view = waiting(detail);
        view["events"] = events;
        view
    };
    let crashed = json!({"restartCount": 2, "currentState": {"state": "Waiting", "detailStatus": ""},
                         "previousState": ended(1, 1, 2)});
    let pulled = json!([event("Failed", pull, 1), {"name": "Pulled", "message": "image \"x\"", "type": "Normal", "lastTimestamp": time(2)}]);
    let back_off = json!([
        event("Failed", pull, 1),
        event("BackOff", "Back-off pulling image \"x\"", 2)
    ]);
    let mount = json!([event("FailedMount", "mount error(2): Permission denied", 1)]);
    let cases = [
        (
            with("", json!([event("Failed", pull, 1)])),
            "waiting ErrImagePull",
            pull,
        ),
        (
            with("", back_off),
            "waiting ImagePullBackOff",
            "Back-off pulling image \"x\"",
        ),
        (
            with("ImagePullBackOff", json!([])),
            "waiting ImagePullBackOff",
            "",
        ),
        (with("", pulled), "waiting ContainerCreating", ""),
        (
            with("", mount),
            "waiting ContainerCreating",
            "mount error(2): Permission denied",
        ),
        (
            with("CrashLoopBackOff", json!([])),
            "waiting CrashLoopBackOff",
            "",
        ),
        (
            with("not a word", json!([])),
            "waiting ContainerCreating",
            "",
        ),
        (crashed, "waiting CrashLoopBackOff", ""),
        (Value::Null, "waiting ContainerCreating", ""),
        (
            json!({"currentState": {"state": "Thinking"}}),
            "waiting ContainerCreating",
            "",
        ),
    ];
    for (view, wanted, message) in cases {
        let group = group(
            "Creating",
            "Pending",
            &[("web", running(1)), ("log", view.clone())],
        );
        let status = status(
            &pod("Always", &["web", "log"], &[]),
            &GroupObservation::Group(&group),
            9,
        );
        assert_eq!(state(&status, "web"), "running", "{view}");
        assert_eq!(
            (
                state(&status, "log").as_str(),
                waiting_message(&status, "log").as_str()
            ),
            (wanted, message),
            "{view}"
        );
        assert_eq!(phase(&status), "Running");
        assert_eq!(
            condition(&status, "ContainersReady").message.as_deref(),
            Some("containers with unready status: [log]")
        );
    }
}

#[test]
fn a_container_that_is_started_again_shows_its_last_end_and_count() {
    let view = json!({"restartCount": 4, "previousState": ended(3, 10, 20),
        "currentState": {"state": "Running", "startTime": time(40), "detailStatus": ""}});
    let group = group("Succeeded", "Running", &[("web", view)]);
    let status = status(
        &pod("Always", &["web"], &[]),
        &GroupObservation::Group(&group),
        50,
    );
    let web = container(&status, "web");
    assert_eq!(
        (state(&status, "web").as_str(), web.restart_count),
        ("running", 4)
    );
    let last = web
        .last_state
        .clone()
        .and_then(|state| state.terminated)
        .expect("it ended before");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(
        (last.started_at, last.finished_at),
        (Some(Time(at(10))), Some(Time(at(20))))
    );
    assert_ne!(last.container_id, web.container_id);
}

#[test]
fn init_containers_run_first_and_are_reported() {
    let pod = pod("Always", &["web"], &["one", "two"]);
    let none = || ("web", Value::Null);
    let seen = |init: &[(&str, Value)], web: (&str, Value)| {
        status(
            &pod,
            &GroupObservation::Group(&group_with_init("Creating", "Pending", &[web], init)),
            9,
        )
    };
    let first = seen(&[("one", running(1)), ("two", Value::Null)], none());
    assert_eq!(
        (phase(&first), state(&first, "one").as_str()),
        ("Pending", "running")
    );
    assert_eq!(state(&first, "two"), "waiting PodInitializing");
    assert_eq!(state(&first, "web"), "waiting PodInitializing");
    assert_eq!(
        condition_text(&first, "Initialized"),
        "False ContainersNotInitialized"
    );
    assert_eq!(
        condition(&first, "Initialized").message.as_deref(),
        Some("containers with incomplete status: [one two]")
    );

    let done = seen(&[("one", terminated(0)), ("two", terminated(0))], none());
    assert_eq!(condition_text(&done, "Initialized"), "True");
    assert_eq!(state(&done, "web"), "waiting ContainerCreating");
    assert!(container(&done, "one").ready && container(&done, "one").started == Some(false));

    let unreported = seen(&[], ("web", running(5)));
    assert_eq!(state(&unreported, "one"), "ended 0 Completed");
    assert_eq!(
        (
            condition_text(&unreported, "Initialized"),
            condition_text(&unreported, "Ready")
        ),
        ("True".into(), "True".into())
    );
}

#[test]
fn an_error_of_azure_keeps_a_pod_pending_and_its_reason_goes_away() {
    let refusals = [("spec.hostNetwork".to_owned(), "ACI has no host".to_owned())];
    let events =
        json!([{"name": "InsufficientCapacity.", "message": "no room", "type": "Warning"}]);
    let mut full = group("Failed", "Pending", &[("web", Value::Null)]);
    full.properties.instance_view = serde_json::from_value(json!({"events": events})).ok();
    let stuck = group("Failed", "Failed", &[("web", Value::Null)]);
    let waiting = GroupObservation::Waiting {
        reason: "QuotaExceeded",
        message: "Limit: '10', Usage: '10'",
    };
    let cases = [
        (
            GroupObservation::Rejected(&refusals),
            "Unsupported",
            "spec.hostNetwork: ACI has no host",
        ),
        (waiting, "QuotaExceeded", "Limit: '10', Usage: '10'"),
        (
            GroupObservation::Group(&full),
            "InsufficientCapacity",
            "no room",
        ),
        (
            GroupObservation::Group(&stuck),
            "ProvisioningFailed",
            "the group's provisioning failed",
        ),
    ];
    for policy in ["Always", "OnFailure", "Never"] {
        for (seen, reason, message) in &cases {
            let mut pod = pod(policy, &["web"], &[]);
            let status = write(&mut pod, seen, 1);
            assert_eq!(phase(&status), "Pending", "{policy} {reason}");
            assert_eq!(state(&status, "web"), format!("waiting {reason}"));
            assert_eq!(waiting_message(&status, "web"), *message);
            assert_eq!(status.reason.as_deref(), Some(*reason));

            let group = group("Succeeded", "Running", &[("web", running(5))]);
            let status = write(&mut pod, &GroupObservation::Group(&group), 9);
            assert_eq!(
                (phase(&status), &status.reason, &status.message),
                ("Running", &None, &None)
            );
        }
    }
}

#[test]
fn a_group_that_vanished_before_it_ran_is_created_again() {
    let mut pod = pod("Always", &["web"], &["one"]);
    let group = group_with_init(
        "Creating",
        "Pending",
        &[("web", waiting(""))],
        &[("one", running(1))],
    );
    write(&mut pod, &GroupObservation::Group(&group), 2);
    let status = write(&mut pod, &GroupObservation::Vanished, 4);
    assert_eq!(
        (phase(&status), status.pod_ip.as_deref()),
        ("Pending", None)
    );
    assert_eq!(state(&status, "one"), "waiting ContainerCreating");
    assert!(waiting_message(&status, "web").contains("created again"));
}

#[test]
fn later_changes_of_a_running_pod_get_an_answer() {
    let mut pod = pod("Always", &["web"], &[]);
    let cpu = |cpu: &str| serde_json::from_value(json!({"requests": {"cpu": cpu}})).ok();
    let set = |pod: &mut Pod, wanted: &str| {
        pod.spec.as_mut().expect("a spec").containers[0].resources = cpu(wanted);
    };
    set(&mut pod, "1");
    let group = group("Succeeded", "Running", &[("web", running(1))]);
    write(&mut pod, &GroupObservation::Group(&group), 2);
    assert_eq!(
        container(pod.status.as_ref().expect("one"), "web").resources,
        cpu("1")
    );

    set(&mut pod, "2");
    let debug = json!([{"name": "debug", "image": "busybox"}]);
    let spec = pod.spec.as_mut().expect("a spec");
    spec.ephemeral_containers = serde_json::from_value(debug).ok();
    let status = write(&mut pod, &GroupObservation::Group(&group), 3);
    assert_eq!(
        condition_text(&status, "PodResizePending"),
        "True Infeasible"
    );
    assert_eq!(container(&status, "web").resources, cpu("1"));
    assert_eq!(phase(&status), "Running");
    let debug = &status.ephemeral_container_statuses.as_ref().expect("one")[0];
    let waiting = debug
        .state
        .clone()
        .and_then(|state| state.waiting)
        .expect("it waits");
    assert_eq!(
        (debug.name.as_str(), waiting.reason.as_deref()),
        ("debug", Some("Unsupported"))
    );

    set(&mut pod, "1");
    let status = write(&mut pod, &GroupObservation::Group(&group), 4);
    let mut kinds = status
        .conditions
        .iter()
        .flatten()
        .map(|condition| condition.type_.as_str());
    assert!(!kinds.any(|kind| kind == "PodResizePending"));
}
