//! What the kubelet's own tests check (`pkg/kubelet/prober/worker_test.go` and `prober_manager_test.go` of
//! Kubernetes 1.37; the name stands at each test), and what only this node does.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::*;

mod path;

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

/// The probes of a container with these fields.
pub(super) fn specs(container: Value) -> ProbeSpecs {
    let mut container = container;
    container["name"] = json!("web");
    for field in ["startupProbe", "readinessProbe"] {
        if container[field].is_object() {
            container[field]["tcpSocket"] = json!({"port": 8080});
        }
    }
    let container: Container = serde_json::from_value(container).expect("a container");
    ProbeSpecs::decoded(&container).expect("it has probes")
}

fn readiness(success: u32, failure: u32) -> ProbeSpecs {
    specs(json!({"readinessProbe": {"successThreshold": success, "failureThreshold": failure}}))
}

fn startup(failure: u32) -> ProbeSpecs {
    specs(json!({"startupProbe": {"failureThreshold": failure}, "readinessProbe": {}}))
}

pub(super) fn running(id: &str, started_at: i64) -> ProbedContainer {
    ProbedContainer::Running {
        id: Some(id.to_owned()),
        started_at: Some(at(started_at)),
    }
}

pub(super) fn success() -> ProbeAnswer {
    ProbeAnswer::from_pod(ProbeOutcome::Success { warning: None })
}

pub(super) fn failure() -> ProbeAnswer {
    ProbeAnswer::from_pod(ProbeOutcome::Failure("no".to_owned()))
}

pub(super) fn unreachable() -> ProbeAnswer {
    let why = ProbeUnreachable::Timeout("dial tcp 10.0.0.4:8080: i/o timeout".to_owned());
    ProbeAnswer::without_contact(ProbeOutcome::Unreachable(why))
}

pub(super) fn errored() -> ProbeAnswer {
    ProbeAnswer::from_pod(ProbeOutcome::Errored("unexpected EOF".to_owned()))
}

impl ContainerProbes {
    /// When there is something to do next.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let times = [self.probe_due(), self.hold_ends()];
        times.into_iter().flatten().min()
    }
}

/// A container whose probes are answered as soon as they are due.
struct Lab {
    probes: ContainerProbes,
    now: Timestamp,
    path: ProbePath,
}

impl Lab {
    /// A container that has run since 0 s with a new leader.
    fn new(specs: ProbeSpecs) -> Self {
        let mut lab = Self::seeded(specs, None);
        lab.probes.observe(running("a", 0), at(0));
        lab
    }

    fn seeded(specs: ProbeSpecs, seed: Option<ProbeSeed>) -> Self {
        Self {
            probes: ContainerProbes::new(specs, seed, 0.7),
            now: at(0),
            path: ProbePath::Proven,
        }
    }

    /// Waits for the next probe and answers it; returns which it was, and the Event.
    fn answer(&mut self, answer: ProbeAnswer) -> (ProbeKind, Option<ProbeEvent>) {
        self.now = self.now.max(self.probes.due().expect("a probe is due"));
        let request = self.probes.start(self.now).expect("a probe is due");
        let event = self.probes.record(&request, answer, self.path, self.now);
        (request.kind, event)
    }

    /// The verdict as the pod's status has it: started, ready.
    fn shown(&self) -> (bool, bool) {
        let verdict = self.probes.verdict();
        (verdict.started, verdict.ready)
    }

    fn is_ready(&self) -> bool {
        self.shown() == (true, true)
    }
}

/// `TestFailureThreshold`.
#[test]
fn three_failures_in_a_row_end_readiness_and_one_success_brings_it_back() {
    let mut lab = Lab::new(readiness(1, 3));
    for round in 0..2 {
        for n in 0..3 {
            lab.answer(success());
            assert!(lab.is_ready(), "success {n} of round {round}");
        }
        for n in 0..2 {
            lab.answer(failure());
            assert!(lab.is_ready(), "failure {n} of round {round}");
        }
        for n in 2..5 {
            lab.answer(failure());
            assert!(!lab.is_ready(), "failure {n} of round {round}");
        }
    }
}

/// `TestSuccessThreshold`.
#[test]
fn readiness_takes_as_many_successes_in_a_row_as_the_threshold_says() {
    let mut lab = Lab::new(readiness(3, 1));
    for round in 0..2 {
        for n in 0..2 {
            lab.answer(success());
            assert!(!lab.is_ready(), "success {n} of round {round}");
        }
        for n in 2..5 {
            lab.answer(success());
            assert!(lab.is_ready(), "success {n} of round {round}");
        }
        lab.answer(failure());
        assert!(!lab.is_ready(), "failure of round {round}");
    }
}

