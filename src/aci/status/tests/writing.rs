//! Tests: what is written to the API server, and when.

use super::*;

type StatusChange<'a> = &'a dyn Fn(&mut PodStatus);

fn running_pod() -> (Pod, ContainerGroup) {
    let mut pod = pod("Always", &["web", "log"], &["one"]);
    let containers = [("web", running(1)), ("log", terminated(1))];
    let group = group_with_init(
        "Succeeded",
        "Running",
        &containers,
        &[("one", terminated(0))],
    );
    write(&mut pod, &GroupObservation::Group(&group), 2);
    (pod, group)
}

#[test]
fn equal_statuses_in_different_forms_are_the_same() {
    let (pod, _) = running_pod();
    let live = pod.status.clone().expect("a status");
    let reorder = |status: &mut PodStatus| {
        status.conditions.as_mut().expect("conditions").reverse();
        status
            .container_statuses
            .as_mut()
            .expect("statuses")
            .reverse();
    };
    let times = |status: &mut PodStatus| {
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_transition_time = Some(Time(at(77)));
        }
        let start = &mut status.start_time.as_mut().expect("a start").0;
        *start = start
            .checked_add(std::time::Duration::from_millis(400))
            .expect("in range");
    };
    let empties = |status: &mut PodStatus| {
        (status.reason, status.ephemeral_container_statuses) =
            (Some(String::new()), Some(Vec::new()));
        for status in status.container_statuses.iter_mut().flatten() {
            status.last_state.get_or_insert_default(); // as the API server writes it
        }
    };
    let dropped = |status: &mut PodStatus| {
        status.observed_generation = None; // as an older API server stores it
        for condition in status.conditions.iter_mut().flatten() {
            condition.observed_generation = None;
        }
    };
    let theirs = |status: &mut PodStatus| {
        status.qos_class = Some("Guaranteed".into());
        status.nominated_node_name = Some("other".into());
        status
            .conditions
            .as_mut()
            .expect("conditions")
            .retain(|c| c.type_ != "PodScheduled");
    };
    let changes: [(&str, StatusChange); 5] = [
        ("order", &reorder),
        ("times", &times),
        ("empty", &empties),
        ("dropped by the server", &dropped),
        ("theirs", &theirs),
    ];
    for (what, change) in changes {
        let mut other = live.clone();
        change(&mut other);
        assert!(is_same_status(&other, &live), "{what}");
    }
}

#[test]
fn different_statuses_are_not_the_same() {
    let (pod, _) = running_pod();
    let live = pod.status.clone().expect("a status");
    let web = |status: &mut PodStatus, change: &dyn Fn(&mut ContainerStatus)| {
        change(&mut status.container_statuses.as_mut().expect("statuses")[0]);
    };
    let changes: [StatusChange; 9] = [
        &|status| status.phase = Some("Failed".into()),
        &|status| status.reason = Some("NodeLost".into()),
        &|status| status.pod_ip = Some("10.0.0.5".into()),
        &|status| status.host_ips = None,
        &|status| status.observed_generation = Some(2),
        &|status| status.conditions.as_mut().expect("conditions")[1].status = "False".into(),
        &|status| drop(status.init_container_statuses.take()),
        &|status| web(status, &|web| web.restart_count = 1),
        &|status| web(status, &|web| web.image_id = "x".into()),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut other = live.clone();
        change(&mut other);
        assert!(!is_same_status(&other, &live), "change {at}");
    }
}

#[test]
fn a_patch_names_the_pod_by_uid_and_sends_only_owned_fields() {
    let (mut pod, group) = running_pod();
    pod.status.as_mut().expect("a status").reason = Some("NodeLost".into());
    let patch = status_patch(&pod, &status(&pod, &GroupObservation::Group(&group), 9));
    assert_eq!(patch["metadata"], json!({"uid": "u-1"}));
    let fields: Vec<_> = patch["status"]
        .as_object()
        .expect("a status")
        .keys()
        .cloned()
        .collect();
    let wanted = [
        "conditions",
        "containerStatuses",
        "hostIP",
        "hostIPs",
        "initContainerStatuses",
        "observedGeneration",
        "phase",
        "podIP",
        "podIPs",
        "reason",
        "startTime",
    ];
    assert_eq!(fields, wanted);
    assert_eq!(
        patch["status"]["reason"],
        Value::Null,
        "fields of other writers are removed"
    );
    let conditions = patch["status"]["conditions"]
        .as_array()
        .expect("conditions");
    let kinds: Vec<_> = conditions
        .iter()
        .filter_map(|c| c["type"].as_str())
        .collect();
    let ours = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    ];
    assert_eq!(kinds, ours);
}

