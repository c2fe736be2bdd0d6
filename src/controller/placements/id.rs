//! The key of a placement.

use std::fmt;

use crate::node::node_object;

/// A placement of a pool, by the names of both. A placement's name is unique only in its pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::controller) struct PlacementId {
    /// The pool's name.
    pub pool: String,
    /// The placement's name.
    pub placement: String,
}

impl PlacementId {
    /// The placement of this name in the pool of that name.
    pub fn new(pool: &str, placement: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            placement: placement.to_owned(),
        }
    }

    /// The name of the placement's virtual node. Several placements may have the same node name, if one pool's
    /// name begins with the other's: only one of them gets the node.
    pub fn node_name(&self) -> String {
        node_object::name(&self.pool, &self.placement)
    }
}

impl fmt::Display for PlacementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.placement)
    }
}
