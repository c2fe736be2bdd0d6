//! One container's state: waiting, running, terminated, running again, with the events that the service
//! shows.
//!
//! In: state changes (`pulling`, `start`, `exit`) from the simulation or from a container engine, each
//! with its time. Out: the container's part of the instance view. This module reads no clock.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::log::ContainerLog;
use super::model::{Container, Probe};
use super::script::{ContainerScript, to_duration};
use crate::emulator::clock::later;

/// Pause before the first restart. It doubles up to [`BACKOFF_LIMIT`], as in the kubelet.
const BACKOFF: Duration = Duration::from_secs(10);
/// Maximum pause before a restart.
const BACKOFF_LIMIT: Duration = Duration::from_secs(300);
/// A run of at least this length resets the pause.
const BACKOFF_RESET: Duration = Duration::from_secs(600);
/// How many events of a container are kept.
const MAX_EVENTS: usize = 50;
/// How many lines of a scripted log are written at most after the clock has jumped; earlier ones are
/// skipped.
const MAX_CATCH_UP_LINES: u64 = 5000;

/// Which exits cause a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupRestartPolicy {
    /// Every exit.
    Always,
    /// An exit code other than 0.
    OnFailure,
    /// None. The service documents that the platform may restart the container after a failure all the
    /// same.
    Never,
}

impl GroupRestartPolicy {
    /// Parses the service's name of a policy. Without a name it is `Always`; `None` if the name is
    /// unknown.
    pub fn of(name: Option<&str>) -> Option<Self> {
        match name.map(str::to_ascii_lowercase).as_deref() {
            None | Some("always") => Some(Self::Always),
            Some("onfailure") => Some(Self::OnFailure),
            Some("never") => Some(Self::Never),
            Some(_) => None,
        }
    }
}

/// An event of an instance view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// How often it happened.
    pub count: u32,
    /// When it happened first.
    pub first: Timestamp,
    /// When it happened last.
    pub last: Timestamp,
    /// The kind of event, for example `Pulling`.
    pub name: String,
    /// The message for people.
    pub message: String,
    /// Whether its type is `Warning` instead of `Normal`.
    pub warning: bool,
}

/// Adds an event. If the list has the same name and message, increases its count instead.
pub fn add_event(
    events: &mut Vec<ContainerEvent>,
    at: Timestamp,
    name: &str,
    message: &str,
    warning: bool,
) {
    if let Some(existing) = events
        .iter_mut()
        .find(|e| e.name == name && e.message == message)
    {
        existing.count += 1;
        existing.last = at;
        return;
    }
    if events.len() >= MAX_EVENTS {
        events.remove(0);
    }
    let (name, message) = (name.to_owned(), message.to_owned());
    events.push(ContainerEvent {
        count: 1,
        first: at,
        last: at,
        name,
        message,
        warning,
    });
}

/// A container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Not started yet, or waiting for a restart.
    Waiting {
        /// `""`, or `CrashLoopBackOff`.
        detail: &'static str,
    },
    /// Running.
    Running {
        /// Its start.
        since: Timestamp,
    },
    /// Ended.
    Terminated {
        /// Its start.
        since: Timestamp,
        /// Its end.
        finished: Timestamp,
        /// Its exit code.
        code: i32,
    },
}

/// A scheduled change of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueChange {
    /// It exits with this code.
    Exit(i32),
    /// It starts, again or for the first time.
    Start,
}

/// One container with its state, events and log.
#[derive(Clone, Debug)]
pub struct EmulatedRun {
    /// The container's name.
    pub name: String,
    /// What the container does if it is simulated.
    pub script: ContainerScript,
    /// How often it was restarted.
    pub restarts: i64,
    /// The current state. `None` until its image is pulled.
    pub current: Option<RunState>,
    /// How its previous run ended.
    pub previous: Option<RunState>,
    /// Its events.
    pub events: Vec<ContainerEvent>,
    /// Its output, if simulated.
    pub log: ContainerLog,
    /// The next scheduled change.
    pub due: Option<(Timestamp, DueChange)>,
    image: String,
    /// The initial delay and the period of its readiness probe.
    readiness_probe: Option<(Duration, Duration)>,
    /// When its readiness probe is sent next.
    probed_at: Option<Timestamp>,
    pauses: u32,
    logged_until: Option<Timestamp>,
    logged: u64,
}

impl EmulatedRun {
    /// A container whose image has not been pulled.
    pub fn new(container: &Container, script: ContainerScript) -> Self {
        let properties = container.properties.as_ref();
        let readiness_probe = properties.and_then(|p| p.readiness_probe.as_ref());
        Self {
            name: container.name().to_owned(),
            script,
            restarts: 0,
            current: None,
            previous: None,
            events: Vec::new(),
            log: ContainerLog::default(),
            due: None,
            image: image_with_digest(container.image()),
            readiness_probe: readiness_probe.map(probe_times),
            probed_at: None,
            pauses: 0,
            logged_until: None,
            logged: 0,
        }
    }

    /// Pulling its image begins.
    pub fn begin_pulling(&mut self, at: Timestamp) {
        self.current.get_or_insert(RunState::Waiting { detail: "" });
        let message = format!("pulling image \"{}\"", self.image);
        add_event(&mut self.events, at, "Pulling", &message, false);
    }

