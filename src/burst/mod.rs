//! Who bursts, when and how many: every decision, and the reason of each.
//!
//! In: plain references to what is watched, and what a leader remembers. Out: a [`Plan`]: grants,
//! refusals and waits with their reasons, the reservations that must be written first, the pool's
//! numbers, and when to look again. Pure: no clock, no client, nothing asynchronous. Called by
//! `controller`, which carries a plan out and tells [`Memory`] how that ended.
//!
//! ```text
//! Pod ─▶ PodFacts ┐                             ┌─▶ reservations ─▶ grants, releases, stamps, rescues
//! Pod ─▶ Verdicts ┼─▶ observe ─▶ plan ─▶ Plan ──┼─▶ counts, workloads, messages
//! Node ─▶ Place ──┘        ▲                    └─▶ doors, look again
//!                       Memory ◀── answers, creates that ended ◀── whoever carried it out
//! ```
//!
//! | file | decides |
//! | --- | --- |
//! | [`pod`], [`amounts`], [`fit`], [`place`] | what of a pod and a node matters |
//! | [`eligibility`] | whether ACI can run a pod (asks `aci::translate`, once for each version) |
//! | [`labels`], [`assign`] | which pool and workload a pod belongs to |
//! | [`mod@observe`] | what bears on one pool |
//! | [`hold`], [`rate`], [`limits`], [`fairness`] | when, how fast, how many, who first |
//! | [`reserve`] | which pods count although nobody sees them granted |
//! | [`backend`], [`room`] | whether a placement takes pods, and how many more fit |
//! | `topology` | whether the pods that run already let a pod in |
//! | `sort`, `share`, `ahead`, [`mod@plan`] | what becomes of each pod, and all of it together |
//! | [`expiry`] | when the scheduler has passed a granted pod by for too long |
//! | [`rescue`], [`jobs`] | what becomes of pods that never started |
//! | [`outcome`], [`reasons`], `tally` | the words and numbers |
//! | [`memory`] | what outlives a plan |

mod ahead;
pub mod amounts;
pub mod assign;
pub mod backend;
pub mod eligibility;
pub mod expiry;
pub mod fairness;
pub mod fit;
pub mod hold;
pub mod jobs;
pub mod labels;
pub mod limits;
pub mod memory;
pub mod observe;
pub mod outcome;
pub mod place;
pub mod plan;
pub mod pod;
pub mod rate;
pub mod reasons;
pub mod rescue;
pub mod reserve;
pub mod room;
mod share;
mod sort;
mod tally;
pub mod topology;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use assign::{Namespaces, Scale, Scales};
pub use backend::{Backend, Door};
pub use eligibility::{Behind, Claims, Mounts, Verdicts, mounts};
pub use memory::{Answer, Memory};
pub use observe::{Observed, Own, Standing, World, observe};
pub use outcome::{Lack, Outcome};
pub use place::Place;
pub use plan::{Decision, Plan, plan};
pub use pod::{PodFacts, PodRef};
pub use reasons::Reasons;
pub use topology::Neighbors;
