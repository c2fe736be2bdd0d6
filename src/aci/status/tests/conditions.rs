//! Tests: conditions, mainly readiness.

use super::*;

#[test]
fn a_group_that_azure_is_repairing_is_running_and_not_ready() {
    for (provisioning, reason) in [
        ("Unhealthy", "Repairing"),
        ("Repairing", "Repairing"),
        ("Deleting", "Deleting"),
    ] {
        let mut pod = pod("Always", &["web"], &[]);
        let fine = group("Succeeded", "Running", &[("web", running(1))]);
        write(&mut pod, &GroupObservation::Group(&fine), 2);
        let group = group(provisioning, "Running", &[("web", running(1))]);
        let status = write(&mut pod, &GroupObservation::Group(&group), 30);
        assert_eq!(
            (phase(&status), state(&status, "web").as_str()),
            ("Running", "running")
        );
        assert_eq!(condition_text(&status, "Ready"), format!("False {reason}"));
        assert_eq!(
            condition_text(&status, "ContainersReady"),
            format!("False {reason}")
        );
        assert!(
            condition(&status, "Ready")
                .message
                .as_deref()
                .is_some_and(|m| m.contains(provisioning))
        );
        assert!(!container(&status, "web").ready);
        let status = write(&mut pod, &GroupObservation::Group(&fine), 60);
        assert_eq!(condition_text(&status, "Ready"), "True");
        assert_eq!(
            condition(&status, "Ready").last_transition_time,
            Some(Time(at(60)))
        );
    }
}

#[test]
fn an_unhealthy_group_makes_those_unready_that_have_a_readiness_probe() {
    let mut pod = pod("Always", &["web", "log"], &[]);
    let probe = serde_json::from_value(json!({"exec": {"command": ["true"]}})).expect("a probe");
    pod.spec.as_mut().expect("a spec").containers[0].readiness_probe = Some(probe);
    let group = group(
        "Unhealthy",
        "Running",
        &[("web", running(1)), ("log", running(1))],
    );
    let status = status(&pod, &GroupObservation::Group(&group), 9);
    assert_eq!(
        (
            container(&status, "web").ready,
            container(&status, "log").ready
        ),
        (false, true)
    );
    assert_eq!(condition_text(&status, "Ready"), "False Repairing");
}

#[test]
fn a_running_pod_that_waits_in_azure_stays_running() {
    let mut pod = pod("Always", &["web"], &[]);
    let fine = group("Succeeded", "Running", &[("web", running(1))]);
    write(&mut pod, &GroupObservation::Group(&fine), 2);
    for view in [Value::Null, waiting("")] {
        let status = status(
            &pod,
            &GroupObservation::Group(&group("Repairing", "Pending", &[("web", view)])),
            9,
        );
        assert_eq!(
            (phase(&status), state(&status, "web").as_str()),
            ("Running", "waiting ContainerCreating")
        );
        assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.4"));
    }
}

#[test]
fn readiness_gates_are_honoured_and_their_conditions_kept() {
    let gate = |status: &str| {
        let mut pod = pod("Always", &["web"], &[]);
        let spec = pod.spec.as_mut().expect("a spec");
        spec.readiness_gates = serde_json::from_value(json!([{"conditionType": "lb/ready"}])).ok();
        if !status.is_empty() {
            let theirs = json!({"type": "lb/ready", "status": status, "reason": "Theirs"});
            let conditions = &mut pod.status.as_mut().expect("a status").conditions;
            let conditions = conditions.get_or_insert_default();
            conditions.push(serde_json::from_value(theirs).expect("a condition"));
        }
        let group = group("Succeeded", "Running", &[("web", running(1))]);
        (
            super::status(&pod, &GroupObservation::Group(&group), 9),
            pod,
        )
    };
    let not_there = "corresponding condition of pod readiness gate \"lb/ready\" does not exist.";
    let shut = "the status of pod readiness gate \"lb/ready\" is not \"True\", but False";
    let cases = [
        ("", "False ReadinessGatesNotReady", Some(not_there)),
        ("False", "False ReadinessGatesNotReady", Some(shut)),
        ("True", "True", None),
    ];
    for (status_of_gate, ready, message) in cases {
        let (status, pod) = gate(status_of_gate);
        assert_eq!(condition_text(&status, "Ready"), ready);
        assert_eq!(condition(&status, "Ready").message.as_deref(), message);
        assert_eq!(condition_text(&status, "ContainersReady"), "True");
        if !status_of_gate.is_empty() {
            assert_eq!(
                condition_text(&status, "lb/ready"),
                format!("{status_of_gate} Theirs")
            );
        }
        let sent = status_patch(&pod, &status)["status"]["conditions"].clone();
        let sent = sent.as_array().expect("conditions").clone();
        assert!(sent.iter().all(|condition| condition["type"] != "lb/ready"));
    }
}

