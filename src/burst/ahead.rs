//! Which pods are reserved shortly before their hold is over, so that they are granted as soon as it is.
//!
//! In: cases, once all that are ready have their outcome, and what those leave of slots, rate and room. Out:
//! which of the held ones are reserved ahead. A reservation is a write of the pool, and an API server takes
//! as long for it as for two or three grants: ahead, it is written for many pods at once, and a grant waits
//! for it only if it falls due meanwhile. It takes nothing from anybody: as long as no patch of its pod was
//! sent it holds no slot in the next plan, which gives the slot to whoever is ready. A new leader counts it
//! (decision D1a), and finishes it when it is due.

use std::time::Duration;

use jiff::Timestamp;

use super::hold::later;
use super::observe::{Observed, Standing};
use super::outcome::{Held, Outcome};
use super::share::{Shares, entitled};
use super::sort::Case;

/// How long before the end of its hold a pod is reserved.
pub const LEAD: Duration = Duration::from_secs(1);
/// How often reservations are written that no grant waits for: twice before a hold ends.
pub const PACE: Duration = Duration::from_millis(500);

/// Finds those that are reserved although they are held still.
pub(super) fn reserve<'a>(
    cases: &mut [Case<'a>],
    seen: &Observed<'_>,
    shares: &mut Shares<'_, 'a>,
) {
    if seen.standing != Standing::Leading {
        return;
    }
    let mut soon = Vec::new();
    for (index, case) in cases.iter_mut().enumerate() {
        if !is_over_soon(case, shares.now) {
            continue;
        }
        if case.is_reserved {
            // It may be in somebody's hands, and is finished when it is due.
            case.is_ahead = true;
        } else {
            soon.push(index);
        }
    }
    let entitled = entitled(cases, soon, seen, shares).placed;
    for (index, _) in entitled.into_iter().take(shares.rate.now) {
        cases[index].is_ahead = true;
    }
}

fn is_over_soon(case: &Case<'_>, now: Timestamp) -> bool {
    let Some(Outcome::Hold { until, why }) = &case.outcome else {
        return false;
    };
    *why == Held::Young && *until <= later(now, LEAD)
}

/// When a pod that is held until then is looked at next.
pub(super) fn next_look(until: Timestamp, why: &Held, now: Timestamp) -> Timestamp {
    let ahead = until.saturating_sub(LEAD).unwrap_or(until);
    if *why == Held::Young && now < ahead {
        ahead
    } else {
        until
    }
}
