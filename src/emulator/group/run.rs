//! One container's run: waiting, running, terminated, and back, with the events the service shows.
//!
//! In: what happened (`pulling`, `start`, `exit`), from the simulation or from a container engine,
//! with the time at which it did. Out: the container's part of the instance view. No clock is read
//! here.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::log::Log;
use super::model::Container;
use super::script::{Script, length};
use crate::emulator::clock::later;

/// First pause before a restart; it doubles up to [`BACKOFF_LIMIT`], as a kubelet's does.
const BACKOFF: Duration = Duration::from_secs(10);
/// Longest pause before a restart.
const BACKOFF_LIMIT: Duration = Duration::from_secs(300);
/// How long a container must have run for its pauses to start anew.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// How many of a container's events are kept.
const EVENTS_KEPT: usize = 50;
/// How many lines of a scripted log are written when the clock has jumped.
const CATCH_UP: u64 = 5000;

/// When containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// After every exit.
    Always,
    /// After an exit with a code other than 0.
    OnFailure,
    /// Not by the service's promise; after a failure the platform may all the same.
    Never,
}

impl RestartPolicy {
    /// Reads the service's name of a policy; `Always` is its default.
    pub fn of(name: Option<&str>) -> Option<Self> {
        match name.map(str::to_ascii_lowercase).as_deref() {
            None | Some("always") => Some(Self::Always),
            Some("onfailure") => Some(Self::OnFailure),
            Some("never") => Some(Self::Never),
            Some(_) => None,
        }
    }
}

/// Something that happened, as instance views list it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How often.
    pub count: u32,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
    /// What, in one word.
    pub name: String,
    /// What, in words.
    pub message: String,
    /// Whether it is a warning.
    pub warning: bool,
}

/// Adds an event, or counts it if the same one is there.
pub fn note(events: &mut Vec<Event>, at: Timestamp, name: &str, message: &str, warning: bool) {
    if let Some(same) = events
        .iter_mut()
        .find(|e| e.name == name && e.message == message)
    {
        same.count += 1;
        same.last = at;
        return;
    }
    if events.len() >= EVENTS_KEPT {
        events.remove(0);
    }
    let (name, message) = (name.to_owned(), message.to_owned());
    events.push(Event {
        count: 1,
        first: at,
        last: at,
        name,
        message,
        warning,
    });
}

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// It is not running yet, or not again.
    Waiting {
        /// `""`, or `CrashLoopBackOff`.
        detail: &'static str,
    },
    /// It is running.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It has ended.
    Terminated {
        /// When it had started.
        since: Timestamp,
        /// When it ended.
        finished: Timestamp,
        /// Its exit code.
        code: i32,
    },
}

/// What is due for a container, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It ends with this code.
    Exit(i32),
    /// It is started (again).
    Start,
}

/// One container's run.
#[derive(Clone, Debug)]
pub struct Run {
    /// The container's name.
    pub name: String,
    /// What it does, when it is simulated.
    pub script: Script,
    /// How often it was started again.
    pub restarts: i64,
    /// What it is doing; nothing before its image is pulled.
    pub current: Option<RunState>,
    /// How its run before this one ended.
    pub previous: Option<RunState>,
    /// What happened to it.
    pub events: Vec<Event>,
    /// What it wrote, when it is simulated.
    pub log: Log,
    /// What is due next.
    pub due: Option<(Timestamp, Due)>,
    image: String,
    pauses: u32,
    logged_until: Option<Timestamp>,
    logged: u64,
}

impl Run {
    /// A container that has not been pulled yet.
    pub fn new(container: &Container, script: Script) -> Self {
        Self {
            name: container.name().to_owned(),
            script,
            restarts: 0,
            current: None,
            previous: None,
            events: Vec::new(),
            log: Log::default(),
            due: None,
            image: digested(container.image()),
            pauses: 0,
            logged_until: None,
            logged: 0,
        }
    }

    /// Its image is being pulled.
    pub fn pulling(&mut self, at: Timestamp) {
        self.current.get_or_insert(RunState::Waiting { detail: "" });
        let message = format!("pulling image \"{}\"", self.image);
        note(&mut self.events, at, "Pulling", &message, false);
    }

    /// Its image is there.
    pub fn pulled(&mut self, at: Timestamp) {
        let message = format!("Successfully pulled image \"{}\"", self.image);
        note(&mut self.events, at, "Pulled", &message, false);
    }

    /// It runs from now on.
    pub fn start(&mut self, at: Timestamp) {
        if self.previous.is_some() {
            self.restarts += 1;
        }
        note(&mut self.events, at, "Started", "Started container", false);
        self.current = Some(RunState::Running { since: at });
        self.log = Log::default();
        for line in self.script.log.lines() {
            self.log.push(at, line);
        }
        (self.logged_until, self.logged) = (Some(at), 0);
        self.due = self
            .script
            .exit_after
            .map(|after| (later(at, length(after)), Due::Exit(self.script.exit_code)));
    }

    /// It ended with `code`. Started again under `policy`, it waits, and what is due says until when.
    pub fn exit(&mut self, at: Timestamp, code: i32, policy: RestartPolicy) {
        let Some(RunState::Running { since }) = self.current else {
            return;
        };
        self.write_log(at);
        self.end(at, since, code);
        if !self.starts_again(code, policy) {
            return;
        }
        if at.duration_since(since).unsigned_abs() >= BACKOFF_RESET {
            self.pauses = 0;
        }
        let pause = BACKOFF
            .saturating_mul(1 << self.pauses.min(8))
            .min(BACKOFF_LIMIT);
        self.pauses += 1;
        note(
            &mut self.events,
            at,
            "BackOff",
            "Back-off restarting failed container",
            true,
        );
        self.previous = self.current.replace(RunState::Waiting {
            detail: "CrashLoopBackOff",
        });
        self.due = Some((later(at, pause), Due::Start));
    }

