//! The custom resource: what an operator's user writes and reads.
//!
//! Knows nobody. A field is here only once something reads it; `crds/burstpools.yaml` is printed
//! from these types by `burstpool crds`, and a test keeps it equal.

mod pool;

pub use pool::{Azure, BurstPool, BurstPoolSpec, Placement, crd_yaml};
