//! What is to be done for a pool now, why, and when to look again.
//!
//! In: the pool, what bears on it, the time by our monotonic clock. Out: a [`Plan`]. It is the same for the same input, and
//! planning again after it was carried out plans nothing new.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::ahead;
use super::backend::Door;
use super::expiry::{self, Expiry};
use super::hold::{self, Start, later};
use super::limits::Limits;
use super::memory::{Attempt, Write};
use super::observe::{Observed, Standing};
use super::outcome::{Held, Ignored, Lack, Outcome};
use super::pod::PodRef;
use super::rate;
use super::rescue::{self, Rescue};
use super::reserve::{self, Reserving};
use super::room::Room;
use super::share::{Shares, next_turn, share};
use super::sort::{Case, cases};
use super::tally;
use crate::api::{BurstPool, Mode, PodCounts, Reservation, WorkloadStatus};

/// How soon a pod is looked for again that nobody sees, and whether it was taken over.
const SOON: Duration = Duration::from_secs(1);

/// What is to be done for a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Everything is decided, and nothing may be written to pods.
    pub is_dry_run: bool,
    /// What must be done before anything may be granted.
    pub first: First,
    /// What the pool's `status.reservations` must say before the grants are sent that are not reserved yet.
    pub reservations: Vec<Reservation>,
    /// Whether it says something else now, and is to be written.
    pub must_reserve: bool,
    /// Reserved pods that cannot be granted now: any change of them gives their reservations back.
    pub releases: Vec<PodRef>,
    /// Reserved pods that nobody sees: they are to be read by name, and [`Memory`](super::Memory)
    /// told what was found.
    pub unseen: Vec<Reservation>,
    /// What becomes of each pod that waits.
    pub decisions: Vec<Decision>,
    /// Times that are to be stamped on pods.
    pub stamps: Vec<Stamp>,
    /// What is done about pods that never started.
    pub rescues: Vec<Rescue>,
    /// Grants that expire.
    pub expiries: Vec<Expiry>,
    /// UIDs of granted pods that the scheduler passes by: to be remembered.
    pub stuck: Vec<String>,
    /// UIDs of pods whose grants have expired, and that wait: to be remembered.
    pub expired: Vec<String>,
    /// Pods that the scheduler has placed on ACI since, although their grants had expired.
    pub late: Vec<PodRef>,
    /// Granted pods that have not started, by UID, and since when Azure lets each of them wait: to be
    /// remembered.
    pub waiting: HashMap<String, Timestamp>,
    /// UIDs of pods that hold slots though they carry no marks of a grant: to be remembered.
    pub unmarked: Vec<String>,
    /// Whether each placement may be given pods.
    pub doors: BTreeMap<String, Door>,
    /// How many pods are in which state.
    pub counts: PodCounts,
    /// Each workload's pods.
    pub workloads: Vec<WorkloadStatus>,
    /// Whether there is a peak.
    pub peak: Peak,
    /// Why pods that would be granted are not, if it is for a limit.
    pub limited: Option<String>,
    /// When to look again although nothing changes.
    pub look_again_in: Option<Duration>,
}

/// Whether there is a peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Peak {
    /// Nothing is on ACI.
    #[default]
    None,
    /// Nothing is on ACI any more, and the cooldown is not over.
    Fading,
    /// Pods are on ACI, or on their way there.
    On,
}

/// What must be done before anything may be granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum First {
    /// Write who we are into the pool's status.
    Claim,
    /// List the pods with the pool's label.
    Count,
    /// Nothing.
    #[default]
    Nothing,
}

/// What becomes of a pod that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which pod.
    pub pod: PodRef,
    /// Its workload.
    pub workload: String,
    /// What becomes of it, and why.
    pub outcome: Outcome,
    /// Whether a reservation is, or will be, in its name.
    pub slot: Slot,
    /// Since when it is refused, by our monotonic clock, if it could burst.
    pub start: Option<Start>,
}

/// Whether a pod is reserved that is to be granted, now or as soon as its hold is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// It is not to be.
    #[default]
    None,
    /// It is to be: it must not be granted before the pool's status says so.
    Wanted,
    /// The pool's status says so; if it is to be granted now, at the pod's version.
    Reserved,
}

/// A time that is to be stamped on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which pod.
    pub pod: PodRef,
    /// Since when it is refused.
    pub since: Timestamp,
}

impl Plan {
    /// The pods that are to be granted.
    pub fn grants(&self) -> impl Iterator<Item = &Decision> {
        let all = self.decisions.iter();
        all.filter(|decision| matches!(decision.outcome, Outcome::Grant { .. }))
    }

