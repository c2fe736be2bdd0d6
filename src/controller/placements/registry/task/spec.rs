//! The settings with which a placement runs: from a pool's spec, or from what its node records.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use tracing::Span;

use super::TaskContext;
use crate::aci::client::GroupScope;
use crate::api::{BurstPool, Placement, ScaleIn};
use crate::controller::placements::PlacementId;
use crate::node::last_placement::{DiscoveredNode, LastPlacement};
use crate::node::pods::PodSettings;

/// The settings with which a placement runs.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::controller::placements::registry) struct PlacementSpec {
    pub pool: String,
    pub pool_uid: String,
    pub placement: Placement,
    pub scope: GroupScope,
    pub tags: BTreeMap<String, String>,
    pub deletion_cost: i32,
}

impl PlacementSpec {
    /// The settings that the pool's spec asks for.
    pub fn from_pool(pool: &BurstPool, placement: &Placement, scope: &GroupScope) -> Self {
        Self {
            pool: pool.name_any(),
            pool_uid: pool.uid().unwrap_or_default(),
            placement: placement.clone(),
            scope: scope.clone(),
            tags: pool.spec.azure.tags.clone(),
            deletion_cost: pool.spec.scale_in.deletion_cost,
        }
    }

    /// The placement's key.
    pub fn id(&self) -> PlacementId {
        PlacementId::new(&self.pool, &self.placement.name)
    }

    /// The span of the placement's log lines.
    pub(super) fn span(&self) -> Span {
        let (placement, node) = (&self.placement.name, self.id().node_name());
        tracing::error_span!(parent: None, "placement", pool = self.pool, placement, %node)
    }

    /// Whether `other` has the same node and the same container groups. All other settings can change while
    /// pods run.
    pub fn is_same_node(&self, other: &Self) -> bool {
        let node = |spec: &Self| {
            let Placement {
                name,
                region,
                subnet_id,
                ..
            } = &spec.placement;
            (name.clone(), region.clone(), subnet_id.clone())
        };
        (&self.pool, &self.pool_uid, &self.scope) == (&other.pool, &other.pool_uid, &other.scope)
            && node(self) == node(other)
    }

    /// The settings that can change while pods run.
    pub(super) fn settings(&self, context: &TaskContext) -> PodSettings {
        let kube_proxy = context.parts.kube_proxy.clone();
        PodSettings {
            placement: self.placement.clone(),
            tags: self.tags.clone(),
            kube_proxy: kube_proxy.filter(|_| self.placement.network.kube_proxy),
            deletion_cost: self.deletion_cost,
        }
    }

    /// The settings to be recorded on the node.
    pub fn last_placement(&self) -> LastPlacement {
        LastPlacement::new(&self.scope, &self.placement)
    }

    /// The settings that the node records, for a placement that drains or whose pool cannot be read; `None` if
    /// it records none. The pool's tags and deletion cost are not recorded: existing container groups have
    /// their tags already, and the deletion cost is the default, because such a placement is not scaled in.
    pub fn from_node(found: DiscoveredNode) -> Option<Self> {
        let record = found.last_placement?;
        Some(Self {
            pool: found.pool,
            pool_uid: found.pool_uid.unwrap_or_default(),
            scope: record.scope(),
            placement: record.placement,
            tags: BTreeMap::new(),
            deletion_cost: ScaleIn::default().deletion_cost,
        })
    }
}
