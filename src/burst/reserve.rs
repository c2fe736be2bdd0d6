//! Which pods count although nobody sees them granted (design D1a).
//!
//! In: the reservations in the pool's status and what is seen of their pods. Out: those that must stay,
//! and those whose pods must be looked for. A reservation stays until its pod is seen granted, is home
//! or gone. One of our own may also go when no patch of its pod was, or can still be, carried out; of
//! another instance's, or of an earlier term of our own, nobody knows that: whoever led before may be
//! frozen with a patch in its hands.

use super::memory::Attempt;
use super::observe::{Observed, Reserved};
use crate::api::Reservation;

/// What stands of the reservations.
pub struct Standing<'a> {
    /// Those that stay.
    pub kept: Vec<&'a Reservation>,
    /// Those whose pods nobody sees: they are to be read by name.
    pub unseen: Vec<&'a Reservation>,
}

/// Looks through the reservations.
pub fn standing<'a>(seen: &Observed<'a>) -> Standing<'a> {
    let stays = |reserved: &&Reserved<'a>| !reserved.is_settled && !is_free(reserved, seen);
    let kept = seen.reservations.iter().filter(stays);
    let unseen = seen.reservations.iter().filter(|one| one.is_out_of_sight);
    Standing {
        kept: kept.map(|one| one.entry).collect(),
        unseen: unseen.map(|one| one.entry).collect(),
    }
}

fn is_free(reserved: &Reserved<'_>, seen: &Observed<'_>) -> bool {
    let own = reserved.entry.holder == seen.identity;
    let waits = reserved.waits.filter(|pod| pod.grant.is_none());
    own && waits.is_some_and(|pod| seen.memory.attempt(&pod.id) == Attempt::None)
}