    /// Its image has been pulled.
    pub fn finish_pulling(&mut self, at: Timestamp) {
        let message = format!("Successfully pulled image \"{}\"", self.image);
        add_event(&mut self.events, at, "Pulled", &message, false);
    }

    /// The container starts to run.
    pub fn start(&mut self, at: Timestamp) {
        if self.previous.is_some() {
            self.restarts += 1;
        }
        add_event(&mut self.events, at, "Started", "Started container", false);
        self.current = Some(RunState::Running { since: at });
        self.log = ContainerLog::default();
        for line in self.script.log.lines() {
            self.log.push(at, line);
        }
        (self.logged_until, self.logged) = (Some(at), 0);
        self.probed_at = self.readiness_probe.map(|(delay, _)| later(at, delay));
        self.due = self.script.exit_after.map(|after| {
            (
                later(at, to_duration(after)),
                DueChange::Exit(self.script.exit_code),
            )
        });
    }

    /// The container exited with `code`. If `policy` requires a restart, the container waits, and `due`
    /// holds the time of the restart.
    pub fn exit(&mut self, at: Timestamp, code: i32, policy: GroupRestartPolicy) {
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
        add_event(
            &mut self.events,
            at,
            "BackOff",
            "Back-off restarting failed container",
            true,
        );
        self.previous = self.current.replace(RunState::Waiting {
            detail: "CrashLoopBackOff",
        });
        self.due = Some((later(at, pause), DueChange::Start));
    }

    /// The container is killed. It does not restart before its group does.
    pub fn kill(&mut self, at: Timestamp) {
        if let Some(RunState::Running { since }) = self.current {
            self.write_log(at);
            self.end(at, since, 137);
        }
        self.due = None;
        self.log.stop();
    }

    /// Kills the container because its group restarts.
    pub fn prepare_restart(&mut self, at: Timestamp) {
        self.kill(at);
        if let Some(ended @ RunState::Terminated { .. }) = self.current.take() {
            self.previous = Some(ended);
        }
        self.current = Some(RunState::Waiting { detail: "" });
    }

    /// The exit code, if the container has ended for good.
    pub fn ended(&self) -> Option<i32> {
        match self.current {
            Some(RunState::Terminated { code, .. }) => Some(code),
            _ => None,
        }
    }

    /// Whether its script makes it not ready at `now`.
    pub fn is_unready(&self, now: Timestamp) -> bool {
        let (Some(RunState::Running { since }), Some(after)) =
            (&self.current, self.script.unready_after)
        else {
            return false;
        };
        let start = later(*since, to_duration(after));
        let end = self
            .script
            .unready_for
            .map(|duration| later(start, to_duration(duration)));
        start <= now && end.is_none_or(|end| now < end)
    }

    /// Adds the lines of a scripted log up to `now`.
    pub fn write_log(&mut self, now: Timestamp) {
        let Some(every) = self
            .script
            .log_every
            .map(to_duration)
            .filter(|d| !d.is_zero())
        else {
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
            .saturating_sub(MAX_CATCH_UP_LINES);
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

    /// Sends the readiness probes that are due up to `now`. Only failures leave events.
    pub fn probe_readiness(&mut self, now: Timestamp) {
        let (Some(RunState::Running { since }), Some((_, period)), Some(mut at)) =
            (&self.current, self.readiness_probe, self.probed_at)
        else {
            return;
        };
        let fails_for = self.script.readiness_fails_for.map(to_duration);
        let fails_until = later(*since, fails_for.unwrap_or_default());
        while at <= now && at < fails_until {
            let message = "Readiness probe failed: the script says so";
            add_event(&mut self.events, at, "Unhealthy", message, true);
            at = later(at, period);
        }
        self.probed_at = Some(at.max(now));
    }

    fn starts_again(&mut self, code: i32, policy: GroupRestartPolicy) -> bool {
        match policy {
            GroupRestartPolicy::Always => true,
            GroupRestartPolicy::OnFailure => code != 0,
            GroupRestartPolicy::Never if code != 0 && self.script.platform_restarts > 0 => {
                self.script.platform_restarts -= 1;
                true
            }
            GroupRestartPolicy::Never => false,
        }
    }

    fn end(&mut self, at: Timestamp, since: Timestamp, code: i32) {
        let id = Uuid::new_v5(
            &Uuid::NAMESPACE_OID,
            format!("{}{since}", self.name).as_bytes(),
        );
        let message = format!("Killing container with id {}{}.", id.simple(), id.simple());
        add_event(&mut self.events, at, "Killing", &message, false);
        self.current = Some(RunState::Terminated {
            since,
            finished: at,
            code,
        });
        self.due = None;
    }
}

/// The initial delay and the period of a probe; the defaults are those of the service's specification.
fn probe_times(probe: &Probe) -> (Duration, Duration) {
    let seconds = |value: Option<i64>, default| {
        let value = value.and_then(|value| u64::try_from(value).ok());
        Duration::from_secs(value.unwrap_or(default))
    };
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    (seconds(probe.initial_delay_seconds, 0), period)
}

/// The image with a digest, as in the service's events: `alpine:3` becomes `alpine@sha256:...`. The
/// digest is derived from the name.
fn image_with_digest(image: &str) -> String {
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
mod tests;
