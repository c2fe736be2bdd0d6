//! Decides whether a pool may use the scope that its spec names.
//!
//! In: a pool, and what is left of its placements in another scope. Out: the scope, or an [`InvalidSpec`]. Azure
//! cannot move container groups, and the operator would lose track of those in another scope.

use std::sync::Arc;

use kube::ResourceExt as _;

use super::{PlacementRegistry, has_placement};
use crate::aci::client::GroupScope;
use crate::api::BurstPool;
use crate::controller::placements::PlacementId;
use crate::controller::placements::drainable_pods::list_drainable_pods;
use crate::controller::placements::validation::{
    self, InvalidSpec, azure_scope, check_kube_proxy, check_placements,
};
use crate::node::pods::PodsContext;

impl PlacementRegistry {
    /// The subscription and resource group that the spec names for the pool's container groups, if the spec is
    /// valid and the pool has no container groups elsewhere.
    pub(super) async fn allowed_scope(&self, pool: &BurstPool) -> Result<GroupScope, InvalidSpec> {
        let scope = azure_scope(pool, &self.context.parts.default_scope)?;
        check_placements(pool)?;
        check_kube_proxy(pool, self.context.parts.kube_proxy.is_some())?;
        self.check_scope(pool, &scope).await?;
        Ok(scope)
    }

    /// Whether the pool's container groups are in the scope that its spec names now. Until those in another scope
    /// are gone, all tasks continue unchanged. A placement that the spec does not list now is drained where it
    /// is.
    async fn check_scope(&self, pool: &BurstPool, scope: &GroupScope) -> Result<(), InvalidSpec> {
        let elsewhere: Vec<(PlacementId, GroupScope)> = {
            let running = self.running.lock().await;
            let name = pool.name_any();
            let elsewhere = running.of_pool(&name).filter(|(id, task)| {
                let is_listed = has_placement(pool, &id.placement);
                is_listed && !task.has_lost_node() && task.spec.scope != *scope
            });
            let elsewhere = elsewhere.map(|(id, task)| (id.clone(), task.spec.scope.clone()));
            elsewhere.collect()
        };
        for (id, from) in elsewhere {
            match self.remains(&id).await {
                PlacementRemains::Nothing => {}
                PlacementRemains::Something => return Err(validation::scope_changed(&from, scope)),
                PlacementRemains::Unlisted => return Err(validation::unlisted(&from, scope)),
            }
        }
        Ok(())
    }

    /// What is left of a placement, read again now.
    async fn remains(&self, id: &PlacementId) -> PlacementRemains {
        let pods: Option<Arc<PodsContext>> = {
            let running = self.running.lock().await;
            running.get(id).map(|task| task.pods.clone())
        };
        let Some(pods) = pods else {
            return PlacementRemains::Nothing;
        };
        if pods.has_pods_or_groups() {
            return PlacementRemains::Something;
        }
        let on_node = list_drainable_pods(&self.context.parts.client, &id.node_name()).await;
        if !on_node.is_ok_and(|pods| pods.is_empty()) {
            return PlacementRemains::Something;
        }
        let groups = self.count_groups(id).await;
        PlacementRemains::of(groups, pods.is_list_forbidden())
    }
}

/// What is left of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlacementRemains {
    /// Neither pods nor container groups.
    Nothing,
    /// Pods or container groups, as far as is known.
    Something,
    /// No pods. The operator's identity may not list container groups there, and some may exist.
    Unlisted,
}

impl PlacementRemains {
    /// What is left of a placement without pods, if it has this many container groups. The answer 403 proves
    /// nothing: the operator's identity may have lost the right while container groups run. A resource group that
    /// does not exist has the count 0.
    pub fn of(groups: Option<usize>, is_forbidden: bool) -> Self {
        match groups {
            Some(0) => Self::Nothing,
            None if is_forbidden => Self::Unlisted,
            _ => Self::Something,
        }
    }
}
