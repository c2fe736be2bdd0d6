//! Which of the pods that are ready are granted: slots, rate and room are shared out.
//!
//! In: cases that are ready, limits, rate, room. Out: an outcome for each. Reserved pods come first:
//! they hold their slots already.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

use super::fairness::Claim;
use super::hold::later;
use super::limits::{Limit, Limits};
use super::observe::{Observed, Standing};
use super::outcome::{Lack, Outcome};
use super::rate::Left;
use super::room::Room;
use super::sort::Case;

/// How long a pod that could be granted is passed by: one that is too large for what is left lets smaller
/// ones pass, and one that the rate holds back those of workloads that hold less.
const PATIENCE: Duration = Duration::from_secs(300);
/// Room is kept for such pods in turns: in each span of this length first everybody may pass for the
/// time of their patience. Else a pod for which room never comes together would stop all others.
const TURN: i64 = 900;

/// What is shared out.
pub(super) struct Shares<'s, 'a> {
    pub(super) limits: &'s mut Limits,
    pub(super) rate: Left,
    pub(super) room: &'s mut Room<'a>,
    pub(super) now: Timestamp,
}

/// Gives every case that is ready its outcome.
pub(super) fn share<'a>(cases: &mut [Case<'a>], seen: &Observed<'_>, shares: &mut Shares<'_, 'a>) {
    if seen.standing != Standing::Leading {
        for case in cases.iter_mut().filter(|case| case.outcome.is_none()) {
            case.outcome = Some(Outcome::Wait(Lack::Leader));
        }
        return;
    }
    finish(cases, shares);
    share_out(cases, seen, shares);
    for case in cases.iter_mut().filter(|case| case.outcome.is_none()) {
        case.outcome = Some(Outcome::Wait(shares.lack(case)));
    }
}

/// Who was reserved already is granted, oldest first, as far as the limits that are in force let it: they may
/// have fallen since. The others wait, and are changed, so that nobody else grants them either.
fn finish<'a>(cases: &mut [Case<'a>], shares: &mut Shares<'_, 'a>) {
    let mut reserved: Vec<&mut Case<'a>> =
        cases.iter_mut().filter(|case| case.is_reserved).collect();
    reserved.sort_by_key(|case| (case.pod.created, &case.pod.id));
    let mut over = Over::of(shares.limits);
    // Who is youngest is the first to give its slot back.
    for case in reserved.iter_mut().rev() {
        if case.outcome.is_none() && over.gives_back(case.workload) {
            case.outcome = Some(Outcome::Wait(shares.lack(case)));
        }
    }
    for case in reserved {
        if case.outcome.is_none() {
            case.outcome = Some(shares.place(case));
        } else {
            // It may be granted already: its room is not for others.
            drop(shares.room.take(case.pod, case.places, shares.now));
        }
    }
}

/// How many slots more are held than there may be.
struct Over {
    pool: u64,
    workloads: Vec<u64>,
}

impl Over {
    fn of(limits: &Limits) -> Self {
        let over = |limit: &Limit| match &limit.own {
            Some(Ok(own)) => limit.held.saturating_sub(*own),
            Some(Err(_)) | None => 0,
        };
        let most = if limits.is_unsure {
            u64::MAX
        } else {
            limits.pool
        };
        Self {
            pool: limits.held.saturating_sub(most),
            workloads: limits.workloads.iter().map(over).collect(),
        }
    }

    fn gives_back(&mut self, workload: usize) -> bool {
        let own = self.workloads.get_mut(workload);
        let is_over = self.pool > 0 || own.as_ref().is_some_and(|own| **own > 0);
        if is_over {
            self.pool = self.pool.saturating_sub(1);
            if let Some(own) = own {
                *own = own.saturating_sub(1);
            }
        }
        is_over
    }
}

/// What is entitled to a slot gets it, as far as the rate lets it: first who has been passed by for long,
/// by age, then in the order of the shares. By shares alone, a workload whose pods come and go would
/// always hold least, and take the whole rate for ever while slots of others stay free.
fn share_out<'a>(cases: &mut [Case<'a>], seen: &Observed<'_>, shares: &mut Shares<'_, 'a>) {
    if shares.rate.now == 0 {
        return;
    }
    let ready = (0..cases.len()).filter(|at| cases[*at].outcome.is_none());
    let turn = entitled(cases, ready.collect(), seen, shares);
    for (index, lack) in turn.lacking {
        cases[index].outcome = Some(lack);
    }
    let mut entitled = turn.placed;
    if entitled.len() > shares.rate.now {
        let passed_by = |case: &Case<'_>| shares.is_old(case).then_some(case.pod.created);
        // The sort is stable: nothing changes among those that were not.
        entitled.sort_by_key(|(index, _)| {
            let since = passed_by(&cases[*index]);
            (since.is_none(), since)
        });
        entitled.truncate(shares.rate.now);
    }
    for (index, placement) in entitled {
        shares.limits.take(Some(cases[index].workload));
        shares.rate.now -= 1;
        cases[index].outcome = Some(Outcome::Grant { placement });
    }
}