    /// Since when pods are refused, by UID: to be remembered.
    pub(super) fn starts(&self) -> impl Iterator<Item = (&str, &Start)> {
        let all = self.decisions.iter();
        all.filter_map(|decision| Some((decision.pod.uid.as_str(), decision.start.as_ref()?)))
    }
}

/// Decides.
pub fn plan(pool: &BurstPool, seen: &Observed<'_>, now: Timestamp) -> Plan {
    let spec = &pool.spec;
    let standing = reserve::standing(seen);
    let mut limits = Limits::of(spec, seen, &standing.kept);
    let mut room = Room::of(seen, now);
    let left = rate::left(grants(seen, &standing.kept, now), &spec.spill.rate, now);
    let reserved = standing.kept.iter().map(|one| (one.uid.as_str(), *one));
    let reserved: HashMap<&str, &Reservation> = reserved.collect();
    let mut cases = cases(seen, &limits, &reserved, now);
    let mut shares = Shares {
        limits: &mut limits,
        rate: left,
        room: &mut room,
        now,
    };
    share(&mut cases, seen, &mut shares);
    ahead::reserve(&mut cases, seen, &mut shares);

    let is_dry_run = spec.mode == Mode::DryRun;
    let stamps = stamps(&cases, seen, now);
    let decisions = decisions(cases, seen, is_dry_run);
    let reserving = Reserving::of(&standing.kept, &decisions, seen, now);
    let (releases, next_release) = reserve::releases(seen, &decisions, now);
    let mut due = rescue::due(seen, now);
    due.rescues
        .retain(|rescue| !is_paused(seen, Write::Rescue, &rescue.pod, now));
    let mut stuck = expiry::stuck(seen, now);
    if seen.standing != Standing::Leading || is_dry_run {
        stuck.expiries.clear();
    }
    let tally = tally::of(seen, &decisions, &limits, is_dry_run);
    // One that is only about to be granted may be denied, again and again.
    let is_busy = seen.granted.iter().any(|granted| !granted.is_home);
    let cooldown = seen.memory.busy();
    let cooldown = cooldown.map(|busy| later(busy, spec.scale_in.cooldown.into()));
    let doors = room.doors();
    let times = decisions
        .iter()
        .filter_map(|decision| again(&decision.outcome, now))
        .chain(doors.values().filter_map(reopens))
        .chain(due.next)
        .chain(room.next_probe(now))
        .chain(seen.memory.next_rejected())
        .chain(next_release)
        .chain(stuck.next)
        .chain(reserving.next)
        .chain(cooldown.filter(|_| !is_busy))
        .chain((!standing.unseen.is_empty()).then(|| later(now, SOON)));
    Plan {
        look_again_in: until_first(times, now),
        is_dry_run,
        first: first(seen.standing),
        must_reserve: reserving.must_write,
        reservations: reserving.reservations,
        releases,
        unseen: standing.unseen.into_iter().cloned().collect(),
        decisions,
        stamps,
        rescues: due.rescues,
        waiting: due.waiting,
        expiries: stuck.expiries,
        stuck: stuck.uids,
        expired: expiry::uids(seen),
        late: expiry::late(seen),
        unmarked: unmarked(seen),
        doors,
        counts: tally.counts,
        workloads: tally.workloads,
        peak: peak(is_busy, cooldown, now),
        limited: tally.limited,
    }
}

fn unmarked(seen: &Observed<'_>) -> Vec<String> {
    let granted = seen.granted.iter().map(|granted| granted.pod);
    let unmarked = granted.filter(|pod| pod.grant.is_none());
    unmarked.map(|pod| pod.id.uid.clone()).collect()
}

fn until_first(times: impl Iterator<Item = Timestamp>, now: Timestamp) -> Option<Duration> {
    let first = times.filter(|time| *time > now).min()?;
    Some(Duration::try_from(first.duration_since(now)).unwrap_or(SOON))
}

fn first(standing: Standing) -> First {
    match standing {
        Standing::Unclaimed => First::Claim,
        Standing::Uncounted => First::Count,
        Standing::Leading => First::Nothing,
    }
}

fn peak(is_busy: bool, cooldown: Option<Timestamp>, now: Timestamp) -> Peak {
    match cooldown {
        _ if is_busy => Peak::On,
        Some(until) if now < until => Peak::Fading,
        _ => Peak::None,
    }
}

