//! Decides about placements that a spec lists and whose tasks do not run. Pure.
//!
//! In: a pool, and the placement's node, if it exists. Out: a [`PlacementChange`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::task::PlacementSpec;
use crate::aci::client::GroupScope;
use crate::api::{BurstPool, Placement};
use crate::controller::placements::validation::{self, InvalidSpec};
use crate::node::last_placement;

/// What to do with a placement that the spec lists and whose tasks do not run.
#[derive(Debug, PartialEq)]
pub(super) enum PlacementChange {
    /// Run it with the spec's settings.
    RunAsSpecified(PlacementSpec),
    /// Run it with the settings that its node records, because the spec is invalid.
    RunAsRecorded(PlacementSpec, InvalidSpec),
    /// Do not run it.
    Reject(InvalidSpec),
}

impl PlacementChange {
    /// The settings with which the placement runs, if it does, and the error in the spec, if there is one.
    pub fn into_parts(self) -> (Option<PlacementSpec>, Option<InvalidSpec>) {
        match self {
            Self::RunAsSpecified(spec) => (Some(spec), None),
            Self::RunAsRecorded(spec, mistake) => (Some(spec), Some(mistake)),
            Self::Reject(mistake) => (None, Some(mistake)),
        }
    }
}

/// The node of a placement, as far as it is known.
#[derive(Clone, Copy, Default)]
pub(super) struct LiveNode<'a> {
    /// The node as it was read by name, if the placement's tasks did not run before.
    pub read: Option<&'a Node>,
    /// The node as the watch last showed it, if it has the label of a pool. It may be out of date.
    pub watched: Option<&'a Node>,
}

impl<'a> LiveNode<'a> {
    /// The node, for questions that an outdated answer does not harm.
    pub fn latest(&self) -> Option<&'a Node> {
        self.read.or(self.watched)
    }
}

/// Decides about a placement whose node is `live`, if it has one. The node records where its container groups
/// are: a spec that names another resource group is rejected under every leader, as under the one that saw the
/// change. Only a node that was read counts for this, because the watch may show a record from before the last
/// change.
pub(super) fn placement_change(
    pool: &BurstPool,
    placement: &Placement,
    scope: &Result<GroupScope, InvalidSpec>,
    live: LiveNode<'_>,
    pools: &[Arc<BurstPool>],
) -> PlacementChange {
    let node = live.latest();
    if let Err(mistake) = validation::check_node_owner(pool, &placement.name, node, pools) {
        return PlacementChange::Reject(mistake);
    }
    let found = live
        .read
        .map(|node| last_placement::discovered_node(node, &pool.name_any(), &placement.name));
    let recorded = found.and_then(|found| found.last_placement);
    let mistake = match (scope, &recorded) {
        (Ok(scope), Some(recorded)) if recorded.scope() != *scope => {
            validation::scope_changed(&recorded.scope(), scope)
        }
        (Ok(scope), _) => {
            return PlacementChange::RunAsSpecified(PlacementSpec::from_pool(
                pool, placement, scope,
            ));
        }
        (Err(mistake), _) => mistake.clone(),
    };
    match recorded {
        None => PlacementChange::Reject(mistake),
        Some(recorded) => {
            let spec = PlacementSpec::from_pool(pool, &recorded.placement, &recorded.scope());
            PlacementChange::RunAsRecorded(spec, mistake)
        }
    }
}