/// What comes of asking one after the other.
#[derive(Default)]
pub(super) struct Turn {
    /// Who gets a slot, and in which placement.
    pub(super) placed: Vec<(usize, String)>,
    /// Who finds no room, and why.
    pub(super) lacking: Vec<(usize, Outcome)>,
}

/// Which of these cases get the slots that are free: one after the other, until there is none or nobody wants
/// one; and which of them find no room, and why.
pub(super) fn entitled<'a>(
    cases: &[Case<'a>],
    wanting: Vec<usize>,
    seen: &Observed<'_>,
    shares: &mut Shares<'_, 'a>,
) -> Turn {
    let mut queues = queues(cases, wanting, seen.workloads.len());
    let mut limits = shares.limits.clone();
    let weights = seen.workloads.iter().map(|one| u64::from(one.spec.weight));
    let weights = weights.sum::<u64>().max(1);
    let claim =
        |workload: usize, next: Option<&usize>, limits: &Limits, shares: &Shares<'_, '_>| {
            let limit = limits.workloads.get(workload)?;
            let oldest = &cases[*next?];
            let weight = seen.workloads[workload].spec.weight;
            let own = limits.pool.saturating_mul(weight.into()) / weights;
            (!limit.is_full()).then(|| Claim {
                workload,
                held: limit.held,
                weight,
                oldest: oldest.pod.created,
                is_passed_by: limit.held < own && shares.is_old(oldest),
            })
        };
    let all = queues.iter().enumerate();
    let mut claims: BinaryHeap<Claim> = all
        .filter_map(|(workload, queue)| claim(workload, queue.front(), &limits, shares))
        .collect();
    let mut turn = Turn::default();
    while !limits.is_full() {
        let Some(Claim { workload, .. }) = claims.pop() else {
            break;
        };
        let queue = &mut queues[workload];
        let Some(index) = queue.pop_front() else {
            continue;
        };
        match shares.place(&cases[index]) {
            Outcome::Grant { placement } => {
                limits.take(Some(workload));
                turn.placed.push((index, placement));
            }
            lack => turn.lacking.push((index, lack)),
        }
        // Nobody else's claim has changed.
        claims.extend(claim(workload, queue.front(), &limits, shares));
    }
    turn
}

/// These cases, oldest first, by workload.
fn queues(cases: &[Case<'_>], mut wanting: Vec<usize>, workloads: usize) -> Vec<VecDeque<usize>> {
    wanting.sort_by_key(|at| (cases[*at].pod.created, &cases[*at].pod.id));
    let mut queues = vec![VecDeque::new(); workloads];
    for at in wanting {
        queues[cases[at].workload].push_back(at);
    }
    queues
}

impl<'a> Shares<'_, 'a> {
    fn place(&mut self, case: &Case<'a>) -> Outcome {
        match self.room.take(case.pod, case.places, self.now) {
            Ok(placement) => Outcome::Grant { placement },
            Err(lack) => {
                let is_kept = self.is_old(case) && is_kept(self.now);
                if is_kept && matches!(lack, Lack::Room(_)) {
                    self.room.save(case.pod, case.places);
                }
                Outcome::Wait(lack)
            }
        }
    }

    /// Whether the pod has been passed by for so long that it is its turn.
    fn is_old(&self, case: &Case<'_>) -> bool {
        let limit = self.limits.workloads.get(case.workload);
        let after = limit.map(|limit| limit.after).unwrap_or_default();
        let start = case.start.as_ref();
        start.is_some_and(|start| later(start.at, after.saturating_add(PATIENCE)) <= self.now)
    }

    /// What a pod lacks whose turn did not come.
    fn lack(&self, case: &Case<'_>) -> Lack {
        let limit = self.limits.workloads.get(case.workload);
        match limit.and_then(|limit| limit.own.as_ref().filter(|_| limit.is_full())) {
            Some(Ok(most)) => return Lack::WorkloadLimit(*most),
            Some(Err(why)) => return Lack::Scale(why.clone()),
            None => {}
        }
        if self.limits.is_full() {
            Lack::PoolLimit(self.limits.pool)
        } else {
            Lack::Rate(self.rate.next)
        }
    }
}

/// Whether it is the turn of those for whom room is kept.
fn is_kept(now: Timestamp) -> bool {
    let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(TURN);
    now.as_second().rem_euclid(TURN) >= patience
}

/// When everybody may pass again.
pub(super) fn next_turn(now: Timestamp) -> Timestamp {
    let left = TURN - now.as_second().rem_euclid(TURN);
    later(now, Duration::from_secs(left.unsigned_abs()))
}