/// When pods were granted, as far as anybody knows.
fn grants(seen: &Observed<'_>, kept: &[&Reservation], now: Timestamp) -> Vec<Timestamp> {
    let mut times: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for pod in seen.granted.iter().map(|granted| granted.pod) {
        if let Some(at) = seen.granted_at(pod) {
            times.insert(&pod.id.uid, at);
        }
    }
    times.extend(seen.memory.grants(now));
    // Whatever was tried before, one that is reserved still may be granted now.
    for entry in kept {
        times.insert(&entry.uid, now);
    }
    times.into_values().collect()
}

/// Only pods that could burst are stamped: the others' time never comes.
fn stamps(cases: &[Case<'_>], seen: &Observed<'_>, now: Timestamp) -> Vec<Stamp> {
    if seen.standing != Standing::Leading {
        return Vec::new();
    }
    let unknown = cases.iter().filter_map(|case| {
        let start = case.start.filter(|start| start.must_be_stamped)?;
        let is_known = seen.memory.attempt(&case.pod.id) != Attempt::None
            || is_paused(seen, Write::Stamp, &case.pod.id, now);
        (!is_known && !matches!(case.outcome, Some(Outcome::Grant { .. }))).then(|| Stamp {
            pod: case.pod.id.clone(),
            since: hold::by(start.at, seen.ahead),
        })
    });
    unknown.collect()
}

/// Whether such a write of the pod failed so recently that it is not repeated yet.
fn is_paused(seen: &Observed<'_>, write: Write, pod: &PodRef, now: Timestamp) -> bool {
    let until = seen.memory.pause(write, &pod.uid);
    until.is_some_and(|until| now < until)
}

fn decisions(cases: Vec<Case<'_>>, seen: &Observed<'_>, is_dry_run: bool) -> Vec<Decision> {
    let entries = seen.reservations.iter().map(|one| one.entry);
    let entries: HashMap<&str, &Reservation> =
        entries.map(|entry| (entry.uid.as_str(), entry)).collect();
    let all = cases.into_iter().map(|case| {
        let is_granted = matches!(case.outcome, Some(Outcome::Grant { .. }));
        let mut decision = Decision {
            pod: case.pod.id.clone(),
            workload: seen.workloads[case.workload].spec.name.clone(),
            // Sharing leaves none without an outcome.
            outcome: case.outcome.unwrap_or(Outcome::Ignore(Ignored::Unjudged)),
            slot: Slot::None,
            start: case.start,
        };
        if is_granted || case.is_ahead {
            let entry = entries.get(case.pod.id.uid.as_str());
            let stands = entry.is_some_and(|entry| **entry == decision.reservation(seen.identity));
            decision.slot = match (case.is_reserved, is_dry_run) {
                (true, _) => Slot::Reserved,
                (false, true) => Slot::None,
                (false, false) if stands => Slot::Reserved,
                (false, false) => Slot::Wanted,
            };
        }
        decision
    });
    all.collect()
}

/// When a pod's outcome may be another although nothing changes.
fn again(outcome: &Outcome, now: Timestamp) -> Option<Timestamp> {
    match outcome {
        Outcome::Hold { until, why } => Some(ahead::next_look(*until, why, now)),
        Outcome::Wait(Lack::Rate(next)) => *next,
        Outcome::Wait(Lack::Room(_)) => Some(next_turn(now)),
        Outcome::Wait(Lack::Leader) | Outcome::InFlight => Some(later(now, SOON)),
        _ => None,
    }
}

fn reopens(door: &Door) -> Option<Timestamp> {
    match door {
        Door::Closed { until, .. } => *until,
        Door::Open | Door::HalfOpen => None,
    }
}

impl Decision {
    pub(super) fn reservation(&self, holder: &str) -> Reservation {
        Reservation {
            uid: self.pod.uid.clone(),
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            workload: self.workload.clone(),
            holder: holder.to_owned(),
            resource_version: self.pod.resource_version.clone(),
        }
    }

    /// What it waits for that the pool or Azure does not give. Not for its turn: by the rate, a pod waits for
    /// seconds, and the next one again. Not for its claim either, which the cluster binds, nor for other pods.
    pub(super) fn limit(&self) -> Option<&Lack> {
        match &self.outcome {
            Outcome::Wait(Lack::Leader | Lack::Rate(_) | Lack::Claim(_) | Lack::Topology(_)) => {
                None
            }
            Outcome::Wait(lack) => Some(lack),
            _ => None,
        }
    }

    /// Whether its grant was denied and it waits for the next try.
    pub fn is_denied(&self) -> bool {
        matches!(
            self.outcome,
            Outcome::Hold {
                why: Held::Denied(_),
                ..
            }
        )
    }
}
