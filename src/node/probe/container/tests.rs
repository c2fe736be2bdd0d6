//! What the kubelet's own tests check (`pkg/kubelet/prober/worker_test.go` and `prober_manager_test.go` of
//! Kubernetes 1.37; the name stands at each test), and what only this node does.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::*;

mod lives;
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