#[test]
fn a_patch_deletes_outdated_elements_of_merged_lists() {
    let (mut pod, group) = running_pod();
    let live = pod.status.as_mut().expect("a status");
    let ip = |ip: &str| PodIP { ip: ip.to_owned() };
    live.pod_ips = Some(vec![ip("10.9.9.9")]);
    let conditions = live.conditions.as_mut().expect("conditions");
    let initialized = conditions
        .iter_mut()
        .find(|condition| condition.type_ == "Initialized");
    initialized.expect("Initialized").message = Some("it was not".to_owned());
    let resize = json!({"type": "PodResizePending", "status": "True", "reason": "Infeasible"});
    conditions.push(serde_json::from_value(resize).expect("a condition"));

    let patch = &status_patch(&pod, &status(&pod, &GroupObservation::Group(&group), 9))["status"];
    let element = |list: &str, key: &str, value: &str| {
        let mut elements = patch[list].as_array().into_iter().flatten();
        elements
            .find(|element| element[key] == value)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(
        element("podIPs", "ip", "10.9.9.9"),
        json!({"$patch": "delete", "ip": "10.9.9.9"})
    );
    assert_eq!(
        element("conditions", "type", "PodResizePending"),
        json!({"$patch": "delete", "type": "PodResizePending"})
    );
    let initialized = element("conditions", "type", "Initialized");
    assert_eq!(
        (&initialized["status"], &initialized["message"]),
        (&json!("True"), &Value::Null)
    );
    assert!(
        initialized
            .as_object()
            .is_some_and(|fields| fields.contains_key("message"))
    );
    assert!(
        element("conditions", "type", "PodScheduled").is_null(),
        "theirs"
    );
}

#[test]
fn times_are_whole_seconds_as_the_api_server_stores_them() {
    let mut pod = pod("Always", &["web"], &[]);
    let now = "2026-11-24T08:00:05.987654321Z".parse().expect("a time");
    let view = json!({"restartCount": 0,
        "currentState": {"state": "Running", "startTime": "2026-11-24T08:00:01.342Z"}});
    let group = group("Succeeded", "Running", &[("web", view)]);
    let first = pod_status(&pod, &GroupObservation::Group(&group), &FACTS, now);
    assert_eq!(stored(&first), first);
    pod.status = Some(first.clone());
    assert_eq!(
        pod_status(&pod, &GroupObservation::Group(&group), &FACTS, at(99)),
        first
    );
}

#[test]
fn the_recorded_answers_make_sense_as_pods() {
    let file = include_str!("../../../../tests/fixtures/aci/recordings/azure-cli-recordings.json");
    let file: Value = serde_json::from_str(file).expect("JSON");
    let name = "clicontainer000002";
    let summary = |exchange: &str| {
        let exchanges = file["exchanges"].as_array().expect("exchanges");
        let found = exchanges
            .iter()
            .find(|candidate| candidate["name"] == exchange)
            .expect(exchange);
        let group = ContainerGroup::from_value(&found["response"]["body"]).expect("a group");
        let policy = group.properties.restart_policy.clone().unwrap_or_default();
        let status = status(
            &pod(&policy, &[name], &[]),
            &GroupObservation::Group(&group),
            0,
        );
        let ready = condition_text(&status, "Ready");
        (
            phase(&status).to_owned(),
            state(&status, name),
            ready,
            status.pod_ip.unwrap_or_default(),
        )
    };
    let cases = [
        (
            "create_public_201",
            "Pending",
            "waiting ContainerCreating",
            "False ContainersNotReady",
            "",
        ),
        (
            "create_vnet_201",
            "Pending",
            "waiting ContainerCreating",
            "False ContainersNotReady",
            "",
        ),
        (
            "get_running_vnet_200",
            "Running",
            "running",
            "True",
            "10.0.0.4",
        ),
        ("get_running_spot_200", "Running", "running", "True", ""),
        (
            "get_terminated_with_events_200",
            "Failed",
            "ended 2 Error",
            "False PodFailed",
            "203.0.113.11",
        ),
    ];
    for (exchange, phase, state, ready, ip) in cases {
        let wanted = (
            phase.to_owned(),
            state.to_owned(),
            ready.to_owned(),
            ip.to_owned(),
        );
        assert_eq!(summary(exchange), wanted, "{exchange}");
    }
}
