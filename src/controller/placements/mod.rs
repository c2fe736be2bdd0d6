//! The placements of pools: from an entry in `spec.placements` to a virtual node, and its end.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`validation`] | checks what the CRD's schema cannot, for example that no two placements share a node |
//! | [`registry`] | starts, follows and stops the tasks of each placement's node |
//! | [`drain`] | evicts the pods of a removed placement, then deletes its node |
//! | [`orphans`] | finds nodes that no spec lists, and drains them |

pub(super) mod drain;
pub(super) mod orphans;
pub(super) mod registry;
pub(super) mod validation;
