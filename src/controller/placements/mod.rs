//! The placements of pools: from an entry in `spec.placements` to a virtual node, and its end.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`validation`] | checks what the CRD's schema cannot, for example that no two placements share a node |
//! | [`registry`] | starts, follows and stops the tasks of each placement's node |
//! | [`drain`] | evicts the pods of a removed placement, then deletes its node |
//! | [`drain_pace`] | decides when to repeat an eviction or a count of container groups |
//! | [`pool_nodes`] | reads the nodes of a pool, and drains those that its spec does not list |
//! | [`deleted_pools`] | drains deleted pools |
//! | [`drainable_pods`] | lists the pods on a node |

pub(super) mod deleted_pools;
pub(super) mod drain;
mod drain_pace;
mod drainable_pods;
mod error;
mod id;
pub(super) mod pool_nodes;
pub(super) mod registry;
pub(super) mod validation;

pub(super) use error::Error;
pub(super) use id::PlacementId;
