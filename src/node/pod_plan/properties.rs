//! Property tests: against a simulated Azure that lags, loses answers and does not find groups that exist, no pod is ended
//! while its group exists, no second PUT with other content is sent, and no group is deleted while hooks may run.

use k8s_openapi::api::core::v1::{PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::node::absence_proof::{CONSISTENCY_LAG, EvidenceSource};

/// The source that now and then does not find a group that it must know. Never both: the truth could not be found out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum LyingSource {
    Get,
    List,
}

/// How a PUT ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PutOutcome {
    Answered,
    AnswerLost,
    Lost,
}

/// What Azure and users do in one run. Times are in half seconds.
#[derive(Clone, Debug)]
struct RunScript {
    /// How long after a PUT a GET and a LIST may not know the group.
    lag: (i64, i64),
    liar: LyingSource,
    /// Which of its answers are lies; the pattern repeats.
    lies: Vec<bool>,
    puts: Vec<PutOutcome>,
    start: i64,
    deletion: i64,
    list_every: i64,
    /// When the group disappears from Azure without a request of the operator.
    vanishes: Option<i64>,
    /// When the pod is deleted.
    deleted: Option<i64>,
    /// When the operator restarts and loses all it knows.
    restarts: Option<i64>,
    /// How long the hook of the pod's container takes.
    hook: Option<i64>,
}

/// The grace period of a pod with a hook, in seconds.
const GRACE_SECONDS: i64 = 30;

fn script() -> impl Strategy<Value = RunScript> {
    let most = i64::try_from(CONSISTENCY_LAG.as_secs()).expect("it is short") * 2 - 1;
    let put = prop_oneof![
        4 => Just(PutOutcome::Answered),
        1 => Just(PutOutcome::AnswerLost),
        1 => Just(PutOutcome::Lost),
    ];
    let moment = || prop::option::of(1..400_i64);
    (
        (0..most, 0..most),
        prop_oneof![Just(LyingSource::Get), Just(LyingSource::List)],
        prop::collection::vec(any::<bool>(), 1..12),
        prop::collection::vec(put, 1..6),
        (1..60_i64, 0..40_i64, 2..130_i64),
        (moment(), moment(), moment()),
        prop::option::of(0..90_i64),
    )
        .prop_map(|(lag, liar, lies, puts, times, moments, hook)| RunScript {
            lag,
            liar,
            lies,
            puts,
            start: times.0,
            deletion: times.1,
            list_every: times.2,
            vanishes: moments.0,
            deleted: moments.1,
            restarts: moments.2,
            hook,
        })
}

/// The group in Azure.
#[derive(Clone, Copy, Debug)]
struct RealGroup {
    put: i64,
    delete: Option<i64>,
}

struct SimulatedRun {
    script: RunScript,
    real: Option<RealGroup>,
    state: PodState,
    pod: Pod,
    now: i64,
    listed: i64,
    /// When the last LIST that shows the group was sent, as a pod worker sees it.
    shown: Option<i64>,
    list_wanted: bool,
    lies: usize,
    puts: usize,
    gone_since: Option<i64>,
    /// Whether a PUT with other content was sent while the group existed.
    is_doubled: bool,
    hook_ends: i64,
    /// Whether a DELETE was sent although a hook could run.
    is_early: bool,
}

fn at(half_seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_507_200_000 + half_seconds * 500).expect("in range")
}

