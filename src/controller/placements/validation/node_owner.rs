//! Checks that each node has one owner: several pools may list placements whose nodes would have the same name.
//! Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::InvalidSpec;
use crate::api::BurstPool;
use crate::node::{last_placement, node_object};

/// Checks that the node of a placement does not belong to another owner. Each node has one owner: the pool that
/// the node records; before the node exists, the oldest of the `pools` that list it.
pub(in crate::controller::placements) fn check_node_owner(
    pool: &BurstPool,
    placement: &str,
    live: Option<&Node>,
    pools: &[Arc<BurstPool>],
) -> Result<(), InvalidSpec> {
    let (name, uid) = (pool.name_any(), pool.uid().unwrap_or_default());
    let node = node_object::name(&name, placement);
    let other_owner = match live {
        Some(live) => last_placement::other_owner(live, &name, &uid),
        None => {
            older_claimant(pool, &node, pools).map(|other| format!("pool {}", other.name_any()))
        }
    };
    match other_owner {
        None => Ok(()),
        Some(other_owner) => Err(node_owned_by_other(placement, &node, &other_owner)),
    }
}

/// The error that the node of a placement belongs to another owner.
pub(in crate::controller::placements) fn node_owned_by_other(
    placement: &str,
    node: &str,
    owner: &str,
) -> InvalidSpec {
    InvalidSpec(format!(
        "spec.placements: the node of placement {placement} would be named {node}, which belongs to {owner}: \
         give the placement another name, or create a pool with another name"
    ))
}

/// The oldest other pool that lists this node, if it is older than this pool.
fn older_claimant<'a>(
    pool: &BurstPool,
    node: &str,
    pools: &'a [Arc<BurstPool>],
) -> Option<&'a BurstPool> {
    let age = |pool: &BurstPool| {
        let created = pool.metadata.creation_timestamp.as_ref();
        (created.map(|created| created.0), pool.uid())
    };
    let lists_node = |other: &&BurstPool| {
        let (name, mut placements) = (other.name_any(), other.spec.placements.iter());
        placements.any(|placement| node_object::name(&name, &placement.name) == node)
    };
    let others = pools.iter().map(Arc::as_ref).filter(|other| {
        other.metadata.deletion_timestamp.is_none() && other.name_any() != pool.name_any()
    });
    let oldest = others.filter(lists_node).min_by_key(|other| age(other))?;
    (age(oldest) < age(pool)).then_some(oldest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NAMES: [&str; 4] = ["shop", "shop-eu", "shop-eu-west", "peak"];
    const PLACEMENTS: [&str; 5] = ["a", "eu-a", "west-a", "eu-west-a", "eu-west"];

    /// A pool that was created at that second, with those of [`PLACEMENTS`] whose bits are set.
    fn pool_with(name: &str, created: u8, placements: u8) -> Arc<BurstPool> {
        let listed = PLACEMENTS.iter().enumerate();
        let listed = listed.filter(|(index, _)| placements & (1 << index) != 0);
        let listed: Vec<_> = listed
            .map(|(_, name)| json!({"name": name, "region": "westeurope"}))
            .collect();
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": name, "uid": format!("uid-{name}"),
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"azure": {}, "placements": listed},
        });
        Arc::new(serde_json::from_value(pool).expect("a pool"))
    }

    /// A node as its pool registered it; without `has_uid`, as an earlier version did, without the pool's UID.
    fn registered(name: &str, pool: &str, placement: &str, has_uid: bool) -> Node {
        let mut node = json!({"metadata": {"name": name, "labels": {
            "burstpool.io/pool": pool, "burstpool.io/placement": placement}}});
        if has_uid {
            node["metadata"]["annotations"] =
                json!({"burstpool.io/pool-uid": format!("uid-{pool}")});
        }
        serde_json::from_value(node).expect("a node")
    }

    proptest! {
        #[test]
        fn each_node_has_one_owner_whatever_pools_and_placements_there_are(
            pools in proptest::collection::btree_map(0..NAMES.len(), (0..4_u8, 1..32_u8), 1..=4),
            owner in proptest::option::of((0..NAMES.len(), any::<bool>())),
        ) {
            let pools: Vec<_> = pools
                .into_iter()
                .map(|(name, (created, placements))| pool_with(NAMES[name], created, placements))
                .collect();
            let mut claimants = BTreeMap::<String, Vec<(String, &str)>>::new();
            for pool in &pools {
                for placement in &pool.spec.placements {
                    let node = node_object::name(&pool.name_any(), &placement.name);
                    claimants.entry(node).or_default().push((pool.name_any(), &placement.name));
                }
            }
            for (node, claimants) in claimants {
                let owner = owner.map(|(index, has_uid)| (&claimants[index % claimants.len()], has_uid));
                let live = owner.map(|((pool, placement), has_uid)| {
                    registered(&node, pool, placement, has_uid)
                });
                let owners = claimants.iter().filter(|(name, placement)| {
                    let pool = pools.iter().find(|pool| pool.name_any() == *name);
                    let pool = pool.expect("it is one of them");
                    check_node_owner(pool, placement, live.as_ref(), &pools).is_ok()
                });
                let owners: Vec<_> = owners.collect();
                prop_assert_eq!(owners.len(), 1, "{} is of {:?}", node, owners);
                if let Some((owner, _)) = owner {
                    prop_assert_eq!(owners[0], owner);
                }
            }
        }
    }

    #[test]
    fn a_node_of_another_pool_is_reported_with_its_owner_and_the_remedy() {
        let (older, newer) = (pool_with("shop", 1, 16), pool_with("shop-eu", 2, 0));
        let mut newer = (*newer).clone();
        newer.spec.placements = vec![crate::api::Placement {
            name: "west".to_owned(),
            ..Default::default()
        }];
        let pools = [older.clone(), Arc::new(newer.clone())];
        assert_eq!(check_node_owner(&older, "eu-west", None, &pools), Ok(()));
        let Err(InvalidSpec(mistake)) = check_node_owner(&newer, "west", None, &pools) else {
            unreachable!("the node belongs to the other pool");
        };
        assert_eq!(
            mistake,
            "spec.placements: the node of placement west would be named burst-shop-eu-west, which belongs to \
             pool shop: give the placement another name, or create a pool with another name"
        );
        // A node of the cluster that happens to have this name.
        let cluster_node = json!({"metadata": {"name": "burst-shop-eu-west"}});
        let cluster_node: Node = serde_json::from_value(cluster_node).expect("a node");
        assert!(check_node_owner(&older, "eu-west", Some(&cluster_node), &pools).is_err());
    }
}
