//! The custom resource: what an operator's user writes and reads.
//!
//! Knows nobody. A field is here only once something reads it; `crds/burstpools.yaml` is printed
//! from these types by `burstpool crds`, and a test keeps it equal.

pub mod condition;
mod limit;
pub mod names;
mod pool;
mod spill;
mod status;

pub use limit::MaxReplicas;
pub use pool::{
    Azure, BurstPool, BurstPoolSpec, Capacity, Dns, Network, Placement, Priority, Sku, crd_yaml,
};
pub use spill::{Mode, PodsSelector, Rate, ScaleIn, Spill, SpillOverride, Target, Workload};
pub use status::{BurstPoolStatus, PlacementStatus, PodCounts, Reservation, WorkloadStatus};
