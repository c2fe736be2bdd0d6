//! How many replicas a workload gets: the algorithm of the horizontal pod autoscaler. Pure.
//!
//! In: what the triggers wish, the replicas that there are, what was recommended and done before, the
//! time. Out: how many to set now, why, and why not more. Called by `controller::triggers`.
//!
//! ```text
//! wishes ─▶ wanted (greatest, tolerance) ─▶ step (stabilisation, policies, bounds) ─▶ replicas
//!                                              ▲
//!                                           History
//! ```
//!
//! A Prometheus trigger is what an autoscaler calls an external metric with an average value: the value is
//! divided by the replicas that the target is to have, whether their pods exist, are ready or have metrics,
//! so that pods that are starting count as bearing their share and nothing is added for them twice. Pods
//! that are unready or missing bear on an autoscaler's resource metrics only, which are not among the
//! triggers.
//!
//! In two things it is not the autoscaler of Kubernetes 1.37. The replicas are `spec.replicas`; the
//! autoscaler takes `status.replicas`, which a rollout's surge makes more. And percentages are exact;
//! floats make 111 of 100 replicas and 10 percent.

mod step;
mod wanted;

pub use step::{History, Step, step};
pub use wanted::{Ask, Wanted, wanted};

/// A number of replicas out of a calculation, as the autoscaler's source converts it.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a cast from a float saturates, which is what is wanted of too large ones"
)]
fn replicas(number: f64) -> i32 {
    number as i32
}
