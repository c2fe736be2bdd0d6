//! Selects the outcome of every pending pod of a pool, in these steps:
//!
//! | module | step |
//! | --- | --- |
//! | [`reservations`] | which pods hold a slot before any watch shows their grant |
//! | [`triage`] | what can be decided about a pod without the other pods |
//! | [`admission`] | which of the others get the free slots, rate and capacity |
//! | [`allocation`] | how the workloads share them |
//! | [`grant_limits`] | all limits of the pool together |
//! | [`pre_reservation`] | slots for pods whose hold ends soon |
//! | [`decisions`] | the decision for each pod, and the refused-since times to write |
//! | [`never_started`] | what to do about bound pods that never started |
//! | [`counts`] | the numbers and messages of the pool's status |

pub(super) mod admission;
pub(super) mod allocation;
pub(super) mod counts;
pub(super) mod decisions;
pub mod grant_limits;
pub mod never_started;
pub(super) mod pre_reservation;
pub mod reservations;
pub(super) mod triage;
