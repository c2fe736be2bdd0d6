//! Restarts, changes of leader, and what each life of a container begins with.

use super::*;

#[test]
fn a_restart_begins_from_zero_and_drops_the_answer_to_the_old_container() {
    let mut lab = Lab::new(readiness(2, 3));
    lab.answer(success());
    lab.answer(success());
    assert!(lab.is_ready());
    let request = lab.probes.start(at(20)).expect("it is due");
    lab.probes.observe(running("b", 21), at(21));
    lab.now = at(21);
    assert_eq!(lab.shown(), (true, false));
    let next = lab.probes.start(at(21)).expect("it is due");
    lab.probes
        .record(&request, failure(), ProbePath::Proven, at(22));
    assert_eq!(lab.probes.start(at(40)), None, "the next is on its way");
    lab.probes
        .record(&next, success(), ProbePath::Proven, at(22));
    assert!(!lab.is_ready(), "earlier successes do not count");
    lab.answer(success());
    assert!(lab.is_ready());
}

/// `TestChangeContainerStatusOnKubeletRestart`, with the feature disabled, as it is by default since 1.35.
#[test]
fn a_new_leader_keeps_the_verdict_of_the_same_container_until_it_has_seen_enough_itself() {
    let seed = |id: &str, started, ready| ProbeSeed {
        id: Some(id.to_owned()),
        started,
        ready,
    };
    for (seed, is_started, is_ready) in [
        (seed("a", true, true), true, true),
        (seed("a", true, false), true, false),
        (seed("a", false, false), false, false),
        (seed("b", true, true), false, false),
    ] {
        let mut lab = Lab::seeded(startup(3), Some(seed.clone()));
        lab.probes.observe(running("a", 0), at(0));
        assert_eq!(lab.shown(), (is_started, is_ready), "{seed:?}");
        // The first probe of a container that was taken over is delayed by its share of the period.
        let due = if seed.id.as_deref() == Some("a") {
            7
        } else {
            0
        };
        assert_eq!(lab.probes.due(), Some(at(due)), "{seed:?}");
        if is_ready {
            for _ in 0..2 {
                lab.answer(failure());
                assert!(lab.is_ready());
            }
            lab.answer(failure());
            assert_eq!(lab.shown(), (true, false));
        }
    }
}

#[test]
fn a_run_that_a_list_shows_without_its_id_is_the_one_that_a_get_shows_with_it() {
    let unknown = ProbedContainer::Running {
        id: None,
        started_at: None,
    };
    let mut lab = Lab::seeded(readiness(1, 3), None);
    lab.probes.observe(unknown.clone(), at(0));
    lab.answer(success());
    for (seen, is_ready) in [
        (running("a", 0), true),
        (unknown.clone(), true),
        (running("a", 0), true),
        (running("b", 5), false),
    ] {
        lab.probes.observe(seen.clone(), at(5));
        assert_eq!(lab.is_ready(), is_ready, "{seen:?}");
    }
}

/// Azure restarts a container in place, and the node reads that at 100 s although it happened at 40 s.
#[test]
fn a_restart_that_is_read_late_keeps_what_the_new_run_has_shown_and_needs_new_failures() {
    for (restarted_at, is_kept) in [(40, true), (50, true), (60, false), (100, false)] {
        let mut lab = Lab::new(startup(3));
        lab.answer(success());
        while lab.now < at(90) {
            lab.answer(success());
        }
        lab.answer(failure());
        assert!(lab.is_ready());
        // The last success was sent at 90 s.
        lab.probes.observe(running("b", restarted_at), at(101));
        let shown = (is_kept, is_kept);
        assert_eq!(lab.shown(), shown, "{restarted_at}");
        if is_kept {
            for _ in 0..2 {
                lab.answer(failure());
                assert!(lab.is_ready(), "{restarted_at}");
            }
            lab.answer(failure());
            assert_eq!(lab.shown(), (true, false));
        }
    }
    // Nothing is carried past a time when the container did not run.
    let mut lab = Lab::new(readiness(1, 3));
    while lab.now < at(90) {
        lab.answer(success());
    }
    lab.probes.observe(ProbedContainer::NotRunning, at(95));
    lab.probes.observe(running("b", 40), at(101));
    assert_eq!(lab.shown(), (true, false));
}

#[test]
fn the_initial_delay_counts_from_the_end_of_the_run_before_if_azure_repeats_its_start() {
    let delayed = || specs(json!({"readinessProbe": {"initialDelaySeconds": 30}}));
    let mut lab = Lab::new(delayed());
    lab.probes.observe(ProbedContainer::NotRunning, at(100));
    lab.probes.observe(ProbedContainer::NotRunning, at(110));
    lab.probes.observe(running("b", 0), at(120));
    assert_eq!(lab.probes.due(), Some(at(130)));
    // A LIST does not have the start: a GET does.
    let mut lab = Lab::seeded(delayed(), None);
    let unknown = ProbedContainer::Running {
        id: None,
        started_at: None,
    };
    lab.probes.observe(unknown, at(50));
    assert_eq!(lab.probes.due(), Some(at(80)));
    lab.probes.observe(running("a", 35), at(60));
    assert_eq!(lab.probes.due(), Some(at(65)));
    lab.now = at(65);
    lab.answer(success());
    lab.probes.observe(running("a", 64), at(66));
    assert_eq!(lab.probes.due(), Some(at(75)));
}

#[test]
fn each_probe_of_a_container_is_spread_over_its_own_period() {
    let specs = specs(json!({
        "startupProbe": {"periodSeconds": 1},
        "readinessProbe": {"periodSeconds": 100},
    }));
    let seed = |started| {
        let (id, ready) = (Some("a".to_owned()), false);
        Some(ProbeSeed { id, started, ready })
    };
    for (started, due) in [(false, 700), (true, 70_000)] {
        let mut lab = Lab::seeded(specs.clone(), seed(started));
        lab.probes.observe(running("a", 0), at(0));
        let due = Timestamp::from_millisecond(due).expect("in range");
        assert_eq!(lab.probes.due(), Some(due), "{started}");
    }
}
