//! Computes how many replicas a workload gets, with the algorithm of the horizontal pod autoscaler (HPA). Pure.
//!
//! In: the proposals of the triggers, the present replicas, the [`ScalingHistory`], and the time. Out: how many
//! replicas to set now, why, and what limits them. Called by `controller::triggers`.
//!
//! ```text
//! proposals ─▶ desired (greatest, tolerance) ─▶ step (stabilization, policies, bounds) ─▶ replicas
//!                                                ▲
//!                                         ScalingHistory
//! ```
//!
//! A Prometheus trigger corresponds to an external metric with an average value in an HPA. The value is divided
//! by the target's desired replicas, whether or not their pods exist, are ready or have metrics. So pods that
//! are starting already count as taking their part of the load, and no replicas are added for it twice. Unready
//! pods and missing metrics matter only for the HPA's resource metrics, which burstpool has no trigger for.
//!
//! There are two differences from the HPA of Kubernetes 1.37. burstpool uses `spec.replicas`; the HPA uses
//! `status.replicas`, which is higher while a rollout surges. And percentages are exact here; with the HPA's
//! floating point numbers, 100 replicas plus 10 percent are 111.

mod desired;
mod step;

pub use desired::{DesiredReplicas, TriggerRequest, desired_replicas};
pub use step::{ReplicaStep, ScalingHistory, step};

/// Converts a calculated number of replicas as the HPA's source does: truncated, and saturated at the range of
/// `i32`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a cast from a float saturates, which is correct for numbers that are too large"
)]
fn to_replicas(number: f64) -> i32 {
    number as i32
}
