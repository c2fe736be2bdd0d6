//! Property: whatever the order of answers, restarts, changes of leader and breaks of the path, Ready goes from True
//! to False in a life of a container only after `failureThreshold` failures in a row that one leader has seen, or
//! after the pod was not reached for the whole time for which a verdict holds.

use proptest::prelude::*;
use serde_json::json;

use super::tests::{at, errored, failure, running, specs, success, unreachable};
use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Success,
    Failure,
    Errored,
    Unreachable,
    /// The answer to the last probe comes only now, after what happened in between.
    Late,
    Path(u8),
    Restart,
    Stops,
    Runs,
    /// Another leader takes over and knows only the pod's status.
    Leader,
    Wait(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Success),
        6 => Just(Step::Failure),
        1 => Just(Step::Errored),
        4 => Just(Step::Unreachable),
        1 => Just(Step::Late),
        2 => (0..3_u8).prop_map(Step::Path),
        1 => Just(Step::Restart),
        1 => Just(Step::Stops),
        1 => Just(Step::Runs),
        2 => Just(Step::Leader),
        1 => (0..40_i64).prop_map(Step::Wait),
    ]
}

/// The model: what the present leader has seen of the present life.
struct World {
    probes: ContainerProbes,
    specs: ProbeSpecs,
    now: i64,
    path: ProbePath,
    life: u32,
    is_running: bool,
    /// Results in a row, and which.
    in_a_row: u32,
    last: Option<bool>,
    /// Since when no probe was answered or counted.
    unanswered: Option<i64>,
    /// When it last answered.
    answered: Option<i64>,
    /// Whether the time for which a verdict holds was over at some time in this step.
    is_over: bool,
    pending: Option<ProbeRequest>,
}

impl World {
    fn new(specs: ProbeSpecs) -> Self {
        let mut probes = ContainerProbes::new(specs.clone(), None, 0.0);
        probes.observe(running("0", 0), at(0));
        Self {
            probes,
            specs,
            now: 0,
            path: ProbePath::Proven,
            life: 0,
            is_running: true,
            in_a_row: 0,
            last: None,
            unanswered: None,
            answered: None,
            is_over: false,
            pending: None,
        }
    }

    fn shown(&self) -> ProbedContainer {
        if self.is_running {
            running(&self.life.to_string(), self.now)
        } else {
            ProbedContainer::NotRunning
        }
    }

    fn forget(&mut self) {
        (self.in_a_row, self.last) = (0, None);
        (self.unanswered, self.answered) = (None, None);
    }

    fn counts(&mut self, is_success: bool) {
        let is_same = self.last == Some(is_success);
        self.in_a_row = if is_same { self.in_a_row + 1 } else { 1 };
        (self.last, self.unanswered) = (Some(is_success), None);
    }

    fn advance(&mut self) {
        let hold = i64::try_from(PROBE_PATH_HOLD.as_secs()).expect("it is short");
        self.is_over |= self
            .unanswered
            .is_some_and(|since| self.now >= since + hold);
        self.probes.advance(at(self.now));
    }

    fn probe(&mut self, answer: ProbeAnswer) {
        let Some(due) = self.probes.due() else { return };
        self.now = self.now.max(due.as_second());
        self.advance();
        let Some(request) = self.probes.start(at(self.now)) else {
            return;
        };
        let was_started = self.probes.verdict().started;
        if answer.contact == ProbeContact::Pod {
            self.answered = Some(self.now);
        }
        match &answer.outcome {
            ProbeOutcome::Success { .. } => self.counts(true),
            ProbeOutcome::Failure(_) => self.counts(false),
            ProbeOutcome::Unreachable(_) => match self.path {
                ProbePath::Proven => self.counts(false),
                ProbePath::Unproven => {
                    self.unanswered.get_or_insert(self.now);
                }
                ProbePath::Broken { since } => {
                    let since = since.as_second().max(self.answered.unwrap_or(i64::MIN));
                    let known = self.unanswered.unwrap_or(since);
                    self.unanswered = Some(known.min(since));
                }
            },
            ProbeOutcome::Errored(_) => self.unanswered = None,
        }
        self.probes
            .record(&request, answer, self.path, at(self.now));
        self.advance();
        if self.probes.verdict().started != was_started {
            // Now the other probe counts.
            (self.in_a_row, self.last) = (0, None);
        }
    }

