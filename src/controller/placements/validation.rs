//! Errors in a pool's spec that the CRD's validation rules cannot detect. Pure.
//!
//! In: a pool, the operator's options, the nodes and the other pools. Out: an [`InvalidSpec`], whose text names
//! the field and the remedy.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use crate::aci::client::GroupScope;
use crate::api::{BurstPool, Placement};
use crate::controller::ControllerContext;
use crate::node::{capacity, last_placement, node_object};

/// An error in a pool's spec that the CRD's validation rules cannot detect, as text for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSpec(pub String);

/// The subscription and resource group of the pool's container groups: from its spec, or else from the
/// operator's options.
pub(in crate::controller) fn azure_scope(
    pool: &BurstPool,
    context: &ControllerContext,
) -> Result<GroupScope, InvalidSpec> {
    let azure = &pool.spec.azure;
    let or = |specified: &Option<String>, default: &str, field: &str, flag: &str| {
        let value = specified.clone().unwrap_or_else(|| default.to_owned());
        if value.is_empty() {
            return Err(InvalidSpec(format!(
                "spec.azure.{field} is not set, and the operator has no {flag}: set either"
            )));
        }
        Ok(value)
    };
    let default = &context.default_scope;
    Ok(GroupScope {
        subscription: or(
            &azure.subscription_id,
            &default.subscription,
            "subscriptionId",
            "--subscription-id",
        )?,
        resource_group: or(
            &azure.resource_group,
            &default.resource_group,
            "resourceGroup",
            "--resource-group",
        )?,
    })
}

/// The error that the spec names another scope than that of the existing container groups.
pub(in crate::controller) fn scope_changed(from: &GroupScope, to: &GroupScope) -> InvalidSpec {
    let describe = |scope: &GroupScope| {
        let GroupScope {
            subscription,
            resource_group,
        } = scope;
        format!("resource group {resource_group} of subscription {subscription}")
    };
    InvalidSpec(format!(
        "spec.azure names {}, but the pool's container groups are in {} and cannot move: change it back, or \
         create another pool; the change is possible once the pool has neither pods on ACI nor container groups \
         there",
        describe(to),
        describe(from)
    ))
}

/// The error that the spec names another scope, and that Azure forbids the operator to list the container groups
/// in the existing one.
pub(in crate::controller) fn unlisted(from: &GroupScope, to: &GroupScope) -> InvalidSpec {
    let InvalidSpec(message) = scope_changed(from, to);
    let group = &from.resource_group;
    InvalidSpec(format!(
        "{message}. Azure answers 403 when burstpool lists container groups there: give its identity the permission \
         Microsoft.ContainerInstance/containerGroups/read on resource group {group} (if {group} was deleted, create \
         it again and assign the role there), or give the placements other names"
    ))
}