/// `TestInitialDelay`, `TestDoProbe` ("Initial delay passed").
#[test]
fn no_probe_is_sent_before_the_initial_delay_which_counts_from_the_start_of_the_container() {
    for (started_at, due) in [(0, 10), (-4, 6), (-100, 0), (50, 10)] {
        let specs = specs(json!({"readinessProbe": {"initialDelaySeconds": 10}}));
        let mut lab = Lab::seeded(specs, None);
        lab.probes.observe(running("a", started_at), at(0));
        assert_eq!(lab.shown(), (true, false), "{started_at}");
        assert_eq!(lab.probes.due(), Some(at(due)), "{started_at}");
        assert_eq!(lab.probes.start(at(due - 1)), None, "{started_at}");
        lab.answer(success());
        assert!(lab.is_ready(), "{started_at}");
    }
}

/// `TestDoProbe`: "No status", "No container status", "Container waiting", "Container terminated".
#[test]
fn a_container_that_does_not_run_is_not_ready_and_not_probed() {
    let mut lab = Lab::seeded(readiness(1, 3), None);
    assert_eq!((lab.shown(), lab.probes.due()), ((false, false), None));
    lab.probes.observe(ProbedContainer::NotRunning, at(0));
    assert_eq!((lab.shown(), lab.probes.due()), ((false, false), None));
    lab.probes.observe(running("a", 0), at(1));
    lab.now = at(1);
    lab.answer(success());
    assert!(lab.is_ready());
    lab.probes.observe(ProbedContainer::NotRunning, at(2));
    assert_eq!((lab.shown(), lab.probes.due()), ((false, false), None));
    assert_eq!(lab.probes.verdict().startup, ProbeStartup::Pending);
}

/// `TestStartupProbeSuccessThreshold`, `TestStartupProbeDisabledByStarted`, `TestLivenessProbeDisabledByStarted`.
#[test]
fn the_startup_probe_gates_readiness_and_ends_when_the_container_has_started() {
    let mut lab = Lab::new(startup(3));
    for _ in 0..2 {
        assert_eq!(lab.answer(failure()).0, ProbeKind::Startup);
        assert_eq!(lab.shown(), (false, false));
    }
    assert_eq!(lab.answer(success()).0, ProbeKind::Startup);
    assert_eq!(lab.shown(), (true, false));
    assert_eq!(lab.probes.verdict().startup, ProbeStartup::Succeeded);
    // At once, as after the kubelet's status sync.
    assert_eq!(lab.probes.due(), Some(lab.now));
    for _ in 0..20 {
        assert_eq!(lab.answer(failure()).0, ProbeKind::Readiness);
        assert_eq!(lab.shown(), (true, false));
    }
    assert_eq!(lab.answer(success()).0, ProbeKind::Readiness);
    assert!(lab.is_ready());
}

/// `TestStartupProbeFailureThreshold`, `TestOnHoldOnLivenessOrStartupCheckFailure`,
/// `TestResultRunOnStartupCheckFailure`.
#[test]
fn a_startup_probe_that_fails_for_good_is_an_outcome_of_its_own_until_there_is_a_new_container() {
    let mut lab = Lab::new(startup(3));
    for n in 1..=3 {
        assert_eq!(lab.probes.verdict().startup, ProbeStartup::Pending, "{n}");
        let event = lab.answer(failure()).1.expect("an Event");
        assert_eq!(event.message, "Startup probe failed: no");
    }
    let failed = ProbeStartup::Failed {
        message: "no".to_owned(),
    };
    assert_eq!(lab.probes.verdict().startup, failed);
    assert_eq!(lab.shown(), (false, false));
    lab.probes.observe(running("a", 0), at(100));
    assert_eq!(lab.probes.verdict().startup, failed, "the same container");
    lab.probes.observe(running("b", 100), at(100));
    assert_eq!(lab.probes.verdict().startup, ProbeStartup::Pending);
    lab.now = at(100);
    for _ in 0..2 {
        lab.answer(failure());
    }
    assert_eq!(lab.probes.verdict().startup, ProbeStartup::Pending);
    lab.answer(success());
    assert_eq!(lab.shown(), (true, false));
}

