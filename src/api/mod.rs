//! The custom resource `BurstPool`: its spec, which users write, and its status, which the operator writes.
//!
//! In: pools as JSON from the API server. Out: typed pools, and the custom resource definition, which
//! `burstpool crds` prints; a test compares it with `crds/burstpools.yaml`. Depends on no other module of burstpool.
//! It has only fields that the operator uses. The doc comments of fields are the texts of `kubectl explain`.

#[cfg(test)]
mod accepted;
pub mod condition;
mod loss;
mod max_replicas;
pub mod names;
mod placement;
mod pool;
pub mod reference;
mod scale;
mod spill;
mod status;
mod trigger;

pub use crate::k8s::resource_version::parse_resource_version;
pub use loss::{AcceptedLoss, LossSet, NO_LOSSES};
pub use max_replicas::MaxReplicas;
pub use placement::{Capacity, Dns, Network, Placement, Priority, ReadImages, Sku};
pub use pool::{AzureSpec, BurstPool, BurstPoolSpec, crd_yaml};
pub use scale::{Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy, WorkloadScale};
pub use spill::{Mode, PodsSelector, Rate, ScaleIn, Spill, SpillOverride, Target, Workload};
pub use status::{
    BurstPoolStatus, FiringAlert, PlacementStatus, PodCounts, Reservation, ScaleStatus,
    TriggerStatus, WorkloadStatus,
};
pub use trigger::{Alert, OnError, Prometheus, Schedule, SecretRef, Then, Trigger, TriggerKind};
