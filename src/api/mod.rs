//! The custom resource: what an operator's user writes and reads.
//!
//! Knows nobody. A field is here only once something reads it; `crds/burstpools.yaml` is printed
//! from these types by `burstpool crds`, and a test keeps it equal.

#[cfg(test)]
mod accepted;
pub mod condition;
mod limit;
pub mod names;
mod pool;
pub mod reference;
mod scale;
mod spill;
mod status;
mod trigger;
mod version;

pub use limit::MaxReplicas;
pub use pool::{
    Azure, BurstPool, BurstPoolSpec, Capacity, Dns, Network, Placement, Priority, Sku, crd_yaml,
};
pub use scale::{Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy, WorkloadScale};
pub use spill::{Mode, PodsSelector, Rate, ScaleIn, Spill, SpillOverride, Target, Workload};
pub use status::{
    BurstPoolStatus, FiringAlert, PlacementStatus, PodCounts, Reservation, ScaleStatus,
    TriggerStatus, WorkloadStatus,
};
pub use trigger::{Alert, OnError, Prometheus, Schedule, SecretRef, Then, Trigger};
pub use version::version;
