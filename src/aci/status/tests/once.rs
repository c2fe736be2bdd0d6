//! Tests: with restart policy `Never`, the first end counts, although ACI may restart a container.

use super::*;

fn again(restarts: i64, previous: &Value, current: &Value) -> Value {
    json!({"restartCount": restarts, "previousState": previous, "currentState": current})
}

fn now_running() -> Value {
    json!({"state": "Running", "startTime": time(40), "detailStatus": ""})
}

#[test]
fn the_first_end_is_reported_and_the_second_run_is_not() {
    let cases = [
        // the observed view, and how the container ended
        (again(1, &ended(3, 10, 20), &now_running()), "ended 3 Error"),
        (
            again(0, &ended(3, 10, 20), &json!({"state": "Waiting"})),
            "ended 3 Error",
        ),
        (
            again(1, &ended(3, 10, 20), &ended(0, 30, 40)),
            "ended 3 Error",
        ),
        (
            again(1, &ended(7147, 10, 20), &now_running()),
            "ended 7147 PlatformMaintenance",
        ),
        (again(3, &ended(4, 10, 20), &now_running()), "ended 4 Error"),
        (
            again(1, &Value::Null, &now_running()),
            "ended 137 ContainerStatusUnknown",
        ),
    ];
    for (view, wanted) in cases {
        let group = group("Succeeded", "Running", &[("web", view.clone())]);
        let status = status(
            &pod("Never", &["web"], &[]),
            &GroupObservation::Group(&group),
            50,
        );
        assert_eq!(
            (phase(&status), state(&status, "web").as_str()),
            ("Failed", wanted),
            "{view}"
        );
        let web = container(&status, "web");
        assert_eq!(
            (web.restart_count, &web.last_state, web.ready),
            (0, &None, false)
        );
        let end = web
            .state
            .clone()
            .and_then(|state| state.terminated)
            .expect("it ended");
        let message = end.message.unwrap_or_default();
        assert!(message.contains("started it again although"), "{message}");
    }
}

#[test]
fn a_reported_end_stays_the_first_end() {
    let mut pod = pod("Never", &["web", "log"], &[]);
    let first = group(
        "Succeeded",
        "Running",
        &[("web", terminated(3)), ("log", running(1))],
    );
    write(&mut pod, &GroupObservation::Group(&first), 21);
    let view = again(2, &ended(9, 30, 35), &now_running());
    let later = group(
        "Succeeded",
        "Running",
        &[("web", view), ("log", running(1))],
    );
    let status = write(&mut pod, &GroupObservation::Group(&later), 50);
    assert_eq!(
        (phase(&status), state(&status, "web").as_str()),
        ("Running", "ended 3 Error")
    );
    assert_eq!(state(&status, "log"), "running");
}

#[test]
fn a_restarted_container_can_fail_again_and_a_succeeded_one_stays() {
    let mut pod = pod("OnFailure", &["web", "log"], &[]);
    let first = group(
        "Succeeded",
        "Running",
        &[("web", terminated(0)), ("log", terminated(3))],
    );
    write(&mut pod, &GroupObservation::Group(&first), 21);
    let moved = group(
        "Succeeded",
        "Running",
        &[("web", running(30)), ("log", running(30))],
    );
    let status = write(&mut pod, &GroupObservation::Group(&moved), 50);
    assert_eq!(state(&status, "web"), "ended 0 Completed");
    assert_eq!(state(&status, "log"), "running");
}