    fn apply(&mut self, step: Step) {
        self.is_over = false;
        match step {
            Step::Success => self.probe(success()),
            Step::Failure => self.probe(failure()),
            Step::Errored => self.probe(errored()),
            Step::Unreachable => self.probe(unreachable()),
            Step::Late => self.late(),
            Step::Path(0) => self.path = ProbePath::Proven,
            Step::Path(1) => self.path = ProbePath::Unproven,
            Step::Path(_) => {
                self.path = ProbePath::Broken {
                    since: at(self.now),
                }
            }
            Step::Restart => self.restart(),
            Step::Stops => self.set_running(false),
            Step::Runs => self.set_running(true),
            Step::Leader => self.change_leader(),
            Step::Wait(seconds) => {
                self.now += seconds;
                self.advance();
            }
        }
    }
}

impl World {
    /// The answer to a probe of an earlier life arrives, while one of this life is on its way.
    fn late(&mut self) {
        let Some(request) = self.pending.take() else {
            return;
        };
        let before = self.probes.verdict();
        let next = self.probes.start(at(self.now));
        self.probes
            .record(&request, failure(), ProbePath::Proven, at(self.now));
        assert_eq!(self.probes.verdict(), before);
        if let Some(next) = next {
            assert_eq!(self.probes.start(Timestamp::MAX), None, "one at a time");
            self.probes
                .record(&next, errored(), self.path, at(self.now));
            (self.unanswered, self.answered) = (None, Some(self.now));
        }
    }

    fn restart(&mut self) {
        if self.is_running && self.pending.is_none() {
            self.pending = self.probes.start(at(self.now));
        }
        self.life += 1;
        self.is_running = true;
        self.forget();
        self.probes.observe(self.shown(), at(self.now));
    }

    fn set_running(&mut self, runs: bool) {
        if self.is_running != runs {
            self.life += u32::from(runs);
            self.is_running = runs;
            self.forget();
        }
        self.probes.observe(self.shown(), at(self.now));
    }

    fn change_leader(&mut self) {
        let verdict = self.probes.verdict();
        let seed = self.is_running.then(|| ProbeSeed {
            id: Some(self.life.to_string()),
            started: verdict.started,
            ready: verdict.ready,
        });
        self.probes = ContainerProbes::new(self.specs.clone(), seed, 0.3);
        self.probes.observe(self.shown(), at(self.now));
        self.forget();
        self.pending = None;
    }
}

/// Checks one step: the verdict before and after.
fn check(world: &World, step: Step, before: &ProbeVerdict, same_life: bool) {
    let after = world.probes.verdict();
    let readiness = world.specs.readiness.as_ref().expect("it has one");
    if same_life && before.started {
        assert!(after.started, "{step:?} takes back that it has started");
    }
    if same_life && before.ready && !after.ready {
        let failed = world.last == Some(false) && world.in_a_row >= readiness.failure_threshold;
        assert!(
            failed || world.is_over,
            "{step:?}: not ready without a reason"
        );
        assert!(!matches!(step, Step::Leader), "a change of leader");
    }
    if after.ready && !before.ready {
        assert_eq!(world.last, Some(true), "{step:?}");
        assert!(world.in_a_row >= readiness.success_threshold, "{step:?}");
    }
    if after.ready {
        assert!(after.started && world.is_running, "{step:?}");
    }
    if !world.is_running {
        assert_eq!(
            (after.started, world.probes.due()),
            (false, None),
            "{step:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn ready_is_taken_away_only_by_failures_that_one_leader_saw_or_by_a_path_that_stays_broken(
        steps in prop::collection::vec(step(), 1..80),
        success_threshold in 1..4_u32,
        failure_threshold in 1..4_u32,
        has_startup in any::<bool>(),
    ) {
        let mut container = json!({"readinessProbe": {
            "successThreshold": success_threshold, "failureThreshold": failure_threshold,
        }});
        if has_startup {
            container["startupProbe"] = json!({"failureThreshold": failure_threshold});
        }
        let mut world = World::new(specs(container));
        for step in steps {
            let (before, life, ran) = (world.probes.verdict(), world.life, world.is_running);
            world.apply(step);
            let same_life = life == world.life && ran && world.is_running;
            check(&world, step, &before, same_life);
        }
    }
}
