//! Native sidecars: they are containers of the group, and their statuses are among those of init containers.

use super::*;

/// A pod with an init container and then a sidecar.
fn pod_with_sidecar() -> Pod {
    let mut pod = pod("Always", &["web"], &["setup", "proxy"]);
    let init = pod.spec.as_mut().expect("a spec").init_containers.as_mut();
    init.expect("two")[1].restart_policy = Some("Always".to_owned());
    pod
}

fn seen(containers: &[(&str, Value)], init: Value) -> ContainerGroup {
    group_with_init("Succeeded", "Running", containers, &[("setup", init)])
}

/// The state of the sidecar, whether it has started and is ready, and the conditions `Initialized`, `ContainersReady`.
fn shown(status: &PodStatus) -> (String, bool, bool, String, String) {
    let proxy = container(status, "proxy");
    (
        state(status, "proxy"),
        proxy.started == Some(true),
        proxy.ready,
        condition_text(status, "Initialized"),
        condition_text(status, "ContainersReady"),
    )
}

#[test]
fn a_sidecar_is_reported_as_a_kubelet_reports_it() {
    let crashed = json!({"restartCount": 2, "currentState": {"state": "Waiting", "detailStatus": "CrashLoopBackOff"},
                         "previousState": ended(1, 3, 4)});
    let (not_initialized, not_ready) =
        ("False ContainersNotInitialized", "False ContainersNotReady");
    for (web, proxy, setup, wanted, phase_wanted) in [
        (
            waiting(""),
            waiting(""),
            running(1),
            ("waiting PodInitializing", false, not_initialized, not_ready),
            "Pending",
        ),
        (
            waiting(""),
            running(3),
            terminated(0),
            ("running", true, "True", not_ready),
            "Pending",
        ),
        (
            running(3),
            running(3),
            terminated(0),
            ("running", true, "True", "True"),
            "Running",
        ),
        (
            running(3),
            crashed.clone(),
            terminated(0),
            ("waiting CrashLoopBackOff", false, "True", not_ready),
            "Running",
        ),
        (
            waiting(""),
            crashed,
            terminated(0),
            (
                "waiting CrashLoopBackOff",
                false,
                not_initialized,
                not_ready,
            ),
            "Pending",
        ),
    ] {
        let group = seen(&[("proxy", proxy), ("web", web)], setup);
        let mut pod = pod_with_sidecar();
        let status = write(&mut pod, &GroupObservation::Group(&group), 9);
        let (state, is_up, initialized, ready) = wanted;
        let wanted = (
            state.to_owned(),
            is_up,
            is_up,
            initialized.to_owned(),
            ready.to_owned(),
        );
        assert_eq!(shown(&status), wanted);
        assert_eq!(phase(&status), phase_wanted, "{wanted:?}");
        let init = status.init_container_statuses.iter().flatten();
        let names: Vec<&str> = init.map(|status| status.name.as_str()).collect();
        assert_eq!(names, ["setup", "proxy"]);
    }
}

#[test]
fn the_probes_of_a_sidecar_gate_the_pod() {
    let group = seen(
        &[("proxy", running(3)), ("web", waiting(""))],
        terminated(0),
    );
    let of = |has_started: bool, is_ready: bool| {
        let proxy = ContainerReadiness {
            has_started,
            is_ready,
            is_judged_by_node: true,
            blocked: None,
        };
        let report = ReadinessReport::from([("proxy".to_owned(), proxy)]);
        let facts = NodeFacts {
            readiness: Some(&report),
            ..FACTS
        };
        let observation = GroupObservation::Group(&group);
        shown(&pod_status(
            &pod_with_sidecar(),
            &observation,
            &facts,
            at(9),
        ))
    };
    let (state, unready) = ("running".to_owned(), "False ContainersNotReady".to_owned());
    let starting = "False ContainersNotInitialized".to_owned();
    let initialized = "True".to_owned();
    assert_eq!(
        of(false, false),
        (state.clone(), false, false, starting, unready.clone())
    );
    let started = of(true, false);
    assert_eq!(
        started,
        (
            state.clone(),
            true,
            false,
            initialized.clone(),
            unready.clone()
        )
    );
    assert_eq!(of(true, true), (state, true, true, initialized, unready));
}

#[test]
fn a_sidecar_that_starts_again_does_not_take_back_that_the_pod_is_initialized() {
    let mut pod = pod_with_sidecar();
    let both = [("proxy", running(3)), ("web", running(3))];
    let group = seen(&both, terminated(0));
    write(&mut pod, &GroupObservation::Group(&group), 9);
    let restarting = json!({"restartCount": 1, "currentState": {"state": "Waiting"}, "previousState": ended(1, 3, 11)});
    let group = seen(
        &[("proxy", restarting), ("web", waiting(""))],
        terminated(0),
    );
    let status = write(&mut pod, &GroupObservation::Group(&group), 12);
    assert_eq!(condition_text(&status, "Initialized"), "True");
    assert_eq!(phase(&status), "Running");
    let proxy = container(&status, "proxy");
    assert_eq!((proxy.restart_count, proxy.ready), (1, false));

    let status = status_of_deleted(&pod);
    assert_eq!(state(&status, "proxy"), "ended 1 Error");
}

fn status_of_deleted(pod: &Pod) -> PodStatus {
    status(pod, &GroupObservation::Deleted(None), 20)
}

#[test]
fn a_list_that_shows_no_containers_implies_that_the_sidecar_runs_and_the_init_container_has_ended()
{
    let body = json!({"name": "g", "properties": {"provisioningState": "Succeeded"}});
    let group = ContainerGroup::from_value(&body).expect("a group");
    let status = write(&mut pod_with_sidecar(), &GroupObservation::Group(&group), 9);
    assert_eq!(state(&status, "proxy"), "running");
    assert_eq!(state(&status, "setup"), "ended 0 Completed");
    assert_eq!(condition_text(&status, "Ready"), "True");
}

#[test]
fn the_image_and_the_resources_of_a_sidecar_are_those_of_its_container_in_the_group() {
    let mut pod = pod_with_sidecar();
    let set = |pod: &mut Pod, image: &str, cpu: &str| {
        let init = pod.spec.as_mut().expect("a spec").init_containers.as_mut();
        let proxy = &mut init.expect("two")[1];
        proxy.image = Some(image.to_owned());
        proxy.resources =
            serde_json::from_value(json!({"requests": {"cpu": cpu}})).expect("resources");
    };
    set(&mut pod, "nginx:1", "100m");
    let group = seen(&[("proxy", running(3)), ("web", running(3))], terminated(0));
    let status = write(&mut pod, &GroupObservation::Group(&group), 9);
    assert!(outdated_images(&pod, &group).is_empty());
    assert!(container(&status, "proxy").resources.is_some());
    set(&mut pod, "nginx:2", "200m");
    let outdated = outdated_images(&pod, &group);
    assert_eq!(outdated[0].container, "proxy");
    let status = write(&mut pod, &GroupObservation::Group(&group), 10);
    assert_eq!(
        condition_text(&status, "PodResizePending"),
        "True Infeasible"
    );
}
