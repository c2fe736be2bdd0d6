//! A path that is not proven, or that breaks.

use super::*;

#[test]
fn an_unproven_path_is_no_failure_of_the_app_and_its_message_names_the_port_and_the_group() {
    let mut lab = Lab::new(readiness(1, 1));
    lab.path = ProbePath::Unproven;
    for _ in 0..20 {
        assert_eq!(lab.answer(unreachable()).1, None, "no Event blames the app");
        assert!(!lab.is_ready());
    }
    let Some(ProbeBlocked::Unproven { message }) = lab.probes.verdict().blocked else {
        unreachable!("the path is not proven");
    };
    for part in ["port 8080", "network security group"] {
        assert!(message.contains(part), "{message}");
    }
    lab.answer(success());
    assert!(lab.is_ready() && lab.probes.verdict().blocked.is_none());
}

#[test]
fn with_a_proven_path_a_connection_that_is_not_answered_is_the_apps_failure() {
    let mut lab = Lab::new(readiness(1, 2));
    lab.answer(success());
    lab.answer(unreachable());
    assert!(lab.is_ready());
    let event = lab.answer(unreachable()).1.expect("an Event");
    let message = "Readiness probe failed: dial tcp 10.0.0.4:8080: i/o timeout";
    assert_eq!(event.message, message);
    assert!(!lab.is_ready() && lab.probes.verdict().blocked.is_none());
}

#[test]
fn the_verdict_holds_for_a_minute_when_the_path_breaks_and_comes_back_by_probes_only() {
    let mut lab = Lab::new(readiness(2, 1));
    lab.answer(success());
    lab.answer(success());
    assert!(lab.is_ready());
    lab.path = ProbePath::Broken { since: at(15) };
    for second in [20, 30, 40, 50, 60, 70] {
        assert_eq!(lab.answer(unreachable()).1, None);
        assert_eq!(lab.now, at(second));
        assert!(lab.is_ready(), "{second}");
    }
    let Some(ProbeBlocked::Broken { message }) = lab.probes.verdict().blocked else {
        unreachable!("the path is broken");
    };
    assert!(message.contains("port 8080") && message.contains("network security group"));
    // A minute after the break, between two probes.
    assert_eq!(lab.probes.due(), Some(at(75)));
    lab.probes.advance(at(75));
    assert_eq!(lab.shown(), (true, false));
    assert_eq!(lab.probes.due(), Some(at(80)));
    lab.answer(success());
    assert!(!lab.is_ready() && lab.probes.verdict().blocked.is_none());
    lab.answer(success());
    assert!(lab.is_ready());
}

#[test]
fn a_new_leader_that_cannot_reach_the_pod_holds_the_verdict_for_a_minute_as_well() {
    let seed = ProbeSeed {
        id: Some("a".to_owned()),
        started: true,
        ready: true,
    };
    let mut lab = Lab::seeded(readiness(1, 3), Some(seed));
    lab.probes.observe(running("a", 0), at(0));
    lab.path = ProbePath::Unproven;
    while lab.now < at(57) {
        lab.answer(unreachable());
        assert!(lab.is_ready(), "{}", lab.now);
    }
    lab.probes.advance(at(66));
    assert!(lab.is_ready());
    lab.probes.advance(at(67));
    assert!(!lab.is_ready());
}

#[test]
fn a_startup_probe_is_not_failed_by_a_path_that_is_not_proven() {
    let mut lab = Lab::new(startup(1));
    lab.path = ProbePath::Unproven;
    for _ in 0..30 {
        lab.answer(unreachable());
        assert_eq!(lab.probes.verdict().startup, ProbeStartup::Pending);
    }
    lab.answer(success());
    assert_eq!(lab.shown(), (true, false));
}

#[test]
fn a_node_that_cannot_open_connections_blames_itself_and_holds_the_verdict() {
    let mut lab = Lab::new(readiness(1, 1));
    lab.answer(success());
    let local = || {
        let why = ProbeUnreachable::Local("too many open files".to_owned());
        ProbeAnswer::without_contact(ProbeOutcome::Unreachable(why))
    };
    // Whatever other pods show of the path.
    for path in [
        ProbePath::Proven,
        ProbePath::Unproven,
        ProbePath::Broken { since: at(0) },
    ] {
        lab.path = path;
        assert_eq!(lab.answer(local()).1, None, "no Event blames the app");
        assert!(lab.is_ready());
    }
    let Some(ProbeBlocked::Node { message }) = lab.probes.verdict().blocked else {
        unreachable!("the node is at fault");
    };
    assert!(message.contains("too many open files"), "{message}");
    lab.probes.advance(at(10 + 59));
    assert!(lab.is_ready());
    lab.probes.advance(at(10 + 60));
    assert!(!lab.is_ready());
}
