//! What the node's probes change in the status.

use super::*;

fn readiness(has_started: bool, is_ready: bool) -> ContainerReadiness {
    ContainerReadiness {
        has_started,
        is_ready,
        is_judged_by_node: true,
        blocked: None,
    }
}

fn status_with(group: &ContainerGroup, web: ContainerReadiness) -> PodStatus {
    let mut pod = pod("Always", &["web", "log"], &[]);
    let probe = json!({"httpGet": {"port": 80}});
    let probe = serde_json::from_value(probe).expect("a probe");
    pod.spec.as_mut().expect("a spec").containers[0].readiness_probe = Some(probe);
    let report = ReadinessReport::from([("web".to_owned(), web)]);
    let facts = NodeFacts {
        readiness: Some(&report),
        ..FACTS
    };
    pod_status(&pod, &GroupObservation::Group(group), &facts, at(9))
}

fn shown(status: &PodStatus) -> (Option<bool>, bool, String) {
    let web = container(status, "web");
    assert!(container(status, "log").ready, "it has no probes");
    (web.started, web.ready, condition_text(status, "Ready"))
}

#[test]
fn a_container_is_started_and_ready_only_when_the_nodes_probes_say_so() {
    let runs = [("web", running(1)), ("log", running(1))];
    let fine = group("Succeeded", "Running", &runs);
    let not_ready = "False ContainersNotReady".to_owned();
    for (web, wanted) in [
        (
            readiness(false, false),
            (Some(false), false, not_ready.clone()),
        ),
        (
            readiness(true, false),
            (Some(true), false, not_ready.clone()),
        ),
        (readiness(true, true), (Some(true), true, "True".to_owned())),
    ] {
        assert_eq!(shown(&status_with(&fine, web.clone())), wanted, "{web:?}");
    }
    // It no longer runs, whatever the last probe said.
    let ended = [("web", waiting("CrashLoopBackOff")), ("log", running(1))];
    let ended = group("Succeeded", "Running", &ended);
    let status = status_with(&ended, readiness(true, true));
    assert_eq!(shown(&status), (Some(false), false, not_ready));
}

#[test]
fn an_unhealthy_group_is_not_ready_whoever_probes_its_containers() {
    let runs = [("web", running(1)), ("log", running(1))];
    for (state, is_ready) in [("Unhealthy", false), ("Repairing", false)] {
        let group = group(state, "Running", &runs);
        let status = status_with(&group, readiness(true, true));
        assert_eq!(container(&status, "web").ready, is_ready, "{state}");
    }
    let mut by_azure = readiness(true, true);
    by_azure.is_judged_by_node = false;
    let group = group("Unhealthy", "Running", &runs);
    let status = status_with(&group, by_azure);
    assert!(!container(&status, "web").ready && container(&status, "log").ready);
}

#[test]
fn a_condition_says_why_probes_cannot_decide_and_goes_when_they_can() {
    let runs = [("web", running(1)), ("log", running(1))];
    let fine = group("Succeeded", "Running", &runs);
    let mut web = readiness(true, true);
    web.blocked = Some(BlockedProbe {
        reason: "PathBroken",
        message: "check port 80".to_owned(),
    });
    let blocked = status_with(&fine, web);
    let kind = "burstpool.io/ProbesReach";
    let reach = condition(&blocked, kind);
    assert_eq!(condition_text(&blocked, kind), "False PathBroken");
    assert_eq!(reach.message.as_deref(), Some("check port 80"));
    assert!(container(&blocked, "web").ready, "the verdict holds");
    let open = status_with(&fine, readiness(true, true));
    assert!(open.conditions.iter().flatten().all(|c| c.type_ != kind));
    assert!(!is_same_status(&blocked, &open), "it must be removed");
    let mut live = pod("Always", &["web", "log"], &[]);
    live.status = Some(blocked);
    let patch = status_patch(&live, &open);
    let conditions = patch["status"]["conditions"].as_array().expect("a list");
    let removed = json!({"$patch": "delete", "type": kind});
    assert!(conditions.contains(&removed), "{patch}");
}