/// Checks that the node of a placement does not belong to another owner. Each node has one owner: the pool that
/// the node records; before the node exists, the oldest of the `pools` that list it.
pub(in crate::controller) fn check_node_owner(
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
pub(in crate::controller) fn node_owned_by_other(
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

/// Checks that the operator knows the API server's address if a placement of the pool runs kube-proxy.
pub(in crate::controller) fn check_kube_proxy(
    pool: &BurstPool,
    has_api_server_url: bool,
) -> Result<(), InvalidSpec> {
    let mut placements = pool.spec.placements.iter().enumerate();
    match placements.find(|(_, placement)| placement.network.kube_proxy) {
        Some((index, _)) if !has_api_server_url => Err(InvalidSpec(format!(
            "spec.placements[{index}].network.kubeProxy needs the address at which pods on ACI reach the API \
             server: start burstpool with --api-server-url"
        ))),
        _ => Ok(()),
    }
}

/// Checks that the pool's placements can become nodes. The CRD's rules reject most of these errors, but not
/// all, and a pool may be older than the rules.
pub(in crate::controller) fn check_placements(pool: &BurstPool) -> Result<(), InvalidSpec> {
    for (index, placement) in pool.spec.placements.iter().enumerate() {
        let field = format!("spec.placements[{index}]");
        check_capacity(placement, &field)?;
        check_labels(&placement.labels, &format!("{field}.labels"))?;
    }
    Ok(())
}

fn check_capacity(placement: &Placement, field: &str) -> Result<(), InvalidSpec> {
    let capacity = &placement.capacity;
    for (name, quantity, example) in [
        ("cpu", &capacity.cpu, "100 or 500m"),
        ("memory", &capacity.memory, "400Gi"),
    ] {
        if capacity::quantity_milli(quantity).is_none() {
            return Err(InvalidSpec(format!(
                "{field}.capacity.{name}: '{}' is not an amount that a node can have: write a quantity from 0 to \
                 2^63 - 1, such as {example}",
                quantity.0
            )));
        }
    }
    Ok(())
}

/// Checks that these are valid labels of a node (apimachinery `pkg/util/validation`).
fn check_labels(labels: &BTreeMap<String, String>, field: &str) -> Result<(), InvalidSpec> {
    for (key, value) in labels {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        if !is_label_value(name) || name.is_empty() || !prefix.is_none_or(is_subdomain) {
            return Err(InvalidSpec(format!(
                "{field}: '{key}' is not a valid label key: write a name of at most 63 letters, digits, '-', '_' \
                 and '.' that begins and ends with a letter or digit, after a DNS name and '/' if it has a \
                 prefix, such as example.com/tier"
            )));
        }
        if !is_label_value(value) {
            return Err(InvalidSpec(format!(
                "{field}: '{value}' of {key} is not a valid label value: write at most 63 letters, digits, '-', \
                 '_' and '.', and begin and end with a letter or digit"
            )));
        }
    }
    Ok(())
}

/// Whether the text is empty, or at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a
/// letter or digit.
fn is_label_value(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 63
        && text.bytes().all(is_inner)
        && !text.starts_with(['-', '_', '.'])
        && !text.ends_with(['-', '_', '.'])
}

/// Whether the text is a DNS name in lower case.
fn is_subdomain(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::api::BurstPoolSpec;

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

    #[test]
    fn kube_proxy_needs_the_address_of_the_api_server() {
        let spec = json!({"azure": {}, "placements": [
            {"name": "a", "region": "westeurope"},
            {"name": "b", "region": "westeurope", "subnetId": "s", "network": {"kubeProxy": true}},
        ]});
        let mut spec: BurstPoolSpec = serde_json::from_value(spec).expect("a spec");
        let pool = |spec: &BurstPoolSpec| BurstPool::new("shop", spec.clone());
        assert_eq!(check_kube_proxy(&pool(&spec), true), Ok(()));
        let Err(InvalidSpec(mistake)) = check_kube_proxy(&pool(&spec), false) else {
            unreachable!("the spec is invalid");
        };
        assert!(
            mistake.starts_with("spec.placements[1].network.kubeProxy ")
                && mistake.ends_with(" start burstpool with --api-server-url"),
            "{mistake}"
        );
        spec.placements.truncate(1);
        assert_eq!(check_kube_proxy(&pool(&spec), false), Ok(()));
    }

    #[test]
    fn amounts_and_labels_that_no_node_can_have_are_named_with_their_field() {
        let error = |placement: serde_json::Value| {
            let mut two = json!([{"name": "a", "region": "westeurope"}, {"name": "b", "region": "westeurope"}]);
            json_patch::merge(&mut two[1], &placement);
            let spec = json!({"azure": {}, "placements": two});
            let spec: BurstPoolSpec = serde_json::from_value(spec).expect("a spec");
            check_placements(&BurstPool::new("shop", spec))
                .err()
                .map(|InvalidSpec(mistake)| mistake)
        };
        let long = "a".repeat(64);
        for valid in [
            json!({}),
            json!({"capacity": {"cpu": null, "memory": 0}}),
            json!({"capacity": {"cpu": "1.5", "memory": "7Ei"}}),
            json!({"labels": {"tier": "", "topology.kubernetes.io/zone": "1", "A_b.c-d": "A_b.c-d"}}),
        ] {
            assert_eq!(error(valid.clone()), None, "{valid}");
        }
        let capacity = "spec.placements[1].capacity";
        let labels = "spec.placements[1].labels";
        for (invalid, field) in [
            (
                json!({"capacity": {"cpu": "lots"}}),
                format!("{capacity}.cpu: 'lots' "),
            ),
            (
                json!({"capacity": {"cpu": ""}}),
                format!("{capacity}.cpu: '' "),
            ),
            (
                json!({"capacity": {"memory": "-1Gi"}}),
                format!("{capacity}.memory: '-1Gi' "),
            ),
            (
                json!({"capacity": {"memory": "9Ei"}}),
                format!("{capacity}.memory: '9Ei' "),
            ),
            (
                json!({"labels": {"": "x"}}),
                format!("{labels}: '' is not a valid label key"),
            ),
            (
                json!({"labels": {"a b": "x"}}),
                format!("{labels}: 'a b' is not a valid label key"),
            ),
            (
                json!({"labels": {"a/b/c": "x"}}),
                format!("{labels}: 'a/b/c' is not a valid label key"),
            ),
            (
                json!({"labels": {"/a": "x"}}),
                format!("{labels}: '/a' is not a valid label key"),
            ),
            (
                json!({"labels": {"A.example/b": "x"}}),
                format!("{labels}: 'A.example/b' is not a valid label key"),
            ),
            (
                json!({"labels": {"-a": "x"}}),
                format!("{labels}: '-a' is not a valid label key"),
            ),
            (
                json!({"labels": {long.clone(): "x"}}),
                format!("{labels}: '{long}' is not a valid label key"),
            ),
            (
                json!({"labels": {"a": "not so"}}),
                format!("{labels}: 'not so' of a "),
            ),
            (
                json!({"labels": {"a": long.clone()}}),
                format!("{labels}: '{long}' of a "),
            ),
            (
                json!({"labels": {"a": "é"}}),
                format!("{labels}: 'é' of a "),
            ),
        ] {
            let mistake = error(invalid.clone()).unwrap_or_default();
            assert!(
                mistake.starts_with(&field) && mistake.contains(": write "),
                "{invalid}: {mistake}"
            );
        }
    }
}
