//! Decides which pods burst to ACI, when, and how many.
//!
//! In: the watched objects (pods, nodes, pools, scales, namespaces, claims) and the leader's memory of earlier
//! plans. Out: a [`BurstPlan`] with the grants, the refusals and the waits with their reasons, the reservations to
//! write first, the pool's numbers, and the time of the next plan. `controller` calls this module, carries out
//! the plan and records the results in [`LeaderState`]. The code here is pure: it has no clock, no client and no
//! async functions.
//!
//! ```text
//! Pod ─▶ PodFacts ┐                             ┌─▶ reservations ─▶ grants, releases, stamps, rescues
//! Pod ─▶ Verdicts ┼─▶ observe ─▶ plan ─▶ Plan ──┼─▶ counts, workloads, messages
//! Node ─▶ Place ──┘        ▲                    └─▶ doors, time of the next plan
//!                       Memory ◀── results of grants and creates ◀── controller
//! ```
//!
//! | file | decides |
//! | --- | --- |
//! | [`pod`], [`resource_amounts`], [`node_constraints`], [`placement_facts`] | which fields of a pod and of a node matter |
//! | [`eligibility`] | whether ACI can run a pod (calls `aci::translate` once for each version) |
//! | [`label_selector`], [`assignment`] | which pool and workload a pod belongs to |
//! | [`mod@observation`] | which of the watched objects concern one pool |
//! | [`hold`], [`rate`], [`limits`], [`fairness`] | how long pods wait, how many are granted, which ones first |
//! | [`reservations`] | which pods hold a slot before any watch shows their grant |
//! | [`placement_health`], [`capacity`] | whether a placement takes pods, and how many more fit |
//! | `topology` | whether running pods let a pod in (affinity, anti-affinity, topology spread) |
//! | `sort`, `share`, `ahead`, [`mod@plan`] | the outcome of each pod, and the plan for all of them |
//! | [`expiry`] | when a grant expires because the scheduler does not place the pod |
//! | [`never_started`], [`jobs`] | what to do about pods that never started |
//! | [`outcome`], [`reasons`], `tally` | messages and counts |
//! | [`leader_state`] | what the leader keeps between plans |

mod admission;
pub mod assignment;
pub mod capacity;
mod counts;
pub mod eligibility;
pub mod expiry;
pub mod fairness;
pub mod hold;
pub mod jobs;
pub mod leader_state;
pub mod limits;
pub mod never_started;
pub mod node_constraints;
pub mod observation;
pub mod outcome;
pub mod placement_facts;
pub mod placement_health;
pub mod plan;
pub mod pod;
mod pre_reservation;
pub mod rate;
pub mod reasons;
pub mod reservations;
pub mod resource_amounts;
pub mod topology;
mod triage;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

pub use assignment::{NamespaceLabels, TargetScale, TargetScales};
pub use eligibility::{ClaimState, ClaimStates, EligibilityCache, MountReadiness, mount_readiness};
pub use leader_state::{LeaderState, PodWriteResult};
pub use observation::{ClusterInputs, Leadership, ObservedPool, PoolInputs, observe};
pub use outcome::{BlockedBy, PodOutcome};
pub use placement_facts::PlacementFacts;
pub use placement_health::{PlacementAvailability, PlacementHealth};
pub use plan::{BurstPlan, PodDecision, plan};
pub use pod::{PodFacts, PodReference};
pub use reasons::ReasonCounts;
pub use topology::Neighbors;