/// A kubelet kills the container at this time. Here ACI's liveness probe does, which may succeed instead.
#[test]
fn a_container_that_starts_after_its_startup_probe_failed_for_good_is_started() {
    let mut lab = Lab::new(startup(3));
    for _ in 0..4 {
        lab.answer(failure());
    }
    lab.answer(success());
    assert_eq!(lab.shown(), (true, false));
    lab.answer(success());
    assert!(lab.is_ready());
}

/// `TestUpdatePodStatus`: `not_started_container_no_readiness`, `started_container_no_readiness`.
#[test]
fn a_container_without_a_readiness_probe_is_ready_when_it_has_started() {
    let mut lab = Lab::new(specs(json!({"startupProbe": {}})));
    assert_eq!(lab.shown(), (false, false));
    lab.answer(success());
    assert!(lab.is_ready());
    assert_eq!(lab.probes.due(), None);
}

/// `TestDoProbe`, "Pod deletion".
#[test]
fn a_pod_that_is_deleted_ends_its_startup_probe_with_success_and_goes_on_with_readiness() {
    let mut lab = Lab::new(startup(3));
    lab.answer(failure());
    let request = lab.probes.start(at(10)).expect("it is due");
    lab.probes.delete(at(10));
    lab.now = at(10);
    assert_eq!(lab.shown(), (true, false));
    let late = lab
        .probes
        .record(&request, failure(), ProbePath::Proven, at(11));
    assert_eq!(late, None, "the startup probe is over");
    assert_eq!(lab.answer(success()).0, ProbeKind::Readiness);
    assert!(lab.is_ready());
    for _ in 0..3 {
        lab.answer(failure());
    }
    assert_eq!(lab.shown(), (true, false));
    lab.probes.observe(running("b", 60), at(60));
    assert_eq!(lab.shown(), (true, false), "a new container as well");
}

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

#[test]
fn probes_keep_their_phase_and_skip_what_they_missed() {
    let mut lab = Lab::new(readiness(1, 3));
    for (started, next) in [(0, 10), (10, 20), (23, 30), (30, 40), (57, 67)] {
        let request = lab.probes.start(at(started)).expect("it is due");
        assert_eq!(lab.probes.due(), None, "one at a time");
        lab.probes
            .record(&request, success(), ProbePath::Proven, at(started));
        assert_eq!(lab.probes.due(), Some(at(next)), "{started}");
    }
    // One that takes longer than the period is followed by the next at once.
    let request = lab.probes.start(at(67)).expect("it is due");
    lab.probes
        .record(&request, success(), ProbePath::Proven, at(90));
    assert!(lab.probes.start(at(90)).is_some());
}

/// `TestProbe` of `prober_test.go`: "Probe result is warning", "Probe result is unknown with an error".
#[test]
fn each_outcome_has_the_kubelets_event_and_an_error_does_not_count() {
    let mut lab = Lab::new(readiness(1, 1));
    let warning = ProbeOutcome::Success {
        warning: Some("Probe terminated redirects, Response body: x".to_owned()),
    };
    let event = lab.answer(ProbeAnswer::from_pod(warning)).1;
    let message = "Readiness probe warning: Probe terminated redirects, Response body: x";
    assert_eq!(event.expect("an Event").message, message);
    assert!(lab.is_ready());
    for _ in 0..5 {
        let event = lab.answer(errored()).1.expect("an Event");
        let message = "Readiness probe errored and resulted in failure state: unexpected EOF";
        assert_eq!(event.message, message);
        assert!(lab.is_ready());
    }
    let event = lab.answer(failure()).1.expect("an Event");
    assert_eq!(event.message, "Readiness probe failed: no");
    assert!(!lab.is_ready());
    assert_eq!(lab.answer(success()).1, None);
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

#[test]
fn messages_of_apps_are_bounded_wherever_they_are_kept() {
    let long = "x".repeat(100_000);
    let mut lab = Lab::new(startup(1));
    let failed = ProbeAnswer::from_pod(ProbeOutcome::Failure(long.clone()));
    let event = lab.answer(failed).1.expect("an Event");
    assert!(event.message.len() <= 1024);
    let ProbeStartup::Failed { message } = lab.probes.verdict().startup else {
        unreachable!("it has failed");
    };
    assert!(message.len() <= 1024, "{}", message.len());
    let mut lab = Lab::new(readiness(1, 1));
    let warning = Some(long);
    let warned = ProbeAnswer::from_pod(ProbeOutcome::Success { warning });
    let event = lab.answer(warned).1.expect("an Event");
    assert!(event.message.len() <= 1024);
}