impl SimulatedRun {
    fn new(script: RunScript) -> Self {
        let hook = json!({"containers": [
            {"name": "main", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]});
        let hooked = || serde_json::from_value(hook).expect("a spec");
        let spec: Option<PodSpec> = script.hook.map(|_| hooked());
        let pod = Pod {
            spec: Some(spec.unwrap_or_default()),
            status: Some(PodStatus {
                start_time: Some(Time(at(0))),
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        Self {
            script,
            real: None,
            state: PodState {
                group: GroupPresence::Absent { existed: false },
                ..PodState::default()
            },
            pod,
            now: 0,
            listed: 0,
            shown: None,
            list_wanted: false,
            lies: 0,
            puts: 0,
            gone_since: None,
            is_doubled: false,
            hook_ends: 0,
            is_early: false,
        }
    }

    fn set_running(&mut self) {
        let status = self.pod.status.get_or_insert_default();
        status.phase = Some("Running".to_owned());
        let running = json!([{"name": "main", "image": "", "imageID": "", "restartCount": 0,
            "ready": true, "state": {"running": {}}}]);
        status.container_statuses = serde_json::from_value(running).expect("statuses");
    }

    /// Whether a source does not find the group.
    fn hides(&mut self, source: LyingSource, lag: i64) -> bool {
        let Some(real) = self.real else { return true };
        if self.now < real.put + lag {
            return true;
        }
        self.lies += 1;
        self.script.liar == source && self.script.lies[self.lies % self.script.lies.len()]
    }

    fn advance_azure(&mut self) {
        let (script, now) = (self.script.clone(), self.now);
        let is_deleted = |real: RealGroup| {
            real.delete
                .is_some_and(|delete| delete + script.deletion <= now)
        };
        if self.real.is_some_and(is_deleted) || script.vanishes == Some(now) {
            self.gone_since = self.real.map(|_| now).or(self.gone_since);
            self.real = None;
        }
        if script.deleted == Some(now) {
            self.pod.metadata.deletion_timestamp = Some(Time(at(now)));
            let grace = script.hook.map_or(0, |_| GRACE_SECONDS);
            self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        }
        // A new operator does not know when its predecessor sent a PUT. The test restarts only after that PUT's
        // lag.
        let lag = i64::try_from(CONSISTENCY_LAG.as_secs()).expect("it is short") * 2;
        let lags = self.real.is_some_and(|real| real.put + lag > now);
        if script.restarts == Some(now) && !lags {
            self.state = PodState::default();
            self.listed = i64::MIN / 2;
            self.shown = None;
        }
        if now - self.listed >= script.list_every || (self.list_wanted && now - self.listed >= 2) {
            (self.listed, self.list_wanted) = (now, false);
            if self.hides(LyingSource::List, script.lag.1) {
                self.shown = None;
                self.state.group_not_listed(Some(&self.pod), at(now));
            } else {
                self.shown = Some(now);
                self.state.group_listed(at(now), at(now));
            }
        }
    }

    fn get(&mut self) {
        if self.hides(LyingSource::Get, self.script.lag.0) {
            let shown = self.shown.map(at);
            if !self
                .state
                .group_not_found(Some(&self.pod), shown, at(self.now))
            {
                self.list_wanted |= self.state.absence.is_suspected();
            }
            return;
        }
        let real = self.real.expect("it exists");
        let has_started = self.now >= real.put + self.script.start;
        let reading = GroupReading {
            sent_at: at(self.now),
            is_deleting: real.delete.is_some(),
            has_started,
        };
        self.state.group_seen(reading, at(self.now));
        if has_started {
            self.set_running();
        }
    }

    fn put(&mut self) {
        let answer = self.script.puts[self.puts % self.script.puts.len()];
        self.puts += 1;
        let sent = at(self.now);
        self.is_doubled |= self.real.is_some() && !self.state.has_unanswered_put;
        if self.real.is_some_and(|real| real.delete.is_some()) {
            return self.state.put_too_early(sent);
        }
        if answer != PutOutcome::Lost && self.real.is_none() {
            let (put, delete) = (self.now, None);
            self.real = Some(RealGroup { put, delete });
        }
        match answer {
            PutOutcome::Answered => self.state.put_accepted(sent),
            PutOutcome::AnswerLost | PutOutcome::Lost => {
                self.state.put_unanswered(sent);
                let again = Some(at(self.now + 2));
                self.state.retry_times.set(PodAction::Create, again);
            }
        }
    }

    /// The operator sees the deletion, and the end of the hook.
    fn advance_operator(&mut self) {
        if is_deleting(&self.pod) {
            self.state.deletion_seen_at.get_or_insert(at(self.now));
        }
        if self.state.hooks == HookPhase::Running && self.now >= self.hook_ends {
            self.state.hooks = HookPhase::Ended;
        }
    }

    fn run_hooks(&mut self) {
        self.state.hooks = HookPhase::Running;
        self.hook_ends = self.now + self.script.hook.unwrap_or_default();
    }

    fn delete(&mut self) {
        let grace = GracePeriod::of(&self.pod, &self.state);
        let may_run = grace.is_some_and(|grace| at(self.now) < grace.ends_at());
        self.is_early |=
            may_run && self.state.hooks != HookPhase::Ended && !due_hooks(&self.pod).is_empty();
        // During the lag, a DELETE does not find the group either, whichever replica answers.
        let lag = self.script.lag.0.max(self.script.lag.1);
        match &mut self.real {
            Some(real) if self.now >= real.put + lag => {
                real.delete.get_or_insert(self.now);
                self.state.delete_accepted(at(self.now), at(self.now));
                self.list_wanted |= self
                    .state
                    .absence
                    .is_within_lag(EvidenceSource::List, at(self.now));
                if self.script.deletion == 0 {
                    // Azure answers with 200: the group is gone.
                    self.state
                        .group_not_found(Some(&self.pod), None, at(self.now));
                    self.list_wanted = true;
                }
            }
            _ => {
                self.state
                    .group_not_found(Some(&self.pod), None, at(self.now));
                self.list_wanted |= self.state.absence.is_suspected();
            }
        }
    }

    /// Runs until the pod is removed or has lost its group; returns which of the two, and when.
    fn run_to_end(&mut self) -> Option<(PodAction, i64)> {
        while self.now < 1200 {
            self.advance_azure();
            self.advance_operator();
            for _ in 0..8 {
                let starts = StartLatencies::default();
                let decision = next_action(Some(&self.pod), &self.state, &starts, at(self.now));
                let is_lost = matches!(self.state.group, GroupPresence::Absent { .. })
                    && has_run(&self.pod)
                    && !is_deleting(&self.pod);
                if is_lost {
                    return Some((PodAction::Wait, self.now));
                }
                if decision.at > at(self.now) {
                    break;
                }
                match decision.action {
                    PodAction::Discover | PodAction::Refresh => self.get(),
                    PodAction::Create => self.put(),
                    PodAction::RunHooks => self.run_hooks(),
                    PodAction::Delete => self.delete(),
                    PodAction::Remove => return Some((PodAction::Remove, self.now)),
                    PodAction::Wait => break,
                }
            }
            self.now += 1;
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_pod_ends_while_its_group_exists(script in script()) {
        let mut run = SimulatedRun::new(script);
        let end = run.run_to_end();
        prop_assert!(end.is_none() || run.real.is_none(), "{end:?} with {:?}", run.real);
        prop_assert!(!run.is_doubled, "a second PUT of another content");
        prop_assert!(!run.is_early, "a DELETE before the hook has ended");
    }

    #[test]
    fn a_deleted_pod_is_removed_in_the_end_whatever_azure_answers(script in script()) {
        let script = RunScript { deleted: Some(300), ..script };
        let end = SimulatedRun::new(script).run_to_end();
        prop_assert!(end.is_some());
    }

    #[test]
    fn without_faults_a_deleted_pod_is_removed_soon_after_its_group(
        deleted in 1..300_i64,
        deletion in 0..40_i64,
        start in 1..60_i64,
    ) {
        let script = RunScript {
            lag: (0, 0), liar: LyingSource::Get, lies: vec![false], puts: vec![PutOutcome::Answered],
            start, deletion, list_every: 120,
            vanishes: None, deleted: Some(deleted), restarts: None, hook: None,
        };
        let mut run = SimulatedRun::new(script);
        let Some((PodAction::Remove, removed)) = run.run_to_end() else {
            return Err(TestCaseError::fail("it stays"));
        };
        // The next GET, which comes after at most half the duration of the deletion, finds the group gone, and the
        // LIST after it confirms that.
        let gone = run.gone_since.expect("it is gone");
        // If no LIST showed a group that lived for seconds, its lag must be over first.
        let lag = i64::try_from(CONSISTENCY_LAG.as_secs()).expect("it is short") * 2;
        let latest = (gone + deletion / 2 + 4).max(lag + 12);
        prop_assert!(removed <= latest, "{removed} after {gone}");
    }

    #[test]
    fn a_vanished_group_is_noticed_although_lists_lie(script in script()) {
        let script = RunScript {
            liar: LyingSource::List, puts: vec![PutOutcome::Answered],
            vanishes: Some(500), deleted: None, restarts: None, ..script
        };
        let mut run = SimulatedRun::new(script);
        let end = run.run_to_end();
        prop_assert!(matches!(end, Some((PodAction::Wait, 500..))), "{end:?}");
    }
}