#[test]
fn ready_is_restored_after_another_writer_changed_it() {
    let mut pod = pod("Always", &["web"], &[]);
    let group = group("Succeeded", "Running", &[("web", running(1))]);
    write(&mut pod, &GroupObservation::Group(&group), 2);
    let conditions = pod
        .status
        .as_mut()
        .and_then(|status| status.conditions.as_mut());
    for condition in conditions.expect("conditions") {
        if condition.type_ == "Ready" {
            condition.status = "False".into(); // the node controller wrote this while the operator was down
            condition.last_transition_time = Some(Time(at(100)));
        }
    }
    let live = pod.status.clone().expect("a status");
    let status = status(&pod, &GroupObservation::Group(&group), 200);
    assert!(!is_same_status(&live, &status));
    assert_eq!(condition_text(&status, "Ready"), "True");
    assert_eq!(
        condition(&status, "Ready").last_transition_time,
        Some(Time(at(200)))
    );
    assert_eq!(
        condition(&status, "ContainersReady").last_transition_time,
        Some(Time(at(2)))
    );
}

#[test]
fn a_pod_that_succeeded_says_so_in_its_conditions() {
    let group = group("Succeeded", "Succeeded", &[("web", terminated(0))]);
    let status = status(
        &pod("Never", &["web"], &[]),
        &GroupObservation::Group(&group),
        30,
    );
    assert_eq!(condition_text(&status, "Ready"), "False PodCompleted");
    assert_eq!(
        condition_text(&status, "ContainersReady"),
        "False PodCompleted"
    );
    assert_eq!(condition_text(&status, "Initialized"), "True PodCompleted");
}

#[test]
fn a_pinned_image_that_was_not_pulled_is_no_sandbox() {
    let pod = pod("Always", &["web"], &[]);
    let digest = format!("nginx@sha256:{}", "a".repeat(64));
    let body = json!({"name": "g", "properties": {"provisioningState": "Creating",
        "containers": [{"name": "web", "properties": {"image": digest}}]}});
    let created = ContainerGroup::from_value(&body).expect("a group");
    let status = status(&pod, &GroupObservation::Group(&created), 9);
    let text = condition_text(&status, "PodReadyToStartContainers");
    assert!(text.starts_with("False"), "{text}");
}

#[test]
fn the_hooks_of_a_pod_are_in_its_status_until_its_group_is_gone() {
    let progress = |names: &[&str]| PreStopProgress {
        running: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let group = group("Succeeded", "Running", &[("web", running(1))]);
    let observation = GroupObservation::Group(&group);
    let mut pod = pod("Always", &["web", "log"], &[]);
    write(&mut pod, &observation, 2);
    assert_eq!(PreStopRecord::of(&pod), None);
    let tell = |pod: &mut Pod, progress: &PreStopProgress, second| {
        let facts = NodeFacts {
            pre_stop: Some(progress),
            ..FACTS
        };
        let told = stored(&pod_status(pod, &observation, &facts, at(second)));
        let is_urgent = is_urgent(pod.status.as_ref().expect("a status"), &told);
        pod.status = Some(told);
        is_urgent
    };
    for (second, names) in [(10, &["log", "web"][..]), (12, &["web"])] {
        let progress = progress(names);
        assert!(tell(&mut pod, &progress, second));
        let since = Some(at(10));
        assert_eq!(
            PreStopRecord::of(&pod),
            Some(PreStopRecord { progress, since })
        );
    }
    // Another leader knows no more than that.
    let shown = write(&mut pod, &observation, 13);
    assert_eq!(
        condition_text(&shown, "burstpool.io/PreStop"),
        "False Running"
    );
    assert_eq!(
        condition(&shown, "burstpool.io/PreStop").message.as_deref(),
        Some("containers with running preStop hooks: [web]")
    );
    let gone = status(&pod, &GroupObservation::Deleted(Some(&group)), 20);
    assert_eq!(
        condition_text(&gone, "burstpool.io/PreStop"),
        "True Completed"
    );
    assert!(tell(&mut pod, &progress(&[]), 14));
    let record = PreStopRecord::of(&pod).expect("a record");
    assert!(record.progress.running.is_empty());
}
