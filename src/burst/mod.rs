//! Decides which pods burst to ACI, when, and how many.
//!
//! In: the watched objects (pods, nodes, pools, scales, namespaces, claims) and the leader's memory of earlier
//! plans. Out: a [`BurstPlan`] with the grants, the refusals and the waits with their reasons, the reservations to
//! write first, the pool's numbers, and the time of the next plan. `controller` calls this module, carries out
//! the plan and records the results in [`LeaderState`]. The code here is pure: it has no clock, no client and no
//! async functions.
//!
//! ```text
//! Pod ──▶ PodFacts ─────────┐                              ┌─▶ reservations ─▶ grants, releases, evictions
//! Pod ──▶ EligibilityCache ─┼─▶ observe ─▶ plan ─▶ BurstPlan ─┼─▶ counts, workloads, messages
//! Node ─▶ PlacementFacts ───┘        ▲                     └─▶ placement health, time of the next plan
//!                             LeaderState ◀── results of grants and creates ◀── controller
//! ```
//!
//! A module uses only modules above it in this table:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`outcome`], [`reasons`] | outcomes of pods, and their messages |
//! | [`facts`] | the parts of pods, nodes and other objects from which plans are made |
//! | [`leader_state`] | what the leader keeps between plans, and the health of placements |
//! | [`mod@observation`] | which of the watched objects concern one pool |
//! | [`rules`] | the rules that a grant has to satisfy, each independent of the others |
//! | [`decision`] | the decision for one pending pod |
//! | [`select`] | the steps that select the outcome of each pod |
//! | [`mod@plan`] | the plan for all pods of a pool |

pub mod decision;
pub mod facts;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod leader_state;
pub mod observation;
pub mod outcome;
pub mod plan;
pub mod reasons;
pub mod rules;
pub mod select;
#[cfg(test)]
mod tests;

pub use decision::PodDecision;
pub use facts::assignment::{NamespaceLabels, TargetScale, TargetScales};
pub use facts::eligibility::{
    ClaimState, ClaimStates, EligibilityCache, MountReadiness, mount_readiness,
};
pub use facts::neighbors::Neighbors;
pub use facts::placement::PlacementFacts;
pub use facts::pod::{PodFacts, PodReference};
pub use leader_state::placement_health::{PlacementAvailability, PlacementHealth};
pub use leader_state::{LeaderState, PodWriteResult};
pub use observation::{ClusterInputs, Leadership, ObservedPool, PoolInputs, observe};
pub use outcome::{BlockedBy, PodOutcome};
pub use plan::{BurstPlan, plan};
pub use reasons::ReasonCounts;
