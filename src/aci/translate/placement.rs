//! Where a group goes.

use std::collections::BTreeMap;

use crate::api::{self, Priority, Sku};

/// What of a pool and of its node a translation needs.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The placement as the pool has it.
    pub spec: &'a api::Placement,
    /// The pool's tags for groups.
    pub tags: &'a BTreeMap<String, String>,
    /// The virtual node's name.
    pub node: &'a str,
    /// The virtual node's address; without it a pod that asks for `status.hostIP` is refused.
    pub node_address: Option<&'a str>,
}

impl Placement<'_> {
    pub(super) fn is_spot(&self) -> bool {
        self.spec.priority == Priority::Spot
    }

    pub(super) fn is_confidential(&self) -> bool {
        self.spec.sku == Sku::Confidential
    }

    pub(super) fn is_in_subnet(&self) -> bool {
        self.spec.subnet_id.is_some()
    }
}