    /// It was killed, and is not started again before the group is.
    pub fn kill(&mut self, at: Timestamp) {
        if let Some(RunState::Running { since }) = self.current {
            self.write_log(at);
            self.end(at, since, 137);
        }
        self.due = None;
        self.log.stop();
    }

    /// It is about to be started again because the whole group is.
    pub fn again(&mut self, at: Timestamp) {
        self.kill(at);
        if let Some(ended @ RunState::Terminated { .. }) = self.current.take() {
            self.previous = Some(ended);
        }
        self.current = Some(RunState::Waiting { detail: "" });
    }

    /// Whether it has ended for good, and how.
    pub fn ended(&self) -> Option<i32> {
        match self.current {
            Some(RunState::Terminated { code, .. }) => Some(code),
            _ => None,
        }
    }

    /// Whether its script says that it is not ready at `now`.
    pub fn is_unready(&self, now: Timestamp) -> bool {
        let (Some(RunState::Running { since }), Some(after)) =
            (&self.current, self.script.unready_after)
        else {
            return false;
        };
        let from = later(*since, length(after));
        let until = self
            .script
            .unready_for
            .map(|duration| later(from, length(duration)));
        from <= now && until.is_none_or(|until| now < until)
    }

    /// Writes the lines of a scripted log up to `now`.
    pub fn write_log(&mut self, now: Timestamp) {
        let Some(every) = self.script.log_every.map(length).filter(|d| !d.is_zero()) else {
            return;
        };
        let (Some(RunState::Running { .. }), Some(mut at)) = (&self.current, self.logged_until)
        else {
            return;
        };
        let missing = now.duration_since(at).as_nanos()
            / i128::try_from(every.as_nanos()).unwrap_or(i128::MAX);
        let skipped = u64::try_from(missing)
            .unwrap_or_default()
            .saturating_sub(CATCH_UP);
        at = later(
            at,
            every.saturating_mul(u32::try_from(skipped).unwrap_or(u32::MAX)),
        );
        self.logged += skipped;
        while later(at, every) <= now {
            at = later(at, every);
            self.logged += 1;
            self.log.push(at, format!("line {}", self.logged));
        }
        self.logged_until = Some(at);
    }

    fn starts_again(&mut self, code: i32, policy: RestartPolicy) -> bool {
        match policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never if code != 0 && self.script.platform_restarts > 0 => {
                self.script.platform_restarts -= 1;
                true
            }
            RestartPolicy::Never => false,
        }
    }

    fn end(&mut self, at: Timestamp, since: Timestamp, code: i32) {
        let id = Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            format!("{}{since}", self.name).as_bytes(),
        );
        let message = format!("Killing container with id {}{}.", id.simple(), id.simple());
        note(&mut self.events, at, "Killing", &message, false);
        self.current = Some(RunState::Terminated {
            since,
            finished: at,
            code,
        });
        self.due = None;
    }
}

/// The image by digest, as the service's events name it: `alpine:3` is `alpine@sha256:...`.
fn digested(image: &str) -> String {
    if image.contains('@') {
        return image.to_owned();
    }
    let tag_at = image.rfind(':').filter(|at| !image[*at..].contains('/'));
    let repository = &image[..tag_at.unwrap_or(image.len())];
    let half = |salt: &str| {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{salt}{image}").as_bytes())
            .simple()
            .to_string()
    };
    format!("{repository}@sha256:{}{}", half("a"), half("b"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: Script) -> Run {
        Run::new(&Container::default(), script)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("in range")
    }

    #[test]
    fn pauses_between_restarts_double_up_to_five_minutes_and_start_anew_after_ten_good_ones() {
        let mut run = run(Script::default());
        let (mut now, mut pauses) = (0, Vec::new());
        for _ in 0..7 {
            run.start(at(now));
            run.exit(at(now + 1), 1, RestartPolicy::Always);
            let (due, what) = run.due.expect("a restart is due");
            assert_eq!(what, Due::Start);
            pauses.push(due.as_second() - now - 1);
            now = due.as_second();
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(run.restarts, 6);
        run.start(at(now));
        run.exit(at(now + 600), 1, RestartPolicy::Always);
        assert_eq!(run.due.expect("due").0.as_second() - now - 600, 10);
    }

    #[test]
    fn an_image_is_named_by_digest_without_its_tag() {
        assert!(digested("alpine:latest").starts_with("alpine@sha256:"));
        assert!(digested("host:5000/a/b").starts_with("host:5000/a/b@sha256:"));
        assert_eq!(digested("a@sha256:1"), "a@sha256:1");
        assert_eq!(digested("alpine").len(), "alpine@sha256:".len() + 64);
    }

    #[test]
    fn a_scripted_log_is_complete_and_survives_a_jump_of_the_clock() {
        let script = Script {
            log: "hello".into(),
            log_every: "1s".parse().ok(),
            ..Script::default()
        };
        let mut run = run(script);
        run.start(at(0));
        run.write_log(at(3));
        assert_eq!(run.log.text(None, None), "hello\nline 1\nline 2\nline 3\n");
        run.write_log(at(1_000_000));
        assert!(run.log.text(Some(1), None).ends_with("line 1000000\n"));
    }
}
