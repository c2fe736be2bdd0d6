//! Tests: the effect of an answer to LIST, which has no instance views.

use super::*;

#[test]
fn an_answer_to_list_takes_nothing_back() {
    let mut pod = pod("Always", &["web", "log"], &[]);
    let seen = group(
        "Succeeded",
        "Running",
        &[("web", running(1)), ("log", waiting("ErrImagePull"))],
    );
    let before = write(&mut pod, &GroupObservation::Group(&seen), 2);
    let mut listed = seen;
    listed.apply_listed(Some(Provisioning::Succeeded), None);
    let after = status(&pod, &GroupObservation::Group(&listed), 9);
    assert!(is_same_status(&before, &after), "{before:?}\n{after:?}");
}

#[test]
fn a_list_with_succeeded_makes_a_pod_run_whose_containers_are_always_restarted() {
    for (policy, expected) in [
        ("Always", "Running"),
        ("OnFailure", "Pending"),
        ("Never", "Pending"),
    ] {
        let created =
            json!({"restartCount": 0, "currentState": {"state": "Waiting", "detailStatus": ""}});
        let mut pod = pod(policy, &["a"], &[]);
        // An answer to PUT says nothing about the container; an answer to GET says that it waits.
        for view in [Value::Null, created] {
            let mut after = pod.clone();
            let mut listed = group("Creating", "Pending", &[("a", view)]);
            let before = write(&mut after, &GroupObservation::Group(&listed), 1);
            assert_eq!(phase(&before), "Pending");
            listed.apply_listed(Some(Provisioning::Succeeded), None);
            let status = write(&mut after, &GroupObservation::Group(&listed), 2);
            assert_eq!(phase(&status), expected, "{policy}");
        }
        let mut listed = group("Creating", "Pending", &[("a", Value::Null)]);
        listed.apply_listed(Some(Provisioning::Succeeded), None);
        write(&mut pod, &GroupObservation::Group(&listed), 2);
        let seen = group("Succeeded", "Running", &[("a", running(1))]);
        let after_get = status(&pod, &GroupObservation::Group(&seen), 9);
        let run = container(&after_get, "a")
            .state
            .clone()
            .and_then(|state| state.running);
        assert_eq!(
            run.and_then(|run| run.started_at).map(|time| time.0),
            Some(at(1))
        );
    }
}

#[test]
fn a_list_does_not_make_a_container_run_that_waits_for_its_restart() {
    let mut pod = pod("Always", &["a"], &[]);
    let again = json!({"restartCount": 3, "currentState": {"state": "Waiting", "detailStatus": "CrashLoopBackOff"},
                       "previousState": ended(1, 10, 20)});
    let mut seen = group("Succeeded", "Running", &[("a", again)]);
    write(&mut pod, &GroupObservation::Group(&seen), 30);
    seen.apply_listed(Some(Provisioning::Succeeded), None);
    let after = status(&pod, &GroupObservation::Group(&seen), 31);
    assert_eq!(state(&after, "a"), "waiting CrashLoopBackOff");
}
